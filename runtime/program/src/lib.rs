//! The contract between compiler and runtime: a secret-sharing program.
//!
//! A [`Program`] is a list of instructions in single-assignment form: instruction `i` makes value `i`. It is public:
//! both parties (and the dealer) hold the same bytes and agree on their digest before anything else. Weights lie
//! beside it, never in it.
//!
//! Data flows `schema` (bytes) -> `validate` (a [`ValidProgram`], every value typed) -> `plan` (rounds, lifetimes)
//! -> `correlation` (what preprocessing must make), `cost` and `work` (what it all takes) -> `interpret` (the exact ring
//! arithmetic in the clear). [`flow`] looks at the schema anew: who learns what, and whether a party agrees to it.

pub mod correlation;
pub mod cost;
pub mod error;
pub mod fixed;
pub mod flow;
pub mod interpret;
pub mod network;
pub mod plan;
pub mod ring;
pub mod schema;
pub mod tables;
pub mod text;
pub mod two_party;
pub mod validate;
pub mod value;
pub mod work;

pub use error::ProgramError;
pub use network::{Network, NetworkError};
pub use ring::Ring;
pub use schema::{Instruction, Program};
pub use validate::ValidProgram;
pub use value::{Form, Owner, Target, ValueType};
