//! Functionality: masked x -> `[f(x)]` for a piecewise polynomial or exponential f; error: the fit's, half of
//! 2^-entry_frac per power of the mask's position and of 2^-power_frac per factor, and the piece may be the next one at
//! borders.
//! Requires: pieces that are good one piece's length to either side.
//! Consumes: the unit vector of the mask's piece, 2^index_bits entries, times each power of the mask's position in it.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(n 2^index_bits (degree + 1) w / 8)` bytes.
//! Fails: never.
//! Reference: one-time tables, Ishai et al. (TCC 2013), section 3, as unit vectors, with the Taylor shift by the mask's
//! low bits.

use marill_kernels::elements::by_blocks;
use marill_program::Ring;
use marill_program::schema::Table;
use marill_program::tables::TableFactors;

use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::Share;

/// The public factors at the opened value times the shares.
pub fn evaluate(t: &Table, opened: &Ring, entries: &Shares) -> Share {
    let per = (t.degree as usize + 1) << t.index_bits;
    let factors = TableFactors::new(t);
    let scratch = || (Numbers::default(), vec![0; per]);
    let data = by_blocks(opened.len(), per, scratch, |(numbers, scratch), range, out| {
        entries.read(range.start * per..range.end * per, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(per));
        for (out, (x, entries)) in out.iter_mut().zip(elements) {
            *out = factors.sum(*x, entries, scratch);
        }
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
