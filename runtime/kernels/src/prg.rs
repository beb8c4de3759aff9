//! Pseudo-random streams: AES-128 in counter mode under a 16-byte seed.
//!
//! Source: NIST SP 800-38A, section 6.5. The first counter block is `stream` (big endian, 8 bytes) then a zero
//! block number (big endian, 8 bytes), so streams of one seed never overlap.

use std::fmt;

use aes::Aes128;
use ctr::Ctr64BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zeroize::Zeroize;

use crate::bits;
#[cfg(target_arch = "x86_64")]
use crate::cipher::wide;

/// Bytes for which it pays to go by wide vectors.
#[cfg(target_arch = "x86_64")]
const WIDE_FROM_BYTES: usize = 512;

/// Values that are drawn at once: these stay in the first-level cache until they are masked.
const BLOCK: usize = 2048;

/// Bytes of the stream that a value of `width_bits` bits takes: the fewest of 1, 2, 4 and 8 that hold it.
pub fn number_bytes(width_bits: u32) -> u64 {
    u64::from(width_bits.div_ceil(8).max(1).next_power_of_two())
}

/// A secret 128-bit key of a [`Prg`], wiped on drop.
#[derive(Clone)]
pub struct Seed([u8; 16]);

impl Seed {
    /// Takes the key's bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for sending to the party that shares the seed.
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for Seed {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seed(hidden)")
    }
}

/// A position in one pseudo-random byte stream. Its key schedule is wiped on drop.
pub struct Prg {
    cipher: Ctr64BE<Aes128>,
    /// For long pieces, and the number of the stream.
    #[cfg(target_arch = "x86_64")]
    wide: Option<(wide::RoundKeys, u64)>,
}

impl Prg {
    /// The start of stream number `stream` under `seed`.
    pub fn new(seed: Seed, stream: u64) -> Self {
        let mut first_block = [0; 16];
        first_block[..8].copy_from_slice(&stream.to_be_bytes());
        Self {
            cipher: Ctr64BE::new(seed.expose().into(), &first_block.into()),
            #[cfg(target_arch = "x86_64")]
            wide: wide::RoundKeys::new(seed.expose()).map(|keys| (keys, stream)),
        }
    }

    /// Overwrites `out` with the next `out.len()` bytes of the stream.
    pub fn fill(&mut self, out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        let out = self.fill_wide(out);
        self.cipher.write_keystream(out);
    }

    /// Fills `out` but for what is to be filled in another way, which it returns.
    #[cfg(target_arch = "x86_64")]
    fn fill_wide<'o>(&mut self, out: &'o mut [u8]) -> &'o mut [u8] {
        let position = self.cipher.try_current_pos::<u64>().ok();
        let end = position.and_then(|position| position.checked_add(out.len() as u64));
        let (Some((keys, stream)), Some(position), Some(end)) = (&self.wide, position, end) else {
            return out;
        };
        if out.len() < WIDE_FROM_BYTES {
            return out;
        }
        let block = wide::BLOCK_BYTES as u64;
        let (begun, blocks) = out.split_at_mut((position.next_multiple_of(block) - position) as usize);
        self.cipher.write_keystream(begun);
        keys.fill(*stream, position.div_ceil(block), blocks);
        self.cipher.seek(end);
        &mut []
    }

    /// The next `len` uniform values of `Z_2^width_bits`.
    ///
    /// Each takes [`number_bytes`] of the stream, read little endian and masked.
    pub fn ring(&mut self, len: usize, width_bits: u32) -> Vec<u64> {
        let mut values = vec![0_u64; len];
        self.fill_ring(&mut values, width_bits);
        values
    }

    /// Overwrites `values` with what [`Prg::ring`] would return for their count.
    pub fn fill_ring(&mut self, values: &mut [u64], width_bits: u32) {
        match number_bytes(width_bits) {
            1 => self.fill_short::<1>(values, width_bits),
            2 => self.fill_short::<2>(values, width_bits),
            4 => self.fill_short::<4>(values, width_bits),
            _ => self.fill_long(values, width_bits),
        }
    }

    fn fill_short<const BYTES: usize>(&mut self, values: &mut [u64], width_bits: u32) {
        let mask = bits::mask(width_bits);
        let mut drawn = [[0; BYTES]; BLOCK];
        for block in values.chunks_mut(BLOCK) {
            let drawn = &mut drawn[..block.len()];
            self.fill(drawn.as_flattened_mut());
            for (value, drawn) in block.iter_mut().zip(drawn) {
                let mut word = [0; 8];
                word[..BYTES].copy_from_slice(drawn);
                *value = u64::from_le_bytes(word) & mask;
            }
        }
    }

    fn fill_long(&mut self, values: &mut [u64], width_bits: u32) {
        let mask = bits::mask(width_bits);
        for block in values.chunks_mut(BLOCK) {
            // SAFETY: `u8` has no alignment or validity demands and the length is that of `block` in bytes.
            let bytes = unsafe {
                std::slice::from_raw_parts_mut(block.as_mut_ptr().cast::<u8>(), std::mem::size_of_val(block))
            };
            self.fill(bytes);
            block.iter_mut().for_each(|value| *value = u64::from_le(*value) & mask);
        }
    }

    /// Passes over the next `count_bytes` bytes.
    ///
    /// The stream ends at byte `2^64 - 1`; passing over more stops there.
    pub fn skip(&mut self, count_bytes: u64) {
        let position_bytes: u64 = self.cipher.try_current_pos().unwrap_or(u64::MAX);
        self.seek_bytes(position_bytes.saturating_add(count_bytes));
    }

    /// Goes to where value number `index` of [`Prg::ring`] with this width begins.
    pub fn seek_number(&mut self, index: u64, width_bits: u32) {
        self.seek_bytes(index * number_bytes(width_bits));
    }

    /// Goes to byte `position_bytes` of the stream, counted from its start.
    pub fn seek_bytes(&mut self, position_bytes: u64) {
        self.cipher.seek(position_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn take(prg: &mut Prg, len: usize) -> Vec<u8> {
        let mut bytes = vec![0xee; len];
        prg.fill(&mut bytes);
        bytes
    }

    fn seed() -> Seed {
        Seed::new(*b"sixteen byte key")
    }

    /// NIST SP 800-38A, F.5.1. Its block number lies beyond the byte positions of `seek_bytes`, hence the cipher by hand.
    #[test]
    fn agrees_with_the_published_counter_mode_vector() {
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let block: [u8; 16] = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().unwrap();
        let mut prg = Prg {
            cipher: Ctr64BE::new(&key.into(), &block.into()),
            #[cfg(target_arch = "x86_64")]
            wide: None,
        };
        let expected = hex("ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae");
        assert_eq!(take(&mut prg, 32), expected);
    }

    /// McGrew and Viega, The Galois/counter mode of operation, test case 1: H, and the tag of nothing.
    #[test]
    fn numbers_blocks_from_zero_in_the_low_half() {
        let mut prg = Prg::new(Seed::new([0; 16]), 0);
        assert_eq!(take(&mut prg, 16), hex("66e94bd4ef8a2c3b884cfa59ca342b2e"));
        assert_eq!(take(&mut prg, 16), hex("58e2fccefa7e3061367f1d57a4e7455a"));
    }

    #[test]
    fn streams_and_seeds_differ() {
        let zero = take(&mut Prg::new(seed(), 0), 64);
        assert_ne!(zero, take(&mut Prg::new(seed(), 1), 64));
        assert_ne!(zero, take(&mut Prg::new(seed(), 1 << 63), 64));
        assert_ne!(zero, take(&mut Prg::new(Seed::new([0; 16]), 0), 64));
        assert_eq!(zero, take(&mut Prg::new(seed(), 0), 64));
    }

    #[test]
    fn seeking_skipping_and_reading_arrive_at_the_same_bytes() {
        let whole = take(&mut Prg::new(seed(), 7), 9000);
        for position in [0, 1, 15, 16, 17, 255, 4096, 8191] {
            let expected = &whole[position..position + 500];
            let mut sought = Prg::new(seed(), 7);
            take(&mut sought, 33);
            sought.seek_bytes(position as u64);
            assert_eq!(take(&mut sought, 500), expected);
            let mut skipped = Prg::new(seed(), 7);
            skipped.skip(position as u64 / 3);
            skipped.skip(position as u64 - position as u64 / 3);
            assert_eq!(take(&mut skipped, 500), expected);
            let mut read = Prg::new(seed(), 7);
            take(&mut read, position);
            assert_eq!(take(&mut read, 500), expected);
        }
    }

    #[test]
    fn far_positions_are_reachable() {
        let mut prg = Prg::new(seed(), 7);
        prg.seek_bytes(u64::MAX - 5);
        prg.skip(u64::MAX);
        prg.seek_bytes(u64::MAX - 40);
        let bytes = take(&mut prg, 32);
        prg.seek_bytes(u64::MAX - 40 + 16);
        assert_eq!(take(&mut prg, 16), bytes[16..]);
    }

    #[test]
    fn ring_values_are_masked_words_of_the_stream() {
        let bytes = take(&mut Prg::new(seed(), 3), 5000 * 8);
        for (width_bits, taken) in
            [(1, 1), (7, 1), (8, 1), (9, 2), (16, 2), (17, 4), (24, 4), (32, 4), (33, 8), (63, 8), (64, 8)]
        {
            assert_eq!(number_bytes(width_bits), taken as u64);
            let values = Prg::new(seed(), 3).ring(5000, width_bits);
            assert_eq!(values.len(), 5000);
            for (value, drawn) in values.iter().zip(bytes.chunks_exact(taken)) {
                let word = drawn.iter().rev().fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
                assert_eq!(*value, word & bits::mask(width_bits));
            }
            let mut sought = Prg::new(seed(), 3);
            sought.seek_number(4321, width_bits);
            assert_eq!(sought.ring(500, width_bits), values[4321..4821]);
        }
        assert!(Prg::new(seed(), 3).ring(0, 64).is_empty());
    }

    #[test]
    fn debug_hides_the_seed() {
        assert_eq!(format!("{:?}", seed()), "Seed(hidden)");
    }

    /// Long pieces are made in another way than short ones.
    #[test]
    fn long_pieces_are_short_ones_in_a_row() {
        for stream in [0, 0x0102_0304_0506_0708, u64::MAX] {
            let mut short = Prg::new(seed(), stream);
            let expected: Vec<u8> = (0..500).flat_map(|_| take(&mut short, 17)).collect();
            for start in [0, 1, 15, 16, 17, 500] {
                for len in [511, 512, 513, 527, 528, 1024, 1087, 4096, 7000] {
                    let mut prg = Prg::new(seed(), stream);
                    prg.seek_bytes(start as u64);
                    assert!(take(&mut prg, len) == expected[start..start + len], "{start} {len}");
                    assert!(take(&mut prg, 40) == expected[start + len..start + len + 40], "{start} {len}");
                }
            }
            // Block numbers of more than 32 bits, and the end of the stream.
            for start in [(1 << 36) - 40, (1 << 40) + 3, u64::MAX - 1500] {
                let (mut long, mut short) = (Prg::new(seed(), stream), Prg::new(seed(), stream));
                [&mut long, &mut short].into_iter().for_each(|prg| prg.seek_bytes(start));
                let expected: Vec<u8> = (0..70).flat_map(|_| take(&mut short, 20)).collect();
                assert!(take(&mut long, 1400) == expected, "{start}");
            }
        }
    }
}
