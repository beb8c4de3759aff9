//! Clear numbers into ring elements.

use std::sync::{Mutex, PoisonError};

use marill_kernels::functions::{self, SHIFTED};
use marill_kernels::threads::{for_each, threads};
use marill_plaintext::Tensor;
use marill_program::fixed::{decode, encode, power_of_two};
use marill_program::plan::arguments;
use marill_program::{Instruction, Ring, ValidProgram};

use super::failed;
use crate::error::{InputFault, RunError};

/// A ring's layout.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) frac: u32,
}

/// The name of the first input or constant that value `at` is computed from.
pub(super) fn origin(program: &ValidProgram, at: u32) -> String {
    let mut value = at;
    loop {
        match program.instruction(value as usize) {
            Instruction::Input(i) => return i.name.clone(),
            Instruction::Constant(c) => return c.name.clone(),
            instruction => match arguments(instruction).first() {
                Some(&first) => value = first,
                None => return format!("value {at}"),
            },
        }
    }
}

/// Elements for which a thread is worth its start.
const PART: usize = 1 << 17;

/// Numbers that are looked at one by one where one of them is large or does not fit.
const CHUNK: usize = 1 << 10;

/// Overwrites `out` with the encoded `values`, of which the first is element `first`, on all cores; a number that does not fit is an
/// error that carries `name`.
pub(super) fn encode_slice(
    values: &[f32],
    layout: Layout,
    name: &dyn Fn() -> String,
    first: usize,
    out: &mut Vec<u64>,
) -> Result<(), RunError> {
    out.resize(values.len(), 0);
    let size = values.len().div_ceil(threads()).max(PART);
    let misfit = Mutex::new(None);
    for_each(values.chunks(size).zip(out.chunks_mut(size)).enumerate(), |(piece, (values, out))| {
        if let Some(i) = encode_part(values, layout, out) {
            let mut misfit = misfit.lock().unwrap_or_else(PoisonError::into_inner);
            *misfit = Some(misfit.map_or(piece * size + i, |other: usize| other.min(piece * size + i)));
        }
    });
    let misfit = misfit.into_inner().unwrap_or_else(PoisonError::into_inner);
    fitting(misfit, values, layout, name, first)
}

/// The same at the end of `out`, on this thread.
pub(super) fn encode_to(
    values: &[f32],
    layout: Layout,
    name: &dyn Fn() -> String,
    first: usize,
    out: &mut Vec<u64>,
) -> Result<(), RunError> {
    let start = out.len();
    out.resize(start + values.len(), 0);
    fitting(encode_part(values, layout, &mut out[start..]), values, layout, name, first)
}

/// The error of the value that does not fit, if there is one.
fn fitting(
    misfit: Option<usize>,
    values: &[f32],
    layout: Layout,
    name: &dyn Fn() -> String,
    first: usize,
) -> Result<(), RunError> {
    let error = |i: usize| out_of_range(name(), first + i, values[i].to_string(), layout);
    misfit.map_or(Ok(()), |i| Err(error(i)))
}

/// The first value that does not fit.
fn encode_part(values: &[f32], Layout { width, frac }: Layout, out: &mut [u64]) -> Option<usize> {
    let (scale, limit) = (power_of_two(frac as i32), power_of_two(width as i32 - 1).min(SHIFTED));
    for (at, (values, out)) in values.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
        if functions::encode(values, scale, limit, out) {
            continue;
        }
        for (i, (value, out)) in values.iter().zip(out).enumerate() {
            match encode(f64::from(*value), width, frac) {
                Some(element) => *out = element,
                None => return Some(at * CHUNK + i),
            }
        }
    }
    None
}

fn out_of_range(name: String, index: usize, found: String, layout: Layout) -> RunError {
    let Layout { width, frac } = layout;
    let low = decode(1 << (width - 1), width, frac).to_string();
    let high = decode((1 << (width - 1)) - 1, width, frac).to_string();
    RunError::BadInput { name, reason: InputFault::OutOfRange { index, found, low, high } }
}

/// Encodes a tensor of f32 or i64 elements, the argument of instruction `at`.
pub(super) fn encode_tensor(
    program: &ValidProgram,
    at: u32,
    tensor: &Tensor,
    layout: Layout,
) -> Result<Ring, RunError> {
    let name = || origin(program, at);
    let shape = tensor.shape().to_vec();
    if let Tensor::I64(_) = tensor {
        let limit = 1i128 << (layout.width - 1);
        let values = tensor.to_i64_vec().map_err(failed(at))?;
        let mut data = Vec::with_capacity(values.len());
        for (i, value) in values.into_iter().enumerate() {
            let scaled = i128::from(value) << layout.frac;
            if !(-limit..limit).contains(&scaled) {
                return Err(out_of_range(name(), i, value.to_string(), layout));
            }
            data.push(scaled as u64);
        }
        return Ok(Ring::new(shape, data));
    }
    let array = tensor.as_f32().map_err(failed(at))?;
    let mut data = Vec::new();
    match array.as_slice() {
        Some(values) => encode_slice(values, layout, &name, 0, &mut data)?,
        None => {
            let values = tensor.to_f32_vec().map_err(failed(at))?;
            encode_slice(&values, layout, &name, 0, &mut data)?;
        }
    }
    Ok(Ring::new(shape, data))
}
