//! Softmax over attention scores.
//!
//! Positions that a public mask drops are not computed at all: scores are packed to the kept ones. The row's maximum
//! is found to within 1 (see [`super::maximum`]); `e^(s - max)` is one look-up. A mask that only one party knows replaces
//! its scores by the lowest score.

use marill_plaintext::{DType, Op, Tensor};
use marill_program::{Suite, Target};

use super::draft::{Id, Operand, signed_bits};
use super::positive::Domain;
use super::{Lowering, Result, Value};
use crate::bundle::constant_value;
use crate::ir::ValueId;

/// Additive biases at or below this mean "masked".
const MASKED: f32 = -1e4;

/// Probabilities reach 1, and carries take them a little beyond; a bound is never reached.
pub(super) const PROBABILITY_BOUND: f64 = 1.01;

/// How close the maximum that softmax subtracts is to a row's largest score.
struct Coarse {
    /// To within `2^unit_log2`, above or below.
    unit_log2: u32,
    /// Differences from it are below this.
    below: f64,
    /// Their exponentials are.
    bound: f64,
    /// The largest one's is at least this power of 2.
    sum_log2_min: i32,
}

impl Coarse {
    /// A dealer's look-ups take half the entries in units of 2; two parties' exponential is made of pieces, which should
    /// be few.
    fn of(suite: Suite) -> Coarse {
        match suite {
            Suite::Dealer => Coarse { unit_log2: 1, below: 4.0, bound: 12.0, sum_log2_min: -3 },
            Suite::TwoParty => Coarse { unit_log2: 0, below: 2.0, bound: 4.0, sum_log2_min: -2 },
        }
    }
}

/// Relative precision of a row's inverse sum, in bits, and its relative error in straight pieces: as good as what it sums.
const SUM_BITS: i32 = 11;
const SUM_ERROR: f64 = 1.0 / 8192.0;

/// A table of steep exponentials has 34 bits more than what comes of it.
const MOST_SUM_BITS: u32 = 30;

/// Groups of rows of similar lengths.
const ROW_GROUPS: usize = 16;

/// Which positions of the score matrices are kept.
pub(super) struct Packing {
    /// Matrices in one packed row, batch axis before it: `[batch, matrices * q * k]`.
    pub batch: usize,
    /// Rows as positions of the packed axis.
    pub rows: Vec<Vec<usize>>,
    /// For each packed element its position before packing.
    pub kept: Vec<usize>,
    /// Length of the axis before packing.
    pub full: usize,
    /// Keys per row.
    pub keys: usize,
}

impl Lowering<'_> {
    /// Softmax along `axis` without a mask.
    pub(super) fn softmax(&mut self, scores: ValueId, axis: usize) -> Result<Id> {
        let s = self.shares(scores)?;
        let shape = self.builder.shape(s).to_vec();
        if axis + 1 == shape.len() {
            return self.softmax_of(s, None, None);
        }
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        perm.swap(axis, shape.len() - 1);
        let swap = Op::Transpose { perm };
        let last = self.builder.movement(&swap, &[s])?;
        let result = self.softmax_of(last, None, None)?;
        self.builder.movement(&swap, &[result])
    }

    /// `[scores, keep]` or `[scores, keep, bias]`.
    pub(super) fn attention_softmax(&mut self, args: &[ValueId]) -> Result<Id> {
        let s = self.shares(args[0])?;
        let shape = self.builder.shape(s).to_vec();
        let keep = constant_value(self.graph, args[1])
            .map_err(|_| self.refuse("attention_softmax", "its mask of kept positions is not a constant"))?;
        let keep = self.ok(marill_plaintext::evaluate(&Op::Expand { shape }, &[&keep]))?;
        let keep = self.ok(keep.to_bool_vec())?;
        match args.get(2) {
            None => self.softmax_of(s, Some(keep), None),
            Some(&bias) => match self.value(bias)? {
                Value::Plain(bias) => self.softmax_of(s, Some(keep), Some(bias)),
                Value::Shared(bias) => {
                    let frac = self.builder.frac(s).min(self.builder.frac(bias));
                    let (s, bias) = (self.builder.at_frac(s, frac), self.builder.at_frac(bias, frac));
                    let sum = self.builder.add(s, bias)?;
                    self.softmax_of(sum, Some(keep), None)
                }
            },
        }
    }

    fn softmax_of(&mut self, s: Id, keep: Option<Vec<bool>>, bias: Option<Id>) -> Result<Id> {
        let shape = self.builder.shape(s).to_vec();
        let frac = self.precision.attention_frac;
        let s = if self.builder.frac(s) > 2 * frac { self.builder.at_frac(s, 2 * frac) } else { s };
        let packing = packing(&shape, keep);
        let mut packed = self.pack(s, &packing)?;
        if let Some(bias) = bias {
            packed = self.with_bias(packed, bias, &shape, &packing)?;
        }
        self.builder.set_bound(packed, self.precision.score_bound());
        let probabilities = self.packed_softmax(packed, &packing)?;
        let dense = self.unpack(probabilities, &packing)?;
        let dense = self.builder.movement(&Op::Reshape { shape }, &[dense])?;
        self.builder.set_bound(dense, PROBABILITY_BOUND);
        Ok(dense)
    }

    fn pack(&mut self, x: Id, packing: &Packing) -> Result<Id> {
        let flat = Op::Reshape { shape: vec![packing.batch, packing.full] };
        let flat = self.builder.movement(&flat, &[x])?;
        self.take(flat, &packing.kept)
    }

    pub(super) fn unpack(&mut self, x: Id, packing: &Packing) -> Result<Id> {
        if packing.kept.len() == packing.full {
            return Ok(x);
        }
        let indices = self.indices(&packing.kept)?;
        Ok(self.builder.place(x, indices, 1, packing.full))
    }

    /// Adds a bias that one party knows; where it means "masked", the score becomes the lowest there is.
    fn with_bias(&mut self, packed: Id, bias: Id, shape: &[usize], packing: &Packing) -> Result<Id> {
        let expand = Op::Expand { shape: shape.to_vec() };
        let p = self.precision;
        let limit = self.made(&format!("scalar.{MASKED}"), Tensor::scalar_f32(MASKED));
        let kept = self.builder.plain(&Op::Greater, &[bias, limit])?;
        let zero = self.made("scalar.0", Tensor::scalar_f32(0.0));
        let real = self.builder.plain(&Op::Where, &[kept, bias, zero])?;
        let real = self.builder.plain(&expand, &[real])?;
        let real = self.builder.encode(real, self.builder.frac(packed), p.score_bound());
        let real = self.pack(real, packing)?;
        let sum = self.builder.add(packed, real)?;
        if !self.is_private_plain(Value::Plain(bias)) {
            return Ok(sum);
        }
        let lowest = p.score_bound() as f32;
        let x = self.builder.at_frac(sum, p.attention_frac);
        let lift = self.scalar(lowest, p.attention_frac);
        let above = self.builder.add(x, lift)?;
        let bound = p.score_bound() + p.masked_score_bound();
        self.builder.set_bound(above, bound);
        let above = self.builder.open(above, Target::Both);
        let one = self.builder.plain(&Op::Cast { to: DType::F32 }, &[kept])?;
        let one = self.builder.encode(one, 0, 1.5);
        let one = self.builder.share(one);
        let one = self.builder.open(one, Target::Both);
        let one = self.builder.movement(&expand, &[one])?;
        let one = self.pack(one, packing)?;
        let narrow = |bound, frac| Operand::Narrow(signed_bits(bound, frac));
        let operands = [narrow(bound, p.attention_frac), narrow(1.5, 0)];
        let chosen = self.builder.mul(above, one, operands, bound)?;
        self.builder.sub(chosen, lift)
    }

    fn packed_softmax(&mut self, s: Id, packing: &Packing) -> Result<Id> {
        let p = self.precision;
        let frac = p.attention_frac;
        let Coarse { unit_log2, below, bound, sum_log2_min } = Coarse::of(self.cost.suite);
        let units = if unit_log2 == 0 { s } else { self.builder.scale(s, 1, unit_log2) };
        let coarse = self.builder.at_frac(units, 0);
        let largest = self.row_maxima(coarse, p.score_bits - unit_log2, packing)?;
        let largest = if unit_log2 == 0 { largest } else { self.builder.scale(largest, 1 << unit_log2, 0) };
        let row_of = row_of_each(packing);
        let largest = self.take(largest, &row_of)?;
        let largest = self.builder.at_frac(largest, frac);

        let x = self.builder.at_frac(s, frac);
        let x = self.builder.sub(x, largest)?;
        let e = self.small_exponential(x, below, p.score_bits - 1, p.probability_frac)?;
        self.builder.set_bound(e, bound);

        let rows = packing.full / packing.keys;
        let dense = Op::Reshape { shape: vec![packing.batch, rows, packing.keys] };
        let masked = self.builder.open(e, Target::Both);
        // Two parties alone have carries of this mask made anyway, for the product; the sum needs no others.
        let is_wide = signed_bits(packing.keys as f64 * bound, p.probability_frac) > MOST_SUM_BITS;
        let each = match self.cost.suite {
            Suite::Dealer if !is_wide => e,
            _ => self.builder.lift(masked),
        };
        let unpacked = self.unpack(each, packing)?;
        let unpacked = self.builder.movement(&dense, &[unpacked])?;
        let sum = self.builder.sum(unpacked, 2);
        let sum = self.builder.movement(&Op::Reshape { shape: vec![packing.batch, rows] }, &[sum])?;
        let log2_max = (packing.keys as f64 * bound * 0.75).log2().ceil() as i32;
        let domain = match self.cost.suite {
            Suite::Dealer => Domain::new(sum_log2_min, log2_max),
            Suite::TwoParty => {
                let log2_min = sum_log2_min;
                Domain { log2_min, log2_max, relative_bits: SUM_BITS, pieces_error: SUM_ERROR }
            }
        };
        let inverse = self.positive(sum, &domain, |y| 1.0 / y)?;
        let factor = self.builder.open(inverse, Target::Both);
        let operand = Operand::Narrow(signed_bits(bound, p.probability_frac));
        let product = match self.cost.suite {
            Suite::Dealer => {
                let rows_of_kept: Vec<usize> = packing.kept.iter().map(|&at| at / packing.keys).collect();
                let factor = self.take(factor, &rows_of_kept)?;
                self.builder.mul(masked, factor, [operand, Operand::Wide], PROBABILITY_BOUND)?
            }
            Suite::TwoParty => self.times_rows(masked, operand, factor, packing)?,
        };
        Ok(self.builder.at_frac(product, p.probability_frac))
    }

    /// Packed elements times one factor for each row. Two parties alone choose once for a whole row, so rows of about the
    /// same length are multiplied together, the shorter ones filled up with what is then dropped.
    fn times_rows(&mut self, x: Id, operand: Operand, factor: Id, packing: &Packing) -> Result<Id> {
        let narrow = Operand::Narrow(signed_bits(self.builder.bound(factor), self.builder.frac(factor)));
        let (mut products, mut places, mut filled) = (Vec::new(), vec![0; packing.kept.len()], 0);
        for rows in row_groups(&packing.rows) {
            let longest = rows.iter().map(Vec::len).max().unwrap_or(1);
            let mut indices = Vec::with_capacity(rows.len() * longest);
            for row in rows {
                row.iter().enumerate().for_each(|(at, &packed)| places[packed] = filled + indices.len() + at);
                indices.extend(row.iter().chain(std::iter::repeat(&row[0])).take(longest));
            }
            filled += indices.len();
            let each = self.take(x, &indices)?;
            let by_row = Op::Reshape { shape: vec![packing.batch, rows.len(), longest] };
            let each = self.builder.movement(&by_row, &[each])?;
            let numbers: Vec<usize> = rows.iter().map(|row| packing.kept[row[0]] / packing.keys).collect();
            let factors = self.take(factor, &numbers)?;
            let factors = self
                .builder
                .movement(&Op::Reshape { shape: vec![packing.batch, rows.len(), 1] }, &[factors])?;
            let product = self.builder.mul(each, factors, [operand, narrow], PROBABILITY_BOUND)?;
            let flat = Op::Reshape { shape: vec![packing.batch, rows.len() * longest] };
            products.push(self.builder.movement(&flat, &[product])?);
        }
        let all = match products[..] {
            [] => return Ok(x),
            [all] => all,
            _ => self.builder.movement(&Op::Concat { axis: 1 }, &products)?,
        };
        self.take(all, &places)
    }
}

/// Rows in a few groups of similar lengths.
fn row_groups(rows: &[Vec<usize>]) -> impl Iterator<Item = &[Vec<usize>]> {
    let is_even = rows.windows(2).all(|pair| pair[0].len() == pair[1].len());
    let groups = if is_even { 1 } else { ROW_GROUPS };
    rows.chunks(rows.len().div_ceil(groups).max(1))
}

fn row_of_each(packing: &Packing) -> Vec<usize> {
    let mut result = vec![0; packing.kept.len()];
    for (r, row) in packing.rows.iter().enumerate() {
        row.iter().for_each(|&at| result[at] = r);
    }
    result
}

/// One packed axis for all batches where they keep the same positions, else one axis for everything.
fn packing(shape: &[usize], keep: Option<Vec<bool>>) -> Packing {
    let rank = shape.len();
    let keys = shape[rank - 1];
    let matrix = keys * if rank > 1 { shape[rank - 2] } else { 1 };
    let total: usize = shape.iter().product();
    let keep = keep.unwrap_or_else(|| vec![true; total]);
    let same = keep.chunks(matrix.max(1)).all(|chunk| *chunk == keep[..matrix]);
    let full = if same { matrix } else { total };
    let kept: Vec<usize> = (0..full).filter(|&at| keep[at]).collect();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut last = usize::MAX;
    for (packed, &at) in kept.iter().enumerate() {
        if at / keys != last {
            last = at / keys;
            rows.push(Vec::new());
        }
        if let Some(row) = rows.last_mut() {
            row.push(packed);
        }
    }
    Packing { batch: total / full.max(1), rows, kept, full, keys }
}
