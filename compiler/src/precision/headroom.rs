//! Checks the public bounds on sample inputs: the program's exact arithmetic in the clear, where the weights are.
//!
//! What is found here stays with the server: it depends on private weights. Only whether compilation succeeds, and
//! the bits that the user then asks for, are public.

use std::collections::BTreeMap;

use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use marill_program::interpret::{InterpretError, interpret};
use serde::Serialize;

use crate::bundle;
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::Graph;
use crate::lower::Lowered;

/// How close a group's opened values came to the bounds of their rings.
#[derive(Clone, Debug, Serialize)]
pub struct GroupHeadroom {
    /// The graph node's operation and name.
    pub group: String,
    /// Ring bits of the tightest opening.
    pub width_bits: u32,
    /// Largest magnitude seen there.
    pub max_abs: f64,
    /// Bits left below the bound; negative where the samples went beyond it.
    pub spare_bits: f64,
}

/// What the samples showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Check {
    /// The tightest opening of each group, in program order.
    pub headroom: Vec<GroupHeadroom>,
    /// Outputs of the exact ring arithmetic, per sample.
    #[serde(skip)]
    pub outputs: Vec<BTreeMap<String, Tensor>>,
}

/// Runs `program` on each sample, with the constants of `lowered`.
///
/// # Errors
/// A sample that does not fit the program's inputs.
pub fn check(
    graph: &Graph,
    lowered: &Lowered,
    program: &ValidProgram,
    samples: &[BTreeMap<String, Tensor>],
) -> Result<Check, InterpretError> {
    let constants: BTreeMap<&str, _> = lowered.constants.iter().map(|c| (c.name.as_str(), c)).collect();
    check_with(program, samples, &mut |name| match constants.get(name) {
        Some(constant) => bundle::load(graph, constant).map_err(|e| e.to_string()),
        None => Err("it is not in the bundle".to_owned()),
    })
}

/// Runs `program` on each sample, with constants from `constant`.
///
/// # Errors
/// A sample that does not fit the program's inputs, or a constant that cannot be had.
pub fn check_with(
    program: &ValidProgram,
    samples: &[BTreeMap<String, Tensor>],
    constant: &mut dyn FnMut(&str) -> Result<Tensor, String>,
) -> Result<Check, InterpretError> {
    let mut result = Check::default();
    let mut tightest: BTreeMap<u32, GroupHeadroom> = BTreeMap::new();
    for sample in samples {
        let run = interpret(program, sample, constant)?;
        for opening in run.headroom {
            let step = &program.program().instructions[opening.at as usize];
            let group = program.program().groups.get(step.group as usize).cloned().unwrap_or_default();
            let (width_bits, max_abs, spare_bits) = (opening.width, opening.max_abs, opening.spare_bits);
            let found = GroupHeadroom { group, width_bits, max_abs, spare_bits };
            let entry = tightest.entry(step.group).or_insert_with(|| found.clone());
            if spare_bits < entry.spare_bits {
                *entry = found;
            }
        }
        result.outputs.push(run.outputs);
    }
    result.headroom = tightest.into_values().collect();
    Ok(result)
}

/// Bits of headroom that the carries of a run may use up.
const CARRY_BITS: f64 = 0.01;

/// A value beyond the bounds of its ring.
#[derive(Clone, Debug, PartialEq)]
pub struct Overflow {
    /// The graph node's operation and name.
    pub group: String,
    /// Its largest magnitude.
    pub found: f64,
    /// The largest magnitude that is computed right.
    pub allowed: f64,
}

impl Overflow {
    /// Bits by which the value is too large.
    pub fn bits(&self) -> f64 {
        (self.found / self.allowed).log2()
    }
}

impl From<Overflow> for Diagnostic {
    fn from(overflow: Overflow) -> Diagnostic {
        let Overflow { group, found, allowed } = overflow;
        Diagnostic::new(group, Problem::Headroom { found, allowed })
    }
}

/// The first group without headroom.
pub fn first_overflow(check: &Check) -> Option<Overflow> {
    let tight = check.headroom.iter().find(|g| g.spare_bits < CARRY_BITS)?;
    let allowed = tight.max_abs * tight.spare_bits.exp2();
    Some(Overflow { group: tight.group.clone(), found: tight.max_abs, allowed })
}

/// The value that a sample's clear part did not fit into its ring, if that is why the interpretation stopped.
pub fn overflow_of(error: &InterpretError, program: &ValidProgram) -> Option<Overflow> {
    let InterpretError::OutOfRing { at, value, width, frac } = *error else { return None };
    let step = program.program().instructions.get(at)?;
    let group = program.program().groups.get(step.group as usize).cloned().unwrap_or_default();
    let allowed = (f64::from(width) - 1.0 - f64::from(frac)).exp2();
    value.is_finite().then(|| Overflow { group, found: value.abs(), allowed })
}
