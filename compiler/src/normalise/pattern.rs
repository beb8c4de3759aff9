//! The vocabulary in which the patterns of this stage are written.

use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, Owner, ValueId};
use crate::ownership::constant_owner;
use marill_plaintext::{Op, Tensor};

/// Scalars that exporters round differently still count as the same.
const RELATIVE_TOLERANCE: f64 = 1e-4;

pub(super) fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= RELATIVE_TOLERANCE * expected.abs()
}

/// The operand of a one-operand operation.
pub(super) fn unary(graph: &Graph, id: ValueId, op: &Op) -> Option<ValueId> {
    if graph.op(id)? == op { graph.arg(id, 0) } else { None }
}

/// The operands of a two-operand operation.
pub(super) fn binary(graph: &Graph, id: ValueId, op: &Op) -> Option<[ValueId; 2]> {
    if graph.op(id)? == op { Some([graph.arg(id, 0)?, graph.arg(id, 1)?]) } else { None }
}

/// The operands of a commutative operation in both orders; nothing if it is another operation.
pub(super) fn either_way(graph: &Graph, id: ValueId, op: &Op) -> impl Iterator<Item = [ValueId; 2]> {
    binary(graph, id, op).into_iter().flat_map(|[a, b]| [[a, b], [b, a]])
}

/// The value of a public constant with one element. No pattern looks at the elements of other constants: what the
/// program is must not depend on private weights.
pub(super) fn scalar(graph: &Graph, id: ValueId) -> Option<f64> {
    let constant = graph.constant(id)?;
    if constant.elements() != 1 || constant_owner(graph, id) != Owner::Public {
        return None;
    }
    match constant.load().ok()? {
        Tensor::F32(array) => array.first().map(|&x| f64::from(x)),
        Tensor::I64(array) => array.first().map(|&x| x as f64),
        Tensor::Bool(array) => array.first().map(|&x| f64::from(u8::from(x))),
    }
}

/// `x` and `c` if the value is `x * c`, `x / (1/c)` or `-x` and has the type of `x`.
pub(super) fn scaled(graph: &Graph, id: ValueId) -> Option<(ValueId, f64)> {
    let (x, factor) = match graph.op(id)? {
        Op::Neg => (graph.arg(id, 0)?, -1.0),
        Op::Mul => either_way(graph, id, &Op::Mul).find_map(|[x, c]| Some((x, scalar(graph, c)?)))?,
        Op::Div => (graph.arg(id, 0)?, 1.0 / scalar(graph, graph.arg(id, 1)?)?),
        _ => return None,
    };
    (graph.ty(x) == graph.ty(id) && factor.is_finite()).then_some((x, factor))
}

/// Adds an operation under the name of the value that it is to stand for.
pub(super) fn apply(
    graph: &mut Graph,
    op: Op,
    args: &[ValueId],
    like: ValueId,
) -> Result<ValueId, Diagnostic> {
    let name = graph.node(like).name.clone();
    match graph.apply(op, args, name) {
        Ok(id) => Ok(id),
        Err(error) => Err(Diagnostic::new(graph.node(like).name.clone(), error)),
    }
}

/// Replaces `old` by `new` if they are of one type; whether it did.
pub(super) fn substitute(graph: &mut Graph, old: ValueId, new: ValueId) -> bool {
    if old == new || graph.ty(old) != graph.ty(new) {
        return false;
    }
    graph.replace_uses(old, new);
    true
}

/// The values of the graph as it stands, operands first; for a pass that changes the graph on its way.
pub(super) fn applied(graph: &Graph) -> Vec<ValueId> {
    graph.topological().into_iter().filter(|&id| graph.op(id).is_some()).collect()
}
