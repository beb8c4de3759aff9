//! Transposition of bit matrices, 128 rows at a time.

use crate::blocks::Block;

/// Rows of a matrix, and so bits of a transposed column.
pub const ROWS: usize = 128;

/// `out[j]` collects bit `j` of every row: bit `r` of it is bit `j % 128` of `rows[r * width + j / 128]`.
///
/// # Panics
/// If `rows` is not 128 rows of `width` blocks, or `out` not `128 * width` blocks.
pub fn transpose(rows: &[Block], width: usize, out: &mut [Block]) {
    assert_eq!(rows.len(), ROWS * width);
    assert_eq!(out.len(), ROWS * width);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature is there.
        unsafe { transpose_avx2(rows, width, out) };
        return;
    }
    transpose_portable(rows, width, out);
}

/// The portable code compiled for 256-bit vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn transpose_avx2(rows: &[Block], width: usize, out: &mut [Block]) {
    transpose_portable(rows, width, out);
}

#[inline(always)]
fn transpose_portable(rows: &[Block], width: usize, out: &mut [Block]) {
    let mut square = [[0_u64; 2]; ROWS];
    for (column, out) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        for (r, row) in square.iter_mut().enumerate() {
            let block = rows[r * width + column];
            *row = [block as u64, (block >> 64) as u64];
        }
        for pair in 0..64 {
            let high = square[pair][1];
            square[pair][1] = square[pair + 64][0];
            square[pair + 64][0] = high;
        }
        swap::<32>(&mut square);
        swap::<16>(&mut square);
        swap::<8>(&mut square);
        swap::<4>(&mut square);
        swap::<2>(&mut square);
        swap::<1>(&mut square);
        for (out, row) in out.iter_mut().zip(&square) {
            *out = Block::from(row[0]) | Block::from(row[1]) << 64;
        }
    }
}

/// Exchanges, in every square of `2 STEP` rows and bits, the upper right quarter and the lower left one.
#[inline(always)]
fn swap<const STEP: usize>(square: &mut [[u64; 2]; ROWS]) {
    let mask = u64::MAX / ((1 << STEP) + 1);
    for rows in square.chunks_exact_mut(2 * STEP) {
        let (upper, lower) = rows.split_at_mut(STEP);
        for (a, b) in upper.as_flattened_mut().iter_mut().zip(lower.as_flattened_mut()) {
            let moved = ((*a >> STEP) ^ *b) & mask;
            *b ^= moved;
            *a ^= moved << STEP;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::{Prg, Seed};

    #[test]
    fn both_paths_follow_the_definition() {
        for width in [0, 1, 2, 5] {
            let words = Prg::new(Seed::new([3; 16]), width as u64).ring(2 * ROWS * width, 64);
            let rows: Vec<Block> =
                words.chunks_exact(2).map(|w| Block::from(w[0]) << 64 | Block::from(w[1])).collect();
            let mut out = vec![1; ROWS * width];
            transpose(&rows, width, &mut out);
            for (j, block) in out.iter().enumerate() {
                for r in 0..ROWS {
                    assert_eq!((block >> r) & 1, (rows[r * width + j / 128] >> (j % 128)) & 1);
                }
            }
            let mut portable = vec![1; ROWS * width];
            transpose_portable(&rows, width, &mut portable);
            assert_eq!(out, portable);
        }
    }
}
