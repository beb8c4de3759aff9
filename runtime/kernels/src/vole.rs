//! Vector oblivious linear evaluation over small fields by expanding all seeds of a punctured function: the local
//! work of SoftSpoken (Roy, CRYPTO 2022, section 3.1).
//!
//! Field element `x` of `2^k`, `k =` [`FIELD_BITS`], has a seed whose stream is `r_x`. Its holders compute the
//! planes `v_b`, the sum of `r_x` over all `x` whose bit `b` is set, and `u`, the sum of all `r_x`. Who holds the
//! seeds as `x ^ d` and lacks that of `x = d` gets `v_b ^ d_b u`, because plane sums never take element 0.

use zeroize::Zeroizing;

use crate::blocks::Block;
use crate::cipher::Cipher;

/// Bits of a field element, and planes of a field.
pub const FIELD_BITS: usize = 4;
/// Elements of a field.
pub const FIELD: usize = 1 << FIELD_BITS;

/// The seeds of a number of fields, each a position in a pseudo-random stream. Wiped on drop.
pub struct Expander {
    ciphers: Vec<Cipher>,
    position: u64,
}

impl Expander {
    /// Starts the streams of `seeds`, [`FIELD`] for each field.
    ///
    /// # Panics
    /// If the seeds are not whole fields.
    pub fn new(seeds: &[Block]) -> Self {
        assert!(seeds.len().is_multiple_of(FIELD));
        let ciphers = seeds.iter().map(|seed| Cipher::new(&seed.to_le_bytes())).collect();
        Self { ciphers, position: 0 }
    }

    /// Fields that are expanded.
    pub fn fields(&self) -> usize {
        self.ciphers.len() / FIELD
    }

    /// Overwrites `planes` with the next `width` blocks of each plane of each field, and `sums` with those of each
    /// field's sum.
    ///
    /// # Panics
    /// If `planes` is not `width` blocks for each plane, or `sums` not `width` for each field.
    pub fn expand(&mut self, width: usize, planes: &mut [Block], sums: &mut [Block]) {
        assert_eq!(planes.len(), width * FIELD_BITS * self.fields());
        assert_eq!(sums.len(), width * self.fields());
        if width == 0 {
            return;
        }
        let mut leaves = Zeroizing::new(vec![0; FIELD * width]);
        let fields = self.ciphers.as_chunks::<FIELD>().0;
        let outputs = planes.chunks_exact_mut(FIELD_BITS * width).zip(sums.chunks_exact_mut(width));
        for (ciphers, (planes, sums)) in fields.iter().zip(outputs) {
            for (cipher, stream) in ciphers.iter().zip(leaves.chunks_exact_mut(width)) {
                stream.iter_mut().zip(self.position..).for_each(|(block, at)| *block = Block::from(at));
                cipher.encrypt(stream);
            }
            fold(&leaves, width, planes, sums);
        }
        self.position += width as u64;
    }
}

/// Sums the rows of `leaves`, `width` blocks each, into planes and a sum.
fn fold(leaves: &[Block], width: usize, planes: &mut [Block], sums: &mut [Block]) {
    assert!(leaves.len() == FIELD * width && planes.len() == FIELD_BITS * width && sums.len() == width);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature is there, and the lengths are those that the function asks for.
        unsafe { fold_avx2(leaves, width, planes, sums) };
        return;
    }
    fold_portable(leaves, width, planes, sums, 0);
}

/// As [`fold_portable`], two blocks at a time.
///
/// # Safety
/// `leaves` must be `FIELD` rows, `planes` `FIELD_BITS` rows and `sums` one row of `width` blocks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn fold_avx2(leaves: &[Block], width: usize, planes: &mut [Block], sums: &mut [Block]) {
    use std::arch::x86_64::{
        _mm256_loadu_si256, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256,
    };
    for at in (0..width / 2).map(|pair| 2 * pair) {
        let mut elements = [_mm256_setzero_si256(); FIELD];
        for (row, element) in elements.iter_mut().enumerate() {
            // SAFETY: blocks `at` and `at + 1` lie in each row.
            *element = unsafe { _mm256_loadu_si256(leaves.as_ptr().add(row * width + at).cast()) };
        }
        for bit in 0..FIELD_BITS {
            let mut plane = _mm256_setzero_si256();
            for pair in 0..FIELD >> (bit + 1) {
                let [low, high] = [elements[2 * pair], elements[2 * pair + 1]];
                plane = _mm256_xor_si256(plane, high);
                elements[pair] = _mm256_xor_si256(low, high);
            }
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(planes.as_mut_ptr().add(bit * width + at).cast(), plane) };
        }
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().add(at).cast(), elements[0]) };
    }
    fold_portable(leaves, width, planes, sums, width / 2 * 2);
}

/// Folds one block at a time, from number `start` of each row. Halves the elements once for each bit: those with the
/// bit set are added to its plane, then to their partners.
fn fold_portable(leaves: &[Block], width: usize, planes: &mut [Block], sums: &mut [Block], start: usize) {
    for at in start..width {
        let mut elements: [Block; FIELD] = std::array::from_fn(|row| leaves[row * width + at]);
        for bit in 0..FIELD_BITS {
            let mut plane = 0;
            for pair in 0..FIELD >> (bit + 1) {
                let [low, high] = [elements[2 * pair], elements[2 * pair + 1]];
                plane ^= high;
                elements[pair] = low ^ high;
            }
            planes[bit * width + at] = plane;
        }
        sums[at] = elements[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::{Prg, Seed};

    fn seeds() -> Vec<Block> {
        let words = Prg::new(Seed::new([8; 16]), 0).ring(4 * FIELD, 64);
        words.chunks_exact(2).map(|w| Block::from(w[0]) << 64 | Block::from(w[1])).collect()
    }

    #[test]
    fn planes_and_sums_follow_the_definition_at_any_split() {
        let seeds = seeds();
        let mut whole = Expander::new(&seeds);
        let (mut planes, mut sums) = (vec![0; 9 * 2 * FIELD_BITS], vec![0; 9 * 2]);
        whole.expand(9, &mut planes, &mut sums);
        for field in 0..2 {
            for at in 0..9 {
                let leaf = |x: usize| {
                    let mut block = [at as Block];
                    Cipher::new(&seeds[field * FIELD + x].to_le_bytes()).encrypt(&mut block);
                    block[0]
                };
                assert_eq!(sums[field * 9 + at], (0..FIELD).fold(0, |sum, x| sum ^ leaf(x)));
                for bit in 0..FIELD_BITS {
                    let expected = (0..FIELD).filter(|x| x >> bit & 1 == 1).fold(0, |sum, x| sum ^ leaf(x));
                    assert_eq!(planes[(field * FIELD_BITS + bit) * 9 + at], expected);
                }
            }
        }
        let mut split = Expander::new(&seeds);
        let mut start = 0;
        for width in [4, 0, 5] {
            let (mut part, mut part_sums) = (vec![0; width * 2 * FIELD_BITS], vec![0; width * 2]);
            split.expand(width, &mut part, &mut part_sums);
            for row in 0..2 * FIELD_BITS {
                assert_eq!(part[row * width..(row + 1) * width], planes[row * 9 + start..][..width]);
            }
            start += width;
        }
    }

    #[test]
    fn a_punctured_holder_is_off_by_the_point_times_the_sum() {
        let seeds = &seeds()[..FIELD];
        let (mut planes, mut sums) = (vec![0; 5 * FIELD_BITS], vec![0; 5]);
        Expander::new(seeds).expand(5, &mut planes, &mut sums);
        for point in 0..FIELD {
            let mut moved: Vec<Block> = (0..FIELD).map(|y| seeds[y ^ point]).collect();
            moved[0] = 0;
            let (mut other, mut ignored) = (vec![0; 5 * FIELD_BITS], vec![0; 5]);
            Expander::new(&moved).expand(5, &mut other, &mut ignored);
            for bit in 0..FIELD_BITS {
                for at in 0..5 {
                    let times = if point >> bit & 1 == 1 { sums[at] } else { 0 };
                    assert_eq!(other[bit * 5 + at], planes[bit * 5 + at] ^ times);
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn both_paths_fold_alike() {
        let leaves: Vec<Block> = seeds()[..FIELD].iter().flat_map(|s| [*s, s.rotate_left(7), !s]).collect();
        let run = |start| {
            let (mut planes, mut sums) = (vec![0; 3 * FIELD_BITS], vec![0; 3]);
            match start {
                Some(start) => fold_portable(&leaves, 3, &mut planes, &mut sums, start),
                None => fold(&leaves, 3, &mut planes, &mut sums),
            }
            (planes, sums)
        };
        assert!(run(None) == run(Some(0)));
    }
}
