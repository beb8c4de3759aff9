//! Graphs as exporters spell them, normalised and compared with themselves.

use std::collections::BTreeMap;

use marill_compiler::ir::{Graph, Owner, TextOptions, ValueId, interpret, print, verify};
use marill_compiler::normalise::normalise;
use marill_plaintext::{Op, Tensor};

/// A graph in the making, and inputs for it.
#[derive(Default)]
pub struct Spelling {
    pub graph: Graph,
    inputs: BTreeMap<String, Tensor>,
    seed: u64,
}

impl Spelling {
    fn noise(&mut self, shape: &[usize]) -> Tensor {
        let elements = (0..shape.iter().product())
            .map(|_| {
                self.seed =
                    self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.seed >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        Tensor::f32(shape, elements).unwrap()
    }

    pub fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let tensor = self.noise(shape);
        self.given(name, tensor)
    }

    pub fn given(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.graph.add_input(name, tensor.ty());
        self.inputs.insert(name.to_owned(), tensor);
        id
    }

    pub fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let tensor = self.noise(shape);
        self.graph.add_constant(name, tensor)
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("constant", tensor)
    }

    pub fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar_f32(value))
    }

    pub fn op(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        let name = op.name();
        self.graph.apply(op, args, name).unwrap()
    }

    pub fn with(&mut self, op: Op, x: ValueId, value: f32) -> ValueId {
        let number = self.number(value);
        self.op(op, &[x, number])
    }

    pub fn mean(&mut self, x: ValueId) -> ValueId {
        let axes = vec![self.graph.shape(x).len() - 1];
        self.op(Op::ReduceMean { axes, keepdims: true }, &[x])
    }

    /// Normalises and checks that the outputs stay the same; elements of `ignored` are not compared.
    fn normalised(mut self, value: ValueId, ignored: impl Fn(usize) -> bool) -> Normalised {
        self.graph.add_output("out", value, Owner::Client);
        verify(&self.graph).unwrap();
        let expected = interpret(&self.graph, &self.inputs).unwrap();
        let graph = normalise(self.graph).unwrap();
        verify(&graph).unwrap();
        let found = interpret(&graph, &self.inputs).unwrap();
        assert_eq!(found[0].1.ty(), expected[0].1.ty());
        let (found, expected) = (found[0].1.to_f32_vec().unwrap(), expected[0].1.to_f32_vec().unwrap());
        for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
            let same = (a - b).abs() <= 2e-5 * b.abs().max(1.0);
            assert!(same || ignored(at), "element {at} is {a}, was {b}\n{}", text(&graph));
        }
        Normalised(graph)
    }

    pub fn same(self, value: ValueId) -> Normalised {
        self.normalised(value, |_| false)
    }
}

pub struct Normalised(pub Graph);

fn text(graph: &Graph) -> String {
    print(graph, TextOptions::default())
}

impl Normalised {
    /// The operations there are, sorted.
    pub fn operations(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.0.dag.node_indices().filter_map(|id| self.0.op(id)).map(|op| op.name()).collect();
        names.sort_unstable();
        names
    }

    pub fn the(&self, name: &str) -> ValueId {
        let mut found =
            self.0.dag.node_indices().filter(|&id| self.0.op(id).is_some_and(|op| op.name() == name));
        let id = found.next().unwrap_or_else(|| panic!("no {name}\n{}", text(&self.0)));
        assert!(found.next().is_none(), "several {name}\n{}", text(&self.0));
        id
    }

    /// The positions that the one masked softmax keeps.
    pub fn keep(&self) -> (Vec<usize>, Vec<bool>) {
        let id = self.0.arg(self.the("attention_softmax"), 1).unwrap();
        let keep = self.0.constant(id).unwrap().load().unwrap();
        (keep.shape().to_vec(), keep.to_bool_vec().unwrap())
    }

    /// The shape of the one masked softmax's bias.
    pub fn bias_shape(&self) -> Option<Vec<usize>> {
        let id = self.0.arg(self.the("attention_softmax"), 2)?;
        Some(self.0.shape(id).to_vec())
    }

    pub fn snapshot(&self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../files/normalise");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text(&self.0)));
    }
}
