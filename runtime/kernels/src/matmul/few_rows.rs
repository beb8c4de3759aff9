//! Products with so few rows that reading the right side is the cost: it is read once, in place, in order.

use super::{Job, RingElement};

/// Columns per pass: the result's part stays in the first-level cache while the terms go by.
const COLUMNS: usize = 512;

/// Terms added at once, so that the result is loaded and stored once for all of them.
const TERMS: usize = 8;

/// `c += a x b` on the job's columns, `b` plain.
#[inline(always)]
pub(super) fn plain<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    let Job { a, b, k, m, columns: (first, end), .. } = job;
    for left in (first..end).step_by(COLUMNS) {
        let width = COLUMNS.min(end - left);
        let whole = k - k % TERMS;
        for from in (0..whole).step_by(TERMS) {
            let terms: [&[B]; TERMS] = std::array::from_fn(|t| &b[(from + t) * m + left..][..width]);
            for (row, a) in c.iter_mut().zip(a.chunks_exact(k)) {
                let factors: [u64; TERMS] = std::array::from_fn(|t| a[from + t]);
                for (j, total) in row[left - first..][..width].iter_mut().enumerate() {
                    let mut sum = *total;
                    for t in 0..TERMS {
                        sum = sum.wrapping_add(factors[t].wrapping_mul(terms[t][j].to_ring()));
                    }
                    *total = sum;
                }
            }
        }
        for from in whole..k {
            let terms = &b[from * m + left..][..width];
            for (row, a) in c.iter_mut().zip(a.chunks_exact(k)) {
                let factor = a[from];
                for (total, value) in row[left - first..][..width].iter_mut().zip(terms) {
                    *total = total.wrapping_add(factor.wrapping_mul(value.to_ring()));
                }
            }
        }
    }
}

/// `c += a x b^T` on the job's columns, `b` transposed. Good for few columns, too.
#[inline(always)]
pub(super) fn transposed<B: RingElement>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    let Job { a, b, k, columns: (first, end), .. } = job;
    if c.len() < end - first {
        for (j, b) in b[first * k..end * k].chunks_exact(k).enumerate() {
            for (row, a) in c.iter_mut().zip(a.chunks_exact(k)) {
                row[j] = row[j].wrapping_add(dot(a, b));
            }
        }
    } else {
        for (row, a) in c.iter_mut().zip(a.chunks_exact(k)) {
            for (total, b) in row.iter_mut().zip(b[first * k..end * k].chunks_exact(k)) {
                *total = total.wrapping_add(dot(a, b));
            }
        }
    }
}

#[inline(always)]
fn dot<B: RingElement>(a: &[u64], b: &[B]) -> u64 {
    a.iter().zip(b).fold(0, |sum: u64, (x, y)| sum.wrapping_add(x.wrapping_mul(y.to_ring())))
}
