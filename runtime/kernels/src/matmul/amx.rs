//! Products on 8-bit tile registers. A 64-bit word is eight byte digits; modulo `2^64` a product of two words is the
//! 36 digit products `i + j < 8`, and those with the same `i + j` share one 32-bit sum. Of a narrower ring's words only the
//! low digits count: 40 bits take 15 products.
//!
//! Processors with tiles multiply 64-bit vector lanes slowly: here the tiles are several times faster.
//! No sum overflows: the longest, of eight digit pairs per term, is at most `8 * DEPTH * 255^2 < 2^32`.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_loadu_epi64, _mm512_permutex2var_epi64,
    _mm512_permutexvar_epi8, _mm512_storeu_epi64,
};
use std::sync::OnceLock;

use super::{Job, Layout, RingElement, avx512};

/// Terms between two additions to the result.
const DEPTH: usize = 1024;
/// Rows of the left side that are split into digits at once.
const ROWS: usize = 256;
/// Rows and columns of a step: two tiles each way.
const SIDE: usize = 32;
/// Rows or columns of one tile.
const HALF: usize = 16;
/// Terms of one tile.
const TERMS: usize = 64;
const DIGITS: usize = 8;
const TILE_BYTES: usize = HALF * TERMS;
/// All digits of [`SIDE`] rows or columns and [`TERMS`] terms: `[DIGITS, 2]` tiles.
const BLOCK_BYTES: usize = DIGITS * 2 * TILE_BYTES;

/// Words `[HALF, TERMS]` in the order of a tile's bytes.
type Words = [[u64; TERMS]; HALF];
/// The 32-bit sums of a digit place, by row half, column half, row and column.
type Sums = [[[[u32; HALF]; HALF]; 2]; 2];

/// Whether processor and operating system grant tiles to this process. Asks once.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let has_vectors = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi");
        // Leaf 7: bit 24 of EDX is AMX-TILE, bit 25 AMX-INT8.
        has_vectors && __cpuid_count(7, 0).edx >> 24 & 3 == 3 && request_tiles()
    })
}

/// Linux keeps tile registers from a process until it asks: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn request_tiles() -> bool {
    let status: i64;
    // SAFETY: this call changes only which registers the process may use, and touches none of its memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158_i64 => status,
            in("rdi") 0x1023_i64,
            in("rsi") 18_i64,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    status == 0
}

#[cfg(not(target_os = "linux"))]
fn request_tiles() -> bool {
    false
}

/// Runs a job; the vector path takes those that would mostly be padding. [`is_available`] must hold.
#[target_feature(enable = "avx512f,avx512dq,avx512vbmi")]
pub(super) fn run<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    let sizes = [c.len(), job.columns.1 - job.columns.0, job.k];
    let padded =
        [SIDE, SIDE, TERMS].iter().zip(sizes).map(|(unit, size)| size.next_multiple_of(*unit) as f64);
    if padded.product::<f64>() > 3.0 * sizes.iter().map(|size| *size as f64).product::<f64>() {
        return avx512::run(job, c);
    }
    let Job { a, k, columns: (first, end), .. } = job;
    let digits = (job.width.div_ceil(8) as usize).clamp(1, DIGITS);
    let blocks = DEPTH.min(k).div_ceil(TERMS);
    let mut a_digits = vec![0; c.len().min(ROWS).div_ceil(SIDE) * blocks * BLOCK_BYTES];
    let mut b_digits = vec![0; blocks * BLOCK_BYTES];
    let mut words = [[0; TERMS]; HALF];
    let mut sums = vec![[[[[0; HALF]; HALF]; 2]; 2]; DIGITS];
    for (c, a) in c.chunks_mut(ROWS).zip(a.chunks(ROWS * k)) {
        for from in (0..k).step_by(DEPTH) {
            let terms = (from, k.min(from + DEPTH));
            let panel_bytes = (terms.1 - from).div_ceil(TERMS) * BLOCK_BYTES;
            for (panel, rows) in a_digits.chunks_mut(panel_bytes).zip(a.chunks(SIDE * k)) {
                split_panel(terms, panel, &mut words, |words, half, terms| {
                    for (words, row) in words.iter_mut().zip(rows.chunks_exact(k).skip(half * HALF)) {
                        words[..terms.1 - terms.0].copy_from_slice(&row[terms.0..terms.1]);
                    }
                });
            }
            for left in (first..end).step_by(SIDE) {
                let width = SIDE.min(end - left);
                let b_panel = &mut b_digits[..panel_bytes];
                split_panel(terms, b_panel, &mut words, |words, half, terms| {
                    let columns = (left + half * HALF, left + width.min((half + 1) * HALF));
                    gather_columns(job, columns, terms, words);
                });
                for (rows, a_panel) in c.chunks_mut(SIDE).zip(a_digits.chunks(panel_bytes)) {
                    rows.iter().for_each(|row| prefetch(row, left - first, SIDE));
                    multiply(a_panel, b_panel, &mut sums[..digits]);
                    for (i, row) in rows.iter_mut().enumerate() {
                        for (half, row) in row[left - first..][..width].chunks_mut(HALF).enumerate() {
                            let sums = join(&sums[..digits], i, half);
                            row.iter_mut()
                                .zip(sums)
                                .for_each(|(total, sum)| *total = total.wrapping_add(sum));
                        }
                    }
                }
            }
        }
    }
}

/// Half a row of the product: the digit sums, each at its place.
#[inline(always)]
fn join(sums: &[Sums], row: usize, half: usize) -> [u64; HALF] {
    let mut joined = [0_u64; HALF];
    for place in sums.iter().rev() {
        let digits = &place[row / HALF][half][row % HALF];
        for (sum, digit) in joined.iter_mut().zip(digits) {
            *sum = (*sum << 8).wrapping_add(u64::from(*digit));
        }
    }
    joined
}

/// Splits a panel `[terms, SIDE]` into blocks; `gather(words, half, terms)` lays one tile's words on zeros.
#[inline(always)]
fn split_panel(
    (from, end): (usize, usize),
    panel: &mut [u8],
    words: &mut Words,
    gather: impl Fn(&mut Words, usize, (usize, usize)),
) {
    for (block, from) in panel.chunks_exact_mut(BLOCK_BYTES).zip((from..end).step_by(TERMS)) {
        for half in 0..2 {
            words.as_flattened_mut().fill(0);
            gather(words, half, (from, end.min(from + TERMS)));
            // SAFETY: `run`, the only caller, has the features.
            unsafe { split_words(words, &mut block[half * TILE_BYTES..]) };
        }
    }
}

/// A right side's tile holds four terms of 16 columns per row: words `[terms / 4, columns, 4]`.
#[inline(always)]
fn gather_columns<B: RingElement>(
    job: Job<'_, B>,
    (left, right): (usize, usize),
    (from, end): (usize, usize),
    words: &mut Words,
) {
    let (b, k, m) = (job.b, job.k, job.m);
    match job.layout {
        Layout::Plain if right <= left => {}
        Layout::Plain if right - left == HALF && end - from == TERMS => {
            for (four, words) in words.iter_mut().enumerate() {
                (0..4).for_each(|t| prefetch(b, (from + TERMS + 4 * four + t) * m + left, HALF));
                let rows: [&[B]; 4] = std::array::from_fn(|t| &b[(from + 4 * four + t) * m + left..][..HALF]);
                for (j, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *words = [rows[0][j], rows[1][j], rows[2][j], rows[3][j]].map(B::to_ring);
                }
            }
        }
        Layout::Plain => {
            for term in 0..end - from {
                for (j, value) in b[(from + term) * m..][left..right].iter().enumerate() {
                    words[term / 4][j * 4 + term % 4] = value.to_ring();
                }
            }
        }
        Layout::Transposed => {
            for (j, column) in (left..right).enumerate() {
                let terms = b[column * k..][from..end].chunks(4);
                for (words, values) in words.iter_mut().zip(terms) {
                    words[j * 4..].iter_mut().zip(values).for_each(|(word, value)| *word = value.to_ring());
                }
            }
        }
    }
}

/// Asks for elements `from..from + count` ahead of their use; the rows of a wide matrix are too far apart for the
/// processor to see the pattern.
#[inline(always)]
fn prefetch<T>(elements: &[T], from: usize, count: usize) {
    let end = elements.as_ptr().wrapping_add(from + count).cast::<i8>();
    let mut line = elements.as_ptr().wrapping_add(from).cast::<i8>();
    while line < end {
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        line = line.wrapping_add(64);
    }
}

/// For each exchange of [`split_words`]: which words of a pair make its first and its second new vector.
const EXCHANGES: [(usize, [u64; 8], [u64; 8]); 3] = {
    let mut exchanges = [(1, [0; 8], [0; 8]), (2, [0; 8], [0; 8]), (4, [0; 8], [0; 8])];
    let mut e = 0;
    while e < 3 {
        let step = exchanges[e].0 as u64;
        let mut lane = 0;
        while lane < 8 {
            let is_low = lane & step == 0;
            exchanges[e].1[lane as usize] = if is_low { lane } else { 8 + lane - step };
            exchanges[e].2[lane as usize] = if is_low { lane + step } else { 8 + lane };
            lane += 1;
        }
        e += 1;
    }
    exchanges
};

/// Transposes 8 words of 8 digits.
const DIGIT_ORDER: [u8; 64] = {
    let mut order = [0; 64];
    let mut i = 0;
    while i < 64 {
        order[i] = (i % 8 * 8 + i / 8) as u8;
        i += 1;
    }
    order
};

/// Writes digit `d` of every word to the tile at `2 * d * TILE_BYTES`.
#[target_feature(enable = "avx512f,avx512vbmi")]
fn split_words(words: &Words, tiles: &mut [u8]) {
    // SAFETY: the order and the exchanges below are 64 bytes long and loads need no alignment.
    let order = unsafe { _mm512_loadu_epi64(DIGIT_ORDER.as_ptr().cast()) };
    for (row, words) in words.iter().enumerate() {
        let mut vectors: [__m512i; 8] = std::array::from_fn(|v| {
            // SAFETY: words 8 v..8 v + 8 of 64.
            let eight = unsafe { _mm512_loadu_epi64(words.as_ptr().add(8 * v).cast()) };
            _mm512_permutexvar_epi8(order, eight)
        });
        for (step, low, high) in &EXCHANGES {
            // SAFETY: as for `order`.
            let low = unsafe { _mm512_loadu_epi64(low.as_ptr().cast()) };
            // SAFETY: as for `order`.
            let high = unsafe { _mm512_loadu_epi64(high.as_ptr().cast()) };
            for i in (0..8).filter(|i| i & step == 0) {
                let (x, y) = (vectors[i], vectors[i + step]);
                vectors[i] = _mm512_permutex2var_epi64(x, low, y);
                vectors[i + step] = _mm512_permutex2var_epi64(x, high, y);
            }
        }
        for (digit, vector) in vectors.into_iter().enumerate() {
            let place = &mut tiles[digit * 2 * TILE_BYTES + row * TERMS..][..TERMS];
            // SAFETY: `place` is 64 bytes long and the store needs no alignment.
            unsafe { _mm512_storeu_epi64(place.as_mut_ptr().cast(), vector) };
        }
    }
}

#[repr(C, align(64))]
struct TileConfig([u8; 64]);

/// Palette 1 and eight tiles of 16 rows of 64 bytes.
static CONFIG: TileConfig = TileConfig({
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    bytes
});

/// The sums of the lowest digit places of `a x b`, both `[terms, SIDE]` as blocks. [`is_available`] must hold.
fn multiply(a: &[u8], b: &[u8], sums: &mut [Sums]) {
    assert!(a.len() == b.len() && !a.is_empty() && a.len().is_multiple_of(BLOCK_BYTES));
    assert!((1..=DIGITS).contains(&sums.len()));
    // For `pairs` from 1 to the places' number: sum `pairs - 1` takes digits i = 0.. of `a` forwards with digits `pairs - 1 - i` of `b`
    // backwards, block by block. Tiles 0-3 are the sums, 4 and 5 of `a`, 6 and 7 of `b`.
    // SAFETY: `run` is reached only where tiles are granted. Reads stay in `a` and `b`: a block has digits 0 to 7 of
    // two tiles each, and the block count is theirs. For each place 4 KiB are written, the size of its sums. The
    // tile registers are set up, used and released inside.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "mov {pairs:e}, 1",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "mov {at_a}, {a}",
            "mov {at_b}, {pairs}",
            "shl {at_b}, 11",
            "lea {at_b}, [{at_b} + {b} - 2048]",
            "mov {block}, {blocks}",
            "3:",
            "mov {left}, {pairs}",
            "4:",
            "tileloadd tmm4, [{at_a} + {stride}]",
            "tileloadd tmm6, [{at_b} + {stride}]",
            "tileloadd tmm7, [{at_b} + {stride} + 1024]",
            "tdpbuud tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{at_a} + {stride} + 1024]",
            "tdpbuud tmm1, tmm4, tmm7",
            "tdpbuud tmm2, tmm5, tmm6",
            "tdpbuud tmm3, tmm5, tmm7",
            "add {at_a}, 2048",
            "sub {at_b}, 2048",
            "dec {left}",
            "jnz 4b",
            "mov {left}, {pairs}",
            "shl {left}, 11",
            "sub {at_a}, {left}",
            "add {at_a}, 16384",
            "lea {at_b}, [{at_b} + {left} + 16384]",
            "dec {block}",
            "jnz 3b",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 1024], tmm1",
            "tilestored [{out} + {stride} + 2048], tmm2",
            "tilestored [{out} + {stride} + 3072], tmm3",
            "add {out}, 4096",
            "inc {pairs}",
            "cmp {pairs}, {places}",
            "jbe 2b",
            "tilerelease",
            config = in(reg) CONFIG.0.as_ptr(),
            a = in(reg) a.as_ptr(),
            b = in(reg) b.as_ptr(),
            blocks = in(reg) a.len() / BLOCK_BYTES,
            stride = in(reg) TERMS,
            places = in(reg) sums.len(),
            out = inout(reg) sums.as_mut_ptr() => _,
            pairs = out(reg) _,
            at_a = out(reg) _,
            at_b = out(reg) _,
            block = out(reg) _,
            left = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
