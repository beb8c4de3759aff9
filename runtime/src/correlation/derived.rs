//! A party's masks of what products of masked values with public matrices make, computed before the inputs are known.

use std::collections::{BTreeMap, BTreeSet};

use marill_plaintext::Tensor;
use marill_program::correlation::{mask_matrix, own_mask_needed};
use marill_program::plan::arguments;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::Source;
use super::filling::Filling;
use super::masks::{Masks, Matrices};
use crate::error::RunError;

/// Openings whose masks are multiplied or truncated later on, and the values between.
pub fn sources(program: &ValidProgram) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for at in (0..program.len() as u32).rev() {
        let is_masked = matches!(program.ty(at).form, Form::Masked { to: Target::Both, .. });
        let instruction = program.instruction(at as usize);
        let is_derived = matches!(instruction, Instruction::MatMul(_) | Instruction::Truncate(_));
        if is_masked && (is_derived || found.contains(&at)) && !matches!(instruction, Instruction::Open(_)) {
            found.extend(arguments(instruction));
        }
    }
    found
}

/// The masks `r C`, by instruction, of those that a party needs itself.
pub struct Derived {
    made: Filling,
}

impl Derived {
    /// Before any is computed.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<Derived, RunError> {
        Ok(Derived { made: Filling::new()? })
    }

    /// Computes them all, for who may wait for them.
    ///
    /// # Errors
    /// Of the temporary file and of the bundle.
    pub fn make(
        &self,
        program: &ValidProgram,
        indices: &BTreeMap<u32, Tensor>,
        matrices: &dyn Matrices,
        source: &dyn Source,
    ) -> Result<(), RunError> {
        let needed = own_mask_needed(program);
        let of_interest = sources(program);
        let mut masks = Masks::new(program, indices, Some(matrices));
        for at in 0..program.len() as u32 {
            let ty = program.ty(at);
            masks.pass(at, || {
                let is_needed = of_interest.contains(&at) && needed[at as usize];
                let width = ty.width().unwrap_or(64);
                is_needed.then(|| Ring::new(ty.shape.clone(), source.mask(at, ty.len(), width).into_values()))
            })?;
            if let (Some(_), Some(mask)) = (mask_matrix(program, at as usize), masks.get(at)) {
                self.made.put(at, mask.data.iter().copied())?;
            }
            self.made.pass(at);
        }
        self.made.end();
        Ok(())
    }

    /// The masks of the values that instructions make, where they are needed.
    pub fn made(&self) -> &Filling {
        &self.made
    }
}
