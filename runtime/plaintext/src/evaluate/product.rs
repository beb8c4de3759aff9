//! Products: matrices and convolutions.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::walk::{broadcast_strides, runs};
use super::{Element, elements, zeros};
use crate::shape::element_count;
use crate::{DType, OpError, Tensor};

/// `[n, k] x [k, m] -> [n, m]` into zeroed `out`, row-major.
type Multiply<T> = fn([usize; 3], &[T], &[T], &mut [T]);

pub fn mat_mul(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match a.dtype() {
        DType::F32 => batched(a, b, shape, multiply_f32),
        _ => batched(a, b, shape, multiply_i64),
    }
}

fn batched<T: Element>(
    a: &Tensor,
    b: &Tensor,
    shape: Vec<usize>,
    multiply: Multiply<T>,
) -> Result<Tensor, OpError> {
    let (x, y) = (elements::<T>(a)?, elements::<T>(b)?);
    let (batch_a, [n, k]) = split(a.shape(), |k| [1, k]);
    let (batch_b, [_, m]) = split(b.shape(), |k| [k, 1]);
    let mut out = zeros::<T>(element_count(&shape)?)?;
    if out.is_empty() || k == 0 {
        return T::tensor(shape, out);
    }
    if y.len() == k * m {
        multiply([out.len() / m, k, m], &x, &y, &mut out);
        return T::tensor(shape, out);
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
                multiply([n, k, m], &x[i..i + n * k], &y[j..j + k * m], result);
            }
        }
    });
    T::tensor(shape, out)
}

/// Batch axes and matrix axes; `vector` makes a matrix of a single axis.
fn split(shape: &[usize], vector: impl Fn(usize) -> [usize; 2]) -> (&[usize], [usize; 2]) {
    match shape {
        [batch @ .., rows, columns] => (batch, [*rows, *columns]),
        [length] => (&[], vector(*length)),
        [] => (&[], [1, 1]),
    }
}

fn multiply_f32([n, k, m]: [usize; 3], a: &[f32], b: &[f32], out: &mut [f32]) {
    let views = (
        ArrayView2::from_shape((n, k), a),
        ArrayView2::from_shape((k, m), b),
        ArrayViewMut2::from_shape((n, m), out),
    );
    if let (Ok(a), Ok(b), Ok(mut out)) = views {
        general_mat_mul(1.0, &a, &b, 0.0, &mut out);
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
        multiply_f32([rows, taps, places], weights, &patches, result);
    }
    Tensor::f32(shape, out)
}
