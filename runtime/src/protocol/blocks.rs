//! Element-wise work in blocks that fit the processor's caches, split among its cores.

use std::ops::Range;

use marill_kernels::matmul::threads;

/// Numbers of one block, about.
const BLOCK: usize = 1 << 14;

/// Work below which one core is quicker, in numbers.
const SPLIT: usize = 1 << 17;

/// One number for each of `len` elements: `make` fills those of a range, which starts at a multiple of 8, with scratch
/// space from `scratch`. `per` says how many numbers the work on one element reads.
pub fn by_blocks<S>(
    len: usize,
    per: usize,
    scratch: impl Fn() -> S + Sync,
    make: impl Fn(&mut S, Range<usize>, &mut [u64]) + Sync,
) -> Vec<u64> {
    let mut data = vec![0; len];
    let step = (BLOCK / per.max(1)).next_multiple_of(8).max(8);
    let run = |blocks: &mut dyn Iterator<Item = (usize, &mut [u64])>| {
        let mut scratch = scratch();
        for (i, out) in blocks {
            make(&mut scratch, i * step..i * step + out.len(), out);
        }
    };
    let mut blocks: Vec<(usize, &mut [u64])> = data.chunks_mut(step).enumerate().collect();
    let workers = if len.saturating_mul(per.max(1)) < SPLIT { 1 } else { threads().min(blocks.len()) };
    if workers < 2 {
        run(&mut blocks.into_iter());
        return data;
    }
    let share = blocks.len().div_ceil(workers);
    std::thread::scope(|scope| {
        while !blocks.is_empty() {
            let part = blocks.split_off(blocks.len() - share.min(blocks.len()));
            let run = &run;
            scope.spawn(move || run(&mut part.into_iter()));
        }
    });
    data
}
