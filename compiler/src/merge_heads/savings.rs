//! What merged heads save: both models compiled, with every weight private.

use std::path::Path;

use marill_program::Suite;
use marill_program::cost::{self, Bytes};
use serde::Serialize;

use crate::{Compiled, Diagnostic, Request, compile};

/// What a run of one model takes with the request's suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunCost {
    /// Bytes online, on all links.
    pub online_bytes: u64,
    /// Exchanges online.
    pub rounds: u64,
    /// Bytes of preprocessing, on all links.
    pub preprocess_bytes: u64,
    /// Those of the bytes online that softmax takes, headers aside.
    pub softmax_online_bytes: u64,
    /// Those of the bytes of preprocessing that softmax takes, headers aside.
    pub softmax_preprocess_bytes: u64,
}

/// Compiles the model at `path` at default settings, for inputs of `request`.
///
/// # Errors
/// As [`compile`].
pub fn run_cost(path: &Path, request: &Request) -> Result<RunCost, Diagnostic> {
    Ok(cost_of(&compile(path, request)?, request.suite))
}

fn cost_of(compiled: &Compiled, suite: Suite) -> RunCost {
    let program = &compiled.program;
    let cost = cost::cost(program, program.encode().len() as u64, suite);
    let groups = &program.program().groups;
    let is_softmax = |at: usize| {
        let group = program.program().instructions[at].group as usize;
        groups.get(group).is_some_and(|name| name.split(' ').next().is_some_and(|op| op.contains("softmax")))
    };
    let softmax = |bytes: &dyn Fn(usize) -> Bytes| -> u64 {
        (0..cost.instructions.len()).filter(|&at| is_softmax(at)).map(|at| bytes(at).total()).sum()
    };
    RunCost {
        online_bytes: cost.online.bytes.total(),
        rounds: cost.online.rounds,
        preprocess_bytes: cost.preprocess.bytes.total(),
        softmax_online_bytes: softmax(&|at| cost.instructions[at].online),
        softmax_preprocess_bytes: softmax(&|at| cost.instructions[at].preprocess),
    }
}
