//! Vector oblivious linear evaluation over rings `Z_2^w`, the local work: the streams of a punctured function's leaves,
//! summed as they are and summed by what the leaves stand for. Over small fields the same is [`crate::vole`], where
//! subtraction is addition (Roy, CRYPTO 2022, section 3.1).
//!
//! Leaf `j` stands for the number `j ^ flip` and has a stream `g_j` of ring elements. With `u = sum g_j` and
//! `v = sum (j ^ flip) g_j`, `d u - v = sum (d - (j ^ flip)) g_j` takes nothing from the leaf that stands for `d`. So who
//! has all leaves but that one, and anything in its place, still computes `d u - v`; who has all leaves has `v`; and the
//! two sum to `d u`.

use std::num::Wrapping;
use std::ops::AddAssign;

use crate::blocks::{BATCH, Block, permute, tweak_block};

/// Blocks of a stream that are summed at a time.
const STRETCH: usize = 8;

/// Overwrites `sums` with `u` and `weighted` with `v`, both modulo 2^`width` with arbitrary bits above; leaf `j` is
/// expanded by [`crate::blocks::hash`] under the tweak `first_tweak + j`. Which memory is touched depends on public
/// numbers alone: all of `leaves` are.
///
/// # Panics
/// If the leaves are not a power of two, `flip` names none, or `sums` and `weighted` differ in length.
pub fn fold(
    first_tweak: u64,
    leaves: &[Block],
    flip: usize,
    width: u32,
    sums: &mut [u64],
    weighted: &mut [u64],
) {
    assert!(leaves.len().is_power_of_two() && flip < leaves.len() && sums.len() == weighted.len());
    match width {
        0..=32 => fold_as::<_, 4>(first_tweak, leaves, flip, sums, weighted, |bits| Wrapping(bits as u32)),
        _ => fold_as::<_, 2>(first_tweak, leaves, flip, sums, weighted, |bits| Wrapping(bits as u64)),
    }
}

/// With `EACH` ring elements to a block, each of which `element` makes of its lowest bits.
fn fold_as<T, const EACH: usize>(
    first_tweak: u64,
    leaves: &[Block],
    flip: usize,
    sums: &mut [u64],
    weighted: &mut [u64],
    element: impl Fn(Block) -> Wrapping<T>,
) where
    T: Copy + Default + Into<u64>,
    Wrapping<T>: AddAssign,
{
    let mut inner = leaves.to_vec();
    permute(&mut inner);
    // From the largest number down: what is summed so far is added once more for each step that is left.
    let numbers: Vec<usize> = (0..leaves.len()).rev().collect();
    let mut buffer = [0; BATCH];
    let stretch = STRETCH * EACH;
    for (at, (sums, weighted)) in sums.chunks_mut(stretch).zip(weighted.chunks_mut(stretch)).enumerate() {
        let blocks = sums.len().div_ceil(EACH);
        let counters = (at * STRETCH) as u64..;
        let [mut sum, mut by_number] = [[Wrapping(T::default()); 4 * STRETCH]; 2];
        let (sum, by_number) = (&mut sum[..stretch], &mut by_number[..stretch]);
        for group in numbers.chunks(BATCH / STRETCH) {
            let buffer = &mut buffer[..group.len() * blocks];
            for (row, number) in buffer.chunks_exact_mut(blocks).zip(group) {
                let leaf = number ^ flip;
                let tweak = first_tweak.wrapping_add(leaf as u64);
                for (block, counter) in row.iter_mut().zip(counters.clone()) {
                    *block = inner[leaf] ^ tweak_block(tweak, counter);
                }
            }
            permute(buffer);
            for (row, number) in buffer.chunks_exact(blocks).zip(group) {
                let inner = inner[number ^ flip];
                for (block, sum) in row.iter().zip(sum.chunks_exact_mut(EACH)) {
                    let block = block ^ inner;
                    sum.iter_mut()
                        .enumerate()
                        .for_each(|(i, sum)| *sum += element(block >> (128 / EACH * i)));
                }
                if *number > 0 {
                    by_number.iter_mut().zip(&*sum).for_each(|(total, sum)| *total += *sum);
                }
            }
        }
        sums.iter_mut().zip(&*sum).for_each(|(place, sum)| *place = sum.0.into());
        weighted.iter_mut().zip(&*by_number).for_each(|(place, sum)| *place = sum.0.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::mask;
    use crate::blocks::expand_words;

    fn leaves(count: usize) -> Vec<Block> {
        (0..count as u64).map(|i| Block::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | 5).collect()
    }

    fn folded(leaves: &[Block], flip: usize, width: u32, count: usize) -> [Vec<u64>; 2] {
        let [mut sums, mut weighted] = [vec![1; count], vec![2; count]];
        fold(900, leaves, flip, width, &mut sums, &mut weighted);
        [sums, weighted].map(|numbers| numbers.iter().map(|n| n & mask(width)).collect())
    }

    #[test]
    fn sums_follow_the_definition() {
        for (count, flip, width, numbers) in [(2, 1, 64, 1), (8, 5, 33, 40), (16, 0, 32, 77), (64, 63, 20, 3)]
        {
            let leaves = leaves(count);
            let stream = |j: usize| -> Vec<u64> {
                let mut words = vec![0; numbers];
                expand_words(900 + j as u64, leaves[j], &mut words);
                if width > 32 {
                    return words;
                }
                words.iter().flat_map(|word| [word & mask(32), word >> 32]).take(numbers).collect()
            };
            let [sums, weighted] = folded(&leaves, flip, width, numbers);
            for i in 0..numbers {
                let at = |j: usize| stream(j)[i];
                let sum = (0..count).fold(0_u64, |sum, j| sum.wrapping_add(at(j)));
                let by_number =
                    (0..count).fold(0_u64, |sum, j| sum.wrapping_add(at(j).wrapping_mul((j ^ flip) as u64)));
                assert_eq!([sums[i], weighted[i]], [sum & mask(width), by_number & mask(width)]);
            }
        }
    }

    #[test]
    fn what_stands_in_for_the_missing_leaf_does_not_matter() {
        let (whole, flip, numbers) = (leaves(32), 9, 50);
        for width in [24, 50] {
            let [sums, weighted] = folded(&whole, flip, width, numbers);
            for point in [0, 9, 31] {
                let digit = (point ^ flip) as u64;
                let mut punctured = whole.clone();
                punctured[point] ^= 0xabcdef;
                let [own_sums, own_weighted] = folded(&punctured, flip, width, numbers);
                for i in 0..numbers {
                    let own = digit.wrapping_mul(own_sums[i]).wrapping_sub(own_weighted[i]);
                    let product = digit.wrapping_mul(sums[i]);
                    assert_eq!(own.wrapping_add(weighted[i]) & mask(width), product & mask(width));
                }
            }
        }
    }
}
