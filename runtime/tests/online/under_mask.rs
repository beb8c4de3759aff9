//! Public linear work on masked values: products, sums, multiples, truncation, and what they are used for.

use std::thread;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target};
use marill_runtime::bundle::Bundle;
use marill_runtime::error::RunError;
use marill_runtime::session::{run_client, run_dealer, run_server};

use crate::build::Builder;
use crate::run::*;

const ROWS: usize = 5;
const INNER: usize = 7;
const COLUMNS: usize = 24;

/// `(7 (x C + c)) / 8` under the mask of `x`, of 14 fraction bits in 24 bits; and the program's inputs.
fn work(b: &mut Builder, x: u32) -> u32 {
    let matrix = b.constant("matrix", Owner::Public, &format!("f32[{INNER},{COLUMNS}]"));
    let bias = b.constant("bias", Owner::Public, &format!("f32[{COLUMNS}]"));
    let matrix = b.encode(matrix, 48, 12);
    let bias = b.encode(bias, 50, 26);
    let product = b.matmul(x, matrix, 44);
    let sum = b.push(Instruction::Add(Binary { a: product, b: bias }));
    let scaled = b.push(Instruction::Scale(Scale { arg: sum, factor: 7, frac: 3 }));
    let moved = b.movement(&format!("reshape{{shape=[{}]}}", ROWS * COLUMNS), &[scaled]);
    b.truncate(moved, 15)
}

struct Case {
    data: Data,
    expected: Vec<f64>,
}

fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let x = random.reals(ROWS * INNER, -3.0, 3.0, 14);
    let matrix = random.reals(INNER * COLUMNS, -1.0, 1.0, 12);
    let bias = random.reals(COLUMNS, -2.0, 2.0, 26);
    let dot = |i: usize, j: usize| -> f64 {
        (0..INNER).map(|k| f64::from(x[i * INNER + k]) * f64::from(matrix[k * COLUMNS + j])).sum()
    };
    let cell = |at: usize| 0.875 * (dot(at / COLUMNS, at % COLUMNS) + f64::from(bias[at % COLUMNS]));
    let expected = (0..ROWS * COLUMNS).map(cell).collect();
    let data = Data::default()
        .client("x", Tensor::f32([ROWS, INNER], x).unwrap())
        .public("matrix", Tensor::f32([INNER, COLUMNS], matrix).unwrap())
        .public("bias", Tensor::f32([COLUMNS], bias).unwrap());
    Case { data, expected }
}

fn start() -> (Builder, u32) {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, &format!("f32[{ROWS},{INNER}]"));
    let x = b.shared(x, 50, 14);
    let x = b.open(x, Target::Both, 44);
    (b, x)
}

#[test]
fn linear_work_keeps_its_mask() {
    for seed in 1..6 {
        let Case { data, expected } = case(seed);
        let (mut b, x) = start();
        let masked = work(&mut b, x);
        let lifted = b.lift(masked, 40);
        // Another masked value's product with it needs the mask that was never drawn.
        let square = b.push(Instruction::Square(Square { arg: masked, width: 50 }));
        b.show("value", lifted);
        b.show("square", square);
        let (outputs, _) = run(&b.finish(), &data);
        // At most 1.5 units of 2^-14.
        close(&numbers(&outputs, "value"), &expected, 1.6 / 16384.0);
        let squares: Vec<f64> = expected.iter().map(|v| v * v).collect();
        close(&numbers(&outputs, "square"), &squares, 2.0 * 24.0 * 1.6 / 16384.0);
    }
}

/// The dealer multiplies masks by weights of its own copy, which must be there and be the server's.
#[test]
fn the_dealer_needs_the_same_published_weights() {
    let Case { data, .. } = case(3);
    let (mut b, x) = start();
    let masked = work(&mut b, x);
    let lifted = b.lift(masked, 40);
    b.show("value", lifted);
    let program = b.finish();
    let bundles = bundles(&program, &program, &data);
    let dealer_with = |public: Option<&Bundle>| -> RunError {
        let Links { client_server, client_dealer, server_dealer } = links(Duration::from_secs(5));
        thread::scope(|scope| {
            let (client, server) = (data.client.clone(), data.server.clone());
            scope.spawn(|| {
                run_client(&bundles.0, client, client_server.0, Some(client_dealer.0), &mut |_| {})
            });
            scope.spawn(|| {
                run_server(&bundles.1, server, client_server.1, Some(server_dealer.0), &mut |_| {})
            });
            run_dealer(public, client_dealer.1, server_dealer.1, &mut |_| {}).err().unwrap()
        })
    };
    let error = dealer_with(None).to_string();
    assert!(error.contains("--public") && error.contains("a copy of the client's directory"), "{error}");
    let mut public = data.public.clone();
    public.insert("matrix".into(), Tensor::f32([INNER, COLUMNS], vec![0.5; INNER * COLUMNS]).unwrap());
    let other = Bundle::in_memory(program.clone(), public, None);
    let error = dealer_with(Some(&other)).to_string();
    assert!(error.contains("the digest of published weights of the server does not fit"), "{error}");
    let (b, _) = start();
    let other = Bundle::in_memory(b.finish(), data.public.clone(), None);
    let error = dealer_with(Some(&other)).to_string();
    assert!(error.contains("program digest"), "{error}");
}

#[test]
fn functions_of_it_open_nothing() {
    let Case { data, expected } = case(9);
    let (mut b, x) = start();
    let masked = work(&mut b, x);
    let series = b.push(Instruction::Fourier(Fourier {
        arg: masked,
        period_bits: 19,
        constant: 0.5,
        cos: vec![1.0, 0.25],
        sin: vec![0.5, 0.0],
        entry_frac: 18,
        power_frac: 14,
        width: 44,
        window: 0.0,
    }));
    b.show("series", series);
    let program = b.finish();
    let opened =
        (0..program.len()).filter(|&at| matches!(program.instruction(at), Instruction::Open(_))).count();
    // To share x, and x itself.
    assert_eq!(opened, 2);
    let (outputs, _) = run(&program, &data);
    let angle = |x: f64, j: f64| std::f64::consts::TAU * j * x / 32.0;
    let f = |&x: &f64| 0.5 + angle(x, 1.0).cos() + 0.25 * angle(x, 2.0).cos() + 0.5 * angle(x, 1.0).sin();
    close(&numbers(&outputs, "series"), &expected.iter().map(f).collect::<Vec<_>>(), 2e-4);
}
