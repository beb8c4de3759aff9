//! Functionality: [`Sender`] `delta` -> `K_i`; [`Receiver`] -> `T_i = K_i ^ b_i delta`.
//! Consumes: 128 base transfers, in setup.
//! Bytes: setup 8192 from the sender, then 4128 from the receiver; extension 31 blocks for 128 COTs from the receiver,
//! 3.875 bytes for a COT. One flow.
//! How: 32 punctured functions of 16 seeds, one for each 4 bits of `delta`; the sender lacks the seed that those bits
//! number. Expanded over the field of 16 elements they give `w = v ^ delta_f u_f`; `u_f ^ u_0` is sent for each but
//! the first, so that all share the choices `u_0`. Plane 0 is replaced by its meaning: `delta` has lowest bit 1.
//! Security: semi-honest. The receiver's messages are masked by streams of the seed that the sender lacks; the sender's
//! `delta` shows in its base choices alone, which are hidden.
//! Reference: Roy, "SoftSpokenOT", CRYPTO 2022, sections 3 and 4, with the repetition code and no consistency check.

use marill_kernels::transpose::transpose;
use marill_kernels::vole::{self, Expander};
use marill_kernels::{Prg, blocks};
use marill_program::two_party::ot::{
    DELTA_BITS, FIELD_BITS, FIELDS, MESSAGE_BLOCKS, POINT_BYTES, SETUP_RECEIVER_BYTES, SETUP_SENDER_BYTES,
    Step, messages,
};
use zeroize::{Zeroize, Zeroizing};

use super::base::{self, Chooser};
use super::{Block, blocks_of, put, random_block};
use crate::error::RunError;
use crate::transport::Channel;

const _: () = assert!(FIELD_BITS == vole::FIELD_BITS);

/// Blocks of 128 COTs that are expanded at once: their matrix stays in the second-level cache.
const TILE: usize = 64;

/// What the sender of COTs keeps.
pub(super) struct Sender {
    delta: Zeroizing<Block>,
    expander: Expander,
}

/// What the receiver of COTs keeps.
pub(super) struct Receiver {
    expander: Expander,
}

/// Seeds of all fields.
pub(super) const SEEDS: usize = FIELDS << FIELD_BITS;

/// Base transfers and punctured functions: the seeds of who sends COTs.
pub(super) fn punctured(
    channel: &mut Channel,
    delta: Block,
    prg: &mut Prg,
) -> Result<Zeroizing<Vec<Block>>, RunError> {
    let chooser = Chooser::new(!delta, prg);
    debug_assert_eq!(chooser.message().len() as u64, SETUP_SENDER_BYTES);
    channel.send(chooser.message())?;
    let message = channel.recv(SETUP_RECEIVER_BYTES as usize)?;
    let (answer, corrections) = message.split_at(POINT_BYTES as usize);
    let keys = chooser.keys(answer, channel.peer())?;
    Ok(puncture(delta, &keys, corrections))
}

/// Base transfers and punctured functions: the seeds of who receives COTs.
pub(super) fn whole(channel: &mut Channel, prg: &mut Prg) -> Result<Zeroizing<Vec<Block>>, RunError> {
    let points = channel.recv(SETUP_SENDER_BYTES as usize)?;
    let (keys, answer) = base::answer(&points, prg, channel.peer())?;
    let mut message = answer.to_vec();
    let seeds = grow(&keys, prg, &mut message);
    debug_assert_eq!(message.len() as u64, SETUP_RECEIVER_BYTES);
    channel.send(&message)?;
    Ok(seeds)
}

impl Sender {
    /// From [`punctured`] seeds.
    pub fn new(delta: Block, seeds: &[Block]) -> Sender {
        Sender { delta: Zeroizing::new(delta), expander: Expander::new(seeds) }
    }

    /// Appends `count` keys `K_i`.
    pub fn extend(
        &mut self,
        channel: &mut Channel,
        count: usize,
        keys: &mut Vec<Block>,
    ) -> Result<(), RunError> {
        let end = keys.len() + count;
        keys.reserve(count.next_multiple_of(DELTA_BITS));
        let mut matrix = Matrix::new();
        let mut rest = count.div_ceil(DELTA_BITS);
        for bytes in messages(&Step::SoftSpoken(count)) {
            let message = channel.recv(bytes as usize)?;
            let mut corrections = blocks_of(&message);
            let mut in_message = rest.min(MESSAGE_BLOCKS);
            rest -= in_message;
            while in_message > 0 {
                let width = in_message.min(TILE);
                in_message -= width;
                let planes = matrix.expand(&mut self.expander, width);
                planes[..width].fill(0);
                for (field, planes) in planes.chunks_exact_mut(FIELD_BITS * width).enumerate().skip(1) {
                    let bits = *self.delta >> (field * FIELD_BITS);
                    let masks: [Block; FIELD_BITS] = std::array::from_fn(|bit| mask(bits >> bit));
                    for (at, correction) in corrections.by_ref().take(width).enumerate() {
                        masks
                            .iter()
                            .enumerate()
                            .for_each(|(b, mask)| planes[b * width + at] ^= correction & mask);
                    }
                }
                matrix.transpose(width, keys);
            }
        }
        keys.truncate(end);
        Ok(())
    }
}

impl Receiver {
    /// From [`whole`] seeds.
    pub fn new(seeds: &[Block]) -> Receiver {
        Receiver { expander: Expander::new(seeds) }
    }

    /// Appends `count` keys `T_i`.
    pub fn extend(
        &mut self,
        channel: &mut Channel,
        count: usize,
        keys: &mut Vec<Block>,
    ) -> Result<(), RunError> {
        let end = keys.len() + count;
        keys.reserve(count.next_multiple_of(DELTA_BITS));
        let mut matrix = Matrix::new();
        let mut rest = count.div_ceil(DELTA_BITS);
        for bytes in messages(&Step::SoftSpoken(count)) {
            let mut message = Vec::with_capacity(bytes as usize);
            let mut in_message = rest.min(MESSAGE_BLOCKS);
            rest -= in_message;
            while in_message > 0 {
                let width = in_message.min(TILE);
                in_message -= width;
                matrix.expand(&mut self.expander, width);
                let (choices, others) = matrix.sums[..FIELDS * width].split_at_mut(width);
                for sums in others.chunks_exact_mut(width) {
                    sums.iter_mut().zip(&*choices).for_each(|(sum, choice)| *sum ^= choice);
                }
                put(others, &mut message);
                matrix.planes[..width].copy_from_slice(choices);
                matrix.transpose(width, keys);
            }
            channel.send(&message)?;
        }
        keys.truncate(end);
        Ok(())
    }
}

/// Room for one tile, wiped on drop.
struct Matrix {
    planes: Vec<Block>,
    sums: Vec<Block>,
}

impl Matrix {
    fn new() -> Matrix {
        Matrix { planes: vec![0; DELTA_BITS * TILE], sums: vec![0; FIELDS * TILE] }
    }

    fn expand(&mut self, expander: &mut Expander, width: usize) -> &mut [Block] {
        let planes = &mut self.planes[..DELTA_BITS * width];
        expander.expand(width, planes, &mut self.sums[..FIELDS * width]);
        planes
    }

    fn transpose(&self, width: usize, keys: &mut Vec<Block>) {
        let start = keys.len();
        keys.resize(start + DELTA_BITS * width, 0);
        transpose(&self.planes[..DELTA_BITS * width], width, &mut keys[start..]);
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        self.planes.zeroize();
        self.sums.zeroize();
    }
}

/// All ones if the lowest bit is set.
fn mask(bit: Block) -> Block {
    (bit & 1).wrapping_neg()
}

/// The two children of a seed.
fn children(seed: Block) -> [Block; 2] {
    let mut out = [0; 2];
    blocks::hash_many(0, &[seed; 2], &mut out);
    out
}

/// The base transfer for `level`, from the root, of field `field`: the bit of `delta` that takes that turn.
fn transfer(field: usize, level: usize) -> usize {
    field * FIELD_BITS + FIELD_BITS - 1 - level
}

/// Grows a tree for each field from a fresh root. Appends, for each level, the sums of its left and of its right nodes,
/// each under its key.
fn grow(keys: &[[Block; 2]], prg: &mut Prg, message: &mut Vec<u8>) -> Zeroizing<Vec<Block>> {
    let mut seeds = Zeroizing::new(Vec::with_capacity(SEEDS));
    for field in 0..FIELDS {
        let mut nodes = Zeroizing::new(vec![random_block(prg)]);
        for level in 0..FIELD_BITS {
            nodes = Zeroizing::new(nodes.iter().flat_map(|seed| children(*seed)).collect());
            let [left, right] = keys[transfer(field, level)];
            let pairs = nodes.as_chunks::<2>().0;
            let sums = pairs.iter().fold([left, right], |sums, pair| [sums[0] ^ pair[0], sums[1] ^ pair[1]]);
            put(&sums, message);
        }
        seeds.extend_from_slice(&nodes);
    }
    seeds
}

/// The seeds of every field but that of `delta`'s bits, numbered from there: `y` is the place less the bits of `delta`,
/// and 0 stands where the seed is not known.
fn puncture(delta: Block, keys: &[Block], message: &[u8]) -> Zeroizing<Vec<Block>> {
    let mut seeds = Zeroizing::new(Vec::with_capacity(SEEDS));
    let mut corrections = blocks_of(message);
    for field in 0..FIELDS {
        let mut nodes = Zeroizing::new(vec![0; 1]);
        for level in 0..FIELD_BITS {
            let turn = mask(delta >> transfer(field, level));
            let mut next = Zeroizing::new(vec![0; 2 * nodes.len()]);
            let [left, right] = [corrections.next().unwrap_or(0), corrections.next().unwrap_or(0)];
            // The path turns right where `turn` is set, so the left sum is known there.
            let mut sibling = keys[transfer(field, level)] ^ right ^ (turn & (left ^ right));
            for (pair, node) in next.as_chunks_mut::<2>().0.iter_mut().zip(nodes.iter()).skip(1) {
                let [left, right] = children(*node);
                let moved = turn & (left ^ right);
                *pair = [left ^ moved, right ^ moved];
                sibling ^= pair[1];
            }
            next[1] = sibling;
            nodes = next;
        }
        seeds.extend_from_slice(&nodes);
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use marill_kernels::Seed;

    #[test]
    fn a_punctured_function_has_all_seeds_but_one() {
        let mut prg = Prg::new(Seed::new([9; 16]), 0);
        let delta = random_block(&mut prg);
        let keys: Vec<[Block; 2]> =
            (0..DELTA_BITS).map(|_| [random_block(&mut prg), random_block(&mut prg)]).collect();
        let mut message = Vec::new();
        let all = grow(&keys, &mut prg, &mut message);
        let chosen: Vec<Block> =
            keys.iter().enumerate().map(|(i, keys)| keys[(!delta >> i) as usize & 1]).collect();
        let seeds = puncture(delta, &chosen, &message);
        for (field, (all, seeds)) in all.chunks_exact(16).zip(seeds.chunks_exact(16)).enumerate() {
            let point = (delta >> (4 * field)) as usize & 15;
            assert_eq!(seeds[0], 0);
            assert!((1..16).all(|y| seeds[y] == all[y ^ point]));
        }
    }
}
