//! Sound programs that declare what a party would not want.

use marill_program::flow::{Consent, Refusal, check};
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

use crate::build::{Builder, I};
use crate::honest::product;

fn of_client(b: &Builder, consent: &Consent) -> Result<(), Refusal> {
    let flow = check(&b.program).unwrap();
    consent.of_client(&ValidProgram::new(b.program.clone()).unwrap(), &flow)
}

fn of_server(b: &Builder, consent: &Consent) -> Result<(), Refusal> {
    let flow = check(&b.program).unwrap();
    consent.of_server(&ValidProgram::new(b.program.clone()).unwrap(), &flow)
}

fn outputs(names: &[&str]) -> Consent {
    Consent { outputs: names.iter().map(ToString::to_string).collect(), ..Consent::default() }
}

/// The name of the output that the client does not want the server to have.
fn refused(b: &Builder, consent: &Consent) -> String {
    match of_client(b, consent) {
        Err(Refusal::OutputToServer { name, .. }) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_prompt_as_an_output_to_the_server_needs_a_word() {
    for to in [Target::Server, Target::Both] {
        let mut b = product();
        let x = b.shared(0);
        b.reveal("label", x, to);
        let error = of_client(&b, &Consent::default()).unwrap_err();
        let expected = Refusal::OutputToServer {
            name: "label".to_owned(),
            to,
            bits: 160,
            depends_on: vec!["x".to_owned()],
        };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(text.contains("up to 160 bits that depend on x; --allow-reveal label allows it"), "{text}");
        of_client(&b, &outputs(&["label"])).unwrap();
        // The server does not mind.
        of_server(&b, &Consent::default()).unwrap();
    }
}

#[test]
fn consent_to_one_output_is_not_consent_to_another() {
    let mut b = product();
    let x = b.shared(0);
    let total = b.push(I::Sum(Sum { arg: x, axis: 1 }));
    b.reveal("score", total, Target::Server);
    b.reveal("trace", x, Target::Server);
    assert_eq!(refused(&b, &Consent::default()), "score");
    assert_eq!(refused(&b, &outputs(&["score"])), "trace");
    of_client(&b, &outputs(&["score", "trace"])).unwrap();
}

#[test]
fn what_the_server_computes_from_a_reveal_is_an_output_of_its_own() {
    let mut b = product();
    let x = b.shared(0);
    let seen = b.reveal("seen", x, Target::Server);
    let derived = b.plain("neg", &[seen]);
    b.output("derived", derived, Target::Server);
    assert_eq!(refused(&b, &outputs(&["seen"])), "derived");
    of_client(&b, &outputs(&["seen", "derived"])).unwrap();
}

/// A prompt called public counts as no secret, yet what is sent of it would be the client's copy.
#[test]
fn a_prompt_that_the_program_calls_public_needs_a_word() {
    let mut b = Builder::new();
    let x = b.input("prompt", Owner::Public, "f32[1,4]");
    let x = b.shared(x);
    b.reveal("y", x, Target::Client);
    let error = of_client(&b, &Consent::default()).unwrap_err();
    assert_eq!(error, Refusal::PublicInput { name: "prompt".to_owned() });
    assert!(error.to_string().ends_with("--allow-public prompt allows it"), "{error}");
    let public = Consent { public_inputs: ["prompt".to_owned()].into(), ..Consent::default() };
    of_client(&b, &public).unwrap();
    b.reveal("copy", x, Target::Server);
    assert_eq!(refused(&b, &public), "copy");
}

#[test]
fn outputs_that_are_the_servers_own_need_its_word() {
    // A weight itself, a linear function of weights, an input of the server.
    for linear in [false, true] {
        let mut b = product();
        let w = b.shared(1);
        let w = if linear { b.push(I::Scale(Scale { arg: w, factor: -3, frac: 0 })) } else { w };
        b.reveal("bias", w, Target::Client);
        let error = of_server(&b, &Consent::default()).unwrap_err();
        let expected = Refusal::OwnOutput {
            name: "bias".to_owned(),
            to: Target::Client,
            depends_on: "private constants",
        };
        assert_eq!(error, expected);
        of_server(&b, &outputs(&["bias"])).unwrap();
        of_client(&b, &Consent::default()).unwrap();
    }
    let mut b = product();
    let s = b.input("s", Owner::Server, "f32[2]");
    let s = b.shared(s);
    b.reveal("s", s, Target::Both);
    let error = of_server(&b, &Consent::default()).unwrap_err();
    assert!(matches!(error, Refusal::OwnOutput { depends_on: "inputs of the server", .. }), "{error}");
    // And the client does not give the server an output unasked, even one of the server's.
    assert_eq!(refused(&b, &Consent::default()), "s");
}

#[test]
fn public_constants_are_nobodys_secret() {
    let mut b = product();
    let gain = b.constant("gain", Owner::Public, "f32[2]");
    b.output("gain", gain, Target::Client);
    of_server(&b, &Consent::default()).unwrap();
    of_client(&b, &Consent::default()).unwrap();
}

#[test]
fn names_that_mean_nothing_are_told() {
    let b = product();
    let error = of_client(&b, &outputs(&["lable"])).unwrap_err();
    assert_eq!(error.to_string(), "the program has no output 'lable' to allow, it has y");
    let public = Consent { public_inputs: ["x".to_owned()].into(), ..Consent::default() };
    let error = of_client(&b, &public).unwrap_err();
    assert_eq!(error.to_string(), "the program has no public input 'x' to allow, it has none");
}

#[test]
fn what_is_needed_is_enough() {
    let b = crate::honest::everything();
    let flow = check(&b.program).unwrap();
    let valid = ValidProgram::new(b.program.clone()).unwrap();
    let needed = Consent::needed_by_client(&valid, &flow);
    assert_eq!(needed.words(), ["--allow-public", "p"]);
    needed.of_client(&valid, &flow).unwrap();
    assert_eq!(Consent::needed_by_server(&valid, &flow), Consent::default());
}
