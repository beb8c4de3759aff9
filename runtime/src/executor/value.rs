//! The values of a run as one party holds them.

use marill_plaintext::Tensor;
use marill_program::Ring;

use crate::sharing::{BitShare, Masked, MaskedBits, Share};

/// A value.
pub(super) enum Value {
    /// The other party's alone.
    Absent,
    /// A tensor that is read from the bundle when it is used.
    Stored,
    /// A clear tensor.
    Plain(Tensor),
    /// Ring elements known to this party.
    Known(Ring),
    /// Ring elements that are encoded anew from their tensor when they are used, because they are many.
    Recoded,
    /// A weight of the server.
    Weight,
    /// Additive shares.
    Arithmetic(Share),
    /// XOR shares.
    Boolean(BitShare),
    /// A masked value.
    Masked(Masked),
    /// Opened bits.
    MaskedBits(MaskedBits),
}
