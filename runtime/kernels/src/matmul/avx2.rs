//! Products on 256-bit vectors. With `x = x1 * 2^32 + x0`, `x * y = x0 * y0 + 2^32 * (x0 * y1 + x1 * y0)` modulo
//! `2^64`; the two parts are summed apart and joined once per tile. Up to 32 bits the first is enough.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256,
};

use super::blocked::Tile;
use super::{Job, RingElement, run_tiles};

const ROWS: usize = 2;
const VECTORS: usize = 2;
const LANES: usize = 4;

struct Avx2;

impl Tile for Avx2 {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = VECTORS * LANES;

    #[inline(always)]
    fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
        // SAFETY: this module's `run` is the only user of the tile, and has the feature.
        unsafe { product(a, b, out) }
    }
}

/// For results of which at most [`SHORT_BITS`] bits are wanted.
struct Short;

/// Low bits of a product that one multiply has.
const SHORT_BITS: u32 = 32;
/// Rows and vectors of a short tile, which has one sum where the other has two.
const SHORT: (usize, usize) = (4, 2);

impl Tile for Short {
    const ROWS: usize = SHORT.0;
    const COLUMNS: usize = SHORT.1 * LANES;

    #[inline(always)]
    fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
        // SAFETY: as for the other tile.
        unsafe { short_product(a, b, out) }
    }
}

/// Runs a job. The machine must have AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn run<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    if job.width <= SHORT_BITS {
        run_tiles::<B, Short>(job, c);
    } else {
        run_tiles::<B, Avx2>(job, c);
    }
}

#[target_feature(enable = "avx2")]
fn short_product(a: &[u64], b: &[u64], out: &mut [u64]) {
    let mut sums = [[_mm256_setzero_si256(); SHORT.1]; SHORT.0];
    let terms = a.as_chunks::<{ SHORT.0 }>().0.iter().zip(b.as_chunks::<{ SHORT.1 * LANES }>().0);
    for (a, b) in terms {
        let values: [__m256i; SHORT.1] = [load(b, 0), load(b, 1)];
        for (row, factor) in sums.iter_mut().zip(a) {
            let factor = _mm256_set1_epi64x(*factor as i64);
            for (sum, value) in row.iter_mut().zip(values) {
                *sum = _mm256_add_epi64(*sum, _mm256_mul_epu32(factor, value));
            }
        }
    }
    for (place, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_flattened()) {
        // SAFETY: `place` is 4 words long and the store needs no alignment.
        unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), *sum) };
    }
}

#[target_feature(enable = "avx2")]
fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
    let mut low = [[_mm256_setzero_si256(); VECTORS]; ROWS];
    let mut cross = low;
    let terms = a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<{ VECTORS * LANES }>().0);
    for (a, b) in terms {
        let values: [__m256i; VECTORS] = [load(b, 0), load(b, 1)];
        let highs = values.map(|value| _mm256_srli_epi64::<32>(value));
        for row in 0..ROWS {
            let factor = _mm256_set1_epi64x(a[row] as i64);
            let factor_high = _mm256_srli_epi64::<32>(factor);
            for j in 0..VECTORS {
                low[row][j] = _mm256_add_epi64(low[row][j], _mm256_mul_epu32(factor, values[j]));
                cross[row][j] = _mm256_add_epi64(cross[row][j], _mm256_mul_epu32(factor, highs[j]));
                cross[row][j] = _mm256_add_epi64(cross[row][j], _mm256_mul_epu32(factor_high, values[j]));
            }
        }
    }
    let sums = low.as_flattened().iter().zip(cross.as_flattened());
    for (place, (low, cross)) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        let sum = _mm256_add_epi64(*low, _mm256_slli_epi64::<32>(*cross));
        // SAFETY: `place` is 4 words long and the store needs no alignment.
        unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), sum) };
    }
}

/// Words `4 * vector..4 * vector + 4`.
#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u64; VECTORS * LANES], vector: usize) -> __m256i {
    let words = &words[vector * LANES..][..LANES];
    // SAFETY: `words` is 4 words long and the load needs no alignment.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}
