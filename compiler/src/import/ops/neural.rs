//! Operators of neural networks proper: normalisations, softmax, GELU, attention.

use marill_plaintext::{DType, GeluForm, Op, Tensor};

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
fn parameter(context: &mut Context, x: &Operand, shape: &[usize]) -> Result<Operand, Diagnostic> {
    let x = match x.elements() == shape.iter().product::<usize>() {
        true => x.clone(),
        false => context.apply(Op::Expand { shape: shape.to_vec() }, &[x])?,
    };
    let width = x.elements();
    context.reshape(&x, vec![width])
}

/// Scaled dot-product attention, spelled out. Outputs: the result, and keys and values with the past before them.
pub(super) fn attention(context: &mut Context, node: &OnnxNode) -> Results {
    if node.input(6).is_some() {
        return Err(node.form("nonpad_kv_seqlen", "attn_mask"));
    }
    let flat = node.need(0)?.rank() == 3;
    let mut heads = Vec::with_capacity(3);
    for (index, name) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
        let x = node.need(index)?;
        let given = node.length(node.int(name, 0), name)?;
        heads.push(match x.shape() {
            [_, _, _, _] => x.clone(),
            &[batch, length, width] if flat && given != 0 && width % given == 0 => {
                let split = context.reshape(x, vec![batch, length, given, width / given])?;
                context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[&split])?
            }
            other => {
                let found = format!("an operand {other:?} and {name} {given}");
                return Err(node.invalid(found, "four axes, or three and the number of heads"));
            }
        });
    }
    for (index, past) in [(1, node.input(4)), (2, node.input(5))] {
        if let Some(past) = past {
            heads[index] = context.apply(Op::Concat { axis: 2 }, &[past, &heads[index]])?;
        }
    }
    let (present_key, present_value) = (heads[1].clone(), heads[2].clone());
    let [query, key, value] = [&heads[0], &heads[1], &heads[2]];
    let query_heads = query.shape()[1];
    let (key, value) = (shared(context, node, key, query_heads)?, shared(context, node, value, query_heads)?);
    let (length, total, width) = (query.shape()[2], key.shape()[2], query.shape()[3]);

    let scale = if node.has("scale") { node.float("scale", 1.0) } else { 1.0 / (width as f32).sqrt() };
    let turned = context.apply(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[&key])?;
    let product = context.apply(Op::MatMul, &[query, &turned])?;
    let factor = context.scalar(scale);
    let mut scores = context.apply(Op::Mul, &[&product, &factor])?;
    let cap = node.float("softcap", 0.0);
    let capped = |context: &mut Context, scores: &Operand| {
        let (factor, inverse) = (context.scalar(cap), context.scalar(1.0 / cap));
        let shrunk = context.apply(Op::Mul, &[scores, &inverse])?;
        let bent = context.apply(Op::Tanh, &[&shrunk])?;
        context.apply(Op::Mul, &[&bent, &factor])
    };
    if cap > 0.0 {
        scores = capped(context, &scores)?;
    }
    let mut keep = None;
    if node.flag("is_causal", false) {
        let past = node.input(4).and_then(|past| past.shape().get(2)).map_or(0, |&past| past as i64);
        let ones = context.filled(Tensor::scalar_i64(1), vec![length, total])?;
        let triangle = context.apply(Op::Trilu { upper: false, diagonal: past }, &[&ones])?;
        keep = Some(context.cast(&triangle, DType::Bool)?);
    }
    let mut bias = None;
    match node.input(3) {
        Some(mask) if mask.dtype() == DType::Bool => {
            keep = Some(match keep {
                Some(triangle) => context.apply(Op::And, &[&triangle, mask])?,
                None => mask.clone(),
            });
        }
        mask => bias = mask,
    }
    let weights = match (keep, bias) {
        (Some(keep), Some(bias)) => context.apply(Op::AttentionSoftmax, &[&scores, &keep, bias])?,
        (Some(keep), None) => context.apply(Op::AttentionSoftmax, &[&scores, &keep])?,
        (None, bias) => {
            if let Some(bias) = bias {
                scores = context.apply(Op::Add, &[&scores, bias])?;
            }
            context.apply(Op::Softmax { axis: 3 }, &[&scores])?
        }
    };
    let mut result = context.apply(Op::MatMul, &[&weights, &value])?;
    if flat {
        let moved = context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[&result])?;
        let &[batch, length, heads, width] = moved.shape() else {
            return Err(node.invalid(format!("a result {:?}", moved.shape()), "four axes"));
        };
        result = context.reshape(&moved, vec![batch, length, heads * width])?;
    }
    Ok(vec![result, present_key, present_value])
}

/// Each head repeated, so that every query head has its own.
fn shared(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    query_heads: usize,
) -> Result<Operand, Diagnostic> {
    let &[batch, heads, length, width] = x.shape() else {
        return Err(node.invalid(format!("an operand {:?}", x.shape()), "four axes"));
    };
    if heads == 0 || !query_heads.is_multiple_of(heads) {
        let found = format!("{query_heads} query heads on {heads}");
        return Err(node.invalid(found, "a multiple of the key and value heads"));
    }
    let apart = context.reshape(x, vec![batch, heads, 1, length, width])?;
    let shape = vec![batch, heads, query_heads / heads, length, width];
    let repeated = context.apply(Op::Expand { shape }, &[&apart])?;
    context.reshape(&repeated, vec![batch, query_heads, length, width])
}
