//! Instructions without communication.

use std::borrow::Cow;
use std::time::Instant;

use marill_plaintext::{Op, Tensor, evaluate};
use marill_program::schema::{Move, Place, Product};
use marill_program::{Form, Instruction, Owner, Ring};

use super::encode::{Layout, encode_tensor};
use super::value::Value;
use super::{Executor, failed, not_held, weights};
use crate::correlation::prepared::weighted;
use crate::error::RunError;
use crate::protocol::lift::{Fields, Operand, lift};
use crate::protocol::local::{self, Movable};
use crate::protocol::{bits, compare, fourier, masked, one_hot, product, table, truncate};
use crate::sharing::{BitShare, Masked, MaskedBits, Party, Share};

impl Executor<'_> {
    fn value(&self, value: u32) -> Option<&Value> {
        self.values[value as usize].as_ref().or_else(|| self.constants.get(value))
    }

    pub(super) fn width(&self, value: u32) -> u32 {
        self.program.ty(value).width().unwrap_or(64)
    }

    /// A clear tensor, or `None` where it is the other party's.
    pub(super) fn plain(&self, value: u32) -> Result<Option<Tensor>, RunError> {
        match &self.values[value as usize] {
            Some(Value::Plain(tensor)) => Ok(Some(tensor.clone())),
            _ => self.constants.plain(value),
        }
    }

    fn tensor(&self, at: u32, value: u32) -> Result<Tensor, RunError> {
        self.plain(value)?.ok_or_else(|| not_held(at, "a clear tensor"))
    }

    /// Ring elements that this party knows, or `None` where they are the other party's.
    pub(super) fn known(&self, value: u32) -> Result<Option<Cow<'_, Ring>>, RunError> {
        Ok(match self.value(value) {
            Some(Value::Known(ring)) => Some(Cow::Borrowed(ring)),
            Some(Value::Recoded) => Some(Cow::Owned(self.constants.encoded(value)?)),
            _ => None,
        })
    }

    /// This party's summand of an `Arithmetic` or `Known` value; `None` where it is zero throughout.
    pub(super) fn summand(&self, at: u32, value: u32) -> Result<Option<Cow<'_, Ring>>, RunError> {
        match (self.value(value), self.program.ty(value).form) {
            (Some(Value::Arithmetic(share)), _) => Ok(Some(Cow::Borrowed(share.ring()))),
            (Some(_), Form::Known { owner, .. }) if !self.party.holds(owner) => Ok(None),
            (Some(_), Form::Known { .. }) => {
                self.known(value)?.map(Some).ok_or_else(|| not_held(at, "ring elements"))
            }
            _ => Err(not_held(at, "additive shares")),
        }
    }

    /// Shares of an `Arithmetic` or `Known` value.
    pub(super) fn share(&self, at: u32, value: u32) -> Result<Cow<'_, Share>, RunError> {
        if let Some(Value::Arithmetic(share)) = self.value(value) {
            return Ok(Cow::Borrowed(share));
        }
        Ok(Cow::Owned(local::share(self.summand(at, value)?, &self.program.ty(value).shape)))
    }

    /// A shared value of which instruction `at` is the last use. Clear ones stay: before a run some of them are made out of the
    /// plan's order.
    fn take(&mut self, at: u32, value: u32) -> Option<Value> {
        let held = &mut self.values[value as usize];
        let is_last = self.plan.last_use[value as usize] == at;
        if is_last && held.as_ref().is_some_and(Value::is_shared) { held.take() } else { None }
    }

    /// As [`Executor::share`], owned where instruction `at` is its last use.
    fn last_share(&mut self, at: u32, value: u32) -> Result<Cow<'_, Share>, RunError> {
        match self.take(at, value) {
            Some(Value::Arithmetic(share)) => Ok(Cow::Owned(share)),
            _ => self.share(at, value),
        }
    }

    /// The operands of a sum, each owned where instruction `at` is its last use.
    fn summands(&mut self, at: u32, a: u32, b: u32) -> Result<[Cow<'_, Share>; 2], RunError> {
        let taken = if a == b { [None, None] } else { [self.take(at, a), self.take(at, b)] };
        let [x, y] = taken;
        let owned_or = |taken, value| match taken {
            Some(Value::Arithmetic(share)) => Ok(Cow::Owned(share)),
            _ => self.share(at, value),
        };
        Ok([owned_or(x, a)?, owned_or(y, b)?])
    }

    pub(super) fn bit_share(&self, at: u32, value: u32) -> Result<&BitShare, RunError> {
        match self.value(value) {
            Some(Value::Boolean(share)) => Ok(share),
            _ => Err(not_held(at, "boolean shares")),
        }
    }

    fn masked(&self, at: u32, value: u32) -> Result<&Masked, RunError> {
        match self.value(value) {
            Some(Value::Masked(masked)) => Ok(masked),
            _ => Err(not_held(at, "a masked value")),
        }
    }

    fn opened(&self, at: u32, value: u32) -> Result<&Ring, RunError> {
        self.masked(at, value)?.opened.as_ref().ok_or_else(|| not_held(at, "an opened value"))
    }

    fn masked_bits(&self, at: u32, value: u32) -> Result<&MaskedBits, RunError> {
        match self.value(value) {
            Some(Value::MaskedBits(masked)) => Ok(masked),
            _ => Err(not_held(at, "opened bits")),
        }
    }

    fn fields(&mut self, at: u32) -> Result<Fields, RunError> {
        Ok(self.correlations.fields(at)?.into_iter())
    }

    fn operand(&self, at: u32, value: u32, to: u32, fields: &mut Fields) -> Result<Operand<'_>, RunError> {
        Operand::new(self.masked(at, value)?, self.width(value), to, fields)
            .ok_or_else(|| not_held(at, "an opened value with its correlations"))
    }

    /// The value of instruction `at`, which does not communicate.
    pub(super) fn local(&mut self, at: u32) -> Result<Value, RunError> {
        let (program, party) = (self.program, self.party);
        let ty = program.ty(at);
        let missing = || not_held(at, "its correlations");
        let arithmetic = match program.instruction(at as usize) {
            Instruction::Input(input) => {
                return Ok(self.inputs.get(&input.name).cloned().map_or(Value::Absent, Value::Plain));
            }
            Instruction::Plain(p) => return self.evaluate(at, &p.args),
            Instruction::Encode(e) => {
                let Some(tensor) = self.plain(e.arg)? else { return Ok(Value::Absent) };
                let layout = Layout { width: e.width, frac: e.frac };
                return encode_tensor(program, at, &tensor, layout).map(Value::Known);
            }
            Instruction::Move(m) => return self.movement(at, m),
            Instruction::Place(p) => return self.place(at, p),
            Instruction::BitTable(t) => {
                let fields = self.correlations.fields(at)?;
                let unit = fields.first().ok_or_else(missing)?;
                return Ok(Value::Boolean(bits::tables(t, self.opened(at, t.arg)?, unit)));
            }
            Instruction::Lines(l) => {
                let fields = self.correlations.fields(at)?;
                let unit = fields.first().ok_or_else(missing)?;
                return Ok(Value::Boolean(bits::lines(l, self.opened(at, l.arg)?, self.width(l.arg), unit)));
            }
            Instruction::Digits(d) => {
                let fields = self.correlations.fields(at)?;
                let words = compare::digits(party, d, self.opened(at, d.arg)?, &ty.shape, &fields);
                return words.map(Value::Boolean).ok_or_else(missing);
            }
            Instruction::Compare(c) => {
                let fields = self.correlations.fields(at)?;
                let (words, opened) = (self.bit_share(at, c.digits)?, self.masked_bits(at, c.opened)?);
                let bits = compare::combine(words, self.width(c.digits), opened, &fields);
                return bits.map(Value::Boolean).ok_or_else(missing);
            }
            Instruction::Add(b) if matches!(ty.form, Form::Boolean { .. }) => {
                let (x, y) = (self.bit_share(at, b.a)?, self.bit_share(at, b.b)?);
                return Ok(Value::Boolean(local::exclusive_or(x, y)));
            }
            _ if matches!(ty.form, Form::Masked { .. }) => return self.under_mask(at).map(Value::Masked),
            Instruction::Share(s) => self.last_share(at, s.arg)?.into_owned(),
            Instruction::Add(b) => {
                let [x, y] = self.summands(at, b.a, b.b)?;
                local::add(x, y, &ty.shape)
            }
            Instruction::Sub(b) => {
                let [x, y] = self.summands(at, b.a, b.b)?;
                local::sub(x, y, &ty.shape)
            }
            Instruction::Scale(s) => local::scale(self.last_share(at, s.arg)?, s.factor),
            Instruction::Sum(s) => local::sum(&*self.share(at, s.arg)?, s.axis as usize),
            Instruction::Mul(p) => self.product(at, p, &Op::Mul)?,
            Instruction::MatMul(p) => self.product(at, p, &Op::MatMul)?,
            Instruction::Square(s) => {
                let mut fields = self.fields(at)?;
                let x = self.operand(at, s.arg, s.width, &mut fields)?;
                product::square(party, &x, &mut fields).ok_or_else(missing)?
            }
            Instruction::SquareSum(s) => {
                let mut fields = self.fields(at)?;
                let x = self.operand(at, s.arg, s.width, &mut fields)?;
                product::square_sum(party, &x, &ty.shape, &mut fields).ok_or_else(missing)?
            }
            Instruction::Truncate(t) => {
                let width = self.width(t.arg);
                truncate::truncate(party, self.last_share(at, t.arg)?, width, t.shift)
            }
            Instruction::Lift(l) => {
                let mut fields = self.fields(at)?;
                lift(party, &self.operand(at, l.arg, l.width, &mut fields)?)
            }
            Instruction::Table(t) => {
                let entries = self.correlations.fields(at)?.pop().ok_or_else(missing)?;
                table::evaluate(t, self.opened(at, t.arg)?, &entries)
            }
            Instruction::Fourier(f) => {
                let entries = self.correlations.fields(at)?.pop().ok_or_else(missing)?;
                fourier::evaluate(party, f, self.opened(at, f.arg)?, &entries)
            }
            Instruction::BitProduct(b) => {
                let mut fields = self.fields(at)?;
                let x = self.operand(at, b.arg, b.width, &mut fields)?;
                let bits = self.masked_bits(at, b.bits)?;
                bits::product(party, bits, b.bit, &x, &mut fields).ok_or_else(missing)?
            }
            Instruction::BitToArithmetic(b) => {
                let fields = self.correlations.fields(at)?;
                bits::to_arithmetic(party, self.masked_bits(at, b.bits)?, b.bit, &fields)
            }
            Instruction::MaskProduct(p) => {
                let mut fields = self.fields(at)?;
                let x = self.operand(at, p.arg, p.width, &mut fields)?;
                let (bits, widths) = (self.masked_bits(at, p.bits)?, (self.width(p.arg), p.width));
                bits::mask_product(bits, (p.bit, p.count), &x, widths, &mut fields).ok_or_else(missing)?
            }
            Instruction::OneHot(o) => {
                let entries = self.correlations.fields(at)?.pop().ok_or_else(missing)?;
                one_hot::rotate(self.opened(at, o.arg)?, self.width(o.arg), &ty.shape, &entries)
            }
            Instruction::Constant(_)
            | Instruction::Weight(_)
            | Instruction::Open(_)
            | Instruction::OpenBits(_)
            | Instruction::Reveal(_) => return Err(not_held(at, "its place in the plan")),
        };
        Ok(Value::Arithmetic(arithmetic))
    }

    fn evaluate(&mut self, at: u32, args: &[u32]) -> Result<Value, RunError> {
        let owner = match self.program.ty(at).form {
            Form::Plain { owner, .. } => owner,
            _ => Owner::Public,
        };
        if !self.party.knows(owner) {
            return Ok(Value::Absent);
        }
        let start = Instant::now();
        let tensors: Result<Vec<Tensor>, RunError> = args.iter().map(|&a| self.tensor(at, a)).collect();
        let tensors = tensors?;
        let operands: Vec<&Tensor> = tensors.iter().collect();
        let op = self.program.op(at as usize).ok_or_else(|| not_held(at, "an operation"))?;
        let value = evaluate(op, &operands).map(Value::Plain).map_err(failed(at));
        self.plaintext += start.elapsed();
        value
    }

    fn movement(&mut self, at: u32, m: &Move) -> Result<Value, RunError> {
        let op = self.program.op(at as usize).ok_or_else(|| not_held(at, "an operation"))?;
        if let (Op::Reshape { shape }, &[arg]) = (op, m.args.as_slice())
            && let Some(value) = self.take(at, arg)
        {
            return Ok(value.reshaped(shape));
        }
        let gather = matches!(op, Op::Gather { .. });
        let (args, indices) = match m.args.as_slice() {
            [x, indices] if gather => (&[*x][..], Some(self.tensor(at, *indices)?)),
            args => (args, None),
        };
        fn moved<T: Movable>(
            at: u32,
            op: &Op,
            operands: Result<Vec<&T>, RunError>,
            indices: Option<&Tensor>,
        ) -> Result<T, RunError> {
            T::moved(op, &operands?, indices).map_err(failed(at))
        }
        let indices = indices.as_ref();
        match self.program.ty(at).form {
            Form::Known { owner, .. } if self.party.knows(owner) => {
                let rings: Result<Vec<Option<Cow<'_, Ring>>>, RunError> =
                    args.iter().map(|&a| self.known(a)).collect();
                let rings = rings?;
                let rings = rings.iter().map(|r| r.as_deref().ok_or_else(|| not_held(at, "ring elements")));
                moved(at, op, rings.collect(), indices).map(Value::Known)
            }
            Form::Arithmetic { .. } => {
                let shares: Result<Vec<Cow<'_, Share>>, RunError> =
                    args.iter().map(|&a| self.share(at, a)).collect();
                let shares = shares?;
                moved(at, op, Ok(shares.iter().map(|s| &**s).collect()), indices).map(Value::Arithmetic)
            }
            Form::Boolean { .. } => {
                let shares = args.iter().map(|&a| self.bit_share(at, a)).collect();
                moved(at, op, shares, indices).map(Value::Boolean)
            }
            Form::Masked { .. } => {
                let masked = args.iter().map(|&a| self.masked(at, a)).collect();
                moved(at, op, masked, indices).map(Value::Masked)
            }
            Form::MaskedBits { .. } => {
                let masked = args.iter().map(|&a| self.masked_bits(at, a)).collect();
                moved(at, op, masked, indices).map(Value::MaskedBits)
            }
            _ => Ok(Value::Absent),
        }
    }

    fn place(&self, at: u32, p: &Place) -> Result<Value, RunError> {
        let indices = self.tensor(at, p.indices)?.to_i64_vec().map_err(failed(at))?;
        let (axis, size) = (p.axis as usize, p.size as usize);
        if let Form::Masked { .. } = self.program.ty(at).form {
            let placed = local::place_masked(self.masked(at, p.arg)?, &indices, axis, size);
            return placed.map(Value::Masked).map_err(failed(at));
        }
        let placed = local::place(&*self.share(at, p.arg)?, &indices, axis, size);
        placed.map(Value::Arithmetic).map_err(failed(at))
    }

    /// Linear work on a masked value: the opened sum and the mask go the same way.
    fn under_mask(&mut self, at: u32) -> Result<Masked, RunError> {
        let ty = self.program.ty(at);
        let width = ty.width().unwrap_or(64);
        match self.program.instruction(at as usize) {
            Instruction::MatMul(p) => {
                let product = weights::product(
                    self.constants,
                    &Op::MatMul,
                    self.opened(at, p.a)?,
                    p.b,
                    (&ty.shape, width),
                )?;
                let mask = self.correlations.derived(at, ty.len())?;
                let mask = mask.map(|data| Share::new(Ring::new(ty.shape.clone(), data.into_values())));
                Ok(masked::product(product, mask, width))
            }
            Instruction::Add(b) | Instruction::Sub(b) => {
                let is_left = matches!(self.program.ty(b.a).form, Form::Masked { .. });
                let (x, c) = if is_left { (b.a, b.b) } else { (b.b, b.a) };
                let subtract = matches!(self.program.instruction(at as usize), Instruction::Sub(_));
                let c = self.known(c)?.ok_or_else(|| not_held(at, "public ring elements"))?;
                Ok(masked::shift(self.masked(at, x)?, &c, subtract, width))
            }
            Instruction::Scale(s) => Ok(masked::scale(self.masked(at, s.arg)?, s.factor, width)),
            Instruction::Truncate(t) => {
                Ok(masked::truncate(self.masked(at, t.arg)?, self.width(t.arg), t.shift))
            }
            _ => Err(not_held(at, "linear work on a masked value")),
        }
    }

    fn product(&mut self, at: u32, p: &Product, op: &Op) -> Result<Share, RunError> {
        let into = (self.program.ty(at).shape.as_slice(), self.width(at));
        let missing = || not_held(at, "its correlations");
        if weighted(self.program, at).is_some() {
            return self.weighted_product(at, p, op);
        }
        match (self.program.ty(p.a).form, self.program.ty(p.b).form) {
            (Form::Masked { .. }, Form::Masked { .. }) => {
                let mut fields = self.fields(at)?;
                if *op == Op::MatMul {
                    let (x, y) = (self.masked(at, p.a)?, self.masked(at, p.b)?);
                    return product::matrix(self.party, x, y, into, &mut fields).ok_or_else(missing);
                }
                let x = self.operand(at, p.a, p.width, &mut fields)?;
                let y = self.operand(at, p.b, p.width, &mut fields)?;
                let from = (self.width(p.a), self.width(p.b));
                product::multiply(self.party, &x, &y, from, p.width, into.0, &mut fields).ok_or_else(missing)
            }
            (Form::Known { .. }, _) => {
                let factor = self.known(p.a)?.ok_or_else(|| not_held(at, "public ring elements"))?;
                Ok(product::by_public(op, &*self.share(at, p.b)?, &factor, true, into))
            }
            _ => {
                let x = self.share(at, p.a)?;
                if let Some(Value::Recoded) = self.value(p.b) {
                    return weights::product(self.constants, op, x.ring(), p.b, into).map(Share::new);
                }
                let factor = self.known(p.b)?.ok_or_else(|| not_held(at, "public ring elements"))?;
                Ok(product::by_public(op, &x, &factor, false, into))
            }
        }
    }

    fn weighted_product(&mut self, at: u32, p: &Product, op: &Op) -> Result<Share, RunError> {
        let ty = self.program.ty(at);
        match self.party {
            Party::Client => {
                let prepared = self.correlations.prepared(at, ty.len())?;
                let prepared = prepared.ok_or_else(|| not_held(at, "the prepared product"))?;
                Ok(product::weighted_at_client(&prepared, &ty.shape))
            }
            Party::Server => {
                let correction = self.correlations.fields(at)?.into_iter().next();
                let correction = correction.ok_or_else(|| not_held(at, "its correlations"))?;
                let x = self.opened(at, p.a)?;
                let product = weights::product(self.constants, op, x, p.b, (&ty.shape, self.width(at)))?;
                Ok(product::weighted_at_server(product, &correction))
            }
        }
    }
}
