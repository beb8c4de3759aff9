//! A slower network than there is: everything sent waits in a queue until the emulated network would deliver it.
//!
//! A byte is delivered when all bytes before it have passed a link of the given bandwidth, plus half a round trip.
//! Only what this end sends is delayed, so both ends must be shaped. The queue takes what the network carries in a second,
//! then whoever sends waits, as for the buffers of a socket; losses, slow start and congestion are not emulated.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Network;
use super::wire::{Outgoing, Wire};

/// How far ahead of the network a sender may be.
const AHEAD: Duration = Duration::from_secs(1);

type Fault = Arc<Mutex<Option<io::Error>>>;

/// `wire` with what it sends delayed as on `network`.
pub(super) fn shape(wire: Wire, network: Network) -> Wire {
    let stopped = Arc::new(AtomicBool::new(false));
    let fault = Fault::default();
    let (queue, queued) = channel();
    let courier = {
        let (stopped, fault, inner) = (Arc::clone(&stopped), Arc::clone(&fault), wire.outgoing);
        thread::spawn(move || deliver(&queued, inner, &stopped, &fault))
    };
    let outgoing = ShapedOutgoing {
        network,
        free_at: Instant::now(),
        queue: Some(queue),
        courier: Some(courier),
        fault,
    };
    let hang_up = wire.hang_up;
    Wire {
        outgoing: Box::new(outgoing),
        incoming: wire.incoming,
        hang_up: Box::new(move || {
            stopped.store(true, Ordering::Relaxed);
            hang_up();
        }),
    }
}

fn deliver(
    queued: &Receiver<(Instant, Vec<u8>)>,
    mut inner: Box<dyn Outgoing>,
    stopped: &AtomicBool,
    fault: &Fault,
) {
    for (release, bytes) in queued {
        thread::sleep(release.saturating_duration_since(Instant::now()));
        if stopped.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = inner.write_all(&bytes) {
            *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return;
        }
    }
}

struct ShapedOutgoing {
    network: Network,
    free_at: Instant,
    queue: Option<Sender<(Instant, Vec<u8>)>>,
    courier: Option<JoinHandle<()>>,
    fault: Fault,
}

impl ShapedOutgoing {
    /// Kept within what durations can hold.
    fn bytes_per_second(&self) -> f64 {
        (self.network.bandwidth_bits_per_second / 8.0).max(125.0)
    }
}

impl Outgoing for ShapedOutgoing {
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ahead = self.free_at.saturating_duration_since(Instant::now());
        let taken = AHEAD.saturating_sub(ahead).as_secs_f64() * self.bytes_per_second();
        let taken = (taken as usize).min(bytes.len());
        self.write_all(&bytes[..taken])?;
        Ok(taken)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let bytes_per_second = self.bytes_per_second();
        // 10 ms of bandwidth at a time, so that a hang-up is noticed while much is still queued.
        let chunk_bytes = ((bytes_per_second * 0.01) as usize).clamp(1, 1 << 16);
        let half_trip =
            Duration::try_from_secs_f64((self.network.rtt_seconds / 2.0).min(30.0)).unwrap_or_default();
        self.free_at = self.free_at.max(Instant::now());
        for chunk in bytes.chunks(chunk_bytes) {
            let ahead = self.free_at.saturating_duration_since(Instant::now());
            thread::sleep(ahead.saturating_sub(AHEAD));
            self.free_at += Duration::from_secs_f64(chunk.len() as f64 / bytes_per_second);
            let sent = match &self.queue {
                Some(queue) => queue.send((self.free_at + half_trip, chunk.to_vec())).is_ok(),
                None => false,
            };
            if !sent {
                let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
                return Err(fault.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
            }
        }
        Ok(())
    }
}

impl Drop for ShapedOutgoing {
    /// Waits until everything sent is delivered, unless the wire was hung up.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(courier) = self.courier.take() {
            let _ = courier.join();
        }
    }
}
