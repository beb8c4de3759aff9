//! Speed of the kernels on this machine: `cargo run --release -p marill-kernels --example ring_matmul`.

use std::hint::black_box;
use std::time::Instant;

use marill_kernels::matmul::{Layout, Path, RingElement, matmul_with, threads};
use marill_kernels::{MatShape, Prg, Seed, pack};

/// Seconds of the fastest of several runs.
fn fastest_s(mut work: impl FnMut()) -> f64 {
    let runs = (0..15).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn product<B: RingElement>(name: &str, path: Path, threads: usize, shape: MatShape, narrow: fn(u64) -> B) {
    let MatShape { n, k, m } = shape;
    let mut prg = Prg::new(Seed::new([1; 16]), 0);
    let a = prg.ring(n * k, 64);
    let b: Vec<B> = prg.ring(k * m, 64).into_iter().map(narrow).collect();
    let mut c = vec![0; n * m];
    let speed = [Layout::Plain, Layout::Transposed].map(|layout| {
        let seconds = fastest_s(|| matmul_with(path, threads, layout, &a, &b, black_box(&mut c), shape));
        (n * k * m) as f64 / seconds / 1e9
    });
    println!(
        "{n:>4} x {k} x {m} {name} {path:?} {threads} thr: {:.1} GOP/s, transposed {:.1}",
        speed[0], speed[1]
    );
}

fn main() {
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        product("u64", path, 1, MatShape { n: 128, k: 768, m: 3072 }, |value| value);
        product("u64", path, 1, MatShape { n: 1, k: 768, m: 3072 }, |value| value);
    }
    let best = Path::best();
    for n in [1, 4, 7, 8, 128] {
        let shape = MatShape { n, k: 768, m: 3072 };
        product("u64", best, threads(), shape, |value| value);
        product("i32", best, 1, shape, |value| value as i32);
        product("i16", best, 1, shape, |value| value as i16);
    }
    let len = 1 << 20;
    let mut prg = Prg::new(Seed::new([1; 16]), 0);
    let values = prg.ring(len, 64);
    let gigabytes = (len * 8) as f64 / 1e9;
    for width_bits in [1, 7, 8, 16, 23, 32, 37, 48, 61, 64] {
        let mut bytes = Vec::new();
        let packing = fastest_s(|| {
            bytes.clear();
            pack::pack(black_box(&values), width_bits, &mut bytes);
        });
        let unpacking = fastest_s(|| drop(black_box(pack::unpack(&bytes, width_bits, len))));
        println!(
            "{width_bits:>2} bits: pack {:.1}, unpack {:.1} GB/s",
            gigabytes / packing,
            gigabytes / unpacking
        );
    }
    let mut bytes = vec![0; 1 << 20];
    let seconds = fastest_s(|| prg.fill(black_box(&mut bytes)));
    println!("prg fill: {:.1} GB/s", bytes.len() as f64 / seconds / 1e9);
    let seconds = fastest_s(|| drop(black_box(prg.ring(len, 40))));
    println!("prg ring: {:.1} GB/s", gigabytes / seconds);
}
