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
    let known = indices.known().ok_or_else(|| context.dynamic(node, indices, "indices"))?;
    let shape = indices.shape().to_vec();
    let fits = shape.iter().zip(x.shape()).enumerate().all(|(at, (&mine, &full))| at == axis || mine <= full);
    if shape.len() != x.rank() || !fits {
        let found = format!("indices {shape:?} into {:?}", x.shape());
        return Err(
            node.invalid(found, "indices with the operand's axes, none longer but the one gathered along")
        );
    }
    let strides = strides(x.shape());
    let length = x.shape()[axis] as i64;
    let mut flat = Vec::with_capacity(known.len());
    let mut place = vec![0usize; shape.len()];
    for index in context.check(known.to_i64_vec())? {
        let along = if index < 0 { index + length } else { index };
        if !(0..length).contains(&along) {
            return Err(node.invalid(format!("index {index}"), "indices within the operand"));
        }
        let at = |(axis_at, &place): (usize, &usize)| if axis_at == axis { along as usize } else { place };
        let sum: usize =
            place.iter().enumerate().map(at).zip(&strides).map(|(place, stride)| place * stride).sum();
        flat.push(sum as i64);
        advance(&mut place, &shape);
    }
    let flat = context.derived(context.check(Tensor::i64(shape, flat))?, &[indices]);
    let elements = context.reshape(x, vec![x.shape().iter().product()])?;
    Ok(vec![context.apply(Op::Gather { axis: 0 }, &[&elements, &flat])?])
}

/// Elements from one to the next along each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The next place in row-major order.
fn advance(place: &mut [usize], shape: &[usize]) {
    for (at, &length) in place.iter_mut().zip(shape).rev() {
        *at += 1;
        if *at < length {
            return;
        }
        *at = 0;
    }
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
    let zero = context.known(Tensor::scalar_i64(0));
    let mut rows = zero.clone();
    for (axis, (&length, stride)) in leading.iter().zip(strides(leading)).enumerate() {
        let (start, length) = (axis as i64, context.known(Tensor::scalar_i64(length as i64)));
        let index = context.apply(Op::Slice { axis: last, start, end: start + 1, step: 1 }, &[indices])?;
        let index = context.reshape(&index, count.clone())?;
        let is_negative = context.apply(Op::Less, &[&index, &zero])?;
        let from_end = context.apply(Op::Add, &[&index, &length])?;
        let index = context.apply(Op::Where, &[&is_negative, &from_end, &index])?;
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
