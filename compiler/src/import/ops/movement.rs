//! Data movement: the result's elements are the operand's, in another place.

use marill_plaintext::{DType, Op, Tensor, broadcast_shapes};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

pub(super) fn identity(_: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![node.need(0)?.clone()])
}

/// The identity, unless the node asks for training.
pub(super) fn dropout(context: &mut Context, node: &OnnxNode) -> Results {
    let training = match node.input(2) {
        Some(mode) => mode.known().ok_or_else(|| context.dynamic(node, mode, "training_mode"))?,
        None => Tensor::scalar_bool(false),
    };
    if context.check(training.cast(DType::I64).to_i64_vec())?.iter().any(|&mode| mode != 0) {
        return Err(node.form("training_mode true", "a model exported for inference"));
    }
    identity(context, node)
}

pub(super) fn reshape(context: &mut Context, node: &OnnxNode) -> Results {
    let (x, target) = (node.need(0)?, context.integers(node, node.need(1)?, "shape")?);
    let keep_zero = node.flag("allowzero", false);
    let mut shape = Vec::with_capacity(target.len());
    let mut inferred = None;
    for (axis, &length) in target.iter().enumerate() {
        shape.push(match length {
            0 if !keep_zero => *x.shape().get(axis).ok_or_else(|| {
                node.invalid(
                    format!("shape {target:?} for {:?}", x.shape()),
                    "a 0 only where the operand has an axis",
                )
            })?,
            -1 if inferred.is_none() => {
                inferred = Some(axis);
                1
            }
            -1 => return Err(node.invalid(format!("shape {target:?}"), "at most one -1")),
            length => node.length(length, "length")?,
        });
    }
    if let Some(axis) = inferred {
        let others = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
        let divides = others.filter(|&others| others != 0 && x.elements() % others == 0);
        let others = divides.ok_or_else(|| {
            node.invalid(format!("shape {target:?} for {:?}", x.shape()), "a shape of as many elements")
        })?;
        shape[axis] = x.elements() / others;
    }
    Ok(vec![context.reshape(x, shape)?])
}

pub(super) fn flatten(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axis = node.int("axis", 1);
    let axis = if axis == x.rank() as i64 { x.rank() } else { node.axis(axis, x.rank())? };
    let shape = vec![x.shape()[..axis].iter().product(), x.shape()[axis..].iter().product()];
    Ok(vec![context.reshape(x, shape)?])
}

/// Axes from the attribute up to opset 12, from the second operand after.
fn axes(context: &Context, node: &OnnxNode) -> Result<Option<Vec<i64>>, Diagnostic> {
    match node.ints("axes") {
        Some(axes) => Ok(Some(axes.to_vec())),
        None => context.integers_at(node, 1, "axes"),
    }
}

pub(super) fn squeeze(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axes = match axes(context, node)? {
        Some(axes) => node.axes(&axes, x.rank())?,
        None => (0..x.rank()).filter(|&axis| x.shape()[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| x.shape()[axis] != 1) {
        return Err(node.invalid(format!("axis {axis} of {:?}", x.shape()), "axes of length 1"));
    }
    let kept = x.shape().iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
    let shape = kept.map(|(_, &length)| length).collect();
    Ok(vec![context.reshape(x, shape)?])
}

pub(super) fn unsqueeze(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axes = axes(context, node)?.ok_or_else(|| node.invalid("no axes", "axes"))?;
    // More axes than this is no tensor that anything else accepts.
    if axes.len() > 64 {
        return Err(node.invalid(format!("{} axes", axes.len()), "at most 64 axes"));
    }
    let axes = node.axes(&axes, x.rank() + axes.len())?;
    let mut shape = x.shape().to_vec();
    for axis in axes {
        shape.insert(axis, 1);
    }
    Ok(vec![context.reshape(x, shape)?])
}

pub(super) fn transpose(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let perm = match node.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| node.axis(axis, x.rank())).collect::<Result<_, _>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    Ok(vec![context.apply(Op::Transpose { perm }, &[x])?])
}

pub(super) fn concat(context: &mut Context, node: &OnnxNode) -> Results {
    let parts = node.all()?;
    let axis = node.axis(node.int("axis", 0), parts[0].rank())?;
    Ok(vec![context.apply(Op::Concat { axis }, &parts)?])
}

pub(super) fn slice(context: &mut Context, node: &OnnxNode) -> Results {
    let mut x = node.need(0)?.clone();
    let starts = context.integers(node, node.need(1)?, "starts")?;
    let ends = context.integers(node, node.need(2)?, "ends")?;
    let axes = context.integers_at(node, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = context.integers_at(node, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let counts = [ends.len(), axes.len(), steps.len()];
    if counts != [starts.len(); 3] {
        let found = format!("{} starts and {counts:?} ends, axes, steps", starts.len());
        return Err(node.invalid(found, "as many of each"));
    }
    node.axes(&axes, x.rank())?;
    for (index, &axis) in axes.iter().enumerate() {
        let axis = node.axis(axis, x.rank())?;
        let length = x.shape()[axis] as i64;
        let step = steps[index];
        if step == 0 {
            return Err(node.invalid("step 0", "a step other than 0"));
        }
        let from_front = |bound: i64| if bound < 0 { bound.saturating_add(length) } else { bound };
        let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
        let start = from_front(starts[index]).clamp(low.max(0).min(high), high);
        let end = from_front(ends[index]).clamp(low, high);
        x = context.apply(Op::Slice { axis, start, end, step }, &[&x])?;
    }
    Ok(vec![x])
}

pub(super) fn split(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axis = node.axis(node.int("axis", 0), x.rank())?;
    let length = x.shape()[axis];
    let lengths = match node.ints("split") {
        Some(lengths) => Some(lengths.to_vec()),
        None => context.integers_at(node, 1, "split")?,
    };
    let lengths: Vec<usize> = match lengths {
        Some(lengths) => {
            lengths.iter().map(|&part| node.length(part, "part of length")).collect::<Result<_, _>>()?
        }
        None => {
            let parts = node.length(node.int("num_outputs", node.outputs as i64), "num_outputs")?;
            if parts != node.outputs || parts == 0 {
                let found = format!("num_outputs {parts} and {} outputs", node.outputs);
                return Err(node.invalid(found, "as many parts as outputs"));
            }
            let part = length.div_ceil(parts);
            (0..parts).map(|index| part.min(length.saturating_sub(index * part))).collect()
        }
    };
    let total = lengths.iter().try_fold(0usize, |total, &part| total.checked_add(part));
    if total != Some(length) || lengths.len() != node.outputs {
        let found = format!("parts {lengths:?} of an axis of length {length} in {} outputs", node.outputs);
        return Err(node.invalid(found, "parts that make up the axis"));
    }
    let mut start = 0;
    let mut results = Vec::with_capacity(lengths.len());
    for part in lengths {
        let end = start + part as i64;
        results.push(context.apply(Op::Slice { axis, start, end, step: 1 }, &[x])?);
        start = end;
    }
    Ok(results)
}

pub(super) fn expand(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let target = context.integers(node, node.need(1)?, "shape")?;
    let target = target.iter().map(|&length| node.length(length, "length")).collect::<Result<Vec<_>, _>>()?;
    let shape = context.check(broadcast_shapes(x.shape(), &target))?;
    Ok(vec![context.apply(Op::Expand { shape }, &[x])?])
}

pub(super) fn tile(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let repeats = context.integers(node, node.need(1)?, "repeats")?;
    let repeats = repeats.iter().map(|&count| node.length(count, "repeat")).collect::<Result<_, _>>()?;
    Ok(vec![context.apply(Op::Tile { repeats }, &[x])?])
}

pub(super) fn trilu(context: &mut Context, node: &OnnxNode) -> Results {
    let diagonal = context.integers_at(node, 1, "k")?.and_then(|k| k.first().copied()).unwrap_or(0);
    let upper = node.flag("upper", true);
    let x = node.need(0)?;
    // Beyond the tensor's size every diagonal is alike; clamping keeps index arithmetic small.
    let limit = x.shape().iter().rev().take(2).copied().max().unwrap_or(0) as i64;
    let diagonal = diagonal.clamp(-limit, limit);
    Ok(vec![context.apply(Op::Trilu { upper, diagonal }, &[x])?])
}

pub(super) fn pad(context: &mut Context, node: &OnnxNode) -> Results {
    let mut x = node.need(0)?.clone();
    let mode = node.text("mode").unwrap_or_else(|| "constant".into());
    if mode != "constant" {
        return Err(node.form(format!("mode \"{mode}\""), "mode \"constant\""));
    }
    let pads = context.integers(node, node.need(1)?, "pads")?;
    let axes = match context.integers_at(node, 3, "axes")? {
        Some(axes) => axes.iter().map(|&axis| node.axis(axis, x.rank())).collect::<Result<Vec<_>, _>>()?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(node.invalid(format!("{} pads for {} axes", pads.len(), axes.len()), "two pads per axis"));
    }
    let zero = match x.dtype() {
        DType::F32 => Tensor::scalar_f32(0.0),
        DType::I64 => Tensor::scalar_i64(0),
        DType::Bool => Tensor::scalar_bool(false),
    };
    let value = match node.input(2) {
        Some(value) => context.reshape(value, Vec::new())?,
        None => context.known(zero),
    };
    for (index, &axis) in axes.iter().enumerate() {
        let mut around = Vec::with_capacity(2);
        for pad in [pads[index], pads[index + axes.len()]] {
            if pad < 0 {
                return Err(node.form(format!("pad {pad}"), "pads of at least 0, crop with Slice"));
            }
            let mut shape = x.shape().to_vec();
            shape[axis] = pad as usize;
            around.push(context.apply(Op::Expand { shape }, &[&value])?);
        }
        let parts = [&around[0], &x, &around[1]];
        let parts: Vec<&Operand> = parts.into_iter().filter(|part| part.shape()[axis] != 0).collect();
        if !parts.is_empty() {
            x = context.apply(Op::Concat { axis }, &parts)?;
        }
    }
    Ok(vec![x])
}
