//! A party's correlations of one run, made with the other party.

use std::collections::BTreeMap;

use marill_kernels::pack::{pack, packed_len};
use marill_kernels::{Prg, Seed};
use marill_plaintext::Tensor;
use marill_program::correlation::{fields, masked_operands};
use marill_program::fixed::mask;
use marill_program::two_party::count::segments;
use marill_program::two_party::gates::{Engine, Side};
use marill_program::two_party::products::{Method, method};
use marill_program::two_party::recipe::make;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::gates::Gates;
use super::keys::ProductKeys;
use crate::correlation::masks::{Masks, Matrices};
use crate::correlation::shares::Shares;
use crate::correlation::shelf::Shelf;
use crate::correlation::{Source, fresh_seed, mask_stream};
use crate::error::RunError;

/// The server's weights as ring elements; the client has none.
pub type Weights<'a> = &'a dyn Fn(u32) -> Result<Vec<u64>, RunError>;

/// Masks from this party's seed, shares from a spool.
pub struct TwoPartySource<'a> {
    program: &'a ValidProgram,
    seed: Seed,
    shelf: Shelf,
}

impl<'a> TwoPartySource<'a> {
    /// Draws this party's masks, and makes all correlations of `program` with the peer; `heard` is told how many
    /// instructions are done. `indices` holds the public tensors by which masks move, `matrices` those by which they
    /// are multiplied.
    ///
    /// # Errors
    /// Of the channel, the temporary file and the bundle.
    pub fn make(
        program: &'a ValidProgram,
        indices: &BTreeMap<u32, Tensor>,
        matrices: &dyn Matrices,
        weights: Weights<'_>,
        gates: &mut Gates<'_>,
        keys: &ProductKeys,
        heard: &mut dyn FnMut(u32),
    ) -> Result<TwoPartySource<'a>, RunError> {
        let side = gates.side();
        let mut source = TwoPartySource { program, seed: fresh_seed()?, shelf: Shelf::new()? };
        let mut masks = Masks::new(program, indices, Some(matrices));
        let mut next = 0;
        let mut segments = segments(program);
        // What comes behind the last gates has a segment without any.
        segments.push(Vec::new());
        for segment in segments {
            let mut parts = BTreeMap::new();
            let end = segment.last().map_or(program.len() as u32, |last| last + 1);
            while next < end {
                if segment.contains(&next) {
                    source.gather(next, &masks, weights, side, &mut parts)?;
                } else if matches!(method(program, next), Some(Method::Wide { .. } | Method::Pairs(_))) {
                    let mut own = BTreeMap::new();
                    source.gather(next, &masks, weights, side, &mut own)?;
                    let part = |value: u32| own.get(&value).cloned().unwrap_or_default();
                    gates.channel().meter_mut().set_label(next);
                    let made = keys.product(gates.channel(), program, next, &part)?;
                    source.store(next, made.into_iter().collect())?;
                    heard(next + 1);
                }
                source.pass(&mut masks, next, side)?;
                next += 1;
            }
            if segment.is_empty() {
                continue;
            }
            let part = |value: u32| parts.get(&value).cloned().unwrap_or_default();
            let made = make(gates, program, &segment, &part)?;
            for (&at, made) in segment.iter().zip(made) {
                source.store(at, made)?;
            }
            heard(end);
        }
        Ok(source)
    }

    /// From what was kept of one that was made.
    pub fn of(program: &'a ValidProgram, seed: Seed, shelf: Shelf) -> TwoPartySource<'a> {
        TwoPartySource { program, seed, shelf }
    }

    /// To be kept: the seed of the masks, and the shares.
    pub fn parts(&mut self) -> (&Seed, &mut Shelf) {
        (&self.seed, &mut self.shelf)
    }

    fn pass(&self, masks: &mut Masks<'_>, at: u32, side: Side) -> Result<(), RunError> {
        let ty = self.program.ty(at);
        let mine = match ty.form {
            Form::Masked { to: Target::Server, .. } => side == Side::Client,
            Form::Masked { to: Target::Client, .. } => side == Side::Server,
            _ => true,
        };
        masks.pass(at, || {
            mine.then(|| Ring::new(ty.shape.clone(), self.mask(at, ty.len(), ty.width().unwrap_or(64))))
        })
    }

    /// This party's numbers that the fields of an instruction are made of.
    fn gather(
        &self,
        at: u32,
        masks: &Masks<'_>,
        weights: Weights<'_>,
        side: Side,
        parts: &mut BTreeMap<u32, Vec<u64>>,
    ) -> Result<(), RunError> {
        for value in masked_operands(self.program, at as usize) {
            if let (false, Some(ring)) = (parts.contains_key(&value), masks.get(value)) {
                let reduce = mask(self.program.ty(value).width().unwrap_or(64));
                parts.insert(value, ring.data.iter().map(|v| v & reduce).collect());
            }
        }
        let weight = match self.program.instruction(at as usize) {
            Instruction::Mul(p) | Instruction::MatMul(p) => Some(p.b),
            _ => None,
        };
        let weight = weight.filter(|&v| matches!(self.program.ty(v).form, Form::Weight { .. }));
        let encrypted = matches!(method(self.program, at), Some(Method::Wide { .. }));
        if let (Some(weight), Side::Server, false) = (weight, side, encrypted) {
            parts.insert(weight, weights(weight)?);
        }
        Ok(())
    }

    fn store(&mut self, at: u32, made: Vec<Vec<u64>>) -> Result<(), RunError> {
        self.shelf.begin(at);
        for (field, mut values) in fields(self.program, at as usize).into_iter().zip(made) {
            // A party without words of its own has zeros.
            values.resize(field.len, 0);
            let mut bytes = Vec::with_capacity(packed_len(field.len, field.width));
            pack(&values, field.width, &mut bytes);
            self.shelf.append(&bytes)?;
        }
        Ok(())
    }
}

impl Source for TwoPartySource<'_> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Vec<u64> {
        Prg::new(self.seed.clone(), mask_stream(at)).ring(len, width)
    }

    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError> {
        // A store is authenticated, and a temporary file this process's own.
        let malformed = || RunError::File {
            path: std::env::temp_dir(),
            action: "read shares in",
            source: std::io::ErrorKind::InvalidData.into(),
        };
        self.shelf.fields(at, &fields(self.program, at as usize), malformed)
    }
}
