//! Channels over TCP: one party listens, the other calls, both greet.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::channel::fault_of;
use super::wire::{Incoming, Outgoing, Wire};
use super::{Channel, Ends, Protection, Timeouts, tls};
use crate::error::{Action, RunError, TransportFault};

/// The first bytes on every connection, inside TLS where there is TLS. Not metered.
pub const GREETING: [u8; 8] = *b"marill 1";

/// How often a refused call is repeated, and an `accept` with a timeout looks for a caller.
const RETRY: Duration = Duration::from_millis(20);

/// Calls the peer that listens on `address` (`host:port`), again and again until it listens.
///
/// # Errors
/// `Transport` if nobody listens within the timeout or the connection fails; `PeerIncompatible` if the peer is not a
/// Marill runtime, protects the connection differently, or has another certificate than the trusted one.
pub fn connect(
    address: &str,
    ends: Ends,
    protection: &Protection,
    timeouts: &Timeouts,
) -> Result<Channel, RunError> {
    let deadline = deadline_after(timeouts.connect);
    let stream = loop {
        match call(address, deadline) {
            Ok(stream) => break stream,
            Err(error)
                if error.kind() == ErrorKind::ConnectionRefused && Instant::now() + RETRY < deadline =>
            {
                thread::sleep(RETRY);
            }
            Err(error) => {
                let action = Action::Connect { address: address.to_owned() };
                return Err(failed(ends, action, fault_of(error, timeouts.connect)));
            }
        }
    };
    establish(stream, ends, protection, timeouts, tls::Side::Caller)
}

fn call(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the address has no host");
    for socket_address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket_address, remaining(deadline)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A party's own address, on which peers call.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `address` (`host:port`; port 0 takes a free one), for the peer named in `ends`.
    ///
    /// # Errors
    /// `Transport` with what the system said.
    pub fn bind(address: &str, ends: Ends) -> Result<Listener, RunError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            let address = listener.local_addr()?;
            Ok(Listener { listener, address })
        };
        listen().map_err(|error: io::Error| {
            failed(ends, Action::Listen { address: address.to_owned() }, TransportFault::Io(error))
        })
    }

    /// The address, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for one caller and greets it. After an error the listener still listens.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn accept(
        &self,
        ends: Ends,
        protection: &Protection,
        timeouts: &Timeouts,
    ) -> Result<Channel, RunError> {
        let stream = self.wait(timeouts.accept).map_err(|error| {
            let fault = fault_of(error, timeouts.accept.unwrap_or_default());
            failed(ends, Action::Listen { address: self.address.to_string() }, fault)
        })?;
        establish(stream, ends, protection, timeouts, tls::Side::Called)
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<TcpStream> {
        let Some(timeout) = timeout else { return Ok(self.listener.accept()?.0) };
        let deadline = deadline_after(timeout);
        self.listener.set_nonblocking(true)?;
        let accepted = loop {
            match self.listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    thread::sleep(RETRY);
                }
                other => break other,
            }
        };
        self.listener.set_nonblocking(false)?;
        let (stream, _) = accepted?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

/// From a connected socket to a channel whose peer greeted.
fn establish(
    stream: TcpStream,
    ends: Ends,
    protection: &Protection,
    timeouts: &Timeouts,
    side: tls::Side,
) -> Result<Channel, RunError> {
    let io_failed = |error| failed(ends, Action::Greet, fault_of(error, timeouts.greet));
    let prepare = || {
        stream.set_nodelay(true)?;
        set_timeouts(&stream, timeouts.greet)?;
        stream.try_clone()
    };
    let kept = prepare().map_err(io_failed)?;
    let deadline = deadline_after(timeouts.greet);
    let opened = match protection {
        Protection::Plain => plain(stream).map_err(io_failed),
        Protection::Tls(identity) => tls::open(stream, ends, identity, side, deadline, timeouts.greet),
    };
    let greeted = opened.and_then(|mut wire| {
        set_timeouts(&kept, remaining(deadline)).map_err(io_failed)?;
        match greet(&mut wire) {
            Ok(Greeting::Ours) => Ok(wire),
            Ok(Greeting::Tls) => {
                Err(incompatible(ends, "protection of the connection", "plain tcp", "tls".to_owned()))
            }
            Ok(Greeting::Other(found)) => {
                let ours = format!("\"{}\"", GREETING.escape_ascii());
                Err(incompatible(ends, "greeting", &ours, format!("\"{}\"", found.escape_ascii())))
            }
            Err(error) => Err(match protection {
                Protection::Tls(identity) => tls::sort(error, ends, identity, timeouts.greet),
                Protection::Plain => io_failed(error),
            }),
        }
    });
    match greeted {
        Ok(wire) => {
            set_timeouts(&kept, timeouts.idle).map_err(io_failed)?;
            Ok(Channel::new(ends, wire, timeouts.idle))
        }
        Err(error) => {
            part(&kept);
            Err(error)
        }
    }
}

enum Greeting {
    Ours,
    Tls,
    Other([u8; GREETING.len()]),
}

fn greet(wire: &mut Wire) -> io::Result<Greeting> {
    wire.outgoing.write_all(&GREETING)?;
    let mut theirs = [0; GREETING.len()];
    // A TLS peer may say no more than a 7-byte alert, so its first bytes are looked at alone.
    wire.incoming.read_exact(&mut theirs[..2])?;
    if matches!(theirs[..2], [0x15 | 0x16, 3]) {
        return Ok(Greeting::Tls);
    }
    wire.incoming.read_exact(&mut theirs[2..])?;
    Ok(if theirs == GREETING { Greeting::Ours } else { Greeting::Other(theirs) })
}

/// Closes so that the peer can still read why: a close with unread bytes would reset the connection and lose what
/// was sent.
fn part(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let mut unread = [0; 4096];
    for _ in 0..16 {
        if !matches!((&mut &*stream).read(&mut unread), Ok(1..)) {
            break;
        }
    }
}

/// A timeout too long for the clock is as good as a day.
fn deadline_after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(86_400))
}

pub(super) fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

pub(super) fn set_timeouts(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))
}

pub(super) fn failed(ends: Ends, action: Action, source: TransportFault) -> RunError {
    RunError::Transport { me: ends.me, peer: ends.peer, action, source }
}

pub(super) fn incompatible(ends: Ends, what: &'static str, ours: &str, theirs: String) -> RunError {
    RunError::PeerIncompatible { peer: ends.peer, what, ours: ours.to_owned(), theirs }
}

pub(super) fn hang_up_of(stream: &TcpStream) -> io::Result<Box<dyn Fn() + Send + Sync>> {
    let stream = stream.try_clone()?;
    Ok(Box::new(move || {
        let _ = stream.shutdown(Shutdown::Both);
    }))
}

/// Writes what the socket takes at once, and says how much.
pub(super) fn write_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    stream.set_nonblocking(true)?;
    let mut taken = 0;
    let mut outcome = Ok(());
    while taken < bytes.len() {
        match (&mut &*stream).write(&bytes[taken..]) {
            Ok(0) => {
                outcome = Err(ErrorKind::WriteZero.into());
                break;
            }
            Ok(written) => taken += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    stream.set_nonblocking(false)?;
    outcome.map(|()| taken)
}

fn plain(stream: TcpStream) -> io::Result<Wire> {
    Ok(Wire {
        hang_up: hang_up_of(&stream)?,
        incoming: Box::new(PlainIncoming(BufReader::with_capacity(1 << 16, stream.try_clone()?))),
        outgoing: Box::new(PlainOutgoing(stream)),
    })
}

struct PlainOutgoing(TcpStream);

impl Outgoing for PlainOutgoing {
    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_now(&self.0, bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

struct PlainIncoming(BufReader<TcpStream>);

impl Incoming for PlainIncoming {
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(buffer)
    }
}
