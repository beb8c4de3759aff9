//! What a party makes sure of alone, before it sends a byte: that the program tells nobody anything undeclared, that it
//! agrees to what is declared, and that its inputs are such as the program takes.

use std::collections::BTreeMap;

use marill_plaintext::Tensor;
use marill_program::flow::{Flow, check};
use marill_program::plan::Plan;
use marill_program::{Instruction, Owner, ValidProgram};

use crate::bundle::Bundle;
use crate::error::RunError;
use crate::executor::constants::Constants;
use crate::executor::{check_inputs, rehearse};
use crate::sharing::Party;

/// Follows who knows what in a program.
///
/// # Errors
/// `BadProgram`.
pub fn trace(program: &ValidProgram) -> Result<Flow, RunError> {
    check(program.program()).map_err(|error| RunError::BadProgram { reason: Box::new(error) })
}

/// Whether a party agrees to run its program.
///
/// # Errors
/// `BadProgram` for one whose flow of information is not sound, `Refused` for one that tells what is not allowed.
pub fn consents(bundle: &Bundle, party: Party) -> Result<(), RunError> {
    let program = bundle.program();
    let (flow, consent) = (trace(program)?, bundle.consent());
    let agreed = match party {
        Party::Client => consent.of_client(program, &flow),
        Party::Server => consent.of_server(program, &flow),
    };
    agreed.map_err(|reason| RunError::Refused { party: party.role(), reason })
}

/// Whether a party runs its program on these inputs; what it computes from them alone is tried.
///
/// # Errors
/// As [`consents`]; `BadInput` for an input that is missing, unknown, of another type or out of range; `BadProgram` for
/// an operation that fails.
pub fn admit(bundle: &Bundle, party: Party, inputs: &BTreeMap<String, Tensor>) -> Result<(), RunError> {
    consents(bundle, party)?;
    let program = bundle.program();
    check_inputs(program, party, inputs)?;
    let gives = |at: usize| match program.instruction(at) {
        Instruction::Input(input) => Owner::try_from(input.owner).is_ok_and(|owner| party.knows(owner)),
        _ => false,
    };
    if !(0..program.len()).any(gives) {
        return Ok(());
    }
    let plan = Plan::new(program);
    let constants = Constants::new(bundle, &plan, party)?;
    rehearse(party, &plan, &constants, inputs.clone())
}
