//! The operations that the compiler recognises in larger patterns.

use super::reduce::for_each_lane;
use super::walk::expand;
use super::{elements, zeros};
use crate::{OpError, Tensor};

/// Bias at or below this hides a position.
const MASKED: f32 = -1e4;

pub fn softmax(x: &Tensor, axis: usize) -> Result<Tensor, OpError> {
    let data = elements::<f32>(x)?;
    let mut out = zeros::<f32>(data.len())?;
    let mut lane = Vec::new();
    for_each_lane(x.shape(), axis, |at, length| {
        lane.clear();
        lane.extend((0..length).map(|i| data[at(i)]));
        normalise_exponentials(&mut lane);
        lane.iter().enumerate().for_each(|(i, &y)| out[at(i)] = y);
    });
    Tensor::f32(x.shape(), out)
}

/// Replaces each `x` by `e^x` over the sum of them all.
fn normalise_exponentials(lane: &mut [f32]) {
    let largest = lane.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for x in lane.iter_mut() {
        *x = (*x - largest).exp();
        sum += f64::from(*x);
    }
    lane.iter_mut().for_each(|x| *x = (f64::from(*x) / sum) as f32);
}

pub fn attention_softmax(scores: &Tensor, keep: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, OpError> {
    let shape = scores.shape();
    let mut out = elements::<f32>(scores)?.into_owned();
    let mut keep = expand(&elements::<bool>(keep)?, keep.shape(), shape)?;
    if let Some(bias) = bias {
        let bias = expand(&elements::<f32>(bias)?, bias.shape(), shape)?;
        for ((score, keep), bias) in out.iter_mut().zip(&mut keep).zip(bias) {
            *score += bias;
            *keep &= bias > MASKED || bias.is_nan();
        }
    }
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut lane = Vec::new();
    for (row, keep) in out.chunks_exact_mut(width).zip(keep.chunks_exact(width)) {
        lane.clear();
        lane.extend(row.iter().zip(keep).filter(|&(_, &keep)| keep).map(|(&x, _)| x));
        normalise_exponentials(&mut lane);
        let mut kept = lane.iter().copied();
        for (x, &keep) in row.iter_mut().zip(keep) {
            *x = if keep { kept.next().unwrap_or(0.0) } else { 0.0 };
        }
    }
    Tensor::f32(shape, out)
}

pub fn layer_norm(x: &Tensor, affine: Option<(&&Tensor, &&Tensor)>, epsilon: f32) -> Result<Tensor, OpError> {
    let affine = match affine {
        Some((gain, bias)) => Some((elements::<f32>(gain)?, elements::<f32>(bias)?)),
        None => None,
    };
    by_rows(x, |row| {
        let n = row.len() as f64;
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        row.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
        if let Some((gain, bias)) = &affine {
            for ((x, gain), bias) in row.iter_mut().zip(gain.iter()).zip(bias.iter()) {
                *x = *x * gain + bias;
            }
        }
    })
}

pub fn rms_norm(x: &Tensor, gain: Option<&&Tensor>, epsilon: f32) -> Result<Tensor, OpError> {
    let gain = match gain {
        Some(gain) => Some(elements::<f32>(gain)?),
        None => None,
    };
    by_rows(x, |row| {
        let mean_square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (mean_square + f64::from(epsilon)).sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        if let Some(gain) = &gain {
            row.iter_mut().zip(gain.iter()).for_each(|(x, gain)| *x *= gain);
        }
    })
}

/// A copy of `x` with `f` applied to each row along the last axis.
fn by_rows(x: &Tensor, f: impl Fn(&mut [f32])) -> Result<Tensor, OpError> {
    let mut out = elements::<f32>(x)?.into_owned();
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    out.chunks_exact_mut(width).for_each(f);
    Tensor::f32(x.shape(), out)
}

pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, OpError> {
    let shape = x.shape();
    let data = elements::<f32>(x)?;
    let cos = expand(&elements::<f32>(cos)?, cos.shape(), shape)?;
    let sin = expand(&elements::<f32>(sin)?, sin.shape(), shape)?;
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut out = zeros::<f32>(data.len())?;
    for (i, y) in out.iter_mut().enumerate() {
        let (first, at) = (i - i % width, i % width);
        let turned =
            if at < width / 2 { -data[first + at + width / 2] } else { data[first + at - width / 2] };
        *y = data[i] * cos[i] + turned * sin[i];
    }
    Tensor::f32(shape, out)
}
