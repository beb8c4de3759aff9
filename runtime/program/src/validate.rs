//! From hostile bytes to a [`ValidProgram`]: every value typed, every field in bounds, every reveal declared.

mod functions;

use std::collections::BTreeSet;

use marill_plaintext::{DType, Op, TensorType, infer};
use prost::Message;

use crate::correlation::digit_count;
use crate::error::ProgramError;
use crate::schema::{self, Instruction, Program};
use crate::two_party::effort::Link;
use crate::value::{Form, Owner, Target, ValueType};

/// Elements of one value, at most.
pub const MAX_ELEMENTS: u64 = 1 << 32;
/// Elements of one instruction's preprocessing, at most.
pub const MAX_CORRELATION_ELEMENTS: u64 = 1 << 36;
/// Digits of one comparison, at most.
pub const MAX_DIGITS: u32 = 7;
/// Most versions of a truth table, as a power of two.
pub const MAX_STEP_BITS: u32 = 8;

/// A program whose every instruction is well typed. The only way to get one is [`ValidProgram::new`].
#[derive(Clone, Debug)]
pub struct ValidProgram {
    program: Program,
    types: Vec<ValueType>,
    ops: Vec<Option<Op>>,
    digest: [u8; 32],
}

impl ValidProgram {
    /// Decodes and checks a program's bytes.
    pub fn decode(bytes: &[u8]) -> Result<ValidProgram, ProgramError> {
        ValidProgram::new(Program::decode(bytes)?)
    }

    /// The program's canonical bytes, of which [`Self::digest`] is the hash.
    pub fn encode(&self) -> Vec<u8> {
        self.program.encode_to_vec()
    }

    /// Checks a program.
    pub fn new(program: Program) -> Result<ValidProgram, ProgramError> {
        if program.version != schema::VERSION {
            return Err(ProgramError::Version { found: program.version, expected: schema::VERSION });
        }
        let mut checker = Checker::default();
        let mut names = BTreeSet::new();
        for (at, step) in program.instructions.iter().enumerate() {
            checker.at = at;
            let instruction = step.instruction.as_ref().ok_or(ProgramError::UnknownInstruction { at })?;
            if step.group as usize >= program.groups.len().max(1) {
                return Err(checker.bounds("group", step.group.into(), "below the number of groups"));
            }
            let named = match instruction {
                Instruction::Input(i) => Some(("inputs", i.name.clone())),
                Instruction::Constant(c) => Some(("constants", c.name.clone())),
                _ => None,
            };
            if let Some((what, name)) = named
                && !names.insert((what, name.clone()))
            {
                return Err(ProgramError::DuplicateName { what, name });
            }
            let ty = checker.instruction(instruction)?;
            let elements = ty.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64));
            match elements {
                Some(n) if n <= MAX_ELEMENTS => {}
                n => {
                    let found = n.unwrap_or(u64::MAX);
                    return Err(ProgramError::TooLarge { at, found, limit: MAX_ELEMENTS });
                }
            }
            checker.types.push(ty);
        }
        let digest = blake3::hash(&program.encode_to_vec()).into();
        let valid = ValidProgram { program, types: checker.types, ops: checker.ops, digest };
        valid.check_outputs()?;
        valid.check_demand()?;
        Ok(valid)
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The link that two parties plan their preprocessing for.
    pub fn link(&self) -> Link {
        Link::new(self.program.kbits_per_second)
    }

    /// Number of instructions, which is the number of values.
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there is no instruction.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// Instruction `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn instruction(&self, i: usize) -> &Instruction {
        self.program.instructions[i].instruction.as_ref().expect("checked on construction")
    }

    /// Type of value `i`.
    pub fn ty(&self, i: u32) -> &ValueType {
        &self.types[i as usize]
    }

    /// Types of all values.
    pub fn types(&self) -> &[ValueType] {
        &self.types
    }

    /// The parsed tensor operation of a `Plain` or `Move` instruction.
    pub fn op(&self, i: usize) -> Option<&Op> {
        self.ops[i].as_ref()
    }

    /// blake3 of the program's canonical encoding, on which the parties agree before anything else.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn check_outputs(&self) -> Result<(), ProgramError> {
        let mut declared: BTreeSet<(u32, Target)> = BTreeSet::new();
        let mut names = BTreeSet::new();
        for output in &self.program.outputs {
            if !names.insert(&output.name) {
                return Err(ProgramError::DuplicateName { what: "outputs", name: output.name.clone() });
            }
            let Ok(to) = Target::try_from(output.to) else {
                let (name, to) = (output.name.clone(), format!("receiver {}", output.to));
                return Err(ProgramError::OutputUnknown { name, to });
            };
            let unknown = || ProgramError::OutputUnknown { name: output.name.clone(), to: format!("{to:?}") };
            let known = match self.types.get(output.value as usize).map(|t| t.form) {
                Some(Form::Plain { owner: Owner::Public, .. }) => true,
                Some(Form::Plain { owner: Owner::Client, .. }) => to == Target::Client,
                Some(Form::Plain { owner: Owner::Server, .. }) => to == Target::Server,
                _ => false,
            };
            if !known {
                return Err(unknown());
            }
            declared.insert((output.value, to));
        }
        for at in 0..self.len() {
            if let Instruction::Reveal(reveal) = self.instruction(at) {
                let to = Target::try_from(reveal.to).unwrap_or(Target::Both);
                if !declared.contains(&(at as u32, to)) {
                    return Err(ProgramError::UndeclaredReveal { at, to: format!("{to:?}") });
                }
            }
        }
        Ok(())
    }

    fn check_demand(&self) -> Result<(), ProgramError> {
        for at in 0..self.len() {
            let found = crate::correlation::fields(self, at).iter().map(|f| f.len as u64).sum();
            if found > MAX_CORRELATION_ELEMENTS {
                return Err(ProgramError::TooLarge { at, found, limit: MAX_CORRELATION_ELEMENTS });
            }
        }
        Ok(())
    }
}

/// Ring bits and fraction bits of a shared operand.
type Ring = (u32, u32);

#[derive(Default)]
struct Checker {
    types: Vec<ValueType>,
    ops: Vec<Option<Op>>,
    /// Whether a plain value depends on constants alone.
    constant: Vec<bool>,
    /// Whether a plain value depends on a reveal.
    revealed: Vec<bool>,
    at: usize,
}

impl Checker {
    fn bounds(&self, field: &'static str, found: i64, allowed: &'static str) -> ProgramError {
        ProgramError::OutOfBounds { at: self.at, field, found, allowed }
    }

    fn width(&self, field: &'static str, width: u32) -> Result<u32, ProgramError> {
        if (1..=64).contains(&width) { Ok(width) } else { Err(self.bounds(field, width.into(), "1 to 64")) }
    }

    fn frac(&self, frac: u32) -> Result<u32, ProgramError> {
        if frac <= 62 { Ok(frac) } else { Err(self.bounds("fraction bits", frac.into(), "0 to 62")) }
    }

    fn get(&self, value: u32) -> Result<&ValueType, ProgramError> {
        self.types.get(value as usize).ok_or(ProgramError::UndefinedValue { at: self.at, value })
    }

    fn wrong(&self, value: u32, needs: &'static str) -> ProgramError {
        let found = self.types.get(value as usize).map(|t| t.to_string()).unwrap_or_default();
        ProgramError::WrongForm { at: self.at, value, needs, found }
    }

    fn plain(&self, value: u32) -> Result<(Owner, TensorType), ProgramError> {
        let ty = self.get(value)?;
        match ty.form {
            Form::Plain { owner, dtype } => Ok((owner, TensorType { dtype, shape: ty.shape.clone() })),
            _ => Err(self.wrong(value, "a clear tensor")),
        }
    }

    fn public_indices(&self, value: u32) -> Result<TensorType, ProgramError> {
        match self.plain(value)? {
            (Owner::Public, ty) if ty.dtype == DType::I64 && self.constant[value as usize] => Ok(ty),
            _ => Err(self.wrong(value, "public constant i64 indices")),
        }
    }

    fn arithmetic(&self, value: u32) -> Result<(Ring, Vec<usize>), ProgramError> {
        let ty = self.get(value)?;
        match ty.form {
            Form::Arithmetic { width, frac } => Ok(((width, frac), ty.shape.clone())),
            _ => Err(self.wrong(value, "additive shares")),
        }
    }

    /// Shares, or a value opened to both under a mask.
    fn linear(&self, value: u32) -> Result<(Form, Vec<usize>), ProgramError> {
        let ty = self.get(value)?;
        match ty.form {
            Form::Arithmetic { .. } | Form::Masked { to: Target::Both, .. } => {
                Ok((ty.form, ty.shape.clone()))
            }
            _ => Err(self.wrong(value, "additive shares or a value opened to both under a mask")),
        }
    }

    /// Ring elements of f32 numbers that everybody knows before a run.
    fn is_public_constant(&self, value: u32) -> bool {
        let is_public = |ty: &ValueType| matches!(ty.form, Form::Known { owner: Owner::Public, .. });
        self.types.get(value as usize).is_some_and(is_public) && self.constant[value as usize]
    }

    fn masked(&self, value: u32) -> Result<(Ring, Vec<usize>), ProgramError> {
        let ty = self.get(value)?;
        match ty.form {
            Form::Masked { width, frac, to: Target::Both } => Ok(((width, frac), ty.shape.clone())),
            _ => Err(self.wrong(value, "a value opened to both under a mask")),
        }
    }

    /// The shape of opened words in which there are `count` bits from `first` on.
    fn bits(&self, value: u32, first: u32, count: u32) -> Result<Vec<usize>, ProgramError> {
        let ty = self.get(value)?;
        match ty.form {
            Form::MaskedBits { width } if first < width && (1..=width - first).contains(&count) => {
                Ok(ty.shape.clone())
            }
            Form::MaskedBits { width } if first < width => {
                Err(self.bounds("bits", count.into(), "1 to those of the word"))
            }
            Form::MaskedBits { .. } => Err(self.bounds("bit", first.into(), "below the word's width")),
            _ => Err(self.wrong(value, "opened bits")),
        }
    }

    fn shape_of(&self, op: &Op, shapes: &[&[usize]]) -> Result<Vec<usize>, ProgramError> {
        let types: Vec<TensorType> =
            shapes.iter().map(|s| TensorType { dtype: DType::F32, shape: s.to_vec() }).collect();
        infer(op, &types).map(|t| t.shape).map_err(|source| ProgramError::Op { at: self.at, source })
    }

    fn parse_op(&self, text: &str) -> Result<Op, ProgramError> {
        text.parse().map_err(|source| ProgramError::Op { at: self.at, source })
    }

    fn parse_type(&self, text: &str) -> Result<TensorType, ProgramError> {
        text.parse().map_err(|source| ProgramError::Op { at: self.at, source })
    }

    fn enumeration<T: TryFrom<i32>>(&self, field: &'static str, value: i32) -> Result<T, ProgramError> {
        T::try_from(value).map_err(|_| self.bounds(field, value.into(), "a declared variant"))
    }

    fn equal<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &'static str,
        l: T,
        r: T,
    ) -> Result<(), ProgramError> {
        if l == r {
            return Ok(());
        }
        Err(ProgramError::Mismatch { at: self.at, what, left: format!("{l:?}"), right: format!("{r:?}") })
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<ValueType, ProgramError> {
        let mut op = None;
        let (mut constant, mut revealed) = (false, false);
        let (form, shape) = match instruction {
            Instruction::Input(i) => {
                let ty = self.parse_type(&i.ty)?;
                (Form::Plain { owner: self.enumeration("owner", i.owner)?, dtype: ty.dtype }, ty.shape)
            }
            Instruction::Constant(c) => {
                let ty = self.parse_type(&c.ty)?;
                let owner: Owner = self.enumeration("owner", c.owner)?;
                if owner == Owner::Client {
                    return Err(self.bounds("owner", c.owner.into(), "public or server"));
                }
                constant = true;
                (Form::Plain { owner, dtype: ty.dtype }, ty.shape)
            }
            Instruction::Plain(p) => {
                let mut owner = Owner::Public;
                let mut types = Vec::new();
                constant = true;
                for &arg in &p.args {
                    let (o, ty) = self.plain(arg)?;
                    if owner != Owner::Public && o != Owner::Public && o != owner {
                        return Err(self.wrong(arg, "a clear tensor of the other operands' owner"));
                    }
                    owner = owner.max(o);
                    constant &= self.constant[arg as usize];
                    revealed |= self.revealed[arg as usize];
                    types.push(ty);
                }
                let parsed = self.parse_op(&p.op)?;
                let ty = infer(&parsed, &types).map_err(|source| ProgramError::Op { at: self.at, source })?;
                op = Some(parsed);
                (Form::Plain { owner, dtype: ty.dtype }, ty.shape)
            }
            Instruction::Encode(e) => {
                let (owner, ty) = self.plain(e.arg)?;
                if ty.dtype == DType::Bool || self.revealed[e.arg as usize] {
                    return Err(self.wrong(e.arg, "a clear f32 or i64 tensor that no reveal goes into"));
                }
                constant = self.constant[e.arg as usize] && ty.dtype == DType::F32;
                (
                    Form::Known { owner, width: self.width("width", e.width)?, frac: self.frac(e.frac)? },
                    ty.shape,
                )
            }
            Instruction::Weight(w) => match self.plain(w.arg)? {
                (Owner::Server, ty) if ty.dtype == DType::F32 && self.constant[w.arg as usize] => (
                    Form::Weight { width: self.width("width", w.width)?, frac: self.frac(w.frac)? },
                    ty.shape,
                ),
                _ => return Err(self.wrong(w.arg, "a constant f32 tensor of the server")),
            },
            Instruction::Share(s) => match *self.get(s.arg)? {
                ValueType { form: Form::Known { width, frac, .. }, ref shape } => {
                    (Form::Arithmetic { width, frac }, shape.clone())
                }
                _ => return Err(self.wrong(s.arg, "ring elements that one party knows")),
            },
            Instruction::Add(b) => self.sum(b, true)?,
            Instruction::Sub(b) => self.sum(b, false)?,
            Instruction::Scale(s) => {
                let (form, shape) = self.linear(s.arg)?;
                let frac = self.frac(form.frac().unwrap_or(0).saturating_add(s.frac))?;
                let width = form.width().unwrap_or(64);
                let spared = if matches!(form, Form::Arithmetic { .. }) { s.spared_bits() } else { 0 };
                (form.with_ring((width + spared).min(64), frac), shape)
            }
            Instruction::Mul(p) => self.product(p, &Op::Mul)?,
            Instruction::MatMul(p) => self.product(p, &Op::MatMul)?,
            Instruction::Square(s) => {
                let ((_, frac), shape) = self.masked(s.arg)?;
                (Form::Arithmetic { width: self.width("width", s.width)?, frac: self.frac(2 * frac)? }, shape)
            }
            Instruction::SquareSum(s) => {
                let ((width, frac), mut shape) = self.masked(s.arg)?;
                if s.width == 0 || s.width > width {
                    return Err(self.bounds("width", s.width.into(), "1 to the operand's width"));
                }
                match shape.last_mut() {
                    Some(last) if *last > 0 => *last = 1,
                    _ => return Err(self.wrong(s.arg, "a value with a last axis that is not empty")),
                }
                (Form::Arithmetic { width: s.width, frac: self.frac(2 * frac)? }, shape)
            }
            Instruction::Sum(s) => {
                let ((width, frac), shape) = self.arithmetic(s.arg)?;
                let reduce = Op::ReduceSum { axes: vec![s.axis as usize], keepdims: true };
                (Form::Arithmetic { width, frac }, self.shape_of(&reduce, &[&shape])?)
            }
            Instruction::Move(m) => {
                let (parsed, form, shape) = self.movement(m)?;
                op = Some(parsed);
                (form, shape)
            }
            Instruction::Place(p) => self.place(p)?,
            Instruction::Truncate(t) => {
                let (form, shape) = self.linear(t.arg)?;
                let (width, frac) = (form.width().unwrap_or(64), form.frac().unwrap_or(0));
                if t.shift >= width || t.shift > frac {
                    return Err(self.bounds(
                        "shift",
                        t.shift.into(),
                        "below the width, at most the fraction bits",
                    ));
                }
                (form.with_ring(width - t.shift, frac - t.shift), shape)
            }
            Instruction::Open(o) => {
                let ty = self.get(o.arg)?;
                let (ring, frac) = match ty.form {
                    Form::Arithmetic { width, frac } | Form::Known { width, frac, .. } => (width, frac),
                    _ => {
                        return Err(
                            self.wrong(o.arg, "additive shares or ring elements that one party knows")
                        );
                    }
                };
                if o.width == 0 || o.width > ring {
                    return Err(self.bounds("width", o.width.into(), "1 to the operand's width"));
                }
                (Form::Masked { width: o.width, frac, to: self.enumeration("to", o.to)? }, ty.shape.clone())
            }
            Instruction::Lift(l) => {
                let ((from, frac), shape) = self.masked(l.arg)?;
                if l.width < from || l.width > 64 {
                    return Err(self.bounds("width", l.width.into(), "the operand's width to 64"));
                }
                (Form::Arithmetic { width: l.width, frac }, shape)
            }
            Instruction::Table(t) => self.table(t)?,
            Instruction::Fourier(f) => self.fourier(f)?,
            Instruction::BitTable(t) => {
                let ((width, _), shape) = self.masked(t.arg)?;
                self.piece_bits(t.low_bits, t.index_bits, width)?;
                let words = (1usize << t.index_bits).div_ceil(64);
                if t.tables.is_empty() || !t.tables.len().is_multiple_of(words) || t.tables.len() / words > 64
                {
                    return Err(self.bounds("tables", t.tables.len() as i64, "1 to 64 whole tables"));
                }
                (Form::Boolean { width: (t.tables.len() / words) as u32 }, shape)
            }
            Instruction::Lines(l) => self.lines(l)?,
            Instruction::Digits(d) => {
                let ((width, _), mut shape) = self.masked(d.arg)?;
                if !(1..=5).contains(&d.digit_bits) {
                    return Err(self.bounds("digit bits", d.digit_bits.into(), "1 to 5"));
                }
                if d.width < 2 || d.width > 64 || d.low_bits > 62 || d.low_bits + d.width > width {
                    return Err(self.bounds(
                        "width",
                        d.width.into(),
                        "2 to the operand's width less the low bits",
                    ));
                }
                if d.lowest_bits > 14 || d.lowest_bits >= d.width {
                    return Err(self.bounds(
                        "lowest bits",
                        d.lowest_bits.into(),
                        "0 to 14 and below the width",
                    ));
                }
                let digits = digit_count(d) as u32;
                if digits > MAX_DIGITS {
                    return Err(self.bounds("digits", digits.into(), "1 to 7"));
                }
                if d.thresholds.is_empty() || d.thresholds.len() > 64 {
                    return Err(self.bounds("thresholds", d.thresholds.len() as i64, "1 to 64"));
                }
                shape.insert(0, d.thresholds.len());
                (Form::Boolean { width: 2 * digits }, shape)
            }
            Instruction::OpenBits(o) => match *self.get(o.arg)? {
                ValueType { form: Form::Boolean { width }, ref shape } => {
                    if o.width == 0 || o.width > width {
                        return Err(self.bounds("width", o.width.into(), "1 to the operand's width"));
                    }
                    (Form::MaskedBits { width: o.width }, shape.clone())
                }
                _ => return Err(self.wrong(o.arg, "boolean shares")),
            },
            Instruction::Compare(c) => self.compare(c)?,
            Instruction::BitProduct(b) => {
                let bits = self.bits(b.bits, b.bit, 1)?;
                let ((_, frac), shape) = self.masked(b.arg)?;
                self.equal("shapes", bits, shape.clone())?;
                (Form::Arithmetic { width: self.width("width", b.width)?, frac }, shape)
            }
            Instruction::MaskProduct(p) => {
                let bits = self.bits(p.bits, p.bit, p.count)?;
                let ((_, frac), shape) = self.masked(p.arg)?;
                self.equal("shapes", bits, shape.clone())?;
                (Form::Arithmetic { width: self.width("width", p.width)?, frac }, shape)
            }
            Instruction::BitToArithmetic(b) => {
                let shape = self.bits(b.bits, b.bit, b.count)?;
                (Form::Arithmetic { width: self.width("width", b.width)?, frac: 0 }, shape)
            }
            Instruction::OneHot(o) => {
                let ((width, frac), mut shape) = self.masked(o.arg)?;
                self.equal("fraction bits", frac, 0)?;
                if width > 20 {
                    return Err(self.bounds("index width", width.into(), "1 to 20"));
                }
                if o.depth == 0 || o.depth > 1 << width {
                    return Err(self.bounds("depth", o.depth as i64, "1 to 2^width of the index"));
                }
                shape.push(o.depth as usize);
                (Form::Arithmetic { width: self.width("width", o.width)?, frac: 0 }, shape)
            }
            Instruction::Reveal(r) => {
                let ty = self.get(r.arg)?;
                let frac = match ty.form {
                    Form::Arithmetic { frac, .. } | Form::Known { frac, .. } => frac,
                    _ => {
                        return Err(
                            self.wrong(r.arg, "additive shares or ring elements that one party knows")
                        );
                    }
                };
                if r.integer {
                    self.equal("fraction bits", frac, 0)?;
                }
                let owner = match self.enumeration("to", r.to)? {
                    Target::Both => Owner::Public,
                    Target::Client => Owner::Client,
                    Target::Server => Owner::Server,
                };
                let dtype = if r.integer { DType::I64 } else { DType::F32 };
                revealed = true;
                (Form::Plain { owner, dtype }, ty.shape.clone())
            }
        };
        self.ops.push(op);
        self.constant.push(constant);
        self.revealed.push(revealed);
        Ok(ValueType { form, shape })
    }

    fn sum(&self, b: &schema::Binary, commutes: bool) -> Result<(Form, Vec<usize>), ProgramError> {
        for (x, c) in [(b.a, b.b), (b.b, b.a)].into_iter().take(if commutes { 2 } else { 1 }) {
            let ty = self.get(x)?;
            let Form::Masked { width, frac, to: Target::Both } = ty.form else { continue };
            if !self.is_public_constant(c) {
                return Err(self.wrong(c, "a public constant, which can be added to a masked value"));
            }
            let other = self.get(c)?;
            self.equal("fraction bits", frac, other.frac().unwrap_or(0))?;
            let shape = self.shape_of(&Op::Add, &[&ty.shape, &other.shape])?;
            self.equal("shapes of sum and masked value", &shape, &ty.shape)?;
            let width = width.min(other.width().unwrap_or(64));
            return Ok((Form::Masked { width, frac, to: Target::Both }, shape));
        }
        let (a, other) = (self.get(b.a)?, self.get(b.b)?);
        if let (Form::Boolean { width }, Form::Boolean { .. }, true) = (a.form, other.form, commutes) {
            self.equal("bits of both words", other.form, a.form)?;
            self.equal("shapes of both words", &other.shape, &a.shape)?;
            return Ok((Form::Boolean { width }, a.shape.clone()));
        }
        let operand = |value: u32| {
            let ty = self.get(value)?;
            match ty.form {
                Form::Arithmetic { width, frac } => Ok((true, width, frac, ty.shape.clone())),
                Form::Known { width, frac, .. } => Ok((false, width, frac, ty.shape.clone())),
                _ => Err(self.wrong(value, "additive shares or ring elements that one party knows")),
            }
        };
        let (a_shared, a_width, a_frac, a_shape) = operand(b.a)?;
        let (b_shared, b_width, b_frac, b_shape) = operand(b.b)?;
        if !a_shared && !b_shared {
            return Err(self.wrong(b.a, "additive shares in at least one operand"));
        }
        self.equal("fraction bits", a_frac, b_frac)?;
        let shape = self.shape_of(&Op::Add, &[&a_shape, &b_shape])?;
        Ok((Form::Arithmetic { width: a_width.min(b_width), frac: a_frac }, shape))
    }

    fn product(&self, p: &schema::Product, op: &Op) -> Result<(Form, Vec<usize>), ProgramError> {
        let width = self.width("width", p.width)?;
        let (a, b) = (self.get(p.a)?.clone(), self.get(p.b)?.clone());
        let lifts = *op == Op::Mul;
        let enough = |value: u32, have: u32| {
            if have >= width { Ok(()) } else { Err(self.wrong(value, "an operand as wide as the product")) }
        };
        let public = Owner::Public;
        match (a.form, b.form) {
            (Form::Arithmetic { width: k, .. }, Form::Known { owner, width: l, .. }) if owner == public => {
                enough(p.a, k)?;
                enough(p.b, l)?;
            }
            (Form::Known { owner, width: l, .. }, Form::Arithmetic { width: k, .. }) if owner == public => {
                enough(p.a, l)?;
                enough(p.b, k)?;
            }
            (Form::Masked { width: k, to: Target::Both, frac }, Form::Known { width: l, .. })
                if !lifts && self.is_public_constant(p.b) =>
            {
                enough(p.a, k)?;
                enough(p.b, l)?;
                if b.shape.len() != 2 {
                    return Err(self.wrong(p.b, "a matrix"));
                }
                let frac = self.frac(frac + b.frac().unwrap_or(0))?;
                let form = Form::Masked { width, frac, to: Target::Both };
                return Ok((form, self.shape_of(op, &[&a.shape, &b.shape])?));
            }
            (
                Form::Masked { width: k, to: Target::Both, .. },
                Form::Masked { width: l, to: Target::Both, .. },
            ) => {
                if !lifts {
                    enough(p.a, k)?;
                    enough(p.b, l)?;
                }
            }
            (Form::Masked { width: k, to: Target::Server, .. }, Form::Weight { width: l, .. }) => {
                enough(p.a, k)?;
                enough(p.b, l)?;
                if !lifts && b.shape.len() != 2 {
                    return Err(self.wrong(p.b, "a weight matrix"));
                }
            }
            _ => return Err(self.wrong(p.b, "a factor that its partner can be multiplied with")),
        }
        let frac = self.frac(a.frac().unwrap_or(0) + b.frac().unwrap_or(0))?;
        Ok((Form::Arithmetic { width, frac }, self.shape_of(op, &[&a.shape, &b.shape])?))
    }

    fn movement(&self, m: &schema::Move) -> Result<(Op, Form, Vec<usize>), ProgramError> {
        let op = self.parse_op(&m.op)?;
        let Some(&first) = m.args.first() else {
            return Err(ProgramError::Length { at: self.at, field: "operands", found: 0, expected: 1 });
        };
        let mut form = self.get(first)?.form;
        if !op.is_movement() || matches!(op, Op::GatherNd { .. } | Op::Trilu { .. } | Op::ScatterNd) {
            return Err(self.bounds("operation", self.at as i64, "a movement of whole elements"));
        }
        if matches!(form, Form::Plain { .. } | Form::Weight { .. }) {
            return Err(self.wrong(first, "shares, masked values or encoded ring elements"));
        }
        let mut types = Vec::new();
        for (position, &arg) in m.args.iter().enumerate() {
            if position == 1 && matches!(op, Op::Gather { .. }) {
                types.push(self.public_indices(arg)?);
                continue;
            }
            let ty = self.get(arg)?;
            form = match (form, ty.form) {
                (Form::Arithmetic { width, frac }, Form::Arithmetic { width: w, frac: f }) if f == frac => {
                    Form::Arithmetic { width: width.min(w), frac }
                }
                (have, found) => {
                    self.equal("forms", have, found)?;
                    have
                }
            };
            types.push(TensorType { dtype: DType::F32, shape: ty.shape.clone() });
        }
        let ty = infer(&op, &types).map_err(|source| ProgramError::Op { at: self.at, source })?;
        Ok((op, form, ty.shape))
    }

    fn place(&self, p: &schema::Place) -> Result<(Form, Vec<usize>), ProgramError> {
        let ty = self.get(p.arg)?;
        if !matches!(ty.form, Form::Arithmetic { .. } | Form::Masked { .. }) {
            return Err(self.wrong(p.arg, "additive shares or a masked value"));
        }
        let indices = self.public_indices(p.indices)?;
        let mut shape = ty.shape.clone();
        let axis = p.axis as usize;
        if axis >= shape.len() {
            return Err(self.bounds("axis", p.axis.into(), "below the rank"));
        }
        self.equal("index count and axis length", indices.shape, vec![shape[axis]])?;
        if p.size > MAX_ELEMENTS || (p.size as usize) < shape[axis] {
            return Err(self.bounds("size", p.size as i64, "at least the axis length"));
        }
        shape[axis] = p.size as usize;
        Ok((ty.form, shape))
    }
}
