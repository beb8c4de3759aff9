//! The one message that answers with ciphertexts: re-randomised, flooded, in a small modulus, less a share.
//!
//! For plaintexts of `w` bits the modulus is `2^(w + 10)`, and the message part keeps `w + 5` bits. The phase that the
//! key's holder finds is off by what rounding makes of `a`, at most 449 units of `2^-10` but with probability `2^-70`
//! (Hoeffding over 8192 uniform fractions), by 16 for the message part, and by the flooding, at most 32: below the 512
//! that would round to another value.
//!
//! What the holder sees: `a + u a_pk + e` for a fresh ternary secret `u` and fresh errors `e`, which is pseudo-random by
//! ring learning with errors although the holder made `a_pk`, and a phase whose error is uniform over
//! `2^(flood_bits + 1)` integers plus the error of the ciphertext, which it drowns together with all that depends on `u`
//! and `e`; the second part's own fresh errors are part of the flooding. A simulator that knows the output draws both
//! anew. Coefficients of the second part at no position are never sent: they may hold anything.

use super::keys::{PublicKey, SecretKey, transformed};
use super::modulus::{DEGREE, MODULI};
use super::sample::{Flooding, errors, ternary};
use super::scale::{Join, Scale, residue_of};
use super::switching::Ciphertext;
use super::{ntt, product};
use crate::Prg;
use crate::bits::mask;
use crate::pack::{pack, packed_len, unpack};

/// Bits of the first part of a reply beyond those of a plaintext.
pub const A_BITS: u32 = 10;
/// Bits of the second part of a reply beyond those of a plaintext.
pub const B_BITS: u32 = 5;

/// Bits of the modulus that the flooding leaves to the plaintext: it is uniform in `-2^f..2^f` for the largest `f` with
/// `f + w + FLOOD_MARGIN_BITS <= log2 Q`.
pub const FLOOD_MARGIN_BITS: u32 = 5;

/// Bytes of a reply with `coefficients` coefficients of its second part.
pub fn reply_bytes(width_bits: u32, coefficients: usize) -> usize {
    packed_wide_len(DEGREE, width_bits + A_BITS)
        .saturating_add(packed_wide_len(coefficients, width_bits + B_BITS))
}

/// How to make replies of one kind.
pub struct Sealer<'a> {
    key: &'a PublicKey,
    limbs: usize,
    width_bits: u32,
    flooding: Flooding,
    scale: Scale,
}

impl<'a> Sealer<'a> {
    /// Replies in `limbs` limbs, flooded by `flood_bits` bits.
    ///
    /// # Panics
    /// If the key has fewer limbs.
    pub fn new(key: &'a PublicKey, limbs: usize, width_bits: u32, flood_bits: u32) -> Sealer<'a> {
        assert!(limbs <= key.limbs(), "the public key has {} limbs, not {limbs}", key.limbs());
        let (flooding, scale) = (Flooding::new(flood_bits, limbs), Scale::new(limbs));
        Sealer { key, limbs, width_bits, flooding, scale }
    }

    /// Appends the reply for `ciphertext`: its messages at `positions`, each less its share. `noise` must be fresh.
    pub fn seal(
        &self,
        mut ciphertext: Ciphertext,
        positions: &[usize],
        shares: &[u64],
        noise: &mut Prg,
        out: &mut Vec<u8>,
    ) {
        let secret = zeroize::Zeroizing::new(ternary(noise, DEGREE));
        let secret = zeroize::Zeroizing::new(transformed(&secret, self.limbs));
        let zero = &self.key.zero;
        product::add_narrow_products(&secret, &zero.a[..self.limbs * DEGREE], &mut ciphertext.a);
        product::add_narrow_products(&secret, &zero.b[..self.limbs * DEGREE], &mut ciphertext.b);
        let errors = zeroize::Zeroizing::new(errors(noise, DEGREE));
        for (limb, a) in ciphertext.a.chunks_exact_mut(DEGREE).enumerate() {
            product::reduce(MODULI[limb], a);
            ntt::inverse(limb, a);
            a.iter_mut().zip(errors.iter()).for_each(|(a, error)| *a += f64::from(*error));
        }
        for (limb, b) in ciphertext.b.chunks_exact_mut(DEGREE).enumerate() {
            product::reduce(MODULI[limb], b);
            ntt::inverse(limb, b);
        }
        let b = &mut ciphertext.b;
        self.flooding
            .add(noise, positions.len(), |limb, at, value| b[limb * DEGREE + positions[at]] += value);
        let bits = self.width_bits + A_BITS;
        let values: Vec<u128> = (0..DEGREE).map(|at| self.scale.rounded(&ciphertext.a, at, bits)).collect();
        pack_wide(&values, bits, out);
        let bits = self.width_bits + B_BITS;
        let less = |(at, share): (&usize, &u64)| {
            self.scale.rounded(&ciphertext.b, *at, bits).wrapping_sub(u128::from(*share) << B_BITS)
        };
        let values: Vec<u128> = positions.iter().zip(shares).map(less).collect();
        pack_wide(&values, bits, out);
    }
}

/// The messages modulo `2^width_bits` of a reply at `positions`. `None` if the bytes are none.
pub fn open(key: &SecretKey, width_bits: u32, positions: &[usize], bytes: &[u8]) -> Option<Vec<u64>> {
    let phases = phases(key, width_bits, positions, bytes)?;
    Some(phases.into_iter().map(|phase| message(phase, width_bits)).collect())
}

/// The nearest message to a phase modulo `2^(width_bits + A_BITS)`.
fn message(phase: u128, width_bits: u32) -> u64 {
    (phase.wrapping_add(1 << (A_BITS - 1)) >> A_BITS) as u64 & mask(width_bits)
}

fn phases(key: &SecretKey, width_bits: u32, positions: &[usize], bytes: &[u8]) -> Option<Vec<u128>> {
    let bits = width_bits + A_BITS;
    if bytes.len() != reply_bytes(width_bits, positions.len()) {
        return None;
    }
    let (a, b) = bytes.split_at(packed_wide_len(DEGREE, bits));
    let a = unpack_wide(a, bits, DEGREE)?;
    let b = unpack_wide(b, width_bits + B_BITS, positions.len())?;
    let mut products = vec![0.0; Join::LIMBS * DEGREE];
    for (limb, product) in products.chunks_exact_mut(DEGREE).enumerate() {
        let modulus = MODULI[limb];
        let centred = |value: &u128| ((value << (128 - bits)) as i128) >> (128 - bits);
        product.iter_mut().zip(&a).for_each(|(place, value)| *place = residue_of(modulus, centred(value)));
        ntt::forward(limb, product);
        product.iter_mut().zip(key.limb(limb)).for_each(|(x, y)| *x = modulus.reduce(*x * y));
        ntt::inverse(limb, product);
    }
    let join = Join::new();
    let phase = |(at, b): (&usize, u128)| {
        let product = join.integer(std::array::from_fn(|limb| products[limb * DEGREE + at]));
        (b << (A_BITS - B_BITS)).wrapping_sub(product) & ((1 << bits) - 1)
    };
    Some(positions.iter().zip(b).map(phase).collect())
}

/// Bytes of `len` values of up to 74 bits: the low 64 of all, then what is above.
fn packed_wide_len(len: usize, bits: u32) -> usize {
    packed_len(len, bits.min(64)).saturating_add(packed_len(len, bits.saturating_sub(64)))
}

fn pack_wide(values: &[u128], bits: u32, out: &mut Vec<u8>) {
    let low: Vec<u64> = values.iter().map(|value| *value as u64).collect();
    pack(&low, bits.min(64), out);
    if bits > 64 {
        let high: Vec<u64> = values.iter().map(|value| (value >> 64) as u64).collect();
        pack(&high, bits - 64, out);
    }
}

fn unpack_wide(bytes: &[u8], bits: u32, len: usize) -> Option<Vec<u128>> {
    let (low, high) = bytes.split_at_checked(packed_len(len, bits.min(64)))?;
    let low = unpack(low, bits.min(64), len)?.into_iter().map(u128::from);
    if bits <= 64 {
        return high.is_empty().then(|| low.collect());
    }
    let high = unpack(high, bits - 64, len)?;
    Some(low.zip(high).map(|(low, high)| low | u128::from(high) << 64).collect())
}

#[cfg(test)]
mod tests;
