//! Choosing elements by index.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

pub(super) fn gather(context: &mut Context, node: &OnnxNode) -> Results {
    let (x, indices) = (node.need(0)?, node.need(1)?);
    let axis = node.axis(node.int("axis", 0), x.rank())?;
    Ok(vec![context.apply(Op::Gather { axis }, &[x, indices])?])
}

/// Elements along `axis` at indices that must be known: one look-up in all of the operand, flat.
pub(super) fn gather_elements(context: &mut Context, node: &OnnxNode) -> Results {
    let (x, indices) = (node.need(0)?, node.need(1)?);
    let axis = node.axis(node.int("axis", 0), x.rank())?;
    if indices.known().is_none() {
        return Err(context.dynamic(node, indices, "indices"));
    }
    let shape = indices.shape().to_vec();
    let fits = shape.iter().zip(x.shape()).enumerate().all(|(at, (&mine, &full))| at == axis || mine <= full);
    if shape.len() != x.rank() || !fits {
        let found = format!("indices {shape:?} into {:?}", x.shape());
        let needed = "indices with the operand's axes, none longer but the one gathered along";
        return Err(node.invalid(found, needed));
    }
    let (mine, theirs) = (strides(&shape), strides(x.shape()));
    // Where each element would be at index 0.
    let start = |at: usize| -> usize {
        (0..shape.len()).filter(|&d| d != axis).map(|d| at / mine[d] % shape[d] * theirs[d]).sum()
    };
    let starts = (0..indices.elements()).map(|at| start(at) as i64).collect();
    let starts = context.known(context.check(Tensor::i64(shape.clone(), starts))?);
    let along = from_start(context, node, indices, x.shape()[axis])?;
    let stride = context.known(Tensor::scalar_i64(theirs[axis] as i64));
    let step = context.apply(Op::Mul, &[&along, &stride])?;
    let flat = context.apply(Op::Add, &[&step, &starts])?;
    let elements = context.reshape(x, vec![x.elements()])?;
    Ok(vec![context.apply(Op::Gather { axis: 0 }, &[&elements, &flat])?])
}

/// Indices into an axis of `length`, of which negative ones count from its end, counted from its start.
fn from_start(
    context: &mut Context,
    node: &OnnxNode,
    indices: &Operand,
    length: usize,
) -> Result<Operand, Diagnostic> {
    let length = length as i64;
    if let Some(known) = indices.known() {
        let indices = context.check(known.to_i64_vec())?;
        if let Some(index) = indices.into_iter().find(|index| !(-length..length).contains(index)) {
            return Err(node.invalid(format!("index {index}"), "indices within the operand"));
        }
    }
    let (zero, length) = (context.known(Tensor::scalar_i64(0)), context.known(Tensor::scalar_i64(length)));
    let is_negative = context.apply(Op::Less, &[indices, &zero])?;
    let from_end = context.apply(Op::Add, &[indices, &length])?;
    context.apply(Op::Where, &[&is_negative, &from_end, indices])
}

/// Elements from one to the next along each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Of computed numbers, rows of all leading axes as one; else as it is, which keeps masks recognisable.
pub(super) fn gather_nd(context: &mut Context, node: &OnnxNode) -> Results {
    let batch_dims = node.length(node.int("batch_dims", 0), "batch_dims")?;
    let (x, indices) = (node.need(0)?, node.need(1)?);
    let depth = indices.shape().last().copied().unwrap_or(0);
    let is_computed = x.dtype() == DType::F32 && x.known().is_none();
    if batch_dims > 0 || !is_computed || depth == 0 || depth > x.rank() {
        return Ok(vec![context.apply(Op::GatherNd { batch_dims }, &[x, indices])?]);
    }
    let (leading, rest) = x.shape().split_at(depth);
    let (last, count) = (indices.rank() - 1, indices.shape()[..indices.rank() - 1].to_vec());
    let mut rows = context.known(Tensor::scalar_i64(0));
    for (axis, (&length, stride)) in leading.iter().zip(strides(leading)).enumerate() {
        let start = axis as i64;
        let index = context.apply(Op::Slice { axis: last, start, end: start + 1, step: 1 }, &[indices])?;
        let index = context.reshape(&index, count.clone())?;
        let index = from_start(context, node, &index, length)?;
        let stride = context.known(Tensor::scalar_i64(stride as i64));
        let step = context.apply(Op::Mul, &[&index, &stride])?;
        rows = context.apply(Op::Add, &[&step, &rows])?;
    }
    let shape = std::iter::once(leading.iter().product()).chain(rest.iter().copied()).collect();
    let flat = context.reshape(x, shape)?;
    Ok(vec![context.apply(Op::Gather { axis: 0 }, &[&flat, &rows])?])
}

pub(super) fn scatter_nd(context: &mut Context, node: &OnnxNode) -> Results {
    let reduction = node.text("reduction").unwrap_or_else(|| "none".into());
    if reduction != "none" {
        return Err(node.form(format!("reduction \"{reduction}\""), "reduction \"none\""));
    }
    Ok(vec![context.apply(Op::ScatterNd, &[node.need(0)?, node.need(1)?, node.need(2)?])?])
}

pub(super) fn one_hot(context: &mut Context, node: &OnnxNode) -> Results {
    let (indices, depth) = (node.need(0)?, node.need(1)?);
    let axis = node.axis(node.int("axis", -1), indices.rank() + 1)?;
    let depth = depth.known().ok_or_else(|| context.dynamic(node, depth, "depth"))?;
    let depth = context.check(depth.cast(DType::I64).to_i64_vec())?;
    let depth = node.length(depth.first().copied().unwrap_or(0), "depth")?;
    let values = node.need(2)?;
    let known = values.known().ok_or_else(|| context.dynamic(node, values, "values"))?;
    let numbers = context.check(known.cast(DType::F32).to_f32_vec())?;
    let &[off, on] = numbers.as_slice() else {
        return Err(node.invalid(format!("{} values", numbers.len()), "off and on values"));
    };
    let indices = context.cast(indices, DType::I64)?;
    let hot = context.apply(Op::OneHot { depth }, &[&indices])?;
    let number = |number| context.derived(Tensor::scalar_f32(number), &[values]);
    let (span, base) = (number(on - off), number(off));
    let scaled = if on - off == 1.0 { hot } else { context.apply(Op::Mul, &[&hot, &span])? };
    let shifted = if off == 0.0 { scaled } else { context.apply(Op::Add, &[&scaled, &base])? };
    let typed = context.cast(&shifted, values.dtype())?;
    let mut perm: Vec<usize> = (0..indices.rank()).collect();
    perm.insert(axis, indices.rank());
    Ok(vec![context.apply(Op::Transpose { perm }, &[&typed])?])
}
