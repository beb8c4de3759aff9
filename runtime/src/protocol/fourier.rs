//! Functionality: masked x -> `[c + sum_j a_j cos(j w x) + b_j sin(j w x)]`; error at most 2^-entry_frac and
//! 2^-power_frac (times the coefficients' sum) per term.
//! Requires: nothing; the series has the period of the mask's ring.
//! Consumes: shares of cos(j w r) and sin(j w r) for each term.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(2 n terms w / 8)` bytes.
//! Fails: never.
//! Reference: angle addition, `cos(j w (X - r))`; as in Zheng et al., SecFormer (ACL 2024), section 3.

use marill_kernels::elements::by_blocks;
use marill_program::Ring;
use marill_program::schema::Fourier;
use marill_program::tables::FourierFactors;

use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{Party, Share};

/// The public factors at the opened value times the shares of the mask's cosines and sines; the client adds the
/// constant.
pub fn evaluate(party: Party, f: &Fourier, opened: &Ring, entries: &Shares) -> Share {
    let row = 2 * f.cos.len();
    let factors = FourierFactors::new(f);
    let constant = party.public(factors.constant());
    let data = by_blocks(opened.len(), row, Numbers::default, |numbers, range, out| {
        entries.read(range.start * row..range.end * row, numbers);
        out.fill(constant);
        factors.add(&opened.data[range], numbers, out);
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
