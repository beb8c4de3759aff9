//! Functionality: masked x -> `[c + sum_j a_j cos(j w x) + b_j sin(j w x)]`; error at most 2^-entry_frac and
//! 2^-power_frac (times the coefficients' sum) per term.
//! Requires: nothing; the series has the period of the mask's ring.
//! Consumes: shares of cos(j w r) and sin(j w r) for each term.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(2 n terms w / 8)` bytes.
//! Fails: never.
//! Reference: angle addition, `cos(j w (X - r))`; as in Zheng et al., SecFormer (ACL 2024), section 3.

use marill_program::Ring;
use marill_program::schema::Fourier;
use marill_program::tables::{fourier_constant, fourier_factors};

use super::blocks::by_blocks;
use crate::correlation::shares::Shares;
use crate::sharing::{Party, Share};

/// The public factors at the opened value times the shares of the mask's cosines and sines; the client adds the
/// constant.
pub fn evaluate(party: Party, f: &Fourier, opened: &Ring, entries: &Shares) -> Share {
    let row = 2 * f.cos.len();
    let constant = party.public(fourier_constant(f));
    let scratch = || (Vec::new(), vec![0; row]);
    let data = by_blocks(opened.len(), row, scratch, |(numbers, factors), range, out| {
        entries.read(range.start * row..range.end * row, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(row));
        for (out, (x, entries)) in out.iter_mut().zip(elements) {
            fourier_factors(f, *x, factors);
            let terms = factors.iter().zip(entries);
            *out = terms.fold(constant, |sum: u64, (p, e)| sum.wrapping_add(p.wrapping_mul(*e)));
        }
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
