//! Several channels over one connection, for work that goes on side by side.
//!
//! On the wire: frames of a byte that says what it is, a length of three bytes and, for a lane's bytes, as many of them.
//! Meters do not count these four bytes, as they do not count what TLS adds.
//!
//! Flow: a lane's receiver keeps no more than a window of bytes that nobody has read, and grants what was read to the
//! sender again. So a lane whose reader computes never holds up the others, two lanes cannot wait for each other, and
//! memory is bounded. Of several lanes with something to send, the first goes first.
//!
//! Both ends open as many lanes with the same windows, and close them when all work is done: then the connection is one
//! channel again. Any fault of the connection is a fault of all lanes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Channel;
use super::wire::{Incoming, Outgoing, Wire};
use crate::error::{Misbehaviour, Role, RunError};

/// What both ends say first: no message is that long.
const OPENING: [u8; 4] = [0xff; 4];

/// A frame's first byte where it is not the number of a lane whose bytes follow: this and a lane's number for a grant,
/// or the end of all lanes.
const GRANT: u8 = 0x80;
const END: u8 = 0xff;

/// Bytes of a lane in one frame, so that an urgent lane waits for no more of another.
const SEGMENT_BYTES: usize = 1 << 16;

/// The longest window: what three bytes can grant.
const LONGEST_WINDOW: usize = (1 << 24) - 1;

/// The lanes of a connection.
pub struct Lanes {
    hub: Arc<Hub>,
    reader: Option<JoinHandle<Option<Box<dyn Incoming>>>>,
    writer: Option<JoinHandle<Option<Box<dyn Outgoing>>>>,
    peer: Role,
}

struct Hub {
    state: Mutex<State>,
    /// There may be something for the writer.
    to_write: Condvar,
    /// Something has changed for a lane.
    changed: Vec<Condvar>,
    hang_up: Box<dyn Fn() + Send + Sync>,
    idle: Duration,
}

struct State {
    lanes: Vec<Lane>,
    /// When the peer was last heard.
    heard: Instant,
    /// Why nothing moves any more.
    fault: Option<Fault>,
    /// Since when nothing more will be sent.
    ending: Option<Instant>,
    /// The peer sends nothing more.
    ended: bool,
}

struct Lane {
    window: usize,
    inbox: VecDeque<u8>,
    /// Read and not yet granted again.
    owed: usize,
    outbox: VecDeque<u8>,
    /// Bytes that the peer still takes.
    credit: usize,
}

#[derive(Clone)]
enum Fault {
    Io(ErrorKind, String),
    Peer(String),
}

impl Fault {
    fn of(error: &io::Error) -> Fault {
        Fault::Io(error.kind(), error.to_string())
    }

    fn error(&self) -> io::Error {
        match self {
            Fault::Io(kind, text) => io::Error::new(*kind, text.clone()),
            Fault::Peer(_) => ErrorKind::ConnectionAborted.into(),
        }
    }
}

impl Lanes {
    /// Opens a lane for each of `windows` on `channel`, which carries nothing else until they are closed.
    ///
    /// # Errors
    /// `Transport`; `PeerMisbehaved` if the peer opens none.
    pub fn open<const N: usize>(
        channel: &mut Channel,
        windows: [usize; N],
    ) -> Result<(Lanes, [Channel; N]), RunError> {
        let peer = channel.peer();
        let (mut wire, idle) = channel.detach()?;
        let mut theirs = [0; OPENING.len()];
        let met = wire.outgoing.write_all(&OPENING).and_then(|()| wire.incoming.read_exact(&mut theirs));
        if let Err(error) = met {
            return Err(channel.broken(error));
        }
        if theirs != OPENING {
            let found = format!("a message of {} bytes", u32::from_le_bytes(theirs));
            return Err(RunError::PeerMisbehaved { peer, reason: malformed(found) });
        }
        let lane = |window: usize| {
            let window = window.clamp(1, LONGEST_WINDOW);
            Lane { window, inbox: VecDeque::new(), owed: 0, outbox: VecDeque::new(), credit: window }
        };
        let Wire { outgoing, incoming, hang_up } = wire;
        let hub = Arc::new(Hub {
            state: Mutex::new(State {
                lanes: windows.map(lane).into(),
                heard: Instant::now(),
                fault: None,
                ending: None,
                ended: false,
            }),
            to_write: Condvar::new(),
            changed: windows.iter().map(|_| Condvar::new()).collect(),
            hang_up,
            idle,
        });
        let (of_reader, of_writer) = (Arc::clone(&hub), Arc::clone(&hub));
        let reader = thread::spawn(move || of_reader.read(incoming));
        let writer = thread::spawn(move || of_writer.write(outgoing));
        let end = |lane: usize| {
            let stop = Arc::clone(&hub);
            let wire = Wire {
                outgoing: Box::new(LaneOutgoing { hub: Arc::clone(&hub), lane }),
                incoming: Box::new(LaneIncoming { hub: Arc::clone(&hub), lane }),
                hang_up: Box::new(move || stop.fail(Fault::Io(ErrorKind::ConnectionAborted, String::new()))),
            };
            Channel::new(channel.ends(), wire, idle)
        };
        let channels = std::array::from_fn(end);
        Ok((Lanes { hub, reader: Some(reader), writer: Some(writer), peer }, channels))
    }

    /// What ends all work on the lanes at once, for a party that has met an error elsewhere.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let hub = Arc::clone(&self.hub);
        move || hub.fail(Fault::Io(ErrorKind::ConnectionAborted, String::new()))
    }

    /// Sends what is left, waits until the peer has closed its ends too, and makes `channel` whole again, with the
    /// counts of the lanes.
    ///
    /// # Errors
    /// `Transport`; `PeerMisbehaved` for frames that are none and for bytes that nobody has asked for.
    pub fn close<const N: usize>(
        mut self,
        channel: &mut Channel,
        lanes: [Channel; N],
    ) -> Result<(), RunError> {
        lanes.iter().for_each(|lane| channel.meter_mut().absorb(lane.meter()));
        self.hub.state().ending = Some(Instant::now());
        self.hub.to_write.notify_one();
        let outgoing = self.writer.take().and_then(|writer| writer.join().ok().flatten());
        let incoming = self.reader.take().and_then(|reader| reader.join().ok().flatten());
        let peer = self.peer;
        let mut state = self.hub.state();
        if state.lanes.iter().any(|lane| !lane.inbox.is_empty()) && state.fault.is_none() {
            state.fault = Some(Fault::Peer("bytes behind the last message".to_owned()));
        }
        match (outgoing, incoming, &state.fault) {
            (Some(outgoing), Some(incoming), None) => {
                let hub = Arc::clone(&self.hub);
                channel.attach(Wire { outgoing, incoming, hang_up: Box::new(move || (hub.hang_up)()) });
                Ok(())
            }
            (_, _, Some(Fault::Peer(found))) => {
                Err(RunError::PeerMisbehaved { peer, reason: malformed(found.clone()) })
            }
            (_, _, fault) => {
                let closed = || ErrorKind::UnexpectedEof.into();
                Err(channel.broken(fault.as_ref().map_or_else(closed, Fault::error)))
            }
        }
    }

    /// What the peer did that no peer does, where that is what has ended the lanes.
    pub fn misbehaviour(&self) -> Option<RunError> {
        match &self.hub.state().fault {
            Some(Fault::Peer(found)) => {
                Some(RunError::PeerMisbehaved { peer: self.peer, reason: malformed(found.clone()) })
            }
            _ => None,
        }
    }
}

impl Drop for Lanes {
    /// Lanes that were not closed are over.
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.hub.fail(Fault::Io(ErrorKind::ConnectionAborted, String::new()));
        }
    }
}

fn malformed(found: String) -> Misbehaviour {
    Misbehaviour::Malformed { what: "stream of several channels", found }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, fault: Fault) {
        self.state().fault.get_or_insert(fault);
        self.to_write.notify_all();
        self.changed.iter().for_each(Condvar::notify_all);
        (self.hang_up)();
    }

    /// The writer's thread: returns its half at the end, or nothing after a fault.
    fn write(&self, mut outgoing: Box<dyn Outgoing>) -> Option<Box<dyn Outgoing>> {
        let mut frames = Vec::with_capacity(SEGMENT_BYTES + 64);
        loop {
            let last = self.next(&mut frames)?;
            if let Err(error) = outgoing.write_all(&frames) {
                self.fail(Fault::of(&error));
                return None;
            }
            if last {
                return Some(outgoing);
            }
        }
    }

    /// Puts what is to be sent next in place of `frames`, and says whether it is the last; `None` after a fault.
    fn next(&self, frames: &mut Vec<u8>) -> Option<bool> {
        frames.clear();
        let mut state = self.state();
        loop {
            if state.fault.is_some() {
                return None;
            }
            for (number, lane) in state.lanes.iter_mut().enumerate() {
                if lane.owes() {
                    head(GRANT | number as u8, lane.owed, frames);
                    lane.owed = 0;
                }
            }
            if let Some(number) = state.lanes.iter().position(|lane| !lane.outbox.is_empty()) {
                let outbox = &mut state.lanes[number].outbox;
                let count = outbox.len().min(SEGMENT_BYTES);
                head(number as u8, count, frames);
                take(outbox, count, |bytes| frames.extend_from_slice(bytes));
                return Some(false);
            }
            if state.ending.is_some() {
                head(END, 0, frames);
                return Some(true);
            }
            if !frames.is_empty() {
                return Some(false);
            }
            state = self.to_write.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The reader's thread: returns its half behind the peer's end, or nothing after a fault.
    fn read(&self, mut incoming: Box<dyn Incoming>) -> Option<Box<dyn Incoming>> {
        loop {
            match self.frame(incoming.as_mut()) {
                Ok(true) => {}
                Ok(false) => return self.state().fault.is_none().then_some(incoming),
                Err(fault) => {
                    self.fail(fault);
                    return None;
                }
            }
        }
    }

    /// Reads one frame; false behind the last.
    fn frame(&self, incoming: &mut dyn Incoming) -> Result<bool, Fault> {
        let (mut kind, mut length) = ([0; 1], [0; 4]);
        // The peer may have nothing to say for long, which is between it and the lanes that wait.
        while let Err(error) = incoming.read_exact(&mut kind) {
            let state = self.state();
            let given_up = state.ending.is_some_and(|since| since.elapsed() >= self.idle);
            if state.fault.is_some() {
                return Ok(false);
            }
            if given_up || !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                return Err(Fault::of(&error));
            }
        }
        let io = |error| Fault::of(&error);
        incoming.read_exact(&mut length[..3]).map_err(io)?;
        let length = u32::from_le_bytes(length) as usize;
        let [kind] = kind;
        if kind == END && length != 0 {
            return Err(Fault::Peer("an end with a length".to_owned()));
        }
        if kind == END {
            self.state().ended = true;
            self.changed.iter().for_each(Condvar::notify_all);
            return Ok(false);
        }
        let number = usize::from(kind & !GRANT);
        let Some(changed) = self.changed.get(number) else {
            return Err(Fault::Peer(format!("a frame of kind {kind}")));
        };
        let mut state = self.state();
        state.heard = Instant::now();
        let lane = &mut state.lanes[number];
        if kind & GRANT != 0 {
            if lane.credit + length > lane.window {
                return Err(Fault::Peer(format!("a grant of {length} bytes that were not sent")));
            }
            lane.credit += length;
        } else {
            if length > SEGMENT_BYTES || lane.inbox.len() + lane.owed + length > lane.window {
                return Err(Fault::Peer(format!("{length} bytes that were not granted")));
            }
            drop(state);
            let mut bytes = [0; SEGMENT_BYTES];
            let bytes = &mut bytes[..length];
            incoming.read_exact(bytes).map_err(io)?;
            let mut state = self.state();
            state.heard = Instant::now();
            state.lanes[number].inbox.extend(&*bytes);
        }
        changed.notify_all();
        Ok(true)
    }

    /// Waits until something has changed for `lane`, but not for longer than the peer may be silent.
    fn wait<'s>(
        &self,
        lane: usize,
        state: MutexGuard<'s, State>,
        since: Instant,
    ) -> io::Result<MutexGuard<'s, State>> {
        if let Some(fault) = &state.fault {
            return Err(fault.error());
        }
        let left = self.idle.saturating_sub(state.heard.max(since).elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let waited = self.changed[lane].wait_timeout(state, left);
        Ok(waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state))
    }
}

impl Lane {
    /// Whether it is time to grant what was read.
    fn owes(&self) -> bool {
        self.owed > self.window / 4
    }
}

fn head(kind: u8, length: usize, frames: &mut Vec<u8>) {
    frames.push(kind);
    frames.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
}

/// Takes the first `count` bytes out of `queue`, in up to two pieces.
fn take(queue: &mut VecDeque<u8>, count: usize, mut to: impl FnMut(&[u8])) {
    let (first, second) = queue.as_slices();
    let of_first = count.min(first.len());
    to(&first[..of_first]);
    to(&second[..count - of_first]);
    queue.drain(..count);
}

struct LaneOutgoing {
    hub: Arc<Hub>,
    lane: usize,
}

impl Outgoing for LaneOutgoing {
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.hub.state();
        if let Some(fault) = &state.fault {
            return Err(fault.error());
        }
        let lane = &mut state.lanes[self.lane];
        let taken = bytes.len().min(lane.credit);
        lane.outbox.extend(&bytes[..taken]);
        lane.credit -= taken;
        drop(state);
        if taken > 0 {
            self.hub.to_write.notify_one();
        }
        Ok(taken)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut since = Instant::now();
        loop {
            let taken = self.offer(bytes)?;
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return Ok(());
            }
            if taken > 0 {
                since = Instant::now();
            }
            let state = self.hub.state();
            if state.lanes[self.lane].credit == 0 {
                drop(self.hub.wait(self.lane, state, since)?);
            }
        }
    }
}

struct LaneIncoming {
    hub: Arc<Hub>,
    lane: usize,
}

impl Incoming for LaneIncoming {
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let (mut filled, mut since) = (0, Instant::now());
        let mut state = self.hub.state();
        loop {
            let lane = &mut state.lanes[self.lane];
            let count = lane.inbox.len().min(buffer.len() - filled);
            if count > 0 {
                take(&mut lane.inbox, count, |bytes| {
                    buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
                    filled += bytes.len();
                });
                lane.owed += count;
                since = Instant::now();
                if lane.owes() {
                    self.hub.to_write.notify_one();
                }
            }
            if filled == buffer.len() {
                return Ok(());
            }
            if state.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            state = self.hub.wait(self.lane, state, since)?;
        }
    }
}
