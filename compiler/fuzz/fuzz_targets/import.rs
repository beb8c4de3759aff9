//! Any bytes as an ONNX model: a graph that holds together, or an error that says something.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use marill_compiler::import::import_bytes;
use marill_compiler::ir::verify;
use marill_fuzz::model::mutate;
use marill_fuzz::street::import_request;

fuzz_target!(|bytes: &[u8]| match import_bytes(bytes.to_vec(), &import_request()) {
    Ok(graph) => assert!(verify(&graph).is_ok(), "{:?}", verify(&graph)),
    Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
