//! A model of real size stays within the limits, so that no time is needed to stop the search.

use std::collections::BTreeMap;

use marill_compiler::ir::{Constant, Graph, Owner, ValueId, verify};
use marill_compiler::ownership::assign;
use marill_compiler::rewrite::{RewriteOptions, rewrite};
use marill_plaintext::{DType, GeluForm, Op, Tensor, TensorType};

struct Builder {
    graph: Graph,
    constants: u64,
}

impl Builder {
    fn weight(&mut self, shape: &[usize]) -> ValueId {
        self.constants += 1;
        let ty = TensorType { dtype: DType::F32, shape: shape.to_vec() };
        let digest = self.constants.to_be_bytes();
        self.graph.add_constant(format!("w{}", self.constants), Constant::absent(ty, digest))
    }

    fn apply(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        self.graph.apply(op, args, "").unwrap()
    }

    fn norm(&mut self, x: ValueId, width: usize) -> ValueId {
        let (gain, bias) = (self.weight(&[width]), self.weight(&[width]));
        self.apply(Op::LayerNorm { epsilon: 1e-5 }, &[x, gain, bias])
    }

    fn linear(&mut self, x: ValueId, from: usize, to: usize) -> ValueId {
        let (weight, bias) = (self.weight(&[from, to]), self.weight(&[to]));
        let product = self.apply(Op::MatMul, &[x, weight]);
        self.apply(Op::Add, &[product, bias])
    }

    fn heads(&mut self, x: ValueId, [tokens, width, heads]: [usize; 3], perm: [usize; 4]) -> ValueId {
        let split = self.apply(Op::Reshape { shape: vec![1, tokens, heads, width / heads] }, &[x]);
        self.apply(Op::Transpose { perm: perm.into() }, &[split])
    }

    fn attention(&mut self, x: ValueId, size @ [tokens, width, _]: [usize; 3], keep: ValueId) -> ValueId {
        let fused = self.linear(x, width, 3 * width);
        let part = |i: usize| {
            let (start, end) = ((i * width) as i64, ((i + 1) * width) as i64);
            Op::Slice { axis: 2, start, end, step: 1 }
        };
        let parts = [0, 1, 2].map(|i| self.apply(part(i), &[fused]));
        let query = self.heads(parts[0], size, [0, 2, 1, 3]);
        let scale = self.graph.add_constant("scale", Tensor::scalar_f32(0.125));
        let query = self.apply(Op::Mul, &[query, scale]);
        let key = self.heads(parts[1], size, [0, 2, 3, 1]);
        let value = self.heads(parts[2], size, [0, 2, 1, 3]);
        let scores = self.apply(Op::MatMul, &[query, key]);
        let weights = self.apply(Op::AttentionSoftmax, &[scores, keep]);
        let mixed = self.apply(Op::MatMul, &[weights, value]);
        let mixed = self.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[mixed]);
        let mixed = self.apply(Op::Reshape { shape: vec![1, tokens, width] }, &[mixed]);
        self.linear(mixed, width, width)
    }
}

fn gpt2(layers: usize, size @ [tokens, width, _]: [usize; 3]) -> Graph {
    let mut builder = Builder { graph: Graph::default(), constants: 0 };
    let ids = TensorType { dtype: DType::I64, shape: vec![1, tokens] };
    let ids = builder.graph.add_input("input_ids", ids);
    let table = builder.weight(&[50_257, width]);
    let positions = builder.weight(&[1, tokens, width]);
    let keep = TensorType { dtype: DType::Bool, shape: vec![1, 1, tokens, tokens] };
    let keep = builder.graph.add_constant("keep", Constant::absent(keep, [9; 8]));
    let embedded = builder.apply(Op::Gather { axis: 0 }, &[table, ids]);
    let mut x = builder.apply(Op::Add, &[embedded, positions]);
    for _ in 0..layers {
        let normed = builder.norm(x, width);
        let mixed = builder.attention(normed, size, keep);
        x = builder.apply(Op::Add, &[x, mixed]);
        let normed = builder.norm(x, width);
        let wide = builder.linear(normed, width, 4 * width);
        let wide = builder.apply(Op::Gelu { form: GeluForm::Tanh }, &[wide]);
        let narrow = builder.linear(wide, 4 * width, width);
        x = builder.apply(Op::Add, &[x, narrow]);
    }
    let normed = builder.norm(x, width);
    let head = builder.weight(&[width, 50_257]);
    let logits = builder.apply(Op::MatMul, &[normed, head]);
    builder.graph.add_output("logits", logits, Owner::Client);
    assign(&mut builder.graph, &BTreeMap::new()).unwrap();
    builder.graph
}

#[test]
fn gpt2_small_saturates() {
    let graph = gpt2(12, [128, 768, 12]);
    let (rewritten, report) = rewrite(graph, &RewriteOptions::default()).unwrap();
    verify(&rewritten).unwrap();
    assert!(report.is_saturated, "{report:?}");
    assert!(report.terms < 10_000, "{report:?}");
    let shared_muls = rewritten.topological().into_iter().filter(|&id| {
        rewritten.op(id) == Some(&Op::Mul) && rewritten.node(id).facts.owner == Some(Owner::Shared)
    });
    assert_eq!(shared_muls.count(), 0);
}

#[test]
fn limits_stop_the_search_with_a_right_graph() {
    let graph = gpt2(2, [8, 16, 2]);
    for (max_terms, max_iterations) in [(0, 16), (130, 16), (200_000, 0), (200_000, 1), (200_000, 3)] {
        let options = RewriteOptions { max_terms, max_iterations, ..RewriteOptions::default() };
        let (rewritten, report) = rewrite(graph.clone(), &options).unwrap();
        verify(&rewritten).unwrap();
        assert!(!report.is_saturated);
        assert!(report.cost_after_s <= report.cost_before_s);
    }
}
