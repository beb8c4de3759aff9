//! Who knows what: where the values of a program come from and whom they reach.
//!
//! This is a second opinion on a program that a peer has shipped. It reads the bytes' meaning anew, by one rule per
//! instruction written from the protocols' definitions, and shares no code with [`crate::validate`], which asks whether
//! the program can be run at all. [`check`] holds
//!
//! - a clear value is computed where all of its operands are known;
//! - what is sent is masked afresh by its sender, with two exceptions: a reveal, which a declared output names together
//!   with its receiver, and the positions of movements, which are constants of both;
//! - an opened value is used by those alone to whom it was opened;
//! - a weight is a constant of the server, since its mask outlives a run;
//! - an output is known to its receiver, and what was revealed does not enter the ring again;
//! - outputs and inputs have names of their own that can be read: people consent by name.
//!
//! Masks are numbered by instruction and every instruction runs once, so no two openings share one, even where a
//! program opens one value twice.
//!
//! What follows from it: without an output to the server, all that the client sends is uniform whatever the program
//! computes. Whether the declared outputs are wanted is for [`Consent`] to say; [`Statement`] tells people.

mod consent;
mod error;
mod origins;
mod ranks;
mod rules;
mod statement;
mod text;

use crate::schema::Program;
use crate::value::{Owner, Target};

pub use consent::{Consent, Refusal};
pub use error::FlowError;
pub use rules::is_hidden;
pub use statement::{
    ClearWork, HeldInput, Layer, Openings, PartyStatement, PublicFacts, Rank, SeenOutput, Statement, Tensors,
};

/// How a value is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A tensor that somebody knows.
    Clear,
    /// Ring elements that somebody knows.
    Ring,
    /// A constant of the server that the client holds masked.
    Weight,
    /// Additive shares.
    Additive,
    /// Shares by exclusive or.
    Xor,
    /// Under a mask at the receivers.
    Masked(Target),
    /// Bits under masks at both.
    MaskedBits,
}

/// What a value may depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Inputs of the client.
    pub client_inputs: bool,
    /// Inputs of the server.
    pub server_inputs: bool,
    /// Inputs that both parties give.
    pub public_inputs: bool,
    /// Constants of the server.
    pub private_constants: bool,
    /// Values that were revealed.
    pub revealed: bool,
}

impl Sources {
    /// What a value of two others may depend on.
    pub fn join(self, other: Sources) -> Sources {
        Sources {
            client_inputs: self.client_inputs | other.client_inputs,
            server_inputs: self.server_inputs | other.server_inputs,
            public_inputs: self.public_inputs | other.public_inputs,
            private_constants: self.private_constants | other.private_constants,
            revealed: self.revealed | other.revealed,
        }
    }

    /// What makes a value differ from run to run, if anything does.
    fn changing(self) -> Option<&'static str> {
        match self {
            Sources { client_inputs: true, .. } => Some("an input of the client"),
            Sources { server_inputs: true, .. } => Some("an input of the server"),
            Sources { public_inputs: true, .. } => Some("a public input"),
            Sources { revealed: true, .. } => Some("a revealed value"),
            _ => None,
        }
    }
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// How it is held.
    pub held: Held,
    /// Who knows it in the clear; `None` for nobody. A weight is the server's.
    pub known_to: Option<Owner>,
    /// What it may depend on.
    pub sources: Sources,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.held, self.known_to) {
            (Held::Clear, Some(owner)) => write!(f, "a clear tensor of the {owner}"),
            (Held::Ring, Some(owner)) => write!(f, "ring elements of the {owner}"),
            (Held::Weight, _) => f.write_str("a weight"),
            (Held::Additive, _) => f.write_str("additive shares"),
            (Held::Xor, _) => f.write_str("shared bits"),
            (Held::Masked(to), _) => write!(f, "a value opened to {to} under a mask"),
            (Held::MaskedBits, _) => f.write_str("opened bits"),
            (_, None) => f.write_str("a value of nobody"),
        }
    }
}

/// Proof that a program's flow of information is sound: only [`check`] makes one.
#[derive(Clone, Debug)]
pub struct Flow {
    facts: Vec<Fact>,
    outputs: Vec<Target>,
}

impl Flow {
    /// What is known of every value.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The receiver of every declared output, in the program's order.
    pub fn receivers(&self) -> &[Target] {
        &self.outputs
    }
}

/// Follows every value of `program` from where it enters to whom it reaches.
///
/// # Errors
/// The first instruction or output that breaks a rule of this module.
pub fn check(program: &Program) -> Result<Flow, FlowError> {
    rules::trace(program)
}
