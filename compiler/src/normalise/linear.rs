//! Linear layers as `x W + b` on the last axis: of two reshapes around them the second moves to the first, and a
//! convolution whose windows do not overlap (a patch embedding) becomes a product.

use super::pattern::{applied, apply, binary, either_way, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, Owner, ValueId};
use marill_plaintext::{Op, Tensor};

/// Elements of all windows of a convolution that is taken apart.
const MAX_GATHERED: usize = 1 << 26;

pub(super) fn normalise_linear(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        changed |= match graph.op(id) {
            Some(Op::Reshape { .. }) => move_reshape_ahead(graph, id)?,
            Some(Op::Conv { .. }) => patches_to_product(graph, id)? || windows_to_product(graph, id)?,
            _ => false,
        };
    }
    Ok(changed)
}

/// `reshape(matmul(reshape(x), W) + b)` to `matmul(reshape(x), W) + b`, where the outer reshape keeps the last axis.
fn move_reshape_ahead(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some(Op::Reshape { shape }) = graph.op(id).cloned() else { return Ok(false) };
    let Some(inner) = graph.arg(id, 0) else { return Ok(false) };
    let keeps_rows = shape.len() >= 2 && shape.last() == graph.shape(inner).last();
    let biased = either_way(graph, inner, &Op::Add)
        .find(|&[_, bias]| graph.constant(bias).is_some() && graph.shape(bias).len() <= 1);
    let product = biased.map_or(inner, |[product, _]| product);
    let Some([flat, weight]) = binary(graph, product, &Op::MatMul) else { return Ok(false) };
    let is_linear = graph.constant(weight).is_some() && graph.shape(weight).len() == 2;
    let is_reshaped = matches!(graph.op(flat), Some(Op::Reshape { .. })) && graph.shape(flat).len() >= 2;
    if !keeps_rows || !is_linear || !is_reshaped || graph.shape(product).last() != shape.last() {
        return Ok(false);
    }
    let mut rows = shape;
    if let (Some(last), Some(&width)) = (rows.last_mut(), graph.shape(flat).last()) {
        *last = width;
    }
    let rows = apply(graph, Op::Reshape { shape: rows }, &[flat], flat)?;
    let mut new = apply(graph, Op::MatMul, &[rows, weight], product)?;
    if let Some([_, bias]) = biased {
        new = apply(graph, Op::Add, &[new, bias], inner)?;
    }
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

/// Any other convolution: every window is gathered, and each group's windows are multiplied with its filters.
fn windows_to_product(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some(Op::Conv { strides, pads, dilations, group }) = graph.op(id).cloned() else { return Ok(false) };
    let args = graph.args(id);
    let (&[n, c, h, w], &[m, per_group, kh, kw], &[_, _, rows, columns]) =
        (graph.shape(args[0]), graph.shape(args[1]), graph.shape(id))
    else {
        return Ok(false);
    };
    let (places, window) = (rows * columns, kh * kw);
    let elements = [n, c, places, window].iter().try_fold(1usize, |size, &length| size.checked_mul(length));
    let is_small = elements.is_some_and(|elements| (1..=MAX_GATHERED).contains(&elements));
    if !is_small || group == 0 || per_group * group != c || !m.is_multiple_of(group) {
        return Ok(false);
    }
    // One element behind all others is what windows see of the padding.
    let mut indices = Vec::with_capacity(places * window);
    for place in 0..places {
        for tap in 0..window {
            let row = (place / columns * strides[0] + tap / kw * dilations[0]).checked_sub(pads[0]);
            let column = (place % columns * strides[1] + tap % kw * dilations[1]).checked_sub(pads[1]);
            let inside = row.zip(column).filter(|&(row, column)| row < h && column < w);
            indices.push(inside.map_or(h * w, |(row, column)| row * w + column) as i64);
        }
    }
    let is_padded = indices.contains(&((h * w) as i64));
    let failed = |graph: &Graph, error| Diagnostic::new(graph.node(id).name.clone(), error);
    let indices = Tensor::i64([places * window], indices).map_err(|error| failed(graph, error))?;
    let indices = graph.add_constant("windows", indices);
    let mut flat = apply(graph, Op::Reshape { shape: vec![n, c, h * w] }, &[args[0]], id)?;
    if is_padded {
        let zeros = Tensor::f32([n, c, 1], vec![0.0; n * c]).map_err(|error| failed(graph, error))?;
        let zeros = graph.add_constant("padding", zeros);
        // No weight: a convolution in the clear stays there.
        graph.node_mut(zeros).facts.owner = Some(Owner::Public);
        flat = apply(graph, Op::Concat { axis: 2 }, &[flat, zeros], id)?;
    }
    let gathered = apply(graph, Op::Gather { axis: 2 }, &[flat, indices], id)?;
    let split = Op::Reshape { shape: vec![n, group, per_group, places, window] };
    let split = apply(graph, split, &[gathered], id)?;
    let by_place = apply(graph, Op::Transpose { perm: vec![0, 1, 3, 2, 4] }, &[split], id)?;
    let (inner, outer) = (per_group * window, m / group);
    let (x_shape, w_shape, perm) = match group {
        1 => (vec![n, places, inner], vec![m, inner], vec![1, 0]),
        _ => (vec![n, group, places, inner], vec![group, outer, inner], vec![0, 2, 1]),
    };
    let x = apply(graph, Op::Reshape { shape: x_shape }, &[by_place], id)?;
    let weight = apply(graph, Op::Reshape { shape: w_shape }, &[args[1]], args[1])?;
    let weight = apply(graph, Op::Transpose { perm }, &[weight], args[1])?;
    let product = apply(graph, Op::MatMul, &[x, weight], id)?;
    let perm = if group == 1 { vec![0, 2, 1] } else { vec![0, 1, 3, 2] };
    let channels_first = apply(graph, Op::Transpose { perm }, &[product], id)?;
    let new = apply(graph, Op::Reshape { shape: vec![n, m, rows, columns] }, &[channels_first], id)?;
    Ok(substitute(graph, id, new))
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
