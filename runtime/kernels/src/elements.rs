//! Element-wise work: in blocks that fit the processor's caches, split among its cores.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::threads::{for_each, threads};

/// Numbers of one block, about.
const BLOCK: usize = 1 << 14;

/// Work below which one core is quicker, in numbers.
const SPLIT: usize = 1 << 17;

/// One number for each of `len` elements: `make` adds to those of a range, which starts at a multiple of 8 and which are
/// zeros, with scratch space from `scratch`. `per` says how many numbers the work on one element reads.
pub fn by_blocks<S>(
    len: usize,
    per: usize,
    scratch: impl Fn() -> S + Sync,
    make: impl Fn(&mut S, Range<usize>, &mut [u64]) + Sync,
) -> Vec<u64> {
    let mut data = Vec::with_capacity(len);
    each_block(&mut data.spare_capacity_mut()[..len], per, scratch, |scratch, range, out| {
        // Zeros are written block by block, where they stay in the cache until they are overwritten.
        out.fill(MaybeUninit::new(0));
        // SAFETY: every number of `out` was written above.
        make(scratch, range, unsafe { &mut *(std::ptr::from_mut(out) as *mut [u64]) });
    });
    // SAFETY: the blocks are all of the first `len` numbers, and each was written; a panic would not have come here.
    unsafe { data.set_len(len) };
    data
}

/// Changes `data` in place: `change` is given what is there of a range, which starts at a multiple of 8.
pub fn update<S>(
    data: &mut [u64],
    per: usize,
    scratch: impl Fn() -> S + Sync,
    change: impl Fn(&mut S, Range<usize>, &mut [u64]) + Sync,
) {
    each_block(data, per, scratch, change);
}

/// Blocks of `data`, split among the threads where they are many.
fn each_block<T: Send, S>(
    data: &mut [T],
    per: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>, &mut [T]) + Sync,
) {
    let len = data.len();
    let step = (BLOCK / per.max(1)).next_multiple_of(8).max(8);
    let blocks = len.div_ceil(step);
    let workers = if len.saturating_mul(per.max(1)) < SPLIT { 1 } else { threads().min(blocks) };
    let size = blocks.div_ceil(workers.max(1)) * step;
    for_each(data.chunks_mut(size.max(1)).enumerate(), |(i, part)| {
        let mut scratch = scratch();
        for (j, block) in part.chunks_mut(step).enumerate() {
            let start = i * size + j * step;
            work(&mut scratch, start..start + block.len(), block);
        }
    });
}

/// `f` of every number, in place.
pub fn map_in_place(numbers: &mut [u64], f: impl Fn(u64) -> u64 + Sync) {
    update(numbers, 1, || (), |(), _, block| block.iter_mut().for_each(|v| *v = f(*v)));
}

/// `f` of every pair of numbers at the same place, in place of the first; as many as the shorter slice has.
pub fn zip_in_place(a: &mut [u64], b: &[u64], f: impl Fn(u64, u64) -> u64 + Sync) {
    let len = a.len().min(b.len());
    update(
        &mut a[..len],
        1,
        || (),
        |(), range, block| block.iter_mut().zip(&b[range]).for_each(|(a, b)| *a = f(*a, *b)),
    );
}

/// As [`zip_in_place`] for all of `a`, with `b` repeated as often as it takes.
pub fn zip_repeated_in_place(a: &mut [u64], b: &[u64], f: impl Fn(u64, u64) -> u64 + Sync) {
    if b.is_empty() {
        return;
    }
    if let [b] = b {
        return map_in_place(a, |a| f(a, *b));
    }
    update(
        a,
        1,
        || (),
        |(), range, mut block| {
            let mut from = range.start % b.len();
            while !block.is_empty() {
                let (here, later) = block.split_at_mut(block.len().min(b.len() - from));
                here.iter_mut().zip(&b[from..]).for_each(|(a, b)| *a = f(*a, *b));
                (block, from) = (later, 0);
            }
        },
    );
}

/// `f` of every number.
pub fn map(numbers: &[u64], f: impl Fn(u64) -> u64 + Sync) -> Vec<u64> {
    by_blocks(
        numbers.len(),
        1,
        || (),
        |(), range, out| {
            out.iter_mut().zip(&numbers[range]).for_each(|(out, v)| *out = f(*v));
        },
    )
}

/// `f` of every pair of numbers at the same place; as many as the shorter slice has.
pub fn zip(a: &[u64], b: &[u64], f: impl Fn(u64, u64) -> u64 + Sync) -> Vec<u64> {
    by_blocks(
        a.len().min(b.len()),
        1,
        || (),
        |(), range, out| {
            let pairs = a[range.clone()].iter().zip(&b[range]);
            out.iter_mut().zip(pairs).for_each(|(out, (a, b))| *out = f(*a, *b));
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_made_once_whatever_the_number_of_blocks() {
        for (len, per) in [(0, 1), (5, 3), (8, 1 << 20), (1003, 40), (300_007, 1), (70_001, 9)] {
            let found = by_blocks(len, per, Vec::new, |seen: &mut Vec<usize>, range, out| {
                assert_eq!(range.start % 8, 0);
                assert_eq!(range.len(), out.len());
                seen.push(range.start);
                out.iter_mut().zip(range).for_each(|(out, i)| *out += i as u64 + 1);
            });
            assert_eq!(found, (1..=len as u64).collect::<Vec<_>>());
            let doubled = map(&found, |v| v * 2);
            assert_eq!(doubled, zip(&found, &found, |a, b| a + b));
            let mut changed = found.clone();
            map_in_place(&mut changed, |v| v * 3);
            zip_in_place(&mut changed, &found, |a, b| a - b);
            assert_eq!(changed, doubled);
            zip_repeated_in_place(&mut changed, &[2, 0, 5], |a, b| a + b);
            assert!(changed.iter().zip(&doubled).enumerate().all(|(i, (c, d))| *c == d + [2, 0, 5][i % 3]));
        }
    }
}
