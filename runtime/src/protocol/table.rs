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

use crate::correlation::shares::{Bytes, Numbers, Shares};
use crate::sharing::Share;

/// The public factors at the opened value times the shares.
pub fn evaluate(t: &Table, opened: &Ring, entries: &Shares) -> Share {
    let per = (t.degree as usize + 1) << t.index_bits;
    let factors = TableFactors::new(t);
    // Numbers of a small ring are multiplied as bytes, which wrap no earlier.
    let is_narrow = entries.width() <= u8::BITS;
    let scratch = || (Bytes::default(), Numbers::default());
    let data = by_blocks(opened.len(), per, scratch, |(bytes, numbers), range, out| {
        let (opened, of_all) = (&opened.data[range.clone()], range.start * per..range.end * per);
        if is_narrow {
            entries.read_bytes(of_all.clone(), bytes);
            if factors.add_bytes(opened, bytes, out).is_some() {
                return;
            }
        }
        entries.read(of_all, numbers);
        factors.add(opened, numbers, out);
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
