//! What travels: the same lengths for every input, and bytes that look uniform whatever the input.

use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::error::Role;
use marill_runtime::transport::{Channel, memory_pair_between};

use crate::build::Builder;
use crate::run::*;

const ELEMENTS: usize = 64;

/// Opens arithmetic values to both and to one, and bits.
fn program() -> ValidProgram {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, &format!("i64[{ELEMENTS}]"));
    let w = b.constant("w", Owner::Server, &format!("f32[{ELEMENTS},{ELEMENTS}]"));
    let weight = b.weight(w, 24, 4);
    let known = b.encode(x, 24, 0);
    let sent = b.open(known, Target::Server, 24);
    let product = b.matmul(sent, weight, 24);
    let opened = b.open(product, Target::Both, 24);
    let digits = b.push(Instruction::Digits(Digits {
        arg: opened,
        digit_bits: 4,
        thresholds: vec![3],
        low_bits: 0,
        width: 24,
    }));
    let bits = b.open_bits(digits, 11);
    let bit = b.push(Instruction::Compare(Compare { digits, opened: bits }));
    let bit = b.open_bits(bit, 1);
    let bit = b.bit(bit, 0, 16);
    b.reveal("out", bit, Target::Client, true);
    b.finish()
}

fn data(x: i64) -> Data {
    Data::default()
        .client("x", Tensor::i64([ELEMENTS], vec![x; ELEMENTS]).unwrap())
        .private("w", Tensor::f32([ELEMENTS, ELEMENTS], vec![0.25; ELEMENTS * ELEMENTS]).unwrap())
}

/// Forwards messages between the two ends as the program's rounds have them, and keeps a copy.
fn wiretap(mut client: Channel, mut server: Channel, pattern: &[(bool, bool)]) -> Vec<(bool, Vec<u8>)> {
    let mut seen = Vec::new();
    for &(to_server, to_client) in pattern {
        let up = to_server.then(|| client.recv_at_most(1 << 20).unwrap());
        let down = to_client.then(|| server.recv_at_most(1 << 20).unwrap());
        if let Some(bytes) = up {
            server.send(&bytes).unwrap();
            seen.push((true, bytes));
        }
        if let Some(bytes) = down {
            client.send(&bytes).unwrap();
            seen.push((false, bytes));
        }
    }
    seen
}

fn transcript(program: &ValidProgram, data: &Data) -> Vec<(bool, Vec<u8>)> {
    let idle = Duration::from_secs(30);
    let mut links = links(idle);
    let (client, tap_client) = memory_pair_between(Role::Client, Role::Server, idle);
    let (tap_server, server) = memory_pair_between(Role::Client, Role::Server, idle);
    links.client_server = (client, server);
    // Greeting; the weight; readiness; x to the server; the product; the digits; the bit; the reveal to the client.
    let pattern = [
        (true, true),
        (false, true),
        (true, true),
        (true, false),
        (true, true),
        (true, true),
        (true, true),
        (false, true),
    ];
    let bundles = bundles(program, program, data);
    thread::scope(|scope| {
        let tap = scope.spawn(|| wiretap(tap_client, tap_server, &pattern));
        let run = run_over(links, &bundles, data);
        run.client.unwrap();
        run.server.unwrap();
        run.dealer.unwrap();
        tap.join().unwrap()
    })
}

/// Pearson's statistic of byte values against uniform: 255 degrees of freedom, standard deviation 22.6.
fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    let expected = bytes.len() as f64 / 256.0;
    counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum()
}

#[test]
fn lengths_and_order_do_not_depend_on_the_input() {
    let program = program();
    let lengths = |x| -> Vec<(bool, usize)> {
        transcript(&program, &data(x)).into_iter().map(|(up, bytes)| (up, bytes.len())).collect()
    };
    let first = lengths(0);
    for x in [1, -1, 4000, -4000] {
        assert_eq!(lengths(x), first);
    }
}

#[test]
fn what_travels_looks_uniform_for_a_constant_input() {
    let program = program();
    for x in [0, 77] {
        let runs = if x == 0 { 100 } else { 60 };
        let mut by_message: Vec<Vec<u8>> = Vec::new();
        for _ in 0..runs {
            for (i, (_, bytes)) in transcript(&program, &data(x)).into_iter().enumerate() {
                if by_message.len() <= i {
                    by_message.push(Vec::new());
                }
                by_message[i].extend(bytes);
            }
        }
        // The first two are the greetings, readiness is empty; the last is the reveal's share, uniform as well.
        for (i, bytes) in by_message.iter().enumerate().skip(2) {
            let statistic = chi_square(bytes);
            assert!(
                bytes.is_empty() || statistic < 255.0 + 7.0 * 22.6,
                "message {i}: {statistic} over {} bytes",
                bytes.len()
            );
        }
        // The same run's two opened halves are not each other's.
        assert_ne!(by_message[6], by_message[7]);
    }
}
