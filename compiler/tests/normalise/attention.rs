//! Masks and score scales.

use marill_compiler::ir::ValueId;
use marill_plaintext::{DType, Op, Tensor};

use super::spelling::Spelling;

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
fn a_mask_below_a_scale_is_seen() {
    let mut s = Spelling::default();
    let (scores, _) = scores(&mut s);
    let mask = causal().iter().map(|&keep| if keep { 0.0 } else { f32::MIN }).collect();
    let mask = s.constant(Tensor::f32([1, 1, TOKENS, TOKENS], mask).unwrap());
    let sum = s.op(Op::Add, &[scores, mask]);
    let divided = s.with(Op::Div, sum, 2.0);
    let p = softmax(&mut s, divided);
    let normalised = s.same(p);
    assert_eq!(normalised.operations(), ["attention_softmax", "mat_mul", "mul"]);
    assert_eq!(normalised.keep().1, causal());
}

#[test]
fn positions_that_inputs_keep_become_a_bias() {
    let mut s = Spelling::default();
    let (scores, mask) = scores(&mut s);
    let lengths = s.op(Op::ReduceSum { axes: vec![1], keepdims: true }, &[mask]);
    let places = s.constant(Tensor::i64([1, TOKENS], (0..TOKENS as i64).collect()).unwrap());
    let keep = s.op(Op::Less, &[places, lengths]);
    let keep = s.op(Op::Reshape { shape: vec![1, 1, 1, TOKENS] }, &[keep]);
    let p = s.op(Op::AttentionSoftmax, &[scores, keep]);
    let normalised = s.same(p);
    assert_eq!(normalised.keep(), (vec![1, 1, 1, 1], vec![true]));
    assert_eq!(normalised.bias_shape(), Some(vec![1, 1, 1, TOKENS]));
}
