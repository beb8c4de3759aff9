//! The compiler's graph: tensor operations as nodes, with what is known about each value beside it.
//!
//! Invariants, checked by [`verify`] after every stage: acyclic; argument positions complete; every node's type is
//! what its operation infers from its operands; outputs exist; facts are of the stage (no owner of what is computed
//! before `ownership`, no encoding before `precision`).

pub mod constant;
pub mod facts;
pub mod graph;
pub mod interpret;
pub mod text;
pub mod verify;

pub use constant::{Constant, ConstantError, Element};
pub use facts::{Encoding, Facts, Owner, Range};
pub use graph::{Graph, Node, NodeKind, Output, ValueId};
pub use interpret::{InterpretError, interpret, interpret_with};
pub use text::{ParseError, TextOptions, parse, print};
pub use verify::verify;
