//! Local work on one thread: products of matrices in a ring, packing, and the loops of oblivious transfer and of
//! homomorphic encryption.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use marill_benches::{brief, words};
use marill_kernels::blocks::{expand_many, hash_many, permute};
use marill_kernels::lpn::Code;
use marill_kernels::matmul::{Path, Way, matmul_with};
use marill_kernels::rlwe::sample::{BLOCK, Uniform};
use marill_kernels::rlwe::{DEGREE, MODULI, TERMS, ntt, product};
use marill_kernels::transpose::transpose;
use marill_kernels::vole::Expander;
use marill_kernels::{Block, MatShape, Prg, Seed, ggm, pack, ring_vole};

/// A product of `[n, 768]` and `[768, 3072]` on one thread, in a ring of `width` bits.
fn product(c: &mut Criterion, path: Path, n: usize, b: &[u64], width: u32) {
    let shape = MatShape { n, k: 768, m: 3072 };
    let (a, mut out) = (words(0, n * shape.k, 64), vec![0; n * shape.m]);
    let way = Way { path, threads: 1, ..Way::fastest(width) };
    let mut group = c.benchmark_group("matmul");
    // Multiply-adds.
    group.throughput(Throughput::Elements((n * shape.k * shape.m) as u64));
    group.bench_function(format!("{path:?}/{n}x768x3072/{width}"), |bench| {
        bench.iter(|| matmul_with(way, &a, b, black_box(&mut out), shape));
    });
}

fn matmul(c: &mut Criterion) {
    let b = words(1, 768 * 3072, 64);
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        [64, 52, 40, 32].into_iter().for_each(|width| product(c, path, 128, &b, width));
    }
    [1, 8].into_iter().for_each(|n| product(c, Path::best(), n, &b, 64));
}

/// Bytes of 64-bit words.
fn packing(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack");
    let values = words(2, 1 << 18, 64);
    group.throughput(Throughput::Bytes(8 * values.len() as u64));
    for width in [1, 8, 23, 37, 61] {
        let mut bytes = Vec::new();
        group.bench_function(BenchmarkId::new("pack", width), |bench| {
            bench.iter(|| {
                bytes.clear();
                pack::pack(black_box(&values), width, &mut bytes);
            });
        });
        // Whichever of the two is asked for.
        bytes.clear();
        pack::pack(&values, width, &mut bytes);
        group.bench_function(BenchmarkId::new("unpack", width), |bench| {
            bench.iter(|| pack::unpack(black_box(&bytes), width, values.len()));
        });
    }
    let mut prg = Prg::new(Seed::new([1; 16]), 0);
    let mut bytes = vec![0; 8 * values.len()];
    group.bench_function("prg", |bench| bench.iter(|| prg.fill(black_box(&mut bytes))));
}

/// Blocks, or correlated transfers, or leaves, or samples.
fn transfers(c: &mut Criterion) {
    let mut group = c.benchmark_group("transfers");
    let mut blocks: Vec<Block> = (0..1 << 16).collect();
    let mut out = vec![0; blocks.len()];
    group.throughput(Throughput::Elements(blocks.len() as u64));
    group.bench_function("permute", |bench| bench.iter(|| permute(black_box(&mut blocks))));
    group.bench_function("hash", |bench| bench.iter(|| hash_many(0, &blocks, black_box(&mut out))));
    let mut words = vec![0; 4 * blocks.len()];
    group.bench_function("expand to 4 words", |bench| {
        bench.iter(|| expand_many(0, &blocks, 4, black_box(&mut words)));
    });

    let width = 64;
    let mut expander = Expander::new(&blocks[..512]);
    let (mut planes, mut sums) = (vec![0; 128 * width], vec![0; 32 * width]);
    let mut columns = vec![0; 128 * width];
    let leaves = &blocks[..64];
    let [mut plain, mut weighted] = [vec![0; 768], vec![0; 768]];
    group.throughput(Throughput::Elements((leaves.len() * plain.len()) as u64));
    for width in [32, 64] {
        group.bench_function(BenchmarkId::new("ring VOLE", width), |bench| {
            bench.iter(|| ring_vole::fold(0, leaves, 5, width, &mut plain, black_box(&mut weighted)));
        });
    }
    group.throughput(Throughput::Elements(128 * width as u64));
    group.bench_function("small-field samples", |bench| {
        bench.iter(|| expander.expand(width, black_box(&mut planes), &mut sums));
    });
    group.bench_function("transpose", |bench| {
        bench.iter(|| transpose(black_box(&planes), width, &mut columns));
    });

    let levels = 11;
    let (mut sums, mut leaves) = (vec![0; levels], vec![0; 1 << levels]);
    group.throughput(Throughput::Elements(1 << levels));
    group.bench_function("tree", |bench| bench.iter(|| ggm::grow(7, 1, &mut sums, black_box(&mut leaves))));
    group.bench_function("punctured tree", |bench| {
        bench.iter(|| ggm::grow_punctured(7, &sums, black_box(&mut leaves)));
    });

    for secrets in [43_008, 589_760] {
        let (values, code) = (vec![3; secrets], Code::new([1; 16], secrets));
        let mut samples = vec![0; 1 << 18];
        group.throughput(Throughput::Elements(samples.len() as u64));
        group.bench_function(BenchmarkId::new("code", secrets), |bench| {
            bench.iter(|| code.add(0, &values, black_box(&mut samples)));
        });
    }
}

/// Transforms, residues, and products of residues.
fn rlwe(c: &mut Criterion) {
    let mut group = c.benchmark_group("rlwe");
    let mut values: Vec<f64> = (0..DEGREE).map(|i| (i * 997 % 100_000) as f64).collect();
    group.bench_function("forward", |bench| bench.iter(|| ntt::forward(0, &mut values)));
    group.bench_function("inverse", |bench| bench.iter(|| ntt::inverse(0, &mut values)));
    let mut uniform = Uniform::new(&Seed::new([1; 16]), 0);
    let mut block = vec![0.0; BLOCK];
    group.throughput(Throughput::Elements(BLOCK as u64));
    group.bench_function("uniform", |bench| bench.iter(|| uniform.fill(MODULI[0], 5, &mut block)));
    let (tiles, panel) = (vec![3.0; 66 * TERMS], vec![5.0; TERMS * BLOCK]);
    let mut sums = vec![0.0; 64 * BLOCK];
    group.throughput(Throughput::Elements((64 * TERMS * BLOCK) as u64));
    group.bench_function("accumulate", |bench| {
        bench.iter(|| product::accumulate(MODULI[0], TERMS, &tiles, &panel, &mut sums, BLOCK));
    });
}

criterion_group! {
    name = benches;
    config = brief();
    targets = matmul, packing, transfers, rlwe
}
criterion_main!(benches);
