//! The product of two large sides: both are copied into panels that a tile of the result is computed from.
//!
//! Source: Goto and van de Geijn, Anatomy of high-performance matrix multiplication, 2008.

use super::{Job, Layout, RingElement};

/// Terms per panel: a panel of each side then fits the first-level cache.
const DEPTH: usize = 192;

/// Rows of the left side that are packed at once; with [`DEPTH`], at most 1.5 MiB.
const ROWS: usize = 1024;

/// The largest tile of any path.
const LARGEST_TILE: usize = 192;

/// A tile of the result that fits the registers.
pub(super) trait Tile {
    /// Rows of a tile.
    const ROWS: usize;
    /// Columns of a tile.
    const COLUMNS: usize;

    /// `out = a^T x b`, shapes `[depth, ROWS]^T x [depth, COLUMNS] -> [ROWS, COLUMNS]`.
    fn product(a: &[u64], b: &[u64], out: &mut [u64]);
}

/// `c += a x b` on the job's columns.
#[inline(always)]
pub(super) fn run<B: RingElement, T: Tile>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    let Job { a, k, columns: (first, end), .. } = job;
    let depth = DEPTH.min(k);
    let mut a_panels = vec![0; c.len().min(ROWS).next_multiple_of(T::ROWS) * depth];
    let mut b_panel = vec![0; T::COLUMNS * depth];
    let mut out = [0; LARGEST_TILE];
    let out = &mut out[..T::ROWS * T::COLUMNS];
    for (c, a) in c.chunks_mut(ROWS).zip(a.chunks(ROWS * k)) {
        for from in (0..k).step_by(DEPTH) {
            let terms = (from, k.min(from + DEPTH));
            let depth = terms.1 - terms.0;
            for (panel, rows) in a_panels.chunks_mut(T::ROWS * depth).zip(a.chunks(T::ROWS * k)) {
                pack_rows(rows, k, terms, T::ROWS, panel);
            }
            let b_panel = &mut b_panel[..T::COLUMNS * depth];
            for left in (first..end).step_by(T::COLUMNS) {
                let width = T::COLUMNS.min(end - left);
                match job.layout {
                    Layout::Plain => pack_columns(job, terms, (left, width), T::COLUMNS, b_panel),
                    Layout::Transposed => {
                        pack_rows(&job.b[left * k..(left + width) * k], k, terms, T::COLUMNS, b_panel);
                    }
                }
                for (rows, a_panel) in c.chunks_mut(T::ROWS).zip(a_panels.chunks(T::ROWS * depth)) {
                    T::product(a_panel, b_panel, out);
                    for (row, sums) in rows.iter_mut().zip(out.chunks_exact(T::COLUMNS)) {
                        let row = &mut row[left - first..left - first + width];
                        row.iter_mut().zip(sums).for_each(|(total, sum)| *total = total.wrapping_add(*sum));
                    }
                }
            }
        }
    }
}

/// Copies terms of up to `width` matrix rows `[rows, k]` to `panel`, `[terms, width]`; missing rows become zero.
#[inline(always)]
fn pack_rows<B: RingElement>(rows: &[B], k: usize, terms: (usize, usize), width: usize, panel: &mut [u64]) {
    if rows.len() < width * k {
        panel.fill(0);
    }
    for (i, row) in rows.chunks_exact(k).enumerate() {
        let places = panel[i..].iter_mut().step_by(width);
        places.zip(&row[terms.0..terms.1]).for_each(|(place, value)| *place = value.to_ring());
    }
}

/// Copies columns (first, count) of a plain right side to `panel`, `[terms, width]`; missing columns become zero.
#[inline(always)]
fn pack_columns<B: RingElement>(
    job: Job<'_, B>,
    terms: (usize, usize),
    (left, count): (usize, usize),
    width: usize,
    panel: &mut [u64],
) {
    if count < width {
        panel.fill(0);
    }
    for (places, term) in panel.chunks_exact_mut(width).zip(terms.0..terms.1) {
        let values = &job.b[term * job.m + left..][..count];
        places[..count].iter_mut().zip(values).for_each(|(place, value)| *place = value.to_ring());
    }
}
