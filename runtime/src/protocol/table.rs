//! Functionality: masked x -> `[f(x)]` for a piecewise polynomial or exponential f; error: the fit's, at most
//! 2^-entry_frac per entry and the rounding of the powers, and the piece may be the next one at borders.
//! Requires: pieces that are good one piece's length to either side.
//! Consumes: one table of 2^index_bits entries of degree + 1 numbers per element, shifted by the mask.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(n 2^index_bits (degree + 1) w / 8)` bytes.
//! Fails: never.
//! Reference: one-time tables, Ishai et al. (TCC 2013), section 3, with entries that carry the Taylor shift by the
//! mask's low bits.

use marill_program::Ring;
use marill_program::schema::Table;
use marill_program::tables::{split, table_powers};

use super::blocks::by_blocks;
use crate::correlation::shares::Shares;
use crate::sharing::Share;

/// The chosen entries times the public powers of the position in the piece.
pub fn evaluate(t: &Table, opened: &Ring, entries: &Shares) -> Share {
    let terms = t.degree as usize + 1;
    let per = terms << t.index_bits;
    let data = by_blocks(opened.len(), per, Vec::new, |numbers, range, out| {
        entries.read(range.start * per..range.end * per, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(per));
        for (out, (x, table)) in out.iter_mut().zip(elements) {
            let (piece, _) = split(*x, t.low_bits, t.index_bits);
            let powers = table_powers(t, *x);
            let entry = &table[piece * terms..][..terms];
            *out = entry.iter().zip(powers).fold(0, |sum: u64, (e, p)| sum.wrapping_add(e.wrapping_mul(p)));
        }
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
