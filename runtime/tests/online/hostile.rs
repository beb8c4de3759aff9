//! Peers that do not fit, misbehave or die: a typed error at once, never a hang or a panic.

use std::thread;
use std::time::{Duration, Instant};

use marill_plaintext::Tensor;
use marill_program::flow::Refusal;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::bundle::Bundle;
use marill_runtime::correlation::Suite;
use marill_runtime::error::{InputFault, Misbehaviour, Role, RunError, TransportFault};
use marill_runtime::session::{Hello, run_client, run_dealer, run_server};
use marill_runtime::transport::{Channel, Lanes, memory_pair_between};

use crate::build::Builder;
use crate::run::*;

const IDLE: Duration = Duration::from_secs(20);

fn program(name: &str) -> ValidProgram {
    let mut b = Builder::new();
    let x = b.input(name, Owner::Client, "f32[10]");
    let w = b.constant("w", Owner::Server, "f32[10,4]");
    let weight = b.weight(w, 30, 8);
    let known = b.encode(x, 30, 8);
    let sent = b.open(known, Target::Server, 30);
    let product = b.matmul(sent, weight, 30);
    let opened = b.open(product, Target::Both, 30);
    let square = b.push(Instruction::Square(Square { arg: opened, width: 30 }));
    b.show("out", square);
    b.finish()
}

fn data(name: &str) -> Data {
    Data::default()
        .client(name, Tensor::f32([10], vec![0.5; 10]).unwrap())
        .private("w", Tensor::f32([10, 4], vec![0.25; 40]).unwrap())
}

fn hello(role: Role, digest: [u8; 32]) -> Vec<u8> {
    Hello::new(role, Suite::Dealer, digest).encode().to_vec()
}

/// The client against a hand-written server and dealer.
fn client_against(
    server: impl FnOnce(Channel) + Send,
    dealer: impl FnOnce(Channel) + Send,
    inputs: Data,
) -> RunError {
    let (program, links) = (program("x"), links(IDLE));
    let bundles = bundles(&program, &program, &inputs);
    let begin = Instant::now();
    let error = thread::scope(|scope| {
        scope.spawn(|| server(links.client_server.1));
        scope.spawn(|| dealer(links.client_dealer.1));
        run_client(&bundles.0, inputs.client, links.client_server.0, Some(links.client_dealer.0), &mut |_| {})
            .err()
            .unwrap()
    });
    assert!(begin.elapsed() < Duration::from_secs(5));
    error
}

/// The lanes of rounds, and of weights and heartbeats.
fn lanes(channel: &mut Channel) -> Result<(Lanes, [Channel; 2]), RunError> {
    Lanes::open(channel, [1 << 20; 2])
}

fn greets(role: Role, mut channel: Channel) -> Channel {
    let _ = channel.exchange(&hello(role, program("x").digest()), 64);
    channel
}

#[test]
fn parties_with_different_programs_say_which() {
    let (ours, theirs) = (program("x"), program("y"));
    let data = data("x");
    let bundles = bundles(&ours, &theirs, &data);
    let run = run_over(links(IDLE), &bundles, &data);
    let short = |p: &ValidProgram| p.digest()[..8].iter().map(|b| format!("{b:02x}")).collect::<String>();
    for (result, ours, theirs) in [(run.client, &ours, &theirs), (run.server, &theirs, &ours)] {
        match result.err().unwrap() {
            RunError::PeerIncompatible { what: "program digest", ours: a, theirs: b, .. } => {
                assert_eq!((a, b), (short(ours), short(theirs)));
            }
            other => panic!("{other}"),
        }
    }
    assert!(matches!(run.dealer, Err(RunError::Transport { .. })));
}

#[test]
fn greetings_of_others_are_told_apart() {
    let digest = program("x").digest();
    let mut strange = hello(Role::Server, digest);
    strange[0] = b'G';
    let mut later = hello(Role::Server, digest);
    later[8] = 99;
    let mut two_party = hello(Role::Server, digest);
    two_party[13] = Suite::TwoParty.code();
    let mut unknown = hello(Role::Server, digest);
    unknown[13] = 77;
    let cases = [
        (strange, "greeting", "not a marill peer"),
        (later, "format version", "99"),
        (hello(Role::Dealer, digest), "role", "dealer"),
        (two_party, "suite", "two-party"),
        (unknown, "suite", "77"),
        (hello(Role::Server, [7; 32]), "program digest", "0707070707070707"),
    ];
    for (greeting, what, text) in cases {
        let server = |mut channel: Channel| drop(channel.exchange(&greeting, 64));
        let error = client_against(server, |channel| drop(greets(Role::Dealer, channel)), data("x"));
        assert!(matches!(error, RunError::PeerIncompatible { what: w, .. } if w == what), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn dead_and_short_peers_are_noticed_at_every_step() {
    // The server dies: before greeting, after it, in the weights, online; or sends what is too short or too long.
    let weights = (40 * 30usize).div_ceil(8);
    for step in 0..6 {
        let server = move |channel: Channel| {
            if step == 0 {
                return;
            }
            let mut channel = greets(Role::Server, channel);
            if step == 1 {
                return;
            }
            let Ok((_lanes, [mut rounds, mut other])) = lanes(&mut channel) else { return };
            match step {
                2 => drop(other.send(&vec![0; weights - 1])),
                3 => drop(other.send(&vec![0; weights + 1])),
                _ => drop(other.send(&vec![0; weights])),
            }
            let _ = rounds.recv((10 * 30usize).div_ceil(8));
            if step == 5 {
                // The opening of the product, 4 elements of 30 bits, a byte short.
                let _ = rounds.send(&[0; 14]);
                let _ = rounds.recv(15);
            }
            if step != 4 {
                // Until the client hangs up.
                let _ = rounds.recv(1);
            }
        };
        let dealer = |channel: Channel| drop(greets(Role::Dealer, channel).send(&[1; 16]));
        let error = client_against(server, dealer, data("x"));
        match step {
            2 | 3 | 5 => {
                let wrong = matches!(
                    error,
                    RunError::PeerMisbehaved { peer: Role::Server, reason: Misbehaviour::WrongLength { .. } }
                );
                assert!(wrong, "step {step}: {error}");
            }
            _ => {
                let closed = matches!(
                    error,
                    RunError::Transport { peer: Role::Server, source: TransportFault::Closed, .. }
                );
                assert!(closed, "step {step}: {error}");
            }
        }
    }
}

#[test]
fn set_padding_bits_are_refused() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "i64[3]");
    let value = b.masked(x, 5, 0);
    let wide = b.lift(value, 5);
    b.reveal("out", wide, Target::Client, true);
    let program = b.finish();
    let inputs = Data::default().client("x", Tensor::i64([3], vec![1, 2, 3]).unwrap());
    let (links, digest) = (links(IDLE), program.digest());
    let bundles = bundles(&program, &program, &inputs);
    let error = thread::scope(|scope| {
        let (mut server, mut dealer) = (links.client_server.1, links.client_dealer.1);
        scope.spawn(move || {
            let _ = server.exchange(&hello(Role::Server, digest), 64);
            let Ok((_lanes, [mut rounds, _other])) = lanes(&mut server) else { return };
            let _ = rounds.exchange(&[0, 0x80], 2);
            let _ = rounds.recv(1);
        });
        scope.spawn(move || {
            let _ = dealer.exchange(&hello(Role::Dealer, digest), 64);
            let _ = dealer.send(&[1; 16]);
        });
        run_client(&bundles.0, inputs.client, links.client_server.0, Some(links.client_dealer.0), &mut |_| {})
            .err()
            .unwrap()
    });
    let malformed = matches!(
        error,
        RunError::PeerMisbehaved { peer: Role::Server, reason: Misbehaviour::Malformed { .. } }
    );
    assert!(malformed, "{error}");
}

#[test]
fn the_server_notices_a_dealer_that_stops() {
    let wait = |mut rounds: Channel| drop(rounds.recv(1));
    the_server_notices_that_corrections_end(&program("x"), &data("x"), wait, || {});
}

/// The server against a client that does `rounds` and a dealer that dies `before` its first correction.
pub fn the_server_notices_that_corrections_end(
    program: &ValidProgram,
    data: &Data,
    rounds: impl FnOnce(Channel) + Send,
    before: impl FnOnce() + Send,
) {
    let links = links(IDLE);
    let bundles = bundles(program, program, data);
    let (mut client, mut dealer) = (links.client_server.0, links.server_dealer.1);
    let digest = program.digest();
    let error = thread::scope(|scope| {
        scope.spawn(move || {
            let _ = client.exchange(&hello(Role::Client, digest), 64);
            let Ok((_lanes, [lane, _other])) = lanes(&mut client) else { return };
            rounds(lane);
        });
        scope.spawn(move || {
            let _ = dealer.exchange(&hello(Role::Dealer, digest), 64);
            let _ = dealer.recv_at_most(1 << 20);
            let _ = dealer.send(&[1; 16]);
            let _ = dealer.send(&[2; 16]);
            before();
        });
        let server = data.server.clone();
        run_server(&bundles.1, server, links.client_server.1, Some(links.server_dealer.0), &mut |_| {})
            .err()
            .unwrap()
    });
    let closed =
        matches!(error, RunError::Transport { peer: Role::Dealer, source: TransportFault::Closed, .. });
    assert!(closed, "{error}");
}

/// The dealer against a hand-written server, with an honest client's greeting.
fn dealer_against(program_bytes: Vec<u8>, client: [u8; 32], server: [u8; 32]) -> RunError {
    let (mut to_client, client_end) = memory_pair_between(Role::Client, Role::Dealer, IDLE);
    let (mut to_server, server_end) = memory_pair_between(Role::Server, Role::Dealer, IDLE);
    thread::scope(|scope| {
        scope.spawn(move || to_client.exchange(&hello(Role::Client, client), 64));
        scope.spawn(move || {
            let _ = to_server.exchange(&hello(Role::Server, server), 64);
            let _ = to_server.send(&program_bytes);
            let _ = to_server.recv_at_most(1 << 10);
        });
        run_dealer(None, client_end, server_end, &mut |_| {}).err().unwrap()
    })
}

#[test]
fn the_dealer_trusts_no_program() {
    let program = program("x");
    let (bytes, digest) = (program.encode(), program.digest());
    assert!(matches!(dealer_against(vec![0xff; 100], digest, digest), RunError::BadProgram { .. }));
    let error = dealer_against(bytes.clone(), [3; 32], digest);
    assert!(matches!(error, RunError::PeerIncompatible { peer: Role::Client, .. }), "{error}");
    let error = dealer_against(bytes.clone(), digest, [3; 32]);
    assert!(matches!(error, RunError::PeerIncompatible { peer: Role::Server, .. }), "{error}");
    // Every prefix and every flipped byte is an error or another program, never a panic.
    for end in 0..bytes.len() {
        dealer_against(bytes[..end].to_vec(), digest, digest);
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        dealer_against(flipped, digest, digest);
    }
}

#[test]
fn inputs_and_weights_that_do_not_fit_are_named() {
    let fault = |data: Data| {
        let program = program("x");
        let bundles = bundles(&program, &program, &data);
        run_over(links(IDLE), &bundles, &data)
    };
    let bad_input = |run: Run, wanted: &str| match run.client.err().unwrap() {
        RunError::BadInput { name, reason } => {
            assert_eq!(name, wanted);
            reason
        }
        other => panic!("{other}"),
    };
    let x = |shape: &[usize], data: Vec<f32>| data_with(Tensor::f32(shape, data).unwrap());
    fn data_with(tensor: Tensor) -> Data {
        data("x").client("x", tensor)
    }
    assert!(matches!(bad_input(fault(x(&[5], vec![0.0; 5])), "x"), InputFault::Shape { .. }));
    let integers = Tensor::i64([10], vec![0; 10]).unwrap();
    assert!(matches!(bad_input(fault(data_with(integers)), "x"), InputFault::ElementType { .. }));
    let mut huge = vec![0.0; 10];
    huge[7] = 3e6;
    assert!(matches!(bad_input(fault(x(&[10], huge)), "x"), InputFault::OutOfRange { index: 7, .. }));
    let mut strange = vec![0.0; 10];
    strange[2] = f32::NAN;
    assert!(matches!(bad_input(fault(x(&[10], strange)), "x"), InputFault::OutOfRange { index: 2, .. }));
    let more = data("x").client("z", Tensor::scalar_f32(1.0));
    assert!(matches!(bad_input(fault(more), "z"), InputFault::Unknown { .. }));
    let mut none = data("x");
    none.client.clear();
    assert!(matches!(bad_input(fault(none), "x"), InputFault::Missing));
    let mut weight = vec![0.25; 40];
    weight[33] = -3e6;
    let run = fault(data("x").private("w", Tensor::f32([10, 4], weight).unwrap()));
    match run.server.err().unwrap() {
        RunError::BadInput { name, reason: InputFault::OutOfRange { index: 33, .. } } => {
            assert_eq!(name, "w")
        }
        other => panic!("{other}"),
    }
    assert!(run.client.is_err());
}

/// Runs the client alone; the bytes that reach the server and the dealer.
fn client_alone(program: &ValidProgram, data: &Data) -> (RunError, usize) {
    let links = links(Duration::from_millis(200));
    let bundle = Bundle::in_memory(program.clone(), data.public.clone(), None);
    let inputs = data.client.clone();
    let (server, dealer) = (links.client_server.0, links.client_dealer.0);
    let error = run_client(&bundle, inputs, server, Some(dealer), &mut |_| {}).err().unwrap();
    let arrived = [links.client_server.1, links.client_dealer.1].map(|mut channel| {
        let message = channel.recv_at_most(1 << 20);
        message.map_or(0, |bytes| bytes.len())
    });
    (error, arrived.iter().sum())
}

#[test]
fn a_client_that_does_not_agree_sends_nothing() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[10]");
    let known = b.encode(x, 30, 8);
    b.reveal("label", known, Target::Server, false);
    let (error, bytes) = client_alone(&b.finish(), &data("x"));
    let refused = matches!(
        &error,
        RunError::Refused { party: Role::Client, reason: Refusal::OutputToServer { name, bits: 300, .. } }
            if name == "label"
    );
    assert!(refused, "{error}");
    assert_eq!(bytes, 0);
}

/// How far a run comes must not depend on the prompt: here the server would see whether a number is below 2.
#[test]
fn a_number_that_does_not_fit_is_found_before_anything_is_sent() {
    let program = |op: Option<&str>| {
        let mut b = Builder::new();
        let x = b.input("x", Owner::Client, "f32[10]");
        let first = b.shared(x, 40, 10);
        let value = op.map_or(x, |op| b.plain(op, &[x]));
        let narrow = b.shared(value, 2, 0);
        b.show("first", first);
        b.show("narrow", narrow);
        b.finish()
    };
    let inputs = |value: f32| data("x").client("x", Tensor::f32([10], vec![value; 10]).unwrap());
    for op in [None, Some("exp")] {
        let (error, bytes) = client_alone(&program(op), &inputs(3.0));
        let found =
            matches!(error, RunError::BadInput { reason: InputFault::OutOfRange { index: 0, .. }, .. });
        assert!(found, "{error}");
        assert_eq!(bytes, 0);
    }
    run(&program(None), &inputs(1.0));
    // An index that may be out of range.
    let mut b = Builder::new();
    let index = b.input("index", Owner::Client, "i64[2]");
    let table = b.constant("table", Owner::Public, "f32[4]");
    let row = b.plain("gather{axis=0}", &[table, index]);
    let shared = b.shared(row, 40, 10);
    b.show("row", shared);
    let data = Data::default()
        .public("table", Tensor::f32([4], vec![0.5; 4]).unwrap())
        .client("index", Tensor::i64([2], vec![3, 4]).unwrap());
    let (error, bytes) = client_alone(&b.finish(), &data);
    assert!(matches!(error, RunError::BadProgram { .. }), "{error}");
    assert_eq!(bytes, 0);
}

#[test]
fn an_input_of_the_server_is_not_taken_from_the_client() {
    let mut b = Builder::new();
    let prompt = b.input("prompt", Owner::Server, "f32[10]");
    let shared = b.shared(prompt, 30, 8);
    b.show("out", shared);
    let (error, bytes) = client_alone(&b.finish(), &data("prompt"));
    let other = InputFault::OfOther { owner: Role::Server, given_by: Role::Client };
    assert!(matches!(&error, RunError::BadInput { name, reason } if name == "prompt" && *reason == other));
    assert_eq!(bytes, 0);
}

#[test]
fn nobody_runs_a_program_whose_flow_is_not_sound() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[10]");
    let opened = b.masked(x, 30, 8);
    let digits = |b: &mut Builder| {
        let digits = Digits {
            arg: opened,
            digit_bits: 4,
            thresholds: vec![0],
            low_bits: 0,
            width: 21,
            lowest_bits: 0,
        };
        b.push(Instruction::Digits(digits))
    };
    let (one, other) = (digits(&mut b), digits(&mut b));
    let bits = b.open_bits(other, 9);
    let above = b.push(Instruction::Compare(Compare { digits: one, opened: bits }));
    let above = b.open_bits(above, 1);
    let above = b.bit(above, 0, 10);
    b.reveal("out", above, Target::Client, true);
    let program = b.finish();
    let (error, bytes) = client_alone(&program, &data("x"));
    assert!(matches!(error, RunError::BadProgram { .. }), "{error}");
    assert_eq!(bytes, 0);
    let error = dealer_against(program.encode(), program.digest(), program.digest());
    assert!(matches!(error, RunError::BadProgram { .. }), "{error}");
}
