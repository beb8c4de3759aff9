//! Products on 512-bit vectors: a tile of 8 rows and 24 columns is 24 of the 32 registers.
//!
//! Up to 52 bits, processors with 52-bit multiply-adds take one instruction where 64 bits take several.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_epi64, _mm512_madd52lo_epu64, _mm512_mullo_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_epi64,
};

use super::blocked::Tile;
use super::{Job, RingElement, run_tiles};

const ROWS: usize = 8;
const VECTORS: usize = 3;
const LANES: usize = 8;

/// Low bits of a product that a 52-bit multiply-add has.
const SHORT_BITS: u32 = 52;

/// `SHORT` for results of which at most [`SHORT_BITS`] bits are wanted.
struct Avx512<const SHORT: bool>;

impl<const SHORT: bool> Tile for Avx512<SHORT> {
    const ROWS: usize = ROWS;
    const COLUMNS: usize = VECTORS * LANES;

    #[inline(always)]
    fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
        // SAFETY: `run` and `run_short` are the only users of their tiles, and have the features.
        unsafe { if SHORT { short_product(a, b, out) } else { product(a, b, out) } }
    }
}

/// Runs a job. The machine must have AVX-512 F and DQ.
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn run<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    if job.width <= SHORT_BITS && is_x86_feature_detected!("avx512ifma") {
        // SAFETY: the machine has the feature.
        return unsafe { run_short(job, c) };
    }
    run_tiles::<B, Avx512<false>>(job, c);
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn run_short<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    run_tiles::<B, Avx512<true>>(job, c);
}

#[target_feature(enable = "avx512f,avx512dq")]
fn product(a: &[u64], b: &[u64], out: &mut [u64]) {
    tile(a, b, out, |sum, x, y| _mm512_add_epi64(sum, _mm512_mullo_epi64(x, y)));
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn short_product(a: &[u64], b: &[u64], out: &mut [u64]) {
    tile(a, b, out, |sum, x, y| _mm512_madd52lo_epu64(sum, x, y));
}

/// `out = a^T x b`, where `multiply_add(sum, x, y)` is `sum + x y` in the bits that are wanted.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn tile(a: &[u64], b: &[u64], out: &mut [u64], multiply_add: impl Fn(__m512i, __m512i, __m512i) -> __m512i) {
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; ROWS];
    let terms = a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<{ VECTORS * LANES }>().0);
    for (a, b) in terms {
        let values: [__m512i; VECTORS] = [load(b, 0), load(b, 1), load(b, 2)];
        for (row, factor) in sums.iter_mut().zip(a) {
            let factor = _mm512_set1_epi64(*factor as i64);
            for (sum, value) in row.iter_mut().zip(values) {
                *sum = multiply_add(*sum, factor, value);
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
