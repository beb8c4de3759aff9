//! A program walked on masks alone: what opened values' masks become as the values move about.

use std::collections::BTreeMap;

use marill_plaintext::{Op, OpError, Tensor};
use marill_program::correlation::mask_movement;
use marill_program::plan::arguments;
use marill_program::ring::movement;
use marill_program::{Form, Instruction, Ring, ValidProgram};

use crate::error::RunError;

/// Bytes of masks that may be alive at once.
const LIMIT_BYTES: u64 = 1 << 34;

/// The masks that are alive after some instructions.
pub struct Masks<'a> {
    program: &'a ValidProgram,
    indices: &'a BTreeMap<u32, Tensor>,
    last_use: Vec<u32>,
    masks: Vec<Option<Ring>>,
    alive_bytes: u64,
}

impl<'a> Masks<'a> {
    /// Before the first instruction. `indices` holds the public tensors that say how masks move.
    pub fn new(program: &'a ValidProgram, indices: &'a BTreeMap<u32, Tensor>) -> Masks<'a> {
        let mut last_use: Vec<u32> = (0..program.len() as u32).collect();
        for at in 0..program.len() {
            arguments(program.instruction(at)).into_iter().for_each(|a| last_use[a as usize] = at as u32);
        }
        Masks { program, indices, last_use, masks: vec![None; program.len()], alive_bytes: 0 }
    }

    /// The mask of a value whose mask is known.
    pub fn get(&self, value: u32) -> Option<&Ring> {
        self.masks.get(value as usize)?.as_ref()
    }

    /// Passes instruction `at`; `draw` makes the mask of what it opens, or `None` where the caller does not know it.
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
        let mask = match instruction {
            _ if !masked || !used => None,
            Instruction::Open(_) | Instruction::OpenBits(_) => draw(),
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
                (Some(mask), Some(indices)) => {
                    let indices = indices.to_i64_vec().map_err(bad)?;
                    Some(mask.place(&indices, p.axis as usize, p.size as usize).map_err(bad)?)
                }
                _ => None,
            },
            _ => None,
        };
        if let Some(mask) = mask {
            self.alive_bytes += 8 * mask.len() as u64;
            self.masks[at as usize] = Some(mask);
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
