//! What a party computes from its own inputs, tried before anybody is called: a number that does not fit its ring, or an
//! index out of range, must not show in how far a run comes. Programs come from a peer, who could ask so.

use std::collections::BTreeMap;

use marill_plaintext::Tensor;
use marill_program::Form;
use marill_program::plan::{Batch, Plan, arguments};

use super::constants::Constants;
use super::{Executor, not_held};
use crate::correlation::Source;
use crate::correlation::shares::Shares;
use crate::error::RunError;
use crate::sharing::Party;

/// Correlations of a run in which nothing is shared.
struct Nothing;

impl Source for Nothing {
    fn mask(&self, _: u32, _: usize, _: u32) -> Vec<u64> {
        Vec::new()
    }

    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError> {
        Err(not_held(at, "correlations"))
    }
}

/// Evaluates every clear value that depends on inputs and constants alone.
///
/// # Errors
/// `BadInput` for a number that its ring does not hold; `BadProgram` for an operation that fails; of the bundle.
pub fn rehearse(
    party: Party,
    plan: &Plan,
    constants: &Constants<'_>,
    inputs: BTreeMap<String, Tensor>,
) -> Result<(), RunError> {
    let program = constants.program();
    let mut ready = vec![false; program.len()];
    plan.setup.iter().for_each(|&at| ready[at as usize] = true);
    let mut last_use: Vec<u32> = (0..program.len() as u32).collect();
    let mut own = Vec::new();
    for batch in &plan.online {
        let &Batch::Local(at) = batch else { continue };
        let arguments = arguments(program.instruction(at as usize));
        let clear = matches!(program.ty(at).form, Form::Plain { .. } | Form::Known { .. });
        if clear && arguments.iter().all(|&a| ready[a as usize]) {
            ready[at as usize] = true;
            arguments.iter().for_each(|&a| last_use[a as usize] = at);
            own.push(at);
        }
    }
    let mut nothing = Nothing;
    let mut executor = Executor::new(party, plan, constants, &mut nothing, None, None, inputs);
    for at in own {
        let value = executor.local(at)?;
        executor.values[at as usize] = Some(value);
        for a in arguments(program.instruction(at as usize)).into_iter().chain([at]) {
            if last_use[a as usize] == at {
                executor.values[a as usize] = None;
            }
        }
    }
    Ok(())
}
