//! One rule per instruction: what it needs of its operands' holders, and who holds its result.

use std::collections::BTreeSet;

use marill_plaintext::Op;

use super::{Fact, Flow, FlowError, Held, Sources};
use crate::schema::{Binary, Compare, Instruction, Move, Product, Program, Reveal};
use crate::value::{Owner, Target};

type Result<T> = std::result::Result<T, FlowError>;

/// Whether a character is not printed, or turns the text around it: controls, marks of direction and of zero width.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

/// The names of one kind of thing, each of which must be readable and its own.
struct Names<'p> {
    what: &'static str,
    seen: BTreeSet<&'p str>,
}

impl<'p> Names<'p> {
    fn of(what: &'static str) -> Names<'p> {
        Names { what, seen: BTreeSet::new() }
    }

    fn add(&mut self, name: &'p str) -> Result<()> {
        let (what, number) = (self.what, self.seen.len());
        if name.trim() != name || name.is_empty() || name.chars().any(is_hidden) {
            return Err(FlowError::Name { what, number, shown: format!("{name:?}") });
        }
        if !self.seen.insert(name) {
            return Err(FlowError::SameName { what, name: name.to_owned() });
        }
        Ok(())
    }
}

pub(super) fn trace(program: &Program) -> Result<Flow> {
    let declared = program.outputs.iter().map(|output| (output.value, output.to)).collect();
    let mut tracer = Tracer { program, declared, facts: Vec::new(), at: 0 };
    let (mut inputs, mut constants) = (Names::of("inputs"), Names::of("constants"));
    for (at, step) in program.instructions.iter().enumerate() {
        tracer.at = at;
        let instruction = step.instruction.as_ref().ok_or(FlowError::Unknown { at })?;
        match instruction {
            Instruction::Input(i) => inputs.add(&i.name)?,
            Instruction::Constant(c) => constants.add(&c.name)?,
            _ => {}
        }
        let fact = tracer.rule(instruction)?;
        tracer.facts.push(fact);
    }
    let outputs = tracer.outputs()?;
    Ok(Flow { facts: tracer.facts, outputs })
}

struct Tracer<'p> {
    program: &'p Program,
    /// Value and receiver of every output, as they are written.
    declared: BTreeSet<(u32, i32)>,
    facts: Vec<Fact>,
    at: usize,
}

fn clear(owner: Owner, sources: Sources) -> Fact {
    Fact { held: Held::Clear, known_to: Some(owner), sources }
}

fn hidden(held: Held, sources: Sources) -> Fact {
    Fact { held, known_to: None, sources }
}

impl Tracer<'_> {
    fn fact(&self, value: u32) -> Result<Fact> {
        self.facts.get(value as usize).copied().ok_or(FlowError::Undefined { at: self.at, value })
    }

    fn form(&self, value: u32, needs: &'static str) -> FlowError {
        let found = self.facts.get(value as usize).map(Fact::to_string).unwrap_or_default();
        FlowError::Form { at: self.at, value, needs, found }
    }

    fn owner(&self, found: i32) -> Result<Owner> {
        Owner::try_from(found).map_err(|_| FlowError::Party { at: self.at, field: "owner", found })
    }

    fn target(&self, found: i32) -> Result<Target> {
        Target::try_from(found).map_err(|_| FlowError::Party { at: self.at, field: "to", found })
    }

    fn clear(&self, value: u32) -> Result<(Owner, Sources)> {
        match self.fact(value)? {
            Fact { held: Held::Clear, known_to: Some(owner), sources } => Ok((owner, sources)),
            _ => Err(self.form(value, "a clear tensor")),
        }
    }

    fn additive(&self, value: u32) -> Result<Sources> {
        match self.fact(value)? {
            Fact { held: Held::Additive, sources, .. } => Ok(sources),
            _ => Err(self.form(value, "additive shares")),
        }
    }

    /// Additive shares, or a value opened to both under a mask, which stay what they are.
    fn linear(&self, value: u32) -> Result<Fact> {
        match self.fact(value)? {
            Fact { held: Held::Masked(_), sources, .. } => {
                self.opened_to(value, Target::Both)?;
                Ok(hidden(Held::Masked(Target::Both), sources))
            }
            _ => Ok(hidden(Held::Additive, self.additive(value)?)),
        }
    }

    /// A masked value, opened to both, with public ring elements: the mask changes by what all three know beforehand.
    fn under_mask(&self, masked: u32, factor: u32) -> Result<Fact> {
        let sources = self.opened_to(masked, Target::Both)?;
        let fact = self.fact(factor)?;
        let private = fact.sources.private_constants.then_some("private values");
        match (fact.known_to, fact.sources.changing().or(private)) {
            (Some(Owner::Public), None) => Ok(hidden(Held::Masked(Target::Both), sources)),
            (Some(Owner::Public), Some(depends_on)) => {
                Err(FlowError::ChangingFactor { at: self.at, value: factor, depends_on })
            }
            (known_to, _) => {
                let known_to = known_to.unwrap_or(Owner::Public);
                Err(FlowError::PrivateFactor { at: self.at, value: factor, known_to })
            }
        }
    }

    /// Additive shares, or what counts as such: ring elements at their holder and zeros at the other.
    fn summand(&self, value: u32) -> Result<Fact> {
        match self.fact(value)? {
            fact @ Fact { held: Held::Additive | Held::Ring, .. } => Ok(fact),
            _ => Err(self.form(value, "additive shares or ring elements")),
        }
    }

    fn opened_to(&self, value: u32, needs: Target) -> Result<Sources> {
        match self.fact(value)? {
            Fact { held: Held::Masked(to), sources, .. } if to == needs => Ok(sources),
            Fact { held: Held::Masked(opened_to), .. } => {
                Err(FlowError::Opened { at: self.at, value, opened_to, needs })
            }
            _ => Err(self.form(value, "a value opened under a mask")),
        }
    }

    fn opened_bits(&self, value: u32) -> Result<Sources> {
        match self.fact(value)? {
            Fact { held: Held::MaskedBits, sources, .. } => Ok(sources),
            _ => Err(self.form(value, "opened bits")),
        }
    }

    /// Positions by which shares or masks move: the parties must agree on them, and the dealer is told.
    fn positions(&self, value: u32) -> Result<()> {
        let (owner, sources) = self.clear(value)?;
        let private = (owner != Owner::Public || sources.private_constants).then_some("private values");
        match sources.changing().or(private) {
            Some(depends_on) => Err(FlowError::SecretPositions { at: self.at, value, depends_on }),
            None => Ok(()),
        }
    }

    fn rule(&self, instruction: &Instruction) -> Result<Fact> {
        Ok(match instruction {
            Instruction::Input(i) => {
                let owner = self.owner(i.owner)?;
                let none = Sources::default();
                clear(
                    owner,
                    match owner {
                        Owner::Client => Sources { client_inputs: true, ..none },
                        Owner::Server => Sources { server_inputs: true, ..none },
                        Owner::Public => Sources { public_inputs: true, ..none },
                    },
                )
            }
            Instruction::Constant(c) => {
                let owner = self.owner(c.owner)?;
                if owner == Owner::Client {
                    return Err(FlowError::ClientConstant { at: self.at, name: c.name.clone() });
                }
                let private_constants = owner == Owner::Server;
                clear(owner, Sources { private_constants, ..Sources::default() })
            }
            Instruction::Plain(p) => self.plain(&p.args)?,
            Instruction::Encode(e) => {
                let (owner, sources) = self.clear(e.arg)?;
                if sources.revealed {
                    return Err(FlowError::FedBack { at: self.at, value: e.arg });
                }
                Fact { held: Held::Ring, known_to: Some(owner), sources }
            }
            Instruction::Weight(w) => {
                let (owner, sources) = self.clear(w.arg)?;
                if let Some(depends_on) = sources.changing() {
                    return Err(FlowError::ChangingWeight { at: self.at, value: w.arg, depends_on });
                }
                if owner != Owner::Server {
                    return Err(self.form(w.arg, "a clear tensor of the server"));
                }
                Fact { held: Held::Weight, known_to: Some(Owner::Server), sources }
            }
            Instruction::Share(s) => match self.fact(s.arg)? {
                Fact { held: Held::Ring, sources, .. } => hidden(Held::Additive, sources),
                _ => return Err(self.form(s.arg, "ring elements")),
            },
            Instruction::Add(b) => self.sum(b, true)?,
            Instruction::Sub(b) => self.sum(b, false)?,
            Instruction::Mul(p) => self.product(p, false)?,
            Instruction::MatMul(p) => self.product(p, true)?,
            Instruction::Scale(s) => self.linear(s.arg)?,
            Instruction::Sum(s) => hidden(Held::Additive, self.additive(s.arg)?),
            Instruction::Truncate(t) => self.linear(t.arg)?,
            Instruction::Move(m) => self.movement(m)?,
            Instruction::Place(p) => {
                let fact = self.fact(p.arg)?;
                if !matches!(fact.held, Held::Additive | Held::Masked(_)) {
                    return Err(self.form(p.arg, "additive shares or a masked value"));
                }
                self.positions(p.indices)?;
                fact
            }
            Instruction::Open(o) => {
                let sources = self.summand(o.arg)?.sources;
                hidden(Held::Masked(self.target(o.to)?), sources)
            }
            Instruction::OpenBits(o) => match self.fact(o.arg)? {
                Fact { held: Held::Xor, sources, .. } => hidden(Held::MaskedBits, sources),
                _ => return Err(self.form(o.arg, "shared bits")),
            },
            Instruction::Square(s) => hidden(Held::Additive, self.opened_to(s.arg, Target::Both)?),
            Instruction::SquareSum(s) => hidden(Held::Additive, self.opened_to(s.arg, Target::Both)?),
            Instruction::Lift(l) => hidden(Held::Additive, self.opened_to(l.arg, Target::Both)?),
            Instruction::Table(t) => hidden(Held::Additive, self.opened_to(t.arg, Target::Both)?),
            Instruction::Fourier(f) => hidden(Held::Additive, self.opened_to(f.arg, Target::Both)?),
            Instruction::OneHot(o) => hidden(Held::Additive, self.opened_to(o.arg, Target::Both)?),
            Instruction::BitTable(t) => hidden(Held::Xor, self.opened_to(t.arg, Target::Both)?),
            Instruction::Lines(l) => hidden(Held::Xor, self.opened_to(l.arg, Target::Both)?),
            Instruction::MaskProduct(p) => {
                let bits = self.opened_bits(p.bits)?;
                hidden(Held::Additive, bits.join(self.opened_to(p.arg, Target::Both)?))
            }
            Instruction::Digits(d) => hidden(Held::Xor, self.opened_to(d.arg, Target::Both)?),
            Instruction::Compare(c) => self.compare(c)?,
            Instruction::BitProduct(b) => {
                let bits = self.opened_bits(b.bits)?;
                hidden(Held::Additive, bits.join(self.opened_to(b.arg, Target::Both)?))
            }
            Instruction::BitToArithmetic(b) => hidden(Held::Additive, self.opened_bits(b.bits)?),
            Instruction::Reveal(r) => self.reveal(r)?,
        })
    }

    fn plain(&self, args: &[u32]) -> Result<Fact> {
        let mut all = (Owner::Public, Sources::default());
        for &value in args {
            let (owner, sources) = self.clear(value)?;
            let known_to = match (all.0, owner) {
                (one, Owner::Public) => one,
                (Owner::Public, other) => other,
                (one, other) if one == other => one,
                (needed_by, known_to) => {
                    return Err(FlowError::OtherParty { at: self.at, value, known_to, needed_by });
                }
            };
            all = (known_to, all.1.join(sources));
        }
        Ok(clear(all.0, all.1))
    }

    fn sum(&self, b: &Binary, commutes: bool) -> Result<Fact> {
        match (self.fact(b.a)?.held, self.fact(b.b)?.held) {
            (Held::Masked(_), Held::Ring) => return self.under_mask(b.a, b.b),
            (Held::Ring, Held::Masked(_)) if commutes => return self.under_mask(b.b, b.a),
            (Held::Xor, Held::Xor) if commutes => {
                return Ok(hidden(Held::Xor, self.fact(b.a)?.sources.join(self.fact(b.b)?.sources)));
            }
            _ => {}
        }
        let (left, right) = (self.summand(b.a)?, self.summand(b.b)?);
        if left.held != Held::Additive && right.held != Held::Additive {
            return Err(self.form(b.a, "additive shares in one operand"));
        }
        Ok(hidden(Held::Additive, left.sources.join(right.sources)))
    }

    fn product(&self, p: &Product, is_matrix: bool) -> Result<Fact> {
        let (left, right) = (self.fact(p.a)?, self.fact(p.b)?);
        let public = |factor: Fact, value: u32| match factor.known_to {
            Some(Owner::Public) => Ok(()),
            known_to => {
                let known_to = known_to.unwrap_or(Owner::Public);
                Err(FlowError::PrivateFactor { at: self.at, value, known_to })
            }
        };
        match (left.held, right.held) {
            (Held::Additive, Held::Ring) => public(right, p.b)?,
            (Held::Ring, Held::Additive) => public(left, p.a)?,
            (Held::Masked(_), Held::Masked(_)) => {
                self.opened_to(p.a, Target::Both)?;
                self.opened_to(p.b, Target::Both)?;
            }
            (Held::Masked(_), Held::Ring) if is_matrix => return self.under_mask(p.a, p.b),
            (Held::Masked(_), Held::Weight) => {
                self.opened_to(p.a, Target::Server)?;
            }
            (Held::Masked(_), _) => {
                return Err(self.form(p.b, "a value opened under a mask, or a weight"));
            }
            (Held::Additive | Held::Ring, _) => {
                return Err(self.form(p.b, "shares and public ring elements as factors"));
            }
            _ => return Err(self.form(p.a, "shares or a value opened under a mask")),
        }
        Ok(hidden(Held::Additive, left.sources.join(right.sources)))
    }

    fn movement(&self, m: &Move) -> Result<Fact> {
        let op = match m.op.parse() {
            Ok(
                op @ (Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Concat { .. }
                | Op::Slice { .. }
                | Op::Expand { .. }
                | Op::Gather { .. }
                | Op::Tile { .. }),
            ) => op,
            _ => return Err(FlowError::Movement { at: self.at, op: shortened(&m.op) }),
        };
        let [first, others @ ..] = m.args.as_slice() else {
            return Err(FlowError::Movement { at: self.at, op: format!("{} of nothing", shortened(&m.op)) });
        };
        let mut all = self.fact(*first)?;
        if matches!(all.held, Held::Clear | Held::Weight) {
            return Err(self.form(*first, "shares, masked values or ring elements"));
        }
        if matches!(op, Op::Gather { .. }) {
            for &indices in others {
                self.positions(indices)?;
            }
            return Ok(all);
        }
        for &value in others {
            let fact = self.fact(value)?;
            if (fact.held, fact.known_to) != (all.held, all.known_to) {
                let (found, with) = (fact.to_string(), all.to_string());
                return Err(FlowError::MixedForms { at: self.at, value, found, with });
            }
            all.sources = all.sources.join(fact.sources);
        }
        Ok(all)
    }

    fn compare(&self, c: &Compare) -> Result<Fact> {
        let digits = self.fact(c.digits)?;
        if digits.held != Held::Xor {
            return Err(self.form(c.digits, "the shared digits of a comparison"));
        }
        let opened = self.opened_bits(c.opened)?;
        let made = |value: u32| self.program.instructions.get(value as usize)?.instruction.as_ref();
        match (made(c.digits), made(c.opened)) {
            (Some(Instruction::Digits(_)), Some(Instruction::OpenBits(o))) if o.arg == c.digits => {
                Ok(hidden(Held::Xor, digits.sources.join(opened)))
            }
            _ => Err(FlowError::OtherBits { at: self.at, digits: c.digits, opened: c.opened }),
        }
    }

    fn reveal(&self, r: &Reveal) -> Result<Fact> {
        let sources = self.summand(r.arg)?.sources;
        let to = self.target(r.to)?;
        if !self.declared.contains(&(self.at as u32, r.to)) {
            return Err(FlowError::UndeclaredReveal { at: self.at, to });
        }
        let owner = match to {
            Target::Both => Owner::Public,
            Target::Client => Owner::Client,
            Target::Server => Owner::Server,
        };
        Ok(clear(owner, Sources { revealed: true, ..sources }))
    }

    fn outputs(&self) -> Result<Vec<Target>> {
        let (mut names, mut receivers) = (Names::of("outputs"), Vec::new());
        for output in &self.program.outputs {
            names.add(&output.name)?;
            let name = || output.name.clone();
            let (value, count) = (output.value, self.facts.len());
            let to = Target::try_from(output.to)
                .map_err(|_| FlowError::OutputParty { name: name(), found: output.to })?;
            let Some(fact) = self.facts.get(value as usize) else {
                return Err(FlowError::OutputUndefined { name: name(), value, count });
            };
            let known = match (fact.held, fact.known_to) {
                (Held::Clear, Some(Owner::Public)) => true,
                (Held::Clear, Some(Owner::Client)) => to == Target::Client,
                (Held::Clear, Some(Owner::Server)) => to == Target::Server,
                _ => false,
            };
            if !known {
                return Err(FlowError::OutputUnknown { name: name(), to, value, found: fact.to_string() });
            }
            receivers.push(to);
        }
        Ok(receivers)
    }
}

/// As much of an operation's text as fits a sentence.
fn shortened(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}
