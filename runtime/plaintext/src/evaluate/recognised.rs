//! The operations that the compiler recognises in larger patterns.

use std::borrow::Cow;

use super::parallel::{Loop, split, sum, vectorised};
use super::reduce::for_each_lane;
use super::walk::{Walk, broadcast_strides, expand};
use super::{Element, elements, real, zeros};
use crate::{OpError, Tensor};

/// Bias at or below this hides a position.
const MASKED: f32 = -1e4;
/// Nanoseconds for an element of a row, roughly.
const NS: usize = 3;

/// What becomes of a row along the last axis.
trait Row: Sync {
    /// Row number `at`, `x`, becomes `y`; `scratch` is as long.
    fn apply(&self, at: usize, x: &[f32], y: &mut [f32], scratch: &mut [f64]);
}

/// Rows from number `first` on.
struct Rows<'a, R> {
    row: &'a R,
    first: usize,
    width: usize,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<R: Row> Loop for Rows<'_, R> {
    #[inline(always)]
    fn run(self) {
        let mut scratch = vec![0.0; self.width];
        let rows = self.x.chunks_exact(self.width).zip(self.out.chunks_exact_mut(self.width));
        for (i, (x, y)) in rows.enumerate() {
            self.row.apply(self.first + i, x, y, &mut scratch);
        }
    }
}

/// `row` applied to each row along the last axis.
fn by_rows(x: &Tensor, row: &impl Row) -> Result<Tensor, OpError> {
    let data = elements::<f32>(x)?;
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    let mut out = zeros::<f32>(data.len())?;
    split(&mut out, width, width * NS, |first, out| {
        let x = &data[first * width..][..out.len()];
        vectorised(Rows { row, first, width, x, out });
    });
    Tensor::f32(x.shape(), out)
}

/// `e^(x - largest)` of every x into `scratch`, and one over their sum. NaN is never the largest.
#[inline(always)]
fn exponentials(x: &[f32], scratch: &mut [f64]) -> f64 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &x| if x > a { x } else { a });
    let largest = f64::from(largest);
    for (e, &x) in scratch.iter_mut().zip(x) {
        *e = real::exp(f64::from(x) - largest);
    }
    1.0 / sum(scratch, |e| e)
}

struct Softmax;

impl Row for Softmax {
    #[inline(always)]
    fn apply(&self, _: usize, x: &[f32], y: &mut [f32], scratch: &mut [f64]) {
        let scale = exponentials(x, scratch);
        y.iter_mut().zip(scratch.iter()).for_each(|(y, e)| *y = (e * scale) as f32);
    }
}

pub fn softmax(x: &Tensor, axis: usize) -> Result<Tensor, OpError> {
    if axis + 1 == x.shape().len() {
        return by_rows(x, &Softmax);
    }
    let data = elements::<f32>(x)?;
    let mut out = zeros::<f32>(data.len())?;
    let length = x.shape()[axis];
    let (mut lane, mut result, mut scratch) = (vec![0.0; length], vec![0.0; length], vec![0.0; length]);
    for_each_lane(x.shape(), axis, |at, length| {
        lane.iter_mut().enumerate().for_each(|(i, x)| *x = data[at(i)]);
        Softmax.apply(0, &lane, &mut result, &mut scratch);
        (0..length).for_each(|i| out[at(i)] = result[i]);
    });
    Tensor::f32(x.shape(), out)
}

/// An operand that broadcasts to the rows of another.
struct Broadcast<'a, T: Element> {
    data: Cow<'a, [T]>,
    /// Where each row begins.
    rows: Vec<usize>,
}

impl<'a, T: Element> Broadcast<'a, T> {
    fn new(operand: &'a Tensor, shape: &[usize]) -> Result<Broadcast<'a, T>, OpError> {
        let data = elements::<T>(operand)?;
        let (width, outer) = shape.split_last().map_or((1, shape), |(&width, outer)| (width, outer));
        let count = outer.iter().product();
        if operand.shape().last() != Some(&width) {
            let data = expand(&data, operand.shape(), shape)?.into();
            return Ok(Broadcast { data, rows: (0..count).map(|row| row * width).collect() });
        }
        let strides = broadcast_strides(operand.shape(), shape);
        let walk = Walk::new(outer, [&strides[..outer.len()]], [0]);
        let mut rows = Vec::with_capacity(count);
        walk.visit(0..count, |[first], length| {
            rows.extend((0..length as isize).map(|i| (first + i * walk.steps[0]) as usize));
        });
        Ok(Broadcast { data, rows })
    }

    #[inline(always)]
    fn row(&self, at: usize, width: usize) -> &[T] {
        &self.data[self.rows[at]..][..width]
    }
}

struct AttentionSoftmax<'a> {
    keep: Broadcast<'a, bool>,
    bias: Option<Broadcast<'a, f32>>,
}

impl Row for AttentionSoftmax<'_> {
    #[inline(always)]
    fn apply(&self, at: usize, x: &[f32], y: &mut [f32], scratch: &mut [f64]) {
        let keep = self.keep.row(at, x.len()).iter();
        match &self.bias {
            None => masked(x, y, scratch, keep.map(|&keep| (keep, 0.0))),
            Some(bias) => {
                let bias = bias.row(at, x.len()).iter();
                masked(
                    x,
                    y,
                    scratch,
                    keep.zip(bias).map(|(&keep, &bias)| (keep & (bias > MASKED || bias.is_nan()), bias)),
                );
            }
        }
    }
}

/// Softmax of `x` plus a bias over the positions to keep; the others are 0.
#[inline(always)]
fn masked(x: &[f32], y: &mut [f32], scratch: &mut [f64], rule: impl Iterator<Item = (bool, f32)> + Clone) {
    for ((y, &x), (keep, bias)) in y.iter_mut().zip(x).zip(rule.clone()) {
        *y = if keep { x + bias } else { f32::NEG_INFINITY };
    }
    let scale = exponentials(y, scratch);
    for ((y, e), (keep, _)) in y.iter_mut().zip(scratch.iter()).zip(rule) {
        *y = if keep { (e * scale) as f32 } else { 0.0 };
    }
}

pub fn attention_softmax(scores: &Tensor, keep: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, OpError> {
    let shape = scores.shape();
    let keep = Broadcast::new(keep, shape)?;
    let bias = match bias {
        Some(bias) => Some(Broadcast::new(bias, shape)?),
        None => None,
    };
    by_rows(scores, &AttentionSoftmax { keep, bias })
}

struct LayerNorm<'a> {
    affine: Option<[Cow<'a, [f32]>; 2]>,
    epsilon: f64,
}

impl Row for LayerNorm<'_> {
    #[inline(always)]
    fn apply(&self, _: usize, x: &[f32], y: &mut [f32], _: &mut [f64]) {
        let n = x.len() as f64;
        let mean = sum(x, |x| x) / n;
        let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        match &self.affine {
            None => {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = ((f64::from(x) - mean) * scale) as f32);
            }
            Some([gain, bias]) => {
                for (((y, &x), gain), bias) in y.iter_mut().zip(x).zip(gain.iter()).zip(bias.iter()) {
                    *y = ((f64::from(x) - mean) * scale) as f32 * gain + bias;
                }
            }
        }
    }
}

pub fn layer_norm(x: &Tensor, affine: Option<(&&Tensor, &&Tensor)>, epsilon: f32) -> Result<Tensor, OpError> {
    let affine = match affine {
        Some((gain, bias)) => Some([elements::<f32>(gain)?, elements::<f32>(bias)?]),
        None => None,
    };
    by_rows(x, &LayerNorm { affine, epsilon: f64::from(epsilon) })
}

struct RmsNorm<'a> {
    gain: Option<Cow<'a, [f32]>>,
    epsilon: f64,
}

impl Row for RmsNorm<'_> {
    #[inline(always)]
    fn apply(&self, _: usize, x: &[f32], y: &mut [f32], _: &mut [f64]) {
        let mean_square = sum(x, |x| x * x) / x.len() as f64;
        let scale = 1.0 / (mean_square + self.epsilon).sqrt();
        match &self.gain {
            None => y.iter_mut().zip(x).for_each(|(y, &x)| *y = (f64::from(x) * scale) as f32),
            Some(gain) => {
                for ((y, &x), gain) in y.iter_mut().zip(x).zip(gain.iter()) {
                    *y = (f64::from(x) * scale) as f32 * gain;
                }
            }
        }
    }
}

pub fn rms_norm(x: &Tensor, gain: Option<&&Tensor>, epsilon: f32) -> Result<Tensor, OpError> {
    let gain = match gain {
        Some(gain) => Some(elements::<f32>(gain)?),
        None => None,
    };
    by_rows(x, &RmsNorm { gain, epsilon: f64::from(epsilon) })
}

struct Rotary<'a> {
    cos: Broadcast<'a, f32>,
    sin: Broadcast<'a, f32>,
}

impl Row for Rotary<'_> {
    #[inline(always)]
    fn apply(&self, at: usize, x: &[f32], y: &mut [f32], _: &mut [f64]) {
        let width = x.len();
        let (cos, sin) = (self.cos.row(at, width), self.sin.row(at, width));
        let half = width / 2;
        for i in 0..half {
            y[i] = x[i] * cos[i] + -x[i + half] * sin[i];
        }
        for i in half..width {
            y[i] = x[i] * cos[i] + x[i - half] * sin[i];
        }
    }
}

pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, OpError> {
    let (cos, sin) = (Broadcast::new(cos, x.shape())?, Broadcast::new(sin, x.shape())?);
    by_rows(x, &Rotary { cos, sin })
}
