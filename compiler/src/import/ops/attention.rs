//! Scaled dot-product attention, spelled out as products and a softmax, in the three forms that models have it.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use super::products::biased;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

/// Additive masks from here on mean that a position is not looked at.
const MASKED: f32 = -1e4;

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

/// The other domain's operator whose projections are one product: `input * weights + bias` holds queries, keys and
/// values side by side.
pub(super) fn packed_attention(context: &mut Context, node: &OnnxNode) -> Results {
    for (index, name) in [(4, "past"), (6, "past_sequence_length")] {
        if node.input(index).is_some() {
            return Err(node.form(name, "attention without a past"));
        }
    }
    if node.flag("do_rotary", false) {
        return Err(node.form("do_rotary 1", "positions by RotaryEmbedding"));
    }
    let (input, weights) = (node.need(0)?, node.need(1)?);
    let ([_, _, _], &[_, total]) = (input.shape(), weights.shape()) else {
        let found = format!("operands {:?} and {:?}", input.shape(), weights.shape());
        return Err(node.invalid(found, "an input of three axes and a matrix of weights"));
    };
    let widths = match node.ints("qkv_hidden_sizes") {
        Some(sizes) => {
            sizes.iter().map(|&size| node.length(size, "hidden size")).collect::<Result<Vec<_>, _>>()?
        }
        None => vec![total / 3; 3],
    };
    let sum = widths.iter().try_fold(0usize, |sum, &width| sum.checked_add(width));
    if widths.len() != 3 || sum != Some(total) || widths[0] != widths[1] {
        let found = format!("hidden sizes {widths:?} for weights of {total} columns");
        return Err(node.invalid(found, "those of query, key and value, the first two alike"));
    }
    let mut projected = context.apply(Op::MatMul, &[input, weights])?;
    if let Some(bias) = node.input(2) {
        projected = biased(context, node, &projected, Some(bias))?;
    }
    let mut heads = Vec::with_capacity(3);
    let mut start = 0;
    for width in widths {
        let end = start + width as i64;
        let part = context.apply(Op::Slice { axis: 2, start, end, step: 1 }, &[&projected])?;
        heads.push(split(context, node, &part, "num_heads")?);
        start = end;
    }
    masked_heads(context, node, [&heads[0], &heads[1], &heads[2]], node.input(3), node.input(5))
}

/// The other domain's operator on projections, each by itself or packed behind the heads' axis.
pub(super) fn multi_head_attention(context: &mut Context, node: &OnnxNode) -> Results {
    let past = [(6, "past_key"), (7, "past_value"), (8, "past_sequence_length"), (9, "cache_indirection")];
    if let Some((_, name)) = past.into_iter().find(|&(index, _)| node.input(index).is_some()) {
        return Err(node.form(name, "attention without a past"));
    }
    let query = node.need(0)?;
    let separate = match (query.rank(), node.input(1), node.input(2)) {
        (5, None, None) => unpacked(context, node, query, 3)?,
        (3, Some(key), None) if key.rank() == 5 => {
            let mut pair = unpacked(context, node, key, 2)?;
            pair.insert(0, query.clone());
            pair
        }
        (3, Some(key), Some(value)) => vec![query.clone(), key.clone(), value.clone()],
        (rank, ..) => {
            let found = format!("a query of {rank} axes and {} operands", node.count());
            return Err(node.invalid(found, "query, key and value, or fewer operands that hold them"));
        }
    };
    let mut start = 0;
    let mut heads = Vec::with_capacity(3);
    for mut part in separate {
        if let (3, Some(bias)) = (part.rank(), node.input(3)) {
            let end = start + part.shape()[2] as i64;
            if bias.rank() != 1 || bias.elements() < end as usize {
                return Err(node.invalid(format!("a bias {:?}", bias.shape()), "one of all three widths"));
            }
            let own = context.apply(Op::Slice { axis: 0, start, end, step: 1 }, &[bias])?;
            part = biased(context, node, &part, Some(&own))?;
            start = end;
        } else if node.input(3).is_some() {
            return Err(node.form("a bias of packed operands", "a bias of three axes' operands"));
        }
        heads.push(if part.rank() == 4 { part } else { split(context, node, &part, "num_heads")? });
    }
    if node.input(3).is_some_and(|bias| bias.elements() != start as usize) {
        return Err(node.invalid("a bias of more widths", "one of all three widths"));
    }
    masked_heads(context, node, [&heads[0], &heads[1], &heads[2]], node.input(4), node.input(5))
}

/// What the other domain's operators do once there are heads.
fn masked_heads(
    context: &mut Context,
    node: &OnnxNode,
    [query, key, value]: [&Operand; 3],
    mask: Option<&Operand>,
    bias: Option<&Operand>,
) -> Results {
    let (&[batch, heads, length, width], &[key_batch, key_heads, total, key_width]) =
        (query.shape(), key.shape())
    else {
        return Err(node.invalid(format!("heads {:?} and {:?}", query.shape(), key.shape()), "four axes"));
    };
    let suits = value.shape().get(..3) == Some(&key.shape()[..3]);
    if [batch, heads, width] != [key_batch, key_heads, key_width] || !suits {
        let found = format!("heads {:?}, {:?} and {:?}", query.shape(), key.shape(), value.shape());
        return Err(node.invalid(found, "as many and as wide for query and key, as many for value"));
    }
    let scores = scores(context, node, query, key)?;
    let mut keep = None;
    if node.flag("unidirectional", false) {
        if length != total {
            let found = format!("unidirectional 1 for {length} queries on {total} keys");
            return Err(node.form(found, "as many queries as keys"));
        }
        keep = Some(triangle(context, length, total, 0)?);
    }
    if let Some(mask) = mask {
        let filter = node.float("mask_filter_value", MASKED);
        if filter.is_nan() || filter > MASKED {
            let found = format!("mask_filter_value {filter}");
            return Err(node.form(found, "at most -10000, or attention_bias"));
        }
        let mask = match *mask.shape() {
            // Lengths without the padding at the end.
            [b] if b == batch => {
                let places = context.vector((0..total as i64).collect())?;
                let lengths = context.reshape(mask, vec![b, 1, 1, 1])?;
                context.apply(Op::Less, &[&places, &lengths])?
            }
            [b, t] if [b, t] == [batch, total] => flags(context, mask, vec![b, 1, 1, t])?,
            [b, s, t] if [b, s, t] == [batch, length, total] => flags(context, mask, vec![b, 1, s, t])?,
            _ => {
                let found = format!("a mask {:?}", mask.shape());
                return Err(node.form(found, "a length per batch, or a number per key, or per query and key"));
            }
        };
        keep = Some(both(context, keep, &mask)?);
    }
    let result = weighed(context, node, &scores, keep.as_ref(), bias, value)?;
    Ok(vec![joined(context, node, &result)?])
}

/// Which numbers of a mask are not 0.
fn flags(context: &mut Context, mask: &Operand, shape: Vec<usize>) -> Result<Operand, Diagnostic> {
    let mask = context.reshape(mask, shape)?;
    context.cast(&mask, DType::Bool)
}

/// `query * key'`, scaled by `1 / sqrt(width of a head)` unless the node says otherwise, and capped if it says so.
fn scores(
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
fn weighed(
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
fn both(context: &mut Context, keep: Option<Operand>, mask: &Operand) -> Result<Operand, Diagnostic> {
    match keep {
        Some(keep) => context.apply(Op::And, &[&keep, mask]),
        None => Ok(mask.clone()),
    }
}

/// Which keys stand no later than the query, `past` keys before the first query aside.
fn triangle(context: &mut Context, length: usize, total: usize, past: i64) -> Result<Operand, Diagnostic> {
    let ones = context.filled(Tensor::scalar_i64(1), vec![length, total])?;
    let triangle = context.apply(Op::Trilu { upper: false, diagonal: past }, &[&ones])?;
    context.cast(&triangle, DType::Bool)
}

/// `[batch, length, heads * width] -> [batch, heads, length, width]`; `name` is the attribute that says how many.
fn split(context: &mut Context, node: &OnnxNode, x: &Operand, name: &str) -> Result<Operand, Diagnostic> {
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
fn joined(context: &mut Context, node: &OnnxNode, x: &Operand) -> Result<Operand, Diagnostic> {
    let moved = context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[x])?;
    let &[batch, length, heads, width] = moved.shape() else {
        return Err(node.invalid(format!("a result {:?}", moved.shape()), "four axes"));
    };
    context.reshape(&moved, vec![batch, length, heads * width])
}

/// `[batch, length, heads, parts, width]` as that many of `[batch, heads, length, width]`.
fn unpacked(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    parts: usize,
) -> Result<Vec<Operand>, Diagnostic> {
    let &[batch, length, heads, held, width] = x.shape() else {
        return Err(node.invalid(format!("an operand {:?}", x.shape()), "five axes"));
    };
    if held != parts || node.int("num_heads", 0) != heads as i64 {
        let found = format!("an operand {:?} and num_heads {}", x.shape(), node.int("num_heads", 0));
        return Err(node.invalid(found, "the heads on the third axis, query, key and value on the fourth"));
    }
    (0..parts as i64)
        .map(|part| {
            let slice = Op::Slice { axis: 3, start: part, end: part + 1, step: 1 };
            let one = context.apply(slice, &[x])?;
            let one = context.reshape(&one, vec![batch, length, heads, width])?;
            context.apply(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[&one])
        })
        .collect()
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
