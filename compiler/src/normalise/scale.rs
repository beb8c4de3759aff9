//! One factor for attention scores: `(q a)(k b) / c` becomes `(q (ab/c)) k`.

use super::pattern::{applied, apply, binary, scaled, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::{Op, Tensor};

pub(super) fn merge_score_scales(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let Some([left, right]) = binary(graph, id, &Op::MatMul) else { continue };
        if graph.constant(left).is_some() || graph.constant(right).is_some() {
            continue;
        }
        let (q, before_q, factors_q) = unscaled(graph, left);
        let (k, before_k, factors_k) = unscaled(graph, right);
        let (result, after) = scaled_result(graph, id);
        if factors_q <= 1 && factors_k == 0 && result == id {
            continue;
        }
        let factor = before_q * before_k * after;
        let mut query = q;
        if factor != 1.0 {
            let constant = graph.add_constant("scale", Tensor::scalar_f32(factor as f32));
            query = apply(graph, Op::Mul, &[q, constant], left)?;
        }
        let new = apply(graph, Op::MatMul, &[query, k], result)?;
        changed |= substitute(graph, result, new);
    }
    Ok(changed)
}

/// The value below all constant factors, their product, and how many there are.
fn unscaled(graph: &Graph, mut id: ValueId) -> (ValueId, f64, usize) {
    let (mut factor, mut count) = (1.0, 0);
    while let Some((x, c)) = scaled(graph, id) {
        (id, factor, count) = (x, factor * c, count + 1);
    }
    (id, factor, count)
}

/// The value above all constant factors that are the product's only use, and their product.
fn scaled_result(graph: &Graph, product: ValueId) -> (ValueId, f64) {
    let (mut id, mut factor) = (product, 1.0);
    while let [user] = graph.users(id)[..]
        && !graph.is_output(id)
        && let Some((x, c)) = scaled(graph, user)
        && x == id
    {
        (id, factor) = (user, factor * c);
    }
    (id, factor)
}
