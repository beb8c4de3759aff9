//! What a party has agreed to, by name.
//!
//! A sound program may still declare the prompt as an output to the server. So a party runs a program only where the
//! other one learns nothing, or what it has allowed by name.

use std::collections::BTreeSet;

use serde::Serialize;

use super::origins::{ancestors, inputs_among, inputs_of, revealed_bits};
use super::{Flow, Sources};
use crate::validate::ValidProgram;
use crate::value::{Owner, Target};

/// What a party allows; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Consent {
    /// Outputs that the other party may learn.
    pub outputs: BTreeSet<String>,
    /// Inputs that the other party knows as well.
    pub public_inputs: BTreeSet<String>,
}

/// Something that a party has not agreed to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An output that the server learns.
    #[error(
        "output '{name}' goes to {to}: the server would learn up to {bits} bits that depend on {}; \
         --allow-reveal {name} allows it", list(.depends_on)
    )]
    OutputToServer {
        name: String,
        to: Target,
        /// Bits that travel to the server, at most.
        bits: u64,
        /// The client's and public inputs that it may depend on.
        depends_on: Vec<String>,
    },
    /// An input that the program takes from both parties.
    #[error(
        "input '{name}' is public: the program takes it from the server as well, as if it were no secret of the \
         client; --allow-public {name} allows it"
    )]
    PublicInput { name: String },
    /// An output to the client that no input of the client goes into.
    #[error(
        "output '{name}' goes to {to} and depends on {depends_on} and on no input of the client: it is the \
         server's own; --allow-reveal {name} allows it"
    )]
    OwnOutput { name: String, to: Target, depends_on: &'static str },
    /// A name that the program does not have.
    #[error("the program has no {what} '{name}' to allow, it has {}", list(.known))]
    NoSuchName { what: &'static str, name: String, known: Vec<String> },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Consent {
    /// Whether the client, who allows this, runs a program: the server may learn the named outputs and nothing else,
    /// and public inputs are those that are named.
    ///
    /// # Errors
    /// The first thing that is not allowed, and a name that means nothing.
    pub fn of_client(&self, program: &ValidProgram, flow: &Flow) -> Result<(), Refusal> {
        self.check_names(program)?;
        for input in inputs_of(program, |owner| owner == Owner::Public) {
            if !self.public_inputs.contains(&input) {
                return Err(Refusal::PublicInput { name: input });
            }
        }
        for (output, &to) in program.program().outputs.iter().zip(flow.receivers()) {
            if to == Target::Client || self.outputs.contains(&output.name) {
                continue;
            }
            let asked = inputs_of(program, |owner| owner != Owner::Server);
            let made_from = ancestors(program, output.value);
            let mut depends_on = inputs_among(program, &made_from);
            depends_on.retain(|name| asked.contains(name));
            let bits = revealed_bits(program, &made_from);
            return Err(Refusal::OutputToServer { name: output.name.clone(), to, bits, depends_on });
        }
        Ok(())
    }

    /// Whether the server, who allows this, runs a program: what the client learns depends on an input of the client,
    /// or it is named. Whether it could be told from the output what the weights are is not for a program to say.
    ///
    /// # Errors
    /// The first thing that is not allowed, and a name that means nothing.
    pub fn of_server(&self, program: &ValidProgram, flow: &Flow) -> Result<(), Refusal> {
        self.check_names(program)?;
        for (output, &to) in program.program().outputs.iter().zip(flow.receivers()) {
            if to == Target::Server || self.outputs.contains(&output.name) {
                continue;
            }
            let depends_on = match flow.facts().get(output.value as usize).map(|fact| fact.sources) {
                Some(Sources { client_inputs: false, public_inputs: false, server_inputs: true, .. }) => {
                    "inputs of the server"
                }
                Some(Sources {
                    client_inputs: false, public_inputs: false, private_constants: true, ..
                }) => "private constants",
                _ => continue,
            };
            return Err(Refusal::OwnOutput { name: output.name.clone(), to, depends_on });
        }
        Ok(())
    }

    /// The least that the client must allow to run a program.
    pub fn needed_by_client(program: &ValidProgram, flow: &Flow) -> Consent {
        Consent::grown(|consent| consent.of_client(program, flow))
    }

    /// The least that the server must allow to run a program.
    pub fn needed_by_server(program: &ValidProgram, flow: &Flow) -> Consent {
        Consent::grown(|consent| consent.of_server(program, flow))
    }

    fn grown(agrees: impl Fn(&Consent) -> Result<(), Refusal>) -> Consent {
        let mut consent = Consent::default();
        loop {
            let is_new = match agrees(&consent) {
                Err(Refusal::OutputToServer { name, .. } | Refusal::OwnOutput { name, .. }) => {
                    consent.outputs.insert(name)
                }
                Err(Refusal::PublicInput { name }) => consent.public_inputs.insert(name),
                Ok(()) | Err(Refusal::NoSuchName { .. }) => false,
            };
            if !is_new {
                return consent;
            }
        }
    }

    /// The words of a command line that allow this.
    pub fn words(&self) -> Vec<String> {
        let all = [("--allow-reveal", &self.outputs), ("--allow-public", &self.public_inputs)];
        all.iter()
            .flat_map(|(option, names)| names.iter().flat_map(|name| [option.to_string(), name.clone()]))
            .collect()
    }

    fn check_names(&self, program: &ValidProgram) -> Result<(), Refusal> {
        let outputs: Vec<String> =
            program.program().outputs.iter().map(|output| output.name.clone()).collect();
        let public = inputs_of(program, |owner| owner == Owner::Public);
        let all = [("output", &self.outputs, outputs), ("public input", &self.public_inputs, public)];
        for (what, allowed, known) in all {
            if let Some(name) = allowed.iter().find(|name| !known.contains(name)) {
                return Err(Refusal::NoSuchName { what, name: name.clone(), known });
            }
        }
        Ok(())
    }
}
