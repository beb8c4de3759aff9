//! Sums, means and extremes over axes.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

/// The operand reduced by `op`. Axes are an attribute or, in later opsets, the second operand; none means all,
/// unless `noop_with_empty_axes`.
fn reduce(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    op: fn(Vec<usize>, bool) -> Op,
) -> Result<Operand, Diagnostic> {
    let given = match node.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => context.integers_at(node, 1, "axes")?.unwrap_or_default(),
    };
    let keepdims = node.flag("keepdims", true);
    let axes = match given.as_slice() {
        [] if node.flag("noop_with_empty_axes", false) => Vec::new(),
        [] => (0..x.rank()).collect(),
        given => node.axes(given, x.rank())?,
    };
    if axes.is_empty() {
        return Ok(x.clone());
    }
    context.apply(op(axes, keepdims), &[x])
}

fn sum(axes: Vec<usize>, keepdims: bool) -> Op {
    Op::ReduceSum { axes, keepdims }
}

fn max(axes: Vec<usize>, keepdims: bool) -> Op {
    Op::ReduceMax { axes, keepdims }
}

pub(super) fn reduce_sum(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![reduce(context, node, node.need(0)?, sum)?])
}

pub(super) fn reduce_mean(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![reduce(context, node, node.need(0)?, |axes, keepdims| Op::ReduceMean { axes, keepdims })?])
}

/// The mean over all axes but batch and channels.
pub(super) fn global_average_pool(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axes: Vec<usize> = (2..x.rank()).collect();
    if axes.is_empty() {
        return Err(node.invalid(format!("operand {:?}", x.shape()), "batch, channels and what is averaged"));
    }
    Ok(vec![context.apply(Op::ReduceMean { axes, keepdims: true }, &[x])?])
}

pub(super) fn reduce_max(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![reduce(context, node, node.need(0)?, max)?])
}

pub(super) fn reduce_min(context: &mut Context, node: &OnnxNode) -> Results {
    let negative = context.apply(Op::Neg, &[node.need(0)?])?;
    let largest = reduce(context, node, &negative, max)?;
    Ok(vec![context.apply(Op::Neg, &[&largest])?])
}

pub(super) fn reduce_sum_square(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let square = context.apply(Op::Mul, &[x, x])?;
    Ok(vec![reduce(context, node, &square, sum)?])
}

pub(super) fn reduce_l2(context: &mut Context, node: &OnnxNode) -> Results {
    let square = reduce_sum_square(context, node)?.remove(0);
    Ok(vec![context.apply(Op::Sqrt, &[&square])?])
}

/// Only the arithmetic of shapes multiplies up its elements.
pub(super) fn reduce_prod(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    if x.dtype() != DType::I64 || x.rank() > 1 {
        return Err(node.form(format!("a {} operand", x.ty), "a known vector of integers"));
    }
    let factors = context.integers(node, x, "data")?;
    let product = factors.iter().try_fold(1i64, |product, &factor| product.checked_mul(factor));
    let product = product.ok_or_else(|| {
        node.invalid(format!("{} factors of a larger product", factors.len()), "a product below 2^63")
    })?;
    let keepdims = node.flag("keepdims", true) && x.rank() == 1;
    let result = context.known(Tensor::scalar_i64(product));
    Ok(vec![if keepdims { context.reshape(&result, vec![1])? } else { result }])
}

pub(super) fn cum_sum(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axis = context.integers(node, node.need(1)?, "axis")?.first().copied().unwrap_or(0);
    let axis = node.axis(axis, x.rank())?;
    let (exclusive, reverse) = (node.flag("exclusive", false), node.flag("reverse", false));
    Ok(vec![context.apply(Op::CumSum { axis, exclusive, reverse }, &[x])?])
}

pub(super) fn arg_max(context: &mut Context, node: &OnnxNode) -> Results {
    if node.flag("select_last_index", false) {
        return Err(node.form("select_last_index 1", "select_last_index 0"));
    }
    let x = node.need(0)?;
    let axis = node.axis(node.int("axis", 0), x.rank())?;
    let keepdims = node.flag("keepdims", true);
    Ok(vec![context.apply(Op::ArgMax { axis, keepdims }, &[x])?])
}
