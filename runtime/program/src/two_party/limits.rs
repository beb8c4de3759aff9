//! What two parties do not take on: programs come from a peer.

use super::products::{Method, by_gates, method};
use crate::correlation::fields;
use crate::validate::ValidProgram;

/// Numbers of one instruction's fields that gates make, at most: they are all in memory at once.
pub const INSTRUCTION_NUMBERS: usize = 1 << 28;

/// An instruction whose correlations two parties do not make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More than fits in memory.
    #[error(
        "instruction {at} needs {found} numbers of correlations at once and two parties make {limit}; a dealer streams \
         them, with --suite dealer"
    )]
    Numbers { at: usize, found: usize, limit: usize },
    /// No modulus holds the product and what hides its factors.
    #[error(
        "the product of instruction {at} is too large to be encrypted; a dealer makes it, with --suite dealer"
    )]
    Product { at: usize },
}

/// Makes sure that two parties can make the correlations of `program`.
///
/// # Errors
/// The first instruction for which they cannot.
pub fn check(program: &ValidProgram) -> Result<(), LimitError> {
    for at in 0..program.len() {
        let hidden = match method(program, at as u32) {
            Some(Method::Wide { shape, rows }) => shape.hides(rows),
            Some(Method::Pairs(shape)) => shape.hides(),
            _ => true,
        };
        if !hidden {
            return Err(LimitError::Product { at });
        }
        let found = fields(program, at).iter().map(|field| field.len).sum();
        if by_gates(program, at as u32) && found > INSTRUCTION_NUMBERS {
            return Err(LimitError::Numbers { at, found, limit: INSTRUCTION_NUMBERS });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Encode, Input, Instruction, OneHot, Open, Product, Program, Step, VERSION};
    use crate::value::{Owner, Target};

    /// A program that opens inputs of these types to both, and then does `last`.
    fn program(inputs: &[&str], width: u32, last: Instruction) -> ValidProgram {
        let mut instructions = Vec::new();
        let mut push = |instruction| instructions.push(Step { instruction: Some(instruction), group: 0 });
        for (at, ty) in inputs.iter().enumerate() {
            let input = Input { name: format!("x{at}"), owner: Owner::Client as i32, ty: (*ty).to_owned() };
            push(Instruction::Input(input));
            push(Instruction::Encode(Encode { arg: 3 * at as u32, width, frac: 0 }));
            push(Instruction::Open(Open { arg: 3 * at as u32 + 1, to: Target::Both as i32, width }));
        }
        push(last);
        ValidProgram::new(Program { version: VERSION, instructions, ..Program::default() }).unwrap()
    }

    #[test]
    fn what_no_memory_holds_or_no_flooding_hides_is_refused() {
        let matmul = |k: u64| {
            let product = Instruction::MatMul(Product { a: 2, b: 5, width: 40 });
            program(&[&format!("i64[1,{k}]"), &format!("i64[{k},1]")], 40, product)
        };
        assert_eq!(check(&matmul(1 << 10)), Ok(()));
        assert_eq!(check(&matmul(1 << 16)), Ok(()));
        assert_eq!(check(&matmul(1 << 25)), Err(LimitError::Product { at: 6 }));
        let one_hot = |count| {
            let one_hot = OneHot { arg: 2, depth: 3, width: 8 };
            program(&[&format!("i64[{count}]")], 16, Instruction::OneHot(one_hot))
        };
        assert_eq!(check(&one_hot(1 << 12)), Ok(()));
        let (found, limit) = (1 << 29, INSTRUCTION_NUMBERS);
        assert_eq!(check(&one_hot(1 << 13)), Err(LimitError::Numbers { at: 3, found, limit }));
    }
}
