//! Products of masked values with each other, with weights and with public values.

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::two_party::effort::Link;
use marill_program::two_party::products::encrypted_squares;
use marill_program::{Owner, Target};

use crate::build::Builder;
use crate::run::*;

fn i64s(shape: &[usize], data: &[i64]) -> Tensor {
    Tensor::i64(shape, data.to_vec()).unwrap()
}

fn wrapped(value: i128, width: u32) -> f64 {
    let value = value.rem_euclid(1 << width);
    (if value >= 1 << (width - 1) { value - (1 << width) } else { value }) as f64
}

#[test]
fn element_products_and_squares_with_and_without_lifts() {
    let mut random = Random(11);
    for (ka, kb, w) in [
        (20, 20, 20), // no lift
        (10, 10, 18), // both, their wraps reach the result
        (10, 10, 24),
        (8, 30, 30), // one
        (30, 8, 30),
        (40, 12, 22), // reduced and lifted
        (33, 20, 64),
        (16, 16, 64),
        (5, 3, 64),
        (64, 64, 64),
    ] {
        let limit = |k: u32| if k < w { (1i64 << (k - 2)) - 1 } else { (1 << (k - 1).min(20)) - 1 };
        let x = random.integers(60, -limit(ka), limit(ka));
        let y = random.integers(20, -limit(kb), limit(kb));
        let mut b = Builder::new();
        let xs = b.input("x", Owner::Client, "i64[3,20]");
        let ys = b.input("y", Owner::Server, "i64[20]");
        let (xm, ym) = (b.masked(xs, ka, 0), b.masked(ys, kb, 0));
        let xy = b.mul(xm, ym, w);
        let yx = b.mul(ym, xm, w);
        let xx = b.mul(xm, xm, w);
        let square = b.push(Instruction::Square(Square { arg: xm, width: w }));
        for (name, value) in [("xy", xy), ("yx", yx), ("xx", xx), ("square", square)] {
            b.reveal(name, value, Target::Client, true);
        }
        let program = b.finish();
        let data = Data::default().client("x", i64s(&[3, 20], &x)).server("y", i64s(&[20], &y));
        for _ in 0..4 {
            let (outputs, _) = run(&program, &data);
            let product = |i: usize| wrapped(i128::from(x[i]) * i128::from(y[i % 20]), w);
            let products: Vec<f64> = (0..60).map(product).collect();
            let squares: Vec<f64> = x.iter().map(|&v| wrapped(i128::from(v) * i128::from(v), w)).collect();
            for (name, expected) in
                [("xy", &products), ("yx", &products), ("xx", &squares), ("square", &squares)]
            {
                let found = numbers(&outputs, name);
                assert_eq!(&found, expected, "{name} of {ka} and {kb} bits in {w}");
            }
        }
    }
}

/// By gates, and by encryption of whole rows, several to a ciphertext.
#[test]
fn sums_of_squares() {
    let mut random = Random(28);
    for (rows, length, k, w, encrypted) in
        [(3, 5, 20, 20, false), (2, 7, 40, 33, false), (70, 150, 52, 48, true), (300, 60, 64, 64, true)]
    {
        let limit = 1i64 << (k - 2).min(24);
        let x = random.integers(rows * length, -limit, limit);
        let mut b = Builder::new();
        b.planned_for(1000);
        assert_eq!(encrypted_squares(Link::new(1000), [rows, length], w).is_some(), encrypted);
        let xs = b.input("x", Owner::Client, &format!("i64[{rows},{length}]"));
        let masked = b.masked(xs, k, 0);
        let sum = b.push(Instruction::SquareSum(SquareSum { arg: masked, width: w }));
        b.reveal("out", sum, Target::Client, true);
        let program = b.finish();
        let data = Data::default().client("x", i64s(&[rows, length], &x));
        let square = |row: &[i64]| wrapped(row.iter().map(|v| i128::from(*v) * i128::from(*v)).sum(), w);
        let expected: Vec<f64> = x.chunks(length).map(square).collect();
        for _ in 0..2 {
            let (outputs, _) = run(&program, &data);
            assert_eq!(numbers(&outputs, "out"), expected, "{rows} rows of {length}");
        }
    }
}

/// `[batch, n, k] x [batch, k, m]`, exact.
fn matmul(a: &[i64], b: &[i64], [batch, n, k, m]: [usize; 4], b_batched: bool) -> Vec<f64> {
    let mut result = Vec::new();
    for s in 0..batch {
        let b = &b[if b_batched { s * k * m } else { 0 }..][..k * m];
        for i in 0..n {
            for j in 0..m {
                result.push((0..k).map(|t| a[(s * n + i) * k + t] * b[t * m + j]).sum::<i64>() as f64);
            }
        }
    }
    result
}

#[test]
fn matrix_products_of_masked_values() {
    let mut random = Random(12);
    for (batch, n, k, m) in [(1, 1, 1, 1), (3, 4, 5, 6), (2, 17, 9, 33)] {
        let (x, y) = (random.integers(batch * n * k, -500, 500), random.integers(batch * k * m, -500, 500));
        let mut b = Builder::new();
        let xs = b.input("x", Owner::Client, &format!("i64[{batch},{n},{k}]"));
        let ys = b.input("y", Owner::Server, &format!("i64[{batch},{k},{m}]"));
        let (xm, ym) = (b.masked(xs, 40, 0), b.masked(ys, 33, 0));
        let product = b.matmul(xm, ym, 30);
        b.reveal("out", product, Target::Client, true);
        let data =
            Data::default().client("x", i64s(&[batch, n, k], &x)).server("y", i64s(&[batch, k, m], &y));
        assert_eq!(out(&b.finish(), &data), matmul(&x, &y, [batch, n, k, m], true));
    }
}

#[test]
fn products_with_weights_of_the_server() {
    let mut random = Random(13);
    for (n, k, m, width) in [(1, 1, 1, 20), (5, 7, 3, 37), (2, 130, 66, 29), (3, 3000, 1501, 41)] {
        let (x, w) = (random.integers(n * k, -99, 99), random.integers(k * m, -99, 99));
        let gain = random.integers(m, -99, 99);
        let halves = |data: &[i64]| data.iter().map(|v| *v as f32 / 2.0).collect::<Vec<f32>>();
        let mut b = Builder::new();
        let xs = b.input("x", Owner::Client, &format!("i64[1,{n},{k}]"));
        let stored = b.constant("w", Owner::Server, &format!("f32[{k},{m}]"));
        let stored_gain = b.constant("gain", Owner::Server, &format!("f32[{m}]"));
        let turned = b.plain("transpose{perm=[1,0]}", &[stored]);
        let straight = b.plain("transpose{perm=[1,0]}", &[turned]);
        let weight = b.weight(straight, width, 1);
        let gain_weight = b.weight(stored_gain, width + 2, 1);
        let masked = b.encode(xs, width + 1, 0);
        let masked = b.open(masked, Target::Server, width + 1);
        let moved = b.movement(&format!("reshape{{shape=[{n},{k}]}}"), &[masked]);
        let product = b.matmul(moved, weight, width);
        let again = b.matmul(masked, weight, width - 1);
        b.show("out", product);
        b.show("again", again);
        let shared = b.open(product, Target::Server, width);
        let gained = b.mul(shared, gain_weight, width);
        b.show("gained", gained);
        let data = Data::default()
            .client("x", i64s(&[1, n, k], &x))
            .private("w", Tensor::f32([k, m], halves(&w)).unwrap())
            .private("gain", Tensor::f32([m], halves(&gain)).unwrap());
        let (outputs, _) = run(&b.finish(), &data);
        let products = matmul(&x, &w, [1, n, k, m], false);
        let expected: Vec<f64> = products.iter().map(|v| v / 2.0).collect();
        if width > 20 {
            close(&numbers(&outputs, "out"), &expected, 0.25);
            close(&numbers(&outputs, "again"), &expected, 0.25);
        }
        let modular = |i: usize| wrapped(products[i] as i128 * i128::from(gain[i % m]), width) / 4.0;
        let gained: Vec<f64> = (0..n * m).map(modular).collect();
        close(
            &numbers(&outputs, "gained"),
            &gained,
            gained.iter().fold(0.0, |a: f64, v| a.max(v.abs())) * 1e-7,
        );
    }
}

#[test]
fn products_with_public_values_on_either_side() {
    let mut random = Random(14);
    // The second is larger than what is kept encoded.
    for (n, k, m) in [(3, 4, 5), (2, 700, 400)] {
        let (x, c) = (random.integers(n * k, -99, 99), random.integers(k * m, -99, 99));
        let (left, row) = (random.integers(n * n, -99, 99), random.integers(k, -99, 99));
        let mut b = Builder::new();
        let xs = b.input("x", Owner::Client, &format!("i64[{n},{k}]"));
        let shared = b.shared(xs, 36, 0);
        let public = |b: &mut Builder, name: &str, ty: String| {
            let constant = b.constant(name, Owner::Public, &ty);
            b.encode(constant, 40, 0)
        };
        let c_known = public(&mut b, "c", format!("f32[{k},{m}]"));
        let left_known = public(&mut b, "left", format!("i64[{n},{n}]"));
        let row_known = public(&mut b, "row", format!("f32[{k}]"));
        let right = b.matmul(shared, c_known, 36);
        let left_product = b.matmul(left_known, shared, 33);
        let by_row = b.mul(shared, row_known, 30);
        let row_by = b.mul(row_known, shared, 30);
        for (name, value) in [("right", right), ("left", left_product), ("by", row_by), ("row", by_row)] {
            b.reveal(name, value, Target::Both, true);
        }
        let f32s = |data: &[i64]| data.iter().map(|v| *v as f32).collect::<Vec<f32>>();
        let data = Data::default()
            .client("x", i64s(&[n, k], &x))
            .public("c", Tensor::f32([k, m], f32s(&c)).unwrap())
            .public("left", i64s(&[n, n], &left))
            .public("row", Tensor::f32([k], f32s(&row)).unwrap());
        let (outputs, _) = run(&b.finish(), &data);
        assert_eq!(numbers(&outputs, "right"), matmul(&x, &c, [1, n, k, m], false));
        assert_eq!(numbers(&outputs, "left"), matmul(&left, &x, [1, n, n, k], false));
        let rows: Vec<f64> = (0..n * k).map(|i| (x[i] * row[i % k]) as f64).collect();
        assert_eq!(numbers(&outputs, "by"), rows);
        assert_eq!(numbers(&outputs, "row"), rows);
    }
}

#[test]
fn empty_axes_are_no_obstacle() {
    for (n, k, m) in [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)] {
        let mut b = Builder::new();
        let xs = b.input("x", Owner::Client, &format!("f32[{n},{k}]"));
        let w = b.constant("w", Owner::Server, &format!("f32[{k},{m}]"));
        let c = b.constant("c", Owner::Public, &format!("f32[{k},{m}]"));
        let weight = b.weight(w, 30, 4);
        let known = b.encode(xs, 30, 4);
        let public = b.encode(c, 30, 4);
        let sent = b.open(known, Target::Server, 30);
        let private = b.matmul(sent, weight, 30);
        let shared = b.shared(xs, 30, 4);
        let local = b.matmul(shared, public, 30);
        let opened = b.open(local, Target::Both, 30);
        let square = b.push(Instruction::Square(Square { arg: opened, width: 30 }));
        let digits = Digits {
            arg: opened,
            digit_bits: 4,
            thresholds: vec![0, 1],
            low_bits: 0,
            width: 20,
            lowest_bits: 0,
        };
        let digits = b.push(Instruction::Digits(digits));
        let bits = b.open_bits(digits, 9);
        let bit = b.push(Instruction::Compare(Compare { digits, opened: bits }));
        let bit = b.open_bits(bit, 1);
        let bit = b.bit(bit, 0, 8);
        for (name, value) in [("private", private), ("square", square), ("bit", bit)] {
            b.show(name, value);
        }
        let empty = |shape: [usize; 2]| Tensor::f32(shape, vec![1.0; shape.iter().product()]).unwrap();
        let data =
            Data::default().client("x", empty([n, k])).private("w", empty([k, m])).public("c", empty([k, m]));
        let (outputs, _) = run(&b.finish(), &data);
        assert_eq!(numbers(&outputs, "private"), vec![0.0; n * m]);
        assert_eq!(numbers(&outputs, "square"), vec![0.0; n * m]);
        assert_eq!(numbers(&outputs, "bit"), [vec![1.0; n * m], vec![0.0; n * m]].concat());
    }
}
