//! The largest score of every row, to within a unit: what softmax subtracts. Two ways, of which the network decides.
//!
//! A tournament plays scores off in pairs, in a small ring where one look-up is the whole comparison: level by level,
//! each of which waits for the one before. Counting takes as many rounds however long rows are: every score becomes a
//! one-hot vector, whose sums along a row say how many scores reach each level, and the largest score is how many levels
//! are reached by any. A one-hot vector is more to compute and to hold than a level of the tournament.

use marill_plaintext::{Op, Tensor};
use marill_program::schema::{Basis, BitTable, Digits, Table};
use marill_program::{Network, Suite, Target};

use super::activation::truth_table;
use super::attention::Packing;
use super::draft::{Id, Operand};
use super::{Lowering, Result};
use crate::machine::{Machines, ONLINE_BYTE_S, PREPROCESS_BYTE_S, TRANSFER_S};

/// Seconds of an element of a one-hot vector online: turned, put in its place and added.
const COUNTED_S: f64 = 1e-8;

/// Most elements of one-hot vectors, which are in memory together, and most bits of a count, of which tables are made.
const MOST_COUNTED: usize = 1 << 24;
const MOST_COUNT_BITS: u32 = 12;

/// Bits of the digits by which two scores are compared, and what that takes each way for every bit of a score.
const COMPARED_DIGIT_BITS: u32 = 4;
const DIGITS_BITS: u32 = 5;

/// What decides between the ways.
#[derive(Clone, Copy)]
struct Sizes {
    /// Scores, and rows of them.
    scores: usize,
    rows: usize,
    /// Most scores in a row.
    keys: usize,
    /// Bits of a difference of scores, and of a score one less.
    bits: u32,
}

/// What one way takes.
#[derive(Default)]
struct Taken {
    /// Bits each way.
    online_bits: f64,
    /// Bits to the server, or each way between two parties alone.
    preprocess_bits: f64,
    rounds: f64,
    transfers: f64,
    counted: f64,
}

impl Taken {
    fn seconds(&self, network: Network) -> f64 {
        let bytes = |bits: f64| bits / 8.0;
        (self.online_bits + self.preprocess_bits) / network.bandwidth_bits_per_second
            + self.rounds * network.rtt_seconds / 2.0
            + bytes(self.online_bits) * ONLINE_BYTE_S
            + bytes(self.preprocess_bits) * PREPROCESS_BYTE_S
            + self.transfers * Machines::Own.share() * TRANSFER_S
            + self.counted * COUNTED_S
    }
}

impl Sizes {
    /// Bits of a ring that holds how many scores of a row reach a level.
    fn count_bits(&self) -> u32 {
        usize::BITS - (self.keys + 1).leading_zeros()
    }

    fn levels(&self) -> usize {
        (1 << (self.bits - 1)) - 2
    }

    /// Whether counting takes less time, and little enough memory.
    fn counts(&self, suite: Suite, network: Network) -> bool {
        self.count_bits() <= MOST_COUNT_BITS
            && self.scores.saturating_mul(1 << (self.bits - 1)) <= MOST_COUNTED
            && self.counting(suite).seconds(network) < self.tournament(suite).seconds(network)
    }

    fn tournament(&self, suite: Suite) -> Taken {
        let games = (self.scores - self.rows) as f64;
        let (bits, pieces) = (f64::from(self.bits), 2f64.powi(self.bits as i32));
        let depth = (self.keys as f64).log2().ceil();
        match suite {
            Suite::Dealer => Taken {
                online_bits: games * bits,
                preprocess_bits: games * pieces * bits,
                rounds: depth + 1.0,
                ..Taken::default()
            },
            Suite::TwoParty => Taken {
                online_bits: games * (bits + 1.0),
                preprocess_bits: games * (pieces + bits),
                rounds: 2.0 * depth + 1.0,
                transfers: 2.0 * games * pieces,
                ..Taken::default()
            },
        }
    }

    fn counting(&self, suite: Suite) -> Taken {
        let (scores, tests) = (self.scores as f64, (self.rows * self.levels()) as f64);
        let (bits, hot) = (f64::from(self.bits - 1), 2f64.powi(self.bits as i32 - 1));
        let (count_bits, counts) = (f64::from(self.count_bits()), 2f64.powi(self.count_bits() as i32));
        let counted = scores * hot;
        match suite {
            Suite::Dealer => Taken {
                online_bits: scores * bits + tests * count_bits,
                preprocess_bits: counted * count_bits + tests * counts * (bits + 1.0),
                rounds: 3.0,
                counted,
                ..Taken::default()
            },
            Suite::TwoParty => Taken {
                online_bits: scores * bits + tests * (count_bits + 1.0),
                // A bit becomes a number in one direction.
                preprocess_bits: scores * hot * (1.0 + count_bits / 2.0) + tests * (counts + bits),
                rounds: 3.0,
                transfers: 3.0 * counted + 2.0 * tests * counts,
                counted,
            },
        }
    }
}

/// Whether digits of so many scores take less time than a table does, for all that they take another round.
fn compares(scores: usize, bits: u32, network: Network) -> bool {
    let spared = 2f64.powi(bits as i32) - f64::from(DIGITS_BITS * bits);
    scores as f64 * spared / network.bandwidth_bits_per_second > network.rtt_seconds / 2.0
}

impl Lowering<'_> {
    /// The largest of each row of scores, whose differences have `bits` bits: `[batch, kept]` without fraction bits ->
    /// `[batch, rows]`, at any width.
    pub(super) fn row_maxima(&mut self, coarse: Id, bits: u32, packing: &Packing) -> Result<Id> {
        let sizes = Sizes {
            scores: packing.batch * packing.kept.len(),
            rows: packing.batch * packing.rows.len(),
            keys: packing.rows.iter().map(Vec::len).max().unwrap_or(0),
            bits,
        };
        if sizes.counts(self.cost.suite, self.cost.network) {
            return self.counted_maxima(coarse, packing, sizes);
        }
        self.played_maxima(coarse, bits, packing)
    }

    fn played_maxima(&mut self, coarse: Id, index_bits: u32, packing: &Packing) -> Result<Id> {
        let bound = 2f64.powi(index_bits as i32 - 2) - 1.0;
        let largest = self.tournament(coarse, packing.rows.clone(), &mut |this, a, b| {
            let difference = this.builder.sub(a, b)?;
            let opened = this.builder.open(difference, Target::Both);
            let positive = this.small_relu(opened, index_bits)?;
            let sum = this.builder.add(positive, b)?;
            this.builder.set_bound(sum, bound);
            Ok(sum)
        })?;
        Ok(self.lifted_maxima(largest, bound))
    }

    /// Found in a small ring, and needed in a larger one.
    fn lifted_maxima(&mut self, largest: Id, bound: f64) -> Id {
        self.builder.set_bound(largest, bound);
        let opened = self.builder.open(largest, Target::Both);
        self.builder.lift(opened)
    }

    /// `max(x, 0)` of small integers: one look-up, or a sign that is looked up or compared by digits, and selects.
    fn small_relu(&mut self, opened: Id, index_bits: u32) -> Result<Id> {
        if self.cost.suite == Suite::Dealer {
            let table = integers(opened, index_bits, |p| p.max(0) as f64);
            return Ok(self.builder.table(table, 2f64.powi(index_bits as i32 - 1)));
        }
        let positive = if compares(self.builder.get(opened).len(), index_bits, self.cost.network) {
            let digits = Digits {
                arg: opened,
                digit_bits: COMPARED_DIGIT_BITS,
                lowest_bits: 0,
                thresholds: vec![1],
                low_bits: 0,
                width: index_bits,
            };
            let positive = self.builder.compare(digits);
            self.bit_slice(positive, 0, opened)?
        } else {
            let tables = truth_table(index_bits, |p| p > 0);
            let table = BitTable { arg: opened, low_bits: 0, index_bits, tables };
            self.builder.bit_table(table, 1)
        };
        let bit = self.builder.open_bits(positive, 1);
        Ok(self.builder.bit_product(bit, 0, opened, Operand::Wide))
    }

    fn counted_maxima(&mut self, coarse: Id, packing: &Packing, sizes: Sizes) -> Result<Id> {
        let (bits, levels, count_bits) = (sizes.bits - 1, sizes.levels(), sizes.count_bits());
        let half = 1i64 << (bits - 1);
        // What scores are chosen from, where a party's mask drops some, is as wide as their differences.
        self.builder.require_width(coarse, sizes.bits);
        // From 1 on, in a ring of just the index's bits.
        let zero = self.scalar(half as f32, 0);
        let index = self.builder.add(coarse, zero)?;
        let opened = self.builder.open(index, Target::Both);
        self.builder.require_width(opened, bits);
        let hot = self.builder.one_hot(opened, 1 << bits);

        let (batch, keys) = (packing.batch, packing.keys);
        let dense = self.unpack(hot, packing)?;
        let by_row = Op::Reshape { shape: vec![batch, packing.full / keys, keys, 1 << bits] };
        let dense = self.builder.movement(&by_row, &[dense])?;
        let here = self.builder.sum(dense, 2);
        let here = self
            .builder
            .movement(&Op::Reshape { shape: vec![batch * packing.full / keys, 1 << bits] }, &[here])?;
        // Level 0 is reached from index 2 on.
        let reaches = |i: usize| i / levels >= 2 + i % levels;
        let all = (0..levels << bits).map(|i| if reaches(i) { 1.0 } else { 0.0 }).collect();
        let reached = self.ok(Tensor::f32([1 << bits, levels], all))?;
        let reached = self.made(&format!("levels.{bits}"), reached);
        let reached = self.builder.encode(reached, 0, 1.5);
        let counts = self.builder.matmul(here, reached, sizes.keys as f64 + 1.0)?;
        // From none on, signed.
        let none = 1 - (1i64 << (count_bits - 1));
        let shift = self.scalar(none as f32, 0);
        let counts = self.builder.add(counts, shift)?;
        let opened = self.builder.open(counts, Target::Both);

        let sum = if self.cost.suite == Suite::TwoParty {
            let tables = truth_table(count_bits, |p| p > none);
            let table = BitTable { arg: opened, low_bits: 0, index_bits: count_bits, tables };
            let any = self.builder.bit_table(table, 1);
            let bit = self.builder.open_bits(any, 1);
            let any = self.builder.bit_to_arithmetic(bit, 0);
            self.builder.sum(any, 1)
        } else {
            let any = |p: i64| f64::from(u8::from(p > none));
            let any = self.builder.table(integers(opened, count_bits, any), 1.5);
            self.builder.sum(any, 1)
        };
        let flat = Op::Reshape { shape: vec![batch, packing.full / keys] };
        let sum = self.builder.movement(&flat, &[sum])?;
        let present: Vec<usize> = packing.rows.iter().map(|row| packing.kept[row[0]] / keys).collect();
        let sum = self.take(sum, &present)?;
        let lowest = self.scalar((1 - half) as f32, 0);
        let largest = self.builder.add(sum, lowest)?;
        let bound = half as f64 - 1.0;
        self.builder.set_bound(largest, bound);
        // Bits become numbers of any width alike; a table takes its width for every entry.
        Ok(if self.cost.suite == Suite::TwoParty { largest } else { self.lifted_maxima(largest, bound) })
    }
}

/// A table of integers over all of a small signed ring.
fn integers(opened: Id, index_bits: u32, of: impl Fn(i64) -> f64) -> Table {
    let pieces = 1i64 << index_bits;
    let coefficients = (0..pieces).map(|p| of(if p < pieces / 2 { p } else { p - pieces })).collect();
    Table {
        arg: opened,
        low_bits: 0,
        index_bits,
        basis: Basis::Monomials as i32,
        degree: 0,
        coefficients,
        entry_frac: 0,
        power_frac: 0,
        width: 0,
        exponent_log2: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Few scores on a slow network are counted; many, or on a fast one, play.
    #[test]
    fn ways_are_chosen_by_cost() {
        let slowest = Network { rtt_seconds: 60.0, ..Network::LOOPBACK };
        let sizes = |keys: usize, rows: usize| Sizes { scores: rows * keys, rows, keys, bits: 8 };
        for suite in [Suite::Dealer, Suite::TwoParty] {
            assert!(sizes(129, 12).counts(suite, Network::WAN));
            assert!(!sizes(129, 12).counts(suite, Network::LOOPBACK));
            assert!(!sizes(512, 12 * 128).counts(suite, Network::WAN));
            assert!(sizes(512, 12).counts(suite, slowest));
            assert!(!sizes(512, 12 * 128).counts(suite, slowest), "that would take too much memory");
            assert!(!sizes(5000, 1).counts(suite, slowest), "tables would be too large");
        }
    }
}
