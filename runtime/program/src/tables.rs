//! The two halves of every masked function: what the opened value selects, and what the mask fills in.
//!
//! Preprocessing evaluates the `*_entry` functions at the secret mask; the parties evaluate the others at the opened
//! value. Both sides use this one file, and the clear-text interpreter is the same formulas with a mask of zero.

use marill_kernels::functions::{
    CUBICS_BELOW, Cubics, SHIFTED, add_waves, byte_sum, cubic_sum, exp_powers, scaled_sum, weighted_sum,
};

use crate::correlation::{digit_bits, unit_words};
use crate::fixed::{Circle, exp_power, mask, power_of_two, round_to};
use crate::schema::{Basis, BitTable, Digits, Fourier, Lines, Table};

/// Splits the low bits of an opened value or mask into piece index and position within the piece.
pub fn split(value: u64, low_bits: u32, index_bits: u32) -> (usize, u64) {
    let value = value & mask(low_bits + index_bits);
    ((value >> low_bits) as usize, value & mask(low_bits))
}

/// One element's secret numbers at mask `r`, appended: `2^index_bits` groups of `degree + 1`, all zeros but group `h`,
/// the mask's piece. That is `1, t, t^2, ...` for the mask's position `t` in the piece, all but the 1 with `entry_frac`
/// fraction bits; with the exponential basis `e^-(2^exponent_log2 t)`.
pub fn table_entries(t: &Table, r: u64, entries: &mut Vec<u64>) {
    let (high, low) = split(r, t.low_bits, t.index_bits);
    let position = low as f64 * power_of_two(-(t.low_bits as i32));
    let terms = t.degree as usize + 1;
    let start = entries.len();
    entries.resize(start + (terms << t.index_bits), 0);
    let group = &mut entries[start + high * terms..][..terms];
    if t.basis == Basis::Exponential as i32 {
        group[0] = round_to(exp_power(-position, t.exponent_log2), t.entry_frac);
        return;
    }
    group[0] = 1;
    let mut power = 1.0;
    for entry in &mut group[1..] {
        power *= position;
        *entry = round_to(power, t.entry_frac);
    }
}

/// What multiplies one element's secret numbers at opened values.
///
/// With the opened value's piece and position `u`, group `h` gets the piece's polynomial `sum_e c_e (u - t)^e` as one in
/// `t`; with the exponential basis `c e^(2^exponent_log2 u)`.
pub struct TableFactors<'t> {
    table: &'t Table,
    turned: Turned,
}

/// Coefficients backwards and twice, so that those of all groups follow one another for any opened piece.
enum Turned {
    /// Of degree 0: the factors themselves, and their low bytes.
    Factors(Vec<u64>, Vec<u8>),
    /// Of a higher one: each factor is a polynomial in `u`.
    Cubics(Turns),
    /// With the exponential basis: still to be multiplied by a power of `e^u` and rounded, to less than
    /// [`SHIFTED`].
    Exponential(Vec<f64>),
    No,
}

/// The polynomials of [`each_factor`], group by group, with [`Cubics`]' names.
struct Turns {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
    d: Vec<f64>,
    k: Vec<f64>,
    l: Vec<f64>,
}

impl Turns {
    /// `None` where a value may be too large.
    fn new(t: &Table) -> Option<Turns> {
        let (pieces, terms) = (1usize << t.index_bits, t.degree as usize + 1);
        let [mut a, mut b, mut c, mut d, mut k, mut l] = [const { Vec::new() }; 6];
        let powers = power_of_two(t.power_frac as i32);
        let whole = power_of_two((t.entry_frac + t.power_frac) as i32);
        for i in (0..2 * pieces).rev() {
            let piece = &t.coefficients[(i & (pieces - 1)) * terms..][..terms];
            let at = |e: usize| piece.get(e).copied().unwrap_or(0.0);
            let all = [
                [at(0) * whole, at(1) * whole, at(2) * whole, at(3) * whole, 1.0, 1.0],
                [-at(1) * powers, -2.0 * at(2) * powers, -at(3) * powers, 0.0, 1.0, 3.0],
                [at(2) * powers, at(3) * powers, 0.0, 0.0, 3.0, 0.0],
                [-at(3) * powers, 0.0, 0.0, 0.0, 0.0, 0.0],
            ];
            for polynomial in &all[..terms] {
                let places = [&mut a, &mut b, &mut c, &mut d, &mut k, &mut l];
                places.into_iter().zip(polynomial).for_each(|(place, value)| place.push(*value));
            }
        }
        let most = |i: usize| a[i].abs() + 3.0 * (b[i].abs() + 3.0 * (c[i].abs() + d[i].abs()));
        (0..a.len()).all(|i| most(i) < CUBICS_BELOW).then_some(Turns { a, b, c, d, k, l })
    }

    fn from(&self, first: usize) -> Cubics<'_> {
        let Turns { a, b, c, d, k, l } = self;
        let [a, b, c, d, k, l] = [a, b, c, d, k, l].map(|all| &all[first..]);
        Cubics { a, b, c, d, k, l }
    }
}

impl TableFactors<'_> {
    /// Prepares for many opened values.
    pub fn new(table: &Table) -> TableFactors<'_> {
        let pieces = 1usize << table.index_bits;
        let backwards = || (0..2 * pieces).rev().map(|i| table.coefficients[i & (pieces - 1)]);
        let turned = if table.basis == Basis::Exponential as i32 {
            let scale = power_of_two(table.power_frac as i32);
            let scaled: Vec<f64> = backwards().map(|c| c * scale).collect();
            let most = exp_power(1.0, table.exponent_log2);
            let fits = scaled.iter().all(|c| c.abs() * most < SHIFTED);
            if fits { Turned::Exponential(scaled) } else { Turned::No }
        } else if table.degree == 0 {
            let factors: Vec<u64> =
                backwards().map(|c| round_to(c, table.entry_frac + table.power_frac)).collect();
            let low = factors.iter().map(|factor| *factor as u8).collect();
            Turned::Factors(factors, low)
        } else {
            Turns::new(table).map_or(Turned::No, Turned::Cubics)
        };
        TableFactors { table, turned }
    }

    /// Adds to each of `sums` the factors at an opened value times its secret numbers, of which all have as many.
    pub fn add(&self, opened: &[u64], entries: &[u64], sums: &mut [u64]) {
        let t = self.table;
        let per = entries.len() / opened.len().max(1);
        let positions = opened.iter().map(|x| split(*x, t.low_bits, t.index_bits));
        let elements = positions.clone().zip(entries.chunks_exact(per.max(1))).zip(sums).map(
            |(((high, low), entries), sum)| {
                ((1usize << t.index_bits) - 1 - high, self.position(low), entries, sum)
            },
        );
        match &self.turned {
            Turned::Factors(all, _) => elements.for_each(|(first, _, entries, sum)| {
                *sum = sum.wrapping_add(weighted_sum(&all[first..], entries));
            }),
            Turned::Cubics(all) => elements.for_each(|(first, u, entries, sum)| {
                let cubics = all.from(first * (t.degree as usize + 1));
                *sum = sum.wrapping_add(cubic_sum(cubics, u, entries));
            }),
            Turned::Exponential(all) => {
                let mut powers: Vec<f64> = positions.map(|(_, low)| self.position(low)).collect();
                exp_powers(&mut powers, t.exponent_log2);
                elements.zip(powers).for_each(|((first, _, entries, sum), power)| {
                    *sum = sum.wrapping_add(scaled_sum(&all[first..], power, entries));
                });
            }
            Turned::No => {
                let mut factors = vec![0; t.coefficients.len()];
                elements.for_each(|(first, u, entries, sum)| {
                    each_factor(t, (1usize << t.index_bits) - 1 - first, u, &mut factors);
                    *sum = sum.wrapping_add(weighted_sum(&factors, entries));
                });
            }
        }
    }

    /// As [`TableFactors::add`] modulo `2^8` for numbers of as many bits; `None` where the factors are not all the same at
    /// every position of a piece.
    pub fn add_bytes(&self, opened: &[u64], entries: &[u8], sums: &mut [u64]) -> Option<()> {
        let Turned::Factors(_, all) = &self.turned else { return None };
        let (t, per) = (self.table, entries.len() / opened.len().max(1));
        for ((x, entries), sum) in opened.iter().zip(entries.chunks_exact(per.max(1))).zip(sums) {
            let (high, _) = split(*x, t.low_bits, t.index_bits);
            let first = (1usize << t.index_bits) - 1 - high;
            *sum = sum.wrapping_add(byte_sum(&all[first..], entries).into());
        }
        Some(())
    }

    /// A position within a piece, of which 1 is the whole.
    fn position(&self, low: u64) -> f64 {
        low as f64 * power_of_two(-(self.table.low_bits as i32))
    }
}

/// The factors at an opened value of a piece, one by one.
fn each_factor(t: &Table, high: usize, u: f64, factors: &mut [u64]) {
    let (pieces, terms) = (1usize << t.index_bits, t.degree as usize + 1);
    let whole = t.entry_frac + t.power_frac;
    let exponential = (t.basis == Basis::Exponential as i32).then(|| exp_power(u, t.exponent_log2));
    for (h, factors) in factors.chunks_exact_mut(terms).enumerate() {
        let piece = (high + pieces - h) & (pieces - 1);
        let c = &t.coefficients[piece * terms..][..terms];
        let fixed = |value: f64| round_to(value, t.power_frac);
        if let Some(e) = exponential {
            factors[0] = fixed(c[0] * e);
            continue;
        }
        let c = |e: usize| c.get(e).copied().unwrap_or(0.0);
        factors[0] = round_to(c(0) + u * (c(1) + u * (c(2) + u * c(3))), whole);
        let others = [-(c(1) + u * (2.0 * c(2) + u * 3.0 * c(3))), c(2) + 3.0 * u * c(3), -c(3)];
        factors[1..].iter_mut().zip(others).for_each(|(f, v)| *f = fixed(v));
    }
}

/// Public factors at opened values: what multiplies the shares of `cos(j w r)` and of `sin(j w r)`, for j = 1, 2, ...
pub struct FourierFactors<'f> {
    fourier: &'f Fourier,
    circle: Circle,
    /// For each j what multiplies cosine and sine of the opened value, in units of the factors' last place.
    scaled: Vec<(f64, f64)>,
}

impl FourierFactors<'_> {
    /// Prepares for many opened values.
    pub fn new(fourier: &Fourier) -> FourierFactors<'_> {
        let unit = power_of_two(fourier.power_frac as i32);
        let scaled = fourier.cos.iter().zip(&fourier.sin).map(|(c, s)| (c * unit, s * unit)).collect();
        FourierFactors { fourier, circle: Circle::new(fourier.period_bits), scaled }
    }

    /// The series' constant term in the result's fixed point.
    pub fn constant(&self) -> u64 {
        round_to(self.fourier.constant, self.fourier.entry_frac + self.fourier.power_frac)
    }

    /// Adds to each of `sums` the factors of an opened value times its entries: as many as there are terms for cosines,
    /// then for sines.
    pub fn add(&self, opened: &[u64], entries: &[u64], sums: &mut [u64]) {
        if self.scaled.iter().all(|(c, s)| c.abs() + s.abs() < SHIFTED) {
            let angles: Vec<(f64, f64)> = opened.iter().map(|x| self.circle.at(*x)).collect();
            return add_waves(&self.scaled, &angles, entries, sums);
        }
        let terms = self.scaled.len();
        for ((x, entries), sum) in opened.iter().zip(entries.chunks(2 * terms.max(1))).zip(sums) {
            for (j, (p, q)) in self.scaled.iter().enumerate() {
                let (c, s) = self.circle.at(x.wrapping_mul(j as u64 + 1));
                let (of_cos, of_sin) = (round_to(p * c + q * s, 0), round_to(p * s - q * c, 0));
                let product =
                    of_cos.wrapping_mul(entries[j]).wrapping_add(of_sin.wrapping_mul(entries[terms + j]));
                *sum = sum.wrapping_add(product);
            }
        }
    }
}

/// Entries at a mask: `cos(j w r)`, then `sin(j w r)`, appended.
pub fn fourier_entries(f: &Fourier, r: u64, entries: &mut Vec<u64>) {
    let circle = Circle::new(f.period_bits);
    let multiples = (1..=f.cos.len() as u64).map(|j| circle.at(r.wrapping_mul(j)));
    entries.extend(multiples.clone().map(|(c, _)| round_to(c, f.entry_frac)));
    entries.extend(multiples.map(|(_, s)| round_to(s, f.entry_frac)));
}

/// Words of the unit vector of a mask's index, appended: bit `j` is 1 where `j` is the index.
pub fn unit_vector((low_bits, index_bits): (u32, u32), r: u64, words: &mut Vec<u64>) {
    let (high, _) = split(r, low_bits, index_bits);
    let start = words.len();
    words.resize(start + unit_words(index_bits).0, 0);
    words[start + high / 64] = 1 << (high % 64);
}

/// Truth tables as they stand for each opened index, of which the high bits choose a window and the low ones a shift.
pub struct BitTables<'t> {
    table: &'t BitTable,
    /// For each shift each table backwards and twice.
    turned: Vec<u64>,
}

impl BitTables<'_> {
    /// Prepares for many opened values.
    pub fn new(table: &BitTable) -> BitTables<'_> {
        let (words, bits) = unit_words(table.index_bits);
        let entries = 1usize << table.index_bits;
        let mut turned = Vec::with_capacity(2 * bits as usize * table.tables.len());
        for shift in 0..bits as usize {
            for of_table in table.tables.chunks_exact(words) {
                let bit = |p: usize| (of_table[p / 64] >> (p % 64)) & 1;
                let word = |j: usize| {
                    let first = 64 * (j % words);
                    (0..bits as usize)
                        .fold(0, |word, i| word | bit((shift + 2 * entries - first - i) & (entries - 1)) << i)
                };
                turned.extend((0..2 * words).map(word));
            }
        }
        BitTables { table, turned }
    }

    /// The tables' bits at an opened value, the first lowest, from shares of the unit vector of the mask's index: the
    /// exclusive or over all `h` of the table's bit `X - h` where bit `h` is 1.
    pub fn look_up(&self, opened: u64, unit: &[u64]) -> u64 {
        let (words, count) = (unit.len(), self.table.tables.len());
        let (high, _) = split(opened, self.table.low_bits, self.table.index_bits);
        let here = &self.turned[2 * count * (high % 64)..][..2 * count];
        let skip = words - high / 64;
        here.chunks_exact(2 * words).enumerate().fold(0, |bits, (at, table)| {
            let sum = table[skip..].iter().zip(unit).fold(0, |sum, (table, word)| sum ^ (table & word));
            bits | u64::from(sum.count_ones() & 1) << at
        })
    }
}

/// Where the line of piece `p` is for an opened value.
pub fn line_at(l: &Lines, opened: u64, p: usize) -> usize {
    let version = (opened >> (l.low_bits - l.step_bits)) & mask(l.step_bits);
    ((version as usize) << l.index_bits) + p
}

/// The word of line `at` for the opened or lifted value `u`.
pub fn line_word(l: &Lines, at: usize, u: u64) -> u64 {
    let value = (l.intercepts[at] as u64).wrapping_add(l.slopes[at].wrapping_mul(u));
    l.slopes[at] | ((value >> l.shift) & mask(l.value_bits)) << l.slope_bits
}

/// A line's word at an opened value, whose lifted form is `u`, from shares of the unit vector of the mask's index: the
/// exclusive or over all `h` of the word of piece `X - h` where bit `h` is 1.
pub fn line_share(l: &Lines, opened: u64, u: u64, unit: &[u64]) -> u64 {
    let (high, _) = split(opened, l.low_bits, l.index_bits);
    let all = line_at(l, opened, 0)..line_at(l, opened, 1 << l.index_bits);
    let (slopes, intercepts) = (&l.slopes[all.clone()], &l.intercepts[all]);
    let (mut slope, mut value) = (0, 0);
    let mut add = |h: usize, p: usize| {
        let chosen = ((unit[h / 64] >> (h % 64)) & 1).wrapping_neg();
        slope ^= slopes[p] & chosen;
        value ^= (intercepts[p] as u64).wrapping_add(slopes[p].wrapping_mul(u)) & chosen;
    };
    (0..=high).for_each(|p| add(high - p, p));
    (high + 1..slopes.len()).for_each(|p| add(high + slopes.len() - p, p));
    slope | ((value >> l.shift) & mask(l.value_bits)) << l.slope_bits
}

/// Digit `digit` of a compared value, from [`shifted`], whose sign bit (bit `d.width - 1`) is left out.
pub fn digit(d: &Digits, value: u64, digit: usize) -> u32 {
    let (first, count) = digit_bits(d, digit);
    (((value & mask(d.width - 1)) >> first) & mask(count)) as u32
}

/// One digit's word at the mask's digit `d`: "c less than d" for every c, then "c equal to d".
pub fn digit_word(digit_bits: u32, d: u32) -> u64 {
    let less = mask(d);
    less | (1u64 << d) << (1u32 << digit_bits)
}

/// Whether the lowest digit `c` is less than the mask's, from shares of the unit vector of that.
pub fn less_than_unit(c: u32, unit: &[u64]) -> u64 {
    let (word, bit) = ((c / 64) as usize, c % 64);
    let above = unit[word] & !mask(bit + 1);
    let sum = unit[word + 1..].iter().fold(above, |sum, word| sum ^ word);
    u64::from(sum.count_ones() & 1)
}

/// The value whose digits are compared with the mask's for threshold `t`: `(X >> low_bits) - t` in the comparison's ring.
///
/// With a mask for `opened` and no threshold, the mask's own value.
pub fn shifted(d: &Digits, opened: u64, threshold: i64) -> u64 {
    (opened >> d.low_bits).wrapping_sub(threshold as u64) & mask(d.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is prepared gives the very factors that are had one by one.
    #[test]
    fn prepared_factors_are_the_same() {
        let table = |basis: Basis, degree: u32| Table {
            low_bits: 6,
            index_bits: 5,
            basis: basis as i32,
            degree,
            coefficients: (0..(degree as usize + 1) << 5).map(|i| (i as f64 * 0.37).sin() * 50.0).collect(),
            entry_frac: 14,
            power_frac: 15,
            ..Table::default()
        };
        let wide = Table { power_frac: 48, ..table(Basis::Exponential, 0) };
        let steep = Table { exponent_log2: 4, power_frac: 12, ..table(Basis::Exponential, 0) };
        let of_degree = |degree| table(Basis::Monomials, degree);
        let large = |frac| Table { power_frac: frac, ..of_degree(3) };
        let monomials = [of_degree(0), of_degree(1), of_degree(2), of_degree(3), large(38), large(48)];
        for table in monomials.into_iter().chain([table(Basis::Exponential, 0), wide, steep]) {
            let (prepared, count) = (TableFactors::new(&table), table.coefficients.len());
            let mut factors = vec![0; count];
            let entries: Vec<u64> =
                (1..=count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            for opened in (0..1 << 12).step_by(13) {
                let (high, low) = split(opened, table.low_bits, table.index_bits);
                each_factor(&table, high, low as f64 / 64.0, &mut factors);
                let expected = weighted_sum(&factors, &entries);
                let mut sums = [5, 6];
                prepared.add(&[opened; 2], &[&entries[..], &entries[..]].concat(), &mut sums);
                assert_eq!(sums, [expected.wrapping_add(5), expected.wrapping_add(6)], "{opened}");
                let bytes: Vec<u8> = entries.iter().map(|entry| *entry as u8).collect();
                match prepared.add_bytes(&[opened], &bytes, &mut sums[..1]) {
                    Some(()) => assert_eq!(sums[0] as u8, (expected as u8).wrapping_mul(2).wrapping_add(5)),
                    None => assert!(table.degree > 0 || table.basis == Basis::Exponential as i32),
                }
            }
        }
    }

    #[test]
    fn looked_up_bits_are_the_tables() {
        for index_bits in [1, 4, 6, 7, 9] {
            let ((words, bits), entries) = (unit_words(index_bits), 1u64 << index_bits);
            let word = |i: usize| (i as u64 + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(bits);
            let table = BitTable {
                low_bits: 2,
                index_bits,
                tables: (0..3 * words).map(word).collect(),
                ..BitTable::default()
            };
            let prepared = BitTables::new(&table);
            for (opened, h) in
                (0..4 * entries).flat_map(|opened| [(opened, opened / 3 % entries), (opened, entries - 1)])
            {
                let mut unit = Vec::new();
                unit_vector((2, index_bits), h << 2, &mut unit);
                let place = ((opened >> 2).wrapping_sub(h) & (entries - 1)) as usize;
                let expected = (0..3).fold(0, |found, at| {
                    found | ((table.tables[at * words + place / 64] >> (place % 64)) & 1) << at
                });
                assert_eq!(prepared.look_up(opened, &unit), expected, "{opened} {h}");
            }
        }
    }
}
