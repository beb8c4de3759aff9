//! Functions with a kink: ReLU and what is made of it. Comparisons are exact.

use marill_plaintext::Op;
use marill_program::Target;
use marill_program::schema::Digits;

use super::draft::{Id, Kind, Operand, signed_bits};
use super::positive::digit_bits;
use super::{Lowering, Result, Value};
use crate::ir::ValueId;

impl Lowering<'_> {
    /// `Relu`, `Abs` or `Clip`.
    pub(super) fn piecewise_linear(&mut self, op: &Op, x: ValueId) -> Result<Id> {
        let x = self.shares(x)?;
        match *op {
            Op::Abs => {
                let positive = self.relu(x)?;
                let x = self.builder.at_frac(x, self.builder.frac(positive));
                let twice = self.builder.scale(positive, 2, 0);
                self.builder.sub(twice, x)
            }
            Op::Clip { min, max } => {
                let raised = self.at_least(x, min)?;
                let negated = self.builder.scale(raised, -1, 0);
                let lowered = self.at_least(negated, -max)?;
                Ok(self.builder.scale(lowered, -1, 0))
            }
            _ => self.relu(x),
        }
    }

    /// `max(a, b)`, or `min(a, b)` when `smallest`.
    pub(super) fn extremum(&mut self, a: ValueId, b: ValueId, smallest: bool) -> Result<Id> {
        let (mut x, mut y) = (self.shares(a)?, self.shares(b)?);
        let frac = self.precision.activation_frac.min(self.builder.frac(x)).min(self.builder.frac(y));
        x = self.builder.at_frac(x, frac);
        y = self.builder.at_frac(y, frac);
        let difference = if smallest { self.builder.sub(y, x) } else { self.builder.sub(x, y) };
        let difference = difference?;
        let positive = self.relu(difference)?;
        if smallest { self.builder.sub(y, positive) } else { self.builder.add(y, positive) }
    }

    fn at_least(&mut self, x: Id, min: f32) -> Result<Id> {
        if min == f32::NEG_INFINITY {
            return Ok(x);
        }
        let x = self.builder.at_frac(x, self.precision.activation_frac);
        let least = self.scalar(min, self.precision.activation_frac);
        let above = self.builder.sub(x, least)?;
        let positive = self.relu(above)?;
        self.builder.add(positive, least)
    }

    /// `max(x, 0)`.
    pub(super) fn relu(&mut self, x: Id) -> Result<Id> {
        let x = self.builder.at_frac(x, self.builder.frac(x).min(self.precision.activation_frac));
        let (bit, opened) = self.is_positive(x)?;
        let operand = Operand::Narrow(signed_bits(self.builder.bound(x), self.builder.frac(x)));
        Ok(self.builder.bit_product(bit, 0, opened, operand))
    }

    /// The opened bit `x >= 0` in the shape of x, and x opened.
    pub(super) fn is_positive(&mut self, x: Id) -> Result<(Id, Id)> {
        let bound = self.builder.bound(x).min(2.0 * self.precision.hidden_bound);
        self.builder.set_bound(x, bound);
        let opened = self.builder.open(x, Target::Both);
        let width = signed_bits(bound, self.builder.frac(x)) - 1;
        let digits = Digits {
            arg: opened,
            digit_bits: digit_bits(width),
            thresholds: vec![0],
            low_bits: 0,
            width,
            lowest_bits: 0,
        };
        let positive = self.builder.compare(digits);
        let bits = self.builder.open_bits(positive, 1);
        let bit = self.bit_slice(bits, 0, x)?;
        Ok((bit, opened))
    }

    /// Whether a graph value is in the clear at the client or the server only.
    pub(super) fn is_private_plain(&self, value: Value) -> bool {
        let Value::Plain(id) = value else { return false };
        !matches!(self.builder.get(id).kind, Kind::Plain { owner: marill_program::Owner::Public, .. })
    }
}
