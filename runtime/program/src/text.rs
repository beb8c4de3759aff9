//! Programs and types as text, for people.

use std::fmt;

use crate::schema::Instruction;
use crate::validate::ValidProgram;
use crate::value::{Form, Owner, Target, ValueType};

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Public => "public",
            Owner::Client => "client",
            Owner::Server => "server",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Both => "both",
            Target::Client => "client",
            Target::Server => "server",
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Plain { owner, dtype } => write!(f, "plain {owner} {dtype}")?,
            Form::Known { owner, width, frac } => write!(f, "known {owner} {width}.{frac}")?,
            Form::Weight { width, frac } => write!(f, "weight {width}.{frac}")?,
            Form::Arithmetic { width, frac } => write!(f, "arithmetic {width}.{frac}")?,
            Form::Boolean { width } => write!(f, "boolean {width}")?,
            Form::Masked { width, frac, to } => write!(f, "masked {to} {width}.{frac}")?,
            Form::MaskedBits { width } => write!(f, "masked bits {width}")?,
        }
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        write!(f, " [{}]", shape.join(","))
    }
}

/// The instruction's name in text.
pub fn name(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::Input(_) => "input",
        Instruction::Constant(_) => "constant",
        Instruction::Plain(_) => "plain",
        Instruction::Encode(_) => "encode",
        Instruction::Weight(_) => "weight",
        Instruction::Share(_) => "share",
        Instruction::Add(_) => "add",
        Instruction::Sub(_) => "sub",
        Instruction::Scale(_) => "scale",
        Instruction::Mul(_) => "mul",
        Instruction::MatMul(_) => "matmul",
        Instruction::Square(_) => "square",
        Instruction::SquareSum(_) => "square_sum",
        Instruction::Sum(_) => "sum",
        Instruction::Move(_) => "move",
        Instruction::Place(_) => "place",
        Instruction::Truncate(_) => "truncate",
        Instruction::Open(_) => "open",
        Instruction::Lift(_) => "lift",
        Instruction::Table(_) => "table",
        Instruction::Fourier(_) => "fourier",
        Instruction::BitTable(_) => "bit_table",
        Instruction::Lines(_) => "lines",
        Instruction::MaskProduct(_) => "mask_product",
        Instruction::Digits(_) => "digits",
        Instruction::OpenBits(_) => "open_bits",
        Instruction::Compare(_) => "compare",
        Instruction::BitProduct(_) => "bit_product",
        Instruction::BitToArithmetic(_) => "bit_to_arithmetic",
        Instruction::OneHot(_) => "one_hot",
        Instruction::Reveal(_) => "reveal",
    }
}

/// The attributes that matter to a reader, beside the arguments.
fn attributes(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Input(i) => format!(" \"{}\"", i.name),
        Instruction::Constant(c) => format!(" \"{}\"", c.name),
        Instruction::Plain(p) => format!(" {}", p.op),
        Instruction::Move(m) => format!(" {}", m.op),
        Instruction::Scale(s) => format!(" factor={} frac={}", s.factor, s.frac),
        Instruction::Sum(s) => format!(" axis={}", s.axis),
        Instruction::Place(p) => format!(" axis={} size={}", p.axis, p.size),
        Instruction::Truncate(t) => format!(" shift={}", t.shift),
        Instruction::Table(t) => {
            let basis = match (t.basis, t.exponent_log2) {
                (0, _) => format!("degree={}", t.degree),
                (_, 0) => "exponential".to_owned(),
                (_, log2) => format!("exponential^{}", 1u64 << log2.min(63)),
            };
            format!(" low={} index={} {basis}", t.low_bits, t.index_bits)
        }
        Instruction::Fourier(f) => format!(" period={} terms={}", f.period_bits, f.cos.len()),
        Instruction::BitTable(t) => format!(" low={} index={}", t.low_bits, t.index_bits),
        Instruction::Lines(l) => format!(
            " low={} index={} step={} slope={} value={}",
            l.low_bits, l.index_bits, l.step_bits, l.slope_bits, l.value_bits
        ),
        Instruction::Digits(d) => {
            let lowest =
                if d.lowest_bits == 0 { String::new() } else { format!(" lowest={}", d.lowest_bits) };
            format!(" thresholds={:?} low={} digit={}{lowest}", d.thresholds, d.low_bits, d.digit_bits)
        }
        Instruction::BitProduct(b) => format!(" bit={}", b.bit),
        Instruction::BitToArithmetic(b) if b.count == 1 => format!(" bit={}", b.bit),
        Instruction::BitToArithmetic(b) => format!(" bit={} count={}", b.bit, b.count),
        Instruction::MaskProduct(p) => format!(" bit={} count={}", p.bit, p.count),
        Instruction::OneHot(o) => format!(" depth={}", o.depth),
        _ => String::new(),
    }
}

impl fmt::Display for ValidProgram {
    /// One line per instruction, `%i = name attributes (arguments) : type`, grouped by the graph node they came from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = None;
        for at in 0..self.len() {
            let step = &self.program().instructions[at];
            if group != Some(step.group) {
                group = Some(step.group);
                if let Some(name) = self.program().groups.get(step.group as usize) {
                    writeln!(f, "// {name}")?;
                }
            }
            let instruction = self.instruction(at);
            let arguments: Vec<String> =
                crate::plan::arguments(instruction).iter().map(|a| format!("%{a}")).collect();
            let (name, attributes) = (name(instruction), attributes(instruction));
            writeln!(f, "%{at} = {name}{attributes} ({}) : {}", arguments.join(", "), self.types()[at])?;
        }
        for output in &self.program().outputs {
            let to = Target::try_from(output.to).unwrap_or(Target::Both);
            writeln!(f, "output \"{}\" = %{} to {to}", output.name, output.value)?;
        }
        Ok(())
    }
}
