//! Whole programs: the run against the clear-text interpretation, and large streams.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::interpret::interpret;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::error::Role;
use marill_runtime::transport::{Channel, Ends, Listener, Protection, Timeouts, connect};

use crate::build::Builder;
use crate::run::*;

/// A layer of everything: a private product, a comparison that selects, a series, a table, products, a reveal.
fn layer(rows: usize) -> (ValidProgram, Data) {
    let mut random = Random(31);
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, &format!("f32[{rows},24]"));
    let w = b.constant("w", Owner::Server, "f32[24,16]");
    let bias = b.constant("bias", Owner::Server, "f32[16]");
    let weight = b.weight(w, 40, 14);
    let bias = b.encode(bias, 40, 26);
    let known = b.encode(x, 40, 12);
    let sent = b.open(known, Target::Server, 40);
    let product = b.matmul(sent, weight, 40);
    let sum = b.push(Instruction::Add(Binary { a: product, b: bias }));
    let short = b.truncate(sum, 14);
    let h = b.open(short, Target::Both, 18);
    // h where h >= -1, else 0.
    let digits = b.push(Instruction::Digits(Digits {
        arg: h,
        digit_bits: 4,
        lowest_bits: 0,
        thresholds: vec![-(1 << 12)],
        low_bits: 0,
        width: 18,
    }));
    let count = 17u32.div_ceil(4);
    let opened = b.open_bits(digits, 2 * count - 1);
    let bit = b.push(Instruction::Compare(Compare { digits, opened }));
    let flat = b.movement(&format!("reshape{{shape=[{rows},16]}}"), &[bit]);
    let bits = b.open_bits(flat, 1);
    let kept = b.push(Instruction::BitProduct(BitProduct { bits, bit: 0, arg: h, width: 30 }));
    let series = b.push(Instruction::Fourier(Fourier {
        arg: h,
        period_bits: 16,
        constant: 0.25,
        cos: vec![0.5, 0.125],
        sin: vec![-1.0, 0.25],
        entry_frac: 14,
        power_frac: 14,
        width: 38,
        window: 0.0,
    }));
    let series = b.truncate(series, 16);
    let both = b.push(Instruction::Add(Binary { a: kept, b: series }));
    let turned = b.movement("transpose{perm=[1,0]}", &[both]);
    let (left, right) = (b.open(both, Target::Both, 22), b.open(turned, Target::Both, 22));
    let left = b.lift(left, 40);
    let right = b.lift(right, 40);
    let (left, right) = (b.open(left, Target::Both, 40), b.open(right, Target::Both, 40));
    let scores = b.matmul(left, right, 40);
    let scores = b.truncate(scores, 12);
    b.show("out", scores);
    let data = Data::default()
        .client("x", Tensor::f32([rows, 24], random.reals(rows * 24, -1.0, 1.0, 12)).unwrap())
        .private("w", Tensor::f32([24, 16], random.reals(24 * 16, -0.75, 0.75, 14)).unwrap())
        .private("bias", Tensor::f32([16], random.reals(16, -1.0, 1.0, 20)).unwrap());
    (b.finish(), data)
}

#[test]
fn a_run_is_the_interpretation_up_to_carries() {
    let (program, data) = layer(9);
    let constants: BTreeMap<String, Tensor> = data.private.clone();
    let clear = interpret(&program, &data.client, &mut |name| Ok(constants[name].clone())).unwrap();
    assert!(
        clear.headroom.iter().all(|h| h.spare_bits >= 0.0),
        "the test's own ranges: {:?}",
        clear.headroom
    );
    let expected = numbers(&clear.outputs, "out");
    let largest = expected.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
    let unit = 2f64.powi(-12);
    for _ in 0..5 {
        let found = out(&program, &data);
        // Each of the 16 summands has two factors, each off by at most two units (a carry, and what it does to the
        // series, whose slope is below 2) and the threshold's jump of 1, which these inputs stay clear of.
        close(&found, &expected, unit * (1.0 + 16.0 * 2.0 * 4.0 * largest.sqrt().max(4.0)));
    }
}

#[test]
fn two_runs_of_one_input_differ_in_shares_only() {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "i64[64]");
    let value = b.masked(x, 12, 0);
    let square = b.push(Instruction::Square(Square { arg: value, width: 24 }));
    b.reveal("out", square, Target::Both, true);
    let program = b.finish();
    let x: Vec<i64> = (-32..32).map(|v| v * 31).collect();
    let data = Data::default().client("x", Tensor::i64([64], x.clone()).unwrap());
    let expected: Vec<f64> = x.iter().map(|v| (v * v) as f64).collect();
    for _ in 0..20 {
        let (client, server) = run(&program, &data);
        assert_eq!(numbers(&client, "out"), expected);
        assert_eq!(numbers(&server, "out"), expected);
    }
}

/// 40,000 elements: more than one block per worker and more than one message per instruction; and a weight of
/// several messages.
fn many() -> (ValidProgram, Data, Vec<i64>) {
    let count = 40_000;
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, &format!("i64[{count}]"));
    let value = b.masked(x, 13, 0);
    let table = b.push(Instruction::Table(Table {
        arg: value,
        low_bits: 7,
        index_bits: 6,
        basis: Basis::Monomials as i32,
        degree: 0,
        coefficients: (0..64).map(f64::from).collect(),
        entry_frac: 0,
        power_frac: 0,
        exponent_log2: 0,
        width: 9,
    }));
    let digits = b.push(Instruction::Digits(Digits {
        arg: value,
        digit_bits: 4,
        lowest_bits: 0,
        thresholds: vec![100],
        low_bits: 0,
        width: 13,
    }));
    let opened = b.open_bits(digits, 5);
    let bit = b.push(Instruction::Compare(Compare { digits, opened }));
    let bit = b.open_bits(bit, 1);
    let bit = b.bit(bit, 0, 2);
    b.reveal("table", table, Target::Client, true);
    b.reveal("bit", bit, Target::Client, true);
    let w = b.constant("w", Owner::Server, "f32[400,1000]");
    let weight = b.weight(w, 37, 3);
    let rows = b.plain("reshape{shape=[100,400]}", &[x]);
    let known = b.encode(rows, 37, 0);
    let sent = b.open(known, Target::Server, 37);
    let product = b.matmul(sent, weight, 37);
    b.show("product", product);
    let x: Vec<i64> = Random(32).integers(count, -2000, 2000);
    let data = Data::default()
        .client("x", Tensor::i64([count], x.clone()).unwrap())
        .private("w", Tensor::f32([400, 1000], vec![0.125; count * 10]).unwrap());
    (b.finish(), data, x)
}

fn check_many(outputs: &Tensors, x: &[i64]) {
    let sums = x.chunks(400).map(|row| row.iter().sum::<i64>() as f64 / 8.0);
    let products: Vec<f64> = sums.flat_map(|sum| [sum; 1000]).collect();
    close(&numbers(outputs, "product"), &products, 0.01);
    for (i, ((x, piece), bit)) in
        x.iter().zip(numbers(outputs, "table")).zip(numbers(outputs, "bit")).enumerate()
    {
        let floor = (x >> 7).rem_euclid(64);
        assert!([floor, (floor + 1) % 64].contains(&(piece as i64)), "element {i}: piece {piece} of {x}");
        assert_eq!(bit, f64::from(*x >= 100), "element {i}: {x}");
    }
}

#[test]
fn corrections_and_weights_of_many_chunks() {
    let (program, data, x) = many();
    check_many(&run(&program, &data).0, &x);
}

/// Both ends of a connection over the loopback interface.
fn tcp(first: Role, second: Role) -> (Channel, Channel) {
    let (ends, back) = (Ends { me: first, peer: second }, Ends { me: second, peer: first });
    let (listener, timeouts) = (Listener::bind("127.0.0.1:0", back).unwrap(), Timeouts::default());
    let address = listener.address().to_string();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept(back, &Protection::Plain, &timeouts).unwrap());
        let connected = connect(&address, ends, &Protection::Plain, &timeouts).unwrap();
        (connected, accepted.join().unwrap())
    })
}

#[test]
fn sockets_with_finite_buffers_do_not_deadlock() {
    let (program, data, x) = many();
    let links = Links {
        client_server: tcp(Role::Client, Role::Server),
        client_dealer: tcp(Role::Client, Role::Dealer),
        server_dealer: tcp(Role::Server, Role::Dealer),
    };
    let run = run_over(links, &bundles(&program, &program, &data), &data);
    run.dealer.unwrap();
    run.server.unwrap();
    check_many(&run.client.unwrap().0, &x);
}

/// The time of clear instructions counts at the parties that run them, before a run, at setup and online.
#[test]
fn clear_instructions_are_timed_where_they_run() {
    let program = |is_public: bool| {
        let mut b = Builder::new();
        let w = b.constant("w", Owner::Public, "f32[200,200]");
        let turned = b.plain("transpose{perm=[1,0]}", &[w]);
        let square = b.plain("mat_mul", &[w, turned]);
        let x = b.input("x", Owner::Client, "f32[200,200]");
        let y = b.plain("mat_mul", &[x, square]);
        b.output("y", if is_public { square } else { y }, Target::Client);
        b.finish()
    };
    let ones = Tensor::f32([200, 200], vec![1.0; 40_000]).unwrap();
    let data = Data::default().client("x", ones.clone()).public("w", ones);
    for is_public in [false, true] {
        let program = program(is_public);
        let begin = std::time::Instant::now();
        let run = run_over(links(Duration::from_secs(30)), &bundles(&program, &program, &data), &data);
        let ((outputs, client), (_, server)) = (run.client.unwrap(), run.server.unwrap());
        let expected = if is_public { 200.0 } else { 40_000.0 };
        assert!(numbers(&outputs, "y").iter().all(|&y| y == expected));
        let (at_client, at_server) = (client.plaintext_seconds.unwrap(), server.plaintext_seconds.unwrap());
        assert!(at_client > 0.0 && at_server > 0.0, "setup is at both");
        let all = begin.elapsed().as_secs_f64();
        assert!(at_client < all && at_server < all, "{at_client} and {at_server} of {all}");
        assert_eq!(run.dealer.unwrap().plaintext_seconds, None);
    }
}
