//! Correlations that the two parties make between themselves.

pub mod he;
