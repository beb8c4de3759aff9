//! Compiles ONNX transformer graphs into two-party secure programs.

pub mod ir;
