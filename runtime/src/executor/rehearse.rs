//! What a party computes from its own inputs, computed before anybody is called: a number that does not fit its ring, or
//! an index out of range, must not show in how far a run comes. Programs come from a peer, who could ask so.

use std::collections::BTreeMap;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::Form;
use marill_program::plan::{Batch, Plan, arguments};

use super::constants::Constants;
use super::value::Value;
use super::{Executor, not_held};
use crate::correlation::Correlations;
use crate::correlation::shares::Shares;
use crate::error::RunError;
use crate::sharing::Party;

/// Correlations of a run in which nothing is shared.
struct Nothing;

impl Correlations for Nothing {
    fn mask(&self, _: u32, _: usize, _: u32) -> Shares {
        Shares::values(Vec::new())
    }

    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError> {
        Err(not_held(at, "correlations"))
    }

    fn derived(&self, at: u32, _: usize) -> Result<Option<Shares>, RunError> {
        Err(not_held(at, "correlations"))
    }

    fn prepared(&self, at: u32, _: usize) -> Result<Option<Shares>, RunError> {
        Err(not_held(at, "correlations"))
    }

    fn check(&self) -> Result<(), RunError> {
        Ok(())
    }
}

/// What a party has computed before a run.
#[derive(Default)]
pub struct Rehearsed {
    pub(super) values: Vec<Option<Value>>,
    /// Instructions that need not run again, by number; empty if there are none.
    pub(super) done: Vec<bool>,
    pub(super) plaintext: Duration,
}

/// Evaluates every clear value that depends on inputs and constants alone, and keeps those that a run needs.
///
/// # Errors
/// `BadInput` for a number that its ring does not hold; `BadProgram` for an operation that fails; of the bundle.
pub fn rehearse(
    party: Party,
    plan: &Plan,
    constants: &Constants<'_>,
    inputs: BTreeMap<String, Tensor>,
) -> Result<Rehearsed, RunError> {
    let program = constants.program();
    let mut ready = vec![false; program.len()];
    plan.setup.iter().for_each(|&at| ready[at as usize] = true);
    let mut done = vec![false; program.len()];
    let mut own = Vec::new();
    for batch in &plan.online {
        let &Batch::Local(at) = batch else { continue };
        let arguments = arguments(program.instruction(at as usize));
        let clear = matches!(program.ty(at).form, Form::Plain { .. } | Form::Known { .. });
        if clear && arguments.iter().all(|&a| ready[a as usize]) {
            ready[at as usize] = true;
            done[at as usize] = true;
            own.push(at);
        }
    }
    // What a run does not use is freed after its last use here: openings come before their place in the plan.
    let mut last_use = vec![None; program.len()];
    own.iter().for_each(|&at| {
        arguments(program.instruction(at as usize))
            .iter()
            .chain([&at])
            .for_each(|&a| last_use[a as usize] = Some(at));
    });
    for at in (0..program.len()).filter(|&at| !done[at]) {
        arguments(program.instruction(at)).iter().for_each(|&a| last_use[a as usize] = None);
    }
    program.program().outputs.iter().for_each(|output| last_use[output.value as usize] = None);
    let mut executor = Executor::new(party, plan, constants, &Nothing, inputs, Rehearsed::default());
    for at in own {
        let value = executor.local(at)?;
        executor.values[at as usize] = Some(value);
        for a in arguments(program.instruction(at as usize)).into_iter().chain([at]) {
            if last_use[a as usize] == Some(at) {
                executor.values[a as usize] = None;
            }
        }
    }
    Ok(Rehearsed { values: executor.values, done, plaintext: executor.plaintext })
}
