//! Which values are masks, where they keep a position, and the least that has to be computed of them there.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{ArrayD, Axis, IxDyn, Slice};

use super::pattern::apply;
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, ValueId};
use marill_plaintext::{DType, Op, Tensor, broadcast_shapes};

/// Added to a score, this much or less masks it.
pub(super) const MASKED: f32 = -1e4;

/// Whether a value depends on constants and on i64 or bool inputs alone, through operations that masks are made of.
/// Looking tokens up in a table of numbers is not one of them.
pub(super) fn is_mask(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::new();
    let mut pending = vec![id];
    while let Some(next) = pending.pop() {
        if !seen.insert(next) {
            continue;
        }
        let allowed = match &graph.node(next).kind {
            NodeKind::Input => graph.ty(next).dtype != DType::F32,
            NodeKind::Constant(constant) => constant.is_present(),
            NodeKind::Apply(op) => match op {
                Op::Gather { .. } | Op::GatherNd { .. } => {
                    graph.ty(next).dtype != DType::F32
                        || graph.arg(next, 1).is_some_and(|places| graph.constant(places).is_some())
                }
                Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Concat { .. }
                | Op::Slice { .. }
                | Op::Expand { .. }
                | Op::ScatterNd
                | Op::Tile { .. }
                | Op::Trilu { .. }
                | Op::Add
                | Op::Sub
                | Op::Mul
                | Op::Div
                | Op::Max
                | Op::Min
                | Op::Neg
                | Op::Abs
                | Op::Clip { .. }
                | Op::Not
                | Op::And
                | Op::Or
                | Op::Equal
                | Op::Less
                | Op::LessOrEqual
                | Op::Greater
                | Op::GreaterOrEqual
                | Op::Where
                | Op::Cast { .. }
                | Op::CumSum { .. }
                | Op::ReduceSum { .. } => true,
                _ => false,
            },
        };
        if !allowed {
            return false;
        }
        pending.extend(graph.args(next));
    }
    true
}

/// Positions to keep, of any shape that broadcasts to the scores.
#[derive(Clone)]
pub(super) struct Keep(ArrayD<bool>);

impl Keep {
    /// Keeps everything, in scores with this many axes.
    pub(super) fn everything(rank: usize) -> Keep {
        Keep(ArrayD::from_elem(IxDyn(&vec![1; rank]), true))
    }

    pub(super) fn is_everything(&self) -> bool {
        self.0.iter().all(|&keep| keep)
    }

    /// Drops the positions at which `is_masked` holds of a bound. Shapes that do not broadcast change nothing.
    pub(super) fn drop_where(
        &mut self,
        bound: &ndarray::ArcArray<f32, IxDyn>,
        is_masked: impl Fn(f32) -> bool,
    ) {
        let Ok(shape) = broadcast_shapes(self.0.shape(), bound.shape()) else { return };
        let Some(spread) = bound.broadcast(IxDyn(&shape)) else { return };
        let Some(before) = self.0.broadcast(IxDyn(&shape)) else { return };
        let mut after = before.to_owned();
        after.zip_mut_with(&spread, |keep, &bound| *keep &= !is_masked(bound));
        self.0 = after;
    }

    /// Gives every axis along which all is alike length 1.
    pub(super) fn compressed(mut self) -> Keep {
        for axis in 0..self.0.ndim() {
            if self.0.len_of(Axis(axis)) <= 1 {
                continue;
            }
            let first = self.0.slice_axis(Axis(axis), Slice::from(0..1)).to_owned();
            let alike = first.broadcast(self.0.raw_dim()).is_some_and(|spread| spread == self.0);
            if alike {
                self.0 = first;
            }
        }
        self
    }

    pub(super) fn tensor(&self) -> Tensor {
        Tensor::Bool(self.0.clone().into_shared())
    }

    /// The values of an array at kept positions, where it is broadcast with the positions.
    fn select(&self, values: &ndarray::ArcArray<f32, IxDyn>) -> Option<Vec<f32>> {
        let shape = broadcast_shapes(self.0.shape(), values.shape()).ok()?;
        let (keep, values) = (self.0.broadcast(IxDyn(&shape))?, values.broadcast(IxDyn(&shape))?);
        Some(keep.iter().zip(values.iter()).filter(|(keep, _)| **keep).map(|(_, &value)| value).collect())
    }

    /// Whether `holds` of every kept value.
    pub(super) fn all(&self, values: &ndarray::ArcArray<f32, IxDyn>, holds: impl Fn(f32) -> bool) -> bool {
        self.select(values).is_some_and(|values| values.into_iter().all(holds))
    }

    /// A value that equals `id` at the kept positions, computed from as few and as small values as possible: a
    /// constant that is the same at all of them becomes a scalar, broadcasts are left to the user.
    ///
    /// # Errors
    /// If an operation does not take its smaller operands.
    pub(super) fn restrict(&self, graph: &mut Graph, id: ValueId) -> Result<ValueId, Diagnostic> {
        self.restrict_memo(graph, id, &mut BTreeMap::new())
    }

    fn restrict_memo(
        &self,
        graph: &mut Graph,
        id: ValueId,
        done: &mut BTreeMap<ValueId, ValueId>,
    ) -> Result<ValueId, Diagnostic> {
        if let Some(&new) = done.get(&id) {
            return Ok(new);
        }
        let new = match graph.node(id).kind.clone() {
            NodeKind::Constant(constant) => match constant.load().ok().and_then(|t| self.common_value(&t)) {
                Some(value) if constant.elements() > 1 => {
                    graph.add_constant(graph.node(id).name.clone(), value)
                }
                _ => id,
            },
            NodeKind::Apply(Op::Expand { .. }) => match graph.arg(id, 0) {
                Some(x) => self.restrict_memo(graph, x, done)?,
                None => id,
            },
            NodeKind::Apply(Op::Reshape { shape }) => {
                let Some(inner) = graph.arg(id, 0) else { return Ok(id) };
                match reshape_operands(graph, inner, &shape)? {
                    Some(moved) => self.restrict_memo(graph, moved, done)?,
                    None => id,
                }
            }
            NodeKind::Apply(op) if is_elementwise(&op) => {
                let args = graph.args(id);
                let mut restricted = Vec::with_capacity(args.len());
                for &arg in &args {
                    restricted.push(self.restrict_memo(graph, arg, done)?);
                }
                if restricted == args { id } else { apply(graph, op, &restricted, id)? }
            }
            _ => id,
        };
        done.insert(id, new);
        Ok(new)
    }

    fn common_value(&self, tensor: &Tensor) -> Option<Tensor> {
        let Tensor::F32(values) = tensor.cast(DType::F32) else { return None };
        let selected = self.select(&values)?;
        let first = *selected.first()?;
        let exact = tensor.dtype() != DType::I64 || first.abs() < 16_777_216.0;
        (exact && selected.iter().all(|&value| value == first))
            .then(|| Tensor::scalar_f32(first).cast(tensor.dtype()))
    }
}

fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Max
            | Op::Min
            | Op::Neg
            | Op::Not
            | Op::And
            | Op::Or
            | Op::Equal
            | Op::Less
            | Op::LessOrEqual
            | Op::Greater
            | Op::GreaterOrEqual
            | Op::Where
            | Op::Cast { .. }
    )
}

/// The element-wise operation `id` on reshaped operands, if the reshape to `shape` only adds and removes axes of
/// length 1.
fn reshape_operands(graph: &mut Graph, id: ValueId, shape: &[usize]) -> Result<Option<ValueId>, Diagnostic> {
    let Some(op) = graph.op(id).cloned().filter(is_elementwise) else { return Ok(None) };
    let from = graph.shape(id).to_vec();
    let Some(sources) = unit_axes(&from, shape) else { return Ok(None) };
    let mut args = Vec::new();
    for arg in graph.args(id) {
        let padding = from.len() - graph.shape(arg).len();
        let length = |axis: usize| axis.checked_sub(padding).map_or(1, |axis| graph.shape(arg)[axis]);
        let shape = sources.iter().map(|source| source.map_or(1, length)).collect();
        args.push(match graph.constant(arg).map(|constant| constant.reshaped(shape)) {
            Some(Some(constant)) => graph.add_constant(graph.node(arg).name.clone(), constant),
            Some(None) => return Ok(None),
            None => {
                let shape = sources.iter().map(|source| source.map_or(1, length)).collect();
                apply(graph, Op::Reshape { shape }, &[arg], arg)?
            }
        });
    }
    apply(graph, op, &args, id).map(Some)
}

/// For every axis of `to` the axis of `from` that it is, or nothing if it is new and of length 1.
fn unit_axes(from: &[usize], to: &[usize]) -> Option<Vec<Option<usize>>> {
    let mut sources = Vec::with_capacity(to.len());
    let mut next = 0;
    for &dim in to {
        while next < from.len() && from[next] != dim && from[next] == 1 && dim != 1 {
            next += 1;
        }
        if next < from.len() && from[next] == dim {
            sources.push(Some(next));
            next += 1;
        } else if dim == 1 {
            sources.push(None);
        } else {
            return None;
        }
    }
    from[next..].iter().all(|&dim| dim == 1).then_some(sources)
}
