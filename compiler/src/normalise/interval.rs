//! Bounds on every element of a value that depends on constants and on i64 or bool inputs, whatever the inputs are.
//!
//! Bounds are f32 for every element type and err outwards. Integer inputs may be anything, truth values 0 or 1; what
//! may not be a number is unbounded.

use std::collections::BTreeMap;

use ndarray::{ArcArray, IxDyn, Zip};

use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, ValueId};
use marill_plaintext::{DType, Op, OpError, Tensor, TensorType, evaluate};

type Bounds = ArcArray<f32, IxDyn>;

/// f32 holds every smaller integer exactly.
const MAX_EXACT_INTEGER: f32 = 16_777_216.0;
/// Beyond this, integer arithmetic may have wrapped around.
const MAX_UNWRAPPED: f32 = (1u64 << 62) as f32;
const MAX_INTEGER: f32 = (1u64 << 63) as f32;

/// Inclusive bounds, of the value's shape.
#[derive(Clone)]
pub(super) struct Interval {
    pub(super) low: Bounds,
    pub(super) high: Bounds,
}

impl Interval {
    fn unknown(ty: &TensorType) -> Interval {
        let (low, high) = match ty.dtype {
            DType::F32 => (f32::NEG_INFINITY, f32::INFINITY),
            DType::I64 => (-MAX_INTEGER, MAX_INTEGER),
            DType::Bool => (0.0, 1.0),
        };
        let filled = |value| Bounds::from_elem(IxDyn(&ty.shape), value);
        Interval { low: filled(low), high: filled(high) }
    }

    fn known(tensor: &Tensor) -> Option<Interval> {
        let Tensor::F32(values) = tensor.cast(DType::F32) else { return None };
        Some(Interval { low: values.mapv(or_low).into_shared(), high: values.mapv(or_high).into_shared() })
    }

    /// Bounds of integers, which f32 rounds and which wrap around.
    fn integral(mut self) -> Interval {
        Zip::from(&mut self.low).and(&mut self.high).for_each(|low, high| {
            let wraps = low.abs() > MAX_UNWRAPPED || high.abs() > MAX_UNWRAPPED;
            if wraps || low.abs() >= MAX_EXACT_INTEGER {
                *low = -MAX_INTEGER;
            }
            if wraps || high.abs() >= MAX_EXACT_INTEGER {
                *high = MAX_INTEGER;
            }
        });
        self
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
        let interval = self.compute_exactly(graph, id)?;
        Ok(if graph.ty(id).dtype == DType::I64 { interval.integral() } else { interval })
    }

    fn compute_exactly(&self, graph: &Graph, id: ValueId) -> Result<Interval, OpError> {
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
            let side = |or: fn(f32) -> f32, extreme: fn(f32, f32) -> f32| {
                let corner = |x, y| zip(shape, x, y, |x, y| or(x * y));
                let (first, second) = (corner(&a.low, &b.low)?, corner(&a.low, &b.high)?);
                let (third, fourth) = (corner(&a.high, &b.low)?, corner(&a.high, &b.high)?);
                zip(
                    shape,
                    &zip(shape, &first, &second, extreme)?,
                    &zip(shape, &third, &fourth, extreme)?,
                    extreme,
                )
            };
            Some(Interval { low: side(or_low, f32::min)?, high: side(or_high, f32::max)? })
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
            // What is unbounded may be no number, which compares with nothing.
            zip(shape, &a.high, &b.low, |x, y| flag(x < y || x == y && x.is_finite()))?,
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
        (Op::Cast { to: DType::I64 }, [a]) => {
            let saturated =
                |bound: &Bounds| bound.mapv(|x| x.trunc().clamp(-MAX_INTEGER, MAX_INTEGER)).into_shared();
            Some(Interval { low: saturated(&a.low), high: saturated(&a.high) })
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Owner, interpret_with};
    use proptest::prelude::*;

    /// Builds values on top of each other: each byte pair chooses an operation and its operands.
    fn random_graph(choices: &[(u8, u8, u8)]) -> Graph {
        let mut graph = Graph::default();
        let ints = graph.add_input("ints", TensorType::new(DType::I64, [2, 3]));
        let flags = graph.add_input("flags", TensorType::new(DType::Bool, [3]));
        let known = Tensor::i64([2, 1], vec![0, 3]).unwrap();
        let mut values = vec![
            ints,
            flags,
            graph.add_constant("known", known),
            graph.add_constant("masked", Tensor::scalar_f32(f32::MIN)),
            graph.add_constant("infinite", Tensor::f32([3], vec![0.0, f32::NEG_INFINITY, 1.5]).unwrap()),
        ];
        let ops = [
            Op::Add,
            Op::Sub,
            Op::Mul,
            Op::Max,
            Op::Min,
            Op::Neg,
            Op::Not,
            Op::And,
            Op::Or,
            Op::Equal,
            Op::Less,
            Op::GreaterOrEqual,
            Op::Where,
            Op::Cast { to: DType::Bool },
            Op::Cast { to: DType::I64 },
            Op::Cast { to: DType::F32 },
            Op::Expand { shape: vec![2, 3] },
            Op::Reshape { shape: vec![3, 2] },
            Op::Transpose { perm: vec![1, 0] },
            Op::Slice { axis: 0, start: 1, end: 2, step: 1 },
            Op::CumSum { axis: 0, exclusive: false, reverse: false },
        ];
        for &(op, first, second) in choices {
            let op = ops[usize::from(op) % ops.len()].clone();
            let pick = |choice: u8| values[usize::from(choice) % values.len()];
            let args = [pick(first), pick(second), pick(first.wrapping_add(second))];
            let arity = *op.arity().start();
            if let Ok(id) = graph.apply(op, &args[..arity], "") {
                values.push(id);
            }
        }
        for id in values {
            graph.add_output("", id, Owner::Client);
        }
        graph
    }

    #[test]
    fn an_unbounded_value_is_not_surely_above_minus_infinity() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", TensorType::new(DType::F32, [1]));
        let least = graph.add_constant("least", Tensor::f32([1], vec![f32::NEG_INFINITY]).unwrap());
        for (op, args) in [(Op::GreaterOrEqual, [x, least]), (Op::LessOrEqual, [least, x])] {
            let id = graph.apply(op, &args, "").unwrap();
            let bounds = Intervals::default().of(&graph, id).unwrap();
            assert_eq!((bounds.low[[0]], bounds.high[[0]]), (0.0, 1.0));
        }
    }

    proptest! {
        #[test]
        fn values_lie_within_their_bounds(
            choices in prop::collection::vec(any::<(u8, u8, u8)>(), 1..40),
            ints in prop::collection::vec(prop_oneof![-2i64..4, any::<i32>().prop_map(i64::from)], 6),
            flags in prop::collection::vec(any::<bool>(), 3),
        ) {
            let graph = random_graph(&choices);
            let inputs = BTreeMap::from([
                ("ints".to_owned(), Tensor::i64([2, 3], ints).unwrap()),
                ("flags".to_owned(), Tensor::bool([3], flags).unwrap()),
            ]);
            let mut intervals = Intervals::default();
            let mut outside = Vec::new();
            interpret_with(&graph, &inputs, &mut |id, value| {
                let bounds = intervals.of(&graph, id).unwrap();
                let Tensor::F32(value) = value.cast(DType::F32) else { return };
                let each = value.iter().zip(&bounds.low).zip(&bounds.high);
                outside.extend(each.filter(|((x, low), high)| x < low || x > high).map(|_| id));
            }).unwrap();
            prop_assert!(outside.is_empty(), "{:?}", outside.iter().map(|&id| graph.op(id)).collect::<Vec<_>>());
        }
    }
}
