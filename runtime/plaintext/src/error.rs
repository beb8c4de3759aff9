//! What can be wrong with an operation, its operands or its text.

use crate::tensor::DType;

/// Why an operation has no result, or a text no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The number of operands is outside the operation's arity.
    #[error("{op} takes {}, found {found}", operands(*.min, *.max))]
    ArgumentCount {
        /// The operation's name.
        op: &'static str,
        /// Fewest operands it takes.
        min: usize,
        /// Most operands it takes.
        max: usize,
        /// How many there were.
        found: usize,
    },
    /// An operand has elements of the wrong type.
    #[error("operand {operand} of {op} has {found} elements, needs {expected}")]
    Dtype {
        /// The operation's name.
        op: &'static str,
        /// Which operand, from 0.
        operand: usize,
        /// What would work.
        expected: &'static str,
        /// What it has.
        found: DType,
    },
    /// A tensor was read as elements of another type.
    #[error("tensor has {found} elements, read as {expected}")]
    ElementType {
        /// The type asked for.
        expected: DType,
        /// The type it has.
        found: DType,
    },
    /// Two shapes do not go together.
    #[error("shapes {left:?} and {right:?} do not fit in {op}")]
    ShapeMismatch {
        /// The operation's name.
        op: &'static str,
        /// The earlier operand's shape, or the one found.
        left: Vec<usize>,
        /// The later operand's shape, or the one needed.
        right: Vec<usize>,
    },
    /// An operand has the wrong number of axes.
    #[error("operand {operand} of {op} has shape {found:?}, needs {expected}")]
    Rank {
        /// The operation's name.
        op: &'static str,
        /// Which operand, from 0.
        operand: usize,
        /// What would work.
        expected: &'static str,
        /// The operand's shape.
        found: Vec<usize>,
    },
    /// An axis attribute names no axis of the operand.
    #[error("axis {axis} of {op} is out of range for an operand with {rank} axes")]
    AxisOutOfRange {
        /// The operation's name.
        op: &'static str,
        /// The axis asked for.
        axis: usize,
        /// How many axes there are.
        rank: usize,
    },
    /// An attribute's value does not suit the operands.
    #[error("attribute {attribute} of {op} is {found}, needs {expected}")]
    AttributeValue {
        /// The operation's name.
        op: &'static str,
        /// The attribute's name.
        attribute: &'static str,
        /// Its value.
        found: String,
        /// What would work.
        expected: String,
    },
    /// An element of an index operand is outside the axis it indexes.
    #[error("index {index} of {op} is out of range for an axis of length {length}")]
    IndexOutOfRange {
        /// The operation's name.
        op: &'static str,
        /// The index found.
        index: i64,
        /// The axis's length.
        length: usize,
    },
    /// The largest element of an empty axis was asked for.
    #[error("axis {axis} of {op} is empty")]
    EmptyAxis {
        /// The operation's name.
        op: &'static str,
        /// The axis.
        axis: usize,
    },
    /// An integer was divided by zero.
    #[error("{op} divides an i64 by zero")]
    DivisionByZero {
        /// The operation's name.
        op: &'static str,
    },
    /// A shape has more elements than [`crate::shape::MAX_ELEMENTS`].
    #[error("shape {shape:?} has more than 2^40 elements")]
    TooManyElements {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A shape has more axes than [`crate::shape::MAX_AXES`].
    #[error("a shape has {found} axes, 64 is the most")]
    TooManyAxes {
        /// How many axes.
        found: usize,
    },
    /// The memory for a result is not to be had.
    #[error("no memory for {elements} elements")]
    OutOfMemory {
        /// How many elements were asked for.
        elements: usize,
    },
    /// The data does not fill the shape exactly.
    #[error("shape {shape:?} has {expected} elements, data has {found}")]
    DataLength {
        /// The shape.
        shape: Vec<usize>,
        /// Its element count.
        expected: usize,
        /// The data's element count.
        found: usize,
    },
    /// A text is not of the expected form.
    #[error("text {text:?} is not {expected}")]
    Malformed {
        /// The text.
        text: String,
        /// What would work.
        expected: &'static str,
    },
    /// No operation has this name.
    #[error("no operation is called {name:?}")]
    UnknownOp {
        /// The name found.
        name: String,
    },
    /// The operation has no such attribute.
    #[error("{op} has no attribute {attribute:?}")]
    UnknownAttribute {
        /// The operation's name.
        op: &'static str,
        /// The attribute found.
        attribute: String,
    },
    /// The text leaves out an attribute.
    #[error("{op} needs attribute {attribute}")]
    MissingAttribute {
        /// The operation's name.
        op: &'static str,
        /// The attribute left out.
        attribute: &'static str,
    },
    /// The text gives an attribute twice.
    #[error("{op} has attribute {attribute} twice")]
    RepeatedAttribute {
        /// The operation's name.
        op: &'static str,
        /// The attribute given twice.
        attribute: &'static str,
    },
}

fn operands(min: usize, max: usize) -> String {
    match (min, max) {
        (1, 1) => "1 operand".to_string(),
        (min, max) if min == max => format!("{min} operands"),
        (min, usize::MAX) => format!("at least {min} operands"),
        (min, max) => format!("{min} to {max} operands"),
    }
}
