//! Compiled models through the checks that a client makes of a program it was given: all pass unasked, and the
//! statement says that the server sees nothing.

use std::path::Path;

use crate::support::fixtures::{Fixture, MODELS, shared};
use marill_compiler::{Compiled, Request, compile};
use marill_program::Suite;
use marill_program::flow::{Consent, Statement, check};

/// The statement of a program that neither party needs to be asked about.
fn state(name: &str, compiled: &Compiled) -> Statement {
    let program = &compiled.program;
    let flow = check(program.program()).unwrap_or_else(|error| panic!("{name}: {error}"));
    Consent::default().of_client(program, &flow).unwrap_or_else(|error| panic!("{name}: {error}"));
    Consent::default().of_server(program, &flow).unwrap_or_else(|error| panic!("{name}: {error}"));
    let statement = Statement::new(program, &flow);
    assert!(statement.server.sees.is_empty() && statement.server.inputs.is_empty(), "{name}");
    for output in &statement.client.sees {
        assert!(
            output.bits > 0 && output.private_constants && !output.inputs.is_empty(),
            "{name}: {output:?}"
        );
    }
    statement
}

#[test]
fn the_shipped_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm/model.onnx");
    let statement =
        state("small_lm", &compile(&path, &Request { suite: Suite::Dealer, ..Request::default() }).unwrap());
    let text = statement.to_string();
    assert!(text.lines().count() < 50, "{text}");
    for part in
        ["holds     input input_ids i64[1,64]", "sees      output logits f32[1,64,", "sees      no output"]
    {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
    let elements: u64 = statement.private_layers.iter().map(|layer| layer.constants.elements).sum();
    assert!(elements >= statement.server.private_constants.elements, "{text}");
    assert_eq!(statement.client.hidden_constants, statement.server.private_constants);
}

#[test]
fn fixtures() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        let fixture = Fixture::load(&shared, name);
        let request = Request { dims: fixture.dims(), suite: Suite::Dealer, ..Request::default() };
        state(name, &compile(&fixture.model, &request).unwrap());
    }
}
