//! The type of an operation's result, from the operation and its operands' types alone.
//!
//! Whatever [`infer`] accepts, [`crate::evaluate()`] computes with a result of exactly that type, unless elements
//! forbid it (an index out of range, an integer divided by zero).

use crate::{DType, Op, OpError, TensorType};

/// Most elements a tensor may have. Axes of length 0 do not count, so no product of axis lengths overflows.
pub const MAX_ELEMENTS: usize = 1 << 40;

/// Most axes a tensor may have.
pub const MAX_AXES: usize = 64;

/// Number of elements in `shape`. Errors: more than [`MAX_AXES`] axes, or the product of the non-zero ones exceeds
/// [`MAX_ELEMENTS`].
pub fn element_count(shape: &[usize]) -> Result<usize, OpError> {
    if shape.len() > MAX_AXES {
        return Err(OpError::TooManyAxes { found: shape.len() });
    }
    let mut count = 1usize;
    for &d in shape.iter().filter(|&&d| d != 0) {
        count = count
            .checked_mul(d)
            .filter(|&n| n <= MAX_ELEMENTS)
            .ok_or_else(|| OpError::TooManyElements { shape: shape.to_vec() })?;
    }
    Ok(if shape.contains(&0) { 0 } else { count })
}

/// The shape numpy broadcasts `a` and `b` to. Errors: two axes differ and neither is 1.
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    broadcast("broadcast", a, b)
}

fn broadcast(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
    let rank = a.len().max(b.len());
    let length = |s: &[usize], axis: usize| (axis + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|axis| match (length(a, axis), length(b, axis)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(OpError::ShapeMismatch { op, left: a.to_vec(), right: b.to_vec() }),
        })
        .collect()
}

/// The type of `op`'s result on operands of the types `args`.
///
/// Errors: the number, element types or shapes of the operands do not suit the operation or its attributes, or the
/// result would exceed [`MAX_ELEMENTS`].
pub fn infer(op: &Op, args: &[TensorType]) -> Result<TensorType, OpError> {
    let arity = op.arity();
    if !arity.contains(&args.len()) {
        let (min, max) = (*arity.start(), *arity.end());
        return Err(OpError::ArgumentCount { op: op.name(), min, max, found: args.len() });
    }
    for arg in args {
        element_count(&arg.shape)?;
    }
    let check = Check { op: op.name(), args };
    let dtype = check.dtypes(op)?;
    let shape = check.shape(op)?;
    element_count(&shape)?;
    Ok(TensorType { dtype, shape })
}

/// The checks of one operation on operands whose number is right.
struct Check<'a> {
    op: &'static str,
    args: &'a [TensorType],
}

impl Check<'_> {
    /// Checks every operand's element type; returns the result's.
    fn dtypes(&self, op: &Op) -> Result<DType, OpError> {
        use DType::{Bool, F32, I64};
        let first = self.args[0].dtype;
        match op {
            Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Expand { .. }
            | Op::Tile { .. }
            | Op::Reveal { .. }
            | Op::Trilu { .. } => Ok(first),
            Op::Concat { .. } => (1..self.args.len()).try_for_each(|i| self.same(i, 0)).map(|()| first),
            Op::Gather { .. } | Op::GatherNd { .. } => self.dtype(1, &[I64]).map(|_| first),
            Op::ScatterNd => self.dtype(1, &[I64]).and_then(|_| self.same(2, 0)).map(|()| first),
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Max | Op::Min | Op::MatMul => {
                self.dtype(0, &[F32, I64])?;
                self.same(1, 0).map(|()| first)
            }
            Op::Pow => {
                self.dtype(0, &[F32, I64])?;
                self.dtype(1, if first == F32 { &[F32, I64] } else { &[I64] }).map(|_| first)
            }
            Op::Neg | Op::Abs | Op::ReduceSum { .. } | Op::ReduceMax { .. } | Op::CumSum { .. } => {
                self.dtype(0, &[F32, I64])
            }
            Op::Floor
            | Op::Sqrt
            | Op::Reciprocal
            | Op::Rsqrt
            | Op::Exp
            | Op::Log
            | Op::Sin
            | Op::Cos
            | Op::Erf
            | Op::Tanh
            | Op::Sigmoid
            | Op::Relu
            | Op::Clip { .. }
            | Op::ReduceMean { .. }
            | Op::Softmax { .. }
            | Op::Gelu { .. }
            | Op::Silu => self.dtype(0, &[F32]),
            Op::Conv { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Rotary => {
                (0..self.args.len()).try_for_each(|i| self.dtype(i, &[F32]).map(drop)).map(|()| F32)
            }
            Op::Not => self.dtype(0, &[Bool]),
            Op::And | Op::Or => self.dtype(0, &[Bool]).and_then(|_| self.dtype(1, &[Bool])),
            Op::Equal => self.same(1, 0).map(|()| Bool),
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                self.dtype(0, &[F32, I64])?;
                self.same(1, 0).map(|()| Bool)
            }
            Op::Where => {
                self.dtype(0, &[Bool])?;
                self.same(2, 1).map(|()| self.args[1].dtype)
            }
            Op::IsNan => self.dtype(0, &[F32]).map(|_| Bool),
            Op::Cast { to } => Ok(*to),
            Op::ArgMax { .. } => self.dtype(0, &[F32, I64]).map(|_| I64),
            Op::OneHot { .. } => self.dtype(0, &[I64]).map(|_| F32),
            Op::AttentionSoftmax => {
                self.dtype(0, &[F32])?;
                self.dtype(1, &[Bool])?;
                if self.args.len() == 3 { self.dtype(2, &[F32]) } else { Ok(F32) }
            }
        }
    }

    /// Operand `operand`'s element type, which must be one of `allowed`.
    fn dtype(&self, operand: usize, allowed: &[DType]) -> Result<DType, OpError> {
        let found = self.args[operand].dtype;
        if allowed.contains(&found) {
            return Ok(found);
        }
        let expected = match allowed {
            [one] => one.name(),
            _ => "f32 or i64",
        };
        Err(OpError::Dtype { op: self.op, operand, expected, found })
    }

    /// Operands `operand` and `other` must have the same element type.
    fn same(&self, operand: usize, other: usize) -> Result<(), OpError> {
        self.dtype(operand, &[self.args[other].dtype]).map(drop)
    }

    fn shape(&self, op: &Op) -> Result<Vec<usize>, OpError> {
        let x = self.args[0].shape.as_slice();
        let other = |i: usize| self.args[i].shape.as_slice();
        match op {
            Op::Reshape { shape } => {
                if element_count(shape)? != element_count(x)? {
                    return Err(self.mismatch(x, shape));
                }
                Ok(shape.clone())
            }
            Op::Transpose { perm } => {
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..x.len()) {
                    return Err(self.attribute("perm", perm, format!("a permutation of {} axes", x.len())));
                }
                Ok(perm.iter().map(|&axis| x[axis]).collect())
            }
            Op::Concat { axis } => self.concat(*axis),
            Op::Slice { axis, start, end, step } => {
                let length = self.axis(*axis)?;
                let mut shape = x.to_vec();
                shape[*axis] = self.slice(length, *start, *end, *step)?;
                Ok(shape)
            }
            Op::Expand { shape } => {
                self.onto(x, shape)?;
                Ok(shape.clone())
            }
            Op::Gather { axis } => {
                self.axis(*axis)?;
                Ok([&x[..*axis], other(1), &x[axis + 1..]].concat())
            }
            Op::GatherNd { batch_dims } => {
                let (batch, indices) = (*batch_dims, other(1));
                let depth = self.index_depth(1)?;
                if batch >= indices.len() || x[..batch.min(x.len())] != indices[..batch] {
                    return Err(self.mismatch(x, indices));
                }
                if depth > x.len() - batch {
                    return Err(self.mismatch(x, indices));
                }
                Ok([&indices[..indices.len() - 1], &x[batch + depth..]].concat())
            }
            Op::ScatterNd => {
                let (indices, updates) = (other(1), other(2));
                let depth = self.index_depth(1)?;
                if depth > x.len() {
                    return Err(self.mismatch(x, indices));
                }
                let needed = [&indices[..indices.len() - 1], &x[depth..]].concat();
                if updates != needed {
                    return Err(self.mismatch(updates, &needed));
                }
                Ok(x.to_vec())
            }
            Op::Tile { repeats } => {
                if repeats.len() != x.len() {
                    return Err(self.attribute("repeats", repeats, format!("{} counts", x.len())));
                }
                let product = |(&d, &r): (&usize, &usize)| d.checked_mul(r);
                let shape: Option<Vec<usize>> = x.iter().zip(repeats).map(product).collect();
                shape.ok_or_else(|| OpError::TooManyElements { shape: repeats.clone() })
            }
            Op::Trilu { .. } => self.rank(0, x.len() >= 2, "at least 2 axes").map(|()| x.to_vec()),
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow | Op::Max | Op::Min | Op::And | Op::Or => {
                broadcast(self.op, x, other(1))
            }
            Op::Equal | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                broadcast(self.op, x, other(1))
            }
            Op::Where => broadcast(self.op, &broadcast(self.op, x, other(1))?, other(2)),
            Op::ReduceSum { axes, keepdims }
            | Op::ReduceMean { axes, keepdims }
            | Op::ReduceMax { axes, keepdims } => {
                if axes.is_empty() || !axes.is_sorted_by(|a, b| a < b) {
                    return Err(self.attribute(
                        "axes",
                        axes,
                        "axes in strictly increasing order".to_string(),
                    ));
                }
                axes.iter().try_for_each(|&axis| self.axis(axis).map(drop))?;
                Ok(reduced(x, axes, *keepdims))
            }
            Op::ArgMax { axis, keepdims } => {
                if self.axis(*axis)? == 0 {
                    return Err(OpError::EmptyAxis { op: self.op, axis: *axis });
                }
                Ok(reduced(x, &[*axis], *keepdims))
            }
            Op::CumSum { axis, .. } | Op::Softmax { axis } => self.axis(*axis).map(|_| x.to_vec()),
            Op::MatMul => self.mat_mul(x, other(1)),
            Op::Conv { strides, pads, dilations, group } => self.conv(strides, pads, dilations, *group),
            Op::OneHot { depth } => Ok([x, &[*depth]].concat()),
            Op::AttentionSoftmax => {
                self.rank(0, !x.is_empty(), "at least 1 axis")?;
                (1..self.args.len()).try_for_each(|i| self.onto(other(i), x)).map(|()| x.to_vec())
            }
            Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
                self.rank(0, !x.is_empty(), "at least 1 axis")?;
                if matches!(op, Op::LayerNorm { .. }) && self.args.len() == 2 {
                    return Err(OpError::ArgumentCount { op: self.op, min: 3, max: 3, found: 2 });
                }
                let width = &x[x.len() - 1..];
                match (1..self.args.len()).find(|&i| other(i) != width) {
                    Some(i) => Err(self.mismatch(other(i), width)),
                    None => Ok(x.to_vec()),
                }
            }
            Op::Rotary => {
                self.rank(0, x.last().is_some_and(|h| h % 2 == 0), "a last axis of even length")?;
                self.onto(other(1), x)?;
                self.onto(other(2), x)?;
                Ok(x.to_vec())
            }
            Op::Neg
            | Op::Abs
            | Op::Floor
            | Op::Sqrt
            | Op::Reciprocal
            | Op::Rsqrt
            | Op::Exp
            | Op::Log
            | Op::Sin
            | Op::Cos
            | Op::Erf
            | Op::Tanh
            | Op::Sigmoid
            | Op::Relu
            | Op::Clip { .. }
            | Op::Not
            | Op::IsNan
            | Op::Cast { .. }
            | Op::Gelu { .. }
            | Op::Reveal { .. }
            | Op::Silu => Ok(x.to_vec()),
        }
    }

    fn concat(&self, axis: usize) -> Result<Vec<usize>, OpError> {
        let mut shape = self.args[0].shape.clone();
        self.axis(axis)?;
        for arg in &self.args[1..] {
            let y = &arg.shape;
            let fits = y.len() == shape.len()
                && y.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !fits {
                return Err(self.mismatch(&self.args[0].shape, y));
            }
            shape[axis] = shape[axis]
                .checked_add(y[axis])
                .ok_or_else(|| OpError::TooManyElements { shape: shape.clone() })?;
        }
        Ok(shape)
    }

    /// Number of indices in a slice of an axis of length `length`.
    fn slice(&self, length: usize, start: i64, end: i64, step: i64) -> Result<usize, OpError> {
        let length = i64::try_from(length).map_err(|_| OpError::TooManyElements { shape: vec![length] })?;
        let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
        for (attribute, value) in [("start", start), ("end", end)] {
            if value < low || value > high {
                return Err(self.attribute(attribute, &value, format!("{low} to {high}")));
            }
        }
        if step == 0 {
            return Err(self.attribute("step", &step, "not 0".to_string()));
        }
        let span = if step < 0 { start - end } else { end - start };
        Ok(if span <= 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) as usize })
    }

    /// Length of the index operand's last axis, at least 1.
    fn index_depth(&self, operand: usize) -> Result<usize, OpError> {
        let depth = self.args[operand].shape.last().copied().unwrap_or(0);
        self.rank(operand, depth > 0, "a non-empty last axis").map(|()| depth)
    }

    fn mat_mul(&self, a: &[usize], b: &[usize]) -> Result<Vec<usize>, OpError> {
        self.rank(0, !a.is_empty(), "at least 1 axis")?;
        self.rank(1, !b.is_empty(), "at least 1 axis")?;
        let (batch_a, n, inner_a) = match a {
            [k] => (&a[..0], None, *k),
            [batch @ .., n, k] => (batch, Some(*n), *k),
            [] => return Err(self.mismatch(a, b)),
        };
        let (batch_b, inner_b, m) = match b {
            [k] => (&b[..0], *k, None),
            [batch @ .., k, m] => (batch, *k, Some(*m)),
            [] => return Err(self.mismatch(a, b)),
        };
        if inner_a != inner_b {
            return Err(self.mismatch(a, b));
        }
        let mut shape = broadcast(self.op, batch_a, batch_b).map_err(|_| self.mismatch(a, b))?;
        shape.extend(n);
        shape.extend(m);
        Ok(shape)
    }

    fn conv(
        &self,
        strides: &[usize; 2],
        pads: &[usize; 4],
        dilations: &[usize; 2],
        group: usize,
    ) -> Result<Vec<usize>, OpError> {
        let (&[n, c, h, w], &[m, c_group, kh, kw]) = (&self.args[0].shape[..], &self.args[1].shape[..])
        else {
            let operand = usize::from(self.args[0].shape.len() == 4);
            self.rank(operand, false, "4 axes")?;
            return Ok(Vec::new());
        };
        if strides.contains(&0) {
            return Err(self.attribute("strides", strides, "positive".to_string()));
        }
        if dilations.contains(&0) {
            return Err(self.attribute("dilations", dilations, "positive".to_string()));
        }
        if group == 0 || c % group != 0 || m % group != 0 {
            return Err(self.attribute("group", &group, format!("a divisor of {c} and {m} channels")));
        }
        if c / group != c_group {
            return Err(self.mismatch(&self.args[0].shape, &self.args[1].shape));
        }
        let extent = |axis: usize, length: usize, kernel: usize| {
            let padded = length.checked_add(pads[axis])?.checked_add(pads[axis + 2])?;
            let reach = kernel.checked_sub(1)?.checked_mul(dilations[axis])?.checked_add(1)?;
            Some(padded.checked_sub(reach)? / strides[axis] + 1)
        };
        match (extent(0, h, kh), extent(1, w, kw)) {
            (Some(oh), Some(ow)) => Ok(vec![n, m, oh, ow]),
            _ => Err(self.mismatch(&self.args[0].shape, &self.args[1].shape)),
        }
    }

    /// Length of operand 0's axis `axis`.
    fn axis(&self, axis: usize) -> Result<usize, OpError> {
        let x = &self.args[0].shape;
        x.get(axis).copied().ok_or(OpError::AxisOutOfRange { op: self.op, axis, rank: x.len() })
    }

    /// `from` must broadcast to exactly `to`.
    fn onto(&self, from: &[usize], to: &[usize]) -> Result<(), OpError> {
        if broadcast(self.op, from, to)? == to { Ok(()) } else { Err(self.mismatch(from, to)) }
    }

    fn rank(&self, operand: usize, fits: bool, expected: &'static str) -> Result<(), OpError> {
        if fits {
            return Ok(());
        }
        Err(OpError::Rank { op: self.op, operand, expected, found: self.args[operand].shape.clone() })
    }

    fn mismatch(&self, left: &[usize], right: &[usize]) -> OpError {
        OpError::ShapeMismatch { op: self.op, left: left.to_vec(), right: right.to_vec() }
    }

    fn attribute(&self, attribute: &'static str, found: &dyn std::fmt::Debug, expected: String) -> OpError {
        OpError::AttributeValue { op: self.op, attribute, found: format!("{found:?}"), expected }
    }
}

/// `shape` without `axes`, or with length 1 there.
fn reduced(shape: &[usize], axes: &[usize], keepdims: bool) -> Vec<usize> {
    let axis = |(i, &d): (usize, &usize)| match (axes.contains(&i), keepdims) {
        (false, _) => Some(d),
        (true, true) => Some(1),
        (true, false) => None,
    };
    shape.iter().enumerate().filter_map(axis).collect()
}
