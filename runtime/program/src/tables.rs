//! The two halves of every masked function: what the opened value selects, and what the mask fills in.
//!
//! Preprocessing evaluates the `*_entry` functions at the secret mask; the parties evaluate the others at the opened
//! value. Both sides use this one file, and the clear-text interpreter is the same formulas with a mask of zero.

use crate::fixed::{Circle, exp, mask, power_of_two, round_to};
use crate::schema::{Basis, BitTable, Digits, Fourier, Table};

/// Splits the low bits of an opened value or mask into piece index and position within the piece.
pub fn split(value: u64, low_bits: u32, index_bits: u32) -> (usize, u64) {
    let value = value & mask(low_bits + index_bits);
    ((value >> low_bits) as usize, value & mask(low_bits))
}

/// Public factors of a table's entries at an opened value: `t^e * 2^power_frac` for e = 0 ..= degree, or `e^t`.
pub fn table_powers(t: &Table, opened: u64) -> [u64; 4] {
    let (_, low) = split(opened, t.low_bits, t.index_bits);
    let one = 1u64 << t.power_frac;
    if t.basis == Basis::Exponential as i32 {
        let position = low as f64 * power_of_two(-(t.low_bits as i32));
        return [round_to(exp(position), t.power_frac), 0, 0, 0];
    }
    let first = if t.low_bits > t.power_frac {
        low >> (t.low_bits - t.power_frac)
    } else {
        low << (t.power_frac - t.low_bits)
    };
    let second = (first * first) >> t.power_frac;
    [one, first, second, (second * first) >> t.power_frac]
}

/// All entries of one element's table at mask `r`: `2^index_bits` groups of `degree + 1`, appended to `entries`.
pub fn table_entries(t: &Table, r: u64, entries: &mut Vec<u64>) {
    let (high, low) = split(r, t.low_bits, t.index_bits);
    let l = low as f64 * power_of_two(-(t.low_bits as i32));
    let pieces = 1usize << t.index_bits;
    let terms = t.degree as usize + 1;
    let factor = if t.basis == Basis::Exponential as i32 { exp(-l) } else { 1.0 };
    for j in 0..pieces {
        let piece = (j + pieces - high) & (pieces - 1);
        let c = &t.coefficients[piece * terms..][..terms];
        let entry = |value: f64| round_to(value * factor, t.entry_frac);
        match *c {
            [c0] => entries.push(entry(c0)),
            [c0, c1] => entries.extend([entry(c0 - c1 * l), entry(c1)]),
            [c0, c1, c2] => {
                entries.extend([entry(c0 - (c1 - c2 * l) * l), entry(c1 - 2.0 * c2 * l), entry(c2)]);
            }
            [c0, c1, c2, c3] => entries.extend([
                entry(c0 - (c1 - (c2 - c3 * l) * l) * l),
                entry(c1 - (2.0 * c2 - 3.0 * c3 * l) * l),
                entry(c2 - 3.0 * c3 * l),
                entry(c3),
            ]),
            _ => unreachable!("validation bounds the degree"),
        }
    }
}

/// Public factors at an opened value: what multiplies the shares of `cos(j w r)` and of `sin(j w r)`, for j = 1, 2, ...
pub fn fourier_factors(f: &Fourier, opened: u64, factors: &mut [u64]) {
    let (terms, circle) = (f.cos.len(), Circle::new(f.period_bits));
    for j in 0..terms {
        let (c, s) = circle.at(opened.wrapping_mul(j as u64 + 1));
        factors[j] = round_to(f.cos[j] * c + f.sin[j] * s, f.power_frac);
        factors[terms + j] = round_to(f.cos[j] * s - f.sin[j] * c, f.power_frac);
    }
}

/// Entries at a mask: `cos(j w r)`, then `sin(j w r)`, appended.
pub fn fourier_entries(f: &Fourier, r: u64, entries: &mut Vec<u64>) {
    let circle = Circle::new(f.period_bits);
    let multiples = (1..=f.cos.len() as u64).map(|j| circle.at(r.wrapping_mul(j)));
    entries.extend(multiples.clone().map(|(c, _)| round_to(c, f.entry_frac)));
    entries.extend(multiples.map(|(_, s)| round_to(s, f.entry_frac)));
}

/// The series' constant term in the result's fixed point.
pub fn fourier_constant(f: &Fourier) -> u64 {
    round_to(f.constant, f.entry_frac + f.power_frac)
}

/// Words of truth table `table` rotated by the mask, appended: bit `j` is the table's bit `j - h`.
pub fn truth_table(t: &BitTable, table: usize, r: u64, words: &mut Vec<u64>) {
    let (high, _) = split(r, t.low_bits, t.index_bits);
    let entries = 1usize << t.index_bits;
    let count = entries.div_ceil(64);
    let source = &t.tables[table * count..][..count];
    if count == 1 {
        let word = source[0] & mask(entries as u32);
        let rotated = if high == 0 { word } else { (word << high) | (word >> (entries - high)) };
        words.push(rotated & mask(entries as u32));
        return;
    }
    let (skip, bits) = (high / 64, (high % 64) as u32);
    for w in 0..count {
        let here = source[(w + count - skip) % count];
        let below = source[(w + 2 * count - skip - 1) % count];
        words.push(if bits == 0 { here } else { (here << bits) | (below >> (64 - bits)) });
    }
}

/// Digit `digit` of a compared value, from [`shifted`], whose sign bit (bit `d.width - 1`) is left out.
pub fn digit(d: &Digits, value: u64, digit: usize) -> u32 {
    (((value & mask(d.width - 1)) >> (d.digit_bits * digit as u32)) & mask(d.digit_bits)) as u32
}

/// One digit's word at the mask's digit `d`: "c less than d" for every c, then "c equal to d".
pub fn digit_word(digit_bits: u32, d: u32) -> u64 {
    let less = mask(d);
    less | (1u64 << d) << (1u32 << digit_bits)
}

/// The value whose digits are compared with the mask's for threshold `t`: `(X >> low_bits) - t` in the comparison's ring.
///
/// With a mask for `opened` and no threshold, the mask's own value.
pub fn shifted(d: &Digits, opened: u64, threshold: i64) -> u64 {
    (opened >> d.low_bits).wrapping_sub(threshold as u64) & mask(d.width)
}
