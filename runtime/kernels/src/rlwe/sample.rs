//! What is drawn from seeds: uniform residues, ternary secrets, errors and flooding.
//!
//! Nothing here depends on secret values but the values that are drawn.

use super::modulus::{MODULI, Modulus, MulAdd, Path, on_every_path};
use crate::{Prg, Seed};

/// Residues of one block of a [`Uniform`].
pub const BLOCK: usize = 1024;
/// Bytes of the stream that belong to one block: twice what it takes without a rejection.
const BLOCK_BYTES: u64 = 16 * BLOCK as u64;
/// An error is the difference of two sums of so many bits: its variance is half of it.
const ERROR_BITS: u32 = 21;
/// The largest size of an error.
pub const ERROR_BOUND: u32 = ERROR_BITS;

/// Public uniform residues: numbered blocks under one seed.
pub struct Uniform {
    prg: Prg,
    words: Vec<u64>,
}

impl Uniform {
    /// The blocks of stream `stream` of `seed`.
    pub fn new(seed: &Seed, stream: u64) -> Uniform {
        Uniform { prg: Prg::new(seed.clone(), stream), words: vec![0; BLOCK] }
    }

    /// Overwrites `values`, at most [`BLOCK`], with the beginning of block `block`. The distribution is exact: words of
    /// 52 bits above the largest multiple of the prime are passed over.
    pub fn fill(&mut self, modulus: Modulus, block: u64, values: &mut [f64]) {
        self.prg.seek_bytes(block * BLOCK_BYTES);
        let words = &mut self.words[..values.len()];
        self.prg.fill_ring(words, 52);
        let (limit, mut most) = (limit(modulus), 0);
        largest(Path::best(), words, &mut most);
        if most >= limit {
            let mut more = std::iter::from_fn(|| self.prg.ring(1, 52).pop());
            replace_rejected(words, limit, &mut more);
        }
        to_residues(Path::best(), modulus, words, values);
    }
}

/// The first words of `words` and then `more` that are below `limit`.
fn replace_rejected(words: &mut [u64], limit: u64, more: &mut impl Iterator<Item = u64>) {
    let mut kept = 0;
    for at in 0..words.len() {
        if words[at] < limit {
            words[kept] = words[at];
            kept += 1;
        }
    }
    let accepted = more.filter(|word| *word < limit);
    words[kept..].iter_mut().zip(accepted).for_each(|(word, accepted)| *word = accepted);
}

on_every_path! {
    fn largest(words: &[u64], most: &mut u64) = largest_body
}

/// Of numbers below `2^63`.
#[inline(always)]
fn largest_body<A: MulAdd>(words: &[u64], most: &mut u64) {
    *most = words.iter().fold(0, |most, word| most.max(*word as i64)) as u64;
}

on_every_path! {
    fn to_residues(modulus: Modulus, words: &[u64], values: &mut [f64]) = to_residues_body
}

#[inline(always)]
fn to_residues_body<A: MulAdd>(modulus: Modulus, words: &[u64], values: &mut [f64]) {
    for (value, word) in values.iter_mut().zip(words) {
        // The word becomes the fraction of a double in 2^52..2^53.
        let real = f64::from_bits(*word | 0x4330_0000_0000_0000) - 4_503_599_627_370_496.0;
        *value = modulus.reduce_by::<A>(real);
    }
}

/// The largest multiple of the prime up to `2^52`.
fn limit(modulus: Modulus) -> u64 {
    let prime = u64::from(modulus.prime());
    (1 << 52) / prime * prime
}

/// `len` uniform values of -1, 0 and 1.
pub fn ternary(prg: &mut Prg, len: usize) -> Vec<i8> {
    let mut values = Vec::with_capacity(len);
    let mut bytes = [0; 256];
    while values.len() < len {
        prg.fill(&mut bytes);
        let digits = bytes.iter().flat_map(|byte| [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6]);
        values
            .extend(digits.filter(|digit| *digit < 3).map(|digit| digit as i8 - 1).take(len - values.len()));
    }
    zeroize::Zeroize::zeroize(&mut bytes);
    values
}

/// `len` errors: centred binomial, standard deviation 3.24, at most [`ERROR_BOUND`] in size.
pub fn errors(prg: &mut Prg, len: usize) -> Vec<i8> {
    let mask = (1_u64 << ERROR_BITS) - 1;
    let mut words = prg.ring(len, 2 * ERROR_BITS);
    let error = |word: &u64| ((word & mask).count_ones() as i8) - ((word >> ERROR_BITS).count_ones() as i8);
    let errors = words.iter().map(error).collect();
    zeroize::Zeroize::zeroize(&mut words);
    errors
}

/// Uniform integers of `-2^bits..2^bits`, as residues of every limb.
pub struct Flooding {
    pieces: usize,
    top_mask: u64,
    limbs: Vec<FloodingLimb>,
}

struct FloodingLimb {
    modulus: Modulus,
    /// `2^32`.
    step: f64,
    /// `2^bits`.
    offset: f64,
}

impl Flooding {
    /// Prepares for `limbs` limbs.
    pub fn new(bits: u32, limbs: usize) -> Flooding {
        let drawn_bits = bits + 1;
        let pieces = drawn_bits.div_ceil(32) as usize;
        let top_bits = drawn_bits - 32 * (pieces as u32 - 1);
        let limb = |modulus: Modulus| FloodingLimb {
            modulus,
            step: modulus.power(2.0, 32),
            offset: modulus.power(2.0, bits.into()),
        };
        Flooding {
            pieces,
            top_mask: (1 << top_bits) - 1,
            limbs: MODULI[..limbs].iter().map(|m| limb(*m)).collect(),
        }
    }

    /// Adds a fresh integer each to `count` coefficients; `add(limb, coefficient, residue)` is called for every limb.
    pub fn add(&self, prg: &mut Prg, count: usize, mut add: impl FnMut(usize, usize, f64)) {
        let mut words = prg.ring(count * self.pieces, 32);
        for (at, pieces) in words.chunks_exact_mut(self.pieces).enumerate() {
            pieces[0] &= self.top_mask;
            for (limb, FloodingLimb { modulus, step, offset }) in self.limbs.iter().enumerate() {
                let value = pieces.iter().fold(0.0, |sum, piece| modulus.reduce(sum * step + *piece as f64));
                add(limb, at, value - offset);
            }
        }
        zeroize::Zeroize::zeroize(&mut words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prg() -> Prg {
        Prg::new(Seed::new(*b"samples of a day"), 0)
    }

    #[test]
    fn uniform_blocks_stand_alone_and_fill_the_range() {
        let modulus = MODULI[4];
        let half = f64::from(modulus.prime() / 2);
        let mut uniform = Uniform::new(&Seed::new([5; 16]), 1);
        let (mut first, mut again) = (vec![0.0; BLOCK], vec![0.0; 100]);
        uniform.fill(modulus, 77, &mut first);
        uniform.fill(modulus, 78, &mut again);
        assert_ne!(first[..100], again);
        uniform.fill(modulus, 77, &mut again);
        assert_eq!(first[..100], again);
        let mean = first.iter().sum::<f64>() / BLOCK as f64;
        assert!(mean.abs() < half / 8.0);
        assert!(first.iter().any(|x| *x > half * 0.95) && first.iter().any(|x| *x < -half * 0.95));
        assert!(first.iter().all(|x| x.abs() <= half + 1.0));
    }

    #[test]
    fn rejected_words_are_passed_over() {
        let stream = [5, 90, 7, 99, 1, 100, 2, 3, 4, 200, 6];
        let mut words = stream[..6].to_vec();
        replace_rejected(&mut words, 90, &mut stream[6..].iter().copied());
        assert_eq!(words, [5, 7, 1, 2, 3, 4]);
        let limits = MODULI.map(|m| (limit(m), u64::from(m.prime())));
        assert!(limits.iter().all(|(limit, p)| limit % p == 0 && limit + p > 1 << 52));
    }

    #[test]
    fn secrets_and_errors_have_their_moments() {
        let secret = ternary(&mut prg(), 30_000);
        for digit in [-1, 0, 1] {
            let count = secret.iter().filter(|x| **x == digit).count();
            assert!((9_500..10_500).contains(&count), "{digit} occurs {count} times");
        }
        let errors = errors(&mut prg(), 40_000);
        let mean = errors.iter().map(|e| f64::from(*e)).sum::<f64>() / 40_000.0;
        let variance = errors.iter().map(|e| f64::from(*e).powi(2)).sum::<f64>() / 40_000.0;
        assert!(mean.abs() < 0.1 && (variance - 10.5).abs() < 0.5, "mean {mean}, variance {variance}");
    }

    #[test]
    fn flooding_fills_its_width() {
        let draw = |bits| {
            let mut residues = vec![[0.0; 9]; 4000];
            Flooding::new(bits, 9).add(&mut prg(), 4000, |limb, at, value| residues[at][limb] += value);
            residues
        };
        let narrow = draw(20);
        assert!(narrow.iter().all(|r| r.iter().all(|x| *x == r[0]) && r[0].abs() <= f64::from(1 << 20)));
        assert!(narrow.iter().any(|r| r[0] < -f64::from(1_020_000)));
        let scale = crate::rlwe::scale::Scale::new(9);
        let q = MODULI.iter().map(|m| m.value).product::<f64>();
        for bits in [159, 160, 190] {
            let real = |r: &[f64; 9]| scale.fraction(r.iter().copied()) as i128 as f64 / 2.0_f64.powi(128);
            let sizes: Vec<f64> =
                draw(bits).iter().map(|r| real(r) * q / 2.0_f64.powi(bits as i32)).collect();
            let variance = sizes.iter().map(|x| x * x).sum::<f64>() / 4000.0;
            assert!(sizes.iter().all(|x| x.abs() <= 1.001));
            assert!((variance - 1.0 / 3.0).abs() < 0.02, "variance {variance} of {bits} bits");
        }
    }
}
