//! Tables, series, bits, comparisons, one-hot vectors.

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target};

use crate::build::Builder;
use crate::run::*;

const COUNT: usize = 600;

fn client(x: &[f32]) -> Data {
    Data::default().client("x", Tensor::f32([x.len()], x.to_vec()).unwrap())
}

fn client_integers(x: &[i64]) -> Data {
    Data::default().client("x", Tensor::i64([x.len()], x.to_vec()).unwrap())
}

/// A masked input `x` of `count` f32 elements.
fn masked(b: &mut Builder, count: usize, width: u32, frac: u32) -> u32 {
    let input = b.input("x", Owner::Client, &format!("f32[{count}]"));
    b.masked(input, width, frac)
}

#[test]
fn tables_of_every_degree() {
    // f(x) = x^3 / 8 - x on [-4, 4), Taylor pieces of length 1/2 around their left ends, ring of 3 + 9 bits.
    let (low_bits, index_bits, frac) = (8, 4, 9);
    let derivatives = |x: f64| [x * x * x / 8.0 - x, 3.0 * x * x / 8.0 - 1.0, 3.0 * x / 8.0, 1.0 / 8.0];
    let mut random = Random(21);
    for degree in 0..=3usize {
        let mut coefficients = Vec::new();
        for piece in 0..16 {
            let start = f64::from(if piece < 8 { piece } else { piece - 16 }) / 2.0;
            let scale = |e: usize, c: f64| c * 0.5f64.powi(e as i32);
            coefficients.extend(derivatives(start)[..=degree].iter().enumerate().map(|(e, c)| scale(e, *c)));
        }
        let x = random.reals(COUNT, -3.5, 3.4, frac);
        for (width, power_frac) in [(12, 12), (20, 5)] {
            let mut b = Builder::new();
            let value = masked(&mut b, COUNT, width, frac);
            let result = b.push(Instruction::Table(Table {
                arg: value,
                low_bits,
                index_bits,
                basis: Basis::Monomials as i32,
                degree: degree as u32,
                coefficients: coefficients.clone(),
                entry_frac: 16,
                power_frac,
                exponent_log2: 0,
                width: 44,
            }));
            b.show("out", result);
            let found = out(&b.finish(), &client(&x));
            for (x, found) in x.iter().zip(&found) {
                let x = f64::from(*x);
                // Either of the two pieces; what degrees are left out is the Taylor remainder.
                let at = |start: f64| {
                    let d = x - start;
                    derivatives(start)[..=degree]
                        .iter()
                        .enumerate()
                        .map(|(e, c)| c * d.powi(e as i32))
                        .sum::<f64>()
                };
                let piece = (x * 2.0).floor() / 2.0;
                let next = if piece >= 3.5 { -4.0 } else { piece + 0.5 };
                let error = (found - at(piece)).abs().min((found - at(next)).abs());
                // Each power is short by less than 2^-power_frac per factor, each entry by half of 2^-16.
                let bound =
                    8.0 * 2f64.powi(-16) + 12.0 * 2f64.powi(-(power_frac as i32)) * f64::from(degree > 0);
                assert!(error <= bound, "degree {degree}, f({x}) = {found}, error {error}");
            }
        }
    }
}

#[test]
fn exponential_tables() {
    let mut random = Random(22);
    for (exponent_log2, entry_frac, power_frac) in [(0, 18, 18), (2, 20, 15), (4, 36, 15)] {
        // e^(x - 7 length) for x in [0, 7 length): pieces of that length.
        let length = f64::from(1 << exponent_log2);
        let x = random.reals(COUNT, 0.0, 7.0 * length, 12);
        let mut b = Builder::new();
        let value = masked(&mut b, COUNT, 20, 12);
        let coefficients: Vec<f64> = (0..8).map(|p| ((f64::from(p) - 7.0) * length).exp()).collect();
        let result = b.push(Instruction::Table(Table {
            arg: value,
            low_bits: 12 + exponent_log2,
            index_bits: 3,
            basis: Basis::Exponential as i32,
            degree: 0,
            coefficients,
            entry_frac,
            power_frac,
            exponent_log2,
            width: entry_frac + power_frac + 3,
        }));
        b.show("out", result);
        let found = out(&b.finish(), &client(&x));
        for (x, found) in x.iter().zip(&found) {
            let expected = (f64::from(*x) - 7.0 * length).exp();
            let error = (found - expected).abs();
            assert!(error < 3e-5 + 3e-4 * expected, "e^({x} - 7 {length}) = {found}, not {expected}");
        }
    }
}

#[test]
fn series_with_short_and_long_periods() {
    let mut random = Random(23);
    // The first period is tabulated, the second is not.
    for (period_bits, frac, count) in [(8, 4, COUNT), (16, 12, COUNT), (18, 14, 7)] {
        for width in [period_bits, 30] {
            let x = random.reals(count, -6.0, 6.0, frac);
            let (cos, sin) = (vec![1.5, -0.25, 0.125], vec![0.5, 0.0, -2.0]);
            let mut b = Builder::new();
            let value = masked(&mut b, count, width, frac);
            let result = b.push(Instruction::Fourier(Fourier {
                arg: value,
                period_bits,
                constant: 0.75,
                cos: cos.clone(),
                sin: sin.clone(),
                entry_frac: 20,
                power_frac: 16,
                width: 45,
                window: 0.0,
            }));
            b.show("out", result);
            let found = out(&b.finish(), &client(&x));
            let expected: Vec<f64> = x
                .iter()
                .map(|x| {
                    let w =
                        std::f64::consts::TAU * f64::from(*x) * 2f64.powi(frac as i32 - period_bits as i32);
                    let terms = cos.iter().zip(&sin).enumerate();
                    terms.fold(0.75, |sum, (j, (c, s))| {
                        let angle = w * (j + 1) as f64;
                        sum + c * angle.cos() + s * angle.sin()
                    })
                })
                .collect();
            close(&found, &expected, 6.0 * (2f64.powi(-16) + 4.5 * 2f64.powi(-20)));
        }
    }
}

#[test]
fn truth_tables_and_what_follows_from_bits() {
    let mut random = Random(24);
    for (width, low_bits, index_bits) in [(6, 0, 6), (8, 0, 3), (9, 0, 8), (9, 3, 1), (12, 4, 8), (10, 5, 5)]
    {
        let words = (1usize << index_bits).div_ceil(64);
        let count = 300;
        let tables: Vec<u64> = (0..3 * words).map(|_| random.next()).collect();
        let limit = (1i64 << (width - 2)) - 1;
        let x = random.integers(count, -limit, limit);
        let mut b = Builder::new();
        let input = b.input("x", Owner::Client, &format!("i64[{count}]"));
        let value = b.masked(input, width, 0);
        let table = BitTable { arg: value, low_bits, index_bits, tables: tables.clone() };
        let word = b.push(Instruction::BitTable(table));
        let bits = b.open_bits(word, 3);
        for t in 0..3 {
            let bit = b.bit(bits, t, 10);
            b.reveal(&format!("bit {t}"), bit, Target::Client, true);
            for w in [width - 1, width, width + 5, 64] {
                let product =
                    b.push(Instruction::BitProduct(BitProduct { bits, bit: t, arg: value, width: w }));
                b.reveal(&format!("product {t} {w}"), product, Target::Client, true);
            }
        }
        let program = b.finish();
        for _ in 0..3 {
            let (outputs, _) = run(&program, &client_integers(&x));
            for t in 0..3usize {
                let found = numbers(&outputs, &format!("bit {t}"));
                let bit = |v: i64| {
                    let p = v.rem_euclid(1 << index_bits) as usize;
                    f64::from((tables[t * words + p / 64] >> (p % 64)) as u32 & 1)
                };
                for (x, found) in x.iter().zip(&found) {
                    let piece = x >> low_bits;
                    let soft = low_bits > 0 && *found == bit(piece + 1);
                    assert!(*found == bit(piece) || soft, "table {t} at {x} is {found}");
                }
                for w in [width - 1, width, width + 5, 64] {
                    let products: Vec<f64> = x.iter().zip(&found).map(|(x, b)| *x as f64 * b).collect();
                    assert_eq!(numbers(&outputs, &format!("product {t} {w}")), products, "{w} bits");
                }
            }
        }
    }
}

#[test]
fn lines_over_pieces() {
    let mut random = Random(26);
    // Where the operand's ring is narrower than the result's it is lifted.
    for (width, low_bits, index_bits, step_bits, to, shift) in [
        (12, 4, 6, 2, 12, 0),
        (12, 4, 6, 4, 10, 3),
        (16, 7, 8, 3, 14, 2),
        (9, 3, 3, 0, 20, 4),
        (11, 4, 7, 1, 40, 6),
        (10, 0, 8, 0, 24, 5),
    ] {
        let (count, slope_bits) = (400, 5);
        let lines = 1usize << (index_bits + step_bits);
        let slopes: Vec<u64> = (0..lines).map(|_| random.next() % 32).collect();
        let intercepts = random.integers(lines, -300, 300);
        // The pieces are not all of the ring: what is beyond takes some line of theirs.
        let limit = (1i64 << (width - 2)) - 1;
        let x = random.integers(count, -limit, limit);
        let mut b = Builder::new();
        let input = b.input("x", Owner::Client, &format!("i64[{count}]"));
        let value = b.masked(input, width, 0);
        let value_bits = to - shift;
        let words = b.push(Instruction::Lines(Lines {
            arg: value,
            low_bits,
            index_bits,
            step_bits,
            slopes: slopes.clone(),
            intercepts: intercepts.clone(),
            slope_bits,
            value_bits,
            shift,
        }));
        let bits = b.open_bits(words, slope_bits + value_bits);
        let upper = b.push(Instruction::BitToArithmetic(BitToArithmetic {
            bits,
            bit: slope_bits,
            width: value_bits,
            count: value_bits,
        }));
        let upper = b.push(Instruction::Scale(Scale { arg: upper, factor: 1 << shift, frac: 0 }));
        let masked = b.push(Instruction::MaskProduct(MaskProduct {
            bits,
            bit: 0,
            count: slope_bits,
            arg: value,
            width: to,
        }));
        let line = b.push(Instruction::Sub(Binary { a: upper, b: masked }));
        b.reveal("out", line, Target::Client, true);
        let program = b.finish();
        let pieces = 1i64 << index_bits;
        for _ in 0..3 {
            let found = out(&program, &client_integers(&x));
            for (x, found) in x.iter().zip(&found) {
                // Any version of any piece that may say so; all of them are left where there is one argument to a piece.
                let part = 2f64.powi(-(step_bits as i32));
                let position = *x as f64 / 2f64.powi(low_bits as i32);
                let may_be = |version: i64, piece: i64| {
                    let end = piece as f64 + (version + 1) as f64 * part;
                    (low_bits == 0 && piece == *x)
                        || (end - part - 1.0 - 1.0 / 16.0 < position && position < end)
                };
                let nearest = position.floor() as i64;
                let candidates = (0..1i64 << step_bits)
                    .flat_map(|version| (nearest..nearest + 3).map(move |piece| (version, piece)))
                    .filter(|(version, piece)| may_be(*version, *piece));
                let ring = 2f64.powi(to as i32);
                let is_right = |(version, piece): (i64, i64)| {
                    let at = (version << index_bits) as usize + piece.rem_euclid(pieces) as usize;
                    let exact = (intercepts[at] + slopes[at] as i64 * x) as f64;
                    (0..1i64 << shift).any(|dropped| (exact - dropped as f64 - found).rem_euclid(ring) == 0.0)
                };
                let mut right = candidates.filter(|candidate| is_right(*candidate));
                assert!(right.next().is_some(), "{width} {low_bits} {to}: {x} becomes {found}");
            }
        }
    }
}

/// `x >= t` for every threshold and element, and how the run must answer.
fn compare(
    (width, low_bits, compared): (u32, u32, u32),
    (digit_bits, lowest_bits): (u32, u32),
    random: &mut Random,
) {
    // |x / 2^low_bits - t| must stay below 2^(compared - 1), also one higher, and another where x counts as a 16th more.
    let reach = (1i64 << (compared - 1)) - 1 - i64::from(low_bits > 0);
    let small = (reach / 4).min(3);
    let thresholds = vec![0, small, -small];
    let (low, high) = if compared == 2 { (0, 0) } else { (-(reach - small - 1), reach - small - 1) };
    let (low, high) =
        (low.max(i64::MIN >> (64 - width + low_bits)), high.min(i64::MAX >> (64 - width + low_bits)));
    let mut x = random.integers(400, low << low_bits, (high << low_bits) + ((1 << low_bits) - 1));
    for (i, t) in thresholds.iter().enumerate() {
        for (j, d) in [-1, 0, 1].into_iter().enumerate() {
            x[10 + 3 * i + j] = ((t + d) << low_bits).clamp(low << low_bits, high << low_bits);
        }
    }
    let mut b = Builder::new();
    let input = b.input("x", Owner::Client, "i64[400]");
    let value = b.masked(input, width, 0);
    let digits = b.push(Instruction::Digits(Digits {
        arg: value,
        digit_bits,
        lowest_bits,
        thresholds: thresholds.clone(),
        low_bits,
        width: compared,
    }));
    let lowest = if lowest_bits == 0 { digit_bits } else { lowest_bits };
    let count = 1 + (compared - 1).saturating_sub(lowest).div_ceil(digit_bits);
    let opened = b.open_bits(digits, 2 * count - 1);
    let bit = b.push(Instruction::Compare(Compare { digits, opened }));
    let bit = b.open_bits(bit, 1);
    let bit = b.bit(bit, 0, 8);
    b.reveal("out", bit, Target::Client, true);
    let program = b.finish();
    for _ in 0..3 {
        let found = out(&program, &client_integers(&x));
        for (i, t) in thresholds.iter().enumerate() {
            for (x, found) in x.iter().zip(&found[400 * i..]) {
                let floor = x >> low_bits;
                let (exact, soft) = (f64::from(floor >= *t), f64::from(low_bits > 0 && floor + 1 >= *t));
                assert!(
                    *found == exact || (low_bits > 0 && *found == soft),
                    "{x} >= {t} is {found} for {compared} of {width} bits in digits of {digit_bits}"
                );
            }
        }
    }
}

#[test]
fn comparisons_with_every_number_of_digits() {
    let mut random = Random(25);
    for (width, low_bits, compared) in [
        (2, 0, 2),
        (3, 0, 3),
        (5, 0, 5),
        (8, 0, 8),
        (13, 0, 13),
        (20, 0, 20),
        (22, 0, 22),
        (29, 0, 29),
        (36, 0, 36),
        (40, 0, 20),
        (20, 7, 13),
        (30, 10, 12),
        (64, 30, 30),
    ] {
        for digit_bits in 1..=5 {
            if (compared - 1u32).div_ceil(digit_bits) <= 7 {
                compare((width, low_bits, compared), (digit_bits, 0), &mut random);
            }
        }
    }
}

#[test]
fn comparisons_with_a_lowest_digit_of_its_own_size() {
    let mut random = Random(27);
    for (widths, digits) in [
        ((20, 7, 13), (3, 7)),
        ((30, 10, 12), (3, 9)),
        ((13, 0, 13), (2, 6)),
        ((22, 0, 22), (5, 8)),
        ((10, 2, 8), (3, 7)),
        ((24, 9, 10), (3, 1)),
    ] {
        compare(widths, digits, &mut random);
    }
}

#[test]
fn one_hot_vectors() {
    let mut random = Random(26);
    for (bits, depth) in [(1, 2), (3, 5), (3, 8), (10, 1000)] {
        let x = random.integers(40, 0, (1 << bits) - 1);
        // The index is unsigned, the encoding signed.
        let signed = |v: i64| if v >= 1 << (bits - 1) { v - (1 << bits) } else { v };
        let indices: Vec<i64> = x.iter().map(|v| signed(*v)).collect();
        let mut b = Builder::new();
        let input = b.input("x", Owner::Client, "i64[40]");
        let value = b.masked(input, bits, 0);
        let hot = b.push(Instruction::OneHot(OneHot { arg: value, depth, width: 17 }));
        b.reveal("out", hot, Target::Client, true);
        let found = out(&b.finish(), &client_integers(&indices));
        let expected = x.iter().flat_map(|v| (0..depth).map(move |d| f64::from(*v == d as i64)));
        assert_eq!(found, expected.collect::<Vec<f64>>());
    }
}

#[test]
fn exclusive_or_of_bits() {
    // Pieces of one unit, so that nothing is soft: whether x is odd, and whether it is negative.
    let tables = [0b1010_1010u64, 0b1111_0000];
    let x: Vec<i64> = (0..64).map(|i| i % 8 - 4).collect();
    let mut b = Builder::new();
    let input = b.input("x", Owner::Client, "i64[64]");
    let value = b.masked(input, 3, 0);
    let [odd, negative] = tables.map(|table| {
        b.push(Instruction::BitTable(BitTable {
            arg: value,
            low_bits: 0,
            index_bits: 3,
            tables: vec![table],
        }))
    });
    let either = b.push(Instruction::Add(Binary { a: odd, b: negative }));
    let bits = b.open_bits(either, 1);
    let bit = b.bit(bits, 0, 10);
    b.reveal("y", bit, Target::Client, true);
    let expected: Vec<f64> = x.iter().map(|x| f64::from((x % 2 != 0) != (*x < 0))).collect();
    let (outputs, _) = run(&b.finish(), &client_integers(&x));
    assert_eq!(numbers(&outputs, "y"), expected);
}
