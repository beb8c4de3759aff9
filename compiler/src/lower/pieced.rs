//! Straight pieces by bits: what suits correlations that the two parties make themselves.
//!
//! A piece's line is looked up: the mask's unit vector, in which it is linear, takes two bits of traffic for each piece.
//! The line's value but for what the mask takes away, and its slope, come out in bits, which are opened under masks of
//! their own: those of the value write a number, those of the slope select the mask.
//!
//! The opened value says how far into a piece it is, and the mask's low bits, which nobody knows, take away up to a whole
//! piece: of every piece there are versions, each good on the interval that is left.

use marill_program::correlation::UNSEEN_LOG2;
use marill_program::schema::Lines;

use super::draft::{Id, Operand};
use super::{Lowering, Result};

/// Fraction bits of slopes, at most.
const MOST_SLOPE_FRAC: u32 = 32;
/// By how much slopes of few bits may raise the error.
const SLOPE_ERROR: f64 = 4.0 / 3.0;
/// Points of an interval, less one, that its line is fitted to; even.
const SAMPLES: usize = 8;
/// Part of a piece by which an argument may count as more.
const UNSEEN: f64 = 1.0 / (1 << UNSEEN_LOG2) as f64;
/// Versions of a piece, and of all pieces, as powers of two, at most.
const STEP_BITS: u32 = 3;
const MOST_VERSIONS_LOG2: u32 = 12;
/// Bits that tell where in a piece an argument is.
const POSITION_BITS: i32 = 10;
/// Most pieces, as a power of two.
const MOST_INDEX_BITS: u32 = 11;

/// A function of `range_log2` integer bits, read as numbers from `low` on, in straight pieces.
pub(super) struct Pieces<'f> {
    f: &'f dyn Fn(f64) -> f64,
    range_log2: i32,
    low: f64,
    /// Width of a unit of the argument, as a power of two.
    unit_log2: i32,
    index_bits: u32,
    slope_frac: u32,
    /// The error that is kept, where it is smallest.
    error: f64,
    /// The values of which a bit discards none; those beyond may become anything.
    selected: Option<(f64, f64)>,
}

impl<'f> Pieces<'f> {
    /// As few pieces, none narrower than `2^unit_log2`, and slopes of as few bits, as keep the error in units of `scale`.
    pub fn new(
        f: &'f dyn Fn(f64) -> f64,
        (range_log2, low): (i32, f64),
        unit_log2: i32,
        error: f64,
        scale: impl Fn(f64) -> f64,
    ) -> Pieces<'f> {
        let selected = None;
        let mut all = Pieces {
            f,
            range_log2,
            low,
            unit_log2,
            index_bits: 1,
            slope_frac: MOST_SLOPE_FRAC,
            error,
            selected,
        };
        let most = ((range_log2 - unit_log2).max(1) as u32).min(MOST_INDEX_BITS);
        while all.index_bits < most && !all.keeps(error, &scale) {
            all.index_bits += 1;
        }
        // An argument is at most an interval from where a line's intercept makes up for its slope.
        let smallest = (0..all.count()).map(|piece| scale(all.start(piece))).fold(f64::MAX, f64::min);
        let enough =
            (all.step() / (error * smallest)).log2().ceil().clamp(0.0, f64::from(MOST_SLOPE_FRAC)) as u32;
        all.slope_frac = enough.saturating_sub(4);
        while all.slope_frac < enough && !all.keeps(error * SLOPE_ERROR, &scale) {
            all.slope_frac += 1;
        }
        all.error *= smallest;
        all
    }

    /// The same where a bit discards what is said of values that are not from `low` to `high`: the result's ring need
    /// not hold it.
    pub fn selected(self, low: f64, high: f64) -> Pieces<'f> {
        Pieces { selected: Some((low, high)), ..self }
    }

    /// Fraction bits of an argument beyond which a piece makes nothing of it.
    pub fn useful_frac(&self) -> u32 {
        (self.index_bits as i32 - self.range_log2 + POSITION_BITS).max(0) as u32
    }

    /// How many pieces there are, as a power of two.
    pub fn index_bits(&self) -> u32 {
        self.index_bits
    }

    fn count(&self) -> usize {
        1 << self.index_bits
    }

    /// Width of a piece.
    pub fn step(&self) -> f64 {
        2f64.powi(self.range_log2 - self.index_bits as i32)
    }

    /// Versions of a piece, as a power of two: no more than there are arguments in it.
    fn step_bits(&self) -> u32 {
        let low_bits = self.range_log2 - self.index_bits as i32 - self.unit_log2;
        (low_bits.max(0) as u32).min(STEP_BITS).min(MOST_VERSIONS_LOG2 - self.index_bits)
    }

    fn start(&self, piece: usize) -> f64 {
        let (start, range) = (piece as f64 * self.step(), 2f64.powi(self.range_log2));
        if start >= self.low + range { start - range } else { start }
    }

    /// Every version of every piece, version by version, as tables have them.
    fn intervals(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let versions = 1 << self.step_bits();
        let part = self.step() / f64::from(versions);
        (0..versions).flat_map(move |version| {
            (0..self.count()).map(move |piece| {
                let end = self.start(piece) + f64::from(version + 1) * part;
                (end - part - self.step() * (1.0 + UNSEEN), end)
            })
        })
    }

    /// The slope of an interval's line.
    fn slope(&self, (from, to): (f64, f64)) -> f64 {
        ((self.f)(to) - (self.f)(from)) / (to - from)
    }

    /// The least and largest value of what a line of slope `b` leaves.
    fn rest(&self, (from, to): (f64, f64), b: f64) -> (f64, f64) {
        let points = (0..=SAMPLES).map(|i| from + (to - from) * i as f64 / SAMPLES as f64);
        let rests = points.map(|x| (self.f)(x) - b * x);
        rests.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    }

    /// What a line of slope `b` leaves on average, by Simpson's rule. Where in its interval an argument is depends on the
    /// mask, so with that for an intercept lines are right on average. What it counts as more is half of the most on average.
    fn mean_rest(&self, (from, to): (f64, f64), b: f64) -> f64 {
        let unseen = self.step() * UNSEEN / 2.0;
        let (from, to) = (from + unseen, to - unseen);
        let weighted = |i: usize| {
            let x = from + (to - from) * i as f64 / SAMPLES as f64;
            let weight = if i == 0 || i == SAMPLES { 1 } else { 2 + 2 * (i % 2) };
            ((self.f)(x) - b * x) * weight as f64
        };
        (0..=SAMPLES).map(weighted).sum::<f64>() / (3 * SAMPLES) as f64
    }

    /// Whether no line is off by more, but for the third that an intercept which is right on average may add.
    fn keeps(&self, error: f64, scale: &impl Fn(f64) -> f64) -> bool {
        let unit = 2f64.powi(-(self.slope_frac as i32));
        self.intervals().all(|interval| {
            let slope = (self.slope(interval) / unit).round() * unit;
            let (low, high) = self.rest(interval, slope);
            (high - low) / 2.0 <= error * scale(interval.1)
        })
    }
}

impl Lowering<'_> {
    /// A function of a masked value whose low integer bits say where it is, with `result_frac` fraction bits. Where the
    /// others say that it is elsewhere, what comes out is some piece's line, however far out; if that is
    /// [`Pieces::selected`], modulo the result's ring. `operand` is how the value enters its products with bits.
    pub(super) fn pieced(
        &mut self,
        opened: Id,
        operand: Operand,
        pieces: &Pieces<'_>,
        result_frac: u32,
    ) -> Result<Id> {
        let frac = self.builder.frac(opened);
        let intervals: Vec<(f64, f64)> = pieces.intervals().collect();
        let slope_frac = pieces.slope_frac.max(result_frac.saturating_sub(frac));
        let scale = 2f64.powi(slope_frac as i32);
        let steps = |interval: &(f64, f64)| (pieces.slope(*interval) * scale).round() as i64;
        let slopes: Vec<i64> = intervals.iter().map(steps).collect();
        let least = slopes.iter().copied().min().unwrap_or(0);
        let intercept =
            |(interval, slope): (&(f64, f64), &i64)| pieces.mean_rest(*interval, *slope as f64 / scale);
        let intercepts: Vec<f64> = intervals.iter().zip(&slopes).map(intercept).collect();
        let reach = self.builder.bound(opened);
        let line = |((&(from, to), slope), intercept): ((&(f64, f64), &i64), &f64)| {
            let slope = *slope as f64 / scale;
            match pieces.selected {
                Some((low, high)) => {
                    let ends = [from, to].map(|x| (slope * x.clamp(low, high) + intercept).abs());
                    ends[0].max(ends[1]) + pieces.error
                }
                None => slope.abs() * reach + intercept.abs(),
            }
        };
        let bound = intervals.iter().zip(&slopes).zip(&intercepts).map(line).fold(0.0, f64::max);

        // Everything at the fraction bits of slope times argument, but for what is dropped of the values in public.
        let whole = frac + slope_frac;
        let shift = whole.saturating_sub(result_frac);
        let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
        let fixed = |intercept: &f64| (intercept * 2f64.powi(whole as i32)).round() as i64 + half;
        let slopes: Vec<u64> = slopes.iter().map(|slope| (slope - least) as u64).collect();
        let slope_bits = slopes.iter().map(|s| 64 - s.leading_zeros()).max().unwrap_or(0).max(1);
        let (index_bits, step_bits) = (pieces.index_bits, pieces.step_bits());
        let lines = Lines {
            arg: opened,
            low_bits: (pieces.range_log2 + frac as i32 - index_bits as i32).max(0) as u32,
            index_bits,
            step_bits,
            slopes,
            intercepts: intercepts.iter().map(fixed).collect(),
            slope_bits,
            value_bits: 0,
            shift,
        };
        let bits = self.builder.opened_lines(lines, operand);
        let value = self.builder.bits_to_arithmetic(bits, slope_bits);
        let value = self.builder.scale(value, 1 << shift, whole);
        let masked = self.builder.mask_product(bits, slope_bits, opened, operand);
        let masked = self.builder.scale(masked, 1, slope_frac);
        let line = self.builder.sub(value, masked)?;
        let x = self.builder.lift(opened);
        let x = self.builder.scale(x, least, slope_frac);
        let sum = self.builder.add(line, x)?;
        self.builder.set_bound(sum, bound);
        let result = self.builder.at_frac(sum, result_frac);
        self.builder.set_bound(result, bound);
        Ok(result)
    }
}
