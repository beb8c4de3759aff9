//! One ordered channel of messages to a named peer.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::wire::{Incoming, Wire};
use super::{Ends, HEADER_BYTES, Meter, Network, Phase, shaped};
use crate::error::{Action, Misbehaviour, Role, RunError, TransportFault};

/// As much of a payload as is copied behind its header, so that a short message is one write.
const STAGED_BYTES: usize = 1 << 16;

/// The longest payload that a header can announce.
const LIMIT_BYTES: u64 = u32::MAX as u64 - 1;

/// Sends and receives messages whose lengths both ends know.
///
/// Every method that moves bytes returns, for faults of the connection, [`RunError::Transport`]; after any error the
/// connection is closed and every later call fails.
pub struct Channel {
    ends: Ends,
    wire: Option<Wire>,
    idle: Duration,
    meter: Meter,
    staging: Vec<u8>,
}

pub(super) enum Failure {
    Io(io::Error),
    Peer(Misbehaviour),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

#[derive(Clone, Copy)]
pub(super) enum Direction {
    Send,
    Receive,
}

impl Channel {
    pub(super) fn new(ends: Ends, wire: Wire, idle: Duration) -> Channel {
        Channel { ends, wire: Some(wire), idle, meter: Meter::default(), staging: Vec::new() }
    }

    /// This channel as it would be on `network`: what this end sends is delayed, so the other end must be shaped
    /// too. `Network::LOOPBACK` changes nothing. For tests and predictions; dropping a shaped channel waits until
    /// what it sent is delivered.
    pub fn shaped(mut self, network: Network) -> Channel {
        if network != Network::LOOPBACK {
            self.wire = self.wire.take().map(|wire| shaped::shape(wire, network));
        }
        self
    }

    /// Both ends.
    pub(super) fn ends(&self) -> Ends {
        self.ends
    }

    /// What carries the bytes and how long it may be silent, for another use of the connection; until it is attached
    /// again, every call fails.
    pub(super) fn detach(&mut self) -> Result<(Wire, Duration), RunError> {
        match self.wire.take() {
            Some(wire) => Ok((wire, self.idle)),
            None => Err(self.already_failed(self.action(Direction::Send, 0))),
        }
    }

    /// The connection is this channel's again.
    pub(super) fn attach(&mut self, wire: Wire) {
        self.wire = Some(wire);
    }

    /// What a connection that was detached said at last.
    pub(super) fn broken(&mut self, error: io::Error) -> RunError {
        self.fail(self.action(Direction::Receive, 0), error.into())
    }

    /// The other end.
    pub fn peer(&self) -> Role {
        self.ends.peer
    }

    /// This end.
    pub fn me(&self) -> Role {
        self.ends.me
    }

    /// What this channel carried.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The meter, to set the phase or the label of what follows.
    pub fn meter_mut(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Counts one round as ended.
    pub fn end_round(&mut self) {
        self.meter.end_round();
    }

    /// Sends one message. Waits while the peer does not take it, so two parties must not both `send` a long message
    /// before they receive: that is [`Channel::exchange`].
    ///
    /// # Errors
    /// `Exhausted` for a payload of 4 GiB or more; `Transport`.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), RunError> {
        let action = self.action(Direction::Send, payload.len());
        check_length(payload.len())?;
        let rest = self.stage(payload);
        let Some(wire) = &mut self.wire else { return Err(self.already_failed(action)) };
        let written = wire.outgoing.write_all(&self.staging).and_then(|()| wire.outgoing.write_all(rest));
        written.map_err(|error| self.fail(action, error.into()))?;
        self.meter.sent(frame_bytes(payload.len()));
        Ok(())
    }

    /// Receives one message of exactly `expected_bytes`.
    ///
    /// # Errors
    /// `PeerMisbehaved` as soon as a header announces another length; `Exhausted` for 4 GiB or more; `Transport`.
    pub fn recv(&mut self, expected_bytes: usize) -> Result<Vec<u8>, RunError> {
        check_length(expected_bytes)?;
        let mut payload = vec![0; expected_bytes];
        self.recv_into(&mut payload)?;
        Ok(payload)
    }

    /// Receives one message that fills `payload` exactly.
    ///
    /// # Errors
    /// As [`Channel::recv`].
    pub fn recv_into(&mut self, payload: &mut [u8]) -> Result<(), RunError> {
        let action = self.action(Direction::Receive, payload.len());
        check_length(payload.len())?;
        let (phase, round) = (self.meter.phase(), self.meter.round());
        let Some(wire) = &mut self.wire else { return Err(self.already_failed(action)) };
        read_frame(wire.incoming.as_mut(), payload, phase, round)
            .map_err(|failure| self.fail(action, failure))?;
        self.meter.received(frame_bytes(payload.len()));
        Ok(())
    }

    /// Receives one message of at most `limit_bytes`, for the few whose length the program does not give.
    ///
    /// # Errors
    /// `PeerMisbehaved` as soon as a header announces more; `Transport`.
    pub fn recv_at_most(&mut self, limit_bytes: usize) -> Result<Vec<u8>, RunError> {
        let action = self.action(Direction::Receive, limit_bytes);
        let Some(wire) = &mut self.wire else { return Err(self.already_failed(action)) };
        let payload = read_limited(wire.incoming.as_mut(), limit_bytes)
            .map_err(|failure| self.fail(action, failure))?;
        self.meter.received(frame_bytes(payload.len()));
        Ok(payload)
    }

    /// Sends `payload` and receives `expected_bytes` at the same time, while the peer does the same. Never deadlocks,
    /// whatever the lengths.
    ///
    /// # Errors
    /// As [`Channel::send`] and [`Channel::recv`]; of two failures the one that came first.
    pub fn exchange(&mut self, payload: &[u8], expected_bytes: usize) -> Result<Vec<u8>, RunError> {
        check_length(expected_bytes)?;
        let mut received = vec![0; expected_bytes];
        self.exchange_into(payload, &mut received)?;
        Ok(received)
    }

    /// [`Channel::exchange`] that fills `received` exactly.
    ///
    /// # Errors
    /// As [`Channel::exchange`].
    pub fn exchange_into(&mut self, payload: &[u8], received: &mut [u8]) -> Result<(), RunError> {
        check_length(payload.len())?;
        check_length(received.len())?;
        let (phase, round) = (self.meter.phase(), self.meter.round());
        let rest = self.stage(payload);
        let sending = self.action(Direction::Send, payload.len());
        let receiving = self.action(Direction::Receive, received.len());
        let Some(wire) = &mut self.wire else { return Err(self.already_failed(sending)) };
        both(wire, [&self.staging, rest], |incoming| read_frame(incoming, received, phase, round)).map_err(
            |(direction, failure)| match direction {
                Direction::Send => self.fail(sending, failure),
                Direction::Receive => self.fail(receiving, failure),
            },
        )?;
        self.meter.sent(frame_bytes(payload.len()));
        self.meter.received(frame_bytes(received.len()));
        Ok(())
    }

    /// Puts the header and the beginning of `payload` into the staging buffer, and returns the rest.
    fn stage<'a>(&mut self, payload: &'a [u8]) -> &'a [u8] {
        let (start, rest) = payload.split_at(payload.len().min(STAGED_BYTES));
        self.staging.clear();
        self.staging.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.staging.extend_from_slice(start);
        rest
    }

    pub(super) fn action(&self, direction: Direction, bytes: usize) -> Action {
        let (bytes, phase, round) = (bytes as u64, self.meter.phase(), self.meter.round());
        match direction {
            Direction::Send => Action::Send { bytes, phase, round },
            Direction::Receive => Action::Receive { bytes, phase, round },
        }
    }

    fn already_failed(&self, action: Action) -> RunError {
        let Ends { me, peer } = self.ends;
        RunError::Transport { me, peer, action, source: TransportFault::AlreadyFailed }
    }

    pub(super) fn fail(&mut self, action: Action, failure: Failure) -> RunError {
        if let Some(wire) = self.wire.take() {
            (wire.hang_up)();
        }
        let Ends { me, peer } = self.ends;
        match failure {
            Failure::Peer(reason) => RunError::PeerMisbehaved { peer, reason },
            Failure::Io(error) => {
                RunError::Transport { me, peer, action, source: fault_of(error, self.idle) }
            }
        }
    }
}

/// Sorts what a socket call said.
pub(super) fn fault_of(error: io::Error, idle: Duration) -> TransportFault {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::WouldBlock | Kind::TimedOut => TransportFault::Silent { after: idle },
        Kind::UnexpectedEof
        | Kind::BrokenPipe
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::WriteZero => TransportFault::Closed,
        Kind::InvalidData => TransportFault::Tls { text: error.to_string() },
        _ => TransportFault::Io(error),
    }
}

pub(super) fn frame_bytes(payload_bytes: usize) -> u64 {
    (HEADER_BYTES + payload_bytes) as u64
}

pub(super) fn check_length(payload_bytes: usize) -> Result<(), RunError> {
    let needed_bytes = payload_bytes as u64;
    if needed_bytes > LIMIT_BYTES {
        return Err(RunError::Exhausted { what: "message", needed_bytes, limit_bytes: LIMIT_BYTES });
    }
    Ok(())
}

pub(super) fn read_header(incoming: &mut dyn Incoming) -> Result<u64, Failure> {
    let mut header = [0; HEADER_BYTES];
    incoming.read_exact(&mut header)?;
    Ok(u32::from_le_bytes(header).into())
}

fn read_frame(
    incoming: &mut dyn Incoming,
    payload: &mut [u8],
    phase: Phase,
    round: u64,
) -> Result<(), Failure> {
    let announced_bytes = read_header(incoming)?;
    let expected_bytes = payload.len() as u64;
    if announced_bytes != expected_bytes {
        let reason = Misbehaviour::WrongLength { phase, round, expected_bytes, announced_bytes };
        return Err(Failure::Peer(reason));
    }
    Ok(incoming.read_exact(payload)?)
}

fn read_limited(incoming: &mut dyn Incoming, limit_bytes: usize) -> Result<Vec<u8>, Failure> {
    let announced_bytes = read_header(incoming)?;
    let limit_bytes = limit_bytes as u64;
    if announced_bytes > limit_bytes {
        return Err(Failure::Peer(Misbehaviour::TooLong { limit_bytes, announced_bytes }));
    }
    let mut payload = vec![0; announced_bytes as usize];
    incoming.read_exact(&mut payload)?;
    Ok(payload)
}

/// Writes `parts` one after the other while `read` runs. The first failure of either hangs up, so the other returns.
fn both(
    wire: &mut Wire,
    parts: [&[u8]; 2],
    read: impl FnOnce(&mut dyn Incoming) -> Result<(), Failure>,
) -> Result<(), (Direction, Failure)> {
    let Wire { outgoing, incoming, hang_up } = wire;
    let send_failed = |error: io::Error| (Direction::Send, error.into());
    let mut left = parts;
    for part in &mut left {
        let taken = outgoing.offer(part).map_err(send_failed)?;
        *part = &part[taken..];
        if !part.is_empty() {
            break;
        }
    }
    if left.iter().all(|part| part.is_empty()) && !outgoing.has_backlog() {
        return read(incoming.as_mut()).map_err(|failure| (Direction::Receive, failure));
    }
    let first = Mutex::new(None);
    let note = |direction, failure| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some((direction, failure));
            hang_up();
        }
    };
    thread::scope(|scope| {
        let writer = thread::Builder::new().spawn_scoped(scope, || {
            if let Err(error) = left.iter().try_for_each(|part| outgoing.write_all(part)) {
                note(Direction::Send, Failure::Io(error));
            }
        });
        match writer {
            Err(error) => note(Direction::Send, Failure::Io(error)),
            Ok(_) => {
                if let Err(failure) = read(incoming.as_mut()) {
                    note(Direction::Receive, failure);
                }
            }
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
