//! Rotary position embedding: `x * cos + concat(-x[h/2..], x[..h/2]) * sin`.

use super::pattern::{applied, either_way, scaled, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::Op;

pub(super) fn recognise_rotary(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let found = either_way(graph, id, &Op::Add).find_map(|[straight, turned]| {
            either_way(graph, turned, &Op::Mul).find_map(|[half_turn, sin]| {
                let x = turned_from(graph, half_turn)?;
                let cos = either_way(graph, straight, &Op::Mul).find(|&[y, _]| y == x)?[1];
                Some([x, cos, sin])
            })
        });
        let Some(args) = found else { continue };
        // The tables may have more axes than `x`; then the spelling stays.
        if let Ok(new) = graph.apply(Op::Rotary, &args, graph.node(id).name.clone()) {
            changed |= substitute(graph, id, new);
        }
    }
    Ok(changed)
}

/// `x` if the value is `concat(-x[h/2..], x[..h/2])` along the last axis.
fn turned_from(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let Op::Concat { axis } = graph.op(id)? else { return None };
    let parts = graph.args(id);
    let [negated, first] = parts[..] else { return None };
    let (second, factor) = scaled(graph, negated)?;
    let x = graph.arg(first, 0)?;
    let shape = graph.shape(x);
    let last = shape.len().checked_sub(1)?;
    let half = (shape[last] / 2) as i64;
    let is_part = |part: ValueId, from: i64, to: i64| {
        graph.op(part) == Some(&Op::Slice { axis: last, start: from, end: to, step: 1 })
            && graph.arg(part, 0) == Some(x)
    };
    let halves = is_part(first, 0, half) && is_part(second, half, 2 * half);
    (*axis == last && factor == -1.0 && halves && shape[last].is_multiple_of(2)).then_some(x)
}
