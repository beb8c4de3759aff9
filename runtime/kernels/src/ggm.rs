//! Correlated binary trees: all nodes of a level sum to one block `delta`, and who knows the sums of one side of every
//! level but not `delta` can grow all leaves but one.
//!
//! A node `p` has the children `double(p)` and `double(p) ^ p` ([`crate::blocks::double`]), so one call makes two
//! nodes (Guo, Yang, Wang, Zhang, Xie, Liu, Zhao, EUROCRYPT 2023, "Half-tree", section 4).
//!
//! The lowest bit of a leaf is no part of its key: it is 0, and 1 at the punctured leaf. So the receiver's leaf at the
//! puncture is the sender's plus `delta`, whose lowest bit is 1.

use crate::blocks::{BATCH, Block, double};

/// Grows the tree whose root's children are `first` and `first ^ delta`. Fills `leaves`, and `left_sums` with the sum
/// of the left children of each level.
///
/// # Panics
/// If there are not `2^levels` leaves, or no level.
pub fn grow(first: Block, delta: Block, left_sums: &mut [Block], leaves: &mut [Block]) {
    assert!(!left_sums.is_empty() && leaves.len() == 1 << left_sums.len());
    leaves[0] = first;
    leaves[1] = first ^ delta;
    left_sums[0] = first;
    for (level, left) in left_sums.iter_mut().enumerate().skip(1) {
        *left = split(&mut leaves[..2 << level], |_, _| ());
    }
    leaves.iter_mut().for_each(|leaf| *leaf &= !1);
}

/// Grows the tree as far as `known` goes: `known[l]` is the sum of the nodes of level `l` that lie on the other side
/// than the path to leaf `point`, the highest bit of which is the first level's side.
///
/// Fills `leaves` with the sender's, and with the sender's plus `delta` at `point`. Which memory is touched, and when,
/// does not depend on `point`.
///
/// # Panics
/// If there are not `2^levels` leaves, or no level.
pub fn grow_punctured(point: u32, known: &[Block], leaves: &mut [Block]) {
    assert!(!known.is_empty() && leaves.len() == 1 << known.len());
    // What `split` makes of the unknown node, kept as 0, on both sides.
    let mut of_unknown = [0];
    double(&[0], &mut of_unknown);
    let levels = known.len() as u32;
    let left_known = |level: u32| equal_mask(point >> (levels - 1 - level) & 1, 1);
    leaves[0] = known[0] & left_known(0);
    leaves[1] = known[0] & !left_known(0);
    let mut total = known[0];
    // What the pair of nodes that holds the unknown one still lacks: it is added when they are next read.
    let mut turn = [0; 2];
    for level in 1..levels {
        let pair_at = point >> (levels - level) >> 1;
        let left = split(&mut leaves[..2 << level], |at, pair| add_where(at, pair_at, turn, pair));
        let on_left = left_known(level);
        let sibling = known[level as usize] ^ left ^ (total & !on_left) ^ of_unknown[0];
        // Both children of the unknown node are `of_unknown`: turn the one into the sibling, the other into 0.
        turn = [of_unknown[0] ^ (sibling & on_left), of_unknown[0] ^ (sibling & !on_left)];
        total ^= sibling;
    }
    // The unknown leaf is `delta` plus what it should be, and the others sum to `total`.
    let here = [!left_known(levels - 1), left_known(levels - 1)];
    let turn = [turn[0] ^ (total & here[0]), turn[1] ^ (total & here[1])];
    let mark = here.map(|here| here & 1);
    for (at, pair) in leaves.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        add_where(at, point >> 1, turn, pair);
        *pair = pair.map(|leaf| leaf & !1);
        add_where(at, point >> 1, mark, pair);
    }
}

/// Adds `turn` to `pair` if that is number `place`.
#[inline(always)]
fn add_where(at: usize, place: u32, turn: [Block; 2], pair: &mut [Block; 2]) {
    let here = equal_mask(at as u32, place);
    pair[0] ^= turn[0] & here;
    pair[1] ^= turn[1] & here;
}

/// All ones if `a` equals `b`, without a branch.
#[inline(always)]
fn equal_mask(a: u32, b: u32) -> Block {
    let differs = u64::from(a ^ b);
    let equal = differs.wrapping_sub(1) >> 63;
    let mask = equal.wrapping_neg();
    Block::from(mask) << 64 | Block::from(mask)
}

/// Replaces the nodes in the first half of `nodes`, each pair of which `correct` changes first, by their children in
/// all of it, and returns the left ones' sum.
#[inline(always)]
fn split(nodes: &mut [Block], correct: impl Fn(usize, &mut [Block; 2])) -> Block {
    let mut left_sum = 0;
    let (mut parents, mut lefts) = ([0; BATCH], [0; BATCH]);
    let mut end = nodes.len() / 2;
    // From the end, because a node's children lie at twice its place.
    while end > 0 {
        let start = (end - 1) / BATCH * BATCH;
        let (parents, lefts) = (&mut parents[..end - start], &mut lefts[..end - start]);
        parents.copy_from_slice(&nodes[start..end]);
        for (at, pair) in parents.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            correct(start / 2 + at, pair);
        }
        double(parents, lefts);
        let places = nodes[2 * start..2 * end].as_chunks_mut::<2>().0;
        for ((place, left), parent) in places.iter_mut().zip(&*lefts).zip(&*parents) {
            *place = [*left, left ^ parent];
            left_sum ^= left;
        }
        end = start;
    }
    left_sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: Block = 0x9b3c_71ff_0012_8844_5566_7788_99aa_bbcd;

    fn sums(nodes: &[Block]) -> [Block; 2] {
        nodes.chunks_exact(2).fold([0, 0], |[l, r], pair| [l ^ pair[0], r ^ pair[1]])
    }

    /// Level by level, straight from the module's definition.
    fn naive(first: Block, levels: usize) -> Vec<Vec<Block>> {
        let mut all = vec![vec![first, first ^ DELTA]];
        for _ in 1..levels {
            let next = all[all.len() - 1].iter().flat_map(|&p| {
                let mut left = [0];
                double(&[p], &mut left);
                [left[0], left[0] ^ p]
            });
            all.push(next.collect());
        }
        all
    }

    #[test]
    fn trees_follow_the_definition_and_sum_to_delta() {
        for levels in [1, 2, 5, 6, 9] {
            let expected = naive(77 << 64, levels);
            let (mut left, mut leaves) = (vec![0; levels], vec![0; 1 << levels]);
            grow(77 << 64, DELTA, &mut left, &mut leaves);
            for (nodes, left) in expected.iter().zip(&left) {
                assert_eq!(nodes.iter().fold(0, |sum, node| sum ^ node), DELTA);
                assert_eq!(sums(nodes)[0], *left);
            }
            let last = &expected[levels - 1];
            assert!(leaves.iter().zip(last).all(|(leaf, expected)| *leaf == expected & !1));
        }
    }

    #[test]
    fn every_puncture_of_small_trees_and_some_of_large_ones() {
        for levels in [1, 2, 3, 6, 10] {
            let (mut left, mut leaves) = (vec![0; levels], vec![0; 1 << levels]);
            grow(12345, DELTA, &mut left, &mut leaves);
            for point in (0_u32..1 << levels).step_by(if levels > 6 { 97 } else { 1 }) {
                let known: Vec<Block> = (0..levels)
                    .map(|l| if point >> (levels - 1 - l) & 1 == 1 { left[l] } else { left[l] ^ DELTA })
                    .collect();
                let mut punctured = vec![0; 1 << levels];
                grow_punctured(point, &known, &mut punctured);
                for (at, (mine, theirs)) in punctured.iter().zip(&leaves).enumerate() {
                    assert_eq!(*mine, if at == point as usize { theirs ^ DELTA } else { *theirs });
                }
            }
        }
    }
}
