//! The published matrices that multiply masks, as the dealer has them: in a bundle of which it needs nothing else.

use std::cell::RefCell;

use marill_kernels::matmul::MatShape;
use marill_plaintext::{DType, Tensor};
use marill_program::correlation::mask_matrices;
use marill_program::cost::DIGEST_BYTES;
use marill_program::{Instruction, Ring, ValidProgram};

use super::encode::{Layout, encode_to, origin};
use crate::bundle::Bundle;
use crate::correlation::masks::Matrices;
use crate::error::{InputFault, RunError};
use crate::protocol::tiles;

/// What every matrix that multiplies masks is made of, in order, so that two who have them can tell that they are
/// equal: BLAKE3 of the elements as little-endian f32. Nothing if no mask is multiplied.
///
/// # Errors
/// Whatever `tensor` meets, which reads the constant of that number.
pub fn digest(
    program: &ValidProgram,
    tensor: &dyn Fn(u32) -> Result<Tensor, RunError>,
) -> Result<Option<[u8; DIGEST_BYTES as usize]>, RunError> {
    let matrices = mask_matrices(program);
    if matrices.is_empty() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for matrix in matrices {
        for part in floats(&tensor(constant(program, matrix))?)?.chunks(1 << 14) {
            bytes.clear();
            part.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            hasher.update(&bytes);
        }
    }
    Ok(Some(*hasher.finalize().as_bytes()))
}

/// The constant that encoded matrix `matrix` is made of.
fn constant(program: &ValidProgram, matrix: u32) -> u32 {
    match program.instruction(matrix as usize) {
        Instruction::Encode(e) => e.arg,
        _ => matrix,
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, RunError> {
    let bad = |error| RunError::BadProgram { reason: Box::new(error) };
    tensor.cast(DType::F32).to_f32_vec().map_err(bad)
}

/// The matrices of a bundle.
pub struct HeldMatrices<'a> {
    program: &'a ValidProgram,
    bundle: Option<&'a Bundle>,
    /// The one read last: two parties' masks are multiplied one after the other.
    last: RefCell<Option<(u32, Vec<f32>)>>,
}

impl<'a> HeldMatrices<'a> {
    /// Of `bundle`, which must be of `program`.
    pub fn new(program: &'a ValidProgram, bundle: Option<&'a Bundle>) -> HeldMatrices<'a> {
        HeldMatrices { program, bundle, last: RefCell::default() }
    }

    /// Reads a constant.
    ///
    /// # Errors
    /// `BadInput` where there is no bundle or no such constant in it.
    pub fn tensor(&self, at: u32) -> Result<Tensor, RunError> {
        let missing = || RunError::BadInput { name: "--public".into(), reason: InputFault::PublishedWeights };
        self.bundle.ok_or_else(missing)?.constant(at)
    }
}

impl Matrices for HeldMatrices<'_> {
    fn product(&self, matrix: u32, x: &Ring, shape: &[usize], width: u32) -> Result<Ring, RunError> {
        let ty = self.program.ty(matrix);
        let (k, m) = (ty.shape[0], ty.shape[1]);
        let Instruction::Encode(e) = self.program.instruction(matrix as usize) else {
            return Err(RunError::BadInput { name: format!("value {matrix}"), reason: InputFault::Missing });
        };
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(of, _)| *of != matrix) {
            *last = Some((matrix, floats(&self.tensor(e.arg)?)?));
        }
        let values = last.as_ref().map_or(&[][..], |(_, values)| values);
        let n = shape.iter().product::<usize>() / m.max(1);
        let layout = Layout { width: e.width, frac: e.frac };
        let name = || origin(self.program, matrix);
        let data = tiles::product(
            &x.data,
            MatShape { n, k, m },
            width,
            || (),
            |(), tile, out| {
                out.clear();
                tile.spans()
                    .try_for_each(|span| encode_to(&values[span.clone()], layout, &name, span.start, out))
            },
        )?;
        Ok(Ring::new(shape, data))
    }
}
