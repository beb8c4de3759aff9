//! Products of f32 matrices, alike to the bit on every machine.
//!
//! An element of `a x b` is the chain `fma(a[k], b[k], ... fma(a[1], b[1], fma(a[0], b[0], 0)))`, in this order.
//! A fused multiply-add rounds once wherever it runs, so neither tiles, nor threads, nor the width of vectors show in
//! the result. Columns of `b` and rows of `a` are packed in blocks that stay in the caches; a tile of the result stays
//! in registers while it runs through a block.

use super::parallel::{Loop, parts, vectorised};

/// A matrix in a slice: element `(i, j)` is `data[i * down + j * right]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub data: &'a [f32],
    pub down: usize,
    pub right: usize,
}

impl<'a> Matrix<'a> {
    pub fn row_major(data: &'a [f32], columns: usize) -> Matrix<'a> {
        Matrix { data, down: columns, right: 1 }
    }

    /// The same matrix without what lies before element `at` of its slice.
    pub fn from(self, at: usize) -> Matrix<'a> {
        Matrix { data: self.data.get(at..).unwrap_or_default(), ..self }
    }
}

/// Rows and columns of a tile: twelve vectors of eight.
const ROWS: usize = 6;
const COLUMNS: usize = 16;
/// Inner length of a block.
const DEPTH: usize = 256;
/// Rows of a block of `a`.
const TALL: usize = 40 * ROWS;
/// Panels of `b` that are packed together, so that reading them is not too scattered.
const PANELS: usize = 8;
/// Up to this many rows are computed without packing.
const FEW_ROWS: usize = 3;
/// Multiply-adds per nanosecond, roughly.
const RATE: usize = 16;

/// Nanoseconds of a product, roughly.
pub fn work_ns([n, k, m]: [usize; 3]) -> usize {
    n.saturating_mul(k).saturating_mul(m) / RATE
}

/// `a x b` on several threads, shapes `[n, k] x [k, m] -> [n, m]`, into row-major `out`.
pub fn multiply(shape: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    let [n, k, m] = shape;
    if n == 0 || m == 0 {
        return;
    }
    if k == 0 {
        return out.fill(0.0);
    }
    let parts = parts(work_ns(shape));
    if parts == 1 || m < COLUMNS * parts && n < ROWS * parts {
        return on_this_thread(shape, a, b, out);
    }
    if n >= m {
        let rows = n.div_ceil(parts).next_multiple_of(ROWS);
        std::thread::scope(|scope| {
            for (part, out) in out.chunks_mut(rows * m).enumerate() {
                let a = a.from(part * rows * a.down);
                scope.spawn(move || on_this_thread([out.len() / m, k, m], a, b, out));
            }
        });
        return;
    }
    let width = m.div_ceil(parts).next_multiple_of(COLUMNS);
    let mut lines: Vec<_> = out.chunks_mut(m).map(|line| line.chunks_mut(width)).collect();
    std::thread::scope(|scope| {
        for first in (0..m).step_by(width) {
            let mut out: Vec<&mut [f32]> = lines.iter_mut().filter_map(Iterator::next).collect();
            let b = b.from(first * b.right);
            scope.spawn(move || vectorised(Job { k, a, b, out: &mut out }));
        }
    });
}

/// As [`multiply`], on this thread.
pub fn on_this_thread([_, k, m]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    vectorised(Job { k, a, b, out: &mut out.chunks_mut(m).collect::<Vec<_>>() });
}

/// A product into the lines `out`, all of one length.
struct Job<'a, 'o> {
    k: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
    out: &'a mut [&'o mut [f32]],
}

impl Loop for Job<'_, '_> {
    #[inline(always)]
    fn run(self) {
        if self.out.len() <= FEW_ROWS && self.b.right == 1 {
            few_rows(self.k, self.a, self.b, self.out);
        } else {
            blocks(self.k, self.a, self.b, self.out);
        }
    }
}

/// Reads `b` once, in its own order: four rows at a time are added to the result.
#[inline(always)]
fn few_rows(k: usize, a: Matrix<'_>, b: Matrix<'_>, out: &mut [&mut [f32]]) {
    let at = |i: usize, p: usize| a.data[i * a.down + p * a.right];
    out.iter_mut().for_each(|line| line.fill(0.0));
    let mut p = 0;
    while p + 4 <= k {
        for (i, line) in out.iter_mut().enumerate() {
            let width = line.len();
            let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|q| at(i, p + q));
            let [b0, b1, b2, b3] = [0, 1, 2, 3].map(|q| &b.data[(p + q) * b.down..][..width]);
            for ((((y, b0), b1), b2), b3) in line.iter_mut().zip(b0).zip(b1).zip(b2).zip(b3) {
                *y = x3.mul_add(*b3, x2.mul_add(*b2, x1.mul_add(*b1, x0.mul_add(*b0, *y))));
            }
        }
        p += 4;
    }
    for p in p..k {
        for (i, line) in out.iter_mut().enumerate() {
            let width = line.len();
            let x = at(i, p);
            for (y, b) in line.iter_mut().zip(&b.data[p * b.down..][..width]) {
                *y = x.mul_add(*b, *y);
            }
        }
    }
}

#[inline(always)]
fn blocks(k: usize, a: Matrix<'_>, b: Matrix<'_>, out: &mut [&mut [f32]]) {
    let m = out.first().map_or(0, |line| line.len());
    let depth = DEPTH.min(k);
    let tall = TALL.min(out.len().next_multiple_of(ROWS));
    let group = (PANELS * COLUMNS).min(m.next_multiple_of(COLUMNS));
    let mut rows_packed = vec![[0.0f32; ROWS]; tall / ROWS * depth];
    let mut columns_packed = vec![[0.0f32; COLUMNS]; group / COLUMNS * depth];
    for (block, out) in out.chunks_mut(TALL).enumerate() {
        let a = a.from(block * TALL * a.down);
        for k0 in (0..k).step_by(DEPTH) {
            let length = DEPTH.min(k - k0);
            pack_rows(a.from(k0 * a.right), out.len(), length, &mut rows_packed);
            for j0 in (0..m).step_by(group) {
                let columns = group.min(m - j0);
                pack_columns(b.from(k0 * b.down + j0 * b.right), columns, length, &mut columns_packed);
                for (j, b) in columns_packed.chunks_exact(length).take(columns.div_ceil(COLUMNS)).enumerate()
                {
                    let first = j0 + j * COLUMNS;
                    let width = COLUMNS.min(m - first);
                    for (lines, a) in out.chunks_mut(ROWS).zip(rows_packed.chunks_exact(length)) {
                        tile(a, b, lines, first, width, k0 > 0);
                    }
                }
            }
        }
    }
}

/// Panels of [`ROWS`] rows, each `length` long; rows beyond the last are zero.
#[inline(always)]
fn pack_rows(a: Matrix<'_>, rows: usize, length: usize, packed: &mut [[f32; ROWS]]) {
    for (panel, packed) in packed.chunks_exact_mut(length).take(rows.div_ceil(ROWS)).enumerate() {
        for i in 0..ROWS {
            let row = panel * ROWS + i;
            if row >= rows {
                packed.iter_mut().for_each(|p| p[i] = 0.0);
                continue;
            }
            let line = a.from(row * a.down);
            if line.right == 1 {
                packed.iter_mut().zip(line.data).for_each(|(p, x)| p[i] = *x);
            } else {
                packed
                    .iter_mut()
                    .zip(line.data.iter().step_by(line.right.max(1)))
                    .for_each(|(p, x)| p[i] = *x);
            }
        }
    }
}

/// Panels of [`COLUMNS`] columns, each `length` long; columns beyond the last are zero.
#[inline(always)]
fn pack_columns(b: Matrix<'_>, columns: usize, length: usize, packed: &mut [[f32; COLUMNS]]) {
    if b.right == 1 {
        for p in 0..length {
            let line = &b.data[p * b.down..][..columns];
            let (whole, rest) = line.as_chunks::<COLUMNS>();
            for (panel, chunk) in whole.iter().enumerate() {
                packed[panel * length + p] = *chunk;
            }
            if !rest.is_empty() {
                let last = &mut packed[whole.len() * length + p];
                *last = [0.0; COLUMNS];
                last[..rest.len()].copy_from_slice(rest);
            }
        }
        return;
    }
    for (panel, packed) in packed.chunks_exact_mut(length).take(columns.div_ceil(COLUMNS)).enumerate() {
        for j in 0..COLUMNS {
            let column = panel * COLUMNS + j;
            if column >= columns {
                packed.iter_mut().for_each(|p| p[j] = 0.0);
                continue;
            }
            let line = b.from(column * b.right);
            if line.down == 1 {
                packed.iter_mut().zip(line.data).for_each(|(p, x)| p[j] = *x);
            } else {
                packed
                    .iter_mut()
                    .zip(line.data.iter().step_by(line.down.max(1)))
                    .for_each(|(p, x)| p[j] = *x);
            }
        }
    }
}

/// Columns `first .. first + width` of `lines`, continued if `goes_on`.
#[inline(always)]
fn tile(
    a: &[[f32; ROWS]],
    b: &[[f32; COLUMNS]],
    lines: &mut [&mut [f32]],
    first: usize,
    width: usize,
    goes_on: bool,
) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    if goes_on {
        for (sums, line) in sums.iter_mut().zip(lines.iter()) {
            sums[..width].copy_from_slice(&line[first..first + width]);
        }
    }
    let sums = chains(a, b, sums);
    for (sums, line) in sums.iter().zip(lines.iter_mut()) {
        line[first..first + width].copy_from_slice(&sums[..width]);
    }
}

#[inline(always)]
fn chains(
    a: &[[f32; ROWS]],
    b: &[[f32; COLUMNS]],
    mut sums: [[f32; COLUMNS]; ROWS],
) -> [[f32; COLUMNS]; ROWS] {
    for (a, b) in a.iter().zip(b) {
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                sums[i][j] = a[i].mul_add(b[j], sums[i][j]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of mixed sign and size.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|i| next() * [1.0, 1e-3, 30.0][i % 3]).collect()
    }

    /// The definition, element by element.
    fn chain([n, k, m]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        let at = |x: Matrix<'_>, i: usize, j: usize| x.data[i * x.down + j * x.right];
        let element = |e: usize| {
            let (i, j) = (e / m, e % m);
            (0..k).fold(0.0f32, |sum, p| at(a, i, p).mul_add(at(b, p, j), sum))
        };
        (0..n * m).map(element).collect()
    }

    #[test]
    fn products_are_the_chain_to_the_bit() {
        let sizes = [1, 2, 3, 5, 6, 7, 15, 16, 17, 33];
        let mut shapes = Vec::new();
        for n in sizes {
            for m in sizes {
                shapes.extend([[n, 1, m], [n, 7, m], [n, 19, m]]);
            }
        }
        shapes.extend([
            [4, 255, 20],
            [7, 256, 17],
            [13, 257, 130],
            [3, 600, 150],
            [500, 12, 9],
            [259, 300, 33],
        ]);
        shapes.extend([[100, 300, 270], [300, 270, 100], [2, 4000, 2000], [0, 3, 4], [3, 0, 4], [3, 4, 0]]);
        for [n, k, m] in shapes {
            let (a, b) = (values(n * k, 1), values(k * m, 2));
            for (a, b) in [
                (Matrix::row_major(&a, k), Matrix::row_major(&b, m)),
                (Matrix { data: &a, down: 1, right: n }, Matrix { data: &b, down: 1, right: k }),
                (Matrix { data: &a, down: 1, right: n }, Matrix::row_major(&b, m)),
            ] {
                let expected = chain([n, k, m], a, b);
                let mut out = vec![f32::NAN; n * m];
                multiply([n, k, m], a, b, &mut out);
                assert!(out.iter().zip(&expected).all(|(x, y)| x.to_bits() == y.to_bits()), "{n}x{k}x{m}");
            }
        }
    }

    #[test]
    fn strange_numbers_stay_in_their_rows_and_columns() {
        let (n, k, m) = (8, 300, 20);
        let (mut a, mut b) = (values(n * k, 3), values(k * m, 4));
        (a[2 * k + 5], b[7 * m + 3]) = (f32::NAN, f32::INFINITY);
        let mut out = vec![0.0; n * m];
        multiply([n, k, m], Matrix::row_major(&a, k), Matrix::row_major(&b, m), &mut out);
        for (e, y) in out.iter().enumerate() {
            assert_eq!(y.is_nan(), e / m == 2, "{e}");
            assert_eq!(y.is_infinite(), e / m != 2 && e % m == 3, "{e}");
        }
    }
}
