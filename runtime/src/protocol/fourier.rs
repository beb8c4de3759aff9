//! Functionality: masked x -> `[c + sum_j a_j cos(j w x) + b_j sin(j w x)]`; error at most 2^-entry_frac and
//! 2^-power_frac (times the coefficients' sum) per term.
//! Requires: nothing; the series has the period of the mask's ring.
//! Consumes: shares of cos(j w r) and sin(j w r) for each term.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(2 n terms w / 8)` bytes.
//! Fails: never.
//! Reference: angle addition, `cos(j w (X - r))`; as in Zheng et al., SecFormer (ACL 2024), section 3.

use marill_kernels::matmul::threads;
use marill_program::Ring;
use marill_program::fixed::mask;
use marill_program::schema::Fourier;
use marill_program::tables::{fourier_constant, fourier_factors};

use super::blocks::by_blocks;
use crate::correlation::shares::Shares;
use crate::sharing::{Party, Share};

/// Table rows for every angle at once where they are fewer than the elements; else each element on its own.
pub struct Rows {
    row: usize,
    angles: u64,
    table: Vec<u64>,
}

/// Largest period that is tabulated.
const TABLE_BITS: u32 = 18;

impl Rows {
    /// Rows of `row` numbers as `fill` makes them for an angle, `elements` of which will be looked up.
    pub fn new(
        period_bits: u32,
        row: usize,
        elements: usize,
        fill: impl Fn(u64, &mut [u64]) + Sync,
    ) -> Option<Rows> {
        if period_bits > TABLE_BITS || elements < 1 << period_bits {
            return None;
        }
        let mut table = vec![0; row << period_bits];
        let part = (1usize << period_bits).div_ceil(threads());
        std::thread::scope(|scope| {
            for (i, rows) in table.chunks_mut(row * part).enumerate() {
                let fill = &fill;
                scope.spawn(move || {
                    let rows = rows.chunks_exact_mut(row).enumerate();
                    rows.for_each(|(angle, row)| fill((i * part + angle) as u64, row));
                });
            }
        });
        Some(Rows { row, angles: mask(period_bits), table })
    }

    /// The row of an angle, modulo the period.
    pub fn get(&self, angle: u64) -> &[u64] {
        &self.table[(angle & self.angles) as usize * self.row..][..self.row]
    }
}

/// The public factors at the opened value times the shares of the mask's cosines and sines; the client adds the
/// constant.
pub fn evaluate(party: Party, f: &Fourier, opened: &Ring, entries: &Shares) -> Share {
    let row = 2 * f.cos.len();
    let constant = party.public(fourier_constant(f));
    let rows = Rows::new(f.period_bits, row, opened.len(), |angle, row| fourier_factors(f, angle, row));
    let scratch = || (Vec::new(), vec![0; row]);
    let data = by_blocks(opened.len(), row, scratch, |(numbers, own), range, out| {
        entries.read(range.start * row..range.end * row, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(row));
        for (out, (x, entries)) in out.iter_mut().zip(elements) {
            let factors = match &rows {
                Some(rows) => rows.get(*x),
                None => {
                    fourier_factors(f, *x, own);
                    &*own
                }
            };
            let terms = factors.iter().zip(entries);
            *out = terms.fold(constant, |sum: u64, (p, e)| sum.wrapping_add(p.wrapping_mul(*e)));
        }
    });
    Share::new(Ring::new(opened.shape.clone(), data))
}
