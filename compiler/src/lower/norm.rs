//! Layer norm and RMS norm along the last axis.
//!
//! With d elements and L = ceil(log2 d), centring is exact in integers: `c = (d x - sum x) / 2^L`, which is the centred
//! row times rho = d / 2^L. The norm does not mind the factor, but for epsilon. The squares' sum is opened per row,
//! its inverse root comes from tables, and the row is multiplied by it.

use marill_program::two_party::effort::Link;
use marill_program::two_party::products::encrypted_squares;
use marill_program::{Suite, Target};

use super::draft::{Id, Operand, signed_bits};
use super::positive::Domain;
use super::{Lowering, Result, Value};
use crate::ir::ValueId;

/// Fraction bits of a row's mean square.
const SQUARE_FRAC: u32 = 24;
/// Bits of the ring of a sum of squares, about.
const SQUARE_SUM_BITS: u32 = 54;
/// Relative precision of a row's factor between two parties alone, in bits: each chooses for a whole row.
const FACTOR_BITS: i32 = 14;
/// Bits of the root of the least mean square.
const ROOT_BITS: i32 = 8;

impl Lowering<'_> {
    /// `[x]` or `[x, gain, bias]`.
    pub(super) fn layer_norm(&mut self, args: &[ValueId], epsilon: f32) -> Result<Id> {
        let x = self.shares(args[0])?;
        let x = self.builder.at_frac(x, self.precision.hidden_frac.min(self.builder.frac(x)));
        let shape = self.builder.shape(x).to_vec();
        let (axis, length) = (shape.len() - 1, shape[shape.len() - 1]);
        let log = ceil_log2(length);
        let frac = self.builder.frac(x);
        let scaled = self.builder.scale(x, length as i64, log);
        let total = self.builder.sum(x, axis);
        let mean = self.builder.scale(total, 1, log);
        let centred = self.builder.sub(scaled, mean)?;
        let centred = self.builder.at_frac(centred, frac);
        self.builder.set_bound(centred, self.precision.hidden_bound);
        let rho = length as f64 / 2f64.powi(log as i32);
        let normed =
            self.normalised(centred, move |y| 1.0 / (y / rho + rho * rho * f64::from(epsilon)).sqrt())?;
        let scaled = match args.get(1) {
            Some(&gain) => self.affine(normed, gain)?,
            None => normed,
        };
        match args.get(2) {
            Some(&bias) => self.shifted(scaled, bias),
            None => Ok(scaled),
        }
    }

    /// `[x]` or `[x, gain]`.
    pub(super) fn rms_norm(&mut self, args: &[ValueId], epsilon: f32) -> Result<Id> {
        let x = self.shares(args[0])?;
        let x = self.builder.at_frac(x, self.precision.hidden_frac.min(self.builder.frac(x)));
        let bound = self.builder.bound(x).min(self.precision.hidden_bound);
        self.builder.set_bound(x, bound);
        let length = *self.builder.shape(x).last().unwrap_or(&1);
        let rho = length as f64 / 2f64.powi(ceil_log2(length) as i32);
        let normed = self.normalised(x, move |y| 1.0 / (y / rho + f64::from(epsilon)).sqrt())?;
        match args.get(1) {
            Some(&gain) => self.affine(normed, gain),
            None => Ok(normed),
        }
    }

    /// `c * f(sum c^2 / 2^L)` along the last axis.
    fn normalised(&mut self, c: Id, f: impl Fn(f64) -> f64) -> Result<Id> {
        let shape = self.builder.shape(c).to_vec();
        let (axis, length) = (shape.len() - 1, shape[shape.len() - 1]);
        let (frac, bound) = (self.builder.frac(c), self.builder.bound(c));
        let opened = self.builder.open(c, Target::Both);
        let operand = Operand::Narrow(signed_bits(bound, frac));
        // Between two parties alone every bit of an element costs, and the lowest are next to nothing in the sum, even
        // where the elements are as small as they may be.
        let coarse_frac = match self.cost.suite {
            Suite::Dealer => frac,
            Suite::TwoParty => frac.min((ROOT_BITS - self.precision.least_variance_log2 / 2) as u32),
        };
        let coarse = self.builder.coarser(opened, coarse_frac);
        // Under encryption a row's masks are multiplied in a ring that needs no lift.
        let rows = self.builder.get(c).len() / length.max(1);
        let link = Link::new(self.cost.network.kbits_per_second());
        let is_encrypted = self.cost.suite == Suite::TwoParty
            && encrypted_squares(link, [rows, length], SQUARE_SUM_BITS).is_some();
        let sum = if is_encrypted {
            self.builder.square_sum(coarse)
        } else {
            let square = self.builder.square(coarse, Operand::Narrow(signed_bits(bound, coarse_frac)));
            self.builder.sum(square, axis)
        };
        let mean = self.builder.scale(sum, 1, ceil_log2(length));
        let mean = self.builder.at_frac(mean, SQUARE_FRAC.min(2 * coarse_frac));
        let log2_max = (2.0 * bound.log2()).ceil() as i32;
        let full = Domain::new(self.precision.least_variance_log2, log2_max);
        let domain = match self.cost.suite {
            Suite::Dealer => full,
            Suite::TwoParty => Domain { relative_bits: FACTOR_BITS, ..full },
        };
        let inverse = self.positive(mean, &domain, f)?;
        let factor = self.builder.open(inverse, Target::Both);
        // No element of a normalised row exceeds the root of its length.
        let largest = (length as f64).sqrt() * 1.01;
        // An opening in the product's ring costs a row little. Between two parties alone, every bit of it chooses for the
        // whole row.
        let factor_operand = match self.cost.suite {
            Suite::Dealer => Operand::Wide,
            Suite::TwoParty => {
                Operand::Narrow(signed_bits(self.builder.bound(inverse), self.builder.frac(inverse)))
            }
        };
        self.builder.mul(opened, factor, [operand, factor_operand], largest)
    }

    fn affine(&mut self, x: Id, gain: ValueId) -> Result<Id> {
        match self.value(gain)? {
            Value::Plain(gain) => self.times_plain(x, gain),
            Value::Shared(gain) => self.masked_product(x, gain),
        }
    }

    fn shifted(&mut self, x: Id, bias: ValueId) -> Result<Id> {
        let other = match self.value(bias)? {
            Value::Plain(bias) => {
                self.builder.encode(bias, self.builder.frac(x), self.precision.hidden_bound)
            }
            Value::Shared(bias) => self.builder.at_frac(bias, self.builder.frac(x)),
        };
        self.builder.add(x, other)
    }
}

/// The smallest L with 2^L >= n.
fn ceil_log2(n: usize) -> u32 {
    usize::BITS - n.saturating_sub(1).leading_zeros()
}
