//! Correlated oblivious transfer: which mechanism makes how many, and what that sends, exactly.
//!
//! Everything here is public and the same at both parties: [`plan`] turns the number of COTs that a run will draw into
//! steps, and [`traffic`] sums what those steps send.
//!
//! Parameters of the silent sets, for learning parity with regular noise and 10 secrets to a sample. `n` samples,
//! `k` secrets, `t` errors, one to a bin of `n / t`. Three attacks decide, as base-2 logarithms of operations:
//! pooled Gauss `-t log2(1 - (k - t) / n) + 2.8 log2(k - t)` (Liu, Wang, Yang, Yu, EUROCRYPT 2024, section 4, with the bins'
//! parities used); algebra on the regular structure (Briaud and Oygarden, EUROCRYPT 2023, with guessed zeros, up to
//! degree 4), priced once with dense elimination, `2.8` times the monomials, and once with Wiedemann's method as if
//! guessing caused no fill-in, twice the monomials and 363 for the sparse rows, which is generous to the attacker.
//!
//! | set | n | k | t | pooled Gauss | algebra, dense | algebra, sparse |
//! |---|---|---|---|---|---|---|
//! | [`SMALL`] | 524,288 | 43,008 | 1,024 | 166 | 150 | 133 |
//! | [`MEDIUM`] | 2,097,152 | 151,552 | 1,024 | 158 | 149 | 131 |
//! | [`LARGE`] | 8,388,608 | 557,056 | 1,024 | 154 | 152 | 132 |
//! | Ferret's | 10,805,248 | 589,760 | 1,319 | 160 | 152 | 131 |
//! | emp-ot's b13 | 10,485,760 | 452,000 | 1,280 | 133 | 127 | 107 |
//! | emp-ot's b12 | 10,268,672 | 238,000 | 2,507 | 133 | 106 | 88 |
//! | emp-ot's b11 | 10,180,608 | 124,000 | 4,971 | 131 | 91 | 73 |
//!
//! The last four are for comparison: the main set of Yang, Weng, Lan, Zhang, Wang (CCS 2020, table 2), whose secrets
//! overflow most caches, and three whose bins are short for so few secrets that quadratic equations suffice. Even
//! covers of the 10-sparse rows have about `k / (n / k)^(1/4)` rows, too many for their bias to show. These are our
//! estimates by published formulas, not proofs.

use super::effort::Link;
use crate::cost::{CHUNK_BYTES, FRAME_HEADER_BYTES};

/// Bytes of a block: a key, a seed or a tree's correction.
pub const BLOCK_BYTES: u64 = 16;
/// Bits of `delta`, which is as many base transfers as there are.
pub const DELTA_BITS: usize = 128;
/// Bits of `delta` that one punctured function covers: the `k` of SoftSpoken.
pub const FIELD_BITS: usize = 4;
/// Punctured functions of SoftSpoken.
pub const FIELDS: usize = DELTA_BITS / FIELD_BITS;
/// Bytes of an encoded group element.
pub const POINT_BYTES: u64 = 32;
/// Blocks of 128 COTs that one message of SoftSpoken corrects.
pub const MESSAGE_BLOCKS: usize = CHUNK_BYTES as usize / ((FIELDS - 1) * BLOCK_BYTES as usize);
/// Secrets that one sample of the silent mechanism sums.
pub const LOCALITY: usize = 10;
/// Trees whose corrections are one message.
pub const MESSAGE_TREES: usize = 128;

/// A set of parameters of the silent mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Trees, each of which hides one error.
    pub trees: usize,
    /// Levels of a tree: it has `2^depth` leaves, one bin of samples.
    pub depth: u32,
    /// Secrets, COTs that an iteration consumes beside those of its trees.
    pub secrets: usize,
}

impl Set {
    /// COTs that an iteration makes.
    pub const fn outputs(&self) -> usize {
        self.trees << self.depth
    }

    /// COTs that an iteration consumes.
    pub const fn consumes(&self) -> usize {
        self.secrets + self.trees * self.depth as usize
    }

    /// COTs that an iteration adds to the stock.
    pub const fn gains(&self) -> usize {
        self.outputs() - self.consumes()
    }
}

/// For hundreds of thousands: its secrets fit a second-level cache.
pub const SMALL: Set = Set { trees: 1024, depth: 9, secrets: 43_008 };
/// For millions.
pub const MEDIUM: Set = Set { trees: 1024, depth: 11, secrets: 151_552 };

/// For tens of millions on a slow link: a third of the bytes, but its secrets overflow most caches.
pub const LARGE: Set = Set { trees: 1024, depth: 13, secrets: 557_056 };

/// Any set can follow any but the smallest: an iteration makes what the next one consumes.
const _: () = assert!(SMALL.outputs() >= MEDIUM.consumes() && MEDIUM.outputs() >= LARGE.consumes());
const _: () = assert!(MEDIUM.outputs() >= SMALL.consumes() && LARGE.outputs() >= MEDIUM.consumes());

/// One step that adds COTs to the stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many COTs by SoftSpoken.
    SoftSpoken(usize),
    /// One iteration with a set.
    Silent(Set),
}

impl Step {
    /// COTs that the step makes.
    pub fn outputs(&self) -> usize {
        match self {
            Step::SoftSpoken(count) => *count,
            Step::Silent(set) => set.outputs(),
        }
    }

    /// COTs that the step adds, less what it consumes.
    pub fn gains(&self) -> usize {
        match self {
            Step::SoftSpoken(count) => *count,
            Step::Silent(set) => set.gains(),
        }
    }
}

/// The most that SoftSpoken makes alone: above, a silent bootstrap sends less.
pub const SOFT_SPOKEN_MOST: usize = 1 << 17;
/// The most that is left to `SMALL` iterations: above, a `MEDIUM` one sends less.
pub const SMALL_MOST: usize = 2 * SMALL.gains();
/// The most that is left to `MEDIUM` iterations: above, a `LARGE` one sends less.
pub const MEDIUM_MOST: usize = MEDIUM.gains();

/// Time of a byte from which on [`LARGE`] iterations are worth their work: 20 Mbit/s.
const LARGE_BYTE_PS: u64 = 400_000;

/// The steps that make `total` COTs, in order.
///
/// Their gains are at least `total`. Each silent step finds in stock what it consumes if no more was drawn before it
/// than was left beside that.
pub fn plan(total: usize, link: Link) -> Vec<Step> {
    if total == 0 {
        return Vec::new();
    }
    if total <= SOFT_SPOKEN_MOST {
        return vec![Step::SoftSpoken(total)];
    }
    let mut steps = vec![Step::SoftSpoken(SMALL.consumes()), Step::Silent(SMALL)];
    let mut stock = SMALL.outputs();
    let is_slow = link.bytes_ps(1) >= LARGE_BYTE_PS;
    while stock < total {
        let set = match total - stock {
            rest if rest <= SMALL_MOST => SMALL,
            rest if rest <= MEDIUM_MOST || stock < LARGE.consumes() || !is_slow => MEDIUM,
            _ => LARGE,
        };
        stock += set.gains();
        steps.push(Step::Silent(set));
    }
    steps
}

/// What the sender and the receiver of COTs send, headers included, and how often the direction is taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that the COT sender sends.
    pub sender_bytes: u64,
    /// Bytes that the COT receiver sends.
    pub receiver_bytes: u64,
    /// Messages that the COT sender sends.
    pub sender_messages: u64,
    /// Messages that the COT receiver sends.
    pub receiver_messages: u64,
    /// Runs of messages in one direction: setup's two, one for each SoftSpoken step, one for each run of silent steps.
    pub flows: u64,
}

/// Payload lengths of the messages of one step, in order; SoftSpoken's come from the receiver, a silent iteration's
/// from the sender.
pub fn messages(step: &Step) -> Vec<u64> {
    let (units, most, unit_bytes) = match step {
        Step::SoftSpoken(count) => {
            (count.div_ceil(DELTA_BITS), MESSAGE_BLOCKS, (FIELDS as u64 - 1) * BLOCK_BYTES)
        }
        Step::Silent(set) => (set.trees, MESSAGE_TREES, u64::from(set.depth) * BLOCK_BYTES),
    };
    (0..units).step_by(most).map(|at| (units - at).min(most) as u64 * unit_bytes).collect()
}

/// Payload of setup's first message, from the COT sender: two points for each base transfer.
pub const SETUP_SENDER_BYTES: u64 = 2 * DELTA_BITS as u64 * POINT_BYTES;
/// Payload of setup's answer: a point, and two corrections for each level of each punctured function.
pub const SETUP_RECEIVER_BYTES: u64 = POINT_BYTES + 2 * DELTA_BITS as u64 * BLOCK_BYTES;

/// What setup for `total` COTs and drawing all of them sends.
pub fn traffic(total: usize, link: Link) -> Traffic {
    let mut traffic = Traffic {
        sender_bytes: SETUP_SENDER_BYTES + FRAME_HEADER_BYTES,
        receiver_bytes: SETUP_RECEIVER_BYTES + FRAME_HEADER_BYTES,
        sender_messages: 1,
        receiver_messages: 1,
        flows: 2,
    };
    let mut after_silent = false;
    for step in plan(total, link) {
        let messages = messages(&step);
        let count = messages.len() as u64;
        let bytes = messages.iter().sum::<u64>() + FRAME_HEADER_BYTES * count;
        match step {
            Step::SoftSpoken(_) => {
                traffic.receiver_bytes += bytes;
                traffic.receiver_messages += count;
            }
            Step::Silent(_) => {
                traffic.sender_bytes += bytes;
                traffic.sender_messages += count;
            }
        }
        let silent = matches!(step, Step::Silent(_));
        traffic.flows += u64::from(!(silent && after_silent));
        after_silent = silent;
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: u64 = 1_000_000;
    const SLOW: u64 = 10_000;

    #[test]
    fn plans_suffice_and_never_consume_what_is_not_there() {
        for total in
            [0, 1, 1000, SOFT_SPOKEN_MOST, SOFT_SPOKEN_MOST + 1, 300_000, 3_000_000, 9_000_000, 123_456_789]
        {
            for link in [FAST, SLOW].map(Link::new) {
                let mut stock = 0;
                let steps = plan(total, link);
                for step in &steps {
                    if let Step::Silent(set) = step {
                        assert!(set.consumes() <= stock, "{total}: {set:?} with {stock} in stock");
                    }
                    stock += step.gains();
                }
                assert!(stock >= total);
                assert!(
                    steps.last().is_none_or(|last| stock - last.gains() < total),
                    "{total}: a step in vain"
                );
            }
        }
    }

    #[test]
    fn messages_fit_chunks() {
        for step in
            [Step::SoftSpoken(1_000_000), Step::Silent(SMALL), Step::Silent(MEDIUM), Step::Silent(LARGE)]
        {
            assert!(messages(&step).iter().all(|bytes| *bytes > 0 && *bytes <= CHUNK_BYTES));
        }
        assert_eq!(messages(&Step::SoftSpoken(129)), [2 * 31 * 16]);
        assert_eq!(messages(&Step::Silent(MEDIUM)), [128 * 11 * 16; 8]);
    }

    #[test]
    fn bytes_per_transfer() {
        let per = |total: usize, kbits_per_second: u64| {
            let traffic = traffic(total, Link::new(kbits_per_second));
            (traffic.sender_bytes + traffic.receiver_bytes) as f64 / total as f64
        };
        assert!(per(100_000, FAST) < 4.2);
        assert!(per(1_000_000, FAST) < 0.7);
        assert!(per(30_000_000, FAST) < 0.11);
        assert!(per(30_000_000, SLOW) < 0.06);
    }

    fn pooled_gauss_bits(set: &Set) -> f64 {
        let (n, k, t) = (set.outputs() as f64, set.secrets as f64, set.trees as f64);
        -t * (1.0 - (k - t) / n).log2() + 2.8 * (k - t).log2()
    }

    fn binomial(n: i128, k: i128) -> i128 {
        (0..k).fold(1, |product, at| product * (n - at) / (at + 1))
    }

    /// Dense and sparse price of solving at degree at most 4, each bin's least number of zeros guessed for which the
    /// series `(1 + (b - 1 - guessed) z)^t / (1 + z)^(n - k)` stops by then.
    fn algebra_bits(set: &Set) -> [f64; 2] {
        let (n, k, t) = (set.outputs() as i128, set.secrets as i128, set.trees as i128);
        let (bin, parities) = (n / t, n - k);
        let coefficient = |guessed: i128, degree: i128| -> i128 {
            let term = |j: i128| {
                let others = degree - j;
                let sign = if others % 2 == 0 { 1 } else { -1 };
                sign * binomial(t, j)
                    * (bin - 1 - guessed).pow(j as u32)
                    * binomial(parities + others - 1, others)
            };
            (0..=degree).map(term).sum()
        };
        let price = |most: i128| {
            let stops = |guessed: &i128| (1..=most).any(|degree| coefficient(*guessed, degree) <= 0);
            let guessed = (0..bin - 1).find(stops).unwrap();
            let guess_bits = -(t as f64) * (1.0 - (guessed as f64 - 0.5).max(0.0) / bin as f64).log2();
            let unknowns = k - t - t * guessed;
            let monomials = (0..=most).map(|degree| binomial(unknowns, degree) as f64).sum::<f64>().log2();
            [guess_bits + 2.8 * monomials, guess_bits + 2.0 * monomials + 363_f64.log2()]
        };
        (2..=4).map(price).fold([f64::INFINITY; 2], |best, price| [0, 1].map(|at| best[at].min(price[at])))
    }

    #[test]
    fn known_attacks_take_what_the_table_says() {
        let emp = [(1280, 13, 452_000), (2507, 12, 238_000), (4971, 11, 124_000)];
        let [b13, b12, b11] = emp.map(|(trees, depth, secrets)| Set { trees, depth, secrets });
        let ferret = Set { trees: 1319, depth: 13, secrets: 589_760 };
        for (set, pooled, dense, sparse) in [
            (SMALL, 166, 150, 133),
            (MEDIUM, 158, 149, 131),
            (LARGE, 154, 152, 132),
            (ferret, 160, 152, 131),
            (b13, 133, 127, 107),
            (b12, 133, 106, 88),
            (b11, 131, 91, 73),
        ] {
            let [found_dense, found_sparse] = algebra_bits(&set);
            let found = [pooled_gauss_bits(&set), found_dense, found_sparse].map(|bits| bits.floor() as i32);
            assert_eq!(found, [pooled, dense, sparse], "{set:?}");
        }
    }
}
