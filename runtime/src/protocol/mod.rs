//! One file per functionality: pure functions of a party's local data.
//!
//! Each takes the party, public values, this party's shares and its fields of preprocessing, and returns this party's
//! share of the result. Nothing here communicates: [`open`] makes and combines the messages that the executor sends.
//! No branch, length or index depends on a share; indexing by opened values is free. In the headers, `n` is the
//! number of elements, `k` the operand's width, `w` the result's; preprocessing bytes are those of the party that
//! receives corrections.

pub mod bits;
pub mod compare;
pub mod fourier;
pub mod lift;
pub mod local;
pub mod masked;
pub mod one_hot;
pub mod open;
pub mod product;
pub mod table;
pub mod tiles;
pub mod truncate;
