//! The public matrices that multiply masks, as the server sent them to the dealer.

use std::cell::RefCell;
use std::collections::BTreeMap;

use marill_kernels::matmul::MatShape;
use marill_program::correlation::mask_matrices;
use marill_program::cost::matrix_bytes;
use marill_program::fixed::encode;
use marill_program::{Instruction, Ring, ValidProgram};

use crate::correlation::masks::Matrices;
use crate::correlation::spool::Spool;
use crate::error::{Misbehaviour, Role, RunError};
use crate::protocol::panels;
use crate::transport::Channel;

/// Most bytes of public matrices that the dealer takes.
const LIMIT_BYTES: u64 = 1 << 35;

/// The matrices, on disk.
pub struct ReceivedMatrices<'a> {
    program: &'a ValidProgram,
    spool: RefCell<Spool>,
    offsets: BTreeMap<u32, u64>,
}

impl<'a> ReceivedMatrices<'a> {
    /// Receives all of them.
    ///
    /// # Errors
    /// Of the channel and of the temporary file; `Exhausted` for more than the dealer takes.
    pub fn receive(
        program: &'a ValidProgram,
        server: &mut Channel,
    ) -> Result<ReceivedMatrices<'a>, RunError> {
        let needed_bytes = matrix_bytes(program);
        if needed_bytes > LIMIT_BYTES {
            let limit_bytes = LIMIT_BYTES;
            return Err(RunError::Exhausted { what: "public matrices", needed_bytes, limit_bytes });
        }
        let mut spool = Spool::new()?;
        spool.receive(server, needed_bytes, &mut |_| Ok(()))?;
        let (mut offsets, mut offset) = (BTreeMap::new(), 0);
        for value in mask_matrices(program) {
            offsets.insert(value, offset);
            offset += 4 * program.ty(value).len() as u64;
        }
        Ok(ReceivedMatrices { program, spool: RefCell::new(spool), offsets })
    }
}

impl Matrices for ReceivedMatrices<'_> {
    fn product(&self, matrix: u32, x: &Ring, shape: &[usize]) -> Result<Ring, RunError> {
        let ty = self.program.ty(matrix);
        let (k, m) = (ty.shape[0], ty.shape[1]);
        let (width, frac) = match self.program.instruction(matrix as usize) {
            Instruction::Encode(e) => (e.width, e.frac),
            _ => (64, 0),
        };
        let start = self.offsets.get(&matrix).copied().unwrap_or(0);
        let n = shape.iter().product::<usize>() / m.max(1);
        let data = panels::product(&x.data, MatShape { n, k, m }, |range, panel| {
            let bytes = self.spool.borrow_mut().read(start + 4 * range.start as u64, 4 * range.len())?;
            for chunk in bytes.as_chunks::<4>().0 {
                let value = f32::from_le_bytes(*chunk);
                panel.push(encode(f64::from(value), width, frac).ok_or_else(|| {
                    RunError::PeerMisbehaved {
                        peer: Role::Server,
                        reason: Misbehaviour::Malformed { what: "public matrix", found: value.to_string() },
                    }
                })?);
            }
            Ok(())
        })?;
        Ok(Ring::new(shape, data))
    }
}
