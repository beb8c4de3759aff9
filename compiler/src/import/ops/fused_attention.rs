//! Attention as the domain `com.microsoft` has it: with its projections, with packed heads, with heads that are shared.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use super::attention::{both, joined, scores, shared, side, split, triangle, weighed};
use super::products::biased;
use super::rotary::{Turn, turned};
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

/// Additive masks from here on mean that a position is not looked at.
const MASKED: f32 = -1e4;

/// `Attention`, whose projections are one product: `input * weights + bias` holds queries, keys and
/// values side by side.
pub(super) fn packed_attention(context: &mut Context, node: &OnnxNode) -> Results {
    if node.input(6).is_some() {
        return Err(node.form("past_sequence_length", "a past that is as long as its tensor"));
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
    let past = match node.input(4) {
        Some(past) => Some(halves(context, node, past)?),
        None => None,
    };
    let past = past.as_ref().map(|[key, value]| [key, value]);
    let heads = [&heads[0], &heads[1], &heads[2]];
    let mut results = masked_heads(context, node, heads, past, node.input(3), node.input(5))?;
    if node.used.get(1) == Some(&true) {
        let shape = [&[1], results[1].shape()].concat();
        let key = context.reshape(&results[1], shape.clone())?;
        let value = context.reshape(&results[2], shape)?;
        results[1] = context.apply(Op::Concat { axis: 0 }, &[&key, &value])?;
    }
    results.truncate(2);
    Ok(results)
}

/// Keys and values that lie in one tensor, one after the other.
fn halves(context: &mut Context, node: &OnnxNode, both: &Operand) -> Result<[Operand; 2], Diagnostic> {
    let &[2, ref shape @ ..] = both.shape() else {
        return Err(node.invalid(format!("a past {:?}", both.shape()), "keys and values on the first axis"));
    };
    let mut half = |start: i64| {
        let part = context.apply(Op::Slice { axis: 0, start, end: start + 1, step: 1 }, &[both])?;
        context.reshape(&part, shape.to_vec())
    };
    Ok([half(0)?, half(1)?])
}

/// `MultiHeadAttention` on projections, each by itself or packed behind the heads' axis.
pub(super) fn multi_head_attention(context: &mut Context, node: &OnnxNode) -> Results {
    let past = [(8, "past_sequence_length"), (9, "cache_indirection")];
    if let Some((_, name)) = past.into_iter().find(|&(index, _)| node.input(index).is_some()) {
        return Err(node.form(name, "a past that is as long as its tensor"));
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
    let past = both_or_neither(node, [node.input(6), node.input(7)])?;
    masked_heads(context, node, [&heads[0], &heads[1], &heads[2]], past, node.input(4), node.input(5))
}

/// The past's keys and values.
fn both_or_neither<'o>(
    node: &OnnxNode,
    past: [Option<&'o Operand>; 2],
) -> Result<Option<[&'o Operand; 2]>, Diagnostic> {
    match past {
        [Some(key), Some(value)] => Ok(Some([key, value])),
        [None, None] => Ok(None),
        _ => Err(node.invalid("keys or values of a past alone", "both or neither")),
    }
}

/// What both do once there are heads. Outputs: the result, and keys and values with the past before them.
fn masked_heads(
    context: &mut Context,
    node: &OnnxNode,
    [query, key, value]: [&Operand; 3],
    past: Option<[&Operand; 2]>,
    mask: Option<&Operand>,
    bias: Option<&Operand>,
) -> Results {
    let past_length = past.and_then(|[key, _]| key.shape().get(2)).map_or(0, |&length| length);
    let [key, value] = &after(context, past, [key, value])?;
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
        if length.saturating_add(past_length) != total {
            let found = format!("unidirectional 1 for {length} queries on {total} keys");
            return Err(node.form(found, "as many queries as keys"));
        }
        keep = Some(triangle(context, length, total, past_length as i64)?);
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
    Ok(vec![joined(context, node, &result)?, key.clone(), value.clone()])
}

/// Keys and values, `[batch, heads, length, width]` each, behind those of the past.
fn after(
    context: &mut Context,
    past: Option<[&Operand; 2]>,
    now: [&Operand; 2],
) -> Result<[Operand; 2], Diagnostic> {
    let Some(past) = past else { return Ok(now.map(Operand::clone)) };
    let mut joined = |at: usize| context.apply(Op::Concat { axis: 2 }, &[past[at], now[at]]);
    Ok([joined(0)?, joined(1)?])
}

/// `GroupQueryAttention`, whose query heads share heads of keys and values: rotary embedding, a past, a window. Outputs:
/// the result, and keys and values with the past before them.
pub(super) fn grouped_query_attention(context: &mut Context, node: &OnnxNode) -> Results {
    for (index, name) in [(9, "position_ids"), (11, "head_sink"), (12, "k_scale"), (13, "v_scale")] {
        if node.input(index).is_some() {
            return Err(node.form(name, "positions that follow the past, and keys and values as they are"));
        }
    }
    for name in ["smooth_softmax", "qk_output"] {
        if node.flag(name, false) {
            return Err(node.form(format!("{name} 1"), "a softmax of scores alone"));
        }
    }
    let heads = grouped_heads(context, node)?;
    let past = both_or_neither(node, [node.input(3), node.input(4)])?;
    let past_length = past.and_then(|[key, _]| key.shape().get(2)).map_or(0, |&length| length);
    let &[batch, query_heads, length, _] = heads[0].shape() else {
        return Err(node.invalid(format!("a query {:?}", heads[0].shape()), "three axes"));
    };
    let total = past_length.saturating_add(length);
    let said = context.integers(node, node.need(6)?, "total_sequence_length")?;
    if said[..] != [total as i64] {
        let found = format!("total_sequence_length {said:?} for {length} positions after {past_length}");
        return Err(node.form(found, "a past without room for more"));
    }
    let [query, key, value] = match node.flag("do_rotary", false) {
        true => {
            let [query, key, value] = heads;
            let [query, key] = [query, key].map(|x| turned_at(context, node, &x, past_length));
            [query?, key?, value]
        }
        false => heads,
    };
    let present = after(context, past, [&key, &value])?;
    let mut keep = triangle(context, length, total, past_length as i64)?;
    let window = node.int("local_window_size", -1);
    if window >= 0 {
        let oldest = (past_length as i64).saturating_sub(window).saturating_add(1);
        let near = side(context, [length, total], true, oldest)?;
        keep = both(context, Some(near), &keep)?;
    }
    let lengths = node.need(5)?;
    let is_full =
        |lengths: Tensor| lengths.to_i64_vec().is_ok_and(|l| l.iter().all(|&l| l == total as i64 - 1));
    if !lengths.known().is_some_and(is_full) {
        if past_length > 0 {
            return Err(node
                .form("a past, and lengths that are not known to be its", "no past, or constant seqlens_k"));
        }
        let places = context.vector((0..total as i64).collect())?;
        let last = context.reshape(lengths, vec![batch, 1, 1, 1])?;
        let seen = context.apply(Op::LessOrEqual, &[&places, &last])?;
        keep = both(context, Some(seen), &keep)?;
    }
    let [keys, values] = [&present[0], &present[1]].map(|x| shared(context, node, x, query_heads));
    let scores = scores(context, node, &query, &keys?)?;
    let result = weighed(context, node, &scores, Some(&keep), node.input(10), &values?)?;
    let [key, value] = present;
    Ok(vec![joined(context, node, &result)?, key, value])
}

/// Query, key and value heads of operands that are apart or side by side in the first.
fn grouped_heads(context: &mut Context, node: &OnnxNode) -> Result<[Operand; 3], Diagnostic> {
    let query = node.need(0)?;
    let (heads, shared) = (node.int("num_heads", 0), node.int("kv_num_heads", 0));
    let apart = match (node.input(1), node.input(2)) {
        (Some(key), Some(value)) => [query.clone(), key.clone(), value.clone()],
        (None, None) => {
            let [own, other] = [node.length(heads, "num_heads")?, node.length(shared, "kv_num_heads")?];
            let all = own.saturating_add(other.saturating_mul(2));
            let width = match *query.shape() {
                [_, _, width] if all > 0 && width % all == 0 => (width / all) as i64,
                _ => {
                    let found = format!("an operand {:?} of {all} heads", query.shape());
                    return Err(node.invalid(found, "three axes, the last a multiple of all heads"));
                }
            };
            let mut part = |start: i64, end: i64| {
                let slice = Op::Slice { axis: 2, start: start * width, end: end * width, step: 1 };
                context.apply(slice, &[query])
            };
            let (keys, values) = (heads + shared, heads + 2 * shared);
            [part(0, heads)?, part(heads, keys)?, part(keys, values)?]
        }
        _ => return Err(node.invalid("a key or a value alone", "both or neither")),
    };
    let [query, key, value] = apart;
    Ok([
        split(context, node, &query, "num_heads")?,
        split(context, node, &key, "kv_num_heads")?,
        split(context, node, &value, "kv_num_heads")?,
    ])
}

/// Heads turned by the angles of the positions from `start` on.
fn turned_at(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    start: usize,
) -> Result<Operand, Diagnostic> {
    let length = x.shape().get(2).copied().unwrap_or_default();
    let mut rows = Vec::with_capacity(2);
    for table in [node.need(7)?, node.need(8)?] {
        let &[positions, half] = table.shape() else {
            return Err(node.invalid(format!("a table {:?}", table.shape()), "rows for positions"));
        };
        let end = start.saturating_add(length);
        if end > positions {
            return Err(
                node.invalid(format!("a table of {positions} rows for {end} positions"), "a row for each")
            );
        }
        let slice = Op::Slice { axis: 0, start: start as i64, end: end as i64, step: 1 };
        let part = context.apply(slice, &[table])?;
        rows.push(context.reshape(&part, vec![1, length, half])?);
    }
    let part = rows[0].shape()[2].saturating_mul(2);
    let interleaved = node.flag("rotary_interleaved", false);
    turned(context, node, x, &Turn { tables: [&rows[0], &rows[1]], part, interleaved })
}

/// Which numbers of a mask are not 0.
fn flags(context: &mut Context, mask: &Operand, shape: Vec<usize>) -> Result<Operand, Diagnostic> {
    let mask = context.reshape(mask, shape)?;
    context.cast(&mask, DType::Bool)
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
