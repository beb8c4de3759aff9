//! Functionality: `[x] mod 2^k -> [x / 2^s] mod 2^(k - s)`, error below one unit in the last place, without bias.
//! Requires: nothing; the wrap of the shares' sum is a multiple of 2^(k - s) after the shift and vanishes.
//! Consumes: nothing. Online: 0 bytes, 0 rounds. Preprocessing: 0 bytes. Fails: never.
//! Reference: the floor loses the carry of the low bits, which is set with probability `1 - (x mod 2^s + 1) / 2^s`
//! over the shares; adding one unit makes the expectation `x / 2^s + 2^-s`.

use std::borrow::Cow;

use marill_program::fixed::mask;

use super::local;
use crate::sharing::{Party, Share};

/// Shifts this party's share of a value of `width` bits; the client adds the unit that makes up for the lost carry.
pub fn truncate(party: Party, x: Cow<'_, Share>, width: u32, shift: u32) -> Share {
    if shift == 0 {
        return x.into_owned();
    }
    let unit = party.public(1);
    local::map(x, |v| ((v & mask(width)) >> shift).wrapping_add(unit))
}
