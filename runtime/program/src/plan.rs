//! When each instruction runs: at setup (it depends on constants alone) or online, and which openings share a round.

use crate::schema::{Instruction, Weight};
use crate::validate::ValidProgram;

/// One online step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// An instruction without communication.
    Local(u32),
    /// Openings and reveals whose messages travel together.
    Round(Vec<u32>),
}

/// The order of execution.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Instructions that depend on constants alone.
    pub setup: Vec<u32>,
    /// Everything else.
    pub online: Vec<Batch>,
    /// For each value, the instruction that is the last to use it online, in order of execution (its own index if none
    /// does).
    pub last_use: Vec<u32>,
}

impl Plan {
    /// Number of online rounds.
    pub fn rounds(&self) -> usize {
        self.online.iter().filter(|b| matches!(b, Batch::Round(_))).count()
    }

    /// The plan of `program`: instructions in order; openings wait until a result is needed. What a party computes from
    /// revealed values comes after the last round, so that nobody sees whether it succeeds.
    pub fn new(program: &ValidProgram) -> Plan {
        let count = program.len();
        let mut constant = vec![false; count];
        let mut pending = vec![false; count];
        let mut revealed = vec![false; count];
        let mut waiting: Vec<u32> = Vec::new();
        let mut last = Vec::new();
        let mut plan = Plan { setup: Vec::new(), online: Vec::new(), last_use: (0..count as u32).collect() };
        for at in 0..count {
            let instruction = program.instruction(at);
            let arguments = arguments(instruction);
            constant[at] = match instruction {
                Instruction::Constant(_) => true,
                Instruction::Plain(_) | Instruction::Encode(_) | Instruction::Weight(_) => {
                    arguments.iter().all(|&a| constant[a as usize])
                }
                _ => false,
            };
            if constant[at] {
                plan.setup.push(at as u32);
                continue;
            }
            let revealing = matches!(instruction, Instruction::Reveal(_));
            revealed[at] = revealing || arguments.iter().any(|&a| revealed[a as usize]);
            if revealed[at] && !revealing {
                last.push(Batch::Local(at as u32));
                continue;
            }
            if arguments.iter().any(|&a| pending[a as usize]) {
                waiting.iter().for_each(|&w| pending[w as usize] = false);
                plan.online.push(Batch::Round(std::mem::take(&mut waiting)));
            }
            if communicates(instruction) {
                pending[at] = true;
                waiting.push(at as u32);
            } else {
                plan.online.push(Batch::Local(at as u32));
            }
        }
        if !waiting.is_empty() {
            plan.online.push(Batch::Round(waiting));
        }
        plan.online.append(&mut last);
        // In order of execution: an opening runs after local instructions that follow it in the program.
        for batch in &plan.online {
            let instructions = match batch {
                Batch::Local(at) => std::slice::from_ref(at),
                Batch::Round(opens) => opens,
            };
            for &at in instructions {
                for a in arguments(program.instruction(at as usize)) {
                    plan.last_use[a as usize] = at;
                }
            }
        }
        for output in &program.program().outputs {
            plan.last_use[output.value as usize] = u32::MAX;
        }
        plan
    }
}

/// Whether an instruction sends anything online.
pub fn communicates(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Open(_) | Instruction::OpenBits(_) | Instruction::Reveal(_))
}

/// The values that an instruction uses.
pub fn arguments(instruction: &Instruction) -> Vec<u32> {
    match instruction {
        Instruction::Input(_) | Instruction::Constant(_) => Vec::new(),
        Instruction::Plain(p) => p.args.clone(),
        Instruction::Move(m) => m.args.clone(),
        Instruction::Encode(e) => vec![e.arg],
        Instruction::Weight(Weight { arg, .. }) => vec![*arg],
        Instruction::Share(s) => vec![s.arg],
        Instruction::Add(b) | Instruction::Sub(b) => vec![b.a, b.b],
        Instruction::Scale(s) => vec![s.arg],
        Instruction::Mul(p) | Instruction::MatMul(p) => vec![p.a, p.b],
        Instruction::Square(s) => vec![s.arg],
        Instruction::SquareSum(s) => vec![s.arg],
        Instruction::Sum(s) => vec![s.arg],
        Instruction::Place(p) => vec![p.arg, p.indices],
        Instruction::Truncate(t) => vec![t.arg],
        Instruction::Open(o) => vec![o.arg],
        Instruction::Lift(l) => vec![l.arg],
        Instruction::Table(t) => vec![t.arg],
        Instruction::Fourier(f) => vec![f.arg],
        Instruction::BitTable(t) => vec![t.arg],
        Instruction::Lines(l) => vec![l.arg],
        Instruction::MaskProduct(p) => vec![p.bits, p.arg],
        Instruction::Digits(d) => vec![d.arg],
        Instruction::OpenBits(o) => vec![o.arg],
        Instruction::Compare(c) => vec![c.digits, c.opened],
        Instruction::BitProduct(b) => vec![b.bits, b.arg],
        Instruction::BitToArithmetic(b) => vec![b.bits],
        Instruction::OneHot(o) => vec![o.arg],
        Instruction::Reveal(r) => vec![r.arg],
    }
}
