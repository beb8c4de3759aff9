//! Reductions and running sums.

use super::parallel::sum;
use super::walk::{around, copy, row_major};
use super::{Element, elements, foreign, zeros};
use crate::shape::element_count;
use crate::tensor::reserve;
use crate::{DType, Op, OpError, Tensor};

pub fn over(op: &Op, x: &Tensor, axes: &[usize], shape: Vec<usize>) -> Result<Tensor, OpError> {
    let sum = |lane: &[f32]| sum(lane, |x| x);
    match (op, x.dtype()) {
        (Op::ReduceSum { .. }, DType::F32) => fold(x, axes, shape, |lane| sum(lane) as f32),
        (Op::ReduceMean { .. }, DType::F32) => {
            fold(x, axes, shape, |lane| (sum(lane) / lane.len() as f64) as f32)
        }
        (Op::ReduceMax { .. }, DType::F32) => fold(x, axes, shape, |lane: &[f32]| {
            lane.iter().fold(f32::NEG_INFINITY, |m, &x| if m.is_nan() || m > x { m } else { x })
        }),
        (Op::ReduceSum { .. }, DType::I64) => {
            fold(x, axes, shape, |lane: &[i64]| lane.iter().fold(0, |sum: i64, &x| sum.wrapping_add(x)))
        }
        (Op::ReduceMax { .. }, DType::I64) => {
            fold(x, axes, shape, |lane: &[i64]| lane.iter().copied().max().unwrap_or(i64::MIN))
        }
        (_, found) => Err(foreign(op, 0, found)),
    }
}

/// `f` of the elements along `axes`, for each place along the other axes.
fn fold<T: Element>(
    x: &Tensor,
    axes: &[usize],
    shape: Vec<usize>,
    f: impl Fn(&[T]) -> T,
) -> Result<Tensor, OpError> {
    let from = x.shape();
    let kept = (0..from.len()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    let mut data = elements::<T>(x)?;
    if !order.is_sorted() {
        let strides = row_major(from);
        let turned: Vec<usize> = order.iter().map(|&axis| from[axis]).collect();
        let steps: Vec<isize> = order.iter().map(|&axis| strides[axis]).collect();
        data = copy(&data, &turned, &steps, 0)?.into();
    }
    let lane: usize = axes.iter().map(|&axis| from[axis]).product();
    let count = element_count(&shape)?;
    let mut out = reserve(count)?;
    out.extend((0..count).map(|i| f(&data[i * lane..(i + 1) * lane])));
    T::tensor(shape, out)
}

pub fn cum_sum(x: &Tensor, axis: usize, exclusive: bool, reverse: bool) -> Result<Tensor, OpError> {
    match x.dtype() {
        DType::F32 => {
            running(x, axis, exclusive, reverse, 0.0f64, |s, x: f32| s + f64::from(x), |s| s as f32)
        }
        _ => running(x, axis, exclusive, reverse, 0i64, i64::wrapping_add, |s| s),
    }
}

fn running<T: Element, S: Copy>(
    x: &Tensor,
    axis: usize,
    exclusive: bool,
    reverse: bool,
    zero: S,
    add: impl Fn(S, T) -> S,
    finish: impl Fn(S) -> T,
) -> Result<Tensor, OpError> {
    let data = elements::<T>(x)?;
    let mut out = zeros::<T>(data.len())?;
    for_each_lane(x.shape(), axis, |at, length| {
        let mut sum = zero;
        for i in 0..length {
            let i = at(if reverse { length - 1 - i } else { i });
            let before = sum;
            sum = add(sum, data[i]);
            out[i] = finish(if exclusive { before } else { sum });
        }
    });
    T::tensor(x.shape().to_vec(), out)
}

pub fn arg_max(x: &Tensor, axis: usize, shape: Vec<usize>) -> Result<Tensor, OpError> {
    // NaN counts as the largest, so that it is not lost.
    match x.dtype() {
        DType::F32 => {
            first_largest(x, axis, shape, |x: f32, best: f32| x > best || x.is_nan() && !best.is_nan())
        }
        _ => first_largest(x, axis, shape, |x: i64, best: i64| x > best),
    }
}

fn first_largest<T: Element>(
    x: &Tensor,
    axis: usize,
    shape: Vec<usize>,
    beats: impl Fn(T, T) -> bool,
) -> Result<Tensor, OpError> {
    let data = elements::<T>(x)?;
    let mut out = reserve(element_count(&shape)?)?;
    for_each_lane(x.shape(), axis, |at, length| {
        let mut best = 0;
        for i in 1..length {
            if beats(data[at(i)], data[at(best)]) {
                best = i;
            }
        }
        out.push(best as i64);
    });
    Tensor::i64(shape, out)
}

/// Visits every lane along `axis`, in the order of the other axes: where its `i`th element lies, and its length.
pub fn for_each_lane(shape: &[usize], axis: usize, mut visit: impl FnMut(&dyn Fn(usize) -> usize, usize)) {
    if shape.contains(&0) {
        return;
    }
    let (blocks, length, inner) = around(shape, axis);
    for block in 0..blocks {
        for offset in 0..inner {
            visit(&|i| (block * length + i) * inner + offset, length);
        }
    }
}
