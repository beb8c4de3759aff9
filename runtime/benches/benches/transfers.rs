//! Correlated oblivious transfers, each party's own work: a channel in memory never fills, and after the first draw
//! messages go one way, so the party that sends them finishes before the other begins. `MARILL_THREADS=1` keeps to one
//! core.

use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use marill_benches::brief;
use marill_program::two_party::effort::Link;
use marill_program::two_party::ot::{SOFT_SPOKEN_MOST, traffic};
use marill_runtime::correlation::two_party::ot::{Receiver, ReceiverSeeds, Sender, SenderSeeds};
use marill_runtime::error::RunError;
use marill_runtime::transport::memory_pair;

/// COTs of one draw.
const PART: usize = 1_000_000;

/// Seconds that the sender and the receiver take for all but the first of `total` COTs.
fn draw(total: usize, link: Link) -> Result<[Duration; 2], RunError> {
    let (mut client, mut server) = memory_pair();
    let sending = thread::spawn(move || {
        let mut sender = Sender::new(&SenderSeeds::setup(&mut client)?, &[0; 32], total, link)?;
        sender.extend(&mut client, 1)?;
        Ok::<_, RunError>((sender, client))
    });
    let mut receiver = Receiver::new(&ReceiverSeeds::setup(&mut server)?, &[0; 32], total, link);
    receiver.extend(&mut server, 1)?;
    let (mut sender, mut client) = sending.join().expect("the sender's thread")?;
    let parts: Vec<usize> = (1..total).step_by(PART).map(|from| PART.min(total - from)).collect();
    let mut send = || {
        let start = Instant::now();
        parts.iter().try_for_each(|count| sender.extend(&mut client, *count).map(drop))?;
        Ok::<_, RunError>(start.elapsed())
    };
    let mut receive = || {
        let start = Instant::now();
        parts.iter().try_for_each(|count| receiver.extend(&mut server, *count).map(drop))?;
        Ok::<_, RunError>(start.elapsed())
    };
    Ok(if total > SOFT_SPOKEN_MOST {
        let sent = send()?;
        [sent, receive()?]
    } else {
        let received = receive()?;
        [send()?, received]
    })
}

fn transfers(c: &mut Criterion) {
    let mut group = c.benchmark_group("cots");
    let runs = [SOFT_SPOKEN_MOST, 1_000_000, 10_000_000, 30_000_000].map(|total| (total, 1_000_000));
    for (total, kbits_per_second) in runs.into_iter().chain([(30_000_000, 10_000)]) {
        let link = Link::new(kbits_per_second);
        let traffic = traffic(total, link);
        let bytes = (traffic.sender_bytes + traffic.receiver_bytes) as f64 / total as f64;
        group.throughput(Throughput::Elements(total as u64));
        for (party, name) in ["sender", "receiver"].into_iter().enumerate() {
            group.bench_function(format!("{total} at {bytes:.3} bytes each/{name}"), |bench| {
                bench.iter_custom(|times| {
                    (0..times).map(|_| draw(total, link).expect("a run between honest parties")[party]).sum()
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = brief();
    targets = transfers
}
criterion_main!(benches);
