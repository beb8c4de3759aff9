//! What travels between two parties alone: the same lengths in the same order for every input, and bytes that look
//! uniform.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use marill_program::ValidProgram;
use marill_program::two_party::ot::{SETUP_RECEIVER_BYTES, SETUP_SENDER_BYTES};
use marill_runtime::error::Role;
use marill_runtime::session::{run_client, run_server};
use marill_runtime::transport::{Ends, Listener, Protection, Timeouts, connect};

use crate::run::*;
use crate::tapped::{chi_square, data, program};

/// Bytes of the greeting on the connection, before the first message.
const PREAMBLE: usize = 8;

/// Copies one direction of a connection and keeps what passed.
fn copy(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 1 << 16]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                all.extend_from_slice(&buffer[..count]);
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    all
}

/// Header of a message that opens lanes.
const OPENING: u32 = u32::MAX;

/// The messages of a direction: those before lanes, then lane by lane, then those behind.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (Vec::new(), &bytes[PREAMBLE..]);
    while let Some((header, later)) = rest.split_first_chunk::<4>() {
        rest = later;
        if u32::from_le_bytes(*header) == OPENING {
            all.extend(lanes(&mut rest));
            continue;
        }
        let (message, later) = later.split_at(u32::from_le_bytes(*header) as usize);
        all.push(message.to_vec());
        rest = later;
    }
    all
}

/// The messages of all lanes, whose frames interleave as they may.
fn lanes(rest: &mut &[u8]) -> Vec<Vec<u8>> {
    let mut streams: [Vec<u8>; 4] = Default::default();
    loop {
        let ([kind, length @ ..], later) = rest.split_first_chunk::<4>().unwrap();
        *rest = later;
        let length = u32::from_le_bytes([length[0], length[1], length[2], 0]) as usize;
        match kind {
            0..4 => {
                let (bytes, later) = rest.split_at(length);
                streams[usize::from(*kind)].extend_from_slice(bytes);
                *rest = later;
            }
            0x80..0x84 => {}
            0xff => break,
            _ => panic!("a frame of kind {kind}"),
        }
    }
    let mut all = Vec::new();
    for stream in streams {
        let mut rest = &stream[..];
        while let Some((header, later)) = rest.split_first_chunk::<4>() {
            let (message, later) = later.split_at(u32::from_le_bytes(*header) as usize);
            all.push(message.to_vec());
            rest = later;
        }
    }
    all
}

/// Messages of a run over TCP, from the client and from the server.
fn transcript(program: &ValidProgram, data: &Data) -> [Vec<Vec<u8>>; 2] {
    let idle = Duration::from_secs(60);
    let timeouts = Timeouts { accept: Some(idle), connect: idle, greet: idle, idle };
    let bundles = bundles(program, program, data);
    let listener = Listener::bind("127.0.0.1:0", Ends { me: Role::Server, peer: Role::Client }).unwrap();
    let server_address = listener.address();
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap_address = tap.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        let tapped = scope.spawn(move || {
            let (client, _) = tap.accept().unwrap();
            let server = TcpStream::connect(server_address).unwrap();
            let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let up = thread::spawn(move || copy(client, server));
            let down = copy(server_too, client_too);
            [up.join().unwrap(), down]
        });
        let server = scope.spawn(|| {
            let channel =
                listener.accept(Ends { me: Role::Server, peer: Role::Client }, &Protection::Plain, &timeouts);
            run_server(&bundles.1, data.server.clone(), channel.unwrap(), None, &mut |_| {}).unwrap();
        });
        let ends = Ends { me: Role::Client, peer: Role::Server };
        let channel = connect(&tap_address, ends, &Protection::Plain, &timeouts).unwrap();
        run_client(&bundles.0, data.client.clone(), channel, None, &mut |_| {}).unwrap();
        server.join().unwrap();
        tapped.join().unwrap().map(|bytes| messages(&bytes))
    })
}

#[test]
fn lengths_and_order_depend_on_the_program_alone() {
    let program = program();
    let lengths =
        |x, w| transcript(&program, &data(x, w)).map(|all| all.iter().map(Vec::len).collect::<Vec<_>>());
    let first = lengths(0, 0.25);
    for (x, w) in [(1, 0.25), (-4000, 0.25), (4000, 0.0), (0, -0.5)] {
        assert_eq!(lengths(x, w), first);
    }
}

#[test]
fn what_travels_looks_uniform() {
    let program = program();
    for (x, w) in [(0, 0.0), (77, 0.25)] {
        let mut runs: Vec<[Vec<Vec<u8>>; 2]> = Vec::new();
        (0..12).for_each(|_| runs.push(transcript(&program, &data(x, w))));
        for side in 0..2 {
            for at in 0..runs[0][side].len() {
                let bytes: Vec<u8> = runs.iter().flat_map(|run| run[side][at].iter().copied()).collect();
                let length = runs[0][side][at].len() as u64;
                // Greetings and group elements are not uniform; what is too short tells nothing.
                if [0, 64, SETUP_SENDER_BYTES, SETUP_RECEIVER_BYTES].contains(&length) || bytes.len() < 1280 {
                    continue;
                }
                let statistic = chi_square(&bytes);
                assert!(
                    statistic < 255.0 + 7.0 * 22.6,
                    "side {side}, message {at}: {statistic} over {} bytes",
                    bytes.len()
                );
            }
        }
    }
}
