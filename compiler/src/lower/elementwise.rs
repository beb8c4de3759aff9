//! Sums, products and their relatives, in every mix of owners.

use marill_plaintext::{DType, Op};
use marill_program::{Owner as Party, Target};

use super::draft::{Id, Kind, Operand, signed_bits};
use super::{Lowering, Result, Value};
use crate::ir::ValueId;

/// Fraction bits by which a product is scaled up rather than another truncated for their sum.
const MORE_FRAC: u32 = 4;

/// Fraction bits of reciprocals of what one party knows, such as counts of positions.
const INVERSE_FRAC: u32 = 22;

impl Lowering<'_> {
    /// `a + b` or `a - b`.
    pub(super) fn sum(&mut self, a: ValueId, b: ValueId, subtract: bool) -> Result<Id> {
        let (left, right) = match (self.value(a)?, self.value(b)?) {
            (Value::Shared(x), Value::Shared(y)) => {
                let (less, more) = (self.builder.frac(x), self.builder.frac(y));
                let (less, more) = (less.min(more), less.max(more));
                // Two products: their sum is truncated once.
                let are_products = less > self.precision.hidden_frac && more - less <= MORE_FRAC;
                let frac = if are_products { more } else { less };
                (self.builder.at_frac(x, frac), self.builder.at_frac(y, frac))
            }
            (Value::Shared(x), Value::Plain(y)) => {
                let frac = self.builder.frac(x);
                (x, self.builder.encode(y, frac, self.precision.hidden_bound))
            }
            (Value::Plain(x), Value::Shared(y)) => {
                let frac = self.builder.frac(y);
                let known = self.builder.encode(x, frac, self.precision.hidden_bound);
                // What is known stands last where it can: such a sum can be had under a mask.
                if subtract { (known, y) } else { (y, known) }
            }
            (Value::Plain(x), Value::Plain(y)) => {
                let shared = self.share_plain(x, self.precision.hidden_frac);
                // Integers keep none.
                let frac = self.builder.frac(shared);
                (shared, self.builder.encode(y, frac, self.precision.hidden_bound))
            }
        };
        let result = if subtract { self.builder.sub(left, right) } else { self.builder.add(left, right) };
        let result = result?;
        let bound = self.builder.bound(result).min(self.precision.hidden_bound);
        self.builder.set_bound(result, bound);
        Ok(result)
    }

    /// `a * b`, element by element.
    pub(super) fn multiply(&mut self, a: ValueId, b: ValueId) -> Result<Id> {
        if let Some(factor) = self.public_scalar(b) {
            let x = self.shares(a)?;
            return self.scaled(x, factor);
        }
        if let Some(factor) = self.public_scalar(a) {
            let x = self.shares(b)?;
            return self.scaled(x, factor);
        }
        match (self.value(a)?, self.value(b)?) {
            (Value::Shared(x), Value::Shared(y)) => self.masked_product(x, y),
            (Value::Shared(x), Value::Plain(y)) | (Value::Plain(y), Value::Shared(x)) => {
                self.times_plain(x, y)
            }
            (Value::Plain(x), Value::Plain(y)) => {
                let (client, server) = if self.is_server_constant(y) { (x, y) } else { (y, x) };
                let shared = self.share_plain(client, self.precision.linear_frac);
                self.times_plain(shared, server)
            }
        }
    }

    /// `x * factor` for a public number.
    pub(super) fn scaled(&mut self, x: Id, factor: f64) -> Result<Id> {
        const SIGNIFICANT_BITS: i32 = 16;
        if factor == 0.0 || !factor.is_finite() {
            return Err(self.refuse("mul", "a factor is zero or not finite"));
        }
        let exponent = factor.abs().log2().floor() as i32;
        let exact = factor.abs() == 2f64.powi(exponent);
        let x = if self.builder.frac(x) > self.precision.hidden_frac && !exact {
            self.builder.at_frac(x, self.precision.hidden_frac)
        } else {
            x
        };
        let bits = if exact { (-exponent).max(0) } else { (SIGNIFICANT_BITS - exponent).clamp(0, 40) };
        let integer = (factor * 2f64.powi(bits)).round() as i64;
        Ok(self.builder.scale(x, integer, bits as u32))
    }

    pub(super) fn is_public(&self, plain: Id) -> bool {
        matches!(self.builder.get(plain).kind, Kind::Plain { owner: Party::Public, .. })
    }

    pub(super) fn is_server_constant(&self, plain: Id) -> bool {
        let draft = self.builder.get(plain);
        matches!(draft.instruction, marill_program::Instruction::Constant(_))
            && matches!(draft.kind, Kind::Plain { owner: Party::Server, .. })
    }

    /// Product of shares and a clear tensor.
    pub(super) fn times_plain(&mut self, x: Id, y: Id) -> Result<Id> {
        let p = self.precision;
        if self.is_public(y) {
            let x = self.builder.at_frac(x, self.builder.frac(x).min(p.hidden_frac));
            let known = self.builder.encode(y, p.weight_frac, p.hidden_bound);
            let result = self.builder.mul(x, known, [Operand::Wide; 2], p.hidden_bound);
            return result;
        }
        if self.is_server_constant(y) {
            let x = self.builder.at_frac(x, p.linear_frac.min(self.builder.frac(x)));
            let opened = self.builder.open(x, Target::Server);
            let weight = self.builder.weight(y, p.weight_frac);
            let result = self.builder.mul(opened, weight, [Operand::Wide; 2], p.hidden_bound);
            return result;
        }
        let shared = self.share_plain(y, p.activation_frac);
        self.masked_product(x, shared)
    }

    /// Product of two shared values, each opened under its mask.
    pub(super) fn masked_product(&mut self, x: Id, y: Id) -> Result<Id> {
        self.product_of(x, y, [self.precision.activation_frac; 2])
    }

    /// As [`Self::masked_product`], the values with at most so many fraction bits.
    fn product_of(&mut self, x: Id, y: Id, most: [u32; 2]) -> Result<Id> {
        let p = self.precision;
        let mut operand = |value: Id, most: u32| {
            let frac = self.builder.frac(value).min(most);
            let value = self.builder.at_frac(value, frac);
            let bound = self.builder.bound(value).min(p.value_bound);
            let opened = self.builder.open(value, Target::Both);
            (opened, Operand::Narrow(signed_bits(bound, frac)))
        };
        let ((a, a_bits), (b, b_bits)) = (operand(x, most[0]), operand(y, most[1]));
        self.builder.mul(a, b, [a_bits, b_bits], p.hidden_bound)
    }

    /// `a / b`.
    pub(super) fn divide(&mut self, a: ValueId, b: ValueId) -> Result<Id> {
        if self.graph.ty(a).dtype == DType::I64 {
            return Err(self.refuse("div", "integers are divided only where a party knows both"));
        }
        if let Some(divisor) = self.public_scalar(b) {
            let x = self.shares(a)?;
            return self.scaled(x, 1.0 / divisor);
        }
        let divisor = match self.value(b)? {
            Value::Shared(divisor) => divisor,
            Value::Plain(divisor) => {
                let x = self.shares(a)?;
                let inverse = self.builder.plain(&Op::Reciprocal, &[divisor])?;
                let p = self.precision;
                if self.is_public(inverse) {
                    return self.times_plain(x, inverse);
                }
                let inverse = self.share_plain(inverse, INVERSE_FRAC);
                return self.product_of(x, inverse, [p.activation_frac, INVERSE_FRAC]);
            }
        };
        let inverse = self.positive_function(divisor, |y| 1.0 / y)?;
        match self.public_scalar(a) {
            Some(factor) => self.scaled(inverse, factor),
            None => {
                let x = self.shares(a)?;
                self.masked_product(x, inverse)
            }
        }
    }

    /// `x ^ exponent` for a public scalar exponent.
    pub(super) fn power(&mut self, base: ValueId, exponent: ValueId) -> Result<Id> {
        let Some(exponent) = self.public_scalar(exponent) else {
            return Err(self.refuse("pow", "the exponent is not a public scalar"));
        };
        let x = self.shares(base)?;
        if exponent == 2.0 || exponent == 3.0 {
            let square = self.masked_product(x, x)?;
            return if exponent == 2.0 { Ok(square) } else { self.masked_product(square, x) };
        }
        if self.graph.ty(base).dtype == DType::I64 {
            return Err(self.refuse("pow", "an integer's exponent is none of 2 and 3"));
        }
        if exponent == 0.5 {
            return self.positive_function(x, f64::sqrt);
        }
        if exponent == -0.5 {
            return self.positive_function(x, |y| 1.0 / y.sqrt());
        }
        if exponent == -1.0 {
            return self.positive_function(x, |y| 1.0 / y);
        }
        Err(self.refuse("pow", "the exponent is none of 2, 3, 1/2, -1/2 and -1"))
    }

    /// `condition ? a : b`.
    pub(super) fn choose(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<Id> {
        let Value::Plain(condition) = self.value(condition)? else {
            return Err(self.refuse("where", "the condition is shared"));
        };
        let frac = self.precision.activation_frac;
        let mut at = |id: ValueId| -> Result<Id> {
            let x = self.shares(id)?;
            let frac = self.builder.frac(x).min(frac);
            Ok(self.builder.at_frac(x, frac))
        };
        let (x, y) = (at(a)?, at(b)?);
        let common = self.builder.frac(x).min(self.builder.frac(y));
        let (x, y) = (self.builder.at_frac(x, common), self.builder.at_frac(y, common));
        let difference = self.builder.sub(x, y)?;
        let cast = Op::Cast { to: DType::F32 };
        let factor = self.builder.plain(&cast, &[condition])?;
        let known = self.builder.encode(factor, 0, 1.5);
        let product = if matches!(self.builder.get(known).kind, Kind::Known { owner: Party::Public }) {
            self.builder.mul(difference, known, [Operand::Wide; 2], self.precision.hidden_bound)?
        } else {
            let shared = self.builder.share(known);
            self.masked_product(difference, shared)?
        };
        self.builder.add(product, y)
    }

    /// A movement of shares; clear operands are shared first.
    pub(super) fn rearrange(&mut self, op: &Op, args: &[ValueId]) -> Result<Id> {
        let mut shares = args.iter().map(|&a| self.shares(a)).collect::<Result<Vec<Id>>>()?;
        let frac = shares.iter().map(|&s| self.builder.frac(s)).min().unwrap_or(0);
        shares.iter_mut().for_each(|s| *s = self.builder.at_frac(*s, frac));
        self.builder.movement(op, &shares)
    }
}
