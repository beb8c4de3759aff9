//! Functionality: `[x] -> x + r mod 2^k`, known to both parties or to one; no error. Bits: `[b] -> b ^ beta`.
//! Requires: nothing of x; what the consumers of the masked value need is theirs to say.
//! Consumes: one fresh mask of k bits per element from each party that sends; none of them is ever used twice.
//! Online: `ceil(n k / 8)` bytes from each sender, 1 round, shared with every other opening of the round.
//! Preprocessing: 0 bytes.
//! Fails: never.
//! Reference: Ben-Efraim, Nielsen, Omri, Turbospeedz (ACNS 2019), section 3; Patra et al., ABY2.0 (USENIX Security
//! 2021), section 3.

use marill_kernels::elements;
use marill_program::Ring;
use marill_program::fixed::mask;

use crate::sharing::{BitShare, Share};

/// What this party contributes to an opening: its share plus its mask, where it has one, below 2^width.
pub fn contribution(share: &Share, own_mask: Option<&[u64]>, width: u32) -> Vec<u64> {
    let data = &share.ring().data;
    match own_mask {
        Some(r) => elements::zip(data, r, |x, r| x.wrapping_add(r) & mask(width)),
        None => elements::map(data, |x| x & mask(width)),
    }
}

/// Opens a masked value: the sum of both contributions.
pub fn open(shape: &[usize], own: &[u64], peers: &[u64], width: u32) -> Ring {
    Ring::new(shape, elements::zip(own, peers, |a, b| a.wrapping_add(b) & mask(width)))
}

/// What this party contributes to an opening of bits: the low `width` bits of its words under its mask.
pub fn bits_contribution(share: &BitShare, own_mask: &[u64], width: u32) -> Vec<u64> {
    elements::zip(&share.words().data, own_mask, |b, beta| (b ^ beta) & mask(width))
}

/// Opens masked bits: the exclusive or of both contributions.
pub fn open_bits(shape: &[usize], own: &[u64], peers: &[u64]) -> Ring {
    Ring::new(shape, elements::zip(own, peers, |a, b| a ^ b))
}
