//! The client's part of products with the server's weights, computed before the inputs are known.
//!
//! The client holds `W - B` since setup and its own mask r of the operand, so `r (W - B)` plus its share of `r B` is
//! its whole contribution to `x W`: online it only sends `x + r`.

use std::collections::BTreeMap;
use std::ops::Range;

use marill_kernels::matmul::MatShape;
use marill_kernels::pack::packed_len;
use marill_plaintext::Tensor;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::Source;
use super::filling::Filling;
use super::masks::Masks;
use super::shares::{Numbers, Shares};
use crate::error::{Misbehaviour, Role, RunError};
use crate::protocol::tiles;
use crate::transport::Channel;

/// The masked weights `W - B`, packed as they came.
pub struct MaskedWeights {
    came: Filling,
}

impl MaskedWeights {
    /// Before any has come.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<MaskedWeights, RunError> {
        Ok(MaskedWeights { came: Filling::new()? })
    }

    /// Receives all weights of the program from the server, for who may wait for them. Returns whether there are any.
    ///
    /// # Errors
    /// Of the channel and of the temporary file.
    pub fn receive(&self, program: &ValidProgram, server: &mut Channel) -> Result<bool, RunError> {
        let mut any = false;
        for at in 0..program.len() as u32 {
            if let Instruction::Weight(w) = program.instruction(at as usize) {
                server.meter_mut().set_label(at);
                let bytes = packed_len(program.ty(at).len(), w.width) as u64;
                any |= bytes > 0;
                self.came.receive(at, server, bytes, &mut |_| Ok(()))?;
            }
            self.came.pass(at);
        }
        self.came.end();
        Ok(any)
    }

    /// What still comes.
    pub fn came(&self) -> &Filling {
        &self.came
    }

    /// The elements of a weight, as far as they can be read, which [`Filling::check`] tells afterwards.
    fn elements(&self, program: &ValidProgram, weight: u32) -> Result<Shares, RunError> {
        let ty = program.ty(weight);
        let found = self.came.packed(weight, ty.len(), ty.width().unwrap_or(64))?;
        found.ok_or_else(|| RunError::PeerMisbehaved {
            peer: Role::Server,
            reason: Misbehaviour::Malformed {
                what: "masked weight",
                found: "padding bits that are set".into(),
            },
        })
    }
}

/// Adds elements `range` of a weight to `elements`.
fn read(weight: &Shares, range: Range<usize>, numbers: &mut Numbers, elements: &mut Vec<u64>) {
    // Eight elements are whole bytes.
    let (first, end) = (range.start - range.start % 8, range.end.next_multiple_of(8));
    weight.read(first..end, numbers);
    elements.extend_from_slice(&numbers[range.start - first..range.end - first]);
}

/// `r (W - B) + c` of every product with a weight, by instruction.
pub struct Prepared {
    made: Filling,
}

impl Prepared {
    /// Before any is computed.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<Prepared, RunError> {
        Ok(Prepared { made: Filling::new()? })
    }

    /// Computes them all, for who may wait for them.
    ///
    /// # Errors
    /// Of the temporary files, and `BadProgram` where masks cannot be moved.
    pub fn make(
        &self,
        program: &ValidProgram,
        indices: &BTreeMap<u32, Tensor>,
        source: &dyn Source,
        weights: &MaskedWeights,
    ) -> Result<(), RunError> {
        let mut masks = Masks::new(program, indices, None);
        for at in 0..program.len() as u32 {
            if let Some((a, weight)) = weighted(program, at) {
                let mut share = contribution(program, at, &masks, a, weight, weights)?;
                weights.came.check()?;
                let correction =
                    source.fields(at)?.into_iter().next().map(Shares::into_values).unwrap_or_default();
                share.iter_mut().zip(&correction).for_each(|(s, c)| *s = s.wrapping_add(*c));
                self.made.put(at, share)?;
            }
            let ty = program.ty(at);
            masks.pass(at, || match ty.form {
                Form::Masked { width, to: Target::Server, .. } => {
                    Some(Ring::new(ty.shape.clone(), source.mask(at, ty.len(), width).into_values()))
                }
                _ => None,
            })?;
            self.made.pass(at);
        }
        self.made.end();
        Ok(())
    }

    /// The client's contribution to the product that an instruction makes.
    pub fn made(&self) -> &Filling {
        &self.made
    }
}

fn contribution(
    program: &ValidProgram,
    at: u32,
    masks: &Masks<'_>,
    a: u32,
    weight: u32,
    weights: &MaskedWeights,
) -> Result<Vec<u64>, RunError> {
    let ty = program.ty(weight);
    let Some(r) = masks.get(a) else { return Ok(vec![0; program.ty(at).len()]) };
    let weight = weights.elements(program, weight)?;
    if !matches!(program.instruction(at as usize), Instruction::MatMul(_)) {
        let masked = Ring::new(ty.shape.clone(), weight.into_values());
        return Ok(r.mul(&masked, &program.ty(at).shape).data);
    }
    let (k, m) = (ty.shape[0], ty.shape[1]);
    let shape = MatShape { n: program.ty(at).len() / m.max(1), k, m };
    let result_width = program.ty(at).width().unwrap_or(64);
    tiles::product(&r.data, shape, result_width, Numbers::default, |numbers, tile, out| {
        out.clear();
        tile.spans().for_each(|span| read(&weight, span, numbers, out));
        Ok(())
    })
}

/// Operand and weight of a product with a weight.
pub fn weighted(program: &ValidProgram, at: u32) -> Option<(u32, u32)> {
    match program.instruction(at as usize) {
        Instruction::Mul(p) | Instruction::MatMul(p)
            if matches!(program.ty(p.b).form, Form::Weight { .. }) =>
        {
            Some((p.a, p.b))
        }
        _ => None,
    }
}
