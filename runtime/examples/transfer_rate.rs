//! Speed and bytes of correlated oblivious transfers, both parties in this process, one thread each:
//! `cargo run --release -p marill-runtime --example transfer_rate`.

use std::thread;
use std::time::Instant;

use marill_program::two_party::ot::{SOFT_SPOKEN_MOST, traffic};
use marill_runtime::correlation::two_party::ot::{Receiver, Sender};
use marill_runtime::error::RunError;
use marill_runtime::transport::memory_pair;

/// Seconds of setup and of drawing `total` COTs in parts of `part`.
fn run(total: usize, announced: usize, part: usize) -> Result<(f64, f64), RunError> {
    let (mut client, mut server) = memory_pair();
    let draws = total.div_ceil(part);
    let sending = thread::spawn(move || {
        let mut sender = Sender::setup(&mut client, announced)?;
        for _ in 0..draws {
            sender.extend(&mut client, part)?;
        }
        Ok::<_, RunError>(())
    });
    let start = Instant::now();
    let mut receiver = Receiver::setup(&mut server, announced)?;
    let setup_s = start.elapsed().as_secs_f64();
    for _ in 0..draws {
        receiver.extend(&mut server, part)?;
    }
    sending.join().unwrap_or(Ok(()))?;
    Ok((setup_s, start.elapsed().as_secs_f64() - setup_s))
}

fn main() -> Result<(), RunError> {
    let (total, part) = (10_000_000, 1_000_000);
    let (_, seconds) = run(total, 0, part)?;
    println!("SoftSpoken, {total}: {:.1} M/s", total as f64 / seconds / 1e6);
    for total in [SOFT_SPOKEN_MOST, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000] {
        let (setup_s, seconds) = run(total, total, part.min(total))?;
        let traffic = traffic(total);
        println!(
            "planned, {total}: setup {:.1} ms, then {:.1} M/s; {:.3} bytes each, {} flows",
            setup_s * 1e3,
            total as f64 / seconds / 1e6,
            (traffic.sender_bytes + traffic.receiver_bytes) as f64 / total as f64,
            traffic.flows
        );
    }
    Ok(())
}
