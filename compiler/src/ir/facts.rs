//! What is known about a value: type, owner, range, fixed-point encoding.

use marill_plaintext::{Op, Receiver, TensorType};

/// Who may know a value in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Both parties.
    Public,
    /// The client alone.
    Client,
    /// The server alone.
    Server,
    /// Nobody: the value exists only as shares.
    Shared,
}

impl Owner {
    /// The owner of a value computed from values of `self` and `other`.
    pub fn join(self, other: Owner) -> Owner {
        match (self, other) {
            (a, b) if a == b => a,
            (Owner::Public, o) | (o, Owner::Public) => o,
            _ => Owner::Shared,
        }
    }
}

impl From<Receiver> for Owner {
    fn from(receiver: Receiver) -> Owner {
        match receiver {
            Receiver::Client => Owner::Client,
            Receiver::Server => Owner::Server,
            Receiver::Both => Owner::Public,
        }
    }
}

impl Owner {
    /// Whether everybody who is meant by `other` knows a value of `self`.
    pub fn is_known_to(self, other: Owner) -> bool {
        self == Owner::Public || self != Owner::Shared && self == other
    }

    /// The owner of the result of `op` on values of these owners.
    pub fn of_result(op: &Op, operands: impl Iterator<Item = Owner>) -> Owner {
        let joined = operands.fold(Owner::Public, Owner::join);
        match op {
            Op::Reveal { to } if !joined.is_known_to((*to).into()) => (*to).into(),
            _ => joined,
        }
    }
}

/// Inclusive bounds on every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest possible value.
    pub min: f64,
    /// Largest possible value.
    pub max: f64,
}

/// Fixed-point encoding of a shared value: integer = round(value * 2^frac_bits) in the ring Z_2^width_bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Ring width k.
    pub width_bits: u32,
    /// Fraction bits f.
    pub frac_bits: u32,
}

/// Everything known about one value. Later stages fill in more.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Element type and shape.
    pub ty: TensorType,
    /// Who may know it, from the ownership stage on.
    pub owner: Option<Owner>,
    /// Bounds, where known.
    pub range: Option<Range>,
    /// Encoding, from the precision stage on.
    pub encoding: Option<Encoding>,
}
