//! What two parties do not take on: programs come from a peer.

use super::products::{Method, by_gates, method};
use crate::correlation::fields;
use crate::schema::Instruction;
use crate::validate::ValidProgram;

/// Numbers of one instruction's fields that gates make, at most: they are all in memory at once.
pub const INSTRUCTION_NUMBERS: usize = 1 << 28;

/// An instruction whose correlations two parties do not make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More than fits in memory.
    #[error(
        "instruction {at} needs {found} numbers of correlations at once and two parties make {limit}; a dealer streams \
         them, with --suite dealer"
    )]
    Numbers { at: usize, found: usize, limit: usize },
    /// No modulus holds the product and what hides its factors.
    #[error(
        "the product of instruction {at} is too large to be encrypted; a dealer makes it, with --suite dealer"
    )]
    Product { at: usize },
}

/// Makes sure that two parties can make the correlations of `program`.
///
/// # Errors
/// The first instruction for which they cannot.
pub fn check(program: &ValidProgram) -> Result<(), LimitError> {
    for at in 0..program.len() {
        let hidden = match method(program, at as u32) {
            Some(Method::Wide { shape, rows }) => shape.hides(rows),
            Some(Method::Pairs(shape)) => shape.hides(),
            _ => true,
        };
        if !hidden {
            return Err(LimitError::Product { at });
        }
        let found = numbers(program, at);
        if by_gates(program, at as u32) && found > INSTRUCTION_NUMBERS {
            return Err(LimitError::Numbers { at, found, limit: INSTRUCTION_NUMBERS });
        }
    }
    Ok(())
}

/// Numbers of an instruction's fields. A unit vector is made of planes of whole words.
fn numbers(program: &ValidProgram, at: usize) -> usize {
    if let Instruction::OneHot(o) = program.instruction(at) {
        let ty = program.ty(o.arg);
        return ty.len().next_multiple_of(64).saturating_mul(1 << ty.width().unwrap_or(64).min(40));
    }
    fields(program, at).iter().map(|field| field.len).sum()
}
