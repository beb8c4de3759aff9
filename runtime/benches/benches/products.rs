//! Private matrix products by encryption, each party's own work, checked once. `MARILL_THREADS=1` keeps to one core.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use marill_benches::{brief, words};
use marill_kernels::bits::mask;
use marill_kernels::{MatShape, matmul};
use marill_program::two_party::effort::Link;
use marill_program::two_party::rlwe::{Cross, PairShape, WideShape, wide_setup_bytes};
use marill_runtime::correlation::arrivals::Arrivals;
use marill_runtime::correlation::fresh_seed;
use marill_runtime::correlation::shares::Shares;
use marill_runtime::correlation::two_party::he::{pairs, wide};
use marill_runtime::transport::memory_pair;

fn check(x: &[u64], y: &[u64], expected: &[u64], width: u32) {
    let wrong =
        (0..x.len()).filter(|i| (x[*i].wrapping_add(y[*i]) ^ expected[*i]) & mask(width) != 0).count();
    assert_eq!(wrong, 0, "{wrong} of {} values are wrong", x.len());
}

/// Masks of the client times weights that the server fixed.
fn fixed_weights(c: &mut Criterion) {
    let shapes = [(128, 768, 3072), (128, 768, 768), (1, 768, 3072)];
    for (n, k, m) in shapes {
        let shape = WideShape { k, m, width: 53 };
        let (mut client, mut server) = memory_pair();
        let weights: Vec<u64> = words(0, k * m, 18).iter().map(|w| w.wrapping_sub(1 << 17)).collect();
        let seed = fresh_seed().expect("randomness");
        let mut setup = || wide::send(&mut server, &[shape], &seed, |_, range| Ok(weights[range].to_vec()));
        setup().expect("a channel in memory");
        let theirs = Arc::new(Arrivals::new().expect("a temporary file"));
        wide::receive(&mut client, &[shape], &theirs).expect("a temporary file");
        let key = wide::ClientKey::new(&[shape], theirs).expect("an honest key");
        let own = wide::ServerKey::new(&[shape], &seed);
        let r = words(1, n * k, shape.width);
        let masks = Shares::values(r.clone());
        let product = || {
            let (mut message, seed) = (Vec::new(), fresh_seed().expect("randomness"));
            let share = key.product(0, &masks, n, &seed, &mut |bytes| message.extend(bytes));
            (message, share.expect("an honest server"))
        };
        let (message, share) = product();
        let other = own.product(0, n, &message).expect("an honest client");
        check(&share, &other, &matmul(&r, &weights, MatShape { n, k, m }), shape.width);

        let name = format!("{n}x{k}x{m}, {} bytes", message.len());
        let mut group = c.benchmark_group(format!("fixed weights/{name}"));
        group.bench_function("client", |bench| bench.iter(product));
        group.bench_function("server", |bench| bench.iter(|| own.product(0, n, &message)));
        if n > 1 {
            group.bench_function(format!("setup, server, {} bytes", wide_setup_bytes(&[shape])), |bench| {
                bench.iter(|| {
                    let (_client, mut server) = memory_pair();
                    wide::send(&mut server, &[shape], &seed, |_, range| Ok(weights[range].to_vec()))
                });
            });
        }
    }
}

/// Masks times masks, and times thin weights.
fn fresh_pairs(c: &mut Criterion) {
    for shape in [
        PairShape::new(12, [128, 64, 128], [36, 36], Cross::Both, Link::new(0)),
        PairShape::new(12, [128, 128, 64], [36, 36], Cross::Both, Link::new(0)),
        PairShape::new(1, [128, 768, 8], [53, 18], Cross::Left, Link::new(0)),
        PairShape::new(1, [128, 8, 768], [53, 18], Cross::Left, Link::new(0)),
    ] {
        let PairShape { batch, n, k, m, width, plain_bits, cross, .. } = shape;
        let (mut client, mut server) = memory_pair();
        let seed = fresh_seed().expect("randomness");
        pairs::send(&mut client, &[shape], &seed).expect("a channel in memory");
        let own = pairs::ClientKey::new(&seed);
        let theirs = Arrivals::new().expect("a temporary file");
        pairs::receive(&mut server, &[shape], &theirs).expect("a temporary file");
        let key = pairs::ServerKey::new(&[shape], &theirs).expect("an honest key");
        let (a0, b0) = (words(1, batch * n * k, width), words(2, batch * k * m, width));
        let (a1, b1) = (words(3, batch * n * k, plain_bits - 1), words(4, batch * k * m, plain_bits - 1));
        let ask = || {
            let (mut request, seed) = (Vec::new(), fresh_seed().expect("randomness"));
            own.request(&shape, Some(&a0), Some(&b0), &seed, &mut |part| request.extend(part));
            request
        };
        let request = ask();
        let answer = || {
            let seed = fresh_seed().expect("randomness");
            let mut rest = &request[..];
            let mut receive = |part: &mut [u8]| {
                let (now, later) = rest.split_at(part.len());
                part.copy_from_slice(now);
                rest = later;
                Ok(())
            };
            key.reply(&shape, Some(&a1), Some(&b1), &mut receive, &seed).expect("an honest client")
        };
        let (reply, share) = answer();
        let other = own.finish(&shape, &reply).expect("an honest server");
        let product = |x: &[u64], y: &[u64]| -> Vec<u64> {
            let pairs = x.chunks(n * k).zip(y.chunks(k * m));
            pairs.flat_map(|(x, y)| matmul(x, y, MatShape { n, k, m })).collect()
        };
        let mut expected = product(&a0, &b1);
        if cross == Cross::Both {
            let terms = product(&a1, &b0);
            expected.iter_mut().zip(terms).for_each(|(sum, term)| *sum = sum.wrapping_add(term));
        }
        check(&share, &other, &expected, width);

        let name = format!("{batch}x{n}x{k}x{m}, {} bytes", request.len() + reply.len());
        let mut group = c.benchmark_group(format!("fresh pairs/{name}"));
        group.bench_function("client asks", |bench| bench.iter(ask));
        group.bench_function("server", |bench| bench.iter(answer));
        group.bench_function("client ends", |bench| bench.iter(|| own.finish(&shape, &reply)));
    }
}

criterion_group! {
    name = benches;
    config = brief();
    targets = fixed_weights, fresh_pairs
}
criterion_main!(benches);
