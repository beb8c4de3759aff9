//! The public linear code of silent transfer: every sample sums a few of the secrets, at pseudo-random places.
//!
//! Sample `i` sums the secrets at `floor(f k / 2^25)` for the five lowest 25-bit fields `f`, lowest first, of each of
//! the blocks `AES(2 i)` and `AES(2 i + 1)`, under a key that is public. Places are public too, so that looking them
//! up tells nothing.

use aes::Aes128Enc;
use aes::cipher::KeyInit;

use crate::blocks::{Block, encrypt};

/// Secrets that one sample sums.
pub const LOCALITY: usize = 10;
/// Bits of a field, and so the binary logarithm of the most secrets there may be.
const FIELD_BITS: u32 = 25;
/// Samples whose places are drawn, and fetched, ahead of their use.
const AHEAD: usize = 16;

/// A code over a fixed number of secrets.
pub struct Code {
    cipher: Aes128Enc,
    secrets: u32,
}

impl Code {
    /// The code over `secrets` secrets under the public `key`.
    ///
    /// # Panics
    /// If there are no secrets, or more than `2^25`.
    pub fn new(key: [u8; 16], secrets: usize) -> Self {
        assert!((1..=1 << FIELD_BITS).contains(&secrets), "{secrets} secrets, not in 1..=2^25");
        Self { cipher: Aes128Enc::new(&key.into()), secrets: secrets as u32 }
    }

    /// Adds to each of `samples` its secrets' sum; the first is sample number `first`.
    ///
    /// # Panics
    /// If there are not as many secrets as the code takes.
    pub fn add(&self, first: u64, secrets: &[Block], samples: &mut [Block]) {
        assert_eq!(secrets.len(), self.secrets as usize);
        let mut places = [[0; AHEAD * LOCALITY]; 2];
        self.places(first, &mut places[0], secrets);
        for (at, samples) in samples.chunks_mut(AHEAD).enumerate() {
            let [now, next] = &mut places;
            self.places(first.wrapping_add(((at + 1) * AHEAD) as u64), next, secrets);
            for (sample, places) in samples.iter_mut().zip(now.as_chunks::<LOCALITY>().0) {
                gather(secrets, places, sample);
            }
            places.swap(0, 1);
        }
    }

    /// The places of [`AHEAD`] samples, their memory fetched.
    fn places(&self, first: u64, places: &mut [u32; AHEAD * LOCALITY], secrets: &[Block]) {
        let mut blocks = [0; 2 * AHEAD];
        let start = first.wrapping_mul(2);
        for (at, block) in blocks.iter_mut().enumerate() {
            *block = Block::from(start.wrapping_add(at as u64));
        }
        encrypt(&self.cipher, &mut blocks);
        const FIELD: u64 = (1 << FIELD_BITS) - 1;
        for (places, block) in places.as_chunks_mut::<{ LOCALITY / 2 }>().0.iter_mut().zip(&blocks) {
            let (low, high) = (*block as u64, (*block >> 50) as u64);
            let fields = [low, low >> 25, high, high >> 25, (*block >> 100) as u64];
            for (place, field) in places.iter_mut().zip(fields) {
                *place = ((field & FIELD) * u64::from(self.secrets) >> FIELD_BITS) as u32;
                fetch(secrets, *place);
            }
        }
    }
}

/// Asks for the memory of one secret.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch(secrets: &[Block], place: u32) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address is harmless.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(secrets.as_ptr().wrapping_add(place as usize).cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch(_: &[Block], _: u32) {}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn gather(secrets: &[Block], places: &[u32; LOCALITY], sample: &mut Block) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_xor_si128};
    let address: *mut __m128i = std::ptr::from_mut(sample).cast();
    // SAFETY: the sample is a block, and `places` are below the number of secrets, because a 25-bit field times that
    // number has the number above its lowest 25 bits at most once over; `Code::add` checked the slice's length.
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
        let mut blocks = [Block::from(2 * sample), Block::from(2 * sample + 1)];
        encrypt(&Aes128Enc::new(&key.into()), &mut blocks);
        std::array::from_fn(|at| {
            let field = blocks[at / 5] >> (25 * (at % 5)) & ((1 << 25) - 1);
            (field * secrets as u128 >> 25) as u32
        })
    }

    #[test]
    fn samples_sum_the_secrets_that_the_module_says() {
        let key = *b"a public key....";
        for secrets in [1, 2, 1000, 5003] {
            let values: Vec<Block> = (1..=secrets as u128).map(|i| i.wrapping_mul(u128::MAX / 977)).collect();
            for (first, len) in [(0, 0), (0, 1), (7, 15), (1000, 16), (1000, 47)] {
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
