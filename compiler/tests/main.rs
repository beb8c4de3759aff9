//! Tests of the compiler, one program so that they are linked once and share the cores.

mod cli;
mod configuration;
mod fitting;
mod fixtures;
mod function;
mod import_attention;
mod import_hostile;
mod import_inline;
mod import_microsoft;
mod import_models;
mod import_operators;
mod lower;
mod merge_heads;
mod model;
mod normalise;
mod normalise_models;
mod one_node;
mod onnx_support;
mod rewrite;
mod text_samples;
