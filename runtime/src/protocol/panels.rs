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
    if n == 0 || k == 0 || m == 0 {
        return Ok(result);
    }
    let rows = (PANEL_ELEMENTS / m).next_multiple_of(8).min(k.next_multiple_of(8)).max(8);
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
            let found = product(&a, shape, |range, out| {
                assert_eq!(range.start % 8, 0);
                starts.push(range.start);
                out.extend(range.map(w));
                Ok(())
            });
            let whole: Vec<u64> = (0..k * m).map(w).collect();
            assert_eq!(found.unwrap(), marill_kernels::matmul(&a, &whole, shape));
            assert_eq!(starts.len() > 1, k > 3);
        }
        let empty = product(&[], MatShape { n: 2, k: 0, m: 3 }, |range, out| {
            out.resize(range.len(), 1);
            Ok(())
        });
        assert_eq!(empty.unwrap(), [0; 6]);
    }
}
