//! Why a program is refused.

use marill_plaintext::OpError;

/// A program that this runtime must not run. `at` is the instruction's index.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The bytes are not a program.
    #[error("the program file is damaged: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Made by another version.
    #[error(
        "the program has format version {found}, this runtime reads version {expected}; compile it again"
    )]
    Version { found: u32, expected: u32 },
    /// An instruction without content, or of a kind that this version does not know.
    #[error("instruction {at} is of an unknown kind")]
    UnknownInstruction { at: usize },
    /// An argument that is not an earlier value.
    #[error("instruction {at} uses value {value}, which is not made before it")]
    UndefinedValue { at: usize, value: u32 },
    /// An operand of the wrong form.
    #[error("instruction {at} needs {needs}, value {value} is {found}")]
    WrongForm { at: usize, value: u32, needs: &'static str, found: String },
    /// A field out of its bounds.
    #[error("instruction {at}: {field} is {found}, allowed is {allowed}")]
    OutOfBounds { at: usize, field: &'static str, found: i64, allowed: &'static str },
    /// Operands that do not fit together.
    #[error("instruction {at}: {what} differ: {left} and {right}")]
    Mismatch { at: usize, what: &'static str, left: String, right: String },
    /// A clear-text operation that is ill-formed.
    #[error("instruction {at}: {source}")]
    Op { at: usize, source: OpError },
    /// A list of the wrong length.
    #[error("instruction {at}: {field} has {found} entries, {expected} expected")]
    Length { at: usize, field: &'static str, found: usize, expected: usize },
    /// Two inputs or constants of one name.
    #[error("two {what} are named '{name}'")]
    DuplicateName { what: &'static str, name: String },
    /// A value disclosed without being a declared output.
    #[error("instruction {at} reveals a value to {to} that is not among the declared outputs")]
    UndeclaredReveal { at: usize, to: String },
    /// An output whose value its receiver does not have.
    #[error("output '{name}' is not known to {to}")]
    OutputUnknown { name: String, to: String },
    /// More memory than this runtime allows for one value or one instruction's preprocessing.
    #[error("instruction {at} has {found} elements, the limit is {limit}")]
    TooLarge { at: usize, found: u64, limit: u64 },
}
