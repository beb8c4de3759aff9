//! A long message each way or one way, sent while it is made and used while it comes.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::channel::{Channel, Direction, Failure, check_length, frame_bytes, read_header};
use super::wire::{Incoming, Wire};
use super::{Ends, Phase};
use crate::error::{Action, Misbehaviour, RunError, TransportFault};

/// Fills a buffer with the next part of the peer's message.
pub type FromPeer<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<(), RunError>;

/// What both parties' messages of one exchange pass through. The parts that are sent wait for the network in memory.
pub struct Flow<'w> {
    incoming: &'w mut dyn Incoming,
    to_send: Sender<Vec<u8>>,
    expected_bytes: usize,
    header_read: bool,
    ends: Ends,
    phase: Phase,
    round: u64,
    failed: &'w dyn Fn(Direction, Failure),
}

impl Flow<'_> {
    /// Sends the next part of this party's message, without waiting.
    pub fn send(&mut self, part: Vec<u8>) {
        // A queue that nobody empties belongs to a connection that has failed, which is told at the end.
        let _ = self.to_send.send(part);
    }

    /// Fills `part` with what follows of the peer's message.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub fn receive(&mut self, part: &mut [u8]) -> Result<(), RunError> {
        if part.is_empty() {
            return Ok(());
        }
        self.read(part).map_err(|failure| {
            (self.failed)(Direction::Receive, failure);
            let (Ends { me, peer }, Flow { phase, round, .. }) = (self.ends, &*self);
            let action = Action::Receive { bytes: part.len() as u64, phase: *phase, round: *round };
            RunError::Transport { me, peer, action, source: TransportFault::AlreadyFailed }
        })
    }

    fn read(&mut self, part: &mut [u8]) -> Result<(), Failure> {
        if !self.header_read {
            let (announced_bytes, expected_bytes) = (read_header(self.incoming)?, self.expected_bytes as u64);
            if announced_bytes != expected_bytes {
                let (phase, round) = (self.phase, self.round);
                let reason = Misbehaviour::WrongLength { phase, round, expected_bytes, announced_bytes };
                return Err(Failure::Peer(reason));
            }
            self.header_read = true;
        }
        Ok(self.incoming.read_exact(part)?)
    }
}

impl Channel {
    /// An exchange of a message of `payload_bytes` for one of `expected_bytes`, of which `work` sends and receives all parts,
    /// in order. Where a length is 0 no message goes that way. Never deadlocks, whatever the lengths and the parts.
    ///
    /// # Errors
    /// As [`Channel::exchange`], and what `work` returns, which closes the connection too.
    pub fn flow<T>(
        &mut self,
        payload_bytes: usize,
        expected_bytes: usize,
        work: impl FnOnce(&mut Flow<'_>) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        check_length(payload_bytes)?;
        check_length(expected_bytes)?;
        let (ends, phase, round) = (self.ends(), self.meter().phase(), self.meter().round());
        let (mut wire, _) = self.detach()?;
        let Wire { outgoing, incoming, hang_up } = &mut wire;
        let first = Mutex::new(None);
        let failed = |direction, failure| {
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((direction, failure));
            hang_up();
        };
        let (result, own) = thread::scope(|scope| {
            let (to_send, parts) = channel::<Vec<u8>>();
            if payload_bytes > 0 {
                let writer = thread::Builder::new().spawn_scoped(scope, || {
                    for part in parts {
                        if let Err(error) = outgoing.write_all(&part) {
                            failed(Direction::Send, Failure::Io(error));
                            return;
                        }
                    }
                });
                if let Err(error) = writer {
                    failed(Direction::Send, Failure::Io(error));
                }
            }
            let (incoming, failed, header_read) = (incoming.as_mut(), &failed, false);
            let mut flow =
                Flow { incoming, to_send, expected_bytes, header_read, ends, phase, round, failed };
            flow.send((payload_bytes as u32).to_le_bytes().to_vec());
            let result = work(&mut flow);
            let own = result.is_err() && first.lock().unwrap_or_else(PoisonError::into_inner).is_none();
            if own {
                // The thread that writes is not left waiting; that its half is closed is then no news.
                hang_up();
            }
            (result, own)
        });
        let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
        match first.filter(|_| !own) {
            Some((direction, failure)) => {
                let bytes = if matches!(direction, Direction::Send) { payload_bytes } else { expected_bytes };
                Err(self.fail(self.action(direction, bytes), failure))
            }
            None => {
                let done = result?;
                self.attach(wire);
                if payload_bytes > 0 {
                    self.meter_mut().sent(frame_bytes(payload_bytes));
                }
                if expected_bytes > 0 {
                    self.meter_mut().received(frame_bytes(expected_bytes));
                }
                Ok(done)
            }
        }
    }
}
