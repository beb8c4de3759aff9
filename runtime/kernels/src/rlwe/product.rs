//! Matrix products of residues, and the other loops over many of them.

use super::modulus::{Modulus, MulAdd, Path, TERMS, on_every_path};

/// Rows of a tile of the result.
const ROWS: usize = 6;
/// Columns of a tile of the result.
pub const COLUMNS: usize = 8;

/// Copies terms `from..from + depth` of the rows of `a`, `[n, k]`, into tiles for [`accumulate`].
pub fn pack_rows(a: &[f64], k: usize, from: usize, depth: usize, tiles: &mut Vec<f64>) {
    let n = a.len() / k;
    tiles.clear();
    tiles.resize(n.next_multiple_of(ROWS) * depth, 0.0);
    for (tile, rows) in tiles.chunks_exact_mut(ROWS * depth).zip(a.chunks(ROWS * k)) {
        for (i, row) in rows.chunks_exact(k).enumerate() {
            let places = tile[i..].iter_mut().step_by(ROWS);
            places.zip(&row[from..from + depth]).for_each(|(place, value)| *place = *value);
        }
    }
}

/// Puts row `j` of a right side of `depth` rows into the tiles `panel` of [`accumulate`], `[columns, depth, COLUMNS]`.
pub fn pack_term(row: &[f64], j: usize, depth: usize, panel: &mut [f64]) {
    for (tile, values) in panel.chunks_exact_mut(depth * COLUMNS).zip(row.chunks(COLUMNS)) {
        let place = &mut tile[j * COLUMNS..(j + 1) * COLUMNS];
        place[..values.len()].copy_from_slice(values);
        place[values.len()..].fill(0.0);
    }
}

/// `c = c + a x b` modulo a prime, shapes `[n, depth] x [depth, columns] -> [n, columns]`, both sides in tiles.
///
/// # Panics
/// If `depth` is more than [`TERMS`].
pub fn accumulate(
    modulus: Modulus,
    depth: usize,
    tiles: &[f64],
    panel: &[f64],
    c: &mut [f64],
    columns: usize,
) {
    accumulate_by(Path::best(), modulus, depth, tiles, panel, c, columns);
}

on_every_path! {
    /// [`accumulate`] with chosen instructions.
    pub fn accumulate_by(
        modulus: Modulus,
        depth: usize,
        tiles: &[f64],
        panel: &[f64],
        c: &mut [f64],
        columns: usize,
    ) = accumulate_body
}

#[inline(always)]
fn accumulate_body<A: MulAdd>(
    modulus: Modulus,
    depth: usize,
    tiles: &[f64],
    panel: &[f64],
    c: &mut [f64],
    columns: usize,
) {
    assert!(depth <= TERMS, "{depth} terms at once");
    for (b, left) in panel.chunks_exact(depth * COLUMNS).zip((0..columns).step_by(COLUMNS)) {
        let width = COLUMNS.min(columns - left);
        for (a, rows) in tiles.chunks_exact(depth * ROWS).zip(c.chunks_mut(ROWS * columns)) {
            let mut sums = [[0.0; COLUMNS]; ROWS];
            for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
                for i in 0..ROWS {
                    for j in 0..COLUMNS {
                        sums[i][j] = A::mul_add(a[i], b[j], sums[i][j]);
                    }
                }
            }
            for (row, sums) in rows.chunks_exact_mut(columns).zip(&sums) {
                for (total, sum) in row[left..left + width].iter_mut().zip(sums) {
                    *total = modulus.reduce_by::<A>(*total + sum);
                }
            }
        }
    }
}

/// `sum += x * y`, without a reduction.
pub fn add_products(x: &[f64], y: &[f64], sum: &mut [f64]) {
    add_products_by(Path::best(), x, y, sum);
}

/// `sum += x * y`, without a reduction, for a right side held in single precision, which is exact for residues.
pub fn add_narrow_products(x: &[f64], y: &[f32], sum: &mut [f64]) {
    add_narrow_products_by(Path::best(), x, y, sum);
}

/// Brings sums below `2^53` near `-p/2..=p/2`.
pub fn reduce(modulus: Modulus, values: &mut [f64]) {
    reduce_by(Path::best(), modulus, values);
}

on_every_path! {
    fn add_products_by(x: &[f64], y: &[f64], sum: &mut [f64]) = add_products_body
}

on_every_path! {
    fn add_narrow_products_by(x: &[f64], y: &[f32], sum: &mut [f64]) = add_narrow_products_body
}

on_every_path! {
    fn reduce_by(modulus: Modulus, values: &mut [f64]) = reduce_body
}

#[inline(always)]
fn add_products_body<A: MulAdd>(x: &[f64], y: &[f64], sum: &mut [f64]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        *sum = A::mul_add(*x, *y, *sum);
    }
}

#[inline(always)]
fn add_narrow_products_body<A: MulAdd>(x: &[f64], y: &[f32], sum: &mut [f64]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        *sum = A::mul_add(*x, f64::from(*y), *sum);
    }
}

#[inline(always)]
fn reduce_body<A: MulAdd>(modulus: Modulus, values: &mut [f64]) {
    for value in values {
        *value = modulus.reduce_by::<A>(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::MODULI;

    #[test]
    fn every_path_multiplies_as_integers_do() {
        let modulus = MODULI[1];
        let half = i64::from(modulus.prime() / 2);
        for (n, k, columns) in [(1, 1, 1), (5, 33, 17), (6, 96, 8), (13, 200, 64)] {
            let value =
                |i: usize| if i.is_multiple_of(3) { half } else { (i as i64 * 7_654_321) % half - half / 2 };
            let a: Vec<f64> = (0..n * k).map(|i| value(i) as f64).collect();
            let b: Vec<f64> = (0..k * columns).map(|i| value(i + 1) as f64).collect();
            for path in Path::ALL.into_iter().filter(|path| path.is_available()) {
                let mut c = vec![0.0; n * columns];
                let mut tiles = Vec::new();
                for from in (0..k).step_by(TERMS) {
                    let depth = TERMS.min(k - from);
                    pack_rows(&a, k, from, depth, &mut tiles);
                    let mut panel = vec![0.0; columns.next_multiple_of(COLUMNS) * depth];
                    for j in 0..depth {
                        pack_term(&b[(from + j) * columns..][..columns], j, depth, &mut panel);
                    }
                    accumulate_by(path, modulus, depth, &tiles, &panel, &mut c, columns);
                }
                for (at, found) in c.iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let terms = (0..k).map(|t| a[i * k + t] as i128 * b[t * columns + j] as i128);
                    let expected = terms.sum::<i128>().rem_euclid(modulus.prime().into());
                    assert_eq!(u128::from(modulus.canonical(*found)), expected as u128, "{path:?}");
                }
            }
        }
    }
}
