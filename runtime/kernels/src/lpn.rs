//! The public linear code of silent transfer: every sample sums a few of the secrets, at pseudo-random places.
//!
//! Sample `i` sums the secrets at `floor(w k / 2^32)` for the ten words `w` of 32 bits from number `10 i` of the
//! stream `AES(0), AES(1), ...`, lowest word first, under a key that is public. Places are public too, so that looking
//! them up tells nothing.

use crate::blocks::Block;
use crate::cipher::Cipher;

/// Secrets that one sample sums.
pub const LOCALITY: usize = 10;
/// Samples whose places are drawn at once. Their words are whole batches of blocks.
const BATCH: usize = 128;
const WORDS: usize = BATCH * LOCALITY;
const _: () = assert!(WORDS.is_multiple_of(4 * crate::blocks::BATCH));

/// A code over a fixed number of secrets.
pub struct Code {
    cipher: Cipher,
    secrets: u32,
}

impl Code {
    /// The code over `secrets` secrets under the public `key`.
    ///
    /// # Panics
    /// If there are no secrets, or `2^32` or more.
    pub fn new(key: [u8; 16], secrets: usize) -> Self {
        let cipher = Cipher::new(&key);
        match u32::try_from(secrets) {
            Ok(secrets @ 1..) => Self { cipher, secrets },
            _ => panic!("{secrets} secrets, not in 1..2^32"),
        }
    }

    /// Adds to each of `samples` its secrets' sum; the first is sample number `first`.
    ///
    /// # Panics
    /// If there are not as many secrets as the code takes, or `first` is no multiple of 128.
    pub fn add(&self, first: u64, secrets: &[Block], samples: &mut [Block]) {
        assert_eq!(secrets.len(), self.secrets as usize);
        assert!(first.is_multiple_of(BATCH as u64));
        let mut places = [0; WORDS];
        for (samples, first) in samples.chunks_mut(BATCH).zip((first..).step_by(BATCH)) {
            self.places(first, &mut places);
            for (sample, places) in samples.iter_mut().zip(places.as_chunks::<LOCALITY>().0) {
                gather(secrets, places, sample);
            }
        }
    }

    /// The places of [`BATCH`] samples.
    fn places(&self, first: u64, places: &mut [u32; WORDS]) {
        let mut blocks = [0; WORDS / 4];
        let start = first / BATCH as u64 * blocks.len() as u64;
        blocks.iter_mut().zip(start..).for_each(|(block, at)| *block = Block::from(at));
        self.cipher.encrypt(&mut blocks);
        for (places, block) in places.as_chunks_mut::<4>().0.iter_mut().zip(&blocks) {
            let words = [*block as u32, (*block >> 32) as u32, (*block >> 64) as u32, (*block >> 96) as u32];
            *places = words.map(|word| ((u64::from(word) * u64::from(self.secrets)) >> 32) as u32);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn gather(secrets: &[Block], places: &[u32; LOCALITY], sample: &mut Block) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_xor_si128};
    let address: *mut __m128i = std::ptr::from_mut(sample).cast();
    // SAFETY: the sample is a block, and `places` are below the number of secrets, because the high
    // half of the product of a 32-bit word and that number is; `Code::add` checked the slice's length.
    unsafe {
        let mut sum = _mm_loadu_si128(address);
        for place in places {
            sum = _mm_xor_si128(sum, _mm_loadu_si128(secrets.as_ptr().add(*place as usize).cast()));
        }
        _mm_storeu_si128(address, sum);
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn gather(secrets: &[Block], places: &[u32; LOCALITY], sample: &mut Block) {
    gather_portable(secrets, places, sample);
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn gather_portable(secrets: &[Block], places: &[u32; LOCALITY], sample: &mut Block) {
    places.iter().for_each(|place| *sample ^= secrets[*place as usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive_places(key: [u8; 16], secrets: usize, sample: u64) -> [u32; LOCALITY] {
        std::array::from_fn(|at| {
            let word = 10 * sample + at as u64;
            let mut block = [Block::from(word / 4)];
            Cipher::new(&key).encrypt(&mut block);
            let word = block[0] >> (32 * (word % 4)) & 0xffff_ffff;
            ((word * secrets as u128) >> 32) as u32
        })
    }

    #[test]
    fn samples_sum_the_secrets_that_the_module_says() {
        let key = *b"a public key....";
        for secrets in [1, 2, 1000, 5003] {
            let values: Vec<Block> = (1..=secrets as u128).map(|i| i.wrapping_mul(u128::MAX / 977)).collect();
            for (first, len) in [(0, 0), (0, 1), (128, 31), (1024, 128), (1024, 131)] {
                let mut samples: Vec<Block> = (0..len).collect();
                Code::new(key, secrets).add(first, &values, &mut samples);
                for (at, sample) in samples.iter().enumerate() {
                    let mut expected = at as Block;
                    gather_portable(&values, &naive_places(key, secrets, first + at as u64), &mut expected);
                    assert_eq!(*sample, expected);
                }
            }
        }
    }

    #[test]
    fn places_reach_both_ends() {
        let mut seen = [false; 50];
        (0..200).for_each(|i| naive_places([1; 16], 50, i).iter().for_each(|p| seen[*p as usize] = true));
        assert!(seen.iter().all(|seen| *seen));
    }
}
