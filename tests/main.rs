//! Tests of compiler and runtime together, one program so that they are linked once and share the cores.

mod cost;
mod end_to_end;
mod exports;
mod families;
mod leakage_statement;
mod marill;
mod onnx_nodes;
mod operators;
mod private_weights;
mod processes;
mod scale;
mod support;
mod tidy;
