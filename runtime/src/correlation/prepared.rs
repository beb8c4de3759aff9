//! The client's part of products with the server's weights, computed before the inputs are known.
//!
//! The client holds `W - B` since setup and its own mask r of the operand, so `r (W - B)` plus its share of `r B` is
//! its whole contribution to `x W`: online it only sends `x + r`.

use std::collections::BTreeMap;
use std::ops::Range;

use marill_kernels::matmul::MatShape;
use marill_kernels::pack::{packed_len, unpack_to};
use marill_plaintext::Tensor;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::Source;
use super::masks::Masks;
use super::shares::Shares;
use super::shelf::Shelf;
use super::spool::Spool;
use crate::error::{Misbehaviour, Role, RunError};
use crate::protocol::tiles;
use crate::transport::Channel;

/// The masked weights `W - B`, packed one after the other as they came.
pub struct MaskedWeights {
    spool: Spool,
    offsets: BTreeMap<u32, u64>,
}

fn weight_width(program: &ValidProgram, weight: u32) -> u32 {
    program.ty(weight).width().unwrap_or(64)
}

impl MaskedWeights {
    /// Receives all weights of the program from the server.
    ///
    /// # Errors
    /// Of the channel and of the temporary file.
    pub fn receive(program: &ValidProgram, server: &mut Channel) -> Result<MaskedWeights, RunError> {
        let mut weights = MaskedWeights { spool: Spool::new()?, offsets: BTreeMap::new() };
        for at in 0..program.len() {
            if let Instruction::Weight(w) = program.instruction(at) {
                weights.offsets.insert(at as u32, weights.spool.len_bytes());
                server.meter_mut().set_label(at as u32);
                let bytes = packed_len(program.types()[at].len(), w.width) as u64;
                weights.spool.receive(server, bytes, &mut |_| Ok(()))?;
            }
        }
        Ok(weights)
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.spool.len_bytes() == 0
    }

    /// Adds elements `range` of a weight, of `len` elements in all, to `elements`.
    fn read(
        &self,
        (weight, len): (u32, usize),
        width: u32,
        range: Range<usize>,
        scratch: &mut Scratch,
        elements: &mut Vec<u64>,
    ) -> Result<(), RunError> {
        // Eight elements are whole bytes.
        let (first, end) = (range.start - range.start % 8, range.end.next_multiple_of(8).min(len));
        let start = self.offsets.get(&weight).copied().unwrap_or(0) + packed_len(first, width) as u64;
        let Scratch { bytes, numbers } = scratch;
        bytes.resize(packed_len(end - first, width), 0);
        self.spool.read_to(start, bytes)?;
        unpack_to(bytes, width, end - first, numbers).ok_or_else(|| RunError::PeerMisbehaved {
            peer: Role::Server,
            reason: Misbehaviour::Malformed {
                what: "masked weight",
                found: "padding bits that are set".into(),
            },
        })?;
        elements.extend_from_slice(&numbers[range.start - first..range.end - first]);
        Ok(())
    }
}

/// What a thread that reads masked weights uses again and again.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    numbers: Vec<u64>,
}

/// `r (W - B) + c` of every product with a weight, by instruction.
pub struct Prepared {
    shelf: Shelf,
}

impl Prepared {
    /// Computes them all.
    ///
    /// # Errors
    /// Of the temporary files, and `BadProgram` where masks cannot be moved.
    pub fn new(
        program: &ValidProgram,
        indices: &BTreeMap<u32, Tensor>,
        source: &mut dyn Source,
        weights: &MaskedWeights,
    ) -> Result<Prepared, RunError> {
        let mut shelf = Shelf::new()?;
        let mut masks = Masks::new(program, indices, None);
        for at in 0..program.len() as u32 {
            if let Some((a, weight)) = weighted(program, at) {
                let mut share = contribution(program, at, &masks, a, weight, weights)?;
                let correction =
                    source.fields(at)?.into_iter().next().map(Shares::into_values).unwrap_or_default();
                share.iter_mut().zip(&correction).for_each(|(s, c)| *s = s.wrapping_add(*c));
                shelf.put(at, share)?;
            }
            let ty = program.ty(at);
            masks.pass(at, || match ty.form {
                Form::Masked { width, to: Target::Server, .. } => {
                    Some(Ring::new(ty.shape.clone(), source.mask(at, ty.len(), width).into_values()))
                }
                _ => None,
            })?;
        }
        Ok(Prepared { shelf })
    }

    /// The client's contribution to the product that instruction `at` makes, of `len` elements.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn get(&self, at: u32, len: usize) -> Result<Shares, RunError> {
        self.shelf.numbers(at, len)
    }

    /// As [`Shelf::check`].
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn check(&self) -> Result<(), RunError> {
        self.shelf.check()
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
    let (ty, width) = (program.ty(weight), weight_width(program, weight));
    let whole = (weight, ty.len());
    let Some(r) = masks.get(a) else { return Ok(vec![0; program.ty(at).len()]) };
    if !matches!(program.instruction(at as usize), Instruction::MatMul(_)) {
        let mut masked = Vec::new();
        weights.read(whole, width, 0..ty.len(), &mut Scratch::default(), &mut masked)?;
        let masked = Ring::new(ty.shape.clone(), masked);
        return Ok(r.mul(&masked, &program.ty(at).shape).data);
    }
    let (k, m) = (ty.shape[0], ty.shape[1]);
    let shape = MatShape { n: program.ty(at).len() / m.max(1), k, m };
    let result_width = program.ty(at).width().unwrap_or(64);
    tiles::product(&r.data, shape, result_width, Scratch::default, |scratch, tile, out| {
        out.clear();
        tile.spans().try_for_each(|span| weights.read(whole, width, span, scratch, out))
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
