//! AES-128, and its key streams in counter mode, by 512-bit vectors: four blocks to a vector, eight vectors side by side.
//!
//! The `aes` crate makes the same blocks; this saves the copies on the way through its interface, which take as long.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32, _mm_slli_si128,
    _mm_storeu_si128, _mm_xor_si128, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_loadu_epi64, _mm512_set_epi64, _mm512_set1_epi64, _mm512_shuffle_epi8,
    _mm512_storeu_epi64, _mm512_xor_si512,
};

use zeroize::Zeroize;

use crate::blocks::Block;

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 16;

const VECTOR_BYTES: usize = 64;
const BLOCKS_PER_VECTOR: usize = 4;
const ROUNDS: usize = 10;

/// Vectors side by side, so that none waits for a round of itself.
const VECTORS: usize = 8;

/// The round keys, wiped on drop.
pub(crate) struct RoundKeys([[u8; BLOCK_BYTES]; ROUNDS + 1]);

impl Drop for RoundKeys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl RoundKeys {
    /// Those of `key`, where the machine has the instructions.
    pub(crate) fn new(key: &[u8; BLOCK_BYTES]) -> Option<RoundKeys> {
        let available = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes");
        // SAFETY: the machine has the features.
        available.then(|| unsafe { expand(key) })
    }

    /// Encrypts whole vectors of blocks, which are little-endian numbers, and returns what is left.
    pub(super) fn encrypt<'b>(&self, blocks: &'b mut [Block]) -> &'b mut [Block] {
        // SAFETY: there are keys only where the machine has the features.
        unsafe { encrypt_blocks(&self.0, blocks) }
    }

    /// Overwrites `out` with the blocks from number `first` on, whose first halves are `stream`. The last may be cut short.
    pub(crate) fn fill(&self, stream: u64, first: u64, out: &mut [u8]) {
        // SAFETY: there are keys only where the machine has the features.
        unsafe { fill(&self.0, stream, first, out) }
    }
}

/// Encrypts whole vectors of blocks, little-endian numbers, and returns what is left.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
fn encrypt_blocks<'b>(keys: &[[u8; BLOCK_BYTES]; ROUNDS + 1], blocks: &'b mut [Block]) -> &'b mut [Block] {
    let keys = spread(keys);
    let (many, rest) = blocks.as_chunks_mut::<{ VECTORS * BLOCKS_PER_VECTOR }>();
    for blocks in many {
        encrypt_at::<VECTORS>(&keys, blocks);
    }
    let (few, rest) = rest.as_chunks_mut::<BLOCKS_PER_VECTOR>();
    for blocks in few {
        encrypt_at::<1>(&keys, blocks);
    }
    rest
}

/// Encrypts that many vectors of blocks in their place.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
#[inline]
fn encrypt_at<const COUNT: usize>(keys: &[__m512i; ROUNDS + 1], blocks: &mut [Block]) {
    let mut vectors = [_mm512_set1_epi64(0); COUNT];
    let places = blocks.as_chunks_mut::<BLOCKS_PER_VECTOR>().0;
    for (vector, place) in vectors.iter_mut().zip(&*places) {
        // SAFETY: the place is as long as the vector.
        *vector = unsafe { _mm512_loadu_epi64(place.as_ptr().cast()) };
    }
    encrypt(keys, &mut vectors);
    for (place, vector) in places.iter_mut().zip(vectors) {
        // SAFETY: the place is as long as the vector.
        unsafe { _mm512_storeu_epi64(place.as_mut_ptr().cast(), vector) };
    }
}

/// Each round key once for every block of a vector.
#[target_feature(enable = "avx512f")]
fn spread(keys: &[[u8; BLOCK_BYTES]; ROUNDS + 1]) -> [__m512i; ROUNDS + 1] {
    keys.map(|key| {
        // SAFETY: a round key is as long as the vector.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(key.as_ptr().cast()) })
    })
}

#[target_feature(enable = "aes,sse2")]
fn expand(key: &[u8; BLOCK_BYTES]) -> RoundKeys {
    /// The next round's key, as FIPS 197, section 5.2, makes it.
    #[target_feature(enable = "aes,sse2")]
    fn next<const CONSTANT: i32>(key: __m128i) -> __m128i {
        let word = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<CONSTANT>(key));
        let key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
        let key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
        _mm_xor_si128(key, word)
    }
    let mut keys = [[0; BLOCK_BYTES]; ROUNDS + 1];
    // SAFETY: the key is as long as the vector.
    let mut round = unsafe { _mm_loadu_si128(key.as_ptr().cast()) };
    let mut steps = [
        next::<0x01>,
        next::<0x02>,
        next::<0x04>,
        next::<0x08>,
        next::<0x10>,
        next::<0x20>,
        next::<0x40>,
        next::<0x80>,
        next::<0x1b>,
        next::<0x36>,
    ]
    .into_iter();
    for place in &mut keys {
        // SAFETY: the place is as long as the vector.
        unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), round) };
        if let Some(step) = steps.next() {
            round = step(round);
        }
    }
    RoundKeys(keys)
}

#[target_feature(enable = "avx512f,avx512bw,vaes")]
fn fill(keys: &[[u8; BLOCK_BYTES]; ROUNDS + 1], stream: u64, first: u64, out: &mut [u8]) {
    let keys = spread(keys);
    // Every eight bytes the other way round.
    let swap = _mm512_set_epi64(
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
        0x0809_0a0b_0c0d_0e0f,
        0x0001_0203_0405_0607,
    );
    let (stream, first) = (stream as i64, first as i64);
    let at = |block: i64| first.wrapping_add(block);
    let mut counters = _mm512_set_epi64(at(3), stream, at(2), stream, at(1), stream, at(0), stream);
    let on = BLOCKS_PER_VECTOR as i64;
    let step = _mm512_set_epi64(on, 0, on, 0, on, 0, on, 0);
    let mut next = || {
        let block = _mm512_shuffle_epi8(counters, swap);
        counters = _mm512_add_epi64(counters, step);
        block
    };
    let (many, rest) = out.as_chunks_mut::<{ VECTORS * VECTOR_BYTES }>();
    for out in many {
        let mut blocks = [_mm512_set1_epi64(0); VECTORS];
        blocks.iter_mut().for_each(|block| *block = next());
        encrypt(&keys, &mut blocks);
        for (out, block) in out.as_chunks_mut::<VECTOR_BYTES>().0.iter_mut().zip(blocks) {
            // SAFETY: the place is as long as the vector.
            unsafe { _mm512_storeu_epi64(out.as_mut_ptr().cast(), block) };
        }
    }
    for out in rest.chunks_mut(VECTOR_BYTES) {
        let mut block = [next()];
        encrypt(&keys, &mut block);
        let mut bytes = [0_u8; VECTOR_BYTES];
        // SAFETY: the place is as long as the vector.
        unsafe { _mm512_storeu_epi64(bytes.as_mut_ptr().cast(), block[0]) };
        out.copy_from_slice(&bytes[..out.len()]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,vaes")]
#[inline]
fn encrypt<const COUNT: usize>(keys: &[__m512i; ROUNDS + 1], blocks: &mut [__m512i; COUNT]) {
    for block in blocks.iter_mut() {
        *block = _mm512_xor_si512(*block, keys[0]);
    }
    for key in &keys[1..ROUNDS] {
        for block in blocks.iter_mut() {
            *block = _mm512_aesenc_epi128(*block, *key);
        }
    }
    for block in blocks.iter_mut() {
        *block = _mm512_aesenclast_epi128(*block, keys[ROUNDS]);
    }
}
