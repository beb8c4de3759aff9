//! Any text as a graph: what is read prints, and reads the same again.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use marill_compiler::ir::{TextOptions, parse, print, verify};
use marill_fuzz::text::mutate;

fuzz_target!(|text: &str| {
    let Ok(graph) = parse(text) else { return };
    let _ = verify(&graph);
    let printed = print(&graph, TextOptions { names: true });
    let again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(printed, print(&again, TextOptions { names: true }));
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate(data, size, max_size, seed)
});
