//! A pair of channels inside one process, for tests: bytes as a queue of chunks, never full.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::wire::{Incoming, Outgoing, Wire};
use super::{Channel, Ends, Timeouts};
use crate::error::Role;

/// The client's and the server's end of one channel, with the default timeouts.
pub fn memory_pair() -> (Channel, Channel) {
    memory_pair_between(Role::Client, Role::Server, Timeouts::default().idle)
}

/// The ends of `first` and of `second` of one channel on which nobody waits longer than `idle`.
pub fn memory_pair_between(first: Role, second: Role, idle: Duration) -> (Channel, Channel) {
    let (first_sends, second_receives) = channel();
    let (second_sends, first_receives) = channel();
    let end = |me, peer, sender, receiver| {
        let wire = Wire {
            outgoing: Box::new(MemoryOutgoing { sender }),
            incoming: Box::new(MemoryIncoming { receiver, chunk: Vec::new(), read_bytes: 0, idle }),
            hang_up: Box::new(|| {}),
        };
        Channel::new(Ends { me, peer }, wire, idle)
    };
    (end(first, second, first_sends, first_receives), end(second, first, second_sends, second_receives))
}

struct MemoryOutgoing {
    sender: Sender<Vec<u8>>,
}

impl Outgoing for MemoryOutgoing {
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sender.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct MemoryIncoming {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    read_bytes: usize,
    idle: Duration,
}

impl Incoming for MemoryIncoming {
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            if self.read_bytes == self.chunk.len() {
                self.chunk = self.receiver.recv_timeout(self.idle).map_err(|error| match error {
                    RecvTimeoutError::Timeout => io::Error::from(io::ErrorKind::TimedOut),
                    RecvTimeoutError::Disconnected => io::ErrorKind::UnexpectedEof.into(),
                })?;
                self.read_bytes = 0;
            }
            let ready = &self.chunk[self.read_bytes..];
            let taken = ready.len().min(buffer.len());
            let (filled, rest) = buffer.split_at_mut(taken);
            filled.copy_from_slice(&ready[..taken]);
            self.read_bytes += taken;
            buffer = rest;
        }
        Ok(())
    }
}
