//! Functionality: masked x -> `[floor(x / 2^low) >= t]`, exact for low = 0, else the floor may be one higher; in two
//! steps, digits of the comparison and, once these are opened under masks, their combination.
//! Requires: |x / 2^low - t| < 2^(k - 1) with k the compared bits, for low > 0 also with 17/16 more.
//! Consumes: per element and digit of d bits 2^(d + 1) bits (shared by all thresholds), or 2^d for a lowest digit of a size
//! of its own, and the mask's top bit; per result `3 2^(m - 1) - 1` bits of products of the masks of the m digits' opened bits.
//! Online: digits 0 bytes; their opening `ceil(n (2 m - 1) / 8)` bytes each way, 1 round; combination 0 bytes.
//! Preprocessing: `m ceil(n 2^(d + 1) / 8) + ceil(n / 8)` bytes, and for the combination `2 ceil(n 2^(m - 1) / 8)` and
//! `ceil(n (2^(m - 1) - 1) / 8)`.
//! Fails: never.
//! Reference: `msb(Z - r) = msb(Z) ^ msb(r) ^ [Z_low < r_low]`; the digits' less-than as in Rathee et al., CrypTFlow2
//! (CCS 2020), section 3.1, with tables for public Z and a wide AND by masks of products (ABY2.0, section 3.2).

use marill_kernels::elements::by_blocks;
use marill_program::Ring;
use marill_program::correlation::{digit_count, unit_words};
use marill_program::schema::Digits;
use marill_program::tables::{digit, less_than_unit, shifted};

use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{BitShare, MaskedBits, Party};

/// The words that `marill_program::schema::Digits` describes. `fields` are one table per digit, then the mask's top
/// bits; `None` if there are fewer.
pub fn digits(
    party: Party,
    d: &Digits,
    opened: &Ring,
    shape: &[usize],
    fields: &[Shares],
) -> Option<BitShare> {
    let count = digit_count(d);
    let (tables, signs) = (fields.get(..count)?, fields.get(count)?);
    let mut words = Vec::with_capacity(shape.iter().product());
    for &threshold in &d.thresholds {
        words.extend(by_blocks(opened.len(), count + 1, Numbers::default, |numbers, range, out| {
            let opened = &opened.data[range.clone()];
            for (j, table) in tables.iter().enumerate() {
                if j == 0 && d.lowest_bits != 0 {
                    let (words, _) = unit_words(d.lowest_bits);
                    table.read(range.start * words..range.end * words, numbers);
                    for ((out, x), unit) in out.iter_mut().zip(opened).zip(numbers.chunks_exact(words)) {
                        *out |= less_than_unit(digit(d, shifted(d, *x, threshold), 0), unit);
                    }
                    continue;
                }
                table.read(range.clone(), numbers);
                for ((out, x), share) in out.iter_mut().zip(opened).zip(numbers.iter()) {
                    let c = digit(d, shifted(d, *x, threshold), j);
                    let equal = (share >> ((1 << d.digit_bits) + c)) & u64::from(j > 0);
                    *out |= ((share >> c) & 1) << j | equal << (count + j - usize::from(j > 0));
                }
            }
            signs.read(range, numbers);
            for ((out, x), sign) in out.iter_mut().zip(opened).zip(numbers.iter()) {
                let z = shifted(d, *x, threshold);
                let sign = party.public(1 ^ (z >> (d.width - 1))) ^ sign;
                *out |= (sign & 1) << (2 * count - 1);
            }
        }));
    }
    Some(BitShare::new(Ring::new(shape, words)))
}

/// For digits `from ..` of `count`, by their opened "equal" bits E: the subsets S of them (as bits of the fields of
/// products) whose term survives, that is, all digits outside S have E set.
fn survivors(count: usize, from: usize) -> Vec<u64> {
    let above = count - from;
    let full = (1u32 << above) - 1;
    let term = |opened: u32| (0..=full).filter(|s| s | opened == full).fold(0, |set, s| set | 1u64 << s);
    (0..=full).map(term).collect()
}

/// As [`survivors`], with S placed where the product of all digits' masks has it: `S << (from - 1)`.
fn spread(survivors: &[u64], from: usize) -> Vec<u64> {
    let place = |set: &u64| {
        (0..64).filter(|s| set >> s & 1 == 1).fold(0, |all, s: u32| all | 1u64 << (s << (from - 1)))
    };
    survivors.iter().map(place).collect()
}

fn parity(word: u64) -> u64 {
    u64::from(word.count_ones() & 1)
}

/// Combines digit words and their opened low bits to one bit per element. `fields` as in the program's demand:
/// products of the "equal" masks, of the lowest "less" mask with them, of the other "less" masks with those above.
/// `None` if there are fewer.
pub fn combine(words: &BitShare, width: u32, opened: &MaskedBits, fields: &[Shares]) -> Option<BitShare> {
    let count = width as usize / 2;
    let (equal, low, high) = (fields.first()?, fields.get(1)?, fields.get(2));
    if count > 1 && high.is_none() {
        return None;
    }
    let kept: Vec<Vec<u64>> = (1..=count).map(|from| survivors(count, from)).collect();
    let placed: Vec<Vec<u64>> = (1..=count).map(|from| spread(&kept[from - 1], from)).collect();
    let words = words.words();
    let scratch = || (Numbers::default(), Numbers::default(), Numbers::default());
    let data = by_blocks(words.len(), 4, scratch, |(equal_share, low_share, high_share), range, out| {
        equal.read(range.clone(), equal_share);
        low.read(range.clone(), low_share);
        if let Some(high) = high {
            high.read(range.clone(), high_share);
        }
        let elements = words.data[range.clone()].iter().zip(&opened.opened.data[range]);
        for (i, (out, (word, open))) in out.iter_mut().zip(elements).enumerate() {
            let equals = ((open >> count) & ((1 << (count - 1)) - 1)) as usize;
            // The term of digit j: prod over the digits above of (E ^ e), times (L ^ l).
            let less = |j: usize| 0u64.wrapping_sub((open >> j) & 1);
            let mut sum = equal_share[i] & placed[0][equals] & less(0);
            sum ^= low_share[i] & kept[0][equals];
            let mut offset = 0;
            for j in 1..count {
                let above = equals >> j;
                sum ^= equal_share[i] & placed[j][above] & less(j);
                sum ^= (high_share[i] >> offset) & kept[j][above];
                offset += 1 << (count - 1 - j);
            }
            *out = parity(sum) ^ (word >> (width - 1)) & 1;
        }
    });
    Some(BitShare::new(Ring::new(words.shape.clone(), data)))
}
