//! Between residues of `Q` and integers modulo powers of two: exact encoding, and rounding.

use super::modulus::{DEGREE, LIMBS, MODULI, Modulus, others, product_of};

/// Multiplies ring elements of `Z_2^width_bits` by `Q / 2^width_bits`, rounded to the nearest integer.
///
/// `Q v = 2^w floor(..) + rest`, so the rounded quotient is minus the centred rest over `2^w`, modulo every prime of `Q`.
pub struct Encoder {
    product: u64,
    width_bits: u32,
    /// `-1 / 2^width_bits` of every limb.
    factors: Vec<(Modulus, f64)>,
}

impl Encoder {
    /// Prepares for `limbs` limbs.
    pub fn new(width_bits: u32, limbs: usize) -> Encoder {
        let factor = |modulus: Modulus| -modulus.invert(modulus.power(2.0, width_bits.into()));
        let factors = MODULI[..limbs].iter().map(|m| (*m, factor(*m))).collect();
        Encoder { product: product_of(limbs), width_bits, factors }
    }

    /// What the residues of an element are multiples of.
    pub fn rest(&self, value: u64) -> i64 {
        crate::bits::sign_extend(self.product.wrapping_mul(value), self.width_bits)
    }

    /// The residue of limb `limb`, near `-p/2..=p/2`, for a [`Encoder::rest`].
    pub fn residue(&self, limb: usize, rest: i64) -> f64 {
        let (modulus, factor) = self.factors[limb];
        modulus.reduce(modulus.residue(rest) * factor)
    }
}

/// Residues of `Q` as fractions of it.
pub struct Scale {
    limbs: Vec<ScaleLimb>,
}

struct ScaleLimb {
    modulus: Modulus,
    /// `(Q / p)^-1` modulo `p`.
    factor: f64,
    /// `2^128 / p`.
    step: u128,
}

impl Scale {
    /// Prepares for `limbs` limbs.
    pub fn new(limbs: usize) -> Scale {
        let limb = |i: usize| ScaleLimb {
            modulus: MODULI[i],
            factor: MODULI[i].invert(others(limbs, i)),
            step: u128::MAX / u128::from(MODULI[i].prime()),
        };
        Scale { limbs: (0..limbs).map(limb).collect() }
    }

    /// `x / Q` modulo 1, times `2^128`, for the residues of `x`; the error is below `2^28`.
    pub fn fraction(&self, residues: impl Iterator<Item = f64>) -> u128 {
        self.limbs.iter().zip(residues).fold(0, |sum, (limb, residue)| {
            let ScaleLimb { modulus, factor, step } = limb;
            let share = modulus.reduce(modulus.reduce(residue) * factor) as i64;
            sum.wrapping_add((i128::from(share) as u128).wrapping_mul(*step))
        })
    }

    /// `x 2^bits / Q` of coefficient `at` of limbs `[limbs, DEGREE]`, rounded, modulo `2^bits`.
    pub fn rounded(&self, polynomial: &[f64], at: usize, bits: u32) -> u128 {
        let fraction = self.fraction(polynomial.iter().skip(at).step_by(DEGREE).copied());
        round(fraction, bits)
    }
}

/// The top `bits` bits of a fraction, rounded.
pub fn round(fraction: u128, bits: u32) -> u128 {
    fraction.wrapping_add(1 << (127 - bits)) >> (128 - bits)
}

/// Integers of up to 95 bits with a sign from the residues of four limbs.
pub struct Join {
    factors: [f64; Join::LIMBS],
    parts: [u128; Join::LIMBS],
    product: u128,
}

impl Join {
    /// Limbs that are used.
    pub const LIMBS: usize = 4;

    /// Prepares.
    pub fn new() -> Join {
        const { assert!(Join::LIMBS <= LIMBS) };
        let product = MODULI[..Join::LIMBS].iter().map(|m| u128::from(m.prime())).product();
        Join {
            factors: std::array::from_fn(|i| MODULI[i].invert(others(Join::LIMBS, i))),
            parts: std::array::from_fn(|i| product / u128::from(MODULI[i].prime())),
            product,
        }
    }

    /// The integer modulo `2^128`, for a size below `2^93`.
    pub fn integer(&self, residues: [f64; Join::LIMBS]) -> u128 {
        let (mut sum, mut whole) = (0_u128, 0.0);
        for (i, modulus) in MODULI[..Join::LIMBS].iter().enumerate() {
            let share = modulus.reduce(residues[i] * self.factors[i]);
            whole += share * modulus.inverse;
            sum = sum.wrapping_add((share as i128 as u128).wrapping_mul(self.parts[i]));
        }
        sum.wrapping_sub((whole.round() as i128 as u128).wrapping_mul(self.product))
    }
}

impl Default for Join {
    fn default() -> Join {
        Join::new()
    }
}

/// The residue of an integer of up to 90 bits with a sign.
pub fn residue_of(modulus: Modulus, value: i128) -> f64 {
    let high = modulus.residue((value >> 32) as i64);
    modulus.reduce(high * modulus.power(2.0, 32) + (value & 0xffff_ffff) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_rounding_are_inverse() {
        for limbs in 1..=LIMBS {
            let scale = Scale::new(limbs);
            for width_bits in [1, 20, 37, 53, 64].into_iter().filter(|w| *w < 23 * limbs as u32) {
                let encoder = Encoder::new(width_bits, limbs);
                for value in [0, 1, 5, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0] {
                    let value = value & crate::bits::mask(width_bits);
                    let rest = encoder.rest(value);
                    let residues = (0..limbs).map(|limb| encoder.residue(limb, rest));
                    assert_eq!(round(scale.fraction(residues), width_bits), value.into());
                }
            }
        }
    }

    #[test]
    fn integers_come_back_from_their_residues() {
        let join = Join::new();
        for value in [0, 1, -1, 1 << 89, -(1 << 89), 0x0012_3456_789a_bcde_f012_3456, -12345] {
            let residues = std::array::from_fn(|i| residue_of(MODULI[i], value));
            assert_eq!(join.integer(residues) as i128, value);
        }
    }
}
