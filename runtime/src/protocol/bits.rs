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
use marill_program::tables::{BitTables, line_share};

use super::lift::{Fields, Operand, READS, Terms, centred};
use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{BitShare, MaskedBits, Party, Share};

/// One bit per table from shares of the mask's unit vector.
pub fn tables(t: &BitTable, opened: &Ring, unit: &Shares) -> BitShare {
    let (words, _) = unit_words(t.index_bits);
    let tables = BitTables::new(t);
    let data = by_blocks(opened.len(), words + t.tables.len(), Numbers::default, |numbers, range, out| {
        unit.read(range.start * words..range.end * words, numbers);
        let elements = opened.data[range].iter().zip(numbers.chunks_exact(words));
        for (out, (x, unit)) in out.iter_mut().zip(elements) {
            *out = tables.look_up(*x, unit);
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
    x: &Operand<'_>,
    (from, to): (u32, u32),
    fields: &mut Fields,
) -> Option<Share> {
    let mut terms = Vec::new();
    for i in 0..count.min(to) {
        let beta_mask = fields.next()?;
        terms.push((beta_mask, if from < to - i { Some(fields.next()?) } else { None }));
    }
    let scratch = || (Terms::default(), Numbers::default(), Numbers::default());
    let data = by_blocks(x.elements(), READS, scratch, |(of_x, of_mask, of_top), range, out| {
        x.read(range.clone(), of_x);
        let opened = &bits.opened.data[range.clone()];
        for (i, (beta_mask, beta_top)) in terms.iter().enumerate() {
            beta_mask.read(range.clone(), of_mask);
            if let Some(beta_top) = beta_top {
                beta_top.read(range.clone(), of_top);
                take_tops(of_mask, of_x, of_top);
            }
            let parts = opened.iter().zip(of_mask.iter()).zip(&of_x.secret);
            for (sum, ((word, beta_mask), secret)) in out.iter_mut().zip(parts) {
                let opened = (word >> (first + i as u32)) & 1;
                let flipped = 1u64.wrapping_sub(2 * opened).wrapping_mul(*beta_mask);
                let product = flipped.wrapping_sub(opened.wrapping_mul(*secret));
                *sum = sum.wrapping_add(product << i);
            }
        }
    });
    Some(Share::new(Ring::new(x.shape(), data)))
}

/// Takes `P` times shares of `beta m` from those of `beta r`, for an operand that is lifted.
fn take_tops(of_mask: &mut [u64], of_x: &Terms, of_top: &[u64]) {
    let tops = of_x.wrap.iter().zip(of_top);
    of_mask.iter_mut().zip(tops).for_each(|(r, (p, m))| *r = r.wrapping_sub(p.wrapping_mul(*m)));
}

/// `b x` from shares of beta, of `beta r` and, for a lifted operand, of `beta m`. `None` if a field is missing.
pub fn product(
    party: Party,
    bits: &MaskedBits,
    bit: u32,
    x: &Operand<'_>,
    fields: &mut Fields,
) -> Option<Share> {
    let (beta, beta_mask) = (fields.next()?, fields.next()?);
    let beta_top = if x.lifted() { Some(fields.next()?) } else { None };
    let scratch = || (Terms::default(), Numbers::default(), Numbers::default());
    let data = by_blocks(x.elements(), READS, scratch, |(of_x, of_beta, of_mask), range, out| {
        x.read(range.clone(), of_x);
        beta_mask.read(range.clone(), of_mask);
        if let Some(beta_top) = &beta_top {
            beta_top.read(range.clone(), of_beta);
            take_tops(of_mask, of_x, of_beta);
        }
        beta.read(range.clone(), of_beta);
        let of_bits = bits.opened.data[range].iter().zip(of_beta.iter()).zip(of_mask.iter());
        let parts = of_x.public.iter().zip(&of_x.secret).zip(of_bits);
        for (out, ((u, secret), ((word, beta), beta_mask))) in out.iter_mut().zip(parts) {
            let opened = (word >> bit) & 1;
            let sign = 1u64.wrapping_sub(2 * opened);
            let share = party.public(*u).wrapping_add(*secret);
            let flipped = u.wrapping_mul(*beta).wrapping_sub(*beta_mask);
            *out = opened.wrapping_mul(share).wrapping_add(sign.wrapping_mul(flipped));
        }
    });
    Some(Share::new(Ring::new(x.shape(), data)))
}

/// The number that the bits from `first` on write, one for each field: shares of its beta.
pub fn to_arithmetic(party: Party, bits: &MaskedBits, first: u32, fields: &[Shares]) -> Share {
    let data = by_blocks(bits.opened.len(), READS, Numbers::default, |numbers, range, out| {
        let opened = &bits.opened.data[range.clone()];
        for (i, beta) in fields.iter().enumerate() {
            beta.read(range.clone(), numbers);
            for (sum, (word, beta)) in out.iter_mut().zip(opened.iter().zip(numbers.iter())) {
                let opened = (word >> (first + i as u32)) & 1;
                let bit =
                    party.public(opened).wrapping_add(1u64.wrapping_sub(2 * opened).wrapping_mul(*beta));
                *sum = sum.wrapping_add(bit << i);
            }
        }
    });
    Share::new(Ring::new(bits.opened.shape.clone(), data))
}
