//! What travels: the same lengths for every input, and bytes that look uniform whatever the input.

use std::thread;
use std::time::Duration;

use marill_program::ValidProgram;
use marill_runtime::error::Role;
use marill_runtime::transport::{Channel, Lanes, memory_pair_between};

use crate::run::*;
use crate::tapped::{chi_square, data, program};

/// Where a message goes: by which lane, to the server, to the client.
type Way = (usize, bool, bool);

/// The lanes of rounds, and of weights and what shows that a party is there.
const ROUNDS: usize = 0;
const OTHER: usize = 1;

/// Forwards messages between the two ends as the program's rounds have them, and keeps a copy.
fn wiretap(mut client: Channel, mut server: Channel, pattern: &[Way]) -> Vec<(bool, Vec<u8>)> {
    let mut seen = Vec::new();
    let mut forward = |client: &mut Channel, server: &mut Channel, (to_server, to_client): (bool, bool)| {
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
    };
    // Greetings come before lanes.
    forward(&mut client, &mut server, (true, true));
    let windows = [1 << 20; 2];
    let (to_client, mut client_lanes) = Lanes::open(&mut client, windows).unwrap();
    let (to_server, mut server_lanes) = Lanes::open(&mut server, windows).unwrap();
    for &(lane, up, down) in pattern {
        forward(&mut client_lanes[lane], &mut server_lanes[lane], (up, down));
    }
    to_client.close(&mut client, client_lanes).unwrap();
    to_server.close(&mut server, server_lanes).unwrap();
    seen
}

fn transcript(program: &ValidProgram, data: &Data) -> Vec<(bool, Vec<u8>)> {
    let idle = Duration::from_secs(30);
    let mut links = links(idle);
    let (client, tap_client) = memory_pair_between(Role::Client, Role::Server, idle);
    let (tap_server, server) = memory_pair_between(Role::Client, Role::Server, idle);
    links.client_server = (client, server);
    // The weight; x to the server; the product; the digits; the bit; the reveal to the client; readiness.
    let pattern = [
        (OTHER, false, true),
        (ROUNDS, true, false),
        (ROUNDS, true, true),
        (ROUNDS, true, true),
        (ROUNDS, true, true),
        (ROUNDS, false, true),
        (OTHER, false, true),
        (OTHER, true, false),
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

#[test]
fn lengths_and_order_do_not_depend_on_the_input() {
    let program = program();
    let lengths = |x| -> Vec<(bool, usize)> {
        transcript(&program, &data(x, 0.25)).into_iter().map(|(up, bytes)| (up, bytes.len())).collect()
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
            for (i, (_, bytes)) in transcript(&program, &data(x, 0.25)).into_iter().enumerate() {
                if by_message.len() <= i {
                    by_message.push(Vec::new());
                }
                by_message[i].extend(bytes);
            }
        }
        // The first two are the greetings, readiness is empty; the reveal's share is uniform as well.
        for (i, bytes) in by_message.iter().enumerate().skip(2) {
            let statistic = chi_square(bytes);
            assert!(
                bytes.is_empty() || statistic < 255.0 + 7.0 * 22.6,
                "message {i}: {statistic} over {} bytes",
                bytes.len()
            );
        }
        // The same run's two opened halves are not each other's.
        assert_ne!(by_message[4], by_message[5]);
    }
}
