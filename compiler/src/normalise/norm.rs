//! Layer norm and RMS norm from their parts.
//!
//! `d / sqrt(mean(d^2) + e)` is the core, with the quotient, the square and the root in any spelling. If `d` is
//! `x - mean(x)` it is a layer norm of `x`, else an RMS norm of `d`. A gain and a bias along the last axis are taken
//! in afterwards, by a norm that has none: whether a gain is all ones is not looked at, it is private.

use super::pattern::{applied, apply, binary, either_way, scalar, scaled, substitute, unary};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::{Op, Tensor};

pub(super) fn recognise_norms(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        changed |= recognise_core(graph, id)?
            || recognise_unit(graph, id)?
            || take_in_gain(graph, id)?
            || take_in_bias(graph, id)?;
    }
    Ok(changed)
}

fn recognise_core(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some((x, epsilon)) = core(graph, id) else { return Ok(false) };
    let centred =
        binary(graph, x, &Op::Sub).filter(|&[y, mean]| mean_of_last(graph, mean) == Some(y)).map(|[y, _]| y);
    let new = match centred {
        Some(y) => apply(graph, Op::LayerNorm { epsilon }, &[y], id)?,
        None => apply(graph, Op::RmsNorm { epsilon }, &[x], id)?,
    };
    Ok(substitute(graph, id, new))
}

/// `x` and epsilon if the value is `x / sqrt(mean(x^2) + epsilon)`.
fn core(graph: &Graph, id: ValueId) -> Option<(ValueId, f32)> {
    let by_quotient = binary(graph, id, &Op::Div).and_then(|[x, root]| Some((x, rooted(graph, root)?)));
    let by_product =
        || either_way(graph, id, &Op::Mul).find_map(|[x, factor]| Some((x, inverse_rooted(graph, factor)?)));
    let (x, variance) = by_quotient.or_else(by_product)?;
    let with_epsilon = either_way(graph, variance, &Op::Add)
        .find_map(|[mean, epsilon]| Some((mean, scalar(graph, epsilon)?)));
    let (mean, epsilon) = with_epsilon.unwrap_or((variance, 0.0));
    let squared = square_of(graph, mean_of_last(graph, mean)?)?;
    (squared == x && graph.ty(id) == graph.ty(x)).then_some((x, epsilon as f32))
}

/// `x / max(|x|, least)` along the last axis: an RMS norm, shrunk.
fn recognise_unit(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some((x, least)) = unit(graph, id) else { return Ok(false) };
    let width = graph.shape(x).last().copied().unwrap_or(1) as f64;
    let epsilon = (least * least / width) as f32;
    let normed = apply(graph, Op::RmsNorm { epsilon }, &[x], id)?;
    let factor = graph.add_constant("scale", Tensor::scalar_f32((1.0 / width.sqrt()) as f32));
    let new = apply(graph, Op::Mul, &[normed, factor], id)?;
    Ok(substitute(graph, id, new))
}

/// `x` and the least length by which it is divided.
fn unit(graph: &Graph, id: ValueId) -> Option<(ValueId, f64)> {
    let [x, mut length] = binary(graph, id, &Op::Div)?;
    if let Some(Op::Expand { .. }) = graph.op(length) {
        length = graph.arg(length, 0)?;
    }
    let mut least = 0.0;
    if let Some(&Op::Clip { min, max }) = graph.op(length)
        && max > 1e30
    {
        (least, length) = (f64::from(min), graph.arg(length, 0)?);
    } else if let Some(found) =
        either_way(graph, length, &Op::Max).find_map(|[inner, floor]| Some((scalar(graph, floor)?, inner)))
    {
        (least, length) = found;
    }
    let sum = rooted(graph, length)?;
    let Op::ReduceSum { axes, keepdims: true } = graph.op(sum)? else { return None };
    let squared = square_of(graph, graph.arg(sum, 0)?)?;
    let is_last = axes[..] == [graph.shape(x).len().checked_sub(1)?];
    (squared == x && is_last && (0.0..1e-3).contains(&least) && graph.ty(id) == graph.ty(x))
        .then_some((x, least))
}

fn rooted(graph: &Graph, id: ValueId) -> Option<ValueId> {
    unary(graph, id, &Op::Sqrt).or_else(|| power(graph, id, 0.5))
}

fn inverse_rooted(graph: &Graph, id: ValueId) -> Option<ValueId> {
    if let Some(root) = unary(graph, id, &Op::Reciprocal) {
        return rooted(graph, root);
    }
    if let Some([one, root]) = binary(graph, id, &Op::Div) {
        return if scalar(graph, one) == Some(1.0) { rooted(graph, root) } else { None };
    }
    unary(graph, id, &Op::Rsqrt).or_else(|| power(graph, id, -0.5))
}

fn power(graph: &Graph, id: ValueId, exponent: f64) -> Option<ValueId> {
    let [x, found] = binary(graph, id, &Op::Pow)?;
    (scalar(graph, found) == Some(exponent)).then_some(x)
}

fn square_of(graph: &Graph, id: ValueId) -> Option<ValueId> {
    match binary(graph, id, &Op::Mul) {
        Some([a, b]) => (a == b).then_some(a),
        None => power(graph, id, 2.0),
    }
}

/// `x` if the value is the mean of `x` along its last axis, which is kept.
fn mean_of_last(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let last_of = |x: ValueId| graph.shape(x).len().checked_sub(1);
    match graph.op(id)? {
        Op::ReduceMean { axes, keepdims: true } => {
            let x = graph.arg(id, 0)?;
            (Some(axes.as_slice()) == last_of(x).as_ref().map(std::slice::from_ref)).then_some(x)
        }
        Op::Mul | Op::Div => {
            let (sum, factor) = scaled(graph, id)?;
            let Op::ReduceSum { axes, keepdims: true } = graph.op(sum)? else { return None };
            let x = graph.arg(sum, 0)?;
            let width = *graph.shape(x).last()? as f64;
            let along_last = Some(axes.as_slice()) == last_of(x).as_ref().map(std::slice::from_ref);
            (along_last && (factor * width - 1.0).abs() < 1e-6).then_some(x)
        }
        _ => None,
    }
}

fn take_in_gain(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some([norm, gain]) = gained(graph, id) else { return Ok(false) };
    let takes_bias = matches!(graph.op(norm), Some(Op::LayerNorm { .. }));
    // Gain and bias enter a layer norm together.
    if takes_bias
        && let [user] = graph.users(id)[..]
        && !graph.is_output(id)
        && biased(graph, user).is_some_and(|[product, _]| product == id)
    {
        return Ok(false);
    }
    put_operands(graph, id, norm, Some(gain), None)
}

fn take_in_bias(graph: &mut Graph, id: ValueId) -> Result<bool, Diagnostic> {
    let Some([sum, bias]) = biased(graph, id) else { return Ok(false) };
    match gained(graph, sum) {
        Some([norm, gain]) => put_operands(graph, id, norm, Some(gain), Some(bias)),
        None => put_operands(graph, id, sum, None, Some(bias)),
    }
}

/// The norm and the gain, if the value is their product and the norm has no gain yet.
fn gained(graph: &Graph, id: ValueId) -> Option<[ValueId; 2]> {
    either_way(graph, id, &Op::Mul)
        .find(|&[norm, gain]| is_plain(graph, norm) && is_along_last(graph, gain, norm))
}

/// The layer norm, with a gain or without one, and the bias, if the value is their sum.
fn biased(graph: &Graph, id: ValueId) -> Option<[ValueId; 2]> {
    either_way(graph, id, &Op::Add).find(|&[sum, bias]| {
        let norm = gained(graph, sum).map_or(sum, |[norm, _]| norm);
        matches!(graph.op(norm), Some(Op::LayerNorm { .. }))
            && is_plain(graph, norm)
            && is_along_last(graph, bias, norm)
    })
}

/// Whether the value is a norm with neither gain nor bias.
fn is_plain(graph: &Graph, norm: ValueId) -> bool {
    matches!(graph.op(norm), Some(Op::LayerNorm { .. } | Op::RmsNorm { .. })) && graph.args(norm).len() == 1
}

/// Whether `vector` is a constant with one element per element of the last axis of `norm`.
fn is_along_last(graph: &Graph, vector: ValueId, norm: ValueId) -> bool {
    let (shape, width) = (graph.shape(vector), graph.shape(norm).last());
    graph.constant(vector).is_some()
        && shape.last() == width
        && shape.len() <= graph.shape(norm).len()
        && shape.iter().rev().skip(1).all(|&dim| dim == 1)
}

/// The norm with a gain and a bias, in place of `id`. A layer norm has both or none.
fn put_operands(
    graph: &mut Graph,
    id: ValueId,
    norm: ValueId,
    gain: Option<ValueId>,
    bias: Option<ValueId>,
) -> Result<bool, Diagnostic> {
    let Some(op) = graph.op(norm).cloned() else { return Ok(false) };
    let width = graph.shape(norm).last().copied().unwrap_or(1);
    let mut args = graph.args(norm);
    let wanted = if matches!(op, Op::LayerNorm { .. }) { 2 } else { 1 };
    for (vector, name, value) in [(gain, "ones", 1.0), (bias, "zeros", 0.0)].into_iter().take(wanted) {
        args.push(match vector {
            Some(vector) if graph.shape(vector).len() > 1 => {
                apply(graph, Op::Reshape { shape: vec![width] }, &[vector], vector)?
            }
            Some(vector) => vector,
            None => {
                let filled = Tensor::f32(vec![width], vec![value; width])
                    .map_err(|error| Diagnostic::new(graph.node(id).name.clone(), error))?;
                graph.add_constant(name, filled)
            }
        });
    }
    let new = apply(graph, op, &args, id)?;
    Ok(substitute(graph, id, new))
}
