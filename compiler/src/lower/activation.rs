//! Smooth activations: a trigonometric series inside a window, straight lines outside.
//!
//! For GELU and SiLU there is a form of one round less, a series of more terms over the whole of the bound: half the
//! argument and that series, from a single opening. Its correlations are larger, so the network decides, and the error
//! that is allowed (see [`crate::approximation`]). Else:
//!
//! The argument is opened once. The series comes from cosines and sines of its mask; truth tables on its high bits
//! say, softly at the borders, whether it lies inside the window or above it. One more opening of those bits and of
//! the series' value selects. In the window's margin both forms are good, so a soft border does no harm. Between two
//! parties alone straight pieces take the series' place, and comparisons that of the tables.

use marill_plaintext::evaluate::erf;
use marill_plaintext::{GeluForm, Op};
use marill_program::schema::{Basis, BitTable, Digits, Fourier, Table};
use marill_program::{Suite, Target};

use super::draft::{Id, Operand, signed_bits};
use super::fit::{self, Parity, series};
use super::pieced::Pieces;
use super::{Lowering, Result};
use crate::approximation::{Series, Span};
use crate::ir::ValueId;

/// What an activation is made of: `line * x + offset + series` inside the window; `above` and `below` outside.
struct Shape {
    /// The even or odd part that the series stands for.
    part: fn(f64) -> f64,
    parity: Parity,
    line: f64,
    offset: f64,
    window: f64,
    /// Period of the series as a power of two.
    period_log2: u32,
    terms: usize,
    above: Outside,
    below: Outside,
}

#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Identity,
    Constant(i64),
}

fn shape(op: &Op) -> Shape {
    use std::f64::consts::{FRAC_2_PI, SQRT_2};
    let gelu = |part| Shape {
        part,
        parity: Parity::Even,
        line: 0.5,
        offset: 0.0,
        window: 4.0,
        period_log2: 4,
        terms: 8,
        above: Outside::Identity,
        below: Outside::Constant(0),
    };
    let saturating = |part, window, period_log2, terms, offset, below| Shape {
        part,
        parity: Parity::Odd,
        line: 0.0,
        offset,
        window,
        period_log2,
        terms,
        above: Outside::Constant(1),
        below: Outside::Constant(below),
    };
    match op {
        Op::Gelu { form: GeluForm::Erf } => gelu(|x| 0.5 * x * erf(x / SQRT_2)),
        Op::Gelu { form: GeluForm::Tanh } => {
            gelu(|x| 0.5 * x * (FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Op::Silu => Shape {
            part: |x| 0.5 * x * (0.5 * x).tanh(),
            window: 12.0,
            period_log2: 5,
            terms: 16,
            ..gelu(|x| x)
        },
        Op::Tanh => saturating(f64::tanh, 5.0, 4, 14, 0.0, -1),
        Op::Sigmoid => saturating(|x| 0.5 * (0.5 * x).tanh(), 10.0, 5, 14, 0.5, 0),
        _ => saturating(erf, 5.0, 4, 12, 0.0, -1),
    }
}

/// An opened bit that says whether a test holds, or that it does not.
struct Test {
    bits: Id,
    bit: u32,
    holds: bool,
}

/// Where an argument lies; there is no test for what is 0.
struct Place {
    inside: Test,
    above: Option<Test>,
    below: Option<Test>,
}

/// Bits of the digits that tell on which side of a window's ends a piece is.
const COMPARED_DIGIT_BITS: u32 = 3;

/// The argument of a series that spans the bound shrinks to 7/8.
const SHRINK_FACTOR: i64 = 7;
const SHRINK_LOG2: u32 = 3;

/// Width of a piece of the truth tables, as a power of two.
const PIECE_LOG2: i32 = -2;
const ENTRY_FRAC: u32 = 15;
const POWER_FRAC: u32 = 14;

/// The window of straight pieces, as a power of two to either side.
fn window_log2(shape: &Shape) -> i32 {
    shape.window.log2().ceil() as i32
}

/// The series inside the window.
fn windowed(shape: &Shape) -> fit::Series {
    let (margin, period) = (2f64.powi(PIECE_LOG2), 2f64.powi(shape.period_log2 as i32));
    series(shape.part, shape.parity, shape.window + margin, period, shape.terms)
}

/// The series over all of `bound`, of an argument that has shrunk.
fn spanning(shape: &Shape, bound: f64, terms: usize) -> fit::Series {
    let shrink = SHRINK_FACTOR as f64 / 2f64.powi(SHRINK_LOG2 as i32);
    let (part, period) = (shape.part, 2f64.powi((2.0 * bound).log2().ceil() as i32));
    series(|y| part(y / shrink), shape.parity, bound * shrink, period, terms)
}

impl Lowering<'_> {
    /// GELU, SiLU, tanh, sigmoid or erf.
    pub(super) fn activation(&mut self, op: &Op, x: ValueId) -> Result<Id> {
        let shape = shape(op);
        let x = self.shares(x)?;
        let series = self.cost.series(op, self.builder.get(x).len());
        if let (Suite::Dealer, Some(Series { span: Span::Bound, terms, .. })) = (self.cost.suite, series) {
            return self.whole_activation(&shape, x, terms);
        }
        let shape = Shape { terms: series.map_or(shape.terms, |series| series.terms), ..shape };
        let frac = self.activation_frac();
        let x = self.builder.at_frac(x, frac);
        let bound = self.precision.activation_bound.max(2f64.powi(shape.period_log2 as i32 - 1));
        self.builder.set_bound(x, bound);
        let opened = self.builder.open(x, Target::Both);
        let ring = signed_bits(bound, frac);
        self.builder.require_width(opened, ring);

        let (inside, place) = match self.cost.suite {
            Suite::Dealer => {
                let inside = self.series_inside(&shape, x, opened)?;
                (inside, self.soft_tests(&shape, opened, ring))
            }
            Suite::TwoParty => {
                let (inside, pieces) = self.pieces_inside(&shape, opened)?;
                (inside, self.exact_tests(&shape, pieces, opened, ring)?)
            }
        };
        let saturates = shape.above != Outside::Identity;
        let bound = if saturates { 1.01 } else { bound };
        let masked = self.builder.open(inside, Target::Both);
        // In the ring of what it is added to, so that it is not lifted on its own account.
        let operand = Operand::Narrow(signed_bits(self.builder.bound(inside).max(bound), frac));
        let mut result = self.builder.bit_product(place.inside.bits, place.inside.bit, masked, operand);
        for (outside, test) in [(shape.above, place.above), (shape.below, place.below)] {
            let Some(Test { bits, bit, holds }) = test else { continue };
            let part = match outside {
                Outside::Identity => self.builder.bit_product(bits, bit, opened, Operand::Narrow(ring)),
                Outside::Constant(value) => {
                    let one = self.builder.bit_to_arithmetic(bits, bit);
                    let value = if holds { value } else { -value };
                    self.builder.scale(one, value << frac, frac)
                }
            };
            result = self.builder.add(result, part)?;
            if let (Outside::Constant(value), false) = (outside, holds) {
                let constant = self.scalar(value as f32, frac);
                result = self.builder.add(result, constant)?;
            }
        }
        self.builder.set_bound(result, bound);
        Ok(result)
    }

    /// Fraction bits of an activation's argument and of its result: no finer than half of what straight pieces may be off.
    fn activation_frac(&self) -> u32 {
        let enough = 2 - self.cost.approximate.pieces_error().log2().ceil() as i32;
        match self.cost.suite {
            Suite::Dealer => self.precision.activation_frac,
            Suite::TwoParty => self.precision.activation_frac.min(enough as u32),
        }
    }

    /// Truth tables over pieces of `2^PIECE_LOG2`: inside, above or below, softly at the borders.
    fn soft_tests(&mut self, shape: &Shape, opened: Id, ring: u32) -> Place {
        let edge = (shape.window / 2f64.powi(PIECE_LOG2)) as i64;
        let low_bits = (self.precision.activation_frac as i32 + PIECE_LOG2) as u32;
        let index_bits = ring - low_bits;
        let mut tables = truth_table(index_bits, |p| -edge <= p && p <= edge);
        let mut count = 1;
        let mut test = |outside, test: &dyn Fn(i64) -> bool| {
            if outside == Outside::Constant(0) {
                return None;
            }
            tables.extend(truth_table(index_bits, test));
            count += 1;
            Some(count - 1)
        };
        let above = test(shape.above, &|p| p > edge);
        let below = test(shape.below, &|p| p < -edge);
        let table = BitTable { arg: opened, low_bits, index_bits, tables };
        let looked_up = self.builder.bit_table(table, count);
        let bits = self.builder.open_bits(looked_up, count);
        let test = |bit| Test { bits, bit, holds: true };
        Place { inside: test(0), above: above.map(test), below: below.map(test) }
    }

    /// Comparisons of an argument's piece with `2^index_bits` pieces around 0, which between two parties cost less than
    /// tables that reach as far. They take the same piece as the line does, be it the next one.
    fn exact_tests(&mut self, shape: &Shape, index_bits: u32, opened: Id, ring: u32) -> Result<Place> {
        let half = 1i64 << (index_bits - 1);
        let window = window_log2(shape) + 1 + self.activation_frac() as i32;
        let low_bits = (window - index_bits as i32).max(0) as u32;
        let width = ring - low_bits;
        let thresholds = vec![-half, half];
        // The lowest digit is the piece, whose unit vector is there.
        let digits = Digits {
            arg: opened,
            digit_bits: COMPARED_DIGIT_BITS,
            thresholds,
            low_bits,
            width,
            lowest_bits: index_bits,
        };
        let reached = self.builder.compare(digits);
        let [low, high] = [0, 1].map(|i| self.bit_slice(reached, i, opened));
        let (low, high) = (low?, high?);
        let mut test = |of: Id, holds| Test { bits: self.builder.open_bits(of, 1), bit: 0, holds };
        let (above, below) = [(shape.above, high, true), (shape.below, low, false)]
            .map(|(outside, of, holds)| (outside != Outside::Constant(0)).then(|| test(of, holds)))
            .into();
        let inside = self.builder.exclusive_or(low, high);
        let bits = self.builder.open_bits(inside, 1);
        Ok(Place { inside: Test { bits, bit: 0, holds: true }, above, below })
    }

    /// What stands inside the window: a series.
    fn series_inside(&mut self, shape: &Shape, x: Id, opened: Id) -> Result<Id> {
        let (frac, bound) = (self.precision.activation_frac, self.builder.bound(x));
        let fit = windowed(shape);
        let (constant, waves) = match shape.parity {
            Parity::Even => (fit.coefficients[0], fit.coefficients[1..].to_vec()),
            Parity::Odd => (0.0, fit.coefficients.clone()),
        };
        let silent = vec![0.0; waves.len()];
        let (cos, sin) = if shape.parity == Parity::Even { (waves, silent) } else { (silent, waves) };
        let fourier = Fourier {
            arg: opened,
            period_bits: shape.period_log2 + frac,
            constant: constant + shape.offset,
            cos,
            sin,
            entry_frac: ENTRY_FRAC,
            power_frac: POWER_FRAC,
            width: 0,
            window: 0.0,
        };
        let peak = fit.peak + shape.line * bound + 1.0;
        let mut inside = self.builder.fourier(fourier, peak);
        if shape.line != 0.0 {
            let bits = self.builder.frac(inside) - frac;
            // Shares of a product that was not made on shares would take the product once more.
            let x = if self.builder.is_derived(opened) { self.builder.lift(opened) } else { x };
            let line = self.builder.scale(x, (shape.line * 2f64.powi(bits as i32)).round() as i64, bits);
            inside = self.builder.add(inside, line)?;
        }
        let inside = self.builder.at_frac(inside, frac);
        self.builder.set_bound(inside, peak);
        Ok(inside)
    }

    /// Straight pieces of a window that is a power of two, and how many they are, as a power of two. What is in the first
    /// or in the last may be a piece beyond.
    fn pieces_inside(&mut self, shape: &Shape, opened: Id) -> Result<(Id, u32)> {
        let frac = self.activation_frac();
        let f = |x: f64| shape.line * x + shape.offset + (shape.part)(x);
        let error = self.cost.approximate.pieces_error();
        let window_log2 = window_log2(shape);
        let half = 2f64.powi(window_log2);
        let pieces = Pieces::new(&f, (window_log2 + 1, -half), -(frac as i32), error, |_| 1.0);
        let step = pieces.step();
        let pieces = pieces.selected(-half - step, half);
        Ok((self.pieced(opened, Operand::Wide, &pieces, frac)?, pieces.index_bits()))
    }

    /// `x / 2 + series` over all of the bound: the argument shrinks a little, so that the period, a power of two, leaves
    /// room between the window's ends for the series to turn round.
    fn whole_activation(&mut self, shape: &Shape, x: Id, terms: usize) -> Result<Id> {
        let frac = self.precision.activation_frac;
        let bound = self.precision.activation_bound;
        let shrink = SHRINK_FACTOR as f64 / 2f64.powi(SHRINK_LOG2 as i32);
        self.builder.set_bound(x, bound);
        let small = self.builder.scale(x, SHRINK_FACTOR, SHRINK_LOG2);
        let small = self.builder.at_frac(small, frac);
        self.builder.set_bound(small, bound * shrink);
        let opened = self.builder.open(small, Target::Both);
        let period_bits = (2.0 * bound).log2().ceil() as u32 + frac;
        self.builder.require_width(opened, period_bits);
        let fit = spanning(shape, bound, terms);
        let window = bound * shrink;
        let fourier = Fourier {
            arg: opened,
            period_bits,
            constant: fit.coefficients[0],
            cos: fit.coefficients[1..].to_vec(),
            sin: vec![0.0; terms],
            entry_frac: ENTRY_FRAC,
            power_frac: POWER_FRAC,
            width: 0,
            window,
        };
        let peak = fit.peak + 1.0;
        let waves = self.builder.fourier(fourier, peak);
        let sum = if self.builder.is_derived(opened) {
            // Shares of x would take a product; half of x is 4/7 of what is opened.
            let bits = self.builder.frac(waves) - frac;
            let lifted = self.builder.lift(opened);
            let factor = (0.5 / shrink * 2f64.powi(bits as i32)).round() as i64;
            let line = self.builder.scale(lifted, factor, bits);
            self.builder.add(waves, line)?
        } else {
            let x = self.builder.at_frac(x, frac);
            let line = self.builder.scale(x, 1, 1);
            let waves = self.builder.at_frac(waves, frac + 1);
            self.builder.add(waves, line)?
        };
        let result = self.builder.at_frac(sum, frac);
        self.builder.set_bound(result, bound);
        Ok(result)
    }

    /// `e^x`, zero below -100, for x up to 8.
    pub(super) fn exponential(&mut self, x: ValueId) -> Result<Id> {
        let x = self.shares(x)?;
        let x = self.builder.at_frac(x, self.precision.activation_frac);
        let opened = self.builder.open(x, Target::Both);
        let value =
            self.builder.table(exponential_table(opened, self.precision.activation_frac, 7, 9), 8200.0);
        Ok(self.builder.at_frac(value, self.precision.probability_frac))
    }
}

/// Relative error of `e^x` in straight pieces.
const EXPONENTIAL_ERROR: f64 = 3.6e-4;
/// They span `2^4` values, of which so many are below 0; what is below is 0.
const EXPONENTIAL_RANGE_LOG2: i32 = 4;
const EXPONENTIAL_LOW: i64 = -14;

impl Lowering<'_> {
    /// `e^x` for x below `below` and at least `2 - 2^integer_bits`.
    pub(super) fn small_exponential(
        &mut self,
        x: Id,
        below: f64,
        integer_bits: u32,
        result_frac: u32,
    ) -> Result<Id> {
        let frac = self.builder.frac(x);
        // A signed ring, most of whose upper half is never used.
        let integer_bits = integer_bits + 1;
        if self.cost.suite == Suite::Dealer {
            let shift = self.scalar(below as f32, frac);
            let x = self.builder.sub(x, shift)?;
            self.builder.set_bound(x, 2f64.powi(integer_bits as i32 - 1));
            let opened = self.builder.open(x, Target::Both);
            self.builder.require_width(opened, frac + integer_bits);
            let value = self.builder.table(steep_table(opened, frac, integer_bits, below), below.exp());
            return Ok(self.builder.at_frac(value, result_frac));
        }
        self.builder.set_bound(x, 2f64.powi(integer_bits as i32 - 1));
        let opened = self.builder.open(x, Target::Both);
        self.builder.require_width(opened, frac + integer_bits);
        let range = (EXPONENTIAL_RANGE_LOG2, EXPONENTIAL_LOW as f64);
        let scale = |x: f64| x.exp().max(1.0);
        let pieces = Pieces::new(&f64::exp, range, -(frac as i32), EXPONENTIAL_ERROR, scale);
        let value =
            self.pieced(opened, Operand::Wide, &pieces.selected(EXPONENTIAL_LOW as f64, below), result_frac)?;
        // What is a little below the span, or just inside, is next to nothing: the test may be coarse.
        let digits = Digits {
            arg: opened,
            digit_bits: COMPARED_DIGIT_BITS,
            lowest_bits: 0,
            thresholds: vec![EXPONENTIAL_LOW / 2 + 1],
            low_bits: frac + 1,
            width: integer_bits - 1,
        };
        let reached = self.builder.compare(digits);
        let reached = self.bit_slice(reached, 0, opened)?;
        let bits = self.builder.open_bits(reached, 1);
        let masked = self.builder.open(value, Target::Both);
        let ring = signed_bits(self.builder.bound(value), result_frac);
        Ok(self.builder.bit_product(bits, 0, masked, Operand::Narrow(ring)))
    }
}

/// Fraction bits of an exponential's two factors: the entries, which are at least `1/e`, and what multiplies them.
const EXPONENTIAL_ENTRY_FRAC: u32 = 14;
const EXPONENTIAL_POWER_FRAC: u32 = 15;

/// A table of `e^(x + shift)` for x below 0, over a ring of `integer_bits` integer bits whose lowest piece is not used. Long
/// pieces make few entries, with more bits for what is small at their end.
fn steep_table(opened: Id, frac: u32, integer_bits: u32, shift: f64) -> Table {
    let exponent_log2 = integer_bits.saturating_sub(3).min(4);
    let (length, index_bits) = (f64::from(1 << exponent_log2), integer_bits - exponent_log2);
    let pieces = 1u32 << index_bits;
    let start = |p: u32| if p == 0 { 0.0 } else { (f64::from(p) - f64::from(pieces)) * length };
    let more = (length - 1.0) * std::f64::consts::LOG2_E;
    Table {
        arg: opened,
        low_bits: frac + exponent_log2,
        index_bits,
        basis: Basis::Exponential as i32,
        degree: 0,
        coefficients: (0..pieces).map(|p| (start(p) + shift).exp()).collect(),
        entry_frac: EXPONENTIAL_ENTRY_FRAC + more as u32,
        power_frac: EXPONENTIAL_POWER_FRAC,
        width: 0,
        exponent_log2,
    }
}

/// A table of `e^x` over a ring of `index_bits` integer bits, of which the lowest `positive` pieces are x >= 0.
fn exponential_table(opened: Id, frac: u32, index_bits: u32, positive: u32) -> Table {
    let pieces = 1u32 << index_bits;
    let exponent = |p: u32| if p < positive { f64::from(p) } else { f64::from(p) - f64::from(pieces) };
    Table {
        arg: opened,
        low_bits: frac,
        index_bits,
        basis: Basis::Exponential as i32,
        degree: 0,
        coefficients: (0..pieces).map(|p| exponent(p).exp()).collect(),
        entry_frac: EXPONENTIAL_ENTRY_FRAC,
        power_frac: EXPONENTIAL_POWER_FRAC,
        width: 0,
        exponent_log2: 0,
    }
}

/// A truth table over signed pieces.
pub(super) fn truth_table(index_bits: u32, test: impl Fn(i64) -> bool) -> Vec<u64> {
    let pieces = 1usize << index_bits;
    let mut words = vec![0u64; pieces.div_ceil(64)];
    for p in 0..pieces {
        let signed = if p < pieces / 2 { p as i64 } else { p as i64 - pieces as i64 };
        words[p / 64] |= u64::from(test(signed)) << (p % 64);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::approximation::{self, Approximate};
    use marill_program::Network;

    #[test]
    fn listed_errors_are_those_of_the_series() {
        for op in [Op::Gelu { form: GeluForm::Erf }, Op::Gelu { form: GeluForm::Tanh }, Op::Silu] {
            for listed in approximation::series(&op) {
                let shape = Shape { terms: listed.terms, ..shape(&op) };
                let fit = match listed.span {
                    Span::Window => windowed(&shape),
                    Span::Bound => spanning(&shape, approximation::SPANNED_BOUND, listed.terms),
                };
                assert!(
                    fit.error <= listed.error && fit.error > listed.error / 8.0,
                    "{listed:?}: {}",
                    fit.error
                );
            }
        }
    }

    /// The cheapest form depends on the network and on the error that is allowed.
    #[test]
    fn forms_are_chosen_by_cost_and_error() {
        let gelu = Op::Gelu { form: GeluForm::Erf };
        let choose = |elements, network, approximate| {
            let series = approximation::cheapest(&gelu, elements, 16.0, network, approximate).unwrap();
            (series.span, series.terms)
        };
        assert_eq!(choose(1 << 20, Network::LAN, Approximate::Exact), (Span::Window, 8));
        assert_eq!(choose(1 << 10, Network::WAN, Approximate::Exact), (Span::Bound, 20));
        assert_eq!(choose(1 << 20, Network::LAN, Approximate::Balanced), (Span::Window, 5));
        assert_eq!(choose(1 << 10, Network::WAN, Approximate::Balanced), (Span::Bound, 14));
        let wide = approximation::cheapest(&gelu, 1, 32.0, Network::WAN, Approximate::Exact).unwrap();
        assert_eq!(wide.span, Span::Window);
    }
}
