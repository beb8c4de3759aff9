//! What the two parties send when they make correlations between themselves.

pub mod rlwe;
