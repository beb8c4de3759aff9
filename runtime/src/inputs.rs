//! A party's inputs from files, in the types that its program asks for.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use marill_plaintext::Tensor;
use marill_plaintext::npz::{self, NpzError};
use marill_program::{Instruction, Owner, ValidProgram};

use crate::error::{InputFault, RunError};
use crate::executor::check_inputs;
use crate::sharing::Party;

/// The tensors of an npz file by name; floats of any size are f32, integers i64.
///
/// # Errors
/// `File` naming the file and, where one is to blame, the array.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, RunError> {
    npz::read(path).map_err(|error| fault(path, "read", error))
}

/// Writes tensors as an npz file.
///
/// # Errors
/// `File`.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), RunError> {
    npz::write(path, tensors).map_err(|error| fault(path, "write", error))
}

fn fault(path: &Path, action: &'static str, error: NpzError) -> RunError {
    let source = match error {
        NpzError::Open { source, .. } => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    };
    RunError::File { path: path.to_owned(), action, source }
}

/// Divides the inputs of both parties: to each what it owns, and what is public.
///
/// # Errors
/// `BadInput` for one that is missing, of another type, or unknown to the program.
pub fn divide(
    program: &ValidProgram,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<[BTreeMap<String, Tensor>; 2], RunError> {
    let mut known = Vec::new();
    let mut parts = [BTreeMap::new(), BTreeMap::new()];
    for at in 0..program.len() {
        let Instruction::Input(input) = program.instruction(at) else { continue };
        let owner = Owner::try_from(input.owner).unwrap_or(Owner::Public);
        known.push(input.name.clone());
        for (party, part) in [Party::Client, Party::Server].into_iter().zip(&mut parts) {
            if party.knows(owner)
                && let Some(tensor) = inputs.get(&input.name)
            {
                part.insert(input.name.clone(), tensor.clone());
            }
        }
    }
    if let Some(name) = inputs.keys().find(|name| !known.contains(name)) {
        return Err(RunError::BadInput { name: name.clone(), reason: InputFault::Unknown { known } });
    }
    check_inputs(program, Party::Client, &parts[0])?;
    check_inputs(program, Party::Server, &parts[1])?;
    Ok(parts)
}
