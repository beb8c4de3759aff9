//! Products without vector instructions of our own: the twin that the others are tested against.

use super::blocked::Tile;
use super::{Job, RingElement, run_tiles};

struct Portable;

impl Tile for Portable {
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;

    #[inline(always)]
    fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
        let mut sums = [[0_u64; Self::COLUMNS]; Self::ROWS];
        let terms = a.as_chunks::<{ Self::ROWS }>().0.iter().zip(b.as_chunks::<{ Self::COLUMNS }>().0);
        for (a, b) in terms {
            for (row, factor) in sums.iter_mut().zip(a) {
                for (sum, value) in row.iter_mut().zip(b) {
                    *sum = sum.wrapping_add(factor.wrapping_mul(*value));
                }
            }
        }
        out.copy_from_slice(sums.as_flattened());
    }
}

/// Runs a job.
pub(super) fn run<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    run_tiles::<B, Portable>(job, c);
}
