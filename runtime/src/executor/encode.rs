//! Clear numbers into ring elements.

use marill_plaintext::Tensor;
use marill_program::fixed::{decode, encode};
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

/// Elements at once per thread; smaller tensors are encoded on one.
const PART: usize = 1 << 17;

/// Overwrites `out` with the encoded `values`, of which the first is element `first`; a number that does not fit is an
/// error that carries `name`.
pub(super) fn encode_slice(
    values: &[f32],
    layout: Layout,
    name: &dyn Fn() -> String,
    first: usize,
    out: &mut Vec<u64>,
) -> Result<(), RunError> {
    out.resize(values.len(), 0);
    let parts = marill_kernels::matmul::threads().min(values.len() / PART).max(1);
    let size = values.len().div_ceil(parts).max(1);
    let misfit = std::thread::scope(|scope| {
        let mut workers = Vec::new();
        let mut pieces = values.chunks(size).zip(out.chunks_mut(size)).enumerate();
        let own = pieces.next();
        for (piece, (values, out)) in pieces {
            workers.push(scope.spawn(move || encode_part(values, layout, out).map(|i| piece * size + i)));
        }
        let own = own.and_then(|(_, (values, out))| encode_part(values, layout, out));
        workers.into_iter().fold(own, |found, worker| found.or(worker.join().unwrap_or(None)))
    });
    match misfit {
        Some(i) => Err(out_of_range(name(), first + i, values[i].to_string(), layout)),
        None => Ok(()),
    }
}

/// The first value that does not fit.
fn encode_part(values: &[f32], layout: Layout, out: &mut [u64]) -> Option<usize> {
    for (i, (value, out)) in values.iter().zip(out).enumerate() {
        match encode(f64::from(*value), layout.width, layout.frac) {
            Some(element) => *out = element,
            None => return Some(i),
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
