//! Functionality: one lane of a gate [`Choose`] with a digit `d` of `k > 1` bits at the chooser and numbers `y` at the
//! other party: additive shares of every `d y`.
//! Consumes: `k` random correlated transfers, in which the chooser receives.
//! Bytes: `ceil(k / 8)` for each lane from the chooser, `16 (k - 1)` and `y`, packed, from the other party.
//! How: the other party grows a tree under `delta` whose first node is its first key, and masks the other levels' sums by
//! the other keys. The chooser knows all leaves but one at a random place `p`. It sends `d ^ p`, so that leaf `j` stands
//! for `j ^ d ^ p` and the missing one for `d`. [`ring_vole`] makes of the leaves `u` and `v` at the other party and
//! `d u - v` at the chooser; the other party sends `y - u`.
//! Simulator: the other party receives `d ^ p`, where `p` is the complement of random choices: uniform. The chooser
//! receives sums under keys that it lacks wherever they would tell it more, as in [`super::ot`]'s silent mechanism, and
//! `y - u`, where `u` holds the stream of the missing leaf: uniform. A simulator draws both.
//! Fails: never.
//! The chooser's digit steers no branch and no address.
//! Reference: Roy, "SoftSpokenOT", CRYPTO 2022, section 3.1, over a ring; trees by Guo et al., "Half-tree", EUROCRYPT 2023.

use std::sync::{Mutex, PoisonError};
use std::thread;

use marill_kernels::threads::threads;
use marill_kernels::{ggm, ring_vole};
use marill_program::two_party::gates::Choose;
use marill_program::two_party::planes::Plane;

use super::ot::Block;

/// What the other party makes of all lanes.
pub(super) struct Offer {
    /// The sums that complete the chooser's trees.
    pub trees: Vec<Block>,
    /// `u`, which hides the numbers.
    pub hiding: Vec<u64>,
    /// Its shares, `v`.
    pub shares: Vec<u64>,
}

/// The other party's end. `keys` are its keys, level after level; `flips` the chooser's message, the lowest bit first.
pub(super) fn offer(gate: &Choose, first_tweak: u64, delta: Block, keys: &[Block], flips: &[Plane]) -> Offer {
    let (levels, lanes) = (gate.digit_bits as usize, gate.lanes);
    let mut ends = Ends::new(gate, vec![0; lanes * (levels - 1)]);
    ends.each(|lane, End { sums, weighted, trees }| {
        let (mut left, mut leaves) = (vec![0; levels], vec![0; 1 << levels]);
        ggm::grow(keys[lane], delta, &mut left, &mut leaves);
        for (level, (tree, left)) in trees.iter_mut().zip(&left[1..]).enumerate() {
            *tree = left ^ keys[(level + 1) * lanes + lane];
        }
        // The missing leaf's place is the complement of the choices.
        let flip = digit(flips, lane) ^ (leaves.len() - 1);
        ring_vole::fold(tweak(first_tweak, lane, levels), &leaves, flip, gate.width, sums, weighted);
    });
    Offer { trees: ends.trees, hiding: ends.sums, shares: ends.weighted }
}

/// The chooser's end: its shares. `tags` are its keys, level after level, `trees` and `offsets` the other party's message.
pub(super) fn choose(
    gate: &Choose,
    first_tweak: u64,
    tags: &[Block],
    trees: Vec<Block>,
    offsets: &[u64],
) -> Vec<u64> {
    let (levels, lanes, per) = (gate.digit_bits as usize, gate.lanes, gate.per);
    let mut ends = Ends::new(gate, trees);
    ends.each(|lane, End { sums, weighted, trees }| {
        let mut known: Vec<Block> = (0..levels).map(|level| tags[level * lanes + lane]).collect();
        let point = known.iter().fold(0, |point, tag| point << 1 | (!tag & 1) as u32);
        known[1..].iter_mut().zip(trees).for_each(|(known, tree)| *known ^= *tree);
        let mut leaves = vec![0; 1 << levels];
        ggm::grow_punctured(point, &known, &mut leaves);
        let digit = digit(&gate.choices, lane);
        let flip = digit ^ point as usize;
        ring_vole::fold(tweak(first_tweak, lane, levels), &leaves, flip, gate.width, sums, weighted);
        for ((share, sum), offset) in weighted.iter_mut().zip(sums).zip(&offsets[lane * per..]) {
            *share = sum.wrapping_add(*offset).wrapping_mul(digit as u64).wrapping_sub(*share);
        }
    });
    ends.weighted
}

/// Lane `lane` of planes, the lowest first.
fn digit(planes: &[Plane], lane: usize) -> usize {
    planes.iter().rev().fold(0, |digit, plane| digit << 1 | plane.bit(lane) as usize)
}

/// The tweak of a tree's first leaf.
fn tweak(first: u64, lane: usize, levels: usize) -> u64 {
    first.wrapping_add((lane as u64) << levels)
}

/// What one party has of all lanes.
struct Ends {
    per: usize,
    tree_sums: usize,
    sums: Vec<u64>,
    weighted: Vec<u64>,
    trees: Vec<Block>,
}

/// What it has of one lane.
struct End<'a> {
    sums: &'a mut [u64],
    weighted: &'a mut [u64],
    trees: &'a mut [Block],
}

impl Ends {
    fn new(gate: &Choose, trees: Vec<Block>) -> Ends {
        let numbers = vec![0; gate.lanes * gate.per];
        let tree_sums = gate.digit_bits as usize - 1;
        Ends { per: gate.per, tree_sums, sums: numbers.clone(), weighted: numbers, trees }
    }

    /// Works on every lane, on as many threads as the machine offers.
    fn each(&mut self, work: impl Fn(usize, End<'_>) + Sync) {
        let numbers = self.sums.chunks_exact_mut(self.per).zip(self.weighted.chunks_exact_mut(self.per));
        let lanes = numbers.zip(self.trees.chunks_exact_mut(self.tree_sums));
        let lanes = lanes.map(|((sums, weighted), trees)| End { sums, weighted, trees });
        let queue = Mutex::new(lanes.enumerate());
        let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let run = || {
            while let Some((lane, end)) = take() {
                work(lane, end);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads() {
                scope.spawn(run);
            }
            run();
        });
    }
}

#[cfg(test)]
mod tests {
    use marill_program::two_party::effort::Link;
    use std::thread;

    use marill_kernels::Prg;
    use marill_kernels::bits::mask;
    use marill_program::two_party::gates::{Choose, Engine, Side};
    use marill_program::two_party::planes::planes_of;

    use super::super::gates::Gates;
    use super::super::keys::Transfers;
    use super::super::ot::{Receiver, ReceiverSeeds, Sender, SenderSeeds};
    use crate::correlation::fresh_seed;
    use crate::transport::{Channel, memory_pair};

    const TRANSFERS: usize = 10_000;

    fn transfers(channel: &mut Channel, side: Side) -> Transfers {
        let (sending, receiving) = match side {
            Side::Client => {
                let sending = SenderSeeds::setup(channel).unwrap();
                (sending, ReceiverSeeds::setup(channel).unwrap())
            }
            Side::Server => {
                let receiving = ReceiverSeeds::setup(channel).unwrap();
                (SenderSeeds::setup(channel).unwrap(), receiving)
            }
        };
        let sender = Sender::new(&sending, &[0; 32], TRANSFERS, Link::new(0)).unwrap();
        Transfers { sender, receiver: Receiver::new(&receiving, &[0; 32], TRANSFERS, Link::new(0)) }
    }

    /// Chooser, lanes, numbers for each, their width, bits of a digit.
    type Shape = (Side, usize, usize, u32, u32);

    const SHAPES: [Shape; 6] = [
        (Side::Client, 70, 9, 40, 5),
        (Side::Server, 3, 200, 64, 8),
        (Side::Client, 5, 33, 32, 2),
        (Side::Client, 130, 2, 17, 1),
        (Side::Server, 1, 1, 7, 3),
        (Side::Server, 8, 70, 20, 6),
    ];

    fn gate(shape: Shape, side: Side, choices: &[u64], numbers: &[u64]) -> Choose {
        let (chooser, lanes, per, width, digit_bits) = shape;
        let mine = chooser == side;
        Choose {
            chooser,
            lanes,
            per,
            width,
            digit_bits,
            choices: if mine { planes_of(choices, 0, digit_bits as usize) } else { Vec::new() },
            numbers: if mine { Vec::new().into() } else { numbers.to_vec().into() },
        }
    }

    #[test]
    fn shares_add_up_to_products_of_digits_and_numbers() {
        let mut prg = Prg::new(fresh_seed().unwrap(), 0);
        let operands: Vec<[Vec<u64>; 2]> = SHAPES
            .iter()
            .map(|&(_, lanes, per, width, bits)| [prg.ring(lanes, bits), prg.ring(lanes * per, width)])
            .collect();
        let gates = |side| -> Vec<Choose> {
            SHAPES
                .iter()
                .zip(&operands)
                .map(|(s, [choices, numbers])| gate(*s, side, choices, numbers))
                .collect()
        };
        let (mut client, mut server) = memory_pair();
        let run = |channel: &mut Channel, side| {
            let transfers = transfers(channel, side);
            Gates::new(channel, side, transfers).choose(&gates(side)).unwrap()
        };
        let [ours, theirs] = thread::scope(|scope| {
            let client = scope.spawn(|| run(&mut client, Side::Client));
            let server = run(&mut server, Side::Server);
            [client.join().unwrap(), server]
        });
        for (i, (shape, [choices, numbers])) in SHAPES.iter().zip(&operands).enumerate() {
            let (_, lanes, per, width, _) = *shape;
            assert_eq!([ours[i].len(), theirs[i].len()], [lanes * per; 2], "{shape:?}");
            for at in 0..lanes * per {
                let sum = ours[i][at].wrapping_add(theirs[i][at]) & mask(width);
                let product = choices[at / per].wrapping_mul(numbers[at]) & mask(width);
                assert_eq!(sum, product, "{shape:?} at {at}");
            }
        }
    }
}
