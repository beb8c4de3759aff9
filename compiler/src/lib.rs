//! Compiles ONNX transformer graphs into two-party secure programs.

pub mod diagnostic;
pub mod ir;

pub use diagnostic::{Bug, Diagnostic, Problem};
