//! What the whole-system tests share.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod fixtures;
pub mod gpt2;
pub mod models;
pub mod numbers;
pub mod onnx;
pub mod three;
pub mod trained;
pub mod tuning;
