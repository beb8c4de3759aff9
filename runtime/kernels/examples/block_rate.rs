//! Speed of the local work of oblivious transfer: `cargo run --release -p marill-kernels --example block_rate`.

use std::hint::black_box;
use std::time::Instant;

use marill_kernels::blocks::{expand_many, hash_many, permute};
use marill_kernels::lpn::Code;
use marill_kernels::transpose::transpose;
use marill_kernels::vole::Expander;
use marill_kernels::{Block, ggm};

/// Prints how many millions of units a second the fastest of several runs did.
fn rate(name: &str, units: usize, mut work: impl FnMut()) {
    let runs = (0..7).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    let fastest_s = runs.fold(f64::INFINITY, f64::min);
    println!("{name}: {:.1} M/s", units as f64 / fastest_s / 1e6);
}

fn main() {
    let mut blocks: Vec<Block> = (0..1 << 16).collect();
    rate("permutations", blocks.len(), || permute(black_box(&mut blocks)));
    let mut out = vec![0; blocks.len()];
    rate("hashes", blocks.len(), || hash_many(0, &blocks, black_box(&mut out)));

    for words in [1, 2, 4, 8] {
        let mut out = vec![0; blocks.len() * words];
        rate(&format!("expansions to {words} words"), blocks.len(), || {
            expand_many(0, &blocks, words, black_box(&mut out));
        });
    }

    for width in [16, 32, 64, 128] {
        let mut expander = Expander::new(&blocks[..512]);
        let (mut planes, mut sums) = (vec![0; 128 * width], vec![0; 32 * width]);
        rate(&format!("small-field samples, {width} blocks"), 128 * width * 10, || {
            (0..10).for_each(|_| expander.expand(width, black_box(&mut planes), &mut sums));
        });
        let mut columns = vec![0; 128 * width];
        rate(&format!("transposed columns, {width} blocks"), 128 * width * 10, || {
            (0..10).for_each(|_| transpose(black_box(&planes), width, &mut columns));
        });
    }

    for levels in [9, 11, 13] {
        let (mut sums, mut leaves) = (vec![0; levels], vec![0; 1 << levels]);
        rate(&format!("leaves, {levels} levels"), 16 << levels, || {
            (0..16).for_each(|i| ggm::grow(i, 1, &mut sums, black_box(&mut leaves)));
        });
        rate(&format!("punctured leaves, {levels} levels"), 16 << levels, || {
            (0..16).for_each(|i| ggm::grow_punctured(i, &sums, black_box(&mut leaves)));
        });
    }

    for secrets in [43_008, 151_552, 589_760] {
        let values = vec![3; secrets];
        let code = Code::new([1; 16], secrets);
        let mut samples = vec![0; 1 << 20];
        rate(&format!("samples of {secrets} secrets"), samples.len(), || {
            code.add(0, &values, black_box(&mut samples));
        });
    }
}
