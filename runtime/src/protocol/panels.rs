//! Matrix products whose right side is brought panel by panel, so that a large weight never lies in memory whole.

use std::ops::Range;

use marill_kernels::matmul::{MatShape, matmul_accumulate};

use crate::error::RunError;

/// Elements of one panel, about.
const PANEL_ELEMENTS: usize = 1 << 22;

/// `a x w`, shapes `[n, k] x [k, m] -> [n, m]`; `panel` fills a buffer with the given elements of `w`, which always
/// begin at a multiple of 8.
///
/// # Errors
/// What `panel` returns.
pub fn product(
    a: &[u64],
    MatShape { n, k, m }: MatShape,
    mut panel: impl FnMut(Range<usize>, &mut Vec<u64>) -> Result<(), RunError>,
) -> Result<Vec<u64>, RunError> {
    let mut result = vec![0; n * m];
    let rows = (PANEL_ELEMENTS / m.max(1)).next_multiple_of(8).min(k.next_multiple_of(8)).max(8);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for first in (0..k).step_by(rows) {
        let count = rows.min(k - first);
        right.clear();
        panel(first * m..(first + count) * m, &mut right)?;
        let shape = MatShape { n, k: count, m };
        if count == k {
            matmul_accumulate(a, &right, &mut result, shape);
            continue;
        }
        left.clear();
        (0..n).for_each(|i| left.extend_from_slice(&a[i * k + first..][..count]));
        matmul_accumulate(&left, &right, &mut result, shape);
    }
    Ok(result)
}
