//! Programs by hand, valid or not.

use marill_program::schema::*;
use marill_program::{Owner, Target};

pub use marill_program::Instruction as I;

/// A program that grows by one instruction per call; each call returns the new value.
pub struct Builder {
    pub program: Program,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { program: Program { version: VERSION, name: "test".to_owned(), ..Program::default() } }
    }

    pub fn push(&mut self, instruction: I) -> u32 {
        self.program.instructions.push(Step { instruction: Some(instruction), group: 0 });
        self.program.instructions.len() as u32 - 1
    }

    pub fn input(&mut self, name: &str, owner: Owner, ty: &str) -> u32 {
        self.push(I::Input(Input { name: name.to_owned(), owner: owner as i32, ty: ty.to_owned() }))
    }

    pub fn constant(&mut self, name: &str, owner: Owner, ty: &str) -> u32 {
        self.push(I::Constant(Constant { name: name.to_owned(), owner: owner as i32, ty: ty.to_owned() }))
    }

    pub fn plain(&mut self, op: &str, args: &[u32]) -> u32 {
        self.push(I::Plain(Plain { op: op.to_owned(), args: args.to_vec() }))
    }

    pub fn encode(&mut self, arg: u32) -> u32 {
        self.push(I::Encode(Encode { arg, width: 40, frac: 10 }))
    }

    pub fn integers(&mut self, arg: u32) -> u32 {
        self.push(I::Encode(Encode { arg, width: 40, frac: 0 }))
    }

    pub fn weight(&mut self, arg: u32) -> u32 {
        self.push(I::Weight(Weight { arg, width: 40, frac: 10 }))
    }

    pub fn share(&mut self, arg: u32) -> u32 {
        self.push(I::Share(Share { arg }))
    }

    /// A clear value as shares.
    pub fn shared(&mut self, arg: u32) -> u32 {
        let known = self.encode(arg);
        self.share(known)
    }

    pub fn open(&mut self, arg: u32, to: Target) -> u32 {
        self.push(I::Open(Open { arg, to: to as i32, width: 40 }))
    }

    pub fn lift(&mut self, arg: u32) -> u32 {
        self.push(I::Lift(Lift { arg, width: 40 }))
    }

    pub fn add(&mut self, a: u32, b: u32) -> u32 {
        self.push(I::Add(Binary { a, b }))
    }

    pub fn mul(&mut self, a: u32, b: u32) -> u32 {
        self.push(I::Mul(Product { a, b, width: 40 }))
    }

    pub fn matmul(&mut self, a: u32, b: u32) -> u32 {
        self.push(I::MatMul(Product { a, b, width: 40 }))
    }

    pub fn movement(&mut self, op: &str, args: &[u32]) -> u32 {
        self.push(I::Move(Move { op: op.to_owned(), args: args.to_vec() }))
    }

    pub fn place(&mut self, arg: u32, indices: u32) -> u32 {
        self.push(I::Place(Place { arg, indices, axis: 0, size: 8 }))
    }

    pub fn digits(&mut self, arg: u32) -> u32 {
        self.push(I::Digits(Digits {
            arg,
            digit_bits: 4,
            thresholds: vec![0],
            low_bits: 0,
            width: 21,
            lowest_bits: 0,
        }))
    }

    pub fn open_bits(&mut self, arg: u32, width: u32) -> u32 {
        self.push(I::OpenBits(OpenBits { arg, width }))
    }

    pub fn bit(&mut self, bits: u32) -> u32 {
        self.push(I::BitToArithmetic(BitToArithmetic { bits, bit: 0, width: 40, count: 1 }))
    }

    /// A reveal that no output declares.
    pub fn disclose(&mut self, arg: u32, to: Target) -> u32 {
        self.push(I::Reveal(Reveal { arg, to: to as i32, integer: false }))
    }

    pub fn output(&mut self, name: &str, value: u32, to: Target) {
        self.program.outputs.push(Output { name: name.to_owned(), value, to: to as i32 });
    }

    pub fn reveal(&mut self, name: &str, arg: u32, to: Target) -> u32 {
        let value = self.disclose(arg, to);
        self.output(name, value, to);
        value
    }
}

/// The values that an instruction uses.
pub fn arguments_mut(instruction: &mut I) -> Vec<&mut u32> {
    match instruction {
        I::Input(_) | I::Constant(_) => Vec::new(),
        I::Plain(p) => p.args.iter_mut().collect(),
        I::Move(m) => m.args.iter_mut().collect(),
        I::Encode(e) => vec![&mut e.arg],
        I::Weight(w) => vec![&mut w.arg],
        I::Share(s) => vec![&mut s.arg],
        I::Add(b) | I::Sub(b) => vec![&mut b.a, &mut b.b],
        I::Scale(s) => vec![&mut s.arg],
        I::Mul(p) | I::MatMul(p) => vec![&mut p.a, &mut p.b],
        I::Square(s) => vec![&mut s.arg],
        I::SquareSum(s) => vec![&mut s.arg],
        I::Sum(s) => vec![&mut s.arg],
        I::Place(p) => vec![&mut p.arg, &mut p.indices],
        I::Truncate(t) => vec![&mut t.arg],
        I::Open(o) => vec![&mut o.arg],
        I::Lift(l) => vec![&mut l.arg],
        I::Table(t) => vec![&mut t.arg],
        I::Fourier(f) => vec![&mut f.arg],
        I::BitTable(t) => vec![&mut t.arg],
        I::Lines(l) => vec![&mut l.arg],
        I::MaskProduct(p) => vec![&mut p.bits, &mut p.arg],
        I::Digits(d) => vec![&mut d.arg],
        I::OpenBits(o) => vec![&mut o.arg],
        I::Compare(c) => vec![&mut c.digits, &mut c.opened],
        I::BitProduct(b) => vec![&mut b.bits, &mut b.arg],
        I::BitToArithmetic(b) => vec![&mut b.bits],
        I::OneHot(o) => vec![&mut o.arg],
        I::Reveal(r) => vec![&mut r.arg],
    }
}
