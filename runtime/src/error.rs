//! What can go wrong in a run, sorted by who is at fault.
//!
//! Texts are one lower-case sentence without a full stop, fit to be shown to the person who started the run.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use marill_program::flow::Refusal;
use serde::{Deserialize, Serialize};

use crate::transport::Phase;

/// Who somebody is in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Party P0, which owns the inputs.
    Client,
    /// Party P1, which owns the model.
    Server,
    /// The third machine that only makes correlations.
    Dealer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Client => "client",
            Role::Server => "server",
            Role::Dealer => "dealer",
        })
    }
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The peer sent something that no honest peer of this program sends.
    #[error("the {peer} broke the protocol: {reason}")]
    PeerMisbehaved {
        /// Who sent it.
        peer: Role,
        /// What was wrong with it.
        reason: Misbehaviour,
    },
    /// The peer is honest as far as we know, but the two cannot run together.
    #[error("the {what} of the {peer} does not fit: expected {ours}, found {theirs}")]
    PeerIncompatible {
        /// Who does not fit.
        peer: Role,
        /// What differs, for example `certificate` or `program digest`.
        what: &'static str,
        /// What this party has or expects.
        ours: String,
        /// What the peer has or shows.
        theirs: String,
    },
    /// The connection failed.
    #[error("{}", transport_text(*.me, *.peer, .action, .source))]
    Transport {
        /// This party.
        me: Role,
        /// The other end.
        peer: Role,
        /// What this party was doing.
        action: Action,
        /// How the connection failed.
        source: TransportFault,
    },
    /// The program is not one this runtime can run.
    #[error("the program is not valid: {reason}")]
    BadProgram {
        /// The typed error of whoever looked at the program.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The program is sound, and would tell the other party what this one has not allowed.
    #[error("the {party} does not agree to the program: {reason}")]
    Refused {
        /// Who does not agree.
        party: Role,
        /// To what.
        reason: Refusal,
    },
    /// An input or setting of this party is not what the run needs.
    #[error("input {name}: {reason}")]
    BadInput {
        /// The input's or setting's name.
        name: String,
        /// What is wrong with it.
        reason: InputFault,
    },
    /// The run needs more of something than there is.
    #[error("the {what} needs {needed_bytes} bytes and the limit is {limit_bytes} bytes")]
    Exhausted {
        /// What needs it.
        what: &'static str,
        /// How much is needed.
        needed_bytes: u64,
        /// How much there may be.
        limit_bytes: u64,
    },
    /// A store of correlations, its key or its register cannot be used.
    #[error("could not use {}: {reason}", .path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: StoreFault,
    },
    /// A file of this party.
    #[error("could not {action} {}: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// A verb such as `read` or `create`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a peer's behaviour is not that of an honest peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// A frame header that differs from the length that the program gives.
    #[error("it announced {announced_bytes} bytes where {phase} round {round} has {expected_bytes} bytes")]
    WrongLength {
        /// The phase this party is in.
        phase: Phase,
        /// The round this party is in, counted from 1 in each phase.
        round: u64,
        /// The length that the program gives.
        expected_bytes: u64,
        /// The length in the frame header.
        announced_bytes: u64,
    },
    /// A message of variable length above its limit.
    #[error("it announced {announced_bytes} bytes for a message of at most {limit_bytes} bytes")]
    TooLong {
        /// The most that is accepted.
        limit_bytes: u64,
        /// The length in the frame header.
        announced_bytes: u64,
    },
    /// A message of the right length whose content no honest peer sends.
    #[error("its {what} is not valid, found {found}")]
    Malformed {
        /// Which message or field.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// A consistency check on secret material failed.
    #[error("its {what} did not pass the consistency check")]
    FailedCheck {
        /// What was checked.
        what: &'static str,
    },
}

/// Why an input or setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputFault {
    /// The program needs it and it was not given.
    #[error("it is missing")]
    Missing,
    /// The dealer needs it for this program and it was not given.
    #[error("masks are multiplied by published weights: give it a copy of the client's directory")]
    PublishedWeights,
    /// It was given and the program has no such input.
    #[error("the program has no such input, it has {}", .known.join(", "))]
    Unknown {
        /// The names that the program has.
        known: Vec<String>,
    },
    /// It was given by one party and is the other's.
    #[error("the program takes it from the {owner}, not from the {given_by}")]
    OfOther {
        /// Whose it is.
        owner: Role,
        /// Who gave it.
        given_by: Role,
    },
    /// The shape differs from the program's.
    #[error("expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The program's shape.
        expected: Vec<usize>,
        /// The given shape.
        found: Vec<usize>,
    },
    /// The element type cannot be used.
    #[error("expected elements of type {expected}, found {found}")]
    ElementType {
        /// What would work.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A number outside the range that the program was compiled for.
    #[error("element {index} is {found}, the program takes {low} to {high}")]
    OutOfRange {
        /// The element, counted in row-major order.
        index: usize,
        /// Its value as text.
        found: String,
        /// The least value as text.
        low: String,
        /// The greatest value as text.
        high: String,
    },
    /// Text that could not be parsed.
    #[error("could not understand \"{found}\", {expected} would work")]
    Unparsable {
        /// The text.
        found: String,
        /// What would work.
        expected: &'static str,
    },
}

/// Why a store of correlations, its key or its register cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// It is for something else.
    #[error("its {what} does not fit: expected {expected}, found {found}")]
    Differs {
        /// What differs, for example `program digest` or `key`.
        what: &'static str,
        /// What this run needs.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// Bytes are missing, or there are too many.
    #[error("expected a file of {expected_bytes} bytes, found {found_bytes}")]
    Length {
        /// What its header says.
        expected_bytes: u64,
        /// What there is.
        found_bytes: u64,
    },
    /// Some byte is not the one that was written.
    #[error("chunk {chunk} of {chunks} is not what was written with this key")]
    Corrupted {
        /// Counted from 1.
        chunk: u64,
        /// How many there are.
        chunks: u64,
    },
    /// Its content makes no sense.
    #[error("its {what} is not valid, found {found}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// What was found.
        found: String,
    },
    /// Masks serve once.
    #[error("store {id} was used before, says {}", .register.display())]
    Used {
        /// Its name.
        id: String,
        /// Where its use is written down.
        register: PathBuf,
    },
    /// Another run is about to use it.
    #[error("another run has it open, and it serves one")]
    Busy,
}

/// What a party was doing when its connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Waiting on its own address for a peer.
    Listen {
        /// The own address.
        address: String,
    },
    /// Calling the peer.
    Connect {
        /// The peer's address.
        address: String,
    },
    /// Exchanging greetings, and under TLS proving identities.
    Greet,
    /// Sending one message.
    Send {
        /// The message's length without its header.
        bytes: u64,
        /// The phase.
        phase: Phase,
        /// The round, counted from 1 in each phase.
        round: u64,
    },
    /// Waiting for one message.
    Receive {
        /// The message's length without its header, or the most it may be.
        bytes: u64,
        /// The phase.
        phase: Phase,
        /// The round, counted from 1 in each phase.
        round: u64,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Listen { address } => write!(f, "listened on {address}"),
            Action::Connect { address } => write!(f, "connected to {address}"),
            Action::Greet => f.write_str("waited for the greeting"),
            Action::Send { bytes, phase, round } => write!(f, "sent {bytes} bytes of {phase} round {round}"),
            Action::Receive { bytes, phase, round } => {
                write!(f, "waited for {bytes} bytes of {phase} round {round}")
            }
        }
    }
}

/// How a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportFault {
    /// The peer closed the connection, or died.
    #[error("connection closed")]
    Closed,
    /// Nothing moved for too long.
    #[error("silent for {} s", .after.as_secs_f64())]
    Silent {
        /// The timeout that passed.
        after: Duration,
    },
    /// The peer refused this party's TLS handshake.
    #[error("tls refused with alert {alert}")]
    Refused {
        /// The peer's TLS alert.
        alert: String,
        /// Fingerprint of the certificate that this party showed.
        shown: String,
    },
    /// TLS failed otherwise.
    #[error("tls: {text}")]
    Tls {
        /// What the TLS library said.
        text: String,
    },
    /// An earlier call on this channel failed, so its stream has no meaning any more.
    #[error("channel already failed")]
    AlreadyFailed,
    /// The operating system said so.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn transport_text(me: Role, peer: Role, action: &Action, fault: &TransportFault) -> String {
    match fault {
        TransportFault::Closed => format!("the {peer} closed the connection while the {me} {action}"),
        TransportFault::Silent { after } => {
            format!("the {peer} was silent for {} s while the {me} {action}", after.as_secs_f64())
        }
        TransportFault::Refused { alert, shown } => format!(
            "the {peer} refused the tls handshake with alert {alert}: it must trust the certificate that the {me} \
             showed, {shown}"
        ),
        TransportFault::Tls { text } => {
            format!("tls with the {peer} failed while the {me} {action}: {text}")
        }
        TransportFault::AlreadyFailed => {
            format!("the connection to the {peer} had already failed when the {me} {action}")
        }
        TransportFault::Io(error) => {
            format!("the connection to the {peer} failed while the {me} {action}: {error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_single_clear_sentences() {
        let receive = Action::Receive { bytes: 1184, phase: Phase::Online, round: 12 };
        let closed = RunError::Transport {
            me: Role::Client,
            peer: Role::Server,
            action: receive.clone(),
            source: TransportFault::Closed,
        };
        assert_eq!(
            closed.to_string(),
            "the server closed the connection while the client waited for 1184 bytes of online round 12"
        );
        let silent = RunError::Transport {
            me: Role::Server,
            peer: Role::Dealer,
            action: receive,
            source: TransportFault::Silent { after: Duration::from_millis(1500) },
        };
        assert_eq!(
            silent.to_string(),
            "the dealer was silent for 1.5 s while the server waited for 1184 bytes of online round 12"
        );
        let shape = RunError::BadInput {
            name: "input_ids".to_owned(),
            reason: InputFault::Shape { expected: vec![1, 8], found: vec![1, 9] },
        };
        assert_eq!(shape.to_string(), "input input_ids: expected shape [1, 8], found [1, 9]");
    }
}
