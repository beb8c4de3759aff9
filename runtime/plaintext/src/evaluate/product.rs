//! Products: matrices and convolutions.

use std::borrow::Cow;

use super::matrix::{Matrix, multiply, on_this_thread, work_ns};
use super::parallel::{parts, split as split_work};
use super::walk::{Walk, broadcast_strides, row_major, runs};
use super::{Element, elements, strided, zeros};
use crate::shape::element_count;
use crate::{DType, OpError, Tensor};

pub fn mat_mul(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match a.dtype() {
        DType::F32 => mat_mul_f32(a, b, shape),
        _ => mat_mul_i64(a, b, shape),
    }
}

/// A tensor's elements where they lie, with the strides of batch axes and of rows and columns.
struct Strided<'a> {
    data: Cow<'a, [f32]>,
    batch: Vec<isize>,
    down: usize,
    right: usize,
}

impl<'a> Strided<'a> {
    fn new(tensor: &'a Tensor, is_left: bool) -> Result<Strided<'a>, OpError> {
        let array = tensor.as_f32()?;
        let (data, mut strides) = match strided(array) {
            Some(data) => (Cow::Borrowed(data), array.strides().to_vec()),
            None => (elements::<f32>(tensor)?, row_major(tensor.shape())),
        };
        let last = strides.pop().unwrap_or(1) as usize;
        Ok(match strides.pop() {
            Some(down) => Strided { data, batch: strides, down: down as usize, right: last },
            None if is_left => Strided { data, batch: strides, down: 0, right: last },
            None => Strided { data, batch: strides, down: last, right: 0 },
        })
    }

    /// The matrix that starts at `offset`.
    fn at(&self, offset: isize) -> Matrix<'_> {
        Matrix { data: &self.data[offset as usize..], down: self.down, right: self.right }
    }

    /// Strides of the batch axes as if broadcast to `to`.
    fn broadcast(&self, from: &[usize], to: &[usize]) -> Vec<isize> {
        let missing = to.len() - from.len();
        let stride = |axis: usize| match axis.checked_sub(missing) {
            Some(own) if from[own] != 1 => self.batch[own],
            _ => 0,
        };
        (0..to.len()).map(stride).collect()
    }
}

fn mat_mul_f32(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    let (batch_a, [n, k]) = split(a.shape(), |k| [1, k]);
    let (batch_b, [_, m]) = split(b.shape(), |k| [k, 1]);
    let mut out = zeros::<f32>(element_count(&shape)?)?;
    if out.is_empty() || k == 0 {
        return Tensor::f32(shape, out);
    }
    let y = Strided::new(b, false)?;
    if b.len() == k * m {
        let x = elements::<f32>(a)?;
        multiply([out.len() / m, k, m], Matrix::row_major(&x, k), y.at(0), &mut out);
        return Tensor::f32(shape, out);
    }
    let x = Strided::new(a, true)?;
    let vectors = usize::from(a.shape().len() == 1) + usize::from(b.shape().len() == 1);
    let batch = &shape[..shape.len() + vectors - 2];
    let strides = [x.broadcast(batch_a, batch), y.broadcast(batch_b, batch)];
    let walk = Walk::new(batch, [&strides[0], &strides[1]], [0, 0]);
    let count = out.len() / (n * m);
    let one = [n, k, m];
    let in_parts = count >= parts(count.saturating_mul(work_ns(one)));
    let products = |first: usize, results: &mut [f32]| {
        let mut results = results.chunks_exact_mut(n * m);
        walk.visit(first..first + results.len(), |[i, j], length| {
            for at in 0..length as isize {
                let (a, b) = (x.at(i + at * walk.steps[0]), y.at(j + at * walk.steps[1]));
                match results.next() {
                    Some(result) if in_parts => on_this_thread(one, a, b, result),
                    Some(result) => multiply(one, a, b, result),
                    None => {}
                }
            }
        });
    };
    if in_parts {
        split_work(&mut out, n * m, work_ns(one), products);
    } else {
        products(0, &mut out);
    }
    Tensor::f32(shape, out)
}

/// `[n, k] x [k, m] -> [n, m]`, batch by batch.
fn mat_mul_i64(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    let (x, y) = (elements::<i64>(a)?, elements::<i64>(b)?);
    let (batch_a, [n, k]) = split(a.shape(), |k| [1, k]);
    let (batch_b, [_, m]) = split(b.shape(), |k| [k, 1]);
    let mut out = zeros::<i64>(element_count(&shape)?)?;
    if out.is_empty() || k == 0 {
        return i64::tensor(shape, out);
    }
    let vectors = usize::from(a.shape().len() == 1) + usize::from(b.shape().len() == 1);
    let batch = &shape[..shape.len() + vectors - 2];
    let strides = [broadcast_strides(batch_a, batch), broadcast_strides(batch_b, batch)];
    let mut results = out.chunks_exact_mut(n * m);
    runs(batch, [&strides[0], &strides[1]], [0, 0], |[i, j], length, [step_i, step_j]| {
        for at in 0..length as isize {
            let i = (i + at * step_i) as usize * n * k;
            let j = (j + at * step_j) as usize * k * m;
            if let Some(result) = results.next() {
                multiply_i64([n, k, m], &x[i..i + n * k], &y[j..j + k * m], result);
            }
        }
    });
    i64::tensor(shape, out)
}

/// Batch axes and matrix axes; `vector` makes a matrix of a single axis.
fn split(shape: &[usize], vector: impl Fn(usize) -> [usize; 2]) -> (&[usize], [usize; 2]) {
    match shape {
        [batch @ .., rows, columns] => (batch, [*rows, *columns]),
        [length] => (&[], vector(*length)),
        [] => (&[], [1, 1]),
    }
}

fn multiply_i64([_, k, m]: [usize; 3], a: &[i64], b: &[i64], out: &mut [i64]) {
    for (row, result) in a.chunks_exact(k).zip(out.chunks_exact_mut(m)) {
        for (&x, line) in row.iter().zip(b.chunks_exact(m)) {
            for (sum, &y) in result.iter_mut().zip(line) {
                *sum = sum.wrapping_add(x.wrapping_mul(y));
            }
        }
    }
}

/// How a convolution's kernel meets its input.
pub struct Window {
    /// Rows, columns.
    pub strides: [usize; 2],
    /// Zeros at top, left, bottom, right.
    pub pads: [usize; 4],
    /// Rows, columns.
    pub dilations: [usize; 2],
}

impl Window {
    /// Where along `axis` the kernel's element `tap` lies for result `at`, unless in the padding.
    fn source(&self, axis: usize, at: usize, tap: usize, length: usize) -> Option<usize> {
        let padded = at * self.strides[axis] + tap * self.dilations[axis];
        padded.checked_sub(self.pads[axis]).filter(|&i| i < length)
    }
}

/// Convolution as one matrix product per image and group, over the patches laid out as columns.
pub fn conv(
    x: &Tensor,
    weight: &Tensor,
    window: &Window,
    group: usize,
    shape: Vec<usize>,
) -> Result<Tensor, OpError> {
    let (data, kernel) = (elements::<f32>(x)?, elements::<f32>(weight)?);
    let mut out = zeros::<f32>(element_count(&shape)?)?;
    let (&[_, _, h, w], &[_, channels, kh, kw], &[images, m, oh, ow]) =
        (x.shape(), weight.shape(), shape.as_slice())
    else {
        return Tensor::f32(shape, out);
    };
    let (taps, places, rows) = (channels * kh * kw, oh * ow, m / group);
    if out.is_empty() || taps == 0 || h * w == 0 {
        return Tensor::f32(shape, out);
    }
    let mut patches = zeros::<f32>(taps.saturating_mul(places))?;
    for i in 0..images * group {
        let input = &data[i * channels * h * w..(i + 1) * channels * h * w];
        for (row, patch) in patches.chunks_exact_mut(places).enumerate() {
            let (channel, ky, kx) = (row / (kh * kw), row / kw % kh, row % kw);
            for (y, line) in patch.chunks_exact_mut(ow).enumerate() {
                let source = window.source(0, y, ky, h).map(|y| &input[(channel * h + y) * w..][..w]);
                for (x, value) in line.iter_mut().enumerate() {
                    let at = window.source(1, x, kx, w);
                    *value = source.zip(at).map_or(0.0, |(line, x)| line[x]);
                }
            }
        }
        let weights = &kernel[i % group * rows * taps..][..rows * taps];
        let result = &mut out[i * rows * places..][..rows * places];
        let (weights, patches) = (Matrix::row_major(weights, taps), Matrix::row_major(&patches, places));
        multiply([rows, taps, places], weights, patches, result);
    }
    Tensor::f32(shape, out)
}
