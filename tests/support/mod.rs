//! What the whole-system tests share.

pub mod binaries;
pub mod fixtures;
pub mod gpt2;
pub mod llama;
pub mod models;
pub mod numbers;
pub mod onnx;
pub mod parallel;
pub mod parties;
pub mod trained;
pub mod tuning;
