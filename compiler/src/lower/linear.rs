//! Matrix products and rotary embedding.

use marill_plaintext::Op;
use marill_program::Target;

use super::attention::PROBABILITY_BOUND;
use super::draft::{Id, Operand};
use super::{Lowering, Result, Value};
use crate::ir::ValueId;

impl Lowering<'_> {
    /// `a x b` as numpy multiplies matrices.
    pub(super) fn matrix_product(&mut self, a: ValueId, b: ValueId) -> Result<Id> {
        let p = self.precision;
        match (self.value(a)?, self.value(b)?) {
            (Value::Shared(x), Value::Plain(w)) => {
                if self.is_public(w) {
                    let x = self.builder.at_frac(x, p.linear_frac.min(self.builder.frac(x)));
                    if self.mask_sources.contains(&a) {
                        self.builder.open(x, Target::Both);
                    }
                    let known = self.builder.encode(w, p.weight_frac, p.hidden_bound);
                    return self.builder.matmul(x, known, p.hidden_bound);
                }
                self.times_weight(x, w)
            }
            (Value::Plain(w), Value::Shared(x)) => {
                if self.is_public(w) {
                    let x = self.builder.at_frac(x, p.linear_frac.min(self.builder.frac(x)));
                    let known = self.builder.encode(w, p.weight_frac, p.hidden_bound);
                    return self.builder.matmul(known, x, p.hidden_bound);
                }
                let shared = self.share_plain(w, p.attention_frac);
                self.masked_matmul(shared, x)
            }
            (Value::Shared(x), Value::Shared(y)) => self.masked_matmul(x, y),
            (Value::Plain(x), Value::Plain(w)) => {
                let x = self.share_plain(x, p.linear_frac);
                self.times_weight(x, w)
            }
        }
    }

    /// `x W`: the server sees x under the client's mask and multiplies by itself.
    fn times_weight(&mut self, x: Id, w: Id) -> Result<Id> {
        let p = self.precision;
        if !self.is_server_constant(w) || self.builder.shape(w).len() != 2 {
            let shared = self.share_plain(w, p.attention_frac);
            return self.masked_matmul(x, shared);
        }
        let x = self.builder.at_frac(x, p.linear_frac.min(self.builder.frac(x)));
        let opened = self.builder.open(x, Target::Server);
        let weight = self.builder.weight(w, p.weight_frac);
        self.builder.matmul(opened, weight, p.hidden_bound)
    }

    /// `x W` for a one-hot x with `frac` 0, keeping the weight's own precision.
    pub(super) fn select_rows(&mut self, one_hot: Id, w: Id, frac: u32) -> Result<Id> {
        let opened = self.builder.open(one_hot, Target::Server);
        let weight = self.builder.weight(w, frac);
        self.builder.matmul(opened, weight, self.precision.hidden_bound)
    }

    pub(super) fn masked_matmul(&mut self, x: Id, y: Id) -> Result<Id> {
        let p = self.precision;
        // Probabilities keep the bits they have; everything else gets attention's.
        let mut opened = |value: Id| {
            let most = if self.builder.bound(value) <= PROBABILITY_BOUND {
                p.probability_frac
            } else {
                p.attention_frac
            };
            let value = self.builder.at_frac(value, self.builder.frac(value).min(most));
            self.builder.open(value, Target::Both)
        };
        let (a, b) = (opened(x), opened(y));
        let bound = p.value_bound.max(p.score_bound());
        self.builder.matmul(a, b, bound)
    }

    /// `x * cos + rotate_half(x) * sin`: local where the tables are public, else products of shared values.
    pub(super) fn rotary(&mut self, x: ValueId, cos: ValueId, sin: ValueId) -> Result<Id> {
        let p = self.precision;
        let (cos, sin) = (self.value(cos)?, self.value(sin)?);
        let x = self.shares(x)?;
        let x = self.builder.at_frac(x, self.builder.frac(x).min(p.linear_frac));
        let shape = self.builder.shape(x).to_vec();
        let (axis, length) = (shape.len() - 1, *shape.last().unwrap_or(&0) as i64);
        let half = |start, end| Op::Slice { axis, start, end, step: 1 };
        let low = self.builder.movement(&half(0, length / 2), &[x])?;
        let high = self.builder.movement(&half(length / 2, length), &[x])?;
        let negated = self.builder.scale(high, -1, 0);
        let rotated = self.builder.movement(&Op::Concat { axis }, &[negated, low])?;
        let bound = self.builder.bound(x) * 1.5;
        let mut product = |x: Id, table: Value| match table {
            Value::Shared(table) => self.masked_product(x, table),
            Value::Plain(table) if self.is_public(table) => {
                let known = self.builder.encode(table, p.weight_frac, 1.5);
                self.builder.mul(x, known, [Operand::Wide; 2], bound)
            }
            Value::Plain(table) => self.times_plain(x, table),
        };
        let (left, right) = (product(x, cos)?, product(rotated, sin)?);
        let result = self.builder.add(left, right)?;
        self.builder.set_bound(result, bound);
        Ok(result)
    }
}
