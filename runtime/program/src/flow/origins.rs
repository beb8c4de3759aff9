//! What a value is made from.

use crate::plan::arguments;
use crate::schema::Instruction;
use crate::validate::ValidProgram;
use crate::value::Owner;

/// The values that `value` may depend on, itself included, in the program's order.
pub(super) fn ancestors(program: &ValidProgram, value: u32) -> Vec<u32> {
    let mut needed = vec![false; value as usize + 1];
    needed[value as usize] = true;
    for at in (0..needed.len()).rev().filter(|&at| at < program.len()) {
        if needed[at] {
            arguments(program.instruction(at)).into_iter().for_each(|a| needed[a as usize] = true);
        }
    }
    (0..=value).filter(|&at| needed[at as usize]).collect()
}

/// Names of the inputs among `values`.
pub(super) fn inputs_among(program: &ValidProgram, values: &[u32]) -> Vec<String> {
    let name = |&at: &u32| match program.instruction(at as usize) {
        Instruction::Input(input) => Some(input.name.clone()),
        _ => None,
    };
    values.iter().filter_map(name).collect()
}

/// Names of the inputs of some owners.
pub(super) fn inputs_of(program: &ValidProgram, wanted: impl Fn(Owner) -> bool) -> Vec<String> {
    let name = |at: usize| match program.instruction(at) {
        Instruction::Input(i) if Owner::try_from(i.owner).is_ok_and(&wanted) => Some(i.name.clone()),
        _ => None,
    };
    (0..program.len()).filter_map(name).collect()
}

/// Bits of the reveals among `values`: nobody learns more than that from what depends on them.
pub(super) fn revealed_bits(program: &ValidProgram, values: &[u32]) -> u64 {
    let bits = |&at: &u32| match program.instruction(at as usize) {
        Instruction::Reveal(r) => {
            let source = program.ty(r.arg);
            source.len() as u64 * u64::from(source.width().unwrap_or(64))
        }
        _ => 0,
    };
    values.iter().map(bits).sum()
}
