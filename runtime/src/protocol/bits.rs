//! Functionality: masked x -> `[b]` for truth tables over x's high bits, the piece possibly the next one at borders, or the
//! bits of a line's slope and of the public part of its value; opened bits and masked x -> `[b x]`, and `[s (u - x)]` for
//! the number s that several bits write; opened bits -> the number that they write. No other error.
//! Requires: for the products |x| < 2^(k - 2) where it is lifted.
//! Consumes: tables and lines, however many: per element the unit vector of the mask's piece, 2^index_bits bits; product:
//! the lift's fields, beta, beta r at w bits, and beta m at w - k bits where lifted; product with a mask: the lift's
//! fields, for bit i of s beta r at w - i bits, and beta m at w - i - k bits where lifted; number: beta of bit i at w - i
//! bits.
//! Online: 0 bytes, 0 rounds. Preprocessing: tables and lines `ceil(n 2^index_bits / 8)` bytes; product
//! `2 ceil(n w / 8)` and, lifted, the lift's and `ceil(n (w - k) / 8)`; product with a mask and number `ceil(n (w - i) / 8)`
//! for each bit, the former lifted the lift's and `ceil(n (w - i - k) / 8)` for each.
//! Fails: never.
//! Reference: Ishai et al. (TCC 2013) for tables; daBits, Rotaru and Wood (INDOCRYPT 2019), for `b = B + (1 - 2 B) beta`.

use marill_kernels::elements::by_blocks;
use marill_program::Ring;
use marill_program::correlation::unit_words;
use marill_program::schema::{BitTable, Lines};
use marill_program::tables::{backwards, line_share, look_up};

use super::lift::{Operand, centred};
use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{BitShare, MaskedBits, Party, Share};

/// One bit per table from shares of the mask's unit vector.
pub fn tables(t: &BitTable, opened: &Ring, unit: &Shares) -> BitShare {
    let (words, _) = unit_words(t.index_bits);
    let tables = backwards(t);
    let scratch = || (Numbers::default(), vec![0; words]);
    let data = by_blocks(opened.len(), words + tables.len(), scratch, |(numbers, turned), range, out| {
        unit.read(range.start * words..range.end * words, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(words));
        for (out, (x, unit)) in out.iter_mut().zip(elements) {
            *out = look_up(t, &tables, *x, unit, turned);
        }
    });
    BitShare::new(Ring::new(opened.shape.clone(), data))
}

/// A line's word per element, of `width` bits as opened, from shares of the mask's unit vector.
pub fn lines(l: &Lines, opened: &Ring, width: u32, unit: &Shares) -> BitShare {
    let (words, _) = unit_words(l.index_bits);
    let is_lifted = width < l.value_bits + l.shift;
    let data = by_blocks(opened.len(), 1 << l.index_bits, Numbers::default, |numbers, range, out| {
        unit.read(range.start * words..range.end * words, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(words));
        for (out, (x, unit)) in out.iter_mut().zip(elements) {
            *out = line_share(l, *x, if is_lifted { centred(*x, width) } else { *x }, unit);
        }
    });
    BitShare::new(Ring::new(opened.shape.clone(), data))
}

/// `s (u - x)` for the number s of `count` bits from `first` on: for each from shares of beta times the mask and, where
/// the operand is lifted, times its top bit. `None` if a field is missing.
pub fn mask_product(
    bits: &MaskedBits,
    (first, count): (u32, u32),
    x: &Operand,
    (from, to): (u32, u32),
    fields: &mut std::vec::IntoIter<Vec<u64>>,
) -> Option<Share> {
    let mut terms = Vec::new();
    for i in 0..count.min(to) {
        let beta_mask = fields.next()?;
        terms.push((beta_mask, if from < to - i { Some(fields.next()?) } else { None }));
    }
    let sum = by_blocks(
        x.public.len(),
        2 * terms.len() + 3,
        || (),
        |(), range, out| {
            for (i, (beta_mask, beta_top)) in terms.iter().enumerate() {
                for (at, sum) in range.clone().zip(&mut *out) {
                    let opened = (bits.opened.data[at] >> (first + i as u32)) & 1;
                    let top = beta_top.as_ref().map_or(0, |top| x.wrap.data[at].wrapping_mul(top[at]));
                    let flipped = 1u64.wrapping_sub(2 * opened).wrapping_mul(beta_mask[at].wrapping_sub(top));
                    let product = flipped.wrapping_sub(opened.wrapping_mul(x.secret.data[at]));
                    *sum = sum.wrapping_add(product << i);
                }
            }
        },
    );
    Some(Share::new(Ring::new(x.public.shape.clone(), sum)))
}

/// `b x` from shares of beta, of `beta r` and, for a lifted operand, of `beta m`. `None` if a field is missing.
pub fn product(
    party: Party,
    bits: &MaskedBits,
    bit: u32,
    x: &Operand,
    fields: &mut std::vec::IntoIter<Vec<u64>>,
) -> Option<Share> {
    let (beta, beta_mask) = (fields.next()?, fields.next()?);
    let beta_top = if x.lifted() { Some(fields.next()?) } else { None };
    let value = |i: usize| {
        let opened = (bits.opened.data[i] >> bit) & 1;
        let sign = 1u64.wrapping_sub(2 * opened);
        let (u, p) = (x.public.data[i], x.wrap.data[i]);
        let share = party.public(u).wrapping_add(x.secret.data[i]);
        let top = beta_top.as_ref().map_or(0, |top| p.wrapping_mul(top[i]));
        let flipped = u.wrapping_mul(beta[i]).wrapping_sub(beta_mask[i]).wrapping_add(top);
        opened.wrapping_mul(share).wrapping_add(sign.wrapping_mul(flipped))
    };
    let data = by_blocks(
        x.public.len(),
        6,
        || (),
        |(), range, out| {
            out.iter_mut().zip(range).for_each(|(out, i)| *out = value(i));
        },
    );
    Some(Share::new(Ring::new(x.public.shape.clone(), data)))
}

/// The number that the bits from `first` on write, one for each field: shares of its beta.
pub fn to_arithmetic(
    party: Party,
    bits: &MaskedBits,
    first: u32,
    fields: impl Iterator<Item = Vec<u64>>,
) -> Share {
    let fields: Vec<Vec<u64>> = fields.collect();
    let sum = by_blocks(
        bits.opened.len(),
        fields.len() + 1,
        || (),
        |(), range, out| {
            for (i, beta) in fields.iter().enumerate() {
                let words = bits.opened.data[range.clone()].iter().zip(&beta[range.clone()]);
                for (sum, (word, beta)) in out.iter_mut().zip(words) {
                    let opened = (word >> (first + i as u32)) & 1;
                    let bit =
                        party.public(opened).wrapping_add(1u64.wrapping_sub(2 * opened).wrapping_mul(*beta));
                    *sum = sum.wrapping_add(bit << i);
                }
            }
        },
    );
    Share::new(Ring::new(bits.opened.shape.clone(), sum))
}
