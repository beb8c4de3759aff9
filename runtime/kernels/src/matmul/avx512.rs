//! Products on 512-bit vectors: a tile of 8 rows and 24 columns is 24 of the 32 registers.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_epi64, _mm512_mullo_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_storeu_epi64,
};

use super::blocked::Tile;
use super::{Job, RingElement, run_tiles};

const ROWS: usize = 8;
const VECTORS: usize = 3;
const LANES: usize = 8;

struct Avx512;

impl Tile for Avx512 {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = VECTORS * LANES;

    #[inline(always)]
    fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
        // SAFETY: this module's `run` is the only user of the tile, and has the features.
        unsafe { product(a, b, out) }
    }
}

/// Runs a job. The machine must have AVX-512 F and DQ.
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn run<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    run_tiles::<B, Avx512>(job, c);
}

#[target_feature(enable = "avx512f,avx512dq")]
fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    let terms = a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<{ VECTORS * LANES }>().0);
    for (a, b) in terms {
        let values: [__m512i; VECTORS] = [load(b, 0), load(b, 1), load(b, 2)];
        for (row, factor) in sums.iter_mut().zip(a) {
            let factor = _mm512_set1_epi64(*factor as i64);
            for (sum, value) in row.iter_mut().zip(values) {
                *sum = _mm512_add_epi64(*sum, _mm512_mullo_epi64(factor, value));
            }
        }
    }
    for (place, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_flattened()) {
        // SAFETY: `place` is 8 words long and the store needs no alignment.
        unsafe { _mm512_storeu_epi64(place.as_mut_ptr().cast(), *sum) };
    }
}

/// Words `8 * vector..8 * vector + 8`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn load(words: &[u64; VECTORS * LANES], vector: usize) -> __m512i {
    let words = &words[vector * LANES..][..LANES];
    // SAFETY: `words` is 8 words long and the load needs no alignment.
    unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) }
}
