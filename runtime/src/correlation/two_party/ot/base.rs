//! Functionality: the chooser's bits `c_i` -> sender: random `k_i0`, `k_i1`; chooser: `k_i,c_i`; 128 times.
//! Bytes: chooser 8192, sender 32; two flows, the chooser's first. The sender's answer travels with what it sends next.
//! Security: semi-honest, from computational Diffie-Hellman in Ristretto with BLAKE3 as random oracle, under separate
//! contexts for points and keys. The chooser's two points are both uniform, so they hide `c_i` whatever is computed.
//! Reference: Masny and Rindal, "Endemic oblivious transfer", CCS 2019, section 5.

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use marill_kernels::Prg;
use marill_program::two_party::ot::{DELTA_BITS, POINT_BYTES};
use zeroize::Zeroizing;

use super::Block;
use crate::error::{Misbehaviour, Role, RunError};

type PointBytes = [u8; POINT_BYTES as usize];
type KeyPairs = Zeroizing<Vec<[Block; 2]>>;

const POINT_CONTEXT: &str = "marill 2026 base transfer, point";
const KEY_CONTEXT: &str = "marill 2026 base transfer, key";

/// The chooser between its message and the answer.
pub(super) struct Chooser {
    choices: Zeroizing<Block>,
    secrets: Zeroizing<Vec<Scalar>>,
    message: Vec<PointBytes>,
}

impl Chooser {
    /// Chooses by the bits of `choices`.
    pub fn new(choices: Block, prg: &mut Prg) -> Chooser {
        let mut secrets = Zeroizing::new(Vec::with_capacity(DELTA_BITS));
        let mut message = Vec::with_capacity(2 * DELTA_BITS);
        for index in 0..DELTA_BITS {
            let choice = (choices >> index) as u8 & 1;
            let secret = random_scalar(prg);
            let other = RistrettoPoint::from_uniform_bytes(&random_bytes(prg)).compress().to_bytes();
            let own = RistrettoPoint::mul_base(&secret) - point_of(index, choice, &other);
            let own = own.compress().to_bytes();
            message.push(select(choice, &own, &other));
            message.push(select(choice, &other, &own));
            secrets.push(secret);
        }
        Chooser { choices: Zeroizing::new(choices), secrets, message }
    }

    /// The points, in order.
    pub fn message(&self) -> &[u8] {
        self.message.as_flattened()
    }

    /// The chosen keys.
    ///
    /// # Errors
    /// `PeerMisbehaved` if `answer` of `peer` is no group element.
    pub fn keys(self, answer: &[u8], peer: Role) -> Result<Zeroizing<Vec<Block>>, RunError> {
        let point = decode(answer, peer)?;
        let points = self.message.as_chunks::<2>().0;
        let key = |(index, (secret, points)): (usize, (&Scalar, &[PointBytes; 2]))| {
            key_of(index, (*self.choices >> index) as u8 & 1, answer, points, &(secret * point))
        };
        Ok(Zeroizing::new(self.secrets.iter().zip(points).enumerate().map(key).collect()))
    }
}

/// Both keys of each transfer, and the answer to the chooser's `message`.
///
/// # Errors
/// `PeerMisbehaved` if `message` of `peer` does not consist of group elements.
pub(super) fn answer(message: &[u8], prg: &mut Prg, peer: Role) -> Result<(KeyPairs, PointBytes), RunError> {
    let secret = Zeroizing::new(random_scalar(prg));
    let answer = RistrettoPoint::mul_base(&secret).compress().to_bytes();
    let mut keys = Zeroizing::new(Vec::with_capacity(DELTA_BITS));
    let points = message.as_chunks().0.as_chunks::<2>().0;
    for (index, points) in points.iter().enumerate() {
        let [zero, one] = points;
        let at_zero = decode(zero, peer)? + point_of(index, 0, one);
        let at_one = decode(one, peer)? + point_of(index, 1, zero);
        let key = |choice, point| key_of(index, choice, &answer, points, &(*secret * point));
        keys.push([key(0, at_zero), key(1, at_one)]);
    }
    Ok((keys, answer))
}

fn decode(bytes: &[u8], peer: Role) -> Result<RistrettoPoint, RunError> {
    let point = CompressedRistretto::from_slice(bytes).ok().and_then(|bytes| bytes.decompress());
    point.filter(|point| !point.is_identity()).ok_or_else(|| {
        let found = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        RunError::PeerMisbehaved { peer, reason: Misbehaviour::Malformed { what: "group element", found } }
    })
}

/// `if_one` if `choice` is 1, else `if_zero`, without a branch.
fn select(choice: u8, if_zero: &PointBytes, if_one: &PointBytes) -> PointBytes {
    let mask = choice.wrapping_neg();
    std::array::from_fn(|at| if_zero[at] ^ (mask & (if_zero[at] ^ if_one[at])))
}

fn random_bytes(prg: &mut Prg) -> Zeroizing<[u8; 64]> {
    let mut bytes = Zeroizing::new([0; 64]);
    prg.fill(&mut *bytes);
    bytes
}

fn random_scalar(prg: &mut Prg) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&random_bytes(prg))
}

/// The oracle that makes a point for `choice` of transfer `index` from the other choice's point.
fn point_of(index: usize, choice: u8, other: &PointBytes) -> RistrettoPoint {
    let mut hasher = blake3::Hasher::new_derive_key(POINT_CONTEXT);
    hasher.update(&(index as u64).to_le_bytes()).update(&[choice]).update(other);
    let mut bytes = [0; 64];
    hasher.finalize_xof().fill(&mut bytes);
    RistrettoPoint::from_uniform_bytes(&bytes)
}

/// The oracle that makes a key, bound to all that was sent for it.
fn key_of(
    index: usize,
    choice: u8,
    answer: &[u8],
    points: &[PointBytes; 2],
    shared: &RistrettoPoint,
) -> Block {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    hasher.update(&(index as u64).to_le_bytes()).update(&[choice]).update(answer);
    hasher.update(points.as_flattened()).update(shared.compress().as_bytes());
    let mut bytes = Zeroizing::new([0; 16]);
    hasher.finalize_xof().fill(&mut *bytes);
    Block::from_le_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use marill_kernels::Seed;

    fn prg(stream: u64) -> Prg {
        Prg::new(Seed::new([5; 16]), stream)
    }

    #[test]
    fn the_chooser_has_its_key_and_not_the_other() {
        let choices = 0x0123_4567_89ab_cdef_1122_3344_5566_7788;
        let chooser = Chooser::new(choices, &mut prg(0));
        let (both, answer) = answer(chooser.message(), &mut prg(1), Role::Client).unwrap();
        let chosen = chooser.keys(&answer, Role::Server).unwrap();
        for (index, (both, chosen)) in both.iter().zip(chosen.iter()).enumerate() {
            assert_eq!(both[(choices >> index) as usize & 1], *chosen);
            assert_ne!(both[0], both[1]);
        }
        let all: std::collections::BTreeSet<Block> = both.as_flattened().iter().copied().collect();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn bytes_that_are_no_points_are_refused() {
        let refused = |result: Option<RunError>| {
            let Some(RunError::PeerMisbehaved { peer: Role::Client, reason }) = result else { panic!() };
            assert!(matches!(reason, Misbehaviour::Malformed { what: "group element", .. }));
        };
        for bytes in [[0; 32], [0xff; 32], [1; 32]] {
            let chooser = Chooser::new(7, &mut prg(0));
            let mut message = chooser.message().to_vec();
            refused(chooser.keys(&bytes, Role::Client).err());
            message[200 * 32..201 * 32].copy_from_slice(&bytes);
            refused(answer(&message, &mut prg(1), Role::Client).err());
        }
    }
}
