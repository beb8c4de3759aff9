//! The negacyclic number-theoretic transform.
//!
//! Source: Longa and Naehrig, Speeding up the number theoretic transform for faster ideal lattice-based cryptography,
//! CANS 2016, algorithms 1 and 2, over a matrix of 128 rows and 64 columns: seven layers between rows, a
//! transposition, six layers between columns, so that every layer runs along contiguous [`LANES`]. The transformed
//! order is that of the transposed matrix; [`exponents`] says which power of the root each slot belongs to.

use std::sync::OnceLock;

use super::modulus::{DEGREE, LIMBS, MODULI, Modulus, MulAdd, Path, on_every_path};

const ROWS: usize = 128;
const COLUMNS: usize = DEGREE / ROWS;
const LANES: usize = 8;
/// Coefficients that [`forward_short`] takes.
pub const SHORT: usize = COLUMNS;
const LOG_DEGREE: u32 = DEGREE.trailing_zeros();
/// Layers of the inverse between two reductions of its sums.
const LAZY_LAYERS: usize = 3;
/// The longest steps of [`inverse_sparse`]: a row of what is left fills [`LANES`].
pub const LOG_STEPS: u32 = 3;
const _: () = assert!(COLUMNS >> LOG_STEPS == LANES && LOG_STEPS as usize == LAZY_LAYERS);

/// Aligned, because a vector that straddles two cache lines takes twice as long.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Lanes([f64; LANES]);

struct Tables {
    forward: Twiddles,
    inverse: Twiddles,
    /// `1 / N`.
    scale: f64,
}

struct Twiddles {
    /// Of the layers between rows: layer with `groups` groups at `groups..2 * groups`.
    rows: Vec<f64>,
    /// Of the layers between columns: group `h` of the layer with `groups` groups at `(groups + h - 1) * ROWS`.
    columns: Vec<f64>,
}

impl Twiddles {
    fn new(modulus: Modulus, root: f64) -> Twiddles {
        let mut powers = vec![0.0; DEGREE];
        let mut power = 1.0;
        for exponent in 0..DEGREE {
            powers[reverse(exponent)] = power;
            power = modulus.reduce(power * root);
        }
        let mut columns = Vec::with_capacity((COLUMNS - 1) * ROWS);
        for groups in (0..COLUMNS.trailing_zeros()).map(|layer| 1 << layer) {
            for h in 0..groups {
                columns.extend((0..ROWS).map(|row| powers[ROWS * groups + row * groups + h]));
            }
        }
        powers.truncate(ROWS);
        Twiddles { rows: powers, columns }
    }
}

/// Bits of a position, reversed.
fn reverse(position: usize) -> usize {
    position.reverse_bits() >> (usize::BITS - LOG_DEGREE)
}

/// The first residue from 2 on that is a primitive root of `X^N + 1`, raised to where it is one.
fn root(modulus: Modulus) -> f64 {
    let exponent = u64::from(modulus.prime() - 1) / (2 * DEGREE as u64);
    (2..)
        .map(|base| modulus.power(f64::from(base), exponent))
        .find(|root| modulus.power(*root, DEGREE as u64) == -1.0)
        .unwrap_or_default()
}

fn tables(limb: usize) -> &'static Tables {
    static TABLES: [OnceLock<Tables>; LIMBS] = [const { OnceLock::new() }; LIMBS];
    TABLES[limb].get_or_init(|| {
        let modulus = MODULI[limb];
        let root = root(modulus);
        Tables {
            forward: Twiddles::new(modulus, root),
            inverse: Twiddles::new(modulus, modulus.invert(root)),
            scale: modulus.invert(DEGREE as f64),
        }
    })
}

/// Of each slot of a transformed polynomial `f` the exponent `e` for which it holds `f(root^e)`.
pub fn exponents() -> &'static [usize] {
    static EXPONENTS: OnceLock<Vec<usize>> = OnceLock::new();
    EXPONENTS.get_or_init(|| {
        (0..DEGREE).map(|slot| 2 * reverse(slot % ROWS * COLUMNS + slot / ROWS) + 1).collect()
    })
}

/// Transforms the [`DEGREE`] coefficients of limb `limb`, each below `2^24` in size, in place.
pub fn forward(limb: usize, values: &mut [f64]) {
    forward_by(Path::best(), limb, values);
}

/// [`forward`] of up to [`SHORT`] coefficients, the others zero, in half the time.
///
/// # Panics
/// If there are more.
pub fn forward_short(limb: usize, coefficients: &[f64], values: &mut [f64]) {
    assert!(coefficients.len() <= SHORT, "{} coefficients are not few", coefficients.len());
    forward_short_by(Path::best(), limb, coefficients, values);
}

/// Undoes [`forward`], on residues near `-p/2..=p/2`.
pub fn inverse(limb: usize, values: &mut [f64]) {
    inverse_by(Path::best(), limb, values);
}

/// What [`inverse`] would leave at every `2^log_step`-th coefficient, at the beginning of `values`, for that much less
/// work; the rest is arbitrary.
///
/// # Panics
/// If `log_step` is above [`LOG_STEPS`].
pub fn inverse_sparse(limb: usize, log_step: u32, values: &mut [f64]) {
    inverse_sparse_by(Path::best(), limb, log_step, values);
}

on_every_path! {
    /// [`forward`] with chosen instructions.
    pub fn forward_by(limb: usize, values: &mut [f64]) = forward_body
}

on_every_path! {
    /// [`forward_short`] with chosen instructions.
    pub fn forward_short_by(limb: usize, coefficients: &[f64], values: &mut [f64]) = forward_short_body
}

on_every_path! {
    /// [`inverse`] with chosen instructions.
    pub fn inverse_by(limb: usize, values: &mut [f64]) = inverse_body
}

on_every_path! {
    /// [`inverse_sparse`] with chosen instructions.
    pub fn inverse_sparse_by(limb: usize, log_step: u32, values: &mut [f64]) = inverse_sparse_body
}

#[inline(always)]
fn forward_body<A: MulAdd>(limb: usize, values: &mut [f64]) {
    let (modulus, table) = (MODULI[limb], &tables(limb).forward);
    let mut transposed = [0.0; DEGREE];
    let mut work = [Lanes([0.0; LANES]); ROWS];
    for column in (0..COLUMNS).step_by(LANES) {
        for (row, line) in work.iter_mut().enumerate() {
            *line = lanes(values, row * COLUMNS + column);
        }
        for groups in [1, 2, 4, 8, 16, 32, 64] {
            let pairs = work.chunks_exact_mut(ROWS / groups).zip(&table.rows[groups..]);
            for (group, twiddle) in pairs {
                let (low, high) = group.split_at_mut(ROWS / groups / 2);
                for (u, v) in low.iter_mut().zip(high) {
                    forward_butterfly::<A>(modulus, u, v, &Lanes([*twiddle; LANES]));
                }
            }
        }
        for (row, line) in work.iter().enumerate() {
            for (j, value) in line.0.iter().enumerate() {
                transposed[(column + j) * ROWS + row] = *value;
            }
        }
    }
    for row in (0..ROWS).step_by(LANES) {
        let work = &mut work[..COLUMNS];
        for (j, line) in work.iter_mut().enumerate() {
            *line = lanes(&transposed, j * ROWS + row);
        }
        forward_columns::<A>(modulus, table, row, work, values);
    }
}

/// Where all but the first row of coefficients is zero, the layers between rows only copy that row.
#[inline(always)]
fn forward_short_body<A: MulAdd>(limb: usize, coefficients: &[f64], values: &mut [f64]) {
    let (modulus, table) = (MODULI[limb], &tables(limb).forward);
    for row in (0..ROWS).step_by(LANES) {
        let mut work = [Lanes([0.0; LANES]); COLUMNS];
        for (line, coefficient) in work.iter_mut().zip(coefficients) {
            *line = Lanes([*coefficient; LANES]);
        }
        forward_columns::<A>(modulus, table, row, &mut work, values);
    }
}

/// The layers between columns for rows `row..row + LANES`.
#[inline(always)]
fn forward_columns<A: MulAdd>(
    modulus: Modulus,
    table: &Twiddles,
    row: usize,
    work: &mut [Lanes],
    values: &mut [f64],
) {
    for groups in [1, 2, 4, 8, 16, 32] {
        for (h, group) in work.chunks_exact_mut(COLUMNS / groups).enumerate() {
            let twiddle = lanes(&table.columns, (groups + h - 1) * ROWS + row);
            let (low, high) = group.split_at_mut(COLUMNS / groups / 2);
            for (u, v) in low.iter_mut().zip(high) {
                forward_butterfly::<A>(modulus, u, v, &twiddle);
            }
        }
    }
    for (j, line) in work.iter().enumerate() {
        let place = &mut values[j * ROWS + row..][..LANES];
        for (place, value) in place.iter_mut().zip(&line.0) {
            *place = modulus.reduce_by::<A>(*value);
        }
    }
}

#[inline(always)]
fn inverse_body<A: MulAdd>(limb: usize, values: &mut [f64]) {
    inverse_steps::<A, 0>(limb, values);
}

#[inline(always)]
fn inverse_sparse_body<A: MulAdd>(limb: usize, log_step: u32, values: &mut [f64]) {
    match log_step {
        0 => inverse_steps::<A, 0>(limb, values),
        1 => inverse_steps::<A, 1>(limb, values),
        2 => inverse_steps::<A, 2>(limb, values),
        LOG_STEPS => inverse_steps::<A, 3>(limb, values),
        _ => panic!("steps of 2^{log_step} coefficients are too long"),
    }
}

/// Layers between neighbouring columns add and subtract; only their sums go into every `2^LOG_STEP`-th coefficient.
#[inline(always)]
fn inverse_steps<A: MulAdd, const LOG_STEP: usize>(limb: usize, values: &mut [f64]) {
    let (modulus, table) = (MODULI[limb], &tables(limb).inverse);
    let columns = COLUMNS >> LOG_STEP;
    let mut transposed = [0.0; DEGREE];
    let mut work = [Lanes([0.0; LANES]); ROWS];
    for row in (0..ROWS).step_by(LANES) {
        let work = &mut work[..columns];
        for (j, line) in work.iter_mut().enumerate() {
            *line = lanes(values, (j << LOG_STEP) * ROWS + row);
            for k in 1..1 << LOG_STEP {
                let more = lanes(values, ((j << LOG_STEP) + k) * ROWS + row);
                line.0.iter_mut().zip(more.0).for_each(|(sum, more)| *sum += more);
            }
            if LOG_STEP == LAZY_LAYERS {
                line.0.iter_mut().for_each(|sum| *sum = modulus.reduce_by::<A>(*sum));
            }
        }
        for (layer, groups) in [32, 16, 8, 4, 2, 1].into_iter().enumerate().skip(LOG_STEP) {
            for (h, group) in work.chunks_exact_mut(columns / groups).enumerate() {
                let twiddle = lanes(&table.columns, (groups + h - 1) * ROWS + row);
                inverse_group::<A>(modulus, group, &twiddle, layer);
            }
        }
        for (j, line) in work.iter().enumerate() {
            transposed[j * ROWS + row..][..LANES].copy_from_slice(&line.0);
        }
    }
    let scale = tables(limb).scale;
    for column in (0..columns).step_by(LANES) {
        for (row, line) in work.iter_mut().enumerate() {
            line.0 = std::array::from_fn(|j| transposed[(column + j) * ROWS + row]);
        }
        for (layer, groups) in [64, 32, 16, 8, 4, 2, 1].into_iter().enumerate() {
            for (group, twiddle) in work.chunks_exact_mut(ROWS / groups).zip(&table.rows[groups..]) {
                inverse_group::<A>(modulus, group, &Lanes([*twiddle; LANES]), layer);
            }
        }
        for (row, line) in work.iter().enumerate() {
            let place = &mut values[row * columns + column..][..LANES];
            for (place, value) in place.iter_mut().zip(&line.0) {
                *place = modulus.reduce_by::<A>(modulus.reduce_by::<A>(*value) * scale);
            }
        }
    }
}

#[inline(always)]
fn lanes(values: &[f64], from: usize) -> Lanes {
    let mut lanes = Lanes([0.0; LANES]);
    lanes.0.copy_from_slice(&values[from..from + LANES]);
    lanes
}

/// `(u, v) = (u + v t, u - v t)`. Each layer adds at most `p / 2 + 1` to the size of a value.
#[inline(always)]
fn forward_butterfly<A: MulAdd>(modulus: Modulus, u: &mut Lanes, v: &mut Lanes, twiddle: &Lanes) {
    for lane in 0..LANES {
        let product = modulus.reduce_by::<A>(v.0[lane] * twiddle.0[lane]);
        v.0[lane] = u.0[lane] - product;
        u.0[lane] += product;
    }
}

/// `(u, v) = (u + v, (u - v) t)`. Sums double in size from layer to layer and are reduced in every third.
#[inline(always)]
fn inverse_group<A: MulAdd>(modulus: Modulus, group: &mut [Lanes], twiddle: &Lanes, layer: usize) {
    let (low, high) = group.split_at_mut(group.len() / 2);
    let reduces = layer % LAZY_LAYERS == LAZY_LAYERS - 1;
    for (u, v) in low.iter_mut().zip(high) {
        for lane in 0..LANES {
            let (sum, difference) = (u.0[lane] + v.0[lane], u.0[lane] - v.0[lane]);
            v.0[lane] = modulus.reduce_by::<A>(difference * twiddle.0[lane]);
            u.0[lane] = if reduces { modulus.reduce_by::<A>(sum) } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Residues of an arithmetic mess, extremes first.
    fn mess(limb: usize, salt: u64) -> Vec<f64> {
        let half = i64::from(MODULI[limb].prime() / 2);
        let mut values: Vec<f64> = (0..DEGREE as u64)
            .map(|i| (i + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)
            .map(|x| (x as i64 % (2 * half + 1) - half) as f64)
            .collect();
        values[..64].fill(half as f64);
        values
    }

    fn canonical(limb: usize, values: &[f64]) -> Vec<u32> {
        values.iter().map(|x| MODULI[limb].canonical(*x)).collect()
    }

    #[test]
    fn slots_hold_values_at_powers_of_the_root() {
        let limb = 2;
        let modulus = MODULI[limb];
        let values = mess(limb, 1);
        let mut transformed = values.clone();
        forward(limb, &mut transformed);
        for slot in [0, 1, 127, 128, 4097, DEGREE - 1] {
            let point = modulus.power(root(modulus), exponents()[slot] as u64);
            let value = values.iter().rev().fold(0.0, |sum, x| modulus.reduce(sum * point + x));
            assert_eq!(modulus.canonical(value), modulus.canonical(transformed[slot]), "slot {slot}");
        }
    }

    #[test]
    fn products_of_slots_are_negacyclic_products() {
        for limb in [0, LIMBS - 1] {
            let modulus = MODULI[limb];
            let p = i128::from(modulus.prime());
            let (a, b) = (mess(limb, 3), mess(limb, 17));
            let (mut x, mut y) = (a.clone(), b.clone());
            forward(limb, &mut x);
            forward(limb, &mut y);
            let mut product: Vec<f64> = x.iter().zip(&y).map(|(x, y)| modulus.reduce(x * y)).collect();
            inverse(limb, &mut product);
            for at in [0, 1, 5, 4095, DEGREE - 1] {
                let naive = (0..DEGREE).fold(0_i128, |sum, i| {
                    let (j, sign) = if i <= at { (at - i, 1) } else { (DEGREE + at - i, -1) };
                    sum + sign * a[i] as i128 * b[j] as i128
                });
                assert_eq!(
                    naive.rem_euclid(p),
                    i128::from(modulus.canonical(product[at])),
                    "coefficient {at}"
                );
            }
        }
    }

    #[test]
    fn sparse_inverses_are_parts_of_whole_ones() {
        for limb in [0, LIMBS - 1] {
            let values = mess(limb, 5);
            let mut whole = values.clone();
            inverse(limb, &mut whole);
            for log_step in 0..=LOG_STEPS {
                let wanted: Vec<f64> = whole.iter().step_by(1 << log_step).copied().collect();
                for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                    let mut sparse = values.clone();
                    inverse_sparse_by(path, limb, log_step, &mut sparse);
                    let found = &sparse[..DEGREE >> log_step];
                    assert_eq!(canonical(limb, found), canonical(limb, &wanted), "{path:?}, 2^{log_step}");
                }
            }
        }
    }

    #[test]
    fn every_path_and_limb_agrees_and_comes_back() {
        for (limb, modulus) in MODULI.into_iter().enumerate() {
            for values in [mess(limb, 9), vec![(modulus.prime() / 2) as f64; DEGREE]] {
                let mut expected = values.clone();
                forward_by(Path::Portable, limb, &mut expected);
                for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                    let mut there = values.clone();
                    forward_by(path, limb, &mut there);
                    assert_eq!(canonical(limb, &there), canonical(limb, &expected), "{path:?}");
                    let mut few = values[..SHORT].to_vec();
                    let mut short = vec![0.0; DEGREE];
                    forward_short_by(path, limb, &few, &mut short);
                    few.resize(DEGREE, 0.0);
                    forward_by(path, limb, &mut few);
                    assert_eq!(canonical(limb, &short), canonical(limb, &few), "{path:?}");
                    inverse_by(path, limb, &mut there);
                    assert_eq!(canonical(limb, &there), canonical(limb, &values), "{path:?}");
                }
            }
        }
    }
}
