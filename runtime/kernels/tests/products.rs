//! Every path, layout and element type against the product written as three loops.

use marill_kernels::matmul::{Layout, MatShape, Path, RingElement, Way, matmul_with};
use marill_kernels::{Prg, Seed, matmul, matmul_accumulate};
use proptest::prelude::*;

fn naive<B: RingElement>(layout: Layout, a: &[u64], b: &[B], c: &mut [u64], shape: MatShape) {
    let MatShape { n, k, m } = shape;
    for i in 0..n {
        for j in 0..m {
            for p in 0..k {
                let value = match layout {
                    Layout::Plain => b[p * m + j],
                    Layout::Transposed => b[j * k + p],
                };
                c[i * m + j] = c[i * m + j].wrapping_add(a[i * k + p].wrapping_mul(value.to_ring()));
            }
        }
    }
}

fn random(len: usize, stream: u64) -> Vec<u64> {
    Prg::new(Seed::new([9; 16]), stream).ring(len, 64)
}

fn check<B: RingElement>(shape: MatShape, threads: usize, narrow: impl Fn(u64) -> B) {
    let MatShape { n, k, m } = shape;
    let a = random(n * k, 1);
    let b: Vec<B> = random(k * m, 2).into_iter().map(narrow).collect();
    let start = random(n * m, 3);
    for layout in [Layout::Plain, Layout::Transposed] {
        let mut expected = start.clone();
        naive(layout, &a, &b, &mut expected, shape);
        for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
            for width in [64, 53, 52, 33, 32, 25, 8, 1] {
                let mut c = start.clone();
                matmul_with(Way { path, threads, layout, width }, &a, &b, &mut c, shape);
                let differ =
                    c.iter().zip(&expected).any(|(found, wanted)| (found ^ wanted) << (64 - width) != 0);
                assert!(!differ, "{path:?} {layout:?} {shape:?} on {threads} threads, {width} bits");
            }
        }
    }
}

fn check_all_types(shape: MatShape, threads: usize) {
    check(shape, threads, |value| value);
    check(shape, threads, |value| value as i32);
    check(shape, threads, |value| value as i16);
}

#[test]
fn small_sizes_of_every_kind() {
    let sizes = [0, 1, 2, 3, 5, 7, 8, 9, 13, 16, 23, 24, 25, 31];
    for n in sizes {
        for k in sizes {
            for m in sizes {
                check(MatShape { n, k, m }, 1, |value| value);
            }
        }
    }
}

#[test]
fn narrow_types_are_sign_extended() {
    for (n, k, m) in [(1, 17, 40), (9, 17, 40), (16, 8, 24), (40, 11, 3)] {
        check_all_types(MatShape { n, k, m }, 1);
    }
    let shape = MatShape { n: 1, k: 2, m: 1 };
    let mut c = [0];
    matmul_with(Way::fastest(64), &[3, 5], &[-1_i16, i16::MIN], &mut c, shape);
    assert_eq!(c, [(-3_i64 - 5 * 32768) as u64]);
    let mut c = [0];
    matmul_with(Way::fastest(64), &[3, 5], &[-1_i32, i32::MIN], &mut c, shape);
    assert_eq!(c, [(-3_i64 - 5 * (1 << 31)) as u64]);
}

/// Sizes on both sides of the blocks: 64, 192 and 1024 terms, 512 columns, 256 and 1024 rows.
#[test]
fn sizes_around_the_blocks() {
    for (n, k, m) in [(8, 191, 24), (9, 192, 25), (17, 193, 47), (11, 385, 30), (1023, 5, 9), (1031, 200, 26)]
    {
        check_all_types(MatShape { n, k, m }, 1);
    }
    for (n, k, m) in [(1, 9, 511), (3, 8, 512), (7, 23, 1025), (2, 1000, 1), (600, 70, 7)] {
        check_all_types(MatShape { n, k, m }, 1);
    }
}

/// Sizes large enough for several threads, cut along rows and along columns into even and uneven parts.
#[test]
fn threads_do_not_change_the_result() {
    for (n, k, m) in
        [(128, 128, 257), (1, 1511, 2801), (5, 401, 2111), (700, 97, 61), (90_001, 50, 1), (2099, 650, 3)]
    {
        for threads in [2, 3, 16] {
            check(MatShape { n, k, m }, threads, |value| value);
        }
    }
    check_all_types(MatShape { n: 64, k: 400, m: 200 }, 2);
}

/// The largest words and digits, over more terms than any block: inner sums must not overflow.
#[test]
fn extreme_values_are_exact() {
    let shape = MatShape { n: 33, k: 2500, m: 40 };
    let a = vec![u64::MAX; shape.n * shape.k];
    for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
        for value in [u64::MAX, u64::MAX >> 1, 0xff, 1 << 63] {
            let b = vec![value; shape.k * shape.m];
            let mut c = vec![0; shape.n * shape.m];
            matmul_with(Way { path, threads: 1, ..Way::fastest(64) }, &a, &b, &mut c, shape);
            let expected = value.wrapping_mul(2500).wrapping_neg();
            assert!(c.iter().all(|sum| *sum == expected), "{path:?} {value:#x}: {:#x}", c[0]);
        }
        let b = vec![i16::MIN; shape.k * shape.m];
        let mut c = vec![0; shape.n * shape.m];
        matmul_with(Way { path, threads: 1, ..Way::fastest(64) }, &a, &b, &mut c, shape);
        assert!(c.iter().all(|sum| *sum == 2500 << 15), "{path:?}: {:#x}", c[0]);
    }
}

#[test]
fn short_forms_agree_with_the_long_one() {
    let shape = MatShape { n: 10, k: 20, m: 30 };
    let (a, b, start) = (random(200, 1), random(600, 2), random(300, 3));
    let mut plain = start.clone();
    naive(Layout::Plain, &a, &b, &mut plain, shape);
    let mut c = start.clone();
    matmul_accumulate(&a, &b, &mut c, shape, 64);
    assert_eq!(c, plain);
    let sums: Vec<u64> = matmul(&a, &b, shape).iter().zip(&start).map(|(x, y)| x.wrapping_add(*y)).collect();
    assert_eq!(sums, plain);
}

#[test]
#[should_panic(expected = "right side of a product")]
fn wrong_lengths_are_refused() {
    matmul(&[1, 2], &[1, 2, 3], MatShape { n: 1, k: 2, m: 2 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_sizes(n in 0_usize..70, k in 0_usize..260, m in 0_usize..90, threads in 1_usize..4) {
        check(MatShape { n, k, m }, threads, |value| value);
    }
}
