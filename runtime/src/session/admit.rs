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
use crate::executor::{Rehearsed, check_inputs, rehearse};
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

/// A party that is ready to call others: it agrees to its program, and has computed what needs nobody else.
pub struct Admitted<'b> {
    pub(super) party: Party,
    pub(super) bundle: &'b Bundle,
    pub(super) plan: Plan,
    pub(super) constants: Constants<'b>,
    pub(super) inputs: BTreeMap<String, Tensor>,
    pub(super) rehearsed: Rehearsed,
}

/// Whether a party runs its program on these inputs; what it computes from them alone is computed.
///
/// # Errors
/// As [`consents`]; `BadInput` for an input that is missing, unknown, of another type or out of range; `BadProgram` for
/// an operation that fails.
pub fn admit(
    bundle: &Bundle,
    party: Party,
    inputs: BTreeMap<String, Tensor>,
) -> Result<Admitted<'_>, RunError> {
    consents(bundle, party)?;
    let program = bundle.program();
    check_inputs(program, party, &inputs)?;
    let gives = |at: usize| match program.instruction(at) {
        Instruction::Input(input) => Owner::try_from(input.owner).is_ok_and(|owner| party.knows(owner)),
        _ => false,
    };
    let plan = Plan::new(program);
    let constants = Constants::new(bundle, &plan, party)?;
    let rehearsed = if (0..program.len()).any(gives) {
        rehearse(party, &plan, &constants, inputs.clone())?
    } else {
        Rehearsed::default()
    };
    Ok(Admitted { party, bundle, plan, constants, inputs, rehearsed })
}
