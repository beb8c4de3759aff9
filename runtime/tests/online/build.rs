//! Small programs by hand.

use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

/// A program that grows by one instruction per call; each call returns the new value.
pub struct Builder {
    program: Program,
}

impl Builder {
    pub fn new() -> Builder {
        Builder { program: Program { version: VERSION, name: "test".to_owned(), ..Program::default() } }
    }

    /// What preprocessing is planned for; 100 Mbit/s otherwise.
    pub fn planned_for(&mut self, kbits_per_second: u64) {
        self.program.kbits_per_second = kbits_per_second;
    }

    pub fn push(&mut self, instruction: Instruction) -> u32 {
        self.program.instructions.push(Step { instruction: Some(instruction), group: 0 });
        self.program.instructions.len() as u32 - 1
    }

    pub fn input(&mut self, name: &str, owner: Owner, ty: &str) -> u32 {
        self.push(Instruction::Input(Input { name: name.to_owned(), owner: owner as i32, ty: ty.to_owned() }))
    }

    pub fn constant(&mut self, name: &str, owner: Owner, ty: &str) -> u32 {
        self.push(Instruction::Constant(Constant {
            name: name.to_owned(),
            owner: owner as i32,
            ty: ty.to_owned(),
        }))
    }

    pub fn plain(&mut self, op: &str, args: &[u32]) -> u32 {
        self.push(Instruction::Plain(Plain { op: op.to_owned(), args: args.to_vec() }))
    }

    pub fn encode(&mut self, arg: u32, width: u32, frac: u32) -> u32 {
        self.push(Instruction::Encode(Encode { arg, width, frac }))
    }

    pub fn weight(&mut self, arg: u32, width: u32, frac: u32) -> u32 {
        self.push(Instruction::Weight(Weight { arg, width, frac }))
    }

    pub fn open(&mut self, arg: u32, to: Target, width: u32) -> u32 {
        self.push(Instruction::Open(Open { arg, to: to as i32, width }))
    }

    pub fn lift(&mut self, arg: u32, width: u32) -> u32 {
        self.push(Instruction::Lift(Lift { arg, width }))
    }

    /// A clear value encoded and opened to both under a mask.
    pub fn masked(&mut self, arg: u32, width: u32, frac: u32) -> u32 {
        let known = self.encode(arg, width, frac);
        self.open(known, Target::Both, width)
    }

    /// A clear value as shares that are random at both parties.
    pub fn shared(&mut self, arg: u32, width: u32, frac: u32) -> u32 {
        let masked = self.masked(arg, width, frac);
        self.lift(masked, width)
    }

    pub fn open_bits(&mut self, arg: u32, width: u32) -> u32 {
        self.push(Instruction::OpenBits(OpenBits { arg, width }))
    }

    pub fn movement(&mut self, op: &str, args: &[u32]) -> u32 {
        self.push(Instruction::Move(Move { op: op.to_owned(), args: args.to_vec() }))
    }

    pub fn mul(&mut self, a: u32, b: u32, width: u32) -> u32 {
        self.push(Instruction::Mul(Product { a, b, width }))
    }

    pub fn matmul(&mut self, a: u32, b: u32, width: u32) -> u32 {
        self.push(Instruction::MatMul(Product { a, b, width }))
    }

    pub fn truncate(&mut self, arg: u32, shift: u32) -> u32 {
        self.push(Instruction::Truncate(Truncate { arg, shift }))
    }

    /// One bit of opened words as an integer.
    pub fn bit(&mut self, bits: u32, bit: u32, width: u32) -> u32 {
        self.push(Instruction::BitToArithmetic(BitToArithmetic { bits, bit, width, count: 1 }))
    }

    pub fn output(&mut self, name: &str, value: u32, to: Target) {
        self.program.outputs.push(Output { name: name.to_owned(), value, to: to as i32 });
    }

    pub fn reveal(&mut self, name: &str, arg: u32, to: Target, integer: bool) -> u32 {
        let value = self.push(Instruction::Reveal(Reveal { arg, to: to as i32, integer }));
        self.output(name, value, to);
        value
    }

    /// Reveals to the client as `name`.
    pub fn show(&mut self, name: &str, arg: u32) -> u32 {
        self.reveal(name, arg, Target::Client, false)
    }

    pub fn finish(self) -> ValidProgram {
        ValidProgram::new(self.program).unwrap()
    }
}
