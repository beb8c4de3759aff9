//! Straight pieces by bits: what suits correlations that the two parties make themselves.
//!
//! A piece's line is looked up bit by bit: the mask's unit vector, of which truth tables are linear functions, takes two
//! bits of traffic for each piece, however many tables there are. The bits are opened under masks of their own, and
//! select: a bit of the intercept counts as an integer, a bit of the slope times the argument.
//!
//! The opened value says how far into a piece it is, and the mask's low bits, which nobody knows, take away up to a whole
//! piece: of every piece there are versions, each good on the interval that is left.

use marill_program::schema::BitTable;

use super::draft::{Id, Operand};
use super::{Lowering, Result};

/// Fraction bits of slopes, at most.
const MOST_SLOPE_FRAC: u32 = 20;
/// By how much slopes of few bits may raise the error.
const SLOPE_ERROR: f64 = 4.0 / 3.0;
/// Points of an interval, less one, that its line is fitted to; even.
const SAMPLES: usize = 8;
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
        let enough = (all.step() / error).log2().ceil().clamp(0.0, f64::from(MOST_SLOPE_FRAC)) as u32;
        all.slope_frac = enough.saturating_sub(2);
        while all.slope_frac < enough && !all.keeps(error * SLOPE_ERROR, &scale) {
            all.slope_frac += 1;
        }
        all.error *= (0..all.count()).map(|piece| scale(all.start(piece))).fold(f64::MAX, f64::min);
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
                (end - self.step() - part, end)
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
    /// mask, so with that for an intercept lines are right on average.
    fn mean_rest(&self, (from, to): (f64, f64), b: f64) -> f64 {
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

/// One number for each version of each piece in a few bits: `least + bits / 2^frac`.
struct Column {
    least: f64,
    frac: u32,
    numbers: Vec<u64>,
    bits: u32,
}

impl Column {
    fn new(values: &[f64], frac: u32) -> Column {
        let scale = 2f64.powi(frac as i32);
        let least = (values.iter().copied().fold(f64::INFINITY, f64::min) * scale).round() / scale;
        let numbers: Vec<u64> = values.iter().map(|v| ((v - least) * scale).round() as u64).collect();
        let bits = numbers.iter().map(|n| 64 - n.leading_zeros()).max().unwrap_or(0).max(1);
        Column { least, frac, numbers, bits }
    }

    fn value(&self, at: usize) -> f64 {
        self.least + self.numbers[at] as f64 / 2f64.powi(self.frac as i32)
    }

    /// Truth tables of the bits of versions of `count` pieces, the lowest bit first.
    fn tables(&self, count: usize) -> Vec<u64> {
        let words = count.div_ceil(64);
        let size = self.numbers.len() / count * words;
        let mut tables = vec![0; size * self.bits as usize];
        for (at, number) in self.numbers.iter().enumerate() {
            let (version, piece) = (at / count, at % count);
            for bit in 0..self.bits as usize {
                let word = &mut tables[bit * size + version * words + piece / 64];
                *word |= ((number >> bit) & 1) << (piece % 64);
            }
        }
        tables
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
        let slopes: Vec<f64> = intervals.iter().map(|&interval| pieces.slope(interval)).collect();
        let slope_frac = pieces.slope_frac.max(result_frac.saturating_sub(frac));
        let slopes = Column::new(&slopes, slope_frac);
        let intercept = |(at, interval): (usize, &(f64, f64))| pieces.mean_rest(*interval, slopes.value(at));
        let intercepts: Vec<f64> = intervals.iter().enumerate().map(intercept).collect();
        let intercepts = Column::new(&intercepts, result_frac);
        let reach = self.builder.bound(opened);
        let line = |(at, &(from, to)): (usize, &(f64, f64))| {
            let (slope, intercept) = (slopes.value(at), intercepts.value(at));
            match pieces.selected {
                Some((low, high)) => {
                    let ends = [from, to].map(|x| (slope * x.clamp(low, high) + intercept).abs());
                    ends[0].max(ends[1]) + pieces.error
                }
                None => slope.abs() * reach + intercept.abs(),
            }
        };
        let bound = intervals.iter().enumerate().map(line).fold(0.0, f64::max);

        let mut tables = slopes.tables(pieces.count());
        tables.extend(intercepts.tables(pieces.count()));
        let (index_bits, step_bits) = (pieces.index_bits, pieces.step_bits());
        let low_bits = (pieces.range_log2 + frac as i32 - index_bits as i32).max(0) as u32;
        let table = BitTable { arg: opened, low_bits, index_bits, tables, step_bits };
        let total = slopes.bits + intercepts.bits;
        let looked_up = self.builder.bit_table(table, total);
        let bits = self.builder.open_bits(looked_up, total);

        // All terms at the fraction bits of slope times argument.
        let whole = frac + slope_frac;
        let x = self.builder.lift(opened);
        let least = (slopes.least * 2f64.powi(slope_frac as i32)).round() as i64;
        let mut sum = self.builder.scale(x, least, slope_frac);
        for bit in 0..slopes.bits {
            let product = self.builder.bit_product(bits, bit, opened, operand);
            let term = self.builder.scale(product, 1 << bit, slope_frac);
            sum = self.builder.add(sum, term)?;
        }
        for bit in 0..intercepts.bits {
            let one = self.builder.bit_to_arithmetic(bits, slopes.bits + bit);
            let term = self.builder.scale(one, 1 << (bit + whole - result_frac), whole);
            sum = self.builder.add(sum, term)?;
        }
        let constant = self.scalar(intercepts.least as f32, whole);
        let sum = self.builder.add(sum, constant)?;
        self.builder.set_bound(sum, bound);
        let result = self.builder.at_frac(sum, result_frac);
        self.builder.set_bound(result, bound);
        Ok(result)
    }
}
