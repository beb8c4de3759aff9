//! Matrix products whose right side is brought panel by panel, so that a large weight never lies in memory whole: the next
//! one while the last is multiplied.

use std::ops::Range;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use marill_kernels::matmul::{MatShape, matmul_accumulate};

use crate::error::RunError;

/// Elements of one panel, about.
const PANEL_ELEMENTS: usize = 1 << 20;

/// Rows of a panel are multiples of this, so that no kernel has to fill terms up.
const PANEL_ROWS: usize = 64;

/// The low `width` bits of `a x w`, shapes `[n, k] x [k, m] -> [n, m]`; `panel` overwrites a buffer with the given elements of `w`,
/// which always begin at a multiple of 8.
///
/// # Errors
/// What `panel` returns.
pub fn product(
    a: &[u64],
    MatShape { n, k, m }: MatShape,
    width: u32,
    mut panel: impl FnMut(Range<usize>, &mut Vec<u64>) -> Result<(), RunError> + Send,
) -> Result<Vec<u64>, RunError> {
    let mut result = vec![0; n * m];
    if n == 0 || k == 0 || m == 0 {
        return Ok(result);
    }
    let rows = (PANEL_ELEMENTS / m / PANEL_ROWS).max(1) * PANEL_ROWS;
    if rows >= k {
        let mut right = Vec::new();
        panel(0..k * m, &mut right)?;
        matmul_accumulate(a, &right, &mut result, MatShape { n, k, m }, width);
        return Ok(result);
    }
    thread::scope(|scope| {
        // One is made, one is multiplied.
        let ((made, next), (used, free)) = (sync_channel(1), channel());
        scope.spawn(move || {
            for first in (0..k).step_by(rows) {
                let mut right: Vec<u64> = free.try_recv().unwrap_or_default();
                let brought = panel(first * m..k.min(first + rows) * m, &mut right).map(|()| right);
                let is_over = brought.is_err();
                if made.send(brought).is_err() || is_over {
                    return;
                }
            }
        });
        let mut left = Vec::new();
        for (first, right) in (0..k).step_by(rows).zip(next) {
            let (right, count) = (right?, rows.min(k - first));
            left.clear();
            (0..n).for_each(|i| left.extend_from_slice(&a[i * k + first..][..count]));
            matmul_accumulate(&left, &right, &mut result, MatShape { n, k: count, m }, width);
            // Its maker may be done.
            let _ = used.send(right);
        }
        Ok(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_give_the_whole_product() {
        // The second has several panels, the last of them short.
        for shape in [MatShape { n: 2, k: 3, m: 5 }, MatShape { n: 1, k: 2101, m: 4003 }] {
            let MatShape { n, k, m } = shape;
            let a: Vec<u64> = (0..n * k).map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let w = |i: usize| (i as u64).wrapping_mul(0xd1b5_4a32_d192_ed03) >> 3;
            let mut starts = Vec::new();
            let found = product(&a, shape, 64, |range, out| {
                assert_eq!(range.start % 8, 0);
                starts.push(range.start);
                *out = range.map(w).collect();
                Ok(())
            });
            let whole: Vec<u64> = (0..k * m).map(w).collect();
            assert_eq!(found.unwrap(), marill_kernels::matmul(&a, &whole, shape));
            assert_eq!(starts.len() > 1, k > 3);
        }
        let empty = product(&[], MatShape { n: 2, k: 0, m: 3 }, 64, |range, out| {
            out.resize(range.len(), 1);
            Ok(())
        });
        assert_eq!(empty.unwrap(), [0; 6]);
    }
}
