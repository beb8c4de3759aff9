//! A program in the making: instructions whose ring widths are still open.
//!
//! Every value carries its shape, its fraction bits and a bound on its magnitude. Widths follow from what consumers
//! need (see `width`), so the instructions are built with a width of 0.

use std::collections::BTreeMap;

use marill_plaintext::{DType, Op, TensorType, infer};
use marill_program::correlation::digit_count;
use marill_program::schema::{self, Instruction};
use marill_program::{Owner, Target};

use super::Result;
use crate::diagnostic::Diagnostic;
use crate::ir::ValueId;

/// A value of the draft.
pub type Id = u32;

/// How a drafted value is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain { owner: Owner, dtype: DType },
    Known { owner: Owner },
    Weight,
    Arithmetic,
    Boolean { width: u32 },
    Masked { to: Target },
    Bits { width: u32 },
}

/// How a masked operand enters an instruction that can lift it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// In the ring of the result.
    Wide,
    /// In a ring of at least so many bits, lifted by the instruction.
    Narrow(u32),
}

/// One instruction and what is known about its value.
#[derive(Clone, Debug)]
pub struct Draft {
    pub instruction: Instruction,
    pub kind: Kind,
    pub shape: Vec<usize>,
    pub frac: u32,
    /// Bound on the magnitude of the real value, which it never reaches, carries included.
    pub bound: f64,
    pub group: u32,
    /// For instructions that lift: how the masked operands (in order) come.
    pub operands: [Operand; 2],
    /// Bits that the value needs on its own account, whoever uses it.
    pub least_width: u32,
}

impl Draft {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Builds a draft, merging what is asked for twice.
#[derive(Default)]
pub struct Builder {
    pub drafts: Vec<Draft>,
    pub groups: Vec<String>,
    pub outputs: Vec<schema::Output>,
    /// Which draft holds which shared graph value, kept up to date when drafts move.
    pub held: Vec<(ValueId, Id)>,
    /// Name of the node being lowered, for diagnostics.
    pub node: String,
    group: u32,
    opened: BTreeMap<(Id, i32), Id>,
    truncated: BTreeMap<(Id, u32), Id>,
    lifted: BTreeMap<Id, Id>,
    encoded: BTreeMap<(Id, u32), Id>,
    weights: BTreeMap<(Id, u32), Id>,
}

/// Bits of a ring in which values up to `bound` can be lifted: |x| < 2^(k-2).
pub fn signed_bits(bound: f64, frac: u32) -> u32 {
    let magnitude = bound.max(f64::MIN_POSITIVE).log2() + f64::from(frac);
    (magnitude.ceil().max(0.0) as u32).saturating_add(2)
}

impl Builder {
    /// Starts a group: the following instructions come from graph node `name`.
    pub fn start_group(&mut self, name: &str) {
        self.group = self.groups.len() as u32;
        self.groups.push(name.to_owned());
    }

    /// The draft of a value.
    pub fn get(&self, id: Id) -> &Draft {
        &self.drafts[id as usize]
    }

    /// A value's shape.
    pub fn shape(&self, id: Id) -> &[usize] {
        &self.get(id).shape
    }

    /// A value's fraction bits.
    pub fn frac(&self, id: Id) -> u32 {
        self.get(id).frac
    }

    /// A value's bound.
    pub fn bound(&self, id: Id) -> f64 {
        self.get(id).bound
    }

    /// Replaces a value's bound by one that its role gives.
    pub fn set_bound(&mut self, id: Id, bound: f64) {
        self.drafts[id as usize].bound = bound;
    }

    fn push(&mut self, instruction: Instruction, kind: Kind, shape: Vec<usize>, frac: u32, bound: f64) -> Id {
        let operands = [Operand::Wide; 2];
        let group = self.group;
        self.drafts.push(Draft { instruction, kind, shape, frac, bound, group, operands, least_width: 1 });
        (self.drafts.len() - 1) as Id
    }

    fn typed(&self, op: &Op, types: &[TensorType]) -> Result<TensorType> {
        infer(op, types).map_err(|e| Diagnostic::new(&self.node, e))
    }

    fn infer(&self, op: &Op, shapes: &[&[usize]]) -> Result<Vec<usize>> {
        let types: Vec<TensorType> = shapes.iter().map(|s| TensorType::new(DType::F32, s.to_vec())).collect();
        self.typed(op, &types).map(|ty| ty.shape)
    }

    /// A run-time input.
    pub fn input(&mut self, name: &str, owner: Owner, ty: &TensorType) -> Id {
        let input = schema::Input { name: name.to_owned(), owner: owner as i32, ty: ty.to_string() };
        self.push(
            Instruction::Input(input),
            Kind::Plain { owner, dtype: ty.dtype },
            ty.shape.clone(),
            0,
            f64::INFINITY,
        )
    }

    /// A constant of the bundle.
    pub fn constant(&mut self, name: &str, owner: Owner, ty: &TensorType) -> Id {
        let constant = schema::Constant { name: name.to_owned(), owner: owner as i32, ty: ty.to_string() };
        self.push(
            Instruction::Constant(constant),
            Kind::Plain { owner, dtype: ty.dtype },
            ty.shape.clone(),
            0,
            f64::INFINITY,
        )
    }

    /// A tensor operation in the clear; the operands' owners must allow it.
    pub fn plain(&mut self, op: &Op, args: &[Id]) -> Result<Id> {
        let mut owner = Owner::Public;
        let mut types = Vec::new();
        for &arg in args {
            let draft = self.get(arg);
            if let Kind::Plain { owner: o, dtype } = draft.kind {
                owner = owner.max(o);
                types.push(TensorType::new(dtype, draft.shape.clone()));
            }
        }
        let ty = self.typed(op, &types)?;
        let plain = schema::Plain { op: op.to_string(), args: args.to_vec() };
        let kind = Kind::Plain { owner, dtype: ty.dtype };
        Ok(self.push(Instruction::Plain(plain), kind, ty.shape, 0, f64::INFINITY))
    }

    /// Ring elements of a clear tensor whose magnitude `bound` limits.
    pub fn encode(&mut self, arg: Id, frac: u32, bound: f64) -> Id {
        if let Some(&id) = self.encoded.get(&(arg, frac)) {
            return id;
        }
        let Kind::Plain { owner, .. } = self.get(arg).kind else { return arg };
        let shape = self.shape(arg).to_vec();
        let encode = schema::Encode { arg, width: 0, frac };
        let id = self.push(Instruction::Encode(encode), Kind::Known { owner }, shape, frac, bound);
        self.drafts[id as usize].least_width = signed_bits(bound, frac);
        self.encoded.insert((arg, frac), id);
        id
    }

    /// A constant of the server as a factor.
    pub fn weight(&mut self, arg: Id, frac: u32) -> Id {
        if let Some(&id) = self.weights.get(&(arg, frac)) {
            return id;
        }
        let shape = self.shape(arg).to_vec();
        let weight = schema::Weight { arg, width: 0, frac };
        let id = self.push(Instruction::Weight(weight), Kind::Weight, shape, frac, f64::INFINITY);
        self.weights.insert((arg, frac), id);
        id
    }

    /// Shares of known ring elements.
    pub fn share(&mut self, arg: Id) -> Id {
        let (shape, frac, bound) = (self.shape(arg).to_vec(), self.frac(arg), self.bound(arg));
        self.push(Instruction::Share(schema::Share { arg }), Kind::Arithmetic, shape, frac, bound)
    }

    fn binary(&mut self, a: Id, b: Id, subtract: bool) -> Result<Id> {
        debug_assert_eq!(self.frac(a), self.frac(b));
        let shape = self.infer(&Op::Add, &[self.shape(a), self.shape(b)])?;
        let (frac, bound) = (self.frac(a), self.bound(a) + self.bound(b));
        let operands = schema::Binary { a, b };
        let instruction = if subtract { Instruction::Sub(operands) } else { Instruction::Add(operands) };
        Ok(self.push(instruction, Kind::Arithmetic, shape, frac, bound))
    }

    /// `a + b` of equal fraction bits.
    pub fn add(&mut self, a: Id, b: Id) -> Result<Id> {
        self.binary(a, b, false)
    }

    /// The exclusive or of boolean words of equal shape.
    pub fn exclusive_or(&mut self, a: Id, b: Id) -> Id {
        let (shape, kind) = (self.shape(a).to_vec(), self.get(a).kind);
        self.push(Instruction::Add(schema::Binary { a, b }), kind, shape, 0, 1.0)
    }

    /// `a - b` of equal fraction bits.
    pub fn sub(&mut self, a: Id, b: Id) -> Result<Id> {
        self.binary(a, b, true)
    }

    /// `x * factor / 2^frac`.
    pub fn scale(&mut self, arg: Id, factor: i64, frac: u32) -> Id {
        let shape = self.shape(arg).to_vec();
        let bound = self.bound(arg) * (factor as f64).abs() / 2f64.powi(frac as i32);
        let total = self.frac(arg) + frac;
        let scale = schema::Scale { arg, factor, frac };
        self.push(Instruction::Scale(scale), Kind::Arithmetic, shape, total, bound)
    }

    /// Shares with exactly `frac` fraction bits: truncated, or scaled up.
    pub fn at_frac(&mut self, arg: Id, frac: u32) -> Id {
        let have = self.frac(arg);
        if have == frac {
            return arg;
        }
        if let Some(&id) = self.truncated.get(&(arg, frac)) {
            return id;
        }
        let id = if have > frac {
            let (shape, bound) = (self.shape(arg).to_vec(), self.bound(arg));
            let truncate = schema::Truncate { arg, shift: have - frac };
            self.push(Instruction::Truncate(truncate), Kind::Arithmetic, shape, frac, bound)
        } else {
            let bound = self.bound(arg);
            let id = self.scale(arg, 1 << (frac - have), frac - have);
            self.set_bound(id, bound);
            id
        };
        self.truncated.insert((arg, frac), id);
        id
    }

    /// Element-wise product; masked operands come as `operands` say.
    pub fn mul(&mut self, a: Id, b: Id, operands: [Operand; 2], bound: f64) -> Result<Id> {
        self.product(a, b, &Op::Mul, operands, bound)
    }

    /// Matrix product.
    pub fn matmul(&mut self, a: Id, b: Id, bound: f64) -> Result<Id> {
        self.product(a, b, &Op::MatMul, [Operand::Wide; 2], bound)
    }

    fn product(&mut self, a: Id, b: Id, op: &Op, operands: [Operand; 2], bound: f64) -> Result<Id> {
        let shape = self.infer(op, &[self.shape(a), self.shape(b)])?;
        let frac = self.frac(a) + self.frac(b);
        let product = schema::Product { a, b, width: 0 };
        let instruction =
            if *op == Op::Mul { Instruction::Mul(product) } else { Instruction::MatMul(product) };
        let id = self.push(instruction, Kind::Arithmetic, shape, frac, bound);
        self.drafts[id as usize].operands = operands;
        Ok(id)
    }

    /// A value opened to both with at most `frac` fraction bits: the others are dropped under its mask.
    pub fn coarser(&mut self, opened: Id, frac: u32) -> Id {
        let shift = self.frac(opened).saturating_sub(frac);
        if shift == 0 {
            return opened;
        }
        let (shape, bound) = (self.shape(opened).to_vec(), self.bound(opened));
        let truncate = schema::Truncate { arg: opened, shift };
        self.push(Instruction::Truncate(truncate), Kind::Masked { to: Target::Both }, shape, frac, bound)
    }

    /// Square of a masked value.
    pub fn square(&mut self, arg: Id, operand: Operand) -> Id {
        let (shape, frac, bound) = (self.shape(arg).to_vec(), 2 * self.frac(arg), self.bound(arg));
        let square = schema::Square { arg, width: 0 };
        let id = self.push(Instruction::Square(square), Kind::Arithmetic, shape, frac, bound * bound);
        self.drafts[id as usize].operands = [operand; 2];
        id
    }

    /// Sum of squares of a masked value along its last axis, which stays with length 1.
    pub fn square_sum(&mut self, arg: Id) -> Id {
        let (mut shape, frac, bound) = (self.shape(arg).to_vec(), 2 * self.frac(arg), self.bound(arg));
        let length = shape.last_mut().map_or(1, |last| std::mem::replace(last, 1));
        let sum = schema::SquareSum { arg, width: 0 };
        self.push(Instruction::SquareSum(sum), Kind::Arithmetic, shape, frac, bound * bound * length as f64)
    }

    /// Sum along an axis, which stays with length 1.
    pub fn sum(&mut self, arg: Id, axis: usize) -> Id {
        let mut shape = self.shape(arg).to_vec();
        let bound = self.bound(arg) * shape[axis] as f64;
        shape[axis] = 1;
        let sum = schema::Sum { arg, axis: axis as u32 };
        let frac = self.frac(arg);
        self.push(Instruction::Sum(sum), Kind::Arithmetic, shape, frac, bound)
    }

    /// A movement operation on values of one form; for `Gather`, `args[1]` are public indices.
    pub fn movement(&mut self, op: &Op, args: &[Id]) -> Result<Id> {
        let first = self.get(args[0]);
        if let (Op::Reshape { shape }, true) = (op, args.len() == 1)
            && *shape == first.shape
        {
            return Ok(args[0]);
        }
        let (kind, frac) = (first.kind, first.frac);
        let mut types = Vec::new();
        let mut bound = 0.0f64;
        for (position, &arg) in args.iter().enumerate() {
            let indices = position == 1 && matches!(op, Op::Gather { .. });
            let dtype = if indices { DType::I64 } else { DType::F32 };
            types.push(TensorType::new(dtype, self.shape(arg).to_vec()));
            if !indices {
                bound = bound.max(self.bound(arg));
            }
        }
        let ty = self.typed(op, &types)?;
        let movement = schema::Move { op: op.to_string(), args: args.to_vec() };
        Ok(self.push(Instruction::Move(movement), kind, ty.shape, frac, bound))
    }

    /// Puts slices at `indices` along `axis` of a zero tensor.
    pub fn place(&mut self, arg: Id, indices: Id, axis: usize, size: usize) -> Id {
        let draft = self.get(arg);
        let (kind, frac, bound) = (draft.kind, draft.frac, draft.bound);
        let mut shape = draft.shape.clone();
        shape[axis] = size;
        let place = schema::Place { arg, indices, axis: axis as u32, size: size as u64 };
        self.push(Instruction::Place(place), kind, shape, frac, bound)
    }

    /// Opens shares or known ring elements under a mask, once for each receiver. What was only moved is opened
    /// before the move, where it is not larger.
    pub fn open(&mut self, arg: Id, to: Target) -> Id {
        if let Some(&id) = self.opened.get(&(arg, to as i32)) {
            return id;
        }
        if let Some(id) = self.open_before_move(arg, to).or_else(|| self.open_before_product(arg, to)) {
            self.opened.insert((arg, to as i32), id);
            return id;
        }
        let (shape, frac, bound) = (self.shape(arg).to_vec(), self.frac(arg), self.bound(arg));
        let open = schema::Open { arg, to: to as i32, width: 0 };
        let id = self.push(Instruction::Open(open), Kind::Masked { to }, shape, frac, bound);
        self.opened.insert((arg, to as i32), id);
        id
    }

    fn open_before_move(&mut self, arg: Id, to: Target) -> Option<Id> {
        let draft = self.get(arg).clone();
        if draft.kind != Kind::Arithmetic {
            return None;
        }
        match draft.instruction {
            Instruction::Place(p) => {
                let inner = self.open(p.arg, to);
                Some(self.place(inner, p.indices, p.axis as usize, p.size as usize))
            }
            Instruction::Move(m) if m.args.len() == 1 && self.get(m.args[0]).len() <= draft.len() => {
                let inner = self.open(m.args[0], to);
                self.movement(&m.op.parse().ok()?, &[inner]).ok()
            }
            _ => None,
        }
    }

    /// Public linear work on shares is done on the masked value instead where that is open: the opened factor of a
    /// product with a public matrix gives the product, masked.
    fn open_before_product(&mut self, arg: Id, to: Target) -> Option<Id> {
        let source = self.product_source(arg)?;
        let is_opened = self.opened.contains_key(&(source, to as i32));
        (to == Target::Both && is_opened).then(|| self.under_mask(arg)).flatten()
    }

    /// Whether ring elements are an encoded public constant.
    fn is_public_constant(&self, id: Id) -> bool {
        match self.get(id).instruction {
            Instruction::Encode(ref e) => {
                let arg = self.get(e.arg);
                matches!(arg.kind, Kind::Plain { owner: Owner::Public, .. })
                    && matches!(arg.instruction, Instruction::Constant(_))
            }
            _ => false,
        }
    }

    /// The shared operand of the product with a public matrix that linear work on one value alone made `id` of.
    fn product_source(&self, id: Id) -> Option<Id> {
        let draft = self.get(id);
        if draft.kind != Kind::Arithmetic {
            return None;
        }
        match &draft.instruction {
            Instruction::MatMul(p) => {
                let is_linear = self.get(p.a).kind == Kind::Arithmetic
                    && self.is_public_constant(p.b)
                    && self.shape(p.b).len() == 2;
                is_linear.then_some(p.a)
            }
            Instruction::Add(b) | Instruction::Sub(b) => {
                let fits = self.is_public_constant(b.b) && self.shape(b.a) == draft.shape;
                fits.then(|| self.product_source(b.a)).flatten()
            }
            Instruction::Scale(s) => self.product_source(s.arg),
            Instruction::Truncate(t) => self.product_source(t.arg),
            Instruction::Move(m) if m.args.len() == 1 => self.product_source(m.args[0]),
            _ => None,
        }
    }

    /// The same work as made `id`, for which [`Self::product_source`] has an answer, under a mask.
    fn under_mask(&mut self, id: Id) -> Option<Id> {
        if let Some(&id) = self.opened.get(&(id, Target::Both as i32)) {
            return Some(id);
        }
        let draft = self.get(id).clone();
        let instruction = match draft.instruction {
            Instruction::MatMul(p) => {
                let a = self.open(p.a, Target::Both);
                Instruction::MatMul(schema::Product { a, ..p })
            }
            Instruction::Add(b) => Instruction::Add(schema::Binary { a: self.under_mask(b.a)?, b: b.b }),
            Instruction::Sub(b) => Instruction::Sub(schema::Binary { a: self.under_mask(b.a)?, b: b.b }),
            Instruction::Scale(s) => Instruction::Scale(schema::Scale { arg: self.under_mask(s.arg)?, ..s }),
            Instruction::Truncate(t) => {
                Instruction::Truncate(schema::Truncate { arg: self.under_mask(t.arg)?, ..t })
            }
            Instruction::Move(m) => {
                let inner = self.under_mask(m.args[0])?;
                return self.movement(&m.op.parse().ok()?, &[inner]).ok();
            }
            _ => return None,
        };
        let kind = Kind::Masked { to: Target::Both };
        let masked = self.push(instruction, kind, draft.shape, draft.frac, draft.bound);
        self.opened.insert((id, Target::Both as i32), masked);
        Some(masked)
    }

    /// Whether a masked value was computed under its mask rather than opened itself.
    pub fn is_derived(&self, masked: Id) -> bool {
        match &self.get(masked).instruction {
            Instruction::Open(_) => false,
            Instruction::Move(m) => m.args.first().is_some_and(|&a| self.is_derived(a)),
            Instruction::Place(p) => self.is_derived(p.arg),
            _ => true,
        }
    }

    /// A masked value in whatever ring its users need.
    pub fn lift(&mut self, arg: Id) -> Id {
        if let Some(&id) = self.lifted.get(&arg) {
            return id;
        }
        let (shape, frac, bound) = (self.shape(arg).to_vec(), self.frac(arg), self.bound(arg));
        let lift = schema::Lift { arg, width: 0 };
        let id = self.push(Instruction::Lift(lift), Kind::Arithmetic, shape, frac, bound);
        self.drafts[id as usize].operands = [Operand::Narrow(signed_bits(bound, frac)); 2];
        self.lifted.insert(arg, id);
        id
    }

    /// A piecewise function; see [`schema::Table`]. `table.arg` is the masked operand.
    pub fn table(&mut self, table: schema::Table, bound: f64) -> Id {
        let (shape, frac) = (self.shape(table.arg).to_vec(), table.entry_frac + table.power_frac);
        self.push(Instruction::Table(table), Kind::Arithmetic, shape, frac, bound)
    }

    /// A trigonometric polynomial; see [`schema::Fourier`].
    pub fn fourier(&mut self, fourier: schema::Fourier, bound: f64) -> Id {
        let (shape, frac) = (self.shape(fourier.arg).to_vec(), fourier.entry_frac + fourier.power_frac);
        self.push(Instruction::Fourier(fourier), Kind::Arithmetic, shape, frac, bound)
    }

    /// Truth tables over a masked value's high bits; `count` tables.
    pub fn bit_table(&mut self, table: schema::BitTable, count: u32) -> Id {
        let shape = self.shape(table.arg).to_vec();
        self.push(Instruction::BitTable(table), Kind::Boolean { width: count }, shape, 0, 1.0)
    }

    /// Lines over a masked value's pieces, opened: the slopes' bits, and above them as many of the values as the ring of
    /// [`Self::bits_to_arithmetic`] has.
    pub fn opened_lines(&mut self, lines: schema::Lines, operand: Operand) -> Id {
        let shape = self.shape(lines.arg).to_vec();
        let id = self.push(Instruction::Lines(lines), Kind::Boolean { width: 0 }, shape, 0, 1.0);
        self.drafts[id as usize].operands = [operand; 2];
        self.open_bits(id, 0)
    }

    /// `x >= threshold` for each threshold, as opened-bits-ready shares of shape `[thresholds, ...]`.
    pub fn compare(&mut self, digits: schema::Digits) -> Id {
        let mut shape = self.shape(digits.arg).to_vec();
        shape.insert(0, digits.thresholds.len());
        let width = 2 * digit_count(&digits) as u32;
        let kind = Kind::Boolean { width };
        let digits = self.push(Instruction::Digits(digits), kind, shape.clone(), 0, 1.0);
        let opened = self.open_bits(digits, width - 1);
        let compare = schema::Compare { digits, opened };
        self.push(Instruction::Compare(compare), Kind::Boolean { width: 1 }, shape, 0, 1.0)
    }

    /// Opens the low `width` bits of boolean words under fresh masks.
    pub fn open_bits(&mut self, arg: Id, width: u32) -> Id {
        let shape = self.shape(arg).to_vec();
        let open = schema::OpenBits { arg, width };
        self.push(Instruction::OpenBits(open), Kind::Bits { width }, shape, 0, 1.0)
    }

    /// Bit `bit` of opened words times a masked value.
    pub fn bit_product(&mut self, bits: Id, bit: u32, arg: Id, operand: Operand) -> Id {
        let (shape, frac, bound) = (self.shape(arg).to_vec(), self.frac(arg), self.bound(arg));
        let product = schema::BitProduct { bits, bit, arg, width: 0 };
        let id = self.push(Instruction::BitProduct(product), Kind::Arithmetic, shape, frac, bound);
        self.drafts[id as usize].operands = [operand; 2];
        id
    }

    /// Bit `bit` of opened words as a number.
    pub fn bit_to_arithmetic(&mut self, bits: Id, bit: u32) -> Id {
        self.arithmetic_of(schema::BitToArithmetic { bits, bit, width: 0, count: 1 })
    }

    /// The number that the bits of opened words from `bit` on write, as many as its ring has.
    pub fn bits_to_arithmetic(&mut self, bits: Id, bit: u32) -> Id {
        self.arithmetic_of(schema::BitToArithmetic { bits, bit, width: 0, count: 0 })
    }

    fn arithmetic_of(&mut self, convert: schema::BitToArithmetic) -> Id {
        let shape = self.shape(convert.bits).to_vec();
        self.push(Instruction::BitToArithmetic(convert), Kind::Arithmetic, shape, 0, 1.0)
    }

    /// The number that the lowest `count` bits of opened words write times what a masked value's mask takes away.
    pub fn mask_product(&mut self, bits: Id, count: u32, arg: Id, operand: Operand) -> Id {
        let (shape, frac, bound) = (self.shape(arg).to_vec(), self.frac(arg), self.bound(arg));
        let product = schema::MaskProduct { bits, bit: 0, count, arg, width: 0 };
        let id = self.push(Instruction::MaskProduct(product), Kind::Arithmetic, shape, frac, bound);
        self.drafts[id as usize].operands = [operand; 2];
        id
    }

    /// One-hot vectors of a masked index below `depth`.
    pub fn one_hot(&mut self, arg: Id, depth: usize) -> Id {
        let mut shape = self.shape(arg).to_vec();
        shape.push(depth);
        let hot = schema::OneHot { arg, depth: depth as u64, width: 0 };
        self.push(Instruction::OneHot(hot), Kind::Arithmetic, shape, 0, 1.0)
    }

    /// Discloses a value; it must become a declared output.
    pub fn reveal(&mut self, arg: Id, to: Target, integer: bool) -> Id {
        let owner = match to {
            Target::Both => Owner::Public,
            Target::Client => Owner::Client,
            Target::Server => Owner::Server,
        };
        let dtype = if integer { DType::I64 } else { DType::F32 };
        let shape = self.shape(arg).to_vec();
        let reveal = schema::Reveal { arg, to: to as i32, integer };
        self.push(Instruction::Reveal(reveal), Kind::Plain { owner, dtype }, shape, 0, f64::INFINITY)
    }

    /// Makes sure that a value's ring has at least `bits` bits.
    pub fn require_width(&mut self, id: Id, bits: u32) {
        let draft = &mut self.drafts[id as usize];
        draft.least_width = draft.least_width.max(bits);
    }
}
