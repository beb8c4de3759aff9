//! Compiles ONNX transformer graphs into two-party secure programs.

pub mod diagnostic;
pub mod ir;
pub mod normalise;
pub mod ownership;

pub use diagnostic::{Bug, Diagnostic, Problem};
