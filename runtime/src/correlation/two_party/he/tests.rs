use std::sync::Arc;

use marill_kernels::bits::mask;
use marill_kernels::{MatShape, Prg, Seed, matmul};
use marill_program::two_party::effort::Link;
use marill_program::two_party::rlwe::{Cross, PairShape, WideShape, key_bytes, pair_key, wide_setup_bytes};

use super::{pairs, wide};
use crate::correlation::arrivals::Arrivals;
use crate::correlation::fresh_seed;
use crate::correlation::shares::Shares;
use crate::error::{Misbehaviour, RunError};
use crate::transport::memory_pair;

fn words(salt: u64, len: usize, width: u32) -> Vec<u64> {
    Prg::new(Seed::new([91; 16]), salt).ring(len, width)
}

/// Weights of 18 bits with a sign, modulo `2^width`.
fn weights(salt: u64, len: usize, width: u32) -> Vec<u64> {
    let signed = |word: &u64| (*word as i64 - (1 << 17)) as u64 & mask(width);
    words(salt, len, 18).iter().map(signed).collect()
}

fn sum(x: &[u64], y: &[u64], width: u32) -> Vec<u64> {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| x.wrapping_add(*y) & mask(width)).collect()
}

fn reduced(mut values: Vec<u64>, width: u32) -> Vec<u64> {
    values.iter_mut().for_each(|value| *value &= mask(width));
    values
}

/// Both halves of a setup, over a channel whose meter is held against the length formula.
fn wide_keys(shapes: &[WideShape], matrices: &[Vec<u64>]) -> (wide::ServerKey, wide::ClientKey) {
    let (mut client, mut server) = memory_pair();
    let seed = fresh_seed().unwrap();
    std::thread::scope(|scope| {
        let made = scope.spawn(move || {
            wide::send(&mut server, shapes, &seed, |job, range| Ok(matrices[job][range].to_vec())).unwrap();
            wide::ServerKey::new(shapes, &seed)
        });
        let theirs = Arc::new(Arrivals::new().unwrap());
        wide::receive(&mut client, shapes, &theirs).unwrap();
        let got = wide::ClientKey::new(shapes, theirs).unwrap();
        let expected = marill_program::cost::streamed_bytes(wide_setup_bytes(shapes));
        assert_eq!(client.meter().snapshot().total().bytes_received, expected);
        (made.join().unwrap(), got)
    })
}

fn pair_keys(shapes: &[PairShape]) -> (pairs::ClientKey, pairs::ServerKey) {
    let (mut client, mut server) = memory_pair();
    let seed = fresh_seed().unwrap();
    pairs::send(&mut client, shapes, &seed).unwrap();
    let key = pairs::ClientKey::new(&seed);
    let theirs = Arrivals::new().unwrap();
    pairs::receive(&mut server, shapes, &theirs).unwrap();
    let public = pairs::ServerKey::new(shapes, &theirs).unwrap();
    let (limbs, levels) = pair_key(shapes);
    let expected = marill_program::cost::streamed_bytes(key_bytes(limbs, levels));
    assert_eq!(server.meter().snapshot().total().bytes_received, expected);
    (key, public)
}

#[test]
fn wide_products_are_exact() {
    let shape = |k, m, width| WideShape { k, m, width };
    let shapes = [
        shape(768, 8, 53),
        shape(33, 17, 20),
        shape(33, 17, 64),
        shape(100, 700, 37),
        shape(97, 3000, 53),
        shape(2, 9000, 30),
        // More terms than are in memory at once.
        shape(6300, 3, 36),
    ];
    let rows = [1, 5, 5, 70, 3, 2, 9];
    let matrices: Vec<Vec<u64>> =
        shapes.iter().enumerate().map(|(job, s)| weights(job as u64, s.k * s.m, s.width)).collect();
    let (server, client) = wide_keys(&shapes, &matrices);
    for (job, (s, n)) in shapes.iter().zip(rows).enumerate() {
        let expected =
            |r: &[u64]| reduced(matmul(r, &matrices[job], MatShape { n, k: s.k, m: s.m }), s.width);
        let extremes = vec![1 << (s.width - 1); n * s.k];
        for r in [words(100 + job as u64, n * s.k, 64), extremes] {
            let (message, share) = product(&client, job, &r, n).unwrap();
            assert_eq!(message.len(), s.message_bytes(n));
            let other = server.product(job, n, &message).unwrap();
            assert_eq!(sum(&share, &other, s.width), expected(&r), "{s:?}");
        }
    }
}

#[test]
fn wide_messages_differ_and_bad_ones_are_refused() {
    let shapes = [WideShape { k: 10, m: 21, width: 37 }];
    let (server, client) = wide_keys(&shapes, &[weights(0, 210, 37)]);
    let r = words(1, 30, 37);
    let (first, _) = product(&client, 0, &r, 3).unwrap();
    let (mut second, _) = product(&client, 0, &r, 3).unwrap();
    let same = first.iter().zip(&second).filter(|(x, y)| x == y).count();
    assert!(same < first.len() / 100, "{same} of {} bytes are the same", first.len());
    for message in [&second[1..], &[], &vec![0; second.len() + 1]] {
        assert!(is_malformed(server.product(0, 3, message)));
    }
    *second.last_mut().unwrap() |= 0xf0;
    assert!(is_malformed(server.product(0, 3, &second)));
}

/// The client's message and share.
fn product(key: &wide::ClientKey, job: usize, r: &[u64], n: usize) -> Result<(Vec<u8>, Vec<u64>), RunError> {
    let r = &Shares::values(r.to_vec());
    let mut message = Vec::new();
    let share = key.product(job, r, n, &fresh_seed().unwrap(), &mut |bytes| message.extend(bytes))?;
    Ok((message, share))
}

fn is_malformed<T>(result: Result<T, RunError>) -> bool {
    matches!(result, Err(RunError::PeerMisbehaved { reason: Misbehaviour::Malformed { .. }, .. }))
}

#[test]
fn hostile_setups_are_refused() {
    let shapes = [WideShape { k: 10, m: 20, width: 37 }];
    for (bad, fails_at_once) in [(100, true), (wide_setup_bytes(&shapes) as usize - 1, false)] {
        let (mut client, mut server) = memory_pair();
        let mut bytes = vec![0; wide_setup_bytes(&shapes) as usize];
        bytes[bad] = 0xff;
        bytes[bad - 1] = 0xff;
        bytes[bad - 2] = 0xff;
        for chunk in bytes.chunks(1 << 20) {
            server.send(chunk).unwrap();
        }
        let theirs = Arc::new(Arrivals::new().unwrap());
        wide::receive(&mut client, &shapes, &theirs).unwrap();
        let key = wide::ClientKey::new(&shapes, theirs);
        if fails_at_once {
            assert!(is_malformed(key));
        } else {
            assert!(is_malformed(product(&key.unwrap(), 0, &[0; 10], 1)));
        }
    }
}

fn request(key: &pairs::ClientKey, s: &PairShape, a0: Option<&[u64]>, b0: Option<&[u64]>) -> Vec<u8> {
    let mut request = Vec::new();
    key.request(s, a0, b0, &fresh_seed().unwrap(), &mut |part| request.extend(part));
    request
}

fn reply(
    key: &pairs::ServerKey,
    s: &PairShape,
    a1: Option<&[u64]>,
    b1: Option<&[u64]>,
    mut request: &[u8],
) -> Result<(Vec<u8>, Vec<u64>), RunError> {
    let mut receive = |part: &mut [u8]| {
        part.copy_from_slice(request.split_off(..part.len()).unwrap());
        Ok(())
    };
    key.reply(s, a1, b1, &mut receive, &fresh_seed().unwrap())
}

#[test]
fn pairs_are_exact() {
    let shapes = [
        PairShape::new(2, [32, 64, 48], [36, 36], Cross::Both, Link::new(0)),
        PairShape::new(3, [5, 33, 17], [20, 20], Cross::Both, Link::new(0)),
        PairShape::new(1, [1, 1, 1], [1, 1], Cross::Both, Link::new(0)),
        PairShape::new(1, [5, 33, 17], [64, 64], Cross::Left, Link::new(0)),
        PairShape::new(1, [40, 768, 8], [53, 18], Cross::Left, Link::new(0)),
        PairShape::new(1, [20, 8, 768], [37, 18], Cross::Left, Link::new(0)),
        PairShape::new(2, [3, 500, 4], [64, 64], Cross::Right, Link::new(0)),
        PairShape::new(300, [1, 100, 1], [54, 54], Cross::Left, Link::new(0)),
        PairShape::new(5, [1, 768, 1], [40, 40], Cross::Both, Link::new(0)),
        PairShape::new(2, [1, 4096, 1], [64, 64], Cross::Right, Link::new(0)),
    ];
    let (client, server) = pair_keys(&shapes);
    for (at, s) in shapes.iter().enumerate() {
        let PairShape { batch, n, k, m, width, plain_bits, .. } = *s;
        let extreme = |len: usize, bits: u32| vec![mask(64) << (bits - 1); len];
        for extremes in [false, true] {
            let make = |salt: u64, len: usize, bits: u32| match extremes {
                true => extreme(len, bits),
                false => words(10 * at as u64 + salt, len, 64),
            };
            let (a0, b0) = (make(0, batch * n * k, width), make(1, batch * k * m, width));
            let signed = |values: Vec<u64>| -> Vec<u64> {
                values.iter().map(|v| marill_kernels::bits::sign_extend(*v, plain_bits) as u64).collect()
            };
            let (a1, b1) =
                (signed(make(2, batch * n * k, plain_bits)), signed(make(3, batch * k * m, plain_bits)));
            let mut expected = vec![0; batch * n * m];
            for (x, y, wanted) in [(&a0, &b1, s.cross != Cross::Right), (&a1, &b0, s.cross != Cross::Left)] {
                if !wanted {
                    continue;
                }
                let heads = x.chunks_exact(n * k).zip(y.chunks_exact(k * m));
                let products = heads.flat_map(|(x, y)| matmul(x, y, MatShape { n, k, m }));
                expected = sum(&expected, &products.collect::<Vec<_>>(), width);
            }
            let request = request(&client, s, Some(&a0), Some(&b0));
            assert_eq!(request.len() as u64, s.request_bytes());
            let (reply, share) = reply(&server, s, Some(&a1), Some(&b1), &request).unwrap();
            assert_eq!(reply.len() as u64, s.reply_bytes());
            let other = client.finish(s, &reply).unwrap();
            assert_eq!(sum(&share, &other, width), expected, "{s:?}");
        }
    }
}

#[test]
fn pairs_over_a_channel_and_hostile_peers() {
    let s = PairShape::new(1, [4, 8, 2], [37; 2], Cross::Left, Link::new(0));
    let (client, server) = pair_keys(&[s]);
    let (mut left, mut right) = memory_pair();
    let (a0, b1) = (words(1, 32, 37), words(2, 16, 37));
    let shares = std::thread::scope(|scope| {
        let seed = fresh_seed().unwrap();
        let mine = scope
            .spawn(|| pairs::ask(&mut left, &client, &s, Some(&a0), None, &fresh_seed().unwrap()).unwrap());
        let theirs = pairs::answer(&mut right, &server, &s, None, Some(&b1), &seed).unwrap();
        sum(&mine.join().unwrap(), &theirs, 37)
    });
    assert_eq!(shares, reduced(matmul(&a0, &b1, MatShape { n: 4, k: 8, m: 2 }), 37));
    let request = request(&client, &s, Some(&a0), None);
    let reply = |bytes: &[u8]| reply(&server, &s, None, Some(&b1), bytes);
    let (first, second) = (reply(&request).unwrap().0, reply(&request).unwrap().0);
    let same = first.iter().zip(&second).filter(|(x, y)| x == y).count();
    assert!(same < first.len() / 100, "{same} of {} bytes are the same", first.len());
    let mut wrong = request.clone();
    wrong[16..19].fill(0xff);
    assert!(is_malformed(reply(&wrong)));
    left.send(&request[1..]).unwrap();
    let error = pairs::answer(&mut right, &server, &s, None, Some(&b1), &fresh_seed().unwrap()).unwrap_err();
    let is_length = |reason: &Misbehaviour| matches!(reason, Misbehaviour::WrongLength { .. });
    assert!(matches!(&error, RunError::PeerMisbehaved { reason, .. } if is_length(reason)), "{error}");
    assert!(is_malformed(client.finish(&s, &first[1..])));
    assert!(is_malformed(client.finish(&s, &[])));
}
