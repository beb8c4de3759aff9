//! Compiles ONNX transformer graphs into two-party secure programs.

pub mod diagnostic;
pub mod import;
pub mod ir;
pub mod normalise;
pub mod npz;
pub mod ownership;

pub use diagnostic::{Bug, Diagnostic, Problem};
