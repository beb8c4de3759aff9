//! Scaled dot-product attention, spelled out as products and a softmax: ONNX's own, and parts that others share.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

/// ONNX's own operator. Outputs: the result, and keys and values with the past before them.
pub(super) fn attention(context: &mut Context, node: &OnnxNode) -> Results {
    if node.input(6).is_some() {
        return Err(node.form("nonpad_kv_seqlen", "attn_mask"));
    }
    let flat = node.need(0)?.rank() == 3;
    let mut heads = Vec::with_capacity(3);
    for (index, name) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
        let x = node.need(index)?;
        heads.push(match x.shape() {
            [_, _, _, _] => x.clone(),
            _ if flat => split(context, node, x, name)?,
            other => {
                let found = format!("an operand {other:?}");
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

    let scores = scores(context, node, query, &key)?;
    let mut keep = None;
    if node.flag("is_causal", false) {
        let past = node.input(4).and_then(|past| past.shape().get(2)).map_or(0, |&past| past as i64);
        keep = Some(triangle(context, query.shape()[2], key.shape()[2], past)?);
    }
    let mut bias = None;
    match node.input(3) {
        Some(mask) if mask.dtype() == DType::Bool => keep = Some(both(context, keep, mask)?),
        mask => bias = mask,
    }
    let mut result = weighed(context, node, &scores, keep.as_ref(), bias, &value)?;
    if flat {
        result = joined(context, node, &result)?;
    }
    Ok(vec![result, present_key, present_value])
}

/// `query * key'`, scaled by `1 / sqrt(width of a head)` unless the node says otherwise, and capped if it says so.
pub(super) fn scores(
    context: &mut Context,
    node: &OnnxNode,
    query: &Operand,
    key: &Operand,
) -> Result<Operand, Diagnostic> {
    let width = query.shape().last().copied().unwrap_or(1);
    let scale = if node.has("scale") { node.float("scale", 1.0) } else { 1.0 / (width as f32).sqrt() };
    let turned = context.apply(Op::Transpose { perm: vec![0, 1, 3, 2] }, &[key])?;
    let product = context.apply(Op::MatMul, &[query, &turned])?;
    let factor = context.scalar(scale);
    let scores = context.apply(Op::Mul, &[&product, &factor])?;
    let cap = node.float("softcap", 0.0);
    if cap > 0.0 {
        let (factor, inverse) = (context.scalar(cap), context.scalar(1.0 / cap));
        let shrunk = context.apply(Op::Mul, &[&scores, &inverse])?;
        let bent = context.apply(Op::Tanh, &[&shrunk])?;
        return context.apply(Op::Mul, &[&bent, &factor]);
    }
    Ok(scores)
}

/// `value` weighed by the softmax of `scores + bias` over the positions in `keep`.
pub(super) fn weighed(
    context: &mut Context,
    node: &OnnxNode,
    scores: &Operand,
    keep: Option<&Operand>,
    bias: Option<&Operand>,
    value: &Operand,
) -> Result<Operand, Diagnostic> {
    let weights = match (keep, bias) {
        (Some(keep), Some(bias)) => context.apply(Op::AttentionSoftmax, &[scores, keep, bias])?,
        (Some(keep), None) => context.apply(Op::AttentionSoftmax, &[scores, keep])?,
        (None, None) => context.apply(Op::Softmax { axis: 3 }, &[scores])?,
        (None, Some(bias)) => {
            let sum = context.apply(Op::Add, &[scores, bias])?;
            if sum.shape() != scores.shape() {
                let found = format!("{:?} added to scores {:?}", bias.shape(), scores.shape());
                return Err(node.invalid(found, "a mask that broadcasts to the scores"));
            }
            context.apply(Op::Softmax { axis: 3 }, &[&sum])?
        }
    };
    context.apply(Op::MatMul, &[&weights, value])
}

/// Positions that both allow.
pub(super) fn both(
    context: &mut Context,
    keep: Option<Operand>,
    mask: &Operand,
) -> Result<Operand, Diagnostic> {
    match keep {
        Some(keep) => context.apply(Op::And, &[&keep, mask]),
        None => Ok(mask.clone()),
    }
}

/// Which keys stand no later than the query, `past` keys before the first query aside.
pub(super) fn triangle(
    context: &mut Context,
    length: usize,
    total: usize,
    past: i64,
) -> Result<Operand, Diagnostic> {
    side(context, [length, total], false, past)
}

/// Positions below and on a diagonal of a matrix, or above and on it.
pub(super) fn side(
    context: &mut Context,
    shape: [usize; 2],
    upper: bool,
    diagonal: i64,
) -> Result<Operand, Diagnostic> {
    let ones = context.filled(Tensor::scalar_i64(1), shape.to_vec())?;
    let kept = context.apply(Op::Trilu { upper, diagonal }, &[&ones])?;
    context.cast(&kept, DType::Bool)
}

/// `[batch, length, heads * width] -> [batch, heads, length, width]`; `name` is the attribute that says how many.
pub(super) fn split(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    name: &str,
) -> Result<Operand, Diagnostic> {
    let heads = node.length(node.int(name, 0), name)?;
    match x.shape() {
        &[batch, length, width] if heads != 0 && width % heads == 0 => {
            let split = context.reshape(x, vec![batch, length, heads, width / heads])?;
            context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[&split])
        }
        other => {
            let found = format!("an operand {other:?} and {name} {heads}");
            Err(node.invalid(found, "three axes, the last a multiple of the number of heads"))
        }
    }
}

/// `[batch, heads, length, width] -> [batch, length, heads * width]`.
pub(super) fn joined(context: &mut Context, node: &OnnxNode, x: &Operand) -> Result<Operand, Diagnostic> {
    let moved = context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[x])?;
    let &[batch, length, heads, width] = moved.shape() else {
        return Err(node.invalid(format!("a result {:?}", moved.shape()), "four axes"));
    };
    context.reshape(&moved, vec![batch, length, heads * width])
}

/// Each head repeated, so that every query head has its own.
pub(super) fn shared(
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
