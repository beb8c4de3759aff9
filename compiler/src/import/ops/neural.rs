//! Operators of neural networks proper: normalisations, softmax, GELU.

use marill_plaintext::{GeluForm, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

pub(super) fn softmax(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let default = if node.opset < 13 { 1 } else { -1 };
    let axis = node.axis(node.int("axis", default), x.rank())?;
    // Before opset 13 all axes from `axis` on were one; that is the same only for the last.
    if node.opset < 13 && axis + 1 != x.rank() {
        return Err(
            node.form(format!("axis {axis} of {} in opset {}", x.rank(), node.opset), "the last axis")
        );
    }
    Ok(vec![context.apply(Op::Softmax { axis }, &[x])?])
}

pub(super) fn log_softmax(context: &mut Context, node: &OnnxNode) -> Results {
    let probabilities = softmax(context, node)?.remove(0);
    Ok(vec![context.apply(Op::Log, &[&probabilities])?])
}

pub(super) fn gelu(context: &mut Context, node: &OnnxNode) -> Results {
    let form = match node.text("approximate").as_deref() {
        None | Some("none") => GeluForm::Erf,
        Some("tanh") => GeluForm::Tanh,
        Some(other) => return Err(node.invalid(format!("approximate \"{other}\""), "\"none\" or \"tanh\"")),
    };
    Ok(vec![context.apply(Op::Gelu { form }, &[node.need(0)?])?])
}

/// Normalises over the axes from `axis` on, which are made one for the while.
pub(super) fn layer_normalization(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axis = node.axis(node.int("axis", -1), x.rank())?;
    let shape = x.shape().to_vec();
    let width: usize = shape[axis..].iter().product();
    let flat = context.reshape(x, [&shape[..axis], &[width]].concat())?;
    let gain = parameter(context, node.need(1)?, &shape[axis..])?;
    let bias = match node.input(2) {
        Some(bias) => parameter(context, bias, &shape[axis..])?,
        None => context.filled(Tensor::scalar_f32(0.0), vec![width])?,
    };
    let epsilon = node.float("epsilon", 1e-5);
    let result = context.apply(Op::LayerNorm { epsilon }, &[&flat, &gain, &bias])?;
    Ok(vec![context.reshape(&result, shape)?])
}

/// As [`layer_normalization`], without mean and bias.
pub(super) fn rms_normalization(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let axis = node.axis(node.int("axis", -1), x.rank())?;
    let shape = x.shape().to_vec();
    let width: usize = shape[axis..].iter().product();
    let flat = context.reshape(x, [&shape[..axis], &[width]].concat())?;
    let gain = parameter(context, node.need(1)?, &shape[axis..])?;
    let epsilon = node.float("epsilon", 1e-5);
    let result = context.apply(Op::RmsNorm { epsilon }, &[&flat, &gain])?;
    Ok(vec![context.reshape(&result, shape)?])
}

/// A gain or bias broadcast to `shape` and flattened.
pub(super) fn parameter(context: &mut Context, x: &Operand, shape: &[usize]) -> Result<Operand, Diagnostic> {
    let x = match x.elements() == shape.iter().product::<usize>() {
        true => x.clone(),
        false => context.apply(Op::Expand { shape: shape.to_vec() }, &[x])?,
    };
    let width = x.elements();
    context.reshape(&x, vec![width])
}
