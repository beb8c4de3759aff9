//! Ciphertexts in transformed form, and packing many sparse ones into one.
//!
//! Source: Chen, Dai, Kim and Song, Efficient homomorphic conversion between (ring) LWE ciphertexts, ACNS 2021,
//! algorithm 3, here on ciphertexts whose messages stand at every `2^log_stride`-th coefficient.

use std::sync::OnceLock;

use super::keys::{PublicKey, galois};
use super::modulus::{DEGREE, LIMBS, MODULI};
use super::{ntt, product};

/// A ciphertext `(a, b)`, transformed, `[limbs, DEGREE]` each.
pub struct Ciphertext {
    /// The part that multiplies the secret.
    pub a: Vec<f64>,
    /// The part that holds the message.
    pub b: Vec<f64>,
}

impl Ciphertext {
    /// Zero.
    pub fn zero(limbs: usize) -> Ciphertext {
        Ciphertext { a: vec![0.0; limbs * DEGREE], b: vec![0.0; limbs * DEGREE] }
    }

    fn limbs(&self) -> usize {
        self.a.len() / DEGREE
    }
}

/// The levels at which `count` ciphertexts are joined: `ceil(log2 count)`.
pub const fn joins(count: usize) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Key switches of [`pack`].
pub const fn switches(count: usize) -> usize {
    count.next_power_of_two() - 1
}

/// One ciphertext for `ciphertexts`, 1 to `2^log_stride` of them: what stood at multiples `c 2^log_stride` of number
/// `i` stands at `c 2^log_stride + i 2^(log_stride - joins)`, times `2^joins`. Other coefficients hold anything.
///
/// # Panics
/// If there are more than the stride has room for, or `key` has too few levels or limbs.
pub fn pack(ciphertexts: Vec<Ciphertext>, log_stride: u32, key: &PublicKey) -> Ciphertext {
    let levels = joins(ciphertexts.len());
    assert!(levels <= log_stride && log_stride <= key.levels().max(levels), "too many to pack");
    let lowest = log_stride - levels;
    // Number `i` joins at its lowest bit last, so the list is put in the order of reversed bits.
    let mut row: Vec<Option<Ciphertext>> = (0..1 << levels).map(|_| None).collect();
    for (i, ciphertext) in ciphertexts.into_iter().enumerate() {
        let place = if levels == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - levels) };
        row[place] = Some(ciphertext);
    }
    for level in (lowest..log_stride).rev() {
        let mut pairs = row.into_iter();
        let mut joined = Vec::with_capacity(pairs.len() / 2);
        while let (Some(even), Some(odd)) = (pairs.next(), pairs.next()) {
            joined.push(even.map(|even| join(even, odd, level, key)));
        }
        row = joined;
    }
    row.into_iter().flatten().next().unwrap_or_else(|| Ciphertext::zero(key.limbs()))
}

/// `(even + M odd) + moved(even - M odd)` with the monomial `M = X^(2^level)`.
fn join(mut even: Ciphertext, odd: Option<Ciphertext>, level: u32, key: &PublicKey) -> Ciphertext {
    let mut difference = Ciphertext { a: even.a.clone(), b: even.b.clone() };
    if let Some(odd) = odd {
        for (limb, modulus) in MODULI.into_iter().enumerate().take(even.limbs()) {
            let range = limb * DEGREE..(limb + 1) * DEGREE;
            let shift = monomial(limb, level);
            for (part, sum, difference) in
                [(&odd.a, &mut even.a, &mut difference.a), (&odd.b, &mut even.b, &mut difference.b)]
            {
                let terms = part[range.clone()].iter().zip(shift);
                let places = sum[range.clone()].iter_mut().zip(&mut difference[range.clone()]);
                for ((x, shift), (sum, difference)) in terms.zip(places) {
                    let product = modulus.reduce(x * shift);
                    *sum += product;
                    *difference -= product;
                }
            }
        }
    }
    add_moved(&difference, level, key, &mut even);
    even
}

/// Adds `ciphertext` with `X^galois` for `X`, under the same secret as before.
fn add_moved(ciphertext: &Ciphertext, level: u32, key: &PublicKey, sum: &mut Ciphertext) {
    let limbs = ciphertext.limbs();
    let places = permutation(level);
    let moved = |part: &[f64], limb: usize| -> Vec<f64> {
        let part = &part[limb * DEGREE..(limb + 1) * DEGREE];
        places.iter().map(|place| part[*place as usize]).collect()
    };
    let slots: Vec<Vec<f64>> = (0..limbs)
        .map(|limb| {
            let mut slots = moved(&ciphertext.a, limb);
            product::reduce(MODULI[limb], &mut slots);
            slots
        })
        .collect();
    let mut digits = slots.clone();
    digits.iter_mut().enumerate().for_each(|(limb, digit)| ntt::inverse(limb, digit));
    let mut transformed = vec![0.0; DEGREE];
    let (mut a, mut b) = (vec![0.0; DEGREE], vec![0.0; DEGREE]);
    for (limb, modulus) in MODULI.into_iter().enumerate().take(limbs) {
        let range = limb * DEGREE..(limb + 1) * DEGREE;
        a.fill(0.0);
        b.fill(0.0);
        for ((i, digit), keys) in digits.iter().enumerate().zip(&key.levels[level as usize]) {
            // A digit modulo its own prime is what it was made from.
            if i == limb {
                transformed.copy_from_slice(&slots[limb]);
            } else {
                transformed.copy_from_slice(digit);
                ntt::forward(limb, &mut transformed);
            }
            product::add_narrow_products(&transformed, &keys.a[range.clone()], &mut a);
            product::add_narrow_products(&transformed, &keys.b[range.clone()], &mut b);
        }
        let kept = moved(&ciphertext.b, limb);
        let (sum_a, sum_b) = (&mut sum.a[range.clone()], &mut sum.b[range]);
        sum_a.iter_mut().zip(&a).for_each(|(sum, a)| *sum -= a);
        sum_b.iter_mut().zip(&b).zip(&kept).for_each(|((sum, b), kept)| *sum += kept - b);
        product::reduce(modulus, sum_a);
        product::reduce(modulus, sum_b);
    }
}

/// For each slot the slot from which it comes when `X` is replaced at level `level`.
fn permutation(level: u32) -> &'static [u16] {
    static PERMUTATIONS: [OnceLock<Vec<u16>>; DEGREE.trailing_zeros() as usize] =
        [const { OnceLock::new() }; DEGREE.trailing_zeros() as usize];
    PERMUTATIONS[level as usize].get_or_init(|| {
        let mut slots = vec![0_u16; 2 * DEGREE];
        ntt::exponents().iter().enumerate().for_each(|(slot, exponent)| slots[*exponent] = slot as u16);
        let from = |exponent: &usize| slots[exponent * galois(level) % (2 * DEGREE)];
        ntt::exponents().iter().map(from).collect()
    })
}

/// `X^(2^level)`, transformed.
fn monomial(limb: usize, level: u32) -> &'static [f64] {
    static MONOMIALS: [[OnceLock<Vec<f64>>; DEGREE.trailing_zeros() as usize]; LIMBS] =
        [const { [const { OnceLock::new() }; DEGREE.trailing_zeros() as usize] }; LIMBS];
    MONOMIALS[limb][level as usize].get_or_init(|| {
        let mut values = vec![0.0; DEGREE];
        values[1 << level] = 1.0;
        ntt::forward(limb, &mut values);
        values
    })
}

const _: () = assert!(LIMBS < super::TERMS);
