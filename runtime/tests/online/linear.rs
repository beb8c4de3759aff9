//! Sharing, revealing, sums, movements, truncation, lifts.

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target};

use crate::build::Builder;
use crate::run::*;

fn f32s(shape: &[usize], data: Vec<f32>) -> Tensor {
    Tensor::f32(shape, data).unwrap()
}

fn f64s(data: &[f32]) -> Vec<f64> {
    data.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn sums_of_shares_and_of_values_that_one_party_knows() {
    let mut random = Random(1);
    for owner in [Owner::Client, Owner::Server, Owner::Public] {
        for (k, l, frac) in [(20, 20, 8), (64, 33, 10), (17, 40, 5)] {
            let width = k.min(l);
            let range = f64::from(1u32 << (width - frac - 6).min(10));
            let x = random.reals(6, -range, range, frac);
            let y = random.reals(3, -range, range, frac);
            let mut b = Builder::new();
            let xs = b.input("x", Owner::Client, "f32[2,3]");
            let ys = b.input("y", owner, "f32[3]");
            let shared = b.shared(xs, k, frac);
            let known = b.encode(ys, l, frac);
            let whole = b.push(Instruction::Share(Share { arg: known }));
            let sum = b.push(Instruction::Add(Binary { a: shared, b: known }));
            let difference = b.push(Instruction::Sub(Binary { a: known, b: shared }));
            let both = b.push(Instruction::Add(Binary { a: sum, b: whole }));
            let scaled = b.push(Instruction::Scale(Scale { arg: both, factor: -3, frac: 1 }));
            let total = b.push(Instruction::Sum(Sum { arg: scaled, axis: 0 }));
            b.show("sum", sum);
            b.show("difference", difference);
            b.show("total", total);
            let program = b.finish();
            let mut data = Data::default().client("x", f32s(&[2, 3], x.clone()));
            let y_tensor = f32s(&[3], y.clone());
            if owner != Owner::Server {
                data = data.client("y", y_tensor.clone());
            }
            if owner != Owner::Client {
                data = data.server("y", y_tensor);
            }
            let (outputs, _) = run(&program, &data);
            let (x, y) = (f64s(&x), f64s(&y));
            let at = |i: usize, j: usize| x[3 * i + j];
            let sums: Vec<f64> = (0..6).map(|i| x[i] + y[i % 3]).collect();
            let differences: Vec<f64> = (0..6).map(|i| y[i % 3] - x[i]).collect();
            let totals: Vec<f64> = (0..3).map(|j| -1.5 * (at(0, j) + at(1, j) + 4.0 * y[j])).collect();
            close(&numbers(&outputs, "sum"), &sums, 0.0);
            close(&numbers(&outputs, "difference"), &differences, 0.0);
            close(&numbers(&outputs, "total"), &totals, 0.0);
        }
    }
}

#[test]
fn a_multiple_of_a_power_of_two_has_a_wider_ring() {
    for (k, factor, width) in
        [(2, 1 << 20, 22), (20, 12, 22), (63, 8, 64), (30, -64, 36), (5, 0, 64), (9, 3, 9)]
    {
        let most = (1i64 << (k - 1)) - 1;
        let x = vec![-most - 1, most, 0, -1];
        let mut b = Builder::new();
        let input = b.input("x", Owner::Client, "i64[4]");
        let shared = b.shared(input, k, 0);
        let scaled = b.push(Instruction::Scale(Scale { arg: shared, factor, frac: 0 }));
        // What is opened has the bits above the operand's ring as well.
        let opened = b.open(scaled, Target::Both, width);
        let again = b.lift(opened, width);
        b.reveal("scaled", scaled, Target::Client, true);
        b.reveal("again", again, Target::Client, true);
        let program = b.finish();
        assert_eq!(program.ty(scaled).width(), Some(width), "{k} bits times {factor}");
        let data = Data::default().client("x", Tensor::i64([4], x.clone()).unwrap());
        let (client, _) = run(&program, &data);
        let wrapped = |x: &i64| x.wrapping_mul(factor) << (64 - width) >> (64 - width);
        let expected: Vec<i64> = x.iter().map(wrapped).collect();
        for name in ["scaled", "again"] {
            assert_eq!(client[name], Tensor::i64([4], expected.clone()).unwrap(), "{k} bits times {factor}");
        }
    }
}

#[test]
fn reveals_go_to_whom_they_are_declared_for() {
    for owner in [Owner::Client, Owner::Server] {
        for to in [Target::Client, Target::Server, Target::Both] {
            let mut b = Builder::new();
            let x = b.input("x", owner, "i64[3]");
            let known = b.encode(x, 30, 0);
            let shared = b.shared(x, 30, 0);
            b.reveal("known", known, to, true);
            b.reveal("shared", shared, to, true);
            let program = b.finish();
            let x = Tensor::i64([3], vec![-(1 << 29), 7, (1 << 29) - 1]).unwrap();
            let data = match owner {
                Owner::Client => Data::default().client("x", x.clone()),
                _ => Data::default().server("x", x.clone()),
            };
            let (client, server) = run(&program, &data);
            for (outputs, receives) in [(client, to.includes_client()), (server, to.includes_server())] {
                assert_eq!(outputs.len(), if receives { 2 } else { 0 });
                assert!(outputs.values().all(|found| *found == x), "{owner} {to}");
            }
        }
    }
}

#[test]
fn clear_segments_run_at_their_owner_and_after_reveals() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[2]");
    let gain = b.constant("gain", Owner::Public, "f32[2]");
    let bias = b.constant("bias", Owner::Server, "f32[2]");
    let doubled = b.plain("add", &[gain, gain]);
    let scaled = b.plain("mul", &[x, doubled]);
    let twice = b.plain("add", &[bias, bias]);
    let (scaled, twice) = (b.encode(scaled, 32, 10), b.encode(twice, 40, 10));
    let scaled = b.push(Instruction::Share(Share { arg: scaled }));
    let sum = b.push(Instruction::Add(Binary { a: scaled, b: twice }));
    let revealed = b.push(Instruction::Reveal(Reveal { arg: sum, to: Target::Both as i32, integer: false }));
    b.output("sum", revealed, Target::Both);
    let final_sum = b.plain("add", &[revealed, x]);
    b.output("out", final_sum, Target::Client);
    let data = Data::default()
        .client("x", f32s(&[2], vec![1.5, -2.0]))
        .public("gain", f32s(&[2], vec![2.0, 0.25]))
        .private("bias", f32s(&[2], vec![0.5, 3.0]));
    let (client, server) = run(&b.finish(), &data);
    assert_eq!(numbers(&client, "sum"), [7.0, 5.0]);
    assert_eq!(numbers(&server, "sum"), [7.0, 5.0]);
    assert_eq!(numbers(&client, "out"), [8.5, 3.0]);
    assert!(!server.contains_key("out"));
}

#[test]
fn movements_carry_every_form() {
    let x: Vec<i64> = (0..6).map(|i| 5 - 3 * i).collect();
    let mut b = Builder::new();
    let input = b.input("x", Owner::Client, "i64[2,3]");
    let picks = b.constant("picks", Owner::Public, "i64[4]");
    let places = b.constant("places", Owner::Public, "i64[2]");
    let known = b.encode(input, 20, 0);
    let masked = b.open(known, Target::Both, 20);
    let shared = b.lift(masked, 20);
    let words = b.push(Instruction::BitTable(BitTable {
        arg: masked,
        low_bits: 0,
        index_bits: 6,
        tables: vec![0x0123_4567_89ab_cdef, !0 << 32],
    }));
    let bits = b.open_bits(words, 2);
    for (form, value) in
        [("known", known), ("masked", masked), ("shared", shared), ("words", words), ("bits", bits)]
    {
        let turned = b.movement("transpose{perm=[1,0]}", &[value]);
        let flat = b.movement("reshape{shape=[6]}", &[turned]);
        let picked = b.movement("gather{axis=0}", &[flat, picks]);
        let joined = b.movement("concat{axis=0}", &[picked, flat]);
        let result = match form {
            "masked" => b.lift(joined, 20),
            "words" => {
                let opened = b.open_bits(joined, 2);
                b.bit(opened, 0, 20)
            }
            "bits" => b.bit(joined, 0, 20),
            _ => joined,
        };
        b.reveal(form, result, Target::Client, true);
    }
    for (form, value) in [("placed", shared), ("placed_masked", masked)] {
        let placed = b.push(Instruction::Place(Place { arg: value, indices: places, axis: 0, size: 4 }));
        let result = if form == "placed" { placed } else { b.lift(placed, 20) };
        b.reveal(form, result, Target::Client, true);
    }
    let data = Data::default()
        .client("x", Tensor::i64([2, 3], x.clone()).unwrap())
        .public("picks", Tensor::i64([4], vec![5, 0, -1, 2]).unwrap())
        .public("places", Tensor::i64([2], vec![3, 1]).unwrap());
    let program = b.finish();
    let bit = |v: i64| f64::from((0x0123_4567_89ab_cdefu64 >> (v as u64 % 64)) as u32 & 1);
    for _ in 0..4 {
        let (outputs, _) = run(&program, &data);
        let flat = [x[0], x[3], x[1], x[4], x[2], x[5]];
        let expected: Vec<f64> =
            [5, 0, 5, 2, 0, 1, 2, 3, 4, 5].iter().map(|&i: &usize| flat[i] as f64).collect();
        for form in ["known", "masked", "shared"] {
            assert_eq!(numbers(&outputs, form), expected, "{form}");
        }
        let expected: Vec<f64> = expected.iter().map(|&v| bit(v as i64)).collect();
        for form in ["words", "bits"] {
            assert_eq!(numbers(&outputs, form), expected, "{form}");
        }
        let row = |i: usize| [x[3 * i] as f64, x[3 * i + 1] as f64, x[3 * i + 2] as f64];
        let expected = [[0.0; 3], row(1), [0.0; 3], row(0)].concat();
        assert_eq!(numbers(&outputs, "placed"), expected);
        assert_eq!(numbers(&outputs, "placed_masked"), expected);
    }
}

#[test]
fn truncation_is_within_one_unit_and_unbiased() {
    let mut random = Random(3);
    for (width, frac, shift) in [(20, 12, 7), (64, 40, 33), (33, 8, 8), (30, 10, 1), (30, 10, 0)] {
        let count = 4000;
        let limit = 1i64 << (width - 3).min(22);
        let integers = random.integers(count, -limit, limit);
        let one = 2f64.powi(frac as i32);
        let x: Vec<f32> = integers.iter().map(|v| (*v as f64 / one) as f32).collect();
        let mut b = Builder::new();
        let input = b.input("x", Owner::Client, &format!("f32[{count}]"));
        let shared = b.shared(input, width, frac);
        let short = b.truncate(shared, shift);
        b.show("out", short);
        let found = out(&b.finish(), &Data::default().client("x", f32s(&[count], x.clone())));
        let unit = 2f64.powi(shift as i32 - frac as i32);
        let expected = f64s(&x);
        if shift == 0 {
            close(&found, &expected, 0.0);
            continue;
        }
        close(
            &found,
            &expected,
            unit * (1.0 - 2f64.powi(-(shift as i32)) + 1e-12) + unit * 2f64.powi(-(shift as i32)),
        );
        let bias: f64 = found.iter().zip(&expected).map(|(f, e)| (f - e) / unit).sum::<f64>() / count as f64;
        let allowed = 2f64.powi(-(shift as i32)) + 5.0 * 0.5 / (count as f64).sqrt();
        assert!(bias.abs() < allowed, "bias {bias} of a unit at shift {shift}");
    }
}

#[test]
fn lifts_are_exact_up_to_the_edges() {
    let mut random = Random(4);
    for (k, w) in [(3, 4), (8, 8), (8, 9), (12, 40), (18, 64), (30, 31)] {
        let limit = (1i64 << (k - 2)) - 1;
        let x = random.integers(500, -limit, limit);
        let mut b = Builder::new();
        let input = b.input("x", Owner::Server, "i64[500]");
        let masked = b.masked(input, k, 0);
        let wide = b.lift(masked, w);
        b.reveal("out", wide, Target::Client, true);
        let program = b.finish();
        for _ in 0..3 {
            let found = out(&program, &Data::default().server("x", Tensor::i64([500], x.clone()).unwrap()));
            close(&found, &x.iter().map(|v| *v as f64).collect::<Vec<_>>(), 0.0);
        }
    }
}
