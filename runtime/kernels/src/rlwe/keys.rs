//! Secret keys and what their holder publishes: encryptions of zero and keys for switching.

use zeroize::Zeroizing;

use super::modulus::{DEGREE, LIMBS, MODULI};
use super::residues;
use super::sample::{BLOCK, Uniform, errors, ternary};
use super::{ntt, product};
use crate::{Prg, Seed};

/// Streams of a holder's secret seed.
const SECRET_STREAM: u64 = 0;
const ERROR_STREAM: u64 = 1 << 62;
/// The stream of a public seed that the published keys' `a` come from; users take others.
const KEY_STREAM: u64 = u64::MAX;
/// Blocks of a limb of a ring element.
pub const BLOCKS: usize = DEGREE / BLOCK;

/// A ternary secret, wiped on drop.
pub struct SecretKey {
    coefficients: Zeroizing<Vec<i8>>,
    transformed: Zeroizing<Vec<f64>>,
}

impl SecretKey {
    /// The secret of a seed.
    pub fn new(seed: &Seed) -> SecretKey {
        let coefficients = Zeroizing::new(ternary(&mut Prg::new(seed.clone(), SECRET_STREAM), DEGREE));
        let transformed = Zeroizing::new(transformed(&coefficients, LIMBS));
        SecretKey { coefficients, transformed }
    }

    /// The transformed secret of limb `limb`.
    pub fn limb(&self, limb: usize) -> &[f64] {
        &self.transformed[limb * DEGREE..(limb + 1) * DEGREE]
    }

    /// The secret with `X^galois` for `X`.
    fn moved(&self, galois: usize) -> Zeroizing<Vec<i8>> {
        let mut moved = Zeroizing::new(vec![0; DEGREE]);
        for (i, value) in self.coefficients.iter().enumerate() {
            let exponent = i * galois % (2 * DEGREE);
            moved[exponent % DEGREE] = if exponent < DEGREE { *value } else { -value };
        }
        moved
    }
}

/// Small integers, transformed in `limbs` limbs.
pub fn transformed(values: &[i8], limbs: usize) -> Vec<f64> {
    let mut transformed = vec![0.0; limbs * DEGREE];
    for (limb, place) in transformed.chunks_exact_mut(DEGREE).enumerate() {
        place.iter_mut().zip(values).for_each(|(place, value)| *place = f64::from(*value));
        ntt::forward(limb, place);
    }
    transformed
}

/// The public uniform polynomial number `index`, transformed, limb `limb`.
pub fn uniform(source: &mut Uniform, index: u64, limb: usize, values: &mut [f64]) {
    for (block, values) in values.chunks_mut(BLOCK).enumerate() {
        uniform_block(source, index, limb, block, values);
    }
}

/// Slots `BLOCK * block..` of [`uniform`].
pub fn uniform_block(source: &mut Uniform, index: u64, limb: usize, block: usize, values: &mut [f64]) {
    source.fill(MODULI[limb], (index * LIMBS as u64 + limb as u64) * BLOCKS as u64 + block as u64, values);
}

/// `X -> X^galois` of level `level`: it fixes the powers of `X^(2^(level + 1))` and negates those of `X^(2^level)`
/// between them.
pub(super) fn galois(level: u32) -> usize {
    1 + (DEGREE >> level)
}

/// What a key's holder publishes, without the `a`, which the public seed gives: an encryption of zero, then for each
/// level and each limb `i` one of the moved secret times the integer that is 1 modulo prime `i` and 0 modulo the others.
///
/// All in `limbs` limbs of [`DEGREE`] transformed residues. Fewer limbs of them are a key of fewer limbs.
pub fn publish(key: &SecretKey, secret: &Seed, public: &Seed, limbs: usize, levels: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(published_bytes(limbs, levels));
    let mut source = Uniform::new(public, KEY_STREAM);
    let mut a = vec![0.0; DEGREE];
    for (index, digit) in indices(limbs, levels) {
        let mut noise = Prg::new(secret.clone(), ERROR_STREAM + index);
        let mut b = Zeroizing::new(transformed(&Zeroizing::new(errors(&mut noise, DEGREE)), limbs));
        for (limb, b) in b.chunks_exact_mut(DEGREE).enumerate() {
            uniform(&mut source, index, limb, &mut a);
            product::add_products(&a, key.limb(limb), b);
            if let Some((level, _)) = digit.filter(|(_, i)| *i == limb) {
                let mut moved: Zeroizing<Vec<f64>> =
                    Zeroizing::new(key.moved(galois(level)).iter().map(|x| f64::from(*x)).collect());
                ntt::forward(limb, &mut moved);
                b.iter_mut().zip(moved.iter()).for_each(|(b, moved)| *b += moved);
            }
            residues::write(MODULI[limb], b, &mut out);
        }
    }
    out
}

/// Bytes of [`publish`].
pub const fn published_bytes(limbs: usize, levels: u32) -> usize {
    (1 + levels as usize * limbs) * limbs * DEGREE * residues::RESIDUE_BYTES
}

/// The number of each encryption of [`publish`], with the level and limb that it serves. Numbers do not depend on how
/// many there are.
fn indices(limbs: usize, levels: u32) -> impl Iterator<Item = (u64, Option<(u32, usize)>)> {
    let digits = (0..levels).flat_map(move |level| (0..limbs).map(move |i| (level, i)));
    let number = |(level, i): (u32, usize)| 1 + u64::from(level) * LIMBS as u64 + i as u64;
    std::iter::once((0, None)).chain(digits.map(move |digit| (number(digit), Some(digit))))
}

/// A public key and the keys for switching, as the other party holds them.
pub struct PublicKey {
    pub(super) limbs: usize,
    pub(super) zero: Pair,
    /// `[levels][limbs]`.
    pub(super) levels: Vec<Vec<Pair>>,
}

/// A transformed encryption in single precision, `[limbs, DEGREE]` each.
pub(super) struct Pair {
    pub(super) a: Vec<f32>,
    pub(super) b: Vec<f32>,
}

impl PublicKey {
    /// Reads what [`publish`] wrote. `None` unless its length is that of `limbs` and `levels` and all residues are.
    pub fn read(public: &Seed, limbs: usize, levels: u32, bytes: &[u8]) -> Option<PublicKey> {
        if limbs == 0 || limbs > LIMBS || bytes.len() != published_bytes(limbs, levels) {
            return None;
        }
        let mut source = Uniform::new(public, KEY_STREAM);
        let mut values = vec![0.0; DEGREE];
        let element_bytes = limbs * DEGREE * residues::RESIDUE_BYTES;
        let mut pairs =
            indices(limbs, levels).zip(bytes.chunks_exact(element_bytes)).map(|((index, _), bytes)| {
                let (mut a, mut b) = (Vec::with_capacity(limbs * DEGREE), Vec::with_capacity(limbs * DEGREE));
                for (limb, bytes) in bytes.chunks_exact(DEGREE * residues::RESIDUE_BYTES).enumerate() {
                    uniform(&mut source, index, limb, &mut values);
                    a.extend(values.iter().map(|x| *x as f32));
                    residues::read(MODULI[limb], bytes, &mut values)?;
                    b.extend(values.iter().map(|x| *x as f32));
                }
                Some(Pair { a, b })
            });
        let zero = pairs.next()??;
        let levels = (0..levels).map(|_| pairs.by_ref().take(limbs).collect()).collect::<Option<_>>()?;
        Some(PublicKey { limbs, zero, levels })
    }

    /// Levels that the keys serve.
    pub fn levels(&self) -> u32 {
        self.levels.len() as u32
    }

    /// Limbs that the keys have.
    pub fn limbs(&self) -> usize {
        self.limbs
    }
}
