//! Seconds and bytes of private matrix products between two parties in one process.
//!
//! `MARILL_THREADS=1` keeps to one core. Both parties run one after the other, so their seconds do not overlap.

use std::time::Instant;

use marill_kernels::bits::mask;
use marill_kernels::{MatShape, Prg, Seed, matmul};
use marill_program::two_party::rlwe::{Cross, PairShape, WideShape, key_bytes, pair_key, wide_setup_bytes};
use marill_runtime::correlation::fresh_seed;
use marill_runtime::correlation::two_party::he::{pairs, wide};
use marill_runtime::error::RunError;
use marill_runtime::transport::memory_pair;

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("  {what}: {:.3} s", start.elapsed().as_secs_f64());
    result
}

fn words(salt: u64, len: usize, width: u32) -> Vec<u64> {
    Prg::new(Seed::new([17; 16]), salt).ring(len, width)
}

fn check(x: &[u64], y: &[u64], expected: &[u64], width: u32) {
    let wrong =
        (0..x.len()).filter(|i| (x[*i].wrapping_add(y[*i]) ^ expected[*i]) & mask(width) != 0).count();
    assert_eq!(wrong, 0, "{wrong} of {} values are wrong", x.len());
}

fn wide_product(shape: WideShape, rows: &[usize]) -> Result<(), RunError> {
    println!("wide {shape:?}, {:?}, setup {} bytes", shape.plan(), wide_setup_bytes(&[shape]));
    let (mut client, mut server) = memory_pair();
    let weights: Vec<u64> = words(0, shape.k * shape.m, 18).iter().map(|w| w.wrapping_sub(1 << 17)).collect();
    let seed = fresh_seed()?;
    let server = timed("setup, server", || {
        wide::ServerKey::setup(&mut server, &[shape], &seed, |_| Ok(weights.clone()))
    })?;
    let client = timed("setup, client", || wide::ClientKey::setup(&mut client, &[shape]))?;
    for &n in rows {
        println!(" {n} rows");
        let r = words(1, n * shape.k, shape.width);
        let seed = fresh_seed()?;
        let (message, share) = timed("client", || client.product(0, &r, n, &seed))?;
        let other = timed("server", || server.product(0, n, &message))?;
        println!("  message: {} bytes", message.len());
        check(&share, &other, &matmul(&r, &weights, MatShape { n, k: shape.k, m: shape.m }), shape.width);
    }
    Ok(())
}

fn pair(shape: PairShape) -> Result<(), RunError> {
    let PairShape { batch, n, k, m, width, plain_bits, cross } = shape;
    let (limbs, levels) = pair_key(&[shape]);
    println!("pairs {shape:?}, setup {} bytes", key_bytes(limbs, levels));
    shape.halves().for_each(|half| println!(" {:?}", half.plan()));
    let (mut client, mut server) = memory_pair();
    let (secret, seed, reply_seed) = (fresh_seed()?, fresh_seed()?, fresh_seed()?);
    let client = timed("setup, client", || pairs::ClientKey::setup(&mut client, &[shape], &secret))?;
    let server = timed("setup, server", || pairs::ServerKey::setup(&mut server, &[shape]))?;
    let (a0, b0) = (words(1, batch * n * k, width), words(2, batch * k * m, width));
    let (a1, b1) = (words(3, batch * n * k, plain_bits - 1), words(4, batch * k * m, plain_bits - 1));
    let request = timed("client, request", || client.request(&shape, Some(&a0), Some(&b0), &seed));
    let (reply, share) =
        timed("server", || server.reply(&shape, Some(&a1), Some(&b1), &request, &reply_seed))?;
    let other = timed("client, finish", || client.finish(&shape, &reply))?;
    println!("  request: {} bytes, reply: {} bytes", request.len(), reply.len());
    let product = |x: &[u64], y: &[u64]| -> Vec<u64> {
        x.chunks(n * k).zip(y.chunks(k * m)).flat_map(|(x, y)| matmul(x, y, MatShape { n, k, m })).collect()
    };
    let mut expected = product(&a0, &b1);
    if cross == Cross::Both {
        expected.iter_mut().zip(product(&a1, &b0)).for_each(|(sum, term)| *sum = sum.wrapping_add(term));
    }
    check(&share, &other, &expected, width);
    Ok(())
}

fn main() -> Result<(), RunError> {
    wide_product(WideShape { k: 768, m: 3072, width: 53 }, &[1, 64, 128])?;
    wide_product(WideShape { k: 768, m: 768, width: 53 }, &[128])?;
    let shape =
        |batch, n, k, m, width, plain_bits, cross| PairShape { batch, n, k, m, width, plain_bits, cross };
    pair(shape(12, 128, 64, 128, 36, 36, Cross::Both))?;
    pair(shape(12, 128, 128, 64, 36, 36, Cross::Both))?;
    pair(shape(1, 128, 768, 8, 53, 18, Cross::Left))?;
    pair(shape(1, 128, 8, 768, 53, 18, Cross::Left))
}
