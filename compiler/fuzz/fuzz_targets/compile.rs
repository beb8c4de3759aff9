//! Small ONNX models through the whole street: a valid program for either suite, or an error that is the model's.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use marill_compiler::import::import_bytes;
use marill_fuzz::model::mutate;
use marill_fuzz::street::{compile, import_request, is_small};
use marill_program::Suite;

fuzz_target!(|bytes: &[u8]| {
    let Ok(graph) = import_bytes(bytes.to_vec(), &import_request()) else { return };
    if !is_small(&graph) {
        return;
    }
    let suite = if bytes.len().is_multiple_of(2) { Suite::TwoParty } else { Suite::Dealer };
    if let Err(error) = compile(graph, suite) {
        assert!(!error.code().is_empty() && !error.to_string().is_empty());
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
