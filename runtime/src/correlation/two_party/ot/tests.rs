//! Two parties over a channel in memory.

use std::thread;

use marill_program::two_party::effort::Link;
use marill_program::two_party::ot::{self as parameters, LARGE, MEDIUM, SMALL, SOFT_SPOKEN_MOST};

use super::*;
use crate::error::Misbehaviour;
use crate::transport::memory_pair;

/// What the two sides of a run hold.
struct Run {
    delta: Block,
    sent: Vec<Vec<Block>>,
    received: Vec<Vec<Block>>,
}

/// A link on which bytes count for little, and one on which they count.
const FAST: u64 = 1_000_000;
const SLOW: u64 = 10_000;

fn sender(channel: &mut Channel, total: usize, link: Link) -> Result<Sender, RunError> {
    Sender::new(&SenderSeeds::setup(channel)?, &[0; 32], total, link)
}

fn receiver(channel: &mut Channel, total: usize, link: Link) -> Result<Receiver, RunError> {
    Ok(Receiver::new(&ReceiverSeeds::setup(channel)?, &[0; 32], total, link))
}

/// Sets up for `total` COTs, draws `counts`, and checks the meters of both ends against the formula if `metered`.
fn run(total: usize, counts: &[usize], metered: bool) -> Run {
    run_on(Link::new(FAST), total, counts, metered)
}

fn run_on(link: Link, total: usize, counts: &[usize], metered: bool) -> Run {
    let (mut client, mut server) = memory_pair();
    let counts_sent = counts.to_vec();
    let sending = thread::spawn(move || {
        let mut sender = sender(&mut client, total, link).unwrap();
        let keys = counts_sent.iter().map(|count| sender.extend(&mut client, *count).unwrap()).collect();
        (sender.delta(), keys, client.meter().snapshot().total())
    });
    let mut receiver = receiver(&mut server, total, link).unwrap();
    let received = counts.iter().map(|count| receiver.extend(&mut server, *count).unwrap()).collect();
    let (delta, sent, carried) = sending.join().unwrap();
    if metered {
        let traffic = parameters::traffic(total, link);
        assert_eq!(carried.bytes_sent, traffic.sender_bytes);
        assert_eq!(carried.bytes_received, traffic.receiver_bytes);
        assert_eq!(carried.messages_sent, traffic.sender_messages);
        assert_eq!(server.meter().snapshot().total().messages_sent, traffic.receiver_messages);
    }
    Run { delta, sent, received }
}

impl Run {
    /// Checks every COT, that no key comes twice, and that about half of the choices are 1.
    fn check(&self, counts: &[usize]) {
        assert_eq!(self.delta & 1, 1);
        assert!(self.sent.iter().map(Vec::len).eq(counts.iter().copied()));
        assert!(self.received.iter().map(Vec::len).eq(counts.iter().copied()));
        let mut keys: Vec<Block> = self.sent.concat();
        let received = self.received.concat();
        for (key, received) in keys.iter().zip(&received) {
            assert_eq!(key & 1, 0);
            assert_eq!(*received, if received & 1 == 1 { key ^ self.delta } else { *key });
        }
        let ones = received.iter().filter(|key| *key & 1 == 1).count() as f64;
        let mean = keys.len() as f64 / 2.0;
        assert!((ones - mean).abs() <= 6.0 * (mean / 2.0).sqrt() + 1.0, "{ones} ones of {}", keys.len());
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count, "a key came twice");
    }
}

#[test]
fn both_mechanisms_make_cots_and_send_what_the_formula_says() {
    for counts in [
        &[][..],
        &[1],
        &[127, 0, 2],
        &[1000],
        &[SOFT_SPOKEN_MOST],
        &[1, SOFT_SPOKEN_MOST],
        &[300_000],
        &[SMALL.gains(), 1, SMALL.consumes() - 1],
        &[100_000, 500_000, 70_000],
    ] {
        run(counts.iter().sum(), counts, true).check(counts);
    }
}

#[test]
fn medium_iterations_follow_small_ones() {
    let counts = [SMALL.outputs() + 1, MEDIUM.gains()];
    run(counts.iter().sum(), &counts, true).check(&counts);
}

#[test]
fn large_iterations_follow_medium_ones_on_a_slow_link() {
    let counts = [SMALL.outputs() + MEDIUM.gains(), LARGE.gains() - 1000, 1000];
    run_on(Link::new(SLOW), counts.iter().sum(), &counts, true).check(&counts);
}

#[test]
fn more_than_was_announced_can_be_drawn() {
    for (total, counts) in [(0, &[300][..]), (1000, &[999, 500]), (200_000, &[524_000, 1000, 7])] {
        run(total, counts, false).check(counts);
    }
}

#[test]
fn drawing_in_parts_gives_what_one_draw_would_cost() {
    let whole = run(2000, &[2000], true);
    let parts = run(2000, &[1, 999, 0, 1000], true);
    assert_eq!(parts.sent.concat().len(), whole.sent.concat().len());
}

#[test]
fn two_sessions_share_nothing() {
    let (first, second) = (run(1000, &[1000], true), run(1000, &[1000], true));
    assert_ne!(first.delta, second.delta);
    assert!(first.sent[0].iter().all(|key| !second.sent[0].contains(key)));
    let same = first.received[0].iter().zip(&second.received[0]).filter(|(a, b)| (*a ^ *b) & 1 == 0).count();
    assert!((300..700).contains(&same), "{same} choices agree");
}

fn reason<T>(result: Result<T, RunError>) -> Misbehaviour {
    match result.err().expect("a fault") {
        RunError::PeerMisbehaved { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn hostile_setups_are_typed_errors() {
    let sender = parameters::SETUP_SENDER_BYTES as usize;
    let receiver = parameters::SETUP_RECEIVER_BYTES as usize;
    for filler in [0, 1, 0xff] {
        let (mut peer, mut mine) = memory_pair();
        peer.send(&vec![filler; sender]).unwrap();
        assert!(matches!(reason(ReceiverSeeds::setup(&mut mine)), Misbehaviour::Malformed { .. }));
        let (mut peer, mut mine) = memory_pair();
        peer.send(&vec![filler; receiver]).unwrap();
        assert!(matches!(reason(SenderSeeds::setup(&mut mine)), Misbehaviour::Malformed { .. }));
    }
    for length in [0, 31, sender - 1, sender + 1] {
        let (mut peer, mut mine) = memory_pair();
        peer.send(&vec![0; length]).unwrap();
        assert!(matches!(reason(ReceiverSeeds::setup(&mut mine)), Misbehaviour::WrongLength { .. }));
    }
    let (peer, mut mine) = memory_pair();
    drop(peer);
    assert!(matches!(SenderSeeds::setup(&mut mine), Err(RunError::Transport { .. })));
}

#[test]
fn hostile_extensions_are_typed_errors() {
    let set_up = |total| {
        let (mut client, mut server) = memory_pair();
        let sending = thread::spawn(move || (sender(&mut client, total, Link::new(FAST)).unwrap(), client));
        let receiver = receiver(&mut server, total, Link::new(FAST)).unwrap();
        (sending.join().unwrap(), (receiver, server))
    };
    let ((mut sender, mut client), (_, mut server)) = set_up(1000);
    server.send(&[0; 100]).unwrap();
    assert!(matches!(reason(sender.extend(&mut client, 1000)), Misbehaviour::WrongLength { .. }));

    let ((mut sender, mut client), (_, server)) = set_up(1000);
    drop(server);
    assert!(matches!(sender.extend(&mut client, 1000), Err(RunError::Transport { .. })));

    let ((_, mut client), (mut receiver, mut server)) = set_up(300_000);
    client.send(&[0; 5]).unwrap();
    assert!(matches!(reason(receiver.extend(&mut server, 300_000)), Misbehaviour::WrongLength { .. }));

    let ((_, mut client), (mut receiver, mut server)) = set_up(300_000);
    for bytes in parameters::messages(&Step::Silent(SMALL)) {
        client.send(&vec![0xaa; bytes as usize]).unwrap();
    }
    assert_eq!(receiver.extend(&mut server, 300_000).unwrap().len(), 300_000);
}

#[test]
fn kept_seeds_serve_sessions_that_share_delta_alone() {
    let (mut client, mut server) = memory_pair();
    let setting = thread::spawn(move || (SenderSeeds::setup(&mut client).unwrap(), client));
    let received = ReceiverSeeds::setup(&mut server).unwrap();
    let (sent, mut client) = setting.join().unwrap();
    let (mut sent_bytes, mut received_bytes) = (Vec::new(), Vec::new());
    sent.write(&mut sent_bytes);
    received.write(&mut received_bytes);
    let sent_again = SenderSeeds::read(&sent_bytes.try_into().unwrap());
    let received_again = ReceiverSeeds::read(&received_bytes.try_into().unwrap());
    let mut keys = Vec::new();
    for (session, (sent, received)) in
        [[1; 32], [2; 32]].iter().zip([(sent, received), (sent_again, received_again)])
    {
        let mut sender = Sender::new(&sent, session, 1000, Link::new(0)).unwrap();
        let mut receiver = Receiver::new(&received, session, 1000, Link::new(0));
        let theirs = receiver.extend(&mut server, 1000).unwrap();
        let mine = sender.extend(&mut client, 1000).unwrap();
        let run = Run { delta: sender.delta(), sent: vec![mine.clone()], received: vec![theirs] };
        run.check(&[1000]);
        keys.push((run.delta, mine));
    }
    let [(delta, first), (same, second)] = keys.try_into().unwrap();
    assert_eq!(delta, same);
    assert!(first.iter().zip(&second).all(|(a, b)| a != b));
}
