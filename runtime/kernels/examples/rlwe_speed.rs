//! Seconds of the loops of the RLWE layer on one thread.

use std::time::Instant;

use marill_kernels::Seed;
use marill_kernels::rlwe::sample::{BLOCK, Uniform};
use marill_kernels::rlwe::{DEGREE, MODULI, TERMS, ntt, product};

fn micros(name: &str, times: usize, mut run: impl FnMut()) {
    run();
    let start = Instant::now();
    (0..times).for_each(|_| run());
    println!("{name}: {:.2} us", start.elapsed().as_secs_f64() * 1e6 / times as f64);
}

fn main() {
    let mut values: Vec<f64> = (0..DEGREE).map(|i| (i * 997 % 100_000) as f64).collect();
    micros("forward", 2000, || ntt::forward(0, &mut values));
    micros("inverse", 2000, || ntt::inverse(0, &mut values));
    let mut uniform = Uniform::new(&Seed::new([1; 16]), 0);
    let mut block = vec![0.0; BLOCK];
    micros("1024 uniform residues", 5000, || uniform.fill(MODULI[0], 5, &mut block));
    let tiles = vec![3.0; 66 * TERMS];
    let mut panel = vec![5.0; TERMS * BLOCK];
    let mut c = vec![0.0; 64 * BLOCK];
    micros("pack 96 x 1024", 500, || {
        (0..TERMS).for_each(|j| product::pack_term(&block, j, TERMS, &mut panel));
    });
    micros("64 x 96 x 1024 (6.3 M products)", 200, || {
        product::accumulate(MODULI[0], TERMS, &tiles, &panel, &mut c, BLOCK);
    });
}
