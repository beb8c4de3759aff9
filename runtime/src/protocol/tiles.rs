//! Matrix products whose right side is brought tile by tile, each by the thread that multiplies it, so that a large weight never
//! lies in memory whole and no thread waits for another.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use marill_kernels::matmul::{MatShape, Way, matmul_with};
use marill_kernels::threads::{for_each, threads};

use crate::error::RunError;

/// Rows of a tile: as many terms as the kernels add up at once.
const TILE_ROWS: usize = 1024;

/// Most columns of a tile: enough that a row of it is worth reading by itself, few enough that a tile stays in a cache.
const TILE_COLUMNS: usize = 512;

/// Fewest columns for which a thread of its own is worth its start.
const LEAST_COLUMNS: usize = 64;

/// Columns of a tile are multiples of this, which every kernel's steps divide.
const STEP: usize = 32;

/// A part of a row-major matrix.
pub struct Tile {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Columns of the matrix.
    row_length: usize,
}

impl Tile {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Where its elements lie in the matrix, in order.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        // Whole rows are one span.
        let is_whole = self.columns.len() == self.row_length;
        let rows = if is_whole {
            self.rows.start..self.rows.end.min(self.rows.start + 1)
        } else {
            self.rows.clone()
        };
        let length = if is_whole { self.elements() } else { self.columns.len() };
        rows.map(move |row| {
            let first = row * self.row_length + self.columns.start;
            first..first + length
        })
    }
}

/// The low `width` bits of `a x w`, shapes `[n, k] x [k, m] -> [n, m]`; `bring` overwrites a buffer with a tile of `w`, on any of
/// the threads, each of which has a `scratch`.
///
/// # Errors
/// What `bring` returns.
pub fn product<S>(
    a: &[u64],
    MatShape { n, k, m }: MatShape,
    width: u32,
    scratch: impl Fn() -> S + Sync,
    bring: impl Fn(&mut S, &Tile, &mut Vec<u64>) -> Result<(), RunError> + Sync,
) -> Result<Vec<u64>, RunError> {
    let mut result = vec![0; n * m];
    if n == 0 || k == 0 || m == 0 {
        return Ok(result);
    }
    let workers = threads().min(m.div_ceil(LEAST_COLUMNS));
    let blocks = m.div_ceil(TILE_COLUMNS).next_multiple_of(workers);
    let columns = m.div_ceil(blocks).next_multiple_of(STEP);
    let way = Way { threads: threads() / workers, ..Way::fastest(width) };
    let (next, whole) = (AtomicUsize::new(0), Mutex::new(&mut result));
    // Takes blocks of columns until none is left.
    let work = || -> Result<(), RunError> {
        let (mut scratch, mut right, mut left, mut part) = (scratch(), Vec::new(), Vec::new(), Vec::new());
        loop {
            let first = next.fetch_add(columns, Ordering::Relaxed);
            if first >= m {
                return Ok(());
            }
            let columns = first..m.min(first + columns);
            part.clear();
            part.resize(n * columns.len(), 0);
            for from in (0..k).step_by(TILE_ROWS) {
                let rows = from..k.min(from + TILE_ROWS);
                let shape = MatShape { n, k: rows.len(), m: columns.len() };
                let a = if rows.len() == k {
                    a
                } else {
                    left.clear();
                    a.chunks_exact(k).for_each(|row| left.extend_from_slice(&row[rows.clone()]));
                    &left
                };
                bring(&mut scratch, &Tile { rows, columns: columns.clone(), row_length: m }, &mut right)?;
                matmul_with(way, a, &right, &mut part, shape);
            }
            let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
            for (row, part) in whole.chunks_exact_mut(m).zip(part.chunks_exact(columns.len())) {
                row[columns.clone()].copy_from_slice(part);
            }
        }
    };
    let outcome = Mutex::new(Ok(()));
    for_each(0..workers, |_| {
        if let Err(error) = work() {
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_give_the_whole_product() {
        for shape in [
            MatShape { n: 2, k: 3, m: 5 },
            MatShape { n: 1, k: 2101, m: 403 },
            MatShape { n: 40, k: 1030, m: 300 },
        ] {
            let MatShape { n, k, m } = shape;
            let a: Vec<u64> = (0..n * k).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let w = |i: usize| (i as u64).wrapping_mul(0xd1b5_4a32_d192_ed03) >> 3;
            let seen = Mutex::new(Vec::new());
            let found = product(
                &a,
                shape,
                64,
                || (),
                |(), tile, out| {
                    out.clear();
                    for span in tile.spans() {
                        seen.lock().unwrap().extend(span.clone());
                        out.extend(span.map(w));
                    }
                    assert_eq!(out.len(), tile.elements());
                    Ok(())
                },
            );
            let whole: Vec<u64> = (0..k * m).map(w).collect();
            assert_eq!(found.unwrap(), marill_kernels::matmul(&a, &whole, shape));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..k * m));
        }
        let empty = product(&[], MatShape { n: 2, k: 0, m: 3 }, 64, || (), |(), _, _| unreachable!());
        assert_eq!(empty.unwrap(), [0; 6]);
    }

    #[test]
    fn the_error_of_any_tile_is_returned() {
        let failing = |(): &mut (), tile: &Tile, out: &mut Vec<u64>| {
            out.resize(tile.elements(), 0);
            match tile.spans().any(|span| span.contains(&999)) {
                true => Err(RunError::Exhausted { what: "test", needed_bytes: 1, limit_bytes: 0 }),
                false => Ok(()),
            }
        };
        assert!(product(&[1, 2], MatShape { n: 1, k: 2, m: 1000 }, 64, || (), failing).is_err());
        assert!(product(&[1, 2], MatShape { n: 1, k: 2, m: 400 }, 64, || (), failing).is_ok());
    }
}
