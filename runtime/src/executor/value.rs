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

impl Value {
    /// Whether this is a party's part of what neither knows, or opened under a mask.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Value::Arithmetic(_) | Value::Boolean(_) | Value::Masked(_) | Value::MaskedBits(_))
    }

    /// A shared value with its elements in another shape, which has as many.
    pub(super) fn reshaped(mut self, shape: &[usize]) -> Value {
        let set = |ring: &mut Ring| ring.shape = shape.to_vec();
        match &mut self {
            Value::Arithmetic(share) => set(share.ring_mut()),
            Value::Boolean(share) => set(share.words_mut()),
            Value::Masked(Masked { opened, mask }) => {
                opened.iter_mut().for_each(set);
                mask.iter_mut().for_each(|mask| set(mask.ring_mut()));
            }
            Value::MaskedBits(MaskedBits { opened }) => set(opened),
            // Nothing of these is shared.
            Value::Absent
            | Value::Stored
            | Value::Plain(_)
            | Value::Known(_)
            | Value::Recoded
            | Value::Weight => {}
        }
        self
    }
}
