//! Bounds on every element of a value that depends on constants and on i64 or bool inputs, whatever the inputs are.
//!
//! Bounds are f32 for every element type and err outwards. Integer inputs may be anything, truth values 0 or 1.

use std::collections::BTreeMap;

use ndarray::{ArcArray, IxDyn, Zip};

use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, ValueId};
use marill_plaintext::{DType, Op, OpError, Tensor, TensorType, evaluate};

type Bounds = ArcArray<f32, IxDyn>;

/// f32 holds every smaller integer exactly.
const MAX_EXACT_INTEGER: f32 = 16_777_216.0;

/// Inclusive bounds, of the value's shape.
#[derive(Clone)]
pub(super) struct Interval {
    pub(super) low: Bounds,
    pub(super) high: Bounds,
}

impl Interval {
    fn unknown(ty: &TensorType) -> Interval {
        let (low, high) =
            if ty.dtype == DType::Bool { (0.0, 1.0) } else { (f32::NEG_INFINITY, f32::INFINITY) };
        let filled = |value| Bounds::from_elem(IxDyn(&ty.shape), value);
        Interval { low: filled(low), high: filled(high) }
    }

    fn known(tensor: &Tensor) -> Option<Interval> {
        let Tensor::F32(values) = tensor.cast(DType::F32) else { return None };
        let (mut low, mut high) = (values.clone(), values);
        if tensor.dtype() == DType::I64 {
            low.mapv_inplace(|x| if x.abs() < MAX_EXACT_INTEGER { x } else { f32::NEG_INFINITY });
            high.mapv_inplace(|x| if x.abs() < MAX_EXACT_INTEGER { x } else { f32::INFINITY });
        }
        Some(Interval { low, high })
    }
}

/// Bounds of values of one graph, each computed once.
#[derive(Default)]
pub(super) struct Intervals(BTreeMap<ValueId, Interval>);

impl Intervals {
    /// Bounds of a value.
    ///
    /// # Errors
    /// If an operation fails on the bounds, as it would on the values.
    pub(super) fn of(&mut self, graph: &Graph, id: ValueId) -> Result<Interval, Diagnostic> {
        let mut path = vec![id];
        while let Some(&next) = path.last() {
            if self.0.contains_key(&next) {
                path.pop();
                continue;
            }
            let pending: Vec<ValueId> =
                graph.args(next).into_iter().filter(|arg| !self.0.contains_key(arg)).collect();
            if pending.is_empty() {
                let interval = self
                    .compute(graph, next)
                    .map_err(|error| Diagnostic::new(graph.node(next).name.clone(), error))?;
                self.0.insert(next, interval);
                path.pop();
            } else {
                path.extend(pending);
            }
        }
        Ok(self.0[&id].clone())
    }

    fn compute(&self, graph: &Graph, id: ValueId) -> Result<Interval, OpError> {
        let ty = graph.ty(id);
        match &graph.node(id).kind {
            NodeKind::Input => Ok(Interval::unknown(ty)),
            NodeKind::Constant(constant) => {
                let known = constant.load().ok().and_then(|tensor| Interval::known(&tensor));
                Ok(known.unwrap_or_else(|| Interval::unknown(ty)))
            }
            NodeKind::Apply(op) => {
                let args = graph.args(id);
                let bounds: Vec<&Interval> = args.iter().map(|arg| &self.0[arg]).collect();
                Ok(match elementwise(op, ty, &bounds) {
                    Some(interval) => interval,
                    None => moved(graph, op, &args, &bounds)?.unwrap_or_else(|| Interval::unknown(ty)),
                })
            }
        }
    }
}

fn spread(bounds: &Bounds, shape: &[usize]) -> Option<Bounds> {
    Some(bounds.broadcast(IxDyn(shape))?.to_shared())
}

fn zip(shape: &[usize], a: &Bounds, b: &Bounds, f: impl Fn(f32, f32) -> f32) -> Option<Bounds> {
    let (a, b) = (spread(a, shape)?, spread(b, shape)?);
    Some(Zip::from(&a).and(&b).map_collect(|&x, &y| f(x, y)).into_shared())
}

fn or_low(x: f32) -> f32 {
    if x.is_nan() { f32::NEG_INFINITY } else { x }
}

fn or_high(x: f32) -> f32 {
    if x.is_nan() { f32::INFINITY } else { x }
}

/// A bound of a product: 0 times anything that a value may be is 0.
fn product(x: f32, y: f32) -> f32 {
    if x == 0.0 || y == 0.0 { 0.0 } else { x * y }
}

fn elementwise(op: &Op, ty: &TensorType, args: &[&Interval]) -> Option<Interval> {
    let shape = ty.shape.as_slice();
    let truth = |yes: Bounds, maybe: Bounds| Some(Interval { low: yes, high: maybe });
    let flag = |condition: bool| f32::from(u8::from(condition));
    match (op, args) {
        (Op::Add, [a, b]) => Some(Interval {
            low: zip(shape, &a.low, &b.low, |x, y| or_low(x + y))?,
            high: zip(shape, &a.high, &b.high, |x, y| or_high(x + y))?,
        }),
        (Op::Sub, [a, b]) => Some(Interval {
            low: zip(shape, &a.low, &b.high, |x, y| or_low(x - y))?,
            high: zip(shape, &a.high, &b.low, |x, y| or_high(x - y))?,
        }),
        (Op::Neg, [a]) => {
            Some(Interval { low: a.high.mapv(|x| -x).into_shared(), high: a.low.mapv(|x| -x).into_shared() })
        }
        (Op::Mul, [a, b]) => {
            let corners = [
                zip(shape, &a.low, &b.low, product)?,
                zip(shape, &a.low, &b.high, product)?,
                zip(shape, &a.high, &b.low, product)?,
                zip(shape, &a.high, &b.high, product)?,
            ];
            let fold = |f: fn(f32, f32) -> f32| {
                corners[1..].iter().try_fold(corners[0].clone(), |sum, next| zip(shape, &sum, next, f))
            };
            Some(Interval { low: fold(f32::min)?, high: fold(f32::max)? })
        }
        (Op::Max, [a, b]) | (Op::Or, [a, b]) => Some(Interval {
            low: zip(shape, &a.low, &b.low, f32::max)?,
            high: zip(shape, &a.high, &b.high, f32::max)?,
        }),
        (Op::Min, [a, b]) | (Op::And, [a, b]) => Some(Interval {
            low: zip(shape, &a.low, &b.low, f32::min)?,
            high: zip(shape, &a.high, &b.high, f32::min)?,
        }),
        (Op::Not, [a]) => Some(Interval {
            low: a.high.mapv(|x| 1.0 - x).into_shared(),
            high: a.low.mapv(|x| 1.0 - x).into_shared(),
        }),
        (Op::Less, [a, b]) | (Op::Greater, [b, a]) => truth(
            zip(shape, &a.high, &b.low, |x, y| flag(x < y))?,
            zip(shape, &a.low, &b.high, |x, y| flag(x < y))?,
        ),
        (Op::LessOrEqual, [a, b]) | (Op::GreaterOrEqual, [b, a]) => truth(
            zip(shape, &a.high, &b.low, |x, y| flag(x <= y))?,
            zip(shape, &a.low, &b.high, |x, y| flag(x <= y))?,
        ),
        (Op::Equal, [a, b]) => {
            let same_low = zip(shape, &a.low, &b.high, |x, y| flag(x == y && x.is_finite()))?;
            let same_high = zip(shape, &a.high, &b.low, |x, y| flag(x == y && x.is_finite()))?;
            let below = zip(shape, &a.high, &b.low, |x, y| flag(x >= y))?;
            let above = zip(shape, &a.low, &b.high, |x, y| flag(x <= y))?;
            truth(zip(shape, &same_low, &same_high, f32::min)?, zip(shape, &below, &above, f32::min)?)
        }
        (Op::Where, [c, a, b]) => {
            let low = zip(shape, &a.low, &b.low, f32::min)?;
            let high = zip(shape, &a.high, &b.high, f32::max)?;
            let decide = |hull: Bounds, yes: &Bounds, no: &Bounds| {
                let (yes, no) = (spread(yes, shape)?, spread(no, shape)?);
                let (surely, maybe) = (spread(&c.low, shape)?, spread(&c.high, shape)?);
                let mut decided = hull;
                Zip::from(&mut decided).and(&surely).and(&yes).for_each(|bound, &surely, &x| {
                    if surely == 1.0 {
                        *bound = x;
                    }
                });
                Zip::from(&mut decided).and(&maybe).and(&no).for_each(|bound, &maybe, &x| {
                    if maybe == 0.0 {
                        *bound = x;
                    }
                });
                Some(decided)
            };
            Some(Interval { low: decide(low, &a.low, &b.low)?, high: decide(high, &a.high, &b.high)? })
        }
        (Op::Cast { to: DType::Bool }, [a]) => truth(
            zip(shape, &a.low, &a.high, |low, high| flag(low > 0.0 || high < 0.0))?,
            zip(shape, &a.low, &a.high, |low, high| flag(low != 0.0 || high != 0.0))?,
        ),
        (Op::Cast { to: DType::I64 }, [a]) => Some(Interval {
            low: a.low.mapv(f32::trunc).into_shared(),
            high: a.high.mapv(f32::trunc).into_shared(),
        }),
        (Op::Cast { to: DType::F32 }, [a]) => Some((*a).clone()),
        _ => None,
    }
}

/// Bounds of a mere rearrangement of elements, at places that are known.
fn moved(
    graph: &Graph,
    op: &Op,
    args: &[ValueId],
    bounds: &[&Interval],
) -> Result<Option<Interval>, OpError> {
    let is_moved = |position: usize| match op {
        Op::Gather { .. } | Op::GatherNd { .. } | Op::ScatterNd => position != 1,
        _ => true,
    };
    if !matches!(
        op,
        Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Expand { .. }
            | Op::Tile { .. }
            | Op::Trilu { .. }
            | Op::Gather { .. }
            | Op::GatherNd { .. }
            | Op::ScatterNd
    ) {
        return Ok(None);
    }
    let apply = |side: fn(&Interval) -> &Bounds| {
        let mut operands = Vec::with_capacity(args.len());
        for (position, &arg) in args.iter().enumerate() {
            if is_moved(position) {
                operands.push(Tensor::F32(side(bounds[position]).clone()));
            } else {
                match graph.constant(arg).and_then(|constant| constant.load().ok()) {
                    Some(places) => operands.push(places),
                    None => return Ok(None),
                }
            }
        }
        let operands: Vec<&Tensor> = operands.iter().collect();
        match evaluate(op, &operands)? {
            Tensor::F32(bounds) => Ok(Some(bounds)),
            _ => Ok(None),
        }
    };
    match (apply(|interval| &interval.low)?, apply(|interval| &interval.high)?) {
        (Some(low), Some(high)) => Ok(Some(Interval { low, high })),
        _ => Ok(None),
    }
}
