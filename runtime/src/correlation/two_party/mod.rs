//! Correlations that the two parties make between them, without a third.

pub mod ot;
