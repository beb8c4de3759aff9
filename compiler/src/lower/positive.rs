//! Functions of a positive number over many octaves: reciprocals and roots, once per row.
//!
//! The range is cut into regions of a few octaves. Each has its own table of cubics on the opened value's bits or, between
//! two parties alone, its own straight pieces; exact comparisons with the regions' borders select, by products of opened
//! bits with the differences of neighbours.

use marill_plaintext::Op;
use marill_program::schema::{Basis, Digits, Table};
use marill_program::{Suite, Target};

use super::draft::{Id, Operand, signed_bits};
use super::fit::cubic;
use super::pieced::Pieces;
use super::{Lowering, Result};
use crate::ir::ValueId;

/// Bits of the longest comparison: seven digits of five, and the sign.
const MAX_COMPARED: u32 = 36;
/// Bits of a border that a comparison with it sees.
const BORDER_BITS: i32 = 7;
/// Octaves of a region with a table of cubics, and of one in straight pieces.
const CUBIC_OCTAVES: i32 = 3;
const PIECED_OCTAVES: i32 = 2;
/// Pieces of the lowest and the highest region's table, as a power of two; they span twice the region's upper border.
/// Those of the others span it once: their lowest pieces, which belong to a lower region, go on above it.
const INDEX_BITS: u32 = 7;
const POSITION_FRAC: u32 = 14;
/// Relative precision of results, in bits, and relative error of straight pieces, unless a domain says otherwise.
const RELATIVE_BITS: i32 = 15;
const PIECES_ERROR: f64 = 1.0 / 32768.0;
/// Relative step of a difference that stands for a derivative.
const STEP: f64 = 1e-6;
/// How far below its lower border a region is taken to reach: comparisons are good to within `2^-7`.
const BORDER: f64 = 0.95;

/// A positive function's domain and fixed point.
pub(super) struct Domain {
    /// Smallest and largest argument, as powers of two.
    pub log2_min: i32,
    pub log2_max: i32,
    /// Bits that results have at the function's smallest value.
    pub relative_bits: i32,
    /// Relative error of straight pieces.
    pub pieces_error: f64,
}

impl Domain {
    /// From `2^log2_min` to `2^log2_max`, in full precision.
    pub fn new(log2_min: i32, log2_max: i32) -> Domain {
        Domain { log2_min, log2_max, relative_bits: RELATIVE_BITS, pieces_error: PIECES_ERROR }
    }
}

impl Lowering<'_> {
    /// `Sqrt`, `Rsqrt` or `Reciprocal` of a positive shared value.
    pub(super) fn root(&mut self, op: &Op, x: ValueId) -> Result<Id> {
        let x = self.shares(x)?;
        match op {
            Op::Sqrt => self.positive_function(x, f64::sqrt),
            Op::Rsqrt => self.positive_function(x, |y| 1.0 / y.sqrt()),
            _ => self.positive_function(x, |y| 1.0 / y),
        }
    }

    /// A monotonous function of a positive value between 2^-8 and the hidden bound.
    pub(super) fn positive_function(&mut self, x: Id, f: impl Fn(f64) -> f64) -> Result<Id> {
        let frac = self.builder.frac(x).min(self.precision.hidden_frac + 2);
        let y = self.builder.at_frac(x, frac);
        let log2_max = self.precision.hidden_bound.log2().ceil() as i32;
        self.positive(y, &Domain::new(-8, log2_max), f)
    }

    /// `f(y)` for y in the domain; results have the domain's bits at the function's smallest value.
    pub(super) fn positive(&mut self, y: Id, domain: &Domain, f: impl Fn(f64) -> f64) -> Result<Id> {
        let frac = self.builder.frac(y) as i32;
        // What is smaller than a unit in the last place is zero.
        let log2_min = domain.log2_min.max(-frac);
        let (low, high) = (2f64.powi(log2_min), 2f64.powi(domain.log2_max));
        let (at_low, at_high) = (f(low), f(high));
        let smallest = at_low.min(at_high).log2().floor() as i32;
        let result_frac = domain.relative_bits.saturating_sub(smallest).clamp(8, 30) as u32;
        // A region's table says anything up to twice the extremes outside its region, and cubics overshoot a little.
        let bound = 2.2 * at_low.max(at_high);
        self.builder.set_bound(y, high);
        let opened = self.builder.open(y, Target::Both);
        self.builder.require_width(opened, signed_bits(high, frac as u32));
        let (octaves, operand) = match self.cost.suite {
            Suite::Dealer => (CUBIC_OCTAVES, Operand::Narrow(signed_bits(2.0 * bound, result_frac))),
            // What a region's pieces say of values outside it can be far out. In one ring it cancels.
            Suite::TwoParty => (PIECED_OCTAVES, Operand::Wide),
        };
        let mut tops = Vec::new();
        let mut top = log2_min + octaves;
        while top < domain.log2_max {
            tops.push(top);
            top += octaves;
        }
        tops.push(domain.log2_max);
        let region = |&top: &i32| match self.cost.suite {
            Suite::Dealer => {
                let is_inner = top != tops[0] && top != domain.log2_max;
                Ok(self.cubics(opened, (top, is_inner), (low / 2.0, bound), result_frac, &f))
            }
            Suite::TwoParty => self.region_pieces(opened, (top, domain), result_frac, &f),
        };
        let regions: Vec<Id> = tops.iter().map(region).collect::<Result<_>>()?;
        let full = signed_bits(high, frac as u32);
        let mut result = regions[0];
        let (mut above, mut borders) = (&regions[1..], &tops[..tops.len() - 1]);
        while let Some(&first) = borders.first() {
            let low_bits = (first + frac - BORDER_BITS).max(0) as u32;
            // Where a value is above all that one comparison reaches, what it chooses means nothing: the next one
            // replaces it.
            let width = |count| borders.get(count).map_or(full, |&t| (t + frac + 2) as u32) - low_bits;
            let count = (1..=borders.len()).rev().find(|&n| width(n) <= MAX_COMPARED).unwrap_or(1);
            let width = width(count);
            let thresholds = borders[..count].iter().map(|&t| 1i64 << (t + frac - low_bits as i32)).collect();
            let digits = Digits {
                arg: opened,
                digit_bits: digit_bits(width),
                thresholds,
                low_bits,
                width,
                lowest_bits: 0,
            };
            let is_above = self.builder.compare(digits);
            let bits = self.builder.open_bits(is_above, 1);
            let below = result;
            for (i, &region) in above[..count].iter().enumerate() {
                let step = self.builder.sub(region, if i == 0 { below } else { above[i - 1] })?;
                let bit = self.bit_slice(bits, i, step)?;
                let masked = self.builder.open(step, Target::Both);
                let operand = if below == regions[0] { operand } else { Operand::Wide };
                let chosen = self.builder.bit_product(bit, 0, masked, operand);
                result = self.builder.add(result, chosen)?;
            }
            (above, borders) = (&above[count..], &borders[count..]);
        }
        self.builder.set_bound(result, bound);
        Ok(result)
    }

    /// Cubics on a table from 0 to twice the border `2^top`, or to a little above it; below `floor` they are level.
    fn cubics(
        &mut self,
        opened: Id,
        (top, is_inner): (i32, bool),
        (floor, bound): (f64, f64),
        result_frac: u32,
        f: &impl Fn(f64) -> f64,
    ) -> Id {
        let frac = self.builder.frac(opened) as i32;
        // A table of single units has room above the border.
        let goes_on = is_inner && top + 1 + frac > INDEX_BITS as i32;
        let index_bits = if is_inner { INDEX_BITS - 1 } else { INDEX_BITS };
        let low_bits = (top + 1 + frac - INDEX_BITS as i32).max(0) as u32;
        let width = 2f64.powi(low_bits as i32 - frac);
        // The border's own piece, and what may be taken as the one behind it.
        let start = |p: u32| f64::from(if goes_on && p < 2 { p + (1 << index_bits) } else { p }) * width;
        let piece = |p: u32| cubic(|v| f(v.max(floor)), start(p), width);
        let table = Table {
            arg: opened,
            low_bits,
            index_bits,
            basis: Basis::Monomials as i32,
            degree: 3,
            coefficients: (0..1 << index_bits).flat_map(piece).collect(),
            entry_frac: POSITION_FRAC,
            power_frac: result_frac + 2,
            width: 0,
            exponent_log2: 0,
        };
        let value = self.builder.table(table, bound);
        self.builder.at_frac(value, result_frac)
    }

    /// Straight pieces from 0 to twice the border `2^top`; below the region the function goes on along its tangent.
    fn region_pieces(
        &mut self,
        opened: Id,
        (top, domain): (i32, &Domain),
        result_frac: u32,
        f: &impl Fn(f64) -> f64,
    ) -> Result<Id> {
        let frac = self.builder.frac(opened) as i32;
        let (floor, high) = (2f64.powi(top - PIECED_OCTAVES) * BORDER, 2f64.powi(top));
        let steepness = (f(floor * (1.0 + STEP)) - f(floor)) / (floor * STEP);
        let extended = |y: f64| if y < floor { f(floor) + steepness * (y - floor) } else { f(y) };
        let pieces = Pieces::new(&extended, (top + 1, 0.0), -frac, domain.pieces_error, extended);
        let smallest = f(floor).min(f(high)).log2().floor() as i32;
        let own_frac = (domain.relative_bits - smallest).clamp(0, result_frac as i32) as u32;
        let coarse = self.builder.coarser(opened, pieces.useful_frac());
        // In its own few bits: a product's ring would widen all that the value is made of.
        let operand = Operand::Narrow(signed_bits(self.builder.bound(coarse), self.builder.frac(coarse)));
        let value = self.pieced(coarse, operand, &pieces, own_frac)?;
        Ok(self.builder.at_frac(value, result_frac))
    }

    /// Slice `i` of opened bits with a leading axis, in the shape of `like`.
    pub(super) fn bit_slice(&mut self, bits: Id, i: usize, like: Id) -> Result<Id> {
        let slice = Op::Slice { axis: 0, start: i as i64, end: i as i64 + 1, step: 1 };
        let one = self.builder.movement(&slice, &[bits])?;
        let shape = self.builder.shape(like).to_vec();
        self.builder.movement(&Op::Reshape { shape }, &[one])
    }
}

/// Digit size with which a comparison of `width` bits has at most seven digits.
pub(super) fn digit_bits(width: u32) -> u32 {
    (width - 1).div_ceil(7).clamp(1, 5)
}
