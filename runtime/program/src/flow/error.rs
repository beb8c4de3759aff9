//! Why a program's flow of information is refused.

use crate::value::{Owner, Target};

/// A program in which something could reach a party that it is not declared for, or in which it cannot be told. `at`
/// is the instruction's index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// An instruction without content, or of a kind that this version does not know.
    #[error("instruction {at} is of an unknown kind, so nothing is known of where its value goes")]
    Unknown { at: usize },
    /// An argument that is not an earlier value.
    #[error("instruction {at} uses value {value}, earlier values are those below {at}")]
    Undefined { at: usize, value: u32 },
    /// A number that stands for no owner or receiver.
    #[error("instruction {at}: {field} is {found}, which names no party; 0, 1 and 2 do")]
    Party { at: usize, field: &'static str, found: i32 },
    /// A constant of the client: all constants come from the server.
    #[error("instruction {at}: constant '{name}' is the client's, constants are public or the server's")]
    ClientConstant { at: usize, name: String },
    /// A value that is held in another form.
    #[error("instruction {at} needs {needs}, value {value} is {found}")]
    Form { at: usize, value: u32, needs: &'static str, found: String },
    /// A clear value of one party where the other one would need it.
    #[error(
        "instruction {at} needs value {value} in the clear at the {needed_by}, it is known to the {known_to} \
         alone; sharing it would work"
    )]
    OtherParty { at: usize, value: u32, known_to: Owner, needed_by: Owner },
    /// A factor in the clear that both parties multiply with and one of them does not know.
    #[error(
        "instruction {at} multiplies shares with value {value}, which both parties would need in the clear and \
         the {known_to} alone knows; opening both factors under masks would work"
    )]
    PrivateFactor { at: usize, value: u32, known_to: Owner },
    /// A factor of a masked value that preprocessing would have to know before the run.
    #[error(
        "instruction {at} works on a masked value with value {value}, which depends on {depends_on}; masks change by \
         public constants alone"
    )]
    ChangingFactor { at: usize, value: u32, depends_on: &'static str },
    /// A masked value at whom it was not opened to.
    #[error(
        "instruction {at} needs value {value} opened to {needs} under a mask, it was opened to {opened_to}"
    )]
    Opened { at: usize, value: u32, opened_to: Target, needs: Target },
    /// A weight that changes from run to run, while its mask does not.
    #[error(
        "instruction {at} makes a weight of value {value}, which depends on {depends_on}; a weight's mask serves \
         for constants of the server only"
    )]
    ChangingWeight { at: usize, value: u32, depends_on: &'static str },
    /// Positions that the dealer is told and that are not constants of both parties.
    #[error(
        "instruction {at} moves elements to positions in value {value}, which depends on {depends_on}; the dealer \
         is told such positions, public constants work"
    )]
    SecretPositions { at: usize, value: u32, depends_on: &'static str },
    /// A tensor operation that mixes elements where they may only be moved, or that cannot be read.
    #[error("instruction {at} moves elements by '{op}', which is none of the movements of whole elements")]
    Movement { at: usize, op: String },
    /// Operands of one movement that are held in different ways.
    #[error("instruction {at} moves value {value}, {found}, together with {with}; operands of one form work")]
    MixedForms { at: usize, value: u32, found: String, with: String },
    /// A comparison that is combined with bits that were opened for something else.
    #[error("instruction {at} combines digits {digits} with value {opened}, which does not open their bits")]
    OtherBits { at: usize, digits: u32, opened: u32 },
    /// A revealed value that goes on: whether it fits its ring would be told by how the run ends.
    #[error(
        "instruction {at} takes value {value}, which depends on a revealed value, back into the ring; an output \
         ends a run"
    )]
    FedBack { at: usize, value: u32 },
    /// A value disclosed without being a declared output to exactly its receiver.
    #[error("instruction {at} reveals a value to {to} and no output declares that; declaring it would work")]
    UndeclaredReveal { at: usize, to: Target },
    /// An output of a value that there is not.
    #[error("output '{name}' is value {value}, the program has {count}")]
    OutputUndefined { name: String, value: u32, count: usize },
    /// An output whose receiver is no party.
    #[error("output '{name}' goes to {found}, which names no party; 0, 1 and 2 do")]
    OutputParty { name: String, found: i32 },
    /// An output whose value its receiver cannot know.
    #[error("output '{name}' goes to {to}, value {value} is {found}; a reveal to {to} would work")]
    OutputUnknown { name: String, to: Target, value: u32, found: String },
    /// Two things of one name: consent to the one would be taken for consent to the other.
    #[error("two {what} are named '{name}'")]
    SameName { what: &'static str, name: String },
    /// A name that shows as another, or as nothing.
    #[error("{what} number {number} has the name {shown}, names of printed characters work")]
    Name { what: &'static str, number: usize, shown: String },
}
