//! What preprocessing between two parties sends, as formulas that the runtime's own code follows.

pub mod ot;
