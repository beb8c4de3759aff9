//! Walking several tensors of one shape in step, each with its own strides.

use super::Element;
use crate::OpError;
use crate::shape::element_count;
use crate::tensor::reserve;

/// Distance in elements between neighbours along each axis of a row-major `shape`.
pub fn row_major(shape: &[usize]) -> Vec<isize> {
    let mut stride = 1;
    let mut strides: Vec<isize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let here = stride;
            stride *= d as isize;
            here
        })
        .collect();
    strides.reverse();
    strides
}

/// Strides that walk a row-major tensor of shape `from` as if broadcast to `to`.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let missing = to.len() - from.len();
    let own = row_major(from);
    (0..to.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(i) if from[i] != 1 => own[i],
            _ => 0,
        })
        .collect()
}

/// Visits `shape` in row-major order as runs along its innermost axis: for each, the offset into every tensor, the
/// run's length and every tensor's step. Neighbouring axes that all tensors cross evenly become one.
pub fn runs<const N: usize>(
    shape: &[usize],
    strides: [&[isize]; N],
    start: [isize; N],
    mut visit: impl FnMut([isize; N], usize, [isize; N]),
) {
    if shape.contains(&0) {
        return;
    }
    let mut axes: Vec<(usize, [isize; N])> = Vec::new();
    for (axis, &length) in shape.iter().enumerate().filter(|&(_, &length)| length != 1) {
        let steps = strides.map(|s| s[axis]);
        match axes.last_mut() {
            Some((outer, outer_steps)) if (0..N).all(|i| outer_steps[i] == steps[i] * length as isize) => {
                *outer *= length;
                *outer_steps = steps;
            }
            _ => axes.push((length, steps)),
        }
    }
    let (length, steps) = axes.pop().unwrap_or((1, [0; N]));
    let mut index = vec![0usize; axes.len()];
    let mut offsets = start;
    loop {
        visit(offsets, length, steps);
        let mut axis = axes.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            let (axis_length, axis_steps) = axes[axis];
            index[axis] += 1;
            if index[axis] < axis_length {
                (0..N).for_each(|i| offsets[i] += axis_steps[i]);
                break;
            }
            index[axis] = 0;
            (0..N).for_each(|i| offsets[i] -= axis_steps[i] * (axis_length as isize - 1));
        }
    }
}

/// The elements of `data` that a walk over `shape` from `start` meets, in that order.
pub fn copy<T: Element>(
    data: &[T],
    shape: &[usize],
    strides: &[isize],
    start: isize,
) -> Result<Vec<T>, OpError> {
    let mut out = reserve(element_count(shape)?)?;
    runs(shape, [strides], [start], |[offset], length, [step]| match step {
        1 => out.extend_from_slice(&data[offset as usize..offset as usize + length]),
        0 => out.extend(std::iter::repeat_n(data[offset as usize], length)),
        _ => out.extend((0..length as isize).map(|i| data[(offset + i * step) as usize])),
    });
    Ok(out)
}

/// `data` of shape `from`, broadcast to `to`.
pub fn expand<T: Element>(data: &[T], from: &[usize], to: &[usize]) -> Result<Vec<T>, OpError> {
    copy(data, to, &broadcast_strides(from, to), 0)
}

/// `shape` seen from `axis`: how many blocks before it, its length, how many elements after it.
pub fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_axes_become_one_run() {
        let count = |shape: &[usize], strides: &[isize]| {
            let mut lengths = Vec::new();
            runs(shape, [strides], [0], |_, length, _| lengths.push(length));
            lengths
        };
        assert_eq!(count(&[2, 3, 4], &[12, 4, 1]), [24]);
        assert_eq!(count(&[2, 3, 4], &[0, 4, 1]), [12, 12]);
        assert_eq!(count(&[2, 1, 4], &[4, 99, 1]), [8]);
        assert_eq!(count(&[], &[]), [1]);
        assert_eq!(count(&[2, 0], &[0, 1]), [0usize; 0]);
    }

    #[test]
    fn copies_backwards_and_crosswise() {
        let data = [0i64, 1, 2, 3, 4, 5];
        assert_eq!(copy(&data, &[3, 2], &[1, 3], 0).unwrap(), [0, 3, 1, 4, 2, 5]);
        assert_eq!(copy(&data, &[2, 2], &[3, -2], 2).unwrap(), [2, 0, 5, 3]);
    }
}
