//! Preprocessing by the two parties alone, as a recipe: which gates make the fields of a program from the parties' own
//! parts of its masks.
//!
//! A mask is `r = p0 + p1 mod 2^k` with one part of each party. [`recipe`] turns the demand of
//! [`crate::correlation`] into two kinds of gates ([`gates`]): products of shared bits with strings of shared bits, and
//! products of one party's bits with the other's numbers. An [`gates::Engine`] runs gates: the runtime's talks to the
//! peer, and [`count`] only counts, so that a program's cost is exactly what the runtime does. [`ot`] says what the gates' oblivious
//! transfers take. Large matrix products are made by homomorphic encryption instead ([`products`], [`rlwe`]).

pub mod cost;
pub mod count;
pub mod digits;
pub mod effort;
pub mod gates;
pub mod limits;
pub mod matrix;
pub mod ot;
pub mod planes;
mod positions;
pub mod products;
pub mod recipe;
pub mod rlwe;
mod segment;
mod sums;
pub mod work;
