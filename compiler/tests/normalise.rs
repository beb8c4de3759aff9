//! Each pattern of the normalise stage: exporters' spellings are recognised and compute the same, near misses stay.

use std::collections::BTreeMap;

use marill_compiler::ir::{Graph, Owner, TextOptions, ValueId, interpret, print, verify};
use marill_compiler::normalise::normalise;
use marill_plaintext::{DType, GeluForm, Op, Tensor, TensorType};

/// A graph in the making, and inputs for it.
#[derive(Default)]
struct Spelling {
    graph: Graph,
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

    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let tensor = self.noise(shape);
        self.given(name, tensor)
    }

    fn given(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.graph.add_input(name, tensor.ty());
        self.inputs.insert(name.to_owned(), tensor);
        id
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let tensor = self.noise(shape);
        self.graph.add_constant(name, tensor)
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant("constant", tensor)
    }

    fn number(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar_f32(value))
    }

    fn op(&mut self, op: Op, args: &[ValueId]) -> ValueId {
        let name = op.name();
        self.graph.apply(op, args, name).unwrap()
    }

    fn with(&mut self, op: Op, x: ValueId, value: f32) -> ValueId {
        let number = self.number(value);
        self.op(op, &[x, number])
    }

    fn mean(&mut self, x: ValueId) -> ValueId {
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

    fn same(self, value: ValueId) -> Normalised {
        self.normalised(value, |_| false)
    }
}

struct Normalised(Graph);

fn text(graph: &Graph) -> String {
    print(graph, TextOptions::default())
}

impl Normalised {
    /// The operations there are, sorted.
    fn operations(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.0.dag.node_indices().filter_map(|id| self.0.op(id)).map(|op| op.name()).collect();
        names.sort_unstable();
        names
    }

    fn the(&self, name: &str) -> ValueId {
        let mut found =
            self.0.dag.node_indices().filter(|&id| self.0.op(id).is_some_and(|op| op.name() == name));
        let id = found.next().unwrap_or_else(|| panic!("no {name}\n{}", text(&self.0)));
        assert!(found.next().is_none(), "several {name}\n{}", text(&self.0));
        id
    }

    /// The positions that the one masked softmax keeps.
    fn keep(&self) -> (Vec<usize>, Vec<bool>) {
        let id = self.0.arg(self.the("attention_softmax"), 1).unwrap();
        let keep = self.0.constant(id).unwrap().load().unwrap();
        (keep.shape().to_vec(), keep.to_bool_vec().unwrap())
    }

    /// The shape of the one masked softmax's bias.
    fn bias_shape(&self) -> Option<Vec<usize>> {
        let id = self.0.arg(self.the("attention_softmax"), 2)?;
        Some(self.0.shape(id).to_vec())
    }

    fn snapshot(&self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("files/normalise");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text(&self.0)));
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Quotient {
    DivSqrt,
    DivPow,
    MulReciprocal,
    MulOneOver,
    MulRsqrt,
    MulPow,
}

const QUOTIENTS: [Quotient; 6] = [
    Quotient::DivSqrt,
    Quotient::DivPow,
    Quotient::MulReciprocal,
    Quotient::MulOneOver,
    Quotient::MulRsqrt,
    Quotient::MulPow,
];

/// `d / sqrt(mean(d^2) + 1e-5)`.
fn norm_core(s: &mut Spelling, d: ValueId, quotient: Quotient, square_by_mul: bool) -> ValueId {
    let cast = s.op(Op::Cast { to: DType::F32 }, &[d]);
    let square = if square_by_mul { s.op(Op::Mul, &[cast, cast]) } else { s.with(Op::Pow, cast, 2.0) };
    let mean = s.mean(square);
    let variance = s.with(Op::Add, mean, 1e-5);
    match quotient {
        Quotient::DivSqrt => {
            let root = s.op(Op::Sqrt, &[variance]);
            s.op(Op::Div, &[d, root])
        }
        Quotient::DivPow => {
            let root = s.with(Op::Pow, variance, 0.5);
            s.op(Op::Div, &[d, root])
        }
        Quotient::MulReciprocal => {
            let root = s.op(Op::Sqrt, &[variance]);
            let inverse = s.op(Op::Reciprocal, &[root]);
            s.op(Op::Mul, &[d, inverse])
        }
        Quotient::MulOneOver => {
            let root = s.op(Op::Sqrt, &[variance]);
            let one = s.number(1.0);
            let inverse = s.op(Op::Div, &[one, root]);
            s.op(Op::Mul, &[inverse, d])
        }
        Quotient::MulRsqrt => {
            let inverse = s.op(Op::Rsqrt, &[variance]);
            s.op(Op::Mul, &[d, inverse])
        }
        Quotient::MulPow => {
            let inverse = s.with(Op::Pow, variance, -0.5);
            s.op(Op::Mul, &[d, inverse])
        }
    }
}

#[test]
fn layer_norm_in_every_spelling() {
    for quotient in QUOTIENTS {
        for variant in [false, true] {
            let mut s = Spelling::default();
            let x = s.input("x", &[2, 3, 8]);
            let mean = s.mean(x);
            let centred = s.op(Op::Sub, &[x, mean]);
            let again = s.op(Op::Sub, &[x, mean]);
            let core = norm_core(&mut s, if variant { again } else { centred }, quotient, variant);
            let (gain, bias) = (s.weight("gain", &[8]), s.weight("bias", &[8]));
            let scaled = s.op(Op::Mul, &if variant { [gain, core] } else { [core, gain] });
            let out = s.op(Op::Add, &if variant { [bias, scaled] } else { [scaled, bias] });
            let normalised = s.same(out);
            assert_eq!(normalised.operations(), ["layer_norm"], "{quotient:?}");
            if quotient == Quotient::DivSqrt && !variant {
                normalised.snapshot("layer_norm");
            }
        }
    }
}

#[test]
fn rms_norm_in_every_spelling_with_a_gain_of_one_plus_weight() {
    for quotient in QUOTIENTS {
        let mut s = Spelling::default();
        let x = s.input("x", &[2, 3, 8]);
        let core = norm_core(&mut s, x, quotient, false);
        let weight = s.weight("w", &[1, 1, 8]);
        let gain = s.with(Op::Add, weight, 1.0);
        let out = s.op(Op::Mul, &[gain, core]);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["rms_norm"], "{quotient:?}");
        let norm = normalised.the("rms_norm");
        assert_eq!(normalised.0.op(norm), Some(&Op::RmsNorm { epsilon: 1e-5 }));
    }
}

#[test]
fn what_is_almost_a_norm_stays() {
    let mut s = Spelling::default();
    let (x, y) = (s.input("x", &[4, 8]), s.input("y", &[4, 8]));
    let square = s.op(Op::Mul, &[y, y]);
    let mean = s.mean(square);
    let variance = s.with(Op::Add, mean, 1e-5);
    let root = s.op(Op::Sqrt, &[variance]);
    let out = s.op(Op::Div, &[x, root]);
    assert!(!s.same(out).operations().contains(&"rms_norm"));

    let mut s = Spelling::default();
    let x = s.input("x", &[4, 4]);
    let square = s.op(Op::Mul, &[x, x]);
    let mean = s.op(Op::ReduceMean { axes: vec![0], keepdims: true }, &[square]);
    let root = s.op(Op::Sqrt, &[mean]);
    let out = s.op(Op::Div, &[x, root]);
    assert!(!s.same(out).operations().contains(&"rms_norm"));
}

#[test]
fn gelu_with_erf_in_every_spelling() {
    type Spell = fn(&mut Spelling, ValueId, ValueId) -> ValueId;
    let by_quotient: fn(&mut Spelling, ValueId) -> ValueId =
        |s, x| s.with(Op::Div, x, std::f32::consts::SQRT_2);
    let by_product: fn(&mut Spelling, ValueId) -> ValueId =
        |s, x| s.with(Op::Mul, x, std::f32::consts::FRAC_1_SQRT_2);
    let after: Spell = |s, x, bell| {
        let one_plus = s.with(Op::Add, bell, 1.0);
        let product = s.op(Op::Mul, &[x, one_plus]);
        s.with(Op::Mul, product, 0.5)
    };
    let before: Spell = |s, x, bell| {
        let half = s.with(Op::Mul, x, 0.5);
        let one_plus = s.with(Op::Add, bell, 1.0);
        s.op(Op::Mul, &[one_plus, half])
    };
    let inside: Spell = |s, x, bell| {
        let one_plus = s.with(Op::Add, bell, 1.0);
        let half = s.with(Op::Div, one_plus, 2.0);
        s.op(Op::Mul, &[half, x])
    };
    let spread: Spell = |s, x, bell| {
        let half = s.with(Op::Mul, x, 0.5);
        let product = s.op(Op::Mul, &[half, bell]);
        s.op(Op::Add, &[product, half])
    };
    for argument in [by_quotient, by_product] {
        for finish in [after, before, inside, spread] {
            let mut s = Spelling::default();
            let x = s.input("x", &[3, 8]);
            let argument = argument(&mut s, x);
            let bell = s.op(Op::Erf, &[argument]);
            let out = finish(&mut s, x, bell);
            let normalised = s.same(out);
            assert_eq!(normalised.operations(), ["gelu"]);
            let gelu = normalised.the("gelu");
            assert_eq!(normalised.0.op(gelu), Some(&Op::Gelu { form: GeluForm::Erf }));
        }
    }
}

/// `0.5 x (1 + tanh(sqrt(2 / pi) (x + c x^3)))` with the cube in one of several spellings.
fn tanh_gelu(s: &mut Spelling, x: ValueId, cube: usize, c: f32) -> ValueId {
    let root = (2.0 / std::f32::consts::PI).sqrt();
    let argument = match cube {
        0 | 1 => {
            let cubed = if cube == 0 {
                s.with(Op::Pow, x, 3.0)
            } else {
                let square = s.op(Op::Mul, &[x, x]);
                s.op(Op::Mul, &[x, square])
            };
            let scaled = s.with(Op::Mul, cubed, c);
            let sum = s.op(Op::Add, &[x, scaled]);
            s.with(Op::Mul, sum, root)
        }
        2 => {
            let first = s.with(Op::Mul, x, c);
            let second = s.op(Op::Mul, &[first, x]);
            let one_plus = s.with(Op::Add, second, 1.0);
            let scaled = s.with(Op::Mul, x, root);
            s.op(Op::Mul, &[scaled, one_plus])
        }
        _ => {
            let square = s.with(Op::Pow, x, 2.0);
            let product = s.op(Op::Mul, &[square, x]);
            let scaled = s.with(Op::Mul, product, c * root);
            let linear = s.with(Op::Mul, x, root);
            s.op(Op::Add, &[scaled, linear])
        }
    };
    let bell = s.op(Op::Tanh, &[argument]);
    let one_plus = s.with(Op::Add, bell, 1.0);
    let half = s.with(Op::Mul, x, 0.5);
    s.op(Op::Mul, &[half, one_plus])
}

#[test]
fn gelu_with_tanh_in_every_spelling() {
    for cube in 0..4 {
        let mut s = Spelling::default();
        let (x, gate) = (s.input("x", &[3, 8]), s.input("gate", &[3, 8]));
        let shifted = s.with(Op::Mul, x, 3.0);
        let gelu = tanh_gelu(&mut s, shifted, cube, 0.044_715);
        let out = s.op(Op::Mul, &[gelu, gate]);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["gelu", "mul", "mul"], "spelling {cube}");
        if cube == 0 {
            normalised.snapshot("gelu_tanh");
        }
    }
}

#[test]
fn what_is_almost_a_gelu_or_silu_stays() {
    let mut s = Spelling::default();
    let x = s.input("x", &[3, 8]);
    let out = tanh_gelu(&mut s, x, 0, 0.05);
    assert!(s.same(out).operations().contains(&"tanh"));

    let mut s = Spelling::default();
    let (x, y) = (s.input("x", &[8]), s.input("y", &[8]));
    let gate = s.op(Op::Sigmoid, &[y]);
    let out = s.op(Op::Mul, &[x, gate]);
    assert_eq!(s.same(out).operations(), ["mul", "sigmoid"]);
}

#[test]
fn silu_with_operands_either_way() {
    for swapped in [false, true] {
        let mut s = Spelling::default();
        let x = s.input("x", &[8]);
        let gate = s.op(Op::Sigmoid, &[x]);
        let out = s.op(Op::Mul, &if swapped { [gate, x] } else { [x, gate] });
        assert_eq!(s.same(out).operations(), ["silu"]);
    }
}

fn rotary(s: &mut Spelling, x: ValueId, swapped: bool, negate_second: bool) -> ValueId {
    let (cos, sin) = (s.weight("cos", &[1, 1, 5, 8]), s.weight("sin", &[1, 1, 5, 8]));
    let first = s.op(Op::Slice { axis: 3, start: 0, end: 4, step: 1 }, &[x]);
    let second = s.op(Op::Slice { axis: 3, start: 4, end: 8, step: 1 }, &[x]);
    let halves =
        if negate_second { [s.op(Op::Neg, &[second]), first] } else { [second, s.op(Op::Neg, &[first])] };
    let turned = s.op(Op::Concat { axis: 3 }, &halves);
    let straight = s.op(Op::Mul, &if swapped { [cos, x] } else { [x, cos] });
    let turned = s.op(Op::Mul, &if swapped { [sin, turned] } else { [turned, sin] });
    s.op(Op::Add, &if swapped { [turned, straight] } else { [straight, turned] })
}

#[test]
fn rotary_embedding() {
    for swapped in [false, true] {
        let mut s = Spelling::default();
        let x = s.input("x", &[1, 2, 5, 8]);
        let out = rotary(&mut s, x, swapped, true);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["rotary"]);
        if !swapped {
            normalised.snapshot("rotary");
        }
    }
    let mut s = Spelling::default();
    let x = s.input("x", &[1, 2, 5, 8]);
    let out = rotary(&mut s, x, false, false);
    assert!(!s.same(out).operations().contains(&"rotary"), "rotated the other way");
}

const TOKENS: usize = 5;

fn causal() -> Vec<bool> {
    (0..TOKENS * TOKENS).map(|at| at % TOKENS <= at / TOKENS).collect()
}

/// Scores of 2 heads for `TOKENS` positions, and a mask input that hides the last position.
fn scores(s: &mut Spelling) -> (ValueId, ValueId) {
    let (q, k) = (s.input("q", &[1, 2, TOKENS, 4]), s.input("k", &[1, 2, 4, TOKENS]));
    let mask = s.given("mask", Tensor::i64([1, TOKENS], vec![1, 1, 1, 1, 0]).unwrap());
    (s.op(Op::MatMul, &[q, k]), mask)
}

fn softmax(s: &mut Spelling, scores: ValueId) -> ValueId {
    let axis = s.graph.shape(scores).len() - 1;
    s.op(Op::Softmax { axis }, &[scores])
}

/// `where(isnan(p), 0, p)`.
fn guard(s: &mut Spelling, p: ValueId) -> ValueId {
    let is_nan = s.op(Op::IsNan, &[p]);
    let zero = s.number(0.0);
    s.op(Op::Where, &[is_nan, zero, p])
}

#[test]
fn a_constant_causal_mask_becomes_positions_to_keep() {
    for masked in [f32::NEG_INFINITY, f32::MIN, -1e4] {
        let mut s = Spelling::default();
        let (scores, _) = scores(&mut s);
        let keep = s.constant(Tensor::bool([1, 1, TOKENS, TOKENS], causal()).unwrap());
        let (zero, masked) = (s.number(0.0), s.number(masked));
        let mask = s.op(Op::Where, &[keep, zero, masked]);
        let sum = s.op(Op::Add, &[scores, mask]);
        let p = softmax(&mut s, sum);
        let out = guard(&mut s, p);
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["attention_softmax", "mat_mul"]);
        assert_eq!(normalised.keep(), (vec![1, 1, TOKENS, TOKENS], causal()));
    }
}

#[test]
fn a_causal_mask_joined_with_the_clients_leaves_one_row_of_bias() {
    let mut s = Spelling::default();
    let (scores, mask) = scores(&mut s);
    let mask = s.op(Op::Cast { to: DType::Bool }, &[mask]);
    let mask = s.op(Op::Reshape { shape: vec![1, 1, TOKENS] }, &[mask]);
    let keep = s.constant(Tensor::bool([TOKENS, TOKENS], causal()).unwrap());
    let both = s.op(Op::And, &[keep, mask]);
    let both = s.op(Op::Reshape { shape: vec![1, 1, TOKENS, TOKENS] }, &[both]);
    let both = s.op(Op::Expand { shape: vec![1, 2, TOKENS, TOKENS] }, &[both]);
    let (zero, masked) = (s.number(0.0), s.number(f32::NEG_INFINITY));
    let mask = s.op(Op::Where, &[both, zero, masked]);
    let sum = s.op(Op::Add, &[mask, scores]);
    let p = softmax(&mut s, sum);
    let out = guard(&mut s, p);
    let normalised = s.same(out);
    assert_eq!(normalised.keep(), (vec![1, 1, TOKENS, TOKENS], causal()));
    assert_eq!(normalised.bias_shape(), Some(vec![1, 1, 1, TOKENS]));
    normalised.snapshot("causal_and_client_mask");
}

#[test]
fn a_mask_that_replaces_scores_and_one_that_is_added() {
    let mut s = Spelling::default();
    let (scores, mask) = scores(&mut s);
    let mask = s.op(Op::Reshape { shape: vec![1, 1, 1, TOKENS] }, &[mask]);
    let mask = s.op(Op::Cast { to: DType::F32 }, &[mask]);
    let one = s.number(1.0);
    let hidden = s.op(Op::Sub, &[one, mask]);
    let mask = s.with(Op::Mul, hidden, f32::MIN);
    let keep = s.constant(Tensor::bool([1, 1, TOKENS, TOKENS], causal()).unwrap());
    let masked = s.number(f32::MIN);
    let replaced = s.op(Op::Where, &[keep, scores, masked]);
    let sum = s.op(Op::Add, &[replaced, mask]);
    let out = softmax(&mut s, sum);
    let normalised = s.same(out);
    assert_eq!(normalised.keep(), (vec![1, 1, TOKENS, TOKENS], causal()));
    assert_eq!(normalised.bias_shape(), Some(vec![1, 1, 1, TOKENS]));
}

#[test]
fn a_clients_mask_that_replaces_scores_becomes_a_bias() {
    for inverted in [false, true] {
        let mut s = Spelling::default();
        let (scores, mask) = scores(&mut s);
        let mask = s.op(Op::Reshape { shape: vec![1, 1, 1, TOKENS] }, &[mask]);
        let mut condition = s.op(Op::Cast { to: DType::Bool }, &[mask]);
        let masked = s.number(f32::MIN);
        let replaced = if inverted {
            condition = s.op(Op::Not, &[condition]);
            s.op(Op::Where, &[condition, masked, scores])
        } else {
            s.op(Op::Where, &[condition, scores, masked])
        };
        let out = softmax(&mut s, replaced);
        let normalised = s.same(out);
        assert_eq!(normalised.keep(), (vec![1, 1, 1, 1], vec![true]));
        assert_eq!(normalised.bias_shape(), Some(vec![1, 1, 1, TOKENS]));
    }
}

#[test]
fn guards_against_overflow_and_reshapes_below_the_softmax_vanish() {
    let mut s = Spelling::default();
    let (scores, _) = scores(&mut s);
    let mask = causal().into_iter().map(|keep| if keep { 0.0 } else { f32::MIN }).collect();
    let mask = s.constant(Tensor::f32([1, 1, TOKENS, TOKENS], mask).unwrap());
    let sum = s.op(Op::Add, &[scores, mask]);
    let floored = s.with(Op::Max, sum, f32::MIN);
    let flat = s.op(Op::Reshape { shape: vec![2, TOKENS, TOKENS] }, &[floored]);
    let out = softmax(&mut s, flat);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["attention_softmax", "mat_mul", "reshape"]);
}

#[test]
fn real_biases_survive() {
    let mut s = Spelling::default();
    let (x, _) = scores(&mut s);
    let bias = s.weight("relative", &[1, 2, TOKENS, TOKENS]);
    let sum = s.op(Op::Add, &[bias, x]);
    let out = softmax(&mut s, sum);
    assert_eq!(s.same(out).operations(), ["add", "mat_mul", "softmax"]);

    let mut s = Spelling::default();
    let (x, mask) = scores(&mut s);
    let mask = s.op(Op::Reshape { shape: vec![1, 1, 1, TOKENS] }, &[mask]);
    let mask = s.op(Op::Cast { to: DType::Bool }, &[mask]);
    let (zero, masked) = (s.number(0.0), s.number(f32::MIN));
    let mask = s.op(Op::Where, &[mask, zero, masked]);
    let bias = s.weight("relative", &[1, 2, TOKENS, TOKENS]);
    let both = s.op(Op::Add, &[bias, mask]);
    let sum = s.op(Op::Add, &[x, both]);
    let out = softmax(&mut s, sum);
    let normalised = s.same(out);
    assert!(normalised.operations().contains(&"add"));
    assert_eq!(normalised.keep(), (vec![1, 1, 1, 1], vec![true]));
    assert_eq!(normalised.bias_shape(), Some(vec![1, 1, 1, TOKENS]), "the client's part is separate");

    let mut s = Spelling::default();
    let (x, mask) = scores(&mut s);
    let mask = s.op(Op::Cast { to: DType::Bool }, &[mask]);
    let (zero, small) = (s.number(0.0), s.number(-5.0));
    let penalty = s.op(Op::Where, &[mask, zero, small]);
    let sum = s.op(Op::Add, &[x, penalty]);
    let out = softmax(&mut s, sum);
    assert_eq!(s.same(out).keep(), (vec![1, 1, 1, 1], vec![true]), "a penalty is not a mask");
}

#[test]
fn rows_without_a_position_to_keep_become_zero() {
    let mut s = Spelling::default();
    let (scores, _) = scores(&mut s);
    let mut keep = causal();
    keep[..TOKENS].fill(false);
    let keep = s.constant(Tensor::bool([1, 1, TOKENS, TOKENS], keep).unwrap());
    let (zero, masked) = (s.number(0.0), s.number(f32::NEG_INFINITY));
    let mask = s.op(Op::Where, &[keep, zero, masked]);
    let sum = s.op(Op::Add, &[scores, mask]);
    let p = softmax(&mut s, sum);
    let out = guard(&mut s, p);
    assert_eq!(s.same(out).operations(), ["attention_softmax", "mat_mul"]);
}

#[test]
fn values_looked_up_by_token_are_not_masks() {
    let mut s = Spelling::default();
    let (scores, mask) = scores(&mut s);
    let table = s.weight("table", &[2, TOKENS]);
    let looked_up = s.op(Op::Gather { axis: 0 }, &[table, mask]);
    let sum = s.op(Op::Add, &[scores, looked_up]);
    let out = softmax(&mut s, sum);
    assert_eq!(s.same(out).operations(), ["add", "gather", "mat_mul", "softmax"]);
}

#[test]
fn score_scales_become_one_factor_of_the_query() {
    for spelling in 0..4 {
        let mut s = Spelling::default();
        let (mut q, mut k) = (s.input("q", &[1, 2, 5, 4]), s.input("k", &[1, 2, 4, 5]));
        if spelling != 1 {
            q = s.with(Op::Mul, q, 0.7);
        }
        if spelling != 0 {
            k = s.with(Op::Div, k, 1.5);
        }
        let mut out = s.op(Op::MatMul, &[q, k]);
        if spelling == 3 {
            let eight = s.constant(Tensor::f32([1], vec![8.0]).unwrap());
            out = s.op(Op::Div, &[out, eight]);
            out = s.with(Op::Mul, out, 2.0);
        }
        let normalised = s.same(out);
        assert_eq!(normalised.operations(), ["mat_mul", "mul"], "spelling {spelling}");
        let (product, factor) = (normalised.the("mat_mul"), normalised.the("mul"));
        assert_eq!(normalised.0.arg(product, 0), Some(factor));
    }
}

#[test]
fn a_linear_layer_on_flattened_rows_works_on_the_rows_themselves() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3, 8]);
    let flat = s.op(Op::Reshape { shape: vec![6, 8] }, &[x]);
    let weight = s.weight("weight", &[4, 8]);
    let weight = s.op(Op::Transpose { perm: vec![1, 0] }, &[weight]);
    let product = s.op(Op::MatMul, &[flat, weight]);
    let bias = s.weight("bias", &[4]);
    let sum = s.op(Op::Add, &[bias, product]);
    let out = s.op(Op::Reshape { shape: vec![2, 3, 4] }, &[sum]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "mat_mul"]);
    let sum = normalised.the("add");
    assert!(
        normalised.0.constant(normalised.0.arg(sum, 1).unwrap()).is_some(),
        "the bias is the second operand"
    );
}

fn conv(s: &mut Spelling, strides: [usize; 2]) -> ValueId {
    let x = s.input("pixels", &[2, 3, 8, 6]);
    let weight = s.weight("kernel", &[5, 3, 4, 2]);
    let op = Op::Conv { strides, pads: [0; 4], dilations: [1, 1], group: 1 };
    let out = s.op(op, &[x, weight]);
    let bias = s.weight("bias", &[1, 5, 1, 1]);
    s.op(Op::Add, &[out, bias])
}

#[test]
fn a_convolution_of_separate_patches_is_a_product() {
    let mut s = Spelling::default();
    let sum = conv(&mut s, [4, 2]);
    let rows = s.op(Op::Reshape { shape: vec![2, 5, 6] }, &[sum]);
    let out = s.op(Op::Transpose { perm: vec![0, 2, 1] }, &[rows]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "mat_mul", "reshape", "reshape", "transpose"]);
    normalised.snapshot("patches");

    let mut s = Spelling::default();
    let out = conv(&mut s, [2, 2]);
    assert_eq!(s.same(out).operations(), ["add", "conv"], "patches that overlap");
}

#[test]
fn constants_fold_unless_the_result_is_large() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2048, 2049]);
    let one = s.constant(Tensor::f32([1, 1], vec![1.5]).unwrap());
    let large = s.op(Op::Expand { shape: vec![2048, 2049] }, &[one]);
    let half = s.number(0.25);
    let sum = s.op(Op::Add, &[half, half]);
    let product = s.op(Op::Mul, &[large, x]);
    let out = s.op(Op::Add, &[product, sum]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "expand", "mul"]);
}

#[test]
fn identities_chains_and_duplicates_vanish() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3, 4]);
    let mut y = s.op(Op::Cast { to: DType::F32 }, &[x]);
    y = s.op(Op::Expand { shape: vec![2, 3, 4] }, &[y]);
    y = s.with(Op::Mul, y, 1.0);
    y = s.with(Op::Add, y, 0.0);
    y = s.with(Op::Div, y, 1.0);
    y = s.op(Op::Slice { axis: 1, start: 0, end: 3, step: 1 }, &[y]);
    y = s.op(Op::Transpose { perm: vec![2, 0, 1] }, &[y]);
    y = s.op(Op::Transpose { perm: vec![1, 2, 0] }, &[y]);
    y = s.op(Op::Reshape { shape: vec![6, 4] }, &[y]);
    y = s.op(Op::Reshape { shape: vec![2, 3, 4] }, &[y]);
    let once = s.op(Op::Exp, &[y]);
    let twice = s.op(Op::Exp, &[x]);
    s.op(Op::Log, &[twice]);
    let out = s.op(Op::Add, &[once, twice]);
    assert_eq!(s.same(out).operations(), ["add", "exp"]);
}

#[test]
fn look_ups_of_everything_in_order_are_reshapes() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3]);
    let places: Vec<i64> = (0..2).flat_map(|i| (0..3).flat_map(move |j| [i, j])).collect();
    let tuples = s.constant(Tensor::i64([1, 2, 3, 2], places.clone()).unwrap());
    let gathered = s.op(Op::GatherNd { batch_dims: 0 }, &[x, tuples]);
    let rows = s.constant(Tensor::i64([2], vec![0, 1]).unwrap());
    let gathered = s.op(Op::Gather { axis: 1 }, &[gathered, rows]);
    let whole = s.op(Op::Reshape { shape: vec![2, 3] }, &[gathered]);
    let tuples = s.constant(Tensor::i64([2, 3, 2], places).unwrap());
    let target = s.input("target", &[2, 3]);
    let out = s.op(Op::ScatterNd, &[target, tuples, whole]);
    assert_eq!(s.same(out).operations(), Vec::<&str>::new());

    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3]);
    let rows = s.constant(Tensor::i64([2], vec![1, 0]).unwrap());
    let out = s.op(Op::Gather { axis: 0 }, &[x, rows]);
    assert_eq!(s.same(out).operations(), ["gather"], "another order");
}

#[test]
fn a_look_up_beyond_its_table_is_the_users_error() {
    let mut graph = Graph::default();
    let table = graph.add_constant("table", Tensor::f32([2], vec![1.0, 2.0]).unwrap());
    let place = graph.add_constant("place", Tensor::i64([1], vec![7]).unwrap());
    let out = graph.apply(Op::Gather { axis: 0 }, &[table, place], "look_up").unwrap();
    graph.add_output("out", out, Owner::Client);
    let error = normalise(graph).unwrap_err();
    assert_eq!((error.node.as_str(), error.code()), ("look_up", "operands"));
}

#[test]
fn inputs_stay_though_nothing_uses_them() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2]);
    s.graph.add_input("unused", TensorType::new(DType::I64, [3]));
    let out = s.op(Op::Neg, &[x]);
    let normalised = s.same(out);
    assert_eq!(normalised.0.inputs.len(), 2);
}
