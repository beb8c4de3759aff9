//! Rotary position embeddings: pairs of elements turned by an angle that the position decides.

use marill_plaintext::Op;

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

/// ONNX's own operator: `x, cos, sin` and maybe the positions of the tables' rows.
pub(super) fn rotary_embedding(context: &mut Context, node: &OnnxNode) -> Results {
    let tables = [node.need(1)?, node.need(2)?];
    match node.input(3) {
        Some(positions) => looked_up(context, node, tables, positions),
        None => rotated(context, node, tables),
    }
}

/// The other domain's operator: `x, positions, cos, sin`; a lone position is that of the first element.
pub(super) fn microsoft(context: &mut Context, node: &OnnxNode) -> Results {
    if node.float("scale", 1.0) != 1.0 {
        return Err(node.form(format!("scale {}", node.float("scale", 1.0)), "scale 1"));
    }
    if node.flag("is_packed_batching", false) {
        return Err(node.form("is_packed_batching 1", "batches that are not packed"));
    }
    let (x, mut positions) = (node.need(0)?, node.need(1)?.clone());
    let (_, length) = extent(node, x)?;
    if positions.rank() == 1 {
        if positions.elements() != 1 {
            let found = format!("position_ids {:?}", positions.shape());
            return Err(node.invalid(found, "one position, or one per element of each batch"));
        }
        let steps = context.vector((0..length as i64).collect())?;
        let row = context.apply(Op::Add, &[&positions, &steps])?;
        positions = context.reshape(&row, vec![1, length])?;
    }
    looked_up(context, node, [node.need(2)?, node.need(3)?], &positions)
}

/// Batch and sequence length of `x`, `[batch, length, heads * width]` or `[batch, heads, length, width]`.
fn extent(node: &OnnxNode, x: &Operand) -> Result<(usize, usize), Diagnostic> {
    match *x.shape() {
        [batch, length, _] | [batch, _, length, _] => Ok((batch, length)),
        _ => Err(node.invalid(format!("an operand {:?}", x.shape()), "three or four axes")),
    }
}

/// As [`rotated`], with the tables' rows at `positions`.
fn looked_up(context: &mut Context, node: &OnnxNode, tables: [&Operand; 2], positions: &Operand) -> Results {
    let mut rows = Vec::with_capacity(2);
    for table in tables {
        if table.rank() != 2 {
            return Err(node.invalid(format!("a table {:?}", table.shape()), "rows for positions"));
        }
        rows.push(context.apply(Op::Gather { axis: 0 }, &[table, positions])?);
    }
    rotated(context, node, [&rows[0], &rows[1]])
}

/// As [`turned`], the node's first operand as its attributes say.
fn rotated(context: &mut Context, node: &OnnxNode, tables: [&Operand; 2]) -> Results {
    let part = node.length(node.int("rotary_embedding_dim", 0), "rotary_embedding_dim")?;
    let turn = Turn { tables, part, interleaved: node.flag("interleaved", false) };
    Ok(vec![turned(context, node, node.need(0)?, &turn)?])
}

/// How heads are turned.
pub(super) struct Turn<'o> {
    /// Cosines and sines, `[batch or 1, length, width / 2]`.
    pub tables: [&'o Operand; 2],
    /// How many of a head's elements are turned, 0 for all.
    pub part: usize,
    /// Whether neighbours are pairs, not the halves' elements.
    pub interleaved: bool,
}

/// `x`, `[batch, length, heads * width]` or `[batch, heads, length, width]`, turned.
pub(super) fn turned(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    &Turn { tables, part, interleaved }: &Turn,
) -> Result<Operand, Diagnostic> {
    let (batch, length) = extent(node, x)?;
    let (rows, half) = match tables.map(|table| table.shape()) {
        [&[b, l, half], sines] if (b == batch || b == 1) && l == length && [b, l, half] == sines => (b, half),
        found => {
            return Err(node.invalid(format!("tables {found:?}"), "[batch, length, width / 2] each"));
        }
    };
    let heads = node.length(node.int("num_heads", 0), "num_heads")?;
    let both = half.saturating_mul(2);
    let (split, table_shape) = match *x.shape() {
        [_, _, all] => {
            let width = all.checked_div(heads).unwrap_or(both);
            let count = all.checked_div(width).unwrap_or(0);
            if count.checked_mul(width) != Some(all) || (heads != 0 && count != heads) {
                let found = format!("an operand {:?} and num_heads {heads}", x.shape());
                return Err(node.invalid(found, "a multiple of the number of heads"));
            }
            (vec![batch, length, count, width], vec![rows, length, 1, half])
        }
        _ => (x.shape().to_vec(), vec![rows, 1, length, half]),
    };
    let width = split[3];
    let turned = if part == 0 { width } else { part };
    if turned != both || turned > width {
        let found = format!("tables of width {half} for {turned} of {width} elements");
        return Err(node.invalid(found, "one angle per pair of elements"));
    }
    let mut doubled = Vec::with_capacity(2);
    for table in tables {
        let table = context.reshape(table, table_shape.clone())?;
        doubled.push(context.apply(Op::Concat { axis: 3 }, &[&table, &table])?);
    }
    let apart = context.reshape(x, split)?;
    let whole = width as i64;
    let cut = Op::Slice { axis: 3, start: 0, end: turned as i64, step: 1 };
    let mut moving = context.apply(cut, &[&apart])?;
    if interleaved {
        moving = regrouped(context, &moving, [half, 2])?;
    }
    moving = context.apply(Op::Rotary, &[&moving, &doubled[0], &doubled[1]])?;
    if interleaved {
        moving = regrouped(context, &moving, [2, half])?;
    }
    if turned < width {
        let rest = Op::Slice { axis: 3, start: turned as i64, end: whole, step: 1 };
        let rest = context.apply(rest, &[&apart])?;
        moving = context.apply(Op::Concat { axis: 3 }, &[&moving, &rest])?;
    }
    context.reshape(&moving, x.shape().to_vec())
}

/// The last axis, `rows x columns`, read by columns.
fn regrouped(context: &mut Context, x: &Operand, [rows, columns]: [usize; 2]) -> Result<Operand, Diagnostic> {
    let shape = x.shape().to_vec();
    let outer = shape.len().saturating_sub(1);
    let grouped = context.reshape(x, [&shape[..outer], &[rows, columns]].concat())?;
    let perm = (0..outer).chain([outer + 1, outer]).collect();
    let turned = context.apply(Op::Transpose { perm }, &[&grouped])?;
    context.reshape(&turned, shape)
}
