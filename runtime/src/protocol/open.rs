//! Functionality: `[x] -> x + r mod 2^k`, known to both parties or to one; no error. Bits: `[b] -> b ^ beta`.
//! Requires: nothing of x; what the consumers of the masked value need is theirs to say.
//! Consumes: one fresh mask of k bits per element from each party that sends; none of them is ever used twice.
//! Online: `ceil(n k / 8)` bytes from each sender, 1 round, shared with every other opening of the round.
//! Preprocessing: 0 bytes.
//! Fails: never.
//! Reference: Ben-Efraim, Nielsen, Omri, Turbospeedz (ACNS 2019), section 3; Patra et al., ABY2.0 (USENIX Security
//! 2021), section 3.

use marill_kernels::elements;
use marill_program::fixed::mask;

/// Adds to each number below 2^width of a masked value: this party's share to its mask, then the peer's contribution to that.
pub fn add(sum: &mut [u64], summand: &[u64], width: u32) {
    elements::zip_in_place(sum, summand, |a, b| a.wrapping_add(b) & mask(width));
}

/// As [`add`] for words of bits, by exclusive or.
pub fn add_bits(sum: &mut [u64], summand: &[u64], width: u32) {
    elements::zip_in_place(sum, summand, |a, b| (a ^ b) & mask(width));
}
