//! Functionality: masked index x mod 2^k -> `[one-hot vector of x]` of `depth` elements; no error.
//! Requires: 0 <= x < 2^k; an x of depth or more gives zeros.
//! Consumes: a one-hot vector of 2^k elements at the mask's negative.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(n 2^k w / 8)` bytes.
//! Fails: never.
//! Reference: one-time tables, Ishai et al. (TCC 2013), section 3.

use marill_program::Ring;
use marill_program::fixed::mask;

use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::Share;

/// Rotates every element's vector by its opened index of `index_bits` bits.
pub fn rotate(opened: &Ring, index_bits: u32, shape: &[usize], entries: &Shares) -> Share {
    let depth = shape.last().copied().unwrap_or(0);
    let (mut data, mut vectors) = (Vec::with_capacity(opened.len() * depth), Numbers::default());
    for (block, opened) in opened.data.chunks(8).enumerate() {
        let first = 8 * block;
        entries.read(first << index_bits..(first + opened.len()) << index_bits, &mut vectors);
        for (x, vector) in opened.iter().zip(vectors.chunks_exact(1 << index_bits)) {
            data.extend((0..depth as u64).map(|i| vector[(i.wrapping_sub(*x) & mask(index_bits)) as usize]));
        }
    }
    Share::new(Ring::new(shape, data))
}
