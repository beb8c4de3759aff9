//! A party's masks of what products of masked values with public matrices make, computed before the inputs are known.

use std::collections::{BTreeMap, BTreeSet};

use marill_plaintext::Tensor;
use marill_program::correlation::{mask_matrix, own_mask_needed};
use marill_program::plan::arguments;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::Source;
use super::masks::{Masks, Matrices};
use super::shares::Shares;
use super::shelf::Shelf;
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
    shelf: Shelf,
}

impl Derived {
    /// Computes them all.
    ///
    /// # Errors
    /// Of the temporary file and of the bundle.
    pub fn new(
        program: &ValidProgram,
        indices: &BTreeMap<u32, Tensor>,
        matrices: &dyn Matrices,
        source: &dyn Source,
    ) -> Result<Derived, RunError> {
        let mut shelf = Shelf::new()?;
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
                shelf.put(at, mask.data.iter().copied())?;
            }
        }
        Ok(Derived { shelf })
    }

    /// The mask of the `len` values that instruction `at` makes, if it is needed.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn get(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        if self.shelf.lacks(at) { Ok(None) } else { self.shelf.numbers(at, len).map(Some) }
    }

    /// As [`Shelf::check`].
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn check(&self) -> Result<(), RunError> {
        self.shelf.check()
    }
}
