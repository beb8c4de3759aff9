//! Straight pieces by bits: what suits correlations that the two parties make themselves.
//!
//! A piece's line is looked up bit by bit: the mask's unit vector, of which truth tables are linear functions, takes two
//! bits of traffic for each piece, however many tables there are. The bits are opened under masks of their own, and
//! select: a bit of the intercept counts as an integer, a bit of the slope times the argument.

use marill_program::schema::BitTable;

use super::draft::{Id, Operand};
use super::{Lowering, Result};

/// Fraction bits of slopes, at most.
const MOST_SLOPE_FRAC: i32 = 20;
/// Points of a piece that its line is fitted to.
const SAMPLES: usize = 32;
/// Bits that tell where in a piece an argument is.
const POSITION_BITS: i32 = 10;
/// Most pieces, as a power of two.
const MOST_INDEX_BITS: u32 = 11;

/// A function of `range_log2` integer bits, read as numbers from `low` on, in straight pieces.
pub(super) struct Pieces<'f> {
    f: &'f dyn Fn(f64) -> f64,
    range_log2: i32,
    low: f64,
    index_bits: u32,
    /// The error that is kept, where it is smallest.
    error: f64,
    /// The values of which a bit discards none; those beyond may become anything.
    selected: Option<(f64, f64)>,
}

impl<'f> Pieces<'f> {
    /// As few pieces, none narrower than `2^narrowest_log2`, as keep the error in units of `scale`.
    pub fn new(
        f: &'f dyn Fn(f64) -> f64,
        (range_log2, low): (i32, f64),
        narrowest_log2: i32,
        error: f64,
        scale: impl Fn(f64) -> f64,
    ) -> Pieces<'f> {
        let mut all = Pieces { f, range_log2, low, index_bits: 1, error, selected: None };
        let with = |index_bits| Pieces { f, range_log2, low, index_bits, error, selected: None };
        let most = ((range_log2 - narrowest_log2).max(1) as u32).min(MOST_INDEX_BITS);
        all.index_bits = (1..most).find(|&bits| with(bits).largest_error(&scale) <= error).unwrap_or(most);
        all.error *= (0..all.count()).map(|piece| scale(all.start(piece))).fold(f64::MAX, f64::min);
        all
    }

    /// The same where a bit discards what is said of values that are not from `low` to `high`: the result's ring need
    /// not hold it.
    pub fn selected(self, low: f64, high: f64) -> Pieces<'f> {
        Pieces { selected: Some((low, high)), ..self }
    }

    /// Fraction bits of slopes: what is left over counts over one piece, and may take a third of the error.
    fn slope_frac(&self) -> u32 {
        let bits = (3.0 * self.step() / self.error).log2().ceil() as i32 - 1;
        bits.clamp(0, MOST_SLOPE_FRAC) as u32
    }

    /// Fraction bits of an argument beyond which a piece makes nothing of it.
    pub fn useful_frac(&self) -> u32 {
        (self.index_bits as i32 - self.range_log2 + POSITION_BITS).max(0) as u32
    }

    fn count(&self) -> usize {
        1 << self.index_bits
    }

    /// Width of a piece.
    pub fn step(&self) -> f64 {
        2f64.powi(self.range_log2 - self.index_bits as i32)
    }

    fn start(&self, piece: usize) -> f64 {
        let (start, range) = (piece as f64 * self.step(), 2f64.powi(self.range_log2));
        if start >= self.low + range { start - range } else { start }
    }

    /// The slope of a piece's line, which is good on both sides of its beginning: the piece may be the next one.
    fn slope(&self, piece: usize) -> f64 {
        let (from, to) = (self.start(piece) - self.step(), self.start(piece) + self.step());
        ((self.f)(to) - (self.f)(from)) / (to - from)
    }

    /// The least and largest value of what a line of slope `b` leaves.
    fn rest(&self, piece: usize, b: f64) -> (f64, f64) {
        let from = self.start(piece) - self.step();
        let points = (0..=SAMPLES).map(|i| from + 2.0 * self.step() * i as f64 / SAMPLES as f64);
        let rests = points.map(|x| (self.f)(x) - b * x);
        rests.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    }

    /// The largest error of any piece.
    fn largest_error(&self, scale: &impl Fn(f64) -> f64) -> f64 {
        let error = |piece| {
            let (low, high) = self.rest(piece, self.slope(piece));
            (high - low) / 2.0 / scale(self.start(piece))
        };
        (0..self.count()).map(error).fold(0.0, f64::max)
    }
}

/// One number for each piece in a few bits: `least + bits / 2^frac`.
struct Column {
    least: f64,
    frac: u32,
    numbers: Vec<u64>,
    bits: u32,
}

impl Column {
    fn new(values: &[f64], frac: u32) -> Column {
        let scale = 2f64.powi(frac as i32);
        let least = (values.iter().copied().fold(f64::INFINITY, f64::min) * scale).floor() / scale;
        let numbers: Vec<u64> = values.iter().map(|v| ((v - least) * scale).round() as u64).collect();
        let bits = numbers.iter().map(|n| 64 - n.leading_zeros()).max().unwrap_or(0).max(1);
        Column { least, frac, numbers, bits }
    }

    fn value(&self, piece: usize) -> f64 {
        self.least + self.numbers[piece] as f64 / 2f64.powi(self.frac as i32)
    }

    /// Truth tables of the bits, the lowest first.
    fn tables(&self) -> Vec<u64> {
        let words = self.numbers.len().div_ceil(64);
        let mut tables = vec![0; words * self.bits as usize];
        for (piece, number) in self.numbers.iter().enumerate() {
            for bit in 0..self.bits as usize {
                tables[bit * words + piece / 64] |= ((number >> bit) & 1) << (piece % 64);
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
        let all = 0..pieces.count();
        let slopes: Vec<f64> = all.clone().map(|p| pieces.slope(p)).collect();
        let slope_frac = pieces.slope_frac().max(result_frac.saturating_sub(frac));
        let slopes = Column::new(&slopes, slope_frac);
        let intercept = |piece: usize| {
            let (low, high) = pieces.rest(piece, slopes.value(piece));
            (low + high) / 2.0
        };
        let intercepts = Column::new(&all.clone().map(intercept).collect::<Vec<_>>(), result_frac);
        let reach = self.builder.bound(opened);
        let line = |piece: usize| {
            let at = |x: f64| (slopes.value(piece) * x + intercepts.value(piece)).abs();
            let (start, step) = (pieces.start(piece), pieces.step());
            match pieces.selected {
                Some((low, high)) => {
                    let ends = [start - step, start + step].map(|x| at(x.clamp(low, high)));
                    ends[0].max(ends[1]) + pieces.error
                }
                None => slopes.value(piece).abs() * reach + intercepts.value(piece).abs(),
            }
        };
        let bound = all.map(line).fold(0.0, f64::max);

        let mut tables = slopes.tables();
        tables.extend(intercepts.tables());
        let low_bits = (pieces.range_log2 + frac as i32 - pieces.index_bits as i32).max(0) as u32;
        let table = BitTable { arg: opened, low_bits, index_bits: pieces.index_bits, tables };
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
