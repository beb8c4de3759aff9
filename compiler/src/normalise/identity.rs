//! Removes operations that change nothing.

use super::pattern::{applied, apply, scalar, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, Owner, ValueId};
use crate::ownership::constant_owner;
use marill_plaintext::{Op, Tensor};

/// Replaces an operation that returns one of its operands unchanged, or a mere reshape of it; puts constants second
/// and makes those of one element scalars.
pub(super) fn remove_identities(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let Some(op) = graph.op(id).cloned() else { continue };
        let args = graph.args(id);
        if let Some(same) = unchanged(graph, &op, &args)
            && substitute(graph, id, same)
        {
            changed = true;
        } else if let Some(moved) = rearranged(graph, id, &op, &args) {
            let shape = graph.shape(id).to_vec();
            let new = apply(graph, Op::Reshape { shape }, &[moved], id)?;
            changed |= substitute(graph, id, new);
        } else if is_commutative(&op)
            && graph.constant(args[0]).is_some()
            && graph.constant(args[1]).is_none()
        {
            let new = apply(graph, op, &[args[1], args[0]], id)?;
            changed |= substitute(graph, id, new);
        } else if let Some(scalars) = with_scalars(graph, &op, &args) {
            let new = apply(graph, op, &scalars, id)?;
            changed |= substitute(graph, id, new);
        }
    }
    Ok(changed)
}

/// The operands with constants of one element as scalars, if some have axes and another operand has as many.
fn with_scalars(graph: &mut Graph, op: &Op, args: &[ValueId]) -> Option<Vec<ValueId>> {
    let broadcasts =
        matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow | Op::Max | Op::Min | Op::Where)
            || matches!(op, Op::Equal | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual);
    // A private weight of one element keeps its axes: they tell it from a scale.
    let is_single = |&arg: &ValueId| {
        graph.constant(arg).is_some_and(|constant| constant.elements() == 1)
            && constant_owner(graph, arg) == Owner::Public
    };
    let rank = args.iter().filter(|arg| !is_single(arg)).map(|&arg| graph.shape(arg).len()).max()?;
    let singles: Vec<bool> = args.iter().map(is_single).collect();
    let has_axes = |(&arg, &single): (&ValueId, &bool)| single && !graph.shape(arg).is_empty();
    let fits = |(&arg, &single): (&ValueId, &bool)| !single || graph.shape(arg).len() <= rank;
    if !broadcasts || !args.iter().zip(&singles).any(has_axes) || !args.iter().zip(&singles).all(fits) {
        return None;
    }
    let mut scalars = Vec::with_capacity(args.len());
    for (&arg, single) in args.iter().zip(singles) {
        scalars.push(match graph.constant(arg).filter(|_| single) {
            Some(constant) => {
                let scalar = constant.reshaped(Vec::new())?;
                graph.add_constant(graph.node(arg).name.clone(), scalar)
            }
            None => arg,
        });
    }
    Some(scalars)
}

fn is_commutative(op: &Op) -> bool {
    matches!(op, Op::Add | Op::Mul | Op::Max | Op::Min | Op::And | Op::Or | Op::Equal)
}

/// The operand that the operation may be replaced by, if it has the result's type.
fn unchanged(graph: &Graph, op: &Op, args: &[ValueId]) -> Option<ValueId> {
    let x = *args.first()?;
    let is = |position: usize, value: f64| scalar(graph, args[position]) == Some(value);
    let again = |op: &Op| if graph.op(x) == Some(op) { graph.arg(x, 0) } else { None };
    match op {
        Op::Reshape { .. } | Op::Expand { .. } | Op::Cast { .. } => Some(x),
        Op::Transpose { perm } => perm.is_sorted().then_some(x),
        Op::Slice { step: 1, .. } => Some(x),
        Op::Concat { .. } => (args.len() == 1).then_some(x),
        Op::Tile { repeats } => repeats.iter().all(|&count| count == 1).then_some(x),
        Op::Mul if is(1, 1.0) => Some(x),
        Op::Mul if is(0, 1.0) => Some(args[1]),
        Op::Add if is(1, 0.0) => Some(x),
        Op::Add if is(0, 0.0) => Some(args[1]),
        Op::Sub => is(1, 0.0).then_some(x),
        Op::Div | Op::Pow => is(1, 1.0).then_some(x),
        Op::And if is(1, 1.0) => Some(x),
        Op::And if is(0, 1.0) => Some(args[1]),
        Op::Or if is(1, 0.0) => Some(x),
        Op::Or if is(0, 0.0) => Some(args[1]),
        Op::Not => again(&Op::Not),
        Op::Neg => again(&Op::Neg),
        Op::Where if args[1] == args[2] || is(0, 1.0) => Some(args[1]),
        Op::Where if is(0, 0.0) => Some(args[2]),
        _ => None,
    }
}

/// The operand whose elements the result holds in the same order, perhaps in another shape.
fn rearranged(graph: &Graph, id: ValueId, op: &Op, args: &[ValueId]) -> Option<ValueId> {
    let x = *args.first()?;
    match op {
        Op::Transpose { perm } => {
            let shape = graph.shape(x);
            let moved: Vec<usize> = perm.iter().copied().filter(|&axis| shape[axis] != 1).collect();
            moved.is_sorted().then_some(x)
        }
        Op::Expand { .. } | Op::Tile { .. } => (graph.ty(id).len() == graph.ty(x).len()).then_some(x),
        Op::Gather { axis } => {
            let indices = indices(graph, args[1])?;
            let shape = graph.shape(x);
            (indices.len() == shape[*axis] && counts_up(&indices)).then_some(x)
        }
        Op::GatherNd { batch_dims: 0 } => reads_all(graph, graph.shape(x), args[1]).then_some(x),
        Op::ScatterNd => reads_all(graph, graph.shape(x), args[1]).then_some(args[2]),
        _ => None,
    }
}

fn indices(graph: &Graph, id: ValueId) -> Option<Vec<i64>> {
    match graph.constant(id)?.load().ok()? {
        Tensor::I64(array) => Some(array.iter().copied().collect()),
        _ => None,
    }
}

fn counts_up(indices: &[i64]) -> bool {
    indices.iter().enumerate().all(|(expected, &index)| index == expected as i64)
}

/// Whether index tuples, over the leading axes of `shape`, go through all places in order.
fn reads_all(graph: &Graph, shape: &[usize], tuples: ValueId) -> bool {
    let Some(&depth) = graph.shape(tuples).last() else { return false };
    let Some(tuples) = indices(graph, tuples) else { return false };
    let leading = &shape[..depth.min(shape.len())];
    if depth == 0 || tuples.len() / depth != leading.iter().product::<usize>() {
        return false;
    }
    let flat: Vec<i64> = tuples
        .chunks(depth)
        .map(|tuple| tuple.iter().zip(leading).fold(0, |flat, (&index, &dim)| flat * dim as i64 + index))
        .collect();
    let in_range = tuples
        .chunks(depth)
        .all(|tuple| tuple.iter().zip(leading).all(|(&index, &dim)| (0..dim as i64).contains(&index)));
    in_range && counts_up(&flat)
}
