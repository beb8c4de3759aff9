//! A program walked on masks alone: what opened values' masks become as the values move about.

use std::collections::BTreeMap;

use marill_plaintext::{Op, OpError, Tensor};
use marill_program::correlation::mask_movement;
use marill_program::fixed::mask;
use marill_program::plan::arguments;
use marill_program::ring::movement;
use marill_program::{Form, Instruction, Ring, ValidProgram};

use crate::error::RunError;

/// The public matrices by which masks are multiplied.
pub trait Matrices {
    /// `x C` into `shape` and a ring of `width` bits, for the encoded public constant that is value `matrix` of the
    /// program. Bits above the width are arbitrary.
    ///
    /// # Errors
    /// Of the store that holds the constant.
    fn product(&self, matrix: u32, x: &Ring, shape: &[usize], width: u32) -> Result<Ring, RunError>;
}

/// Bytes of masks that may be alive at once.
const LIMIT_BYTES: u64 = 1 << 34;

/// The masks that are alive after some instructions.
pub struct Masks<'a> {
    program: &'a ValidProgram,
    indices: &'a BTreeMap<u32, Tensor>,
    /// For one party's masks. Of the sum of both it cannot be told what truncation makes.
    matrices: Option<&'a dyn Matrices>,
    last_use: Vec<u32>,
    masks: Vec<Option<Ring>>,
    alive_bytes: u64,
}

impl<'a> Masks<'a> {
    /// Before the first instruction. `indices` holds the public tensors that say how masks move; with `matrices`, the
    /// masks are one party's, and products and truncations of masked values are followed, else they are drawn.
    pub fn new(
        program: &'a ValidProgram,
        indices: &'a BTreeMap<u32, Tensor>,
        matrices: Option<&'a dyn Matrices>,
    ) -> Masks<'a> {
        let mut last_use: Vec<u32> = (0..program.len() as u32).collect();
        for at in 0..program.len() {
            arguments(program.instruction(at)).into_iter().for_each(|a| last_use[a as usize] = at as u32);
        }
        let masks = vec![None; program.len()];
        Masks { program, indices, matrices, last_use, masks, alive_bytes: 0 }
    }

    /// The mask of a value whose mask is known.
    pub fn get(&self, value: u32) -> Option<&Ring> {
        self.masks.get(value as usize)?.as_ref()
    }

    /// Passes instruction `at`; `draw` makes the mask of what it opens (and of what cannot be followed), or `None` where
    /// the caller does not know it.
    ///
    /// # Errors
    /// `BadProgram` for an index out of range; `Exhausted` for masks beyond the limit.
    pub fn pass(&mut self, at: u32, draw: impl FnOnce() -> Option<Ring>) -> Result<(), RunError> {
        let bad = |source: OpError| RunError::BadProgram { reason: Box::new(source) };
        let instruction = self.program.instruction(at as usize);
        let used = self.last_use[at as usize] != at;
        let bytes = 8 * self.program.ty(at).len() as u64;
        let masked = matches!(self.program.ty(at).form, Form::Masked { .. } | Form::MaskedBits { .. });
        if masked && used && self.alive_bytes.saturating_add(bytes) > LIMIT_BYTES {
            let needed_bytes = self.alive_bytes.saturating_add(bytes);
            return Err(RunError::Exhausted { what: "masks", needed_bytes, limit_bytes: LIMIT_BYTES });
        }
        let found = match instruction {
            _ if !masked || !used => None,
            Instruction::Open(_) | Instruction::OpenBits(_) => draw(),
            Instruction::MatMul(_) | Instruction::Truncate(_) if self.matrices.is_none() => draw(),
            Instruction::MatMul(p) => match (self.get(p.a), self.matrices) {
                (Some(r), Some(matrices)) => {
                    let ty = self.program.ty(at);
                    let width = ty.width().unwrap_or(64);
                    Some(matrices.product(p.b, r, &ty.shape, width)?.map(|v| v & mask(width)))
                }
                _ => None,
            },
            Instruction::Truncate(t) => {
                let reduce = mask(self.program.ty(t.arg).width().unwrap_or(64));
                self.get(t.arg).map(|r| r.map(|v| (v & reduce) >> t.shift))
            }
            Instruction::Add(b) | Instruction::Sub(b) => {
                let reduce = mask(self.program.ty(at).width().unwrap_or(64));
                self.get(b.a).or_else(|| self.get(b.b)).map(|r| r.map(|v| v & reduce))
            }
            Instruction::Scale(s) => {
                let reduce = mask(self.program.ty(at).width().unwrap_or(64));
                self.get(s.arg).map(|r| r.map(|v| v.wrapping_mul(s.factor as u64) & reduce))
            }
            Instruction::Move(m) => {
                let op = self.program.op(at as usize);
                let gather = matches!(op, Some(Op::Gather { .. }));
                let data = if gather { &m.args[..1] } else { &m.args[..] };
                let operands: Option<Vec<&Ring>> = data.iter().map(|&a| self.get(a)).collect();
                let indices = mask_movement(self.program, at as usize).and_then(|i| self.indices.get(&i));
                match (op, operands) {
                    (Some(op), Some(operands)) => Some(movement(op, &operands, indices).map_err(bad)?),
                    _ => None,
                }
            }
            Instruction::Place(p) => match (self.get(p.arg), self.indices.get(&p.indices)) {
                (Some(r), Some(indices)) => {
                    let indices = indices.to_i64_vec().map_err(bad)?;
                    Some(r.place(&indices, p.axis as usize, p.size as usize).map_err(bad)?)
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(found) = found {
            self.alive_bytes += 8 * found.len() as u64;
            self.masks[at as usize] = Some(found);
        }
        for argument in arguments(instruction) {
            if self.last_use[argument as usize] == at
                && let Some(mask) = self.masks[argument as usize].take()
            {
                self.alive_bytes -= 8 * mask.len() as u64;
            }
        }
        Ok(())
    }
}
