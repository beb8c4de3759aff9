//! Programs that nobody should refuse: one that has every instruction, and the smallest.

use marill_program::flow::{Consent, check};
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

use crate::build::{Builder, I};

/// `y = x w` for the client's `x` and the server's `w`.
pub fn product() -> Builder {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[1,4]");
    let w = b.constant("w", Owner::Server, "f32[4,3]");
    let (w, x) = (b.weight(w), b.encode(x));
    let x = b.open(x, Target::Server);
    let y = b.matmul(x, w);
    b.reveal("y", y, Target::Client);
    b
}

/// Every kind of instruction, and outputs to everybody.
pub fn everything() -> Builder {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[1,4]");
    let index = b.input("index", Owner::Client, "i64[4]");
    let s = b.input("s", Owner::Server, "f32[1,4]");
    let p = b.input("p", Owner::Public, "f32[1,4]");
    let w = b.constant("w", Owner::Server, "f32[4,3]");
    let gain = b.constant("gain", Owner::Public, "f32[1,4]");
    let places = b.constant("places", Owner::Public, "i64[4]");
    let scaled = b.plain("mul", &[x, gain]);
    let doubled = b.plain("add", &[w, w]);
    let x = b.shared(scaled);
    let (s, p) = (b.encode(s), b.encode(p));
    let sum = b.add(x, s);
    let sum = b.push(I::Sub(Binary { a: sum, b: p }));
    let sum = b.push(I::Scale(Scale { arg: sum, factor: 3, frac: 1 }));
    let gain = b.encode(gain);
    let weighted = b.mul(sum, gain);
    let narrow = b.push(I::Truncate(Truncate { arg: weighted, shift: 11 }));
    let flat = b.movement("reshape{shape=[4]}", &[narrow]);
    let masked = b.push(I::Open(Open { arg: flat, to: Target::Both as i32, width: 29 }));
    let wide = b.lift(masked);
    let squares = b.push(I::SquareSum(SquareSum { arg: masked, width: 20 }));
    let square = b.push(I::Square(Square { arg: masked, width: 40 }));
    let picked = b.movement("gather{axis=0}", &[masked, places]);
    let both = b.mul(masked, picked);
    let table = b.push(I::Table(Table {
        arg: masked,
        low_bits: 4,
        index_bits: 2,
        basis: Basis::Monomials as i32,
        degree: 1,
        coefficients: vec![0.5; 8],
        entry_frac: 10,
        power_frac: 10,
        exponent_log2: 0,
        width: 40,
    }));
    let under_mask = under_mask(&mut b, masked);
    b.reveal("under_mask", under_mask, Target::Client);
    let waves = b.push(I::Fourier(Fourier {
        arg: masked,
        period_bits: 8,
        constant: 1.0,
        cos: vec![0.5],
        sin: vec![0.25],
        entry_frac: 10,
        power_frac: 10,
        width: 40,
        window: 0.0,
    }));
    let bits = b.push(I::BitTable(BitTable { arg: masked, low_bits: 4, index_bits: 2, tables: vec![5] }));
    let bits = b.open_bits(bits, 1);
    let chosen = b.push(I::BitProduct(BitProduct { bits, bit: 0, arg: masked, width: 40 }));
    let lines = b.push(I::Lines(Lines {
        arg: masked,
        low_bits: 4,
        index_bits: 1,
        step_bits: 0,
        slopes: vec![0, 3],
        intercepts: vec![-5, 7],
        slope_bits: 2,
        value_bits: 20,
        shift: 0,
    }));
    let line = b.open_bits(lines, 22);
    let line = b.push(I::MaskProduct(MaskProduct { bits: line, bit: 0, count: 2, arg: masked, width: 40 }));
    let digits = b.digits(masked);
    let lower = b.open_bits(digits, 9);
    let above = b.push(I::Compare(Compare { digits, opened: lower }));
    let above = b.open_bits(above, 1);
    let above = b.bit(above);
    let known = b.integers(index);
    let index = b.push(I::Open(Open { arg: known, to: Target::Both as i32, width: 3 }));
    let hot = b.push(I::OneHot(OneHot { arg: index, depth: 8, width: 40 }));
    let hot = b.push(I::Sum(Sum { arg: hot, axis: 1 }));
    let placed = b.place(wide, places);
    let sent = b.open(wide, Target::Server);
    let row = b.movement("reshape{shape=[1,4]}", &[sent]);
    let weight = b.weight(doubled);
    let product = b.matmul(row, weight);
    for (name, value) in [("square", square), ("both", both), ("table", table), ("waves", waves)] {
        b.reveal(name, value, Target::Client);
    }
    b.reveal("line", line, Target::Client);
    b.reveal("squares", squares, Target::Client);
    for (name, value) in [("chosen", chosen), ("above", above), ("hot", hot), ("placed", placed)] {
        b.reveal(name, value, Target::Client);
    }
    let product = b.reveal("product", product, Target::Client);
    let after = b.plain("neg", &[product]);
    b.output("after", after, Target::Client);
    b
}

/// Public linear work on a masked value of four elements.
fn under_mask(b: &mut Builder, masked: u32) -> u32 {
    let matrix = b.constant("matrix", Owner::Public, "f32[4,3]");
    let bias = b.constant("bias", Owner::Public, "f32[3]");
    let matrix = b.encode(matrix);
    let row = b.movement("reshape{shape=[1,4]}", &[masked]);
    let product = b.push(I::MatMul(Product { a: row, b: matrix, width: 29 }));
    let scaled = b.push(I::Scale(Scale { arg: product, factor: 3, frac: 0 }));
    let truncated = b.push(I::Truncate(Truncate { arg: scaled, shift: 10 }));
    let bias = b.encode(bias);
    let sum = b.push(I::Add(Binary { a: truncated, b: bias }));
    b.lift(sum)
}

#[test]
fn programs_that_keep_to_the_rules_pass() {
    for builder in [product(), everything()] {
        let flow = check(&builder.program).unwrap();
        let valid = ValidProgram::new(builder.program).unwrap();
        assert_eq!(flow.facts().len(), valid.len());
        let public = if valid.len() > 10 { &["p"][..] } else { &[] };
        let public_inputs = public.iter().map(ToString::to_string).collect();
        let consent = Consent { public_inputs, ..Consent::default() };
        consent.of_client(&valid, &flow).unwrap();
        Consent::default().of_server(&valid, &flow).unwrap();
    }
}

#[test]
fn every_instruction_is_there() {
    let program = everything().program;
    let valid = ValidProgram::new(program).unwrap();
    let mut names: Vec<&str> =
        (0..valid.len()).map(|at| marill_program::text::name(valid.instruction(at))).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 31, "{names:?}");
}

/// What is computed from a reveal runs after the last round: its failure is seen by nobody.
#[test]
fn nothing_runs_between_rounds_that_a_reveal_goes_into() {
    use marill_program::plan::{Batch, Plan};
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, "f32[4]");
    let shared = b.shared(x);
    let early = b.reveal("early", shared, Target::Client);
    let after = b.plain("neg", &[early]);
    b.output("after", after, Target::Client);
    let opened = b.open(shared, Target::Both);
    let wide = b.lift(opened);
    b.reveal("late", wide, Target::Client);
    let plan = Plan::new(&ValidProgram::new(b.program).unwrap());
    assert_eq!(plan.rounds(), 2);
    assert_eq!(plan.online.last(), Some(&Batch::Local(after)));
}
