//! Operators of domain `com.microsoft` that onnxruntime's optimiser puts in place of several of ONNX's own.

use marill_plaintext::{GeluForm, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use super::neural::parameter;
use super::products::{biased, gemm, scaled};
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

pub(super) fn gelu(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![context.apply(Op::Gelu { form: GeluForm::Erf }, &[node.need(0)?])?])
}

/// GELU of `x + bias`.
pub(super) fn bias_gelu(context: &mut Context, node: &OnnxNode) -> Results {
    let sum = biased(context, node, node.need(0)?, Some(node.need(1)?))?;
    Ok(vec![context.apply(Op::Gelu { form: GeluForm::Erf }, &[&sum])?])
}

/// GELU by its approximation with `tanh`, of `x` or of `x + bias`.
pub(super) fn fast_gelu(context: &mut Context, node: &OnnxNode) -> Results {
    let sum = biased(context, node, node.need(0)?, node.input(1))?;
    Ok(vec![context.apply(Op::Gelu { form: GeluForm::Tanh }, &[&sum])?])
}

/// `x * sigmoid(alpha x)`, which is `silu(alpha x) / alpha`.
pub(super) fn quick_gelu(context: &mut Context, node: &OnnxNode) -> Results {
    let alpha = node.float("alpha", 1.702);
    if !alpha.is_normal() || !(1.0 / alpha).is_normal() {
        return Err(node.form(format!("alpha {alpha}"), "a number whose inverse is one too"));
    }
    let stretched = scaled(context, node.need(0)?, alpha)?;
    let gated = context.apply(Op::Silu, &[&stretched])?;
    Ok(vec![scaled(context, &gated, 1.0 / alpha)?])
}

/// `alpha * A' B'`, each factor's last two axes swapped or not; what has one axis stays as it is.
pub(super) fn fused_mat_mul(context: &mut Context, node: &OnnxNode) -> Results {
    for name in ["transBatchA", "transBatchB"] {
        if node.flag(name, false) {
            return Err(node.form(format!("{name} 1"), "batch axes that stay in front"));
        }
    }
    let mut factors = Vec::with_capacity(2);
    for (index, name) in ["transA", "transB"].into_iter().enumerate() {
        let factor = node.need(index)?;
        let rank = factor.rank();
        factors.push(if node.flag(name, false) && rank >= 2 {
            let perm = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
            context.apply(Op::Transpose { perm }, &[factor])?
        } else {
            factor.clone()
        });
    }
    let product = context.apply(Op::MatMul, &[&factors[0], &factors[1]])?;
    Ok(vec![scaled(context, &product, node.float("alpha", 1.0))?])
}

/// `Gemm` and an activation.
pub(super) fn fused_gemm(context: &mut Context, node: &OnnxNode) -> Results {
    let product = gemm(context, node)?.remove(0);
    let op = match node.text("activation").as_deref() {
        None | Some("") => return Ok(vec![product]),
        Some("Relu") => Op::Relu,
        Some("Sigmoid") => Op::Sigmoid,
        Some("Tanh") => Op::Tanh,
        Some(other) => return Err(node.form(format!("activation \"{other}\""), "Relu, Sigmoid or Tanh")),
    };
    Ok(vec![context.apply(op, &[&product])?])
}

/// Layer norm of `input + skip`, or of that and a bias. Outputs: the norm, two that training needs, the sum.
pub(super) fn skip_layer_normalization(context: &mut Context, node: &OnnxNode) -> Results {
    let (sum, gain) = (skip_sum(context, node, 4)?, node.need(2)?);
    let width = sum.shape().last().copied().into_iter().collect::<Vec<_>>();
    let gain = parameter(context, gain, &width)?;
    let bias = match node.input(3) {
        Some(bias) => parameter(context, bias, &width)?,
        None => context.filled(Tensor::scalar_f32(0.0), width)?,
    };
    let epsilon = node.float("epsilon", 1e-12);
    let norm = context.apply(Op::LayerNorm { epsilon }, &[&sum, &gain, &bias])?;
    Ok(vec![norm, sum.clone(), sum.clone(), sum])
}

/// As [`skip_layer_normalization`], without mean and its bias.
pub(super) fn skip_simplified_layer_normalization(context: &mut Context, node: &OnnxNode) -> Results {
    let (sum, gain) = (skip_sum(context, node, 3)?, node.need(2)?);
    let width = sum.shape().last().copied().into_iter().collect::<Vec<_>>();
    let gain = parameter(context, gain, &width)?;
    let epsilon = node.float("epsilon", 1e-12);
    let norm = context.apply(Op::RmsNorm { epsilon }, &[&sum, &gain])?;
    Ok(vec![norm, sum.clone(), sum.clone(), sum])
}

/// Layer norm of the sum of word, position and segment embeddings. Outputs: the norm, how many
/// tokens the mask leaves of each batch, the sum.
pub(super) fn embed_layer_normalization(context: &mut Context, node: &OnnxNode) -> Results {
    let (words, places) = (node.need(0)?, node.need(3)?);
    let (&[_, length], &[_, _]) = (words.shape(), places.shape()) else {
        let found = format!("operands {:?} and {:?}", words.shape(), places.shape());
        return Err(node.invalid(found, "tokens of batch and position, and a row per position"));
    };
    let mut sum = context.apply(Op::Gather { axis: 0 }, &[node.need(2)?, words])?;
    let place = match node.input(8) {
        Some(positions) => context.apply(Op::Gather { axis: 0 }, &[places, positions])?,
        None => {
            let first = Op::Slice { axis: 0, start: 0, end: length as i64, step: 1 };
            context.apply(first, &[places])?
        }
    };
    let shape = sum.shape().to_vec();
    sum = context.apply(Op::Add, &[&sum, &place])?;
    match (node.input(1), node.input(4)) {
        (Some(segments), Some(table)) => {
            let segment = context.apply(Op::Gather { axis: 0 }, &[table, segments])?;
            sum = context.apply(Op::Add, &[&sum, &segment])?;
        }
        (None, None) => {}
        _ => return Err(node.invalid("segments or their embedding alone", "both or neither")),
    }
    if sum.shape() != shape {
        let found = format!("a sum {:?} of words {shape:?}", sum.shape());
        return Err(node.invalid(found, "positions and segments that broadcast to the words"));
    }
    let width = shape.last().copied().into_iter().collect::<Vec<_>>();
    let gain = parameter(context, node.need(5)?, &width)?;
    let bias = parameter(context, node.need(6)?, &width)?;
    let epsilon = node.float("epsilon", 1e-12);
    let norm = context.apply(Op::LayerNorm { epsilon }, &[&sum, &gain, &bias])?;
    let lengths = match node.input(7) {
        Some(mask) if mask.rank() == 2 => {
            context.apply(Op::ReduceSum { axes: vec![1], keepdims: false }, &[mask])?
        }
        _ if node.used.get(1) == Some(&true) => {
            return Err(node.form("output 1 in use and no mask of two axes", "a mask of batch and position"));
        }
        _ => sum.clone(),
    };
    Ok(vec![norm, lengths, sum])
}

/// `input + skip`, plus operand `bias` if given.
fn skip_sum(context: &mut Context, node: &OnnxNode, bias: usize) -> Result<Operand, Diagnostic> {
    if let Some(index) = [1, 2].into_iter().find(|&index| node.used.get(index) == Some(&true)) {
        return Err(node.form(format!("output {index} in use"), "the norm and the sum"));
    }
    let (input, skip) = (node.need(0)?, node.need(1)?);
    let sum = context.apply(Op::Add, &[input, skip])?;
    if sum.shape() != input.shape() {
        let found = format!("operands {:?} and {:?}", input.shape(), skip.shape());
        return Err(node.invalid(found, "a skip that broadcasts to the input"));
    }
    biased(context, node, &sum, node.input(bias))
}
