//! Speed and bytes of correlated oblivious transfers, each party alone on one thread:
//! `cargo run --release -p marill-runtime --example transfer_rate`.
//!
//! A channel in memory never fills, and after the first draw messages go one way, so that the party that sends them
//! can finish before the other begins.

use std::thread;
use std::time::Instant;

use marill_program::two_party::ot::{SOFT_SPOKEN_MOST, traffic};
use marill_runtime::correlation::two_party::ot::{Block, Receiver, Sender};
use marill_runtime::error::RunError;
use marill_runtime::transport::memory_pair;

/// COTs of one draw.
const PART: usize = 1_000_000;

/// Draws `count` COTs in parts; returns millions a second.
fn rate(count: usize, mut draw: impl FnMut(usize) -> Result<Vec<Block>, RunError>) -> Result<f64, RunError> {
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        left -= draw(left.min(PART))?.len();
    }
    Ok(count as f64 / start.elapsed().as_secs_f64() / 1e6)
}

/// Sets up for `total`, draws `first` of them together, and `rest` one party after the other.
fn run(total: usize, first: usize, rest: usize) -> Result<(), RunError> {
    let (mut client, mut server) = memory_pair();
    let start = Instant::now();
    let sending = thread::spawn(move || {
        let mut sender = Sender::setup(&mut client, total)?;
        let setup_s = start.elapsed().as_secs_f64();
        sender.extend(&mut client, first)?;
        Ok::<_, RunError>((sender, client, setup_s))
    });
    let mut receiver = Receiver::setup(&mut server, total)?;
    receiver.extend(&mut server, first)?;
    let Ok(sent) = sending.join() else { return Ok(()) };
    let (mut sender, mut client, setup_s) = sent?;
    let together_s = start.elapsed().as_secs_f64() - setup_s;
    println!("{total} announced: setup {:.0} ms, {first} drawn in {:.0} ms", setup_s * 1e3, together_s * 1e3);
    let silent = total > SOFT_SPOKEN_MOST;
    let mut send = || rate(rest, |count| sender.extend(&mut client, count));
    let mut receive = || rate(rest, |count| receiver.extend(&mut server, count));
    let (sent, received) = if silent {
        let sent = send()?;
        (sent, receive()?)
    } else {
        let received = receive()?;
        (send()?, received)
    };
    println!("    then {rest} at {sent:.1} M/s by the sender, {received:.1} M/s by the receiver");
    Ok(())
}

fn main() -> Result<(), RunError> {
    run(0, 0, 10 * PART)?;
    for total in [300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000] {
        run(total, 1, total - 1)?;
        let traffic = traffic(total);
        let bytes = (traffic.sender_bytes + traffic.receiver_bytes) as f64 / total as f64;
        println!("    {bytes:.3} bytes each, {} flows", traffic.flows);
    }
    Ok(())
}
