//! The one door from shares to a value: a declared output, for the party that the program names.

use marill_plaintext::{OpError, Tensor};
use marill_program::fixed::{decode, signed};

use super::Share;

/// How a revealed ring element reads as a number.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Bits of the ring.
    pub width: u32,
    /// Fraction bits.
    pub frac: u32,
    /// Whether the result is i64; otherwise it is f32.
    pub integer: bool,
}

/// The clear value of a declared output from this party's share and the peer's, which is `None` for a value that this
/// party knows whole.
///
/// # Errors
/// More elements than a tensor takes.
pub fn reveal(own: &Share, peers: Option<&[u64]>, reading: Reading) -> Result<Tensor, OpError> {
    let Reading { width, frac, integer } = reading;
    let ring = own.ring();
    let sum = |i: usize| ring.data[i].wrapping_add(peers.map_or(0, |p| p[i]));
    let elements = 0..ring.len();
    if integer {
        return Tensor::i64(ring.shape.clone(), elements.map(|i| signed(sum(i), width)).collect());
    }
    Tensor::f32(ring.shape.clone(), elements.map(|i| decode(sum(i), width, frac) as f32).collect())
}
