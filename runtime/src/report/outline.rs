//! What people want to know of a program before they run it.

use marill_program::cost::{PhaseCost, cost};
use marill_program::{Instruction, Owner, Suite, Target, ValidProgram};
use serde::Serialize;

use super::hex;

/// An input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputOutline {
    /// Its name.
    pub name: String,
    /// `client`, `server` or `public`.
    pub owner: String,
    /// Type text such as `i64[1,16]`.
    #[serde(rename = "type")]
    pub ty: String,
}

/// A value that somebody learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevealOutline {
    /// The output's name.
    pub name: String,
    /// `client`, `server` or `both`.
    pub to: String,
    /// Type text.
    #[serde(rename = "type")]
    pub ty: String,
    /// Which value it is.
    pub value: u32,
    /// Whether shares are revealed; otherwise the receiver computes it from what it knows.
    pub revealed: bool,
}

/// A program in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outline {
    /// What it computes.
    pub name: String,
    /// Its digest in hexadecimal.
    pub digest: String,
    /// Sizes bound to symbolic dimensions.
    pub dims: std::collections::BTreeMap<String, u64>,
    /// Number of instructions.
    pub instructions: u64,
    /// Every input.
    pub inputs: Vec<InputOutline>,
    /// Every output with its receiver. Validation holds that these are all the reveals.
    pub outputs: Vec<RevealOutline>,
    /// Who makes the correlations.
    pub suite: Suite,
    /// Cost of the setup.
    pub setup: PhaseCost,
    /// Cost of preprocessing.
    pub preprocess: PhaseCost,
    /// Cost of the online phase.
    pub online: PhaseCost,
}

impl Outline {
    /// Of a program whose file has `program_bytes`.
    pub fn new(program: &ValidProgram, program_bytes: u64, suite: Suite) -> Outline {
        let whole = program.program();
        let mut inputs = Vec::new();
        for at in 0..program.len() {
            if let Instruction::Input(input) = program.instruction(at) {
                let owner = Owner::try_from(input.owner).unwrap_or(Owner::Public).to_string();
                inputs.push(InputOutline { name: input.name.clone(), owner, ty: input.ty.clone() });
            }
        }
        let outputs = whole.outputs.iter().map(|output| RevealOutline {
            name: output.name.clone(),
            to: Target::try_from(output.to).unwrap_or(Target::Both).to_string(),
            ty: program.ty(output.value).to_string(),
            value: output.value,
            revealed: matches!(program.instruction(output.value as usize), Instruction::Reveal(_)),
        });
        let cost = cost(program, program_bytes, suite);
        Outline {
            name: whole.name.clone(),
            digest: hex(&program.digest()),
            dims: whole.dims.iter().map(|dim| (dim.name.clone(), dim.size)).collect(),
            instructions: program.len() as u64,
            inputs,
            outputs: outputs.collect(),
            suite,
            setup: cost.setup,
            preprocess: cost.preprocess,
            online: cost.online,
        }
    }
}
