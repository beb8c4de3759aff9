//! 128-bit blocks through AES-128 under a fixed public key: a hash for correlated keys and a doubling for trees.
//!
//! With `pi` the fixed-key permutation, modelled as an ideal one:
//! - [`hash`] is `pi(pi(x) ^ i) ^ pi(x)`, circular correlation robust for a tweak `i` of 128 bits, whatever is
//!   hashed and however often a tweak comes back (Guo, Katz, Wang, Yu, IEEE S&P 2020, section 7.4, `TMMO`). So
//!   `hash(i, K)` and `hash(i, K ^ delta)` look independent to who knows one of them and not `delta`. The tweak's
//!   high half is the caller's number, its low half counts the blocks of one expansion.
//! - [`double`] is `pi(s(x)) ^ s(x)` with the linear orthomorphism `s(l, r) = (l ^ r, l)`, circular correlation
//!   robust without a tweak (the same paper, section 7.3); [`crate::ggm`] grows trees with it.
//!
//! A block is the little-endian number of its 16 bytes, on every machine.

use std::sync::LazyLock;

use crate::cipher::Cipher;

/// A block of 128 bits.
pub type Block = u128;

/// Blocks in flight: as many as the widest instructions take at once, fewer would go one by one; few enough for the
/// first-level cache.
pub const BATCH: usize = 64;

/// The public key of the permutation. Any constant would do.
const KEY: [u8; 16] = *b"marill fixed key";

static CIPHER: LazyLock<Cipher> = LazyLock::new(|| Cipher::new(&KEY));

/// Replaces every block `x` by `pi(x)`.
pub fn permute(blocks: &mut [Block]) {
    CIPHER.encrypt(blocks);
}

pub(crate) fn tweak_block(tweak: u64, counter: u64) -> Block {
    Block::from(tweak) << 64 | Block::from(counter)
}

/// The hash of `block` under `tweak`, the first block of [`expand_words`].
pub fn hash(tweak: u64, block: Block) -> Block {
    let mut out = [0];
    hash_many(tweak, &[block], &mut out);
    out[0]
}

/// `out[i] = hash(first_tweak + i, blocks[i])`, the tweak modulo `2^64`.
///
/// # Panics
/// If the lengths differ.
pub fn hash_many(first_tweak: u64, blocks: &[Block], out: &mut [Block]) {
    assert_eq!(blocks.len(), out.len());
    let mut inner = [0; BATCH];
    for (at, (blocks, out)) in blocks.chunks(BATCH).zip(out.chunks_mut(BATCH)).enumerate() {
        let inner = &mut inner[..blocks.len()];
        inner.copy_from_slice(blocks);
        permute(inner);
        let first = first_tweak.wrapping_add((at * BATCH) as u64);
        for (i, (out, inner)) in out.iter_mut().zip(inner.iter()).enumerate() {
            *out = inner ^ tweak_block(first.wrapping_add(i as u64), 0);
        }
        permute(out);
        out.iter_mut().zip(inner.iter()).for_each(|(out, inner)| *out ^= inner);
    }
}

/// Fills `out` with the pseudo-random words of `(tweak, block)`: block `j` of the stream, low word first, is the hash
/// under the tweak with counter `j`.
pub fn expand_words(tweak: u64, block: Block, out: &mut [u64]) {
    let mut inner = [block];
    permute(&mut inner);
    let mut buffer = [0; BATCH];
    for (at, words) in out.chunks_mut(2 * BATCH).enumerate() {
        let buffer = &mut buffer[..words.len().div_ceil(2)];
        let first = (at * BATCH) as u64;
        buffer
            .iter_mut()
            .zip(first..)
            .for_each(|(place, counter)| *place = inner[0] ^ tweak_block(tweak, counter));
        permute(buffer);
        for (words, block) in words.chunks_mut(2).zip(buffer.iter()) {
            put_words(block ^ inner[0], words);
        }
    }
}

/// `out[i * words_each ..][.. words_each]` is what [`expand_words`] makes of `(first_tweak + i, blocks[i])`.
///
/// # Panics
/// If `out` is not `words_each` words for each block.
pub fn expand_many(first_tweak: u64, blocks: &[Block], words_each: usize, out: &mut [u64]) {
    assert_eq!(blocks.len() * words_each, out.len());
    if words_each == 0 {
        return;
    }
    let (mut inner, mut buffer) = ([0; BATCH], [0; BATCH]);
    for (at, (blocks, out)) in blocks.chunks(BATCH).zip(out.chunks_mut(BATCH * words_each)).enumerate() {
        let (inner, buffer) = (&mut inner[..blocks.len()], &mut buffer[..blocks.len()]);
        inner.copy_from_slice(blocks);
        permute(inner);
        let first = first_tweak.wrapping_add((at * BATCH) as u64);
        for counter in 0..words_each.div_ceil(2) {
            for (i, (place, inner)) in buffer.iter_mut().zip(inner.iter()).enumerate() {
                *place = inner ^ tweak_block(first.wrapping_add(i as u64), counter as u64);
            }
            permute(buffer);
            for (words, (block, inner)) in
                out.chunks_exact_mut(words_each).zip(buffer.iter().zip(inner.iter()))
            {
                put_words(block ^ inner, &mut words[2 * counter..]);
            }
        }
    }
}

/// Writes the low word and, if there is room, the high one.
#[inline(always)]
fn put_words(block: Block, out: &mut [u64]) {
    match out {
        [low, high, ..] => (*low, *high) = (block as u64, (block >> 64) as u64),
        [low] => *low = block as u64,
        [] => {}
    }
}

/// `out[i] = pi(s(blocks[i])) ^ s(blocks[i])`, see the module.
///
/// # Panics
/// If the lengths differ.
pub fn double(blocks: &[Block], out: &mut [Block]) {
    assert_eq!(blocks.len(), out.len());
    for (blocks, out) in blocks.chunks(BATCH).zip(out.chunks_mut(BATCH)) {
        out.iter_mut().zip(blocks).for_each(|(out, block)| *out = spread(*block));
        permute(out);
        out.iter_mut().zip(blocks).for_each(|(out, block)| *out ^= spread(*block));
    }
}

/// The linear orthomorphism `s(l, r) = (l ^ r, l)`.
fn spread(block: Block) -> Block {
    let high = (block >> 64) as u64;
    Block::from(high ^ block as u64) << 64 | Block::from(high)
}

#[cfg(test)]
mod tests {
    use aes::Aes128Enc;
    use aes::cipher::{BlockCipherEncrypt, KeyInit};

    use super::*;

    /// One block at a time through the cipher's own interface.
    fn naive_permute(block: Block) -> Block {
        let mut bytes = block.to_le_bytes().into();
        Aes128Enc::new(&KEY.into()).encrypt_block(&mut bytes);
        Block::from_le_bytes(bytes.into())
    }

    fn naive_hash(tweak: u64, counter: u64, block: Block) -> Block {
        let inner = naive_permute(block);
        naive_permute(inner ^ tweak_block(tweak, counter)) ^ inner
    }

    fn blocks(len: usize) -> Vec<Block> {
        let mut words = vec![0; 2 * len];
        expand_words(9, 5, &mut words);
        words.chunks_exact(2).map(|w| Block::from(w[0]) << 64 | Block::from(w[1])).collect()
    }

    /// FIPS 197, appendix B: the cipher behind the permutation takes its bytes in memory order.
    #[test]
    fn encrypts_the_published_vector() {
        let key = 0x3c4fcf098815f7aba6d2ae2816157e2b_u128.to_le_bytes();
        let plain = 0x340737e0a29831318d305a88a8f64332_u128;
        let mut blocks = [plain; 37];
        Cipher::new(&key).encrypt(&mut blocks);
        assert_eq!(blocks, [0x320b6a19978511dcfb09dc021d842539_u128; 37]);
    }

    #[test]
    fn batches_equal_single_hashes() {
        for len in [0, 1, 7, 8, 31, 32, 33, 100] {
            let blocks = blocks(len);
            let mut out = vec![0; len];
            hash_many(u64::MAX - 3, &blocks, &mut out);
            for (i, (block, out)) in blocks.iter().zip(&out).enumerate() {
                let tweak = (u64::MAX - 3).wrapping_add(i as u64);
                assert_eq!(*out, naive_hash(tweak, 0, *block));
                assert_eq!(*out, hash(tweak, *block));
            }
        }
    }

    #[test]
    fn expansion_counts_in_the_tweak() {
        for words in [0, 1, 2, 3, 64, 65, 129, 200] {
            let mut out = vec![0; words];
            expand_words(77, 123_456, &mut out);
            for (at, word) in out.iter().enumerate() {
                let block = naive_hash(77, at as u64 / 2, 123_456);
                assert_eq!(*word, (block >> (64 * (at % 2))) as u64);
            }
        }
    }

    #[test]
    fn many_expansions_equal_single_ones() {
        for words_each in [0, 1, 2, 3, 5] {
            let blocks = blocks(70);
            let mut out = vec![0; 70 * words_each];
            expand_many(1000, &blocks, words_each, &mut out);
            for (i, block) in blocks.iter().enumerate() {
                let mut alone = vec![0; words_each];
                expand_words(1000 + i as u64, *block, &mut alone);
                assert_eq!(alone, out[i * words_each..(i + 1) * words_each]);
            }
        }
    }

    #[test]
    fn doubling_follows_its_definition() {
        let blocks = blocks(75);
        let mut out = vec![0; 75];
        double(&blocks, &mut out);
        for (block, out) in blocks.iter().zip(&out) {
            let (l, r) = (block >> 64, block & u128::from(u64::MAX));
            let spread = (l ^ r) << 64 | l;
            assert_eq!(*out, naive_permute(spread) ^ spread);
        }
    }
}
