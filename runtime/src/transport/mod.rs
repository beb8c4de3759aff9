//! Bytes between parties: plain TCP, mutual TLS 1.3, memory, and a shaped form of each, metered by phase. Knows
//! nothing of shares.
//!
//! A [`Channel`] carries whole messages to one named peer. On the wire a message is a frame: its length as a
//! little-endian `u32`, then its bytes. The receiver always knows the length from the public program, so a header is
//! only ever compared, never trusted.
//!
//! Sending and receiving at the same time. Both parties of an opening send first. A stream has finite buffers, so two
//! parties that both write before they read wait for each other for ever once a message outgrows the buffers,
//! whatever its chunking. [`Channel::exchange`] therefore first offers the frame to the socket without waiting; the
//! kernel takes a small message whole and no thread is involved. What it does not take is written by a second thread,
//! scoped to the call, while the calling thread reads. Writing never waits for reading inside a party, so there is no
//! cycle to deadlock, however small the buffers. Under TLS the two threads share one connection behind a mutex that
//! is held for sealing and opening records only, never across a socket call.
//!
//! Liveness. Every socket call has a timeout ([`Timeouts`]), so a silent peer is an error and not a hang; a closed or
//! reset connection is noticed at once, and on the first failure of either direction the socket is shut down, which
//! wakes the other. A failed channel stays failed. The timeout is on silence: a peer that sends one byte now and then
//! can slow a run down as much as one that computes slowly.

mod channel;
mod flow;
mod identity;
mod lanes;
mod memory;
mod meter;
mod shaped;
mod tcp;
mod tls;
mod wire;

use std::time::Duration;

pub use channel::Channel;
pub use flow::{Flow, FromPeer};
pub use identity::{CERTIFICATE_FILE, Identity, KEY_FILE, PeerCertificate};
pub use lanes::Lanes;
pub use marill_program::Network;
pub use memory::{memory_pair, memory_pair_between};
pub use meter::{Counts, LabelCounts, Meter, MeterSnapshot, Phase};
pub use tcp::{GREETING, Listener, connect};
pub use tls::TlsIdentity;

use crate::error::Role;

/// The length of a frame header: the payload's length as a little-endian `u32`.
pub const HEADER_BYTES: usize = 4;

/// The two ends of a channel, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// This party.
    pub me: Role,
    /// The other end.
    pub peer: Role,
}

/// How connections are protected.
pub enum Protection {
    /// Not at all: for one machine, or a network that is protected by other means.
    Plain,
    /// TLS 1.3, each side proving its identity.
    Tls(Box<TlsIdentity>),
}

/// How long to wait before a peer counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a peer to call us; without it, for ever.
    pub accept: Option<Duration>,
    /// For the peer to listen: calls that are refused are repeated until then.
    pub connect: Duration,
    /// For the TLS handshake and the greeting together.
    pub greet: Duration,
    /// For the peer to send or take any byte of a message.
    pub idle: Duration,
}

impl Default for Timeouts {
    /// 30 s to connect, 10 s to greet, 120 s idle: peers may compute for a while between messages.
    fn default() -> Self {
        Timeouts {
            accept: None,
            connect: Duration::from_secs(30),
            greet: Duration::from_secs(10),
            idle: Duration::from_secs(120),
        }
    }
}
