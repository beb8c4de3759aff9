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

pub(super) fn gather_nd(context: &mut Context, node: &OnnxNode) -> Results {
    let batch_dims = node.length(node.int("batch_dims", 0), "batch_dims")?;
    Ok(vec![context.apply(Op::GatherNd { batch_dims }, &[node.need(0)?, node.need(1)?])?])
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
