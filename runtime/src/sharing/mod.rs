//! What a party holds of a value that nobody knows.
//!
//! Shares have no `Debug` and no equality: nothing prints or compares them. Two doors lead out: [`reveal`] for declared
//! outputs, and [`crate::protocol::open`] for masked values.

pub mod reveal;

use marill_program::{Owner, Ring};

use crate::error::Role;

/// One of the two parties of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// P0.
    Client,
    /// P1.
    Server,
}

impl Party {
    /// The party as a role in a run.
    pub fn role(self) -> Role {
        match self {
            Party::Client => Role::Client,
            Party::Server => Role::Server,
        }
    }

    /// The other party.
    pub fn peer(self) -> Party {
        match self {
            Party::Client => Party::Server,
            Party::Server => Party::Client,
        }
    }

    /// Whether this party may know what `owner` owns.
    pub fn knows(self, owner: Owner) -> bool {
        match owner {
            Owner::Public => true,
            Owner::Client => self == Party::Client,
            Owner::Server => self == Party::Server,
        }
    }

    /// Whether this party holds the whole of a value of `owner` when it is written as shares: the owner does, and the
    /// client where both know it.
    pub fn holds(self, owner: Owner) -> bool {
        match owner {
            Owner::Server => self == Party::Server,
            _ => self == Party::Client,
        }
    }

    /// `value` at the client, zero at the server: a public value as shares.
    pub(crate) fn public(self, value: u64) -> u64 {
        match self {
            Party::Client => value,
            Party::Server => 0,
        }
    }
}

/// This party's summand of every element, modulo 2^width. Bits above the width are arbitrary.
#[derive(Clone)]
pub struct Share {
    ring: Ring,
}

impl Share {
    /// A share with these summands.
    pub fn new(ring: Ring) -> Share {
        Share { ring }
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) fn ring_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }
}

/// This party's part of every word, combined by exclusive or. Bits above the width are arbitrary.
#[derive(Clone)]
pub struct BitShare {
    words: Ring,
}

impl BitShare {
    /// A share with these words.
    pub fn new(words: Ring) -> BitShare {
        BitShare { words }
    }

    pub(crate) fn words(&self) -> &Ring {
        &self.words
    }

    pub(crate) fn words_mut(&mut self) -> &mut Ring {
        &mut self.words
    }
}

/// A masked value: `x + r mod 2^width` where this party received it, and this party's part of `r` where it has one.
#[derive(Clone)]
pub struct Masked {
    /// `x + r`, below 2^width.
    pub opened: Option<Ring>,
    /// This party's mask, below 2^width.
    pub mask: Option<Share>,
}

/// Opened bits. What follows takes the mask `beta` from correlations alone.
#[derive(Clone)]
pub struct MaskedBits {
    /// `b ^ beta`.
    pub opened: Ring,
}
