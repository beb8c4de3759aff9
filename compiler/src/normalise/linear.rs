//! Linear layers as `x W + b` on the last axis: reshapes around them move behind them, and a convolution whose
//! windows do not overlap (a patch embedding) becomes a product.

use super::pattern::{applied, apply, binary, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::Op;

pub(super) fn normalise_linear(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        changed |= match graph.op(id) {
            Some(Op::MatMul | Op::Add) => move_reshape_behind(graph, id)?,
            Some(Op::Conv { .. }) => patches_to_product(graph, id)?,
            _ => false,
        };
    }
    Ok(changed)
}

/// `matmul(reshape(x), W)` to `reshape(matmul(x, W))`, and likewise for the sum with a bias, where the reshape keeps
/// the last axis.
fn move_reshape_behind(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some(op) = graph.op(id).cloned() else { return Ok(false) };
    let Some([reshaped, weight]) = binary(graph, id, &op) else { return Ok(false) };
    let Some(Op::Reshape { .. }) = graph.op(reshaped) else { return Ok(false) };
    let Some(x) = graph.arg(reshaped, 0) else { return Ok(false) };
    let (from, to) = (graph.shape(x), graph.shape(reshaped));
    let keeps_rows = from.len() >= 2 && to.len() >= 2 && from.last() == to.last();
    let rank = graph.shape(weight).len();
    let fits = if op == Op::MatMul { rank == 2 } else { rank <= 1 };
    if !keeps_rows || !fits || graph.constant(weight).is_none() {
        return Ok(false);
    }
    let shape = graph.shape(id).to_vec();
    let moved = apply(graph, op, &[x, weight], id)?;
    let new = apply(graph, Op::Reshape { shape }, &[moved], id)?;
    Ok(substitute(graph, id, new))
}

fn patches_to_product(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some(Op::Conv { strides, pads: [0, 0, 0, 0], dilations: [1, 1], group: 1 }) = graph.op(id).cloned()
    else {
        return Ok(false);
    };
    let args = graph.args(id);
    let (&[n, c, h, w], &[m, _, kh, kw]) = (graph.shape(args[0]), graph.shape(args[1])) else {
        return Ok(false);
    };
    if strides != [kh, kw] || kh == 0 || kw == 0 || h % kh != 0 || w % kw != 0 {
        return Ok(false);
    }
    let (rows, columns) = (h / kh, w / kw);
    let split = Op::Reshape { shape: vec![n, c, rows, kh, columns, kw] };
    let split = apply(graph, split, &[args[0]], id)?;
    let gathered = apply(graph, Op::Transpose { perm: vec![0, 2, 4, 1, 3, 5] }, &[split], id)?;
    let flat = Op::Reshape { shape: vec![n, rows * columns, c * kh * kw] };
    let flat = apply(graph, flat, &[gathered], id)?;
    let weight = apply(graph, Op::Reshape { shape: vec![m, c * kh * kw] }, &[args[1]], args[1])?;
    let weight = apply(graph, Op::Transpose { perm: vec![1, 0] }, &[weight], args[1])?;
    let mut product = apply(graph, Op::MatMul, &[flat, weight], id)?;
    let mut replaced = id;
    if let Some((sum, bias)) = channel_bias(graph, id, m) {
        let bias = apply(graph, Op::Reshape { shape: vec![m] }, &[bias], bias)?;
        product = apply(graph, Op::Add, &[product, bias], sum)?;
        replaced = sum;
    }
    let channels_first = apply(graph, Op::Transpose { perm: vec![0, 2, 1] }, &[product], replaced)?;
    let new = apply(graph, Op::Reshape { shape: vec![n, m, rows, columns] }, &[channels_first], replaced)?;
    Ok(substitute(graph, replaced, new))
}

/// The only use of a convolution, if it adds a constant per channel, and that constant.
fn channel_bias(graph: &Graph, conv: ValueId, channels: usize) -> Option<(ValueId, ValueId)> {
    let [sum] = graph.users(conv)[..] else { return None };
    let [a, b] = binary(graph, sum, &Op::Add)?;
    let bias = if a == conv { b } else { a };
    let per_channel = match graph.shape(bias) {
        [1, m, 1, 1] | [m, 1, 1] => *m == channels,
        _ => false,
    };
    (per_channel && graph.constant(bias).is_some() && !graph.is_output(conv)).then_some((sum, bias))
}
