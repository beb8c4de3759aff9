//! Walks a plan: local work, rounds of openings, and the memory of values.
//!
//! Everything here is one party's side. The protocols decide nothing about when they run; the executor decides nothing
//! about how values are shared.

pub mod constants;
mod encode;
mod local;
pub mod published;
mod rehearse;
mod round;
mod value;
pub mod weights;

use std::collections::BTreeMap;
use std::time::Duration;

use marill_plaintext::{OpError, Tensor};
use marill_program::correlation::own_mask_needed;
use marill_program::plan::{Batch, Plan, arguments};
use marill_program::{Instruction, ValidProgram};

use crate::bundle::check_type;
use crate::correlation::Correlations;
use crate::error::{InputFault, RunError};
use crate::sharing::Party;
use crate::transport::Channel;
use constants::Constants;
use value::Value;

pub use rehearse::{Rehearsed, rehearse};

/// A value that the instruction needs is not held in the form it needs, which validation rules out.
#[derive(Debug, thiserror::Error)]
#[error("instruction {at} needs {needs}, which this party does not hold")]
struct NotHeld {
    at: u32,
    needs: &'static str,
}

fn not_held(at: u32, needs: &'static str) -> RunError {
    RunError::BadProgram { reason: Box::new(NotHeld { at, needs }) }
}

/// A tensor operation of an instruction that failed, such as an index out of range.
#[derive(Debug, thiserror::Error)]
#[error("instruction {at}: {source}")]
struct FailedOp {
    at: u32,
    source: OpError,
}

fn failed(at: u32) -> impl Fn(OpError) -> RunError {
    move |source| RunError::BadProgram { reason: Box::new(FailedOp { at, source }) }
}

/// One party's online phase.
pub struct Executor<'a> {
    party: Party,
    program: &'a ValidProgram,
    plan: &'a Plan,
    constants: &'a Constants<'a>,
    correlations: &'a dyn Correlations,
    inputs: BTreeMap<String, Tensor>,
    values: Vec<Option<Value>>,
    /// Instructions that ran before.
    done: Vec<bool>,
    /// As [`own_mask_needed`] says.
    own_mask_needed: Vec<bool>,
    plaintext: Duration,
}

impl<'a> Executor<'a> {
    /// Ready to run on `inputs`, which [`check_inputs`] has checked, from what was computed of them already.
    pub fn new(
        party: Party,
        plan: &'a Plan,
        constants: &'a Constants<'a>,
        correlations: &'a dyn Correlations,
        inputs: BTreeMap<String, Tensor>,
        rehearsed: Rehearsed,
    ) -> Executor<'a> {
        let program = constants.program();
        let Rehearsed { mut values, mut done, plaintext } = rehearsed;
        values.resize_with(program.len(), || None);
        done.resize(program.len(), false);
        let own_mask_needed = own_mask_needed(program);
        Executor {
            party,
            program,
            plan,
            constants,
            correlations,
            inputs,
            values,
            done,
            own_mask_needed,
            plaintext,
        }
    }

    /// Runs every batch with the other party, and returns the outputs that this party learns, by name, and the time
    /// that `Plain` instructions took. `progress` hears how many rounds are done.
    ///
    /// # Errors
    /// Of the channel and the stores; `BadInput` for a number that its ring does not hold; `BadProgram` for an
    /// operation that fails.
    pub fn run(
        mut self,
        peer: &mut Channel,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(BTreeMap<String, Tensor>, Duration), RunError> {
        let mut rounds = 0;
        for batch in &self.plan.online {
            match batch {
                Batch::Local(at) => {
                    if !self.done[*at as usize] {
                        let value = self.local(*at)?;
                        self.values[*at as usize] = Some(value);
                    }
                    self.release(*at);
                }
                Batch::Round(opens) => {
                    self.correlations.check()?;
                    self.round(opens, peer)?;
                    opens.iter().for_each(|&at| self.release(at));
                    rounds += 1;
                    progress(rounds);
                }
            }
        }
        self.correlations.check()?;
        Ok((self.outputs()?, self.plaintext))
    }

    /// Frees what instruction `at` was the last to use.
    fn release(&mut self, at: u32) {
        for argument in arguments(self.program.instruction(at as usize)) {
            if self.plan.last_use[argument as usize] == at {
                self.values[argument as usize] = None;
            }
        }
        if self.plan.last_use[at as usize] == at {
            self.values[at as usize] = None;
        }
    }

    fn outputs(&self) -> Result<BTreeMap<String, Tensor>, RunError> {
        let mut outputs = BTreeMap::new();
        for output in &self.program.program().outputs {
            if let Some(tensor) = self.plain(output.value)? {
                let to = marill_program::Target::try_from(output.to).unwrap_or(marill_program::Target::Both);
                let mine = match self.party {
                    Party::Client => to.includes_client(),
                    Party::Server => to.includes_server(),
                };
                if mine {
                    outputs.insert(output.name.clone(), tensor);
                }
            }
        }
        Ok(outputs)
    }
}

/// Compares a party's inputs with those that the program asks of it.
///
/// # Errors
/// `BadInput` for one that is missing, unknown, the other party's or of another type.
pub fn check_inputs(
    program: &ValidProgram,
    party: Party,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<(), RunError> {
    let mut known = Vec::new();
    for at in 0..program.len() {
        let Instruction::Input(input) = program.instruction(at) else { continue };
        let owner = marill_program::Owner::try_from(input.owner).unwrap_or(marill_program::Owner::Public);
        if !party.knows(owner) {
            if inputs.contains_key(&input.name) {
                let reason = InputFault::OfOther { owner: party.peer().role(), given_by: party.role() };
                return Err(RunError::BadInput { name: input.name.clone(), reason });
            }
            continue;
        }
        known.push(input.name.clone());
        let missing = || RunError::BadInput { name: input.name.clone(), reason: InputFault::Missing };
        let tensor = inputs.get(&input.name).ok_or_else(missing)?;
        let wanted = input.ty.parse().map_err(|error: OpError| failed(at as u32)(error))?;
        check_type(&input.name, &wanted, tensor.dtype().name().to_owned(), tensor.dtype(), tensor.shape())?;
    }
    match inputs.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(RunError::BadInput { name: name.clone(), reason: InputFault::Unknown { known } }),
        None => Ok(()),
    }
}
