//! Private matrix products by ring learning with errors: parameters, plans and exact lengths.
//!
//! Everything is public and the same at both parties: integers only, so that no machine rounds otherwise.
//!
//! Noise budget of a product modulo `2^w`, in bits. The error that a reply would show without flooding is, per
//! coefficient, a sum of `t` terms, each an operand below `2^(x-1)` times an error of encryption, of standard deviation
//! 3.24 and at most 21, and of encoding, at most 1/2:
//!
//! * on average over uniform operands `e <= x - 1 + log2(sqrt(4 t))`, at worst `x - 1 + log2(22 t)`;
//! * key switches at `h` levels add `33 + h` on average and `44 + h` at worst ([`SWITCH_BITS`]): a digit is below
//!   `2^23`, and at most 9 times 8192 of them meet an error;
//! * one more bit is the sum of both, and the fresh encryption of zero, which is below `2^20`.
//!
//! Flooding is uniform in `-2^f..2^f` with `f` at least the worst error and 40 bits, and at least the average error, 40
//! bits and `log2(coefficients)`, so that a whole message, not only a coefficient, is within `2^-40` of what a simulator
//! makes. The modulus has to hold `f + w + 5 <= log2 Q <= 215` ([`marill_kernels::rlwe::reply`] says why 5). It does for
//! every `w` up to 64, `k` up to `2^16` and messages of up to `2^26` coefficients, so that no operand is ever split; a shape
//! for which it does not is refused ([`Modulus::hides`]). What is left of the modulus widens the flooding.

use marill_kernels::rlwe::reply::{FLOOD_MARGIN_BITS, reply_bytes};
use marill_kernels::rlwe::residues::RESIDUE_BYTES;
use marill_kernels::rlwe::switching::{joins, switches};
use marill_kernels::rlwe::{DEGREE, LIMBS, keys};

use super::effort::{Link, TRANSFORM_PS};
use crate::cost::SEED_BYTES;

/// Statistical security, in bits.
pub const STATISTICAL_BITS: u32 = 40;
/// Bits that key switches at the lowest level add to the average error; every level above doubles them.
pub const SWITCH_BITS: u32 = 33;
/// Bits that key switches at the lowest level add to the worst error.
const WORST_SWITCH_BITS: u32 = 44;
/// Longest inner dimension.
pub const MOST_TERMS: usize = 1 << 24;
/// `floor(log2 Q)` for one to nine limbs.
pub const MODULUS_BITS: [u32; LIMBS] = [23, 47, 71, 95, 119, 143, 167, 191, 215];
/// Levels at which ciphertexts of a wide product can be joined, at most.
pub const WIDE_LEVELS: u32 = 7;
/// Levels at which ciphertexts of a pair can be joined, at most.
pub const PAIR_LEVELS: u32 = 8;
/// Most coefficients of a message of a wide product, as a power of two.
const WIDE_COEFFICIENT_BITS: u32 = 26;

/// A modulus and the flooding that fits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    /// Primes of the modulus.
    pub limbs: usize,
    /// Flooding is uniform in `-2^flood_bits..2^flood_bits`.
    pub flood_bits: u32,
    /// Whether that is as much as the budget asks for.
    pub hides: bool,
}

impl Modulus {
    /// For plaintexts of `width` bits and `2^coefficient_bits` coefficients in a message.
    fn new(width: u32, error: ErrorBits, coefficient_bits: u32) -> Modulus {
        let to_hide = error.worst.max(error.average + coefficient_bits);
        let needed = to_hide + STATISTICAL_BITS + width + FLOOD_MARGIN_BITS;
        let limbs = MODULUS_BITS.iter().position(|bits| *bits >= needed).map_or(LIMBS, |at| at + 1);
        let held = MODULUS_BITS[limbs - 1];
        Modulus { limbs, flood_bits: held - width - FLOOD_MARGIN_BITS, hides: needed <= held }
    }
}

/// Bits of the error of a ciphertext before it is flooded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ErrorBits {
    average: u32,
    worst: u32,
}

impl ErrorBits {
    /// Of sums of `terms` operands of `plain_bits` bits times fresh errors, packed at `levels` levels.
    fn new(plain_bits: u32, terms: usize, levels: u32) -> ErrorBits {
        let average = plain_bits - 1 + (usize::BITS - (4 * terms).isqrt().leading_zeros());
        let worst = plain_bits - 1 + ceil_log2(22 * terms);
        if levels == 0 {
            return ErrorBits { average: average + 1, worst: worst + 1 };
        }
        ErrorBits {
            average: average.max(SWITCH_BITS + levels) + 1,
            worst: worst.max(WORST_SWITCH_BITS + levels) + 1,
        }
    }
}

fn ceil_log2(x: usize) -> u32 {
    usize::BITS - x.saturating_sub(1).leading_zeros()
}

/// Bytes of a ciphertext whose `a` comes from a seed.
fn ciphertext_bytes(limbs: usize, coefficients: usize) -> u64 {
    (limbs * coefficients * RESIDUE_BYTES) as u64
}

/// Bytes of a public key for `limbs` limbs and `levels` levels, and the seed of its other half.
pub fn key_bytes(limbs: usize, levels: u32) -> u64 {
    SEED_BYTES + keys::published_bytes(limbs, levels) as u64
}

/// A product `[n, k] x [k, m] -> [n, m]` of the client's fresh matrix and the server's fixed one, modulo `2^width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideShape {
    pub k: usize,
    pub m: usize,
    /// Bits of the ring, 1 to 64.
    pub width: u32,
}

/// How a wide product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WidePlan {
    pub modulus: Modulus,
    /// Columns of a block; the last block may have fewer.
    pub columns: usize,
    /// Columns stand at every `2^log_stride`-th coefficient, so that so many rows fit one ciphertext.
    pub log_stride: u32,
}

impl WideShape {
    /// The plan of this shape. It does not depend on `n`.
    pub fn plan(&self) -> WidePlan {
        let columns = self.m.div_ceil(self.m.div_ceil(DEGREE).max(1)).max(1);
        let log_stride = (DEGREE / columns).ilog2().min(WIDE_LEVELS);
        let error = ErrorBits::new(self.width, self.k.min(MOST_TERMS), log_stride);
        let modulus = Modulus::new(self.width, error, WIDE_COEFFICIENT_BITS);
        WidePlan { modulus, columns, log_stride }
    }

    /// Whether a message of `n` rows tells nothing of the client's matrix.
    pub fn hides(&self, n: usize) -> bool {
        let coefficients = (n as u64).saturating_mul(self.m as u64);
        self.k <= MOST_TERMS && coefficients <= 1 << WIDE_COEFFICIENT_BITS && self.plan().modulus.hides
    }

    /// Columns of each block.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let (m, columns) = (self.m, self.plan().columns);
        (0..m).step_by(columns).map(move |from| columns.min(m - from))
    }

    /// Bytes of the encrypted matrix, server to client, once.
    pub fn setup_bytes(&self) -> u64 {
        ciphertext_bytes(self.plan().modulus.limbs, self.m) * self.k as u64
    }

    /// Bytes of the message for `n` rows, client to server.
    pub fn message_bytes(&self, n: usize) -> usize {
        let group = 1 << self.plan().log_stride;
        let groups =
            move |columns: usize| (0..n).step_by(group).map(move |from| (n - from).min(group) * columns);
        self.blocks().flat_map(groups).map(|count| reply_bytes(self.width, count)).sum()
    }
}

/// Limbs and levels of the public key that serves all `shapes`.
pub fn wide_key(shapes: &[WideShape]) -> (usize, u32) {
    let plans = shapes.iter().map(WideShape::plan);
    plans.fold((1, 0), |(limbs, levels), plan| (limbs.max(plan.modulus.limbs), levels.max(plan.log_stride)))
}

/// Bytes of the setup stream of all `shapes`, server to client: seed, key, matrices.
pub fn wide_setup_bytes(shapes: &[WideShape]) -> u64 {
    let (limbs, levels) = wide_key(shapes);
    key_bytes(limbs, levels) + shapes.iter().map(WideShape::setup_bytes).sum::<u64>()
}

/// Which products of a pair are wanted; the client's matrices are `a0`, `b0`, the server's `a1`, `b1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cross {
    /// `a0 x b1`.
    Left,
    /// `a1 x b0`.
    Right,
    /// `a0 x b1 + a1 x b0`.
    Both,
}

/// A batch of products `[n, k] x [k, m] -> [n, m]` of one matrix of each party, modulo `2^width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairShape {
    pub batch: usize,
    pub n: usize,
    pub k: usize,
    pub m: usize,
    /// Bits of the ring, 1 to 64.
    pub width: u32,
    /// The server's matrices are `plain_bits`-bit two's complement numbers; `width` where they are masks.
    pub plain_bits: u32,
    pub cross: Cross,
    /// What the plan is for.
    pub link: Link,
}

impl PairShape {
    /// Products `[n, k] x [k, m]`, with the bits of their ring and of the server's matrices.
    pub fn new(
        batch: usize,
        [n, k, m]: [usize; 3],
        [width, plain_bits]: [u32; 2],
        cross: Cross,
        link: Link,
    ) -> PairShape {
        PairShape { batch, n, k, m, width, plain_bits, cross, link }
    }

    /// The one or two halves, each a product of an encrypted left side by a plain right side. The right half is
    /// transposed: `b0^T x a1^T`.
    pub fn halves(&self) -> impl Iterator<Item = HalfShape> + use<> {
        let PairShape { batch, n, k, m, width, plain_bits, cross, link } = *self;
        let half = move |rows, columns| HalfShape { batch, rows, k, columns, width, plain_bits, link };
        let left = (cross != Cross::Right).then(|| half(n, m));
        let right = (cross != Cross::Left).then(|| half(m, n));
        left.into_iter().chain(right)
    }

    /// Whether a reply tells nothing of the server's matrices.
    pub fn hides(&self) -> bool {
        self.k <= MOST_TERMS && self.halves().all(|half| half.plan().modulus.hides)
    }

    /// Bytes from client to server.
    pub fn request_bytes(&self) -> u64 {
        SEED_BYTES + self.halves().map(|half| half.request_bytes(&half.plan())).sum::<u64>()
    }

    /// Bytes from server to client.
    pub fn reply_bytes(&self) -> u64 {
        self.halves().map(|half| half.reply_bytes(&half.plan())).sum()
    }
}

/// Limbs and levels of the public key that serves all `shapes`.
pub fn pair_key(shapes: &[PairShape]) -> (usize, u32) {
    let plans = shapes.iter().flat_map(PairShape::halves).map(|half| half.plan());
    plans.fold((1, 0), |(limbs, levels), plan| (limbs.max(plan.modulus.limbs), levels.max(plan.log_terms)))
}

/// A batch of products `[rows, k] x [k, columns]` of an encrypted left side by a plain right side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfShape {
    pub batch: usize,
    pub rows: usize,
    pub k: usize,
    pub columns: usize,
    pub width: u32,
    pub plain_bits: u32,
    pub link: Link,
}

/// How a half is cut into blocks `[rows, 2^log_terms] x [2^log_terms, columns]`, one ciphertext each; or, where the batch's
/// products are of a row by a column, how many of these rows there are whole in one ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfPlan {
    /// Rows of different products of the batch in a ciphertext of the request; 1 where it is cut into blocks.
    pub together: usize,
    pub modulus: Modulus,
    /// Rows of a block.
    pub rows: usize,
    /// The inner dimension of a block, and the stride of its result.
    pub log_terms: u32,
    /// Columns of a block.
    pub columns: usize,
}

impl HalfShape {
    /// The plan that takes least time on the link and on one core.
    pub fn plan(&self) -> HalfPlan {
        let most = ceil_log2(self.k).min(PAIR_LEVELS);
        let plans = (0..=most).flat_map(|log_terms| {
            let room = DEGREE >> log_terms;
            (0..=ceil_log2(self.columns.min(room)))
                .map(move |log_columns| (log_terms, room, 1 << log_columns))
        });
        let plans = plans.filter(|(_, room, columns)| columns <= room);
        let plans = plans.map(|(log_terms, room, columns)| self.block(log_terms, room / columns, columns));
        let best = plans.chain(self.whole_rows()).min_by_key(|plan| self.cost(plan));
        best.unwrap_or_else(|| self.block(0, DEGREE, 1))
    }

    /// The plan with whole rows, where products are of a row by a column and several rows fit a ciphertext. What is wanted
    /// of each product is one coefficient, so there is room for others between all multiples of the stride.
    fn whole_rows(&self) -> Option<HalfPlan> {
        let together = (DEGREE / self.k.max(1)).min(self.batch);
        if self.rows != 1 || self.columns != 1 || together < 2 {
            return None;
        }
        let log_terms = ceil_log2(self.batch).min(PAIR_LEVELS);
        let error = ErrorBits::new(self.plain_bits, self.k, log_terms);
        let modulus = Modulus::new(self.width, error, ceil_log2(self.batch));
        Some(HalfPlan { together, modulus, rows: 1, log_terms, columns: 1 })
    }

    fn block(&self, log_terms: u32, rows: usize, columns: usize) -> HalfPlan {
        let terms = self.k.min(MOST_TERMS) * columns;
        let error = ErrorBits::new(self.plain_bits, terms, log_terms);
        let coefficient_bits = ceil_log2(self.batch * self.rows * self.columns);
        let modulus = Modulus::new(self.width, error, coefficient_bits);
        HalfPlan { together: 1, modulus, rows: rows.min(self.rows.max(1)), log_terms, columns }
    }

    /// Picoseconds that a plan takes on the link and on one core.
    pub fn cost(&self, plan: &HalfPlan) -> u64 {
        let limbs = plan.modulus.limbs;
        let results = self.results(plan);
        let (whole, rest) = (results >> plan.log_terms, results % (1 << plan.log_terms));
        let switched = whole * switches(1 << plan.log_terms) + if rest > 0 { switches(rest) } else { 0 };
        let products = results * self.terms(plan);
        let transforms = switched * limbs * (limbs + 2) + products * limbs + results * limbs;
        self.link
            .bytes_ps(self.request_bytes(plan) + self.reply_bytes(plan))
            .saturating_add((transforms as u64).saturating_mul(TRANSFORM_PS))
    }

    /// Products of ciphertexts by plain polynomials that one result sums.
    pub fn terms(&self, plan: &HalfPlan) -> usize {
        if plan.together > 1 { 1 } else { self.k.div_ceil(1 << plan.log_terms) }
    }

    /// Ciphertexts of a request.
    pub fn requests(&self, plan: &HalfPlan) -> usize {
        self.batch.div_ceil(plan.together) * self.rows.div_ceil(plan.rows) * self.terms(plan)
    }

    /// Ciphertexts of the result before they are packed.
    pub fn results(&self, plan: &HalfPlan) -> usize {
        self.batch * self.rows.div_ceil(plan.rows) * self.columns.div_ceil(plan.columns)
    }

    /// Rows and columns of result `at`: by batch, then blocks of rows, then blocks of columns.
    pub fn extent(&self, plan: &HalfPlan, at: usize) -> Extent {
        let (across, down) = (self.columns.div_ceil(plan.columns), self.rows.div_ceil(plan.rows));
        let (row, column) = (at / across % down * plan.rows, at % across * plan.columns);
        Extent {
            batch: at / (across * down),
            row,
            rows: plan.rows.min(self.rows - row),
            column,
            columns: plan.columns.min(self.columns - column),
        }
    }

    /// Bytes of the ciphertexts of a request.
    pub fn request_bytes(&self, plan: &HalfPlan) -> u64 {
        ciphertext_bytes(plan.modulus.limbs, DEGREE) * self.requests(plan) as u64
    }

    /// The packed ciphertexts of a reply: the range of results in each.
    pub fn groups(&self, plan: &HalfPlan) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (results, group) = (self.results(plan), 1 << plan.log_terms);
        (0..results).step_by(group).map(move |from| from..results.min(from + group))
    }

    /// Bytes of the packed ciphertext of `group`.
    pub fn group_bytes(&self, plan: &HalfPlan, group: std::ops::Range<usize>) -> usize {
        reply_bytes(
            self.width,
            self.elements_before(plan, group.end) - self.elements_before(plan, group.start),
        )
    }

    /// Elements of all results before `at`.
    fn elements_before(&self, plan: &HalfPlan, at: usize) -> usize {
        let (across, down) = (self.columns.div_ceil(plan.columns), self.rows.div_ceil(plan.rows));
        let (batch, within) = (at / (across * down), at % (across * down));
        let row = within / across * plan.rows;
        let above = (batch * self.rows + row) * self.columns;
        above + plan.rows.min(self.rows - row) * (within % across * plan.columns)
    }

    /// Bytes of a reply.
    pub fn reply_bytes(&self, plan: &HalfPlan) -> u64 {
        if self.rows.is_multiple_of(plan.rows) && self.columns.is_multiple_of(plan.columns) {
            // All results have as many elements, and there are many.
            let (results, group, each) = (self.results(plan), 1 << plan.log_terms, plan.rows * plan.columns);
            let rest = reply_bytes(self.width, results % group * each);
            let whole = results / group * reply_bytes(self.width, group * each);
            return (whole + if results.is_multiple_of(group) { 0 } else { rest }) as u64;
        }
        self.groups(plan).map(|group| self.group_bytes(plan, group) as u64).sum()
    }

    /// Where element (row, column) of a block of number `index` in a group of `count` stands after packing.
    pub fn position(plan: &HalfPlan, (row, column): (usize, usize), index: usize, count: usize) -> usize {
        ((row * plan.columns + column) << plan.log_terms) + (index << (plan.log_terms - joins(count)))
    }
}

/// The part of a half's result that one ciphertext holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub batch: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use marill_kernels::rlwe::MODULI;

    #[test]
    fn moduli_have_the_bits_that_are_counted_on() {
        let mut bits = 0.0;
        for (limbs, counted) in MODULUS_BITS.iter().enumerate() {
            bits += f64::from(MODULI[limbs].prime()).log2();
            assert_eq!(bits as u32, *counted);
        }
        assert!(bits <= 218.0);
    }

    #[test]
    fn a_replys_bytes_are_those_of_its_results() {
        for (batch, rows, columns, log_terms) in
            [(3, 5, 7, 1), (1, 64, 11008, 3), (12, 100, 64, 0), (5, 32, 64, 2)]
        {
            let half =
                HalfShape { batch, rows, k: 40, columns, width: 37, plain_bits: 37, link: Link::new(0) };
            for columns in [1, 4, 64] {
                let plan = half.block(log_terms, (DEGREE >> log_terms) / columns / 4, columns);
                for group in half.groups(&plan) {
                    let extents = group.clone().map(|at| half.extent(&plan, at));
                    let count = extents.map(|extent| extent.rows * extent.columns).sum();
                    assert_eq!(half.group_bytes(&plan, group), reply_bytes(37, count));
                }
                let groups = half.groups(&plan).map(|group| half.group_bytes(&plan, group) as u64);
                assert_eq!(half.reply_bytes(&plan), groups.sum::<u64>());
            }
        }
    }

    #[test]
    fn every_width_and_depth_fits_with_forty_bits_of_flooding() {
        for width in 1..=64 {
            for k in [1, 8, 64, 768, 3072, 11008, 1 << 16] {
                for m in [1, 8, 768, 3072, 8192, 50257] {
                    let plan = WideShape { k, m, width }.plan();
                    let worst = f64::from(width - 1) + (22.0 * k as f64).log2();
                    let worst =
                        worst.max(f64::from(if plan.log_stride > 0 { 44 + plan.log_stride } else { 0 }));
                    assert!(f64::from(plan.modulus.flood_bits) >= worst + 41.0, "{width} {k} {m} {plan:?}");
                    let held = plan.modulus.flood_bits + width + FLOOD_MARGIN_BITS;
                    assert!(held <= MODULUS_BITS[plan.modulus.limbs - 1]);
                    assert!(plan.columns << plan.log_stride <= DEGREE);
                }
            }
        }
    }

    #[test]
    fn plans_of_halves_fit_a_ciphertext() {
        for (batch, rows, k, columns) in [(1, 1, 1, 1), (12, 128, 64, 128), (1, 128, 768, 8), (3, 5, 33, 17)]
        {
            let half = HalfShape { batch, rows, k, columns, width: 36, plain_bits: 36, link: Link::new(0) };
            let plan = half.plan();
            let worst = 35.0 + (22.0 * (k * plan.columns) as f64).log2();
            let held = plan.modulus.flood_bits + 36 + FLOOD_MARGIN_BITS;
            assert!(
                f64::from(plan.modulus.flood_bits) >= worst + 41.0
                    && held <= MODULUS_BITS[plan.modulus.limbs - 1]
            );
            assert!((plan.rows * plan.columns) << plan.log_terms <= DEGREE);
            let extents = (0..half.results(&plan)).map(|at| half.extent(&plan, at));
            assert_eq!(extents.map(|e| e.rows * e.columns).sum::<usize>(), batch * rows * columns);
        }
    }
}
