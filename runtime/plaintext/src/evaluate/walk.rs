//! Walking several tensors of one shape in step, each with its own strides.

use std::ops::Range;

use super::parallel::split;
use super::{Element, zeros};
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

/// A walk over a shape in row-major order, in runs along its innermost axis. Neighbouring axes that all tensors cross
/// evenly are one.
pub struct Walk<const N: usize> {
    /// Lengths and every tensor's step, outermost first, without the innermost.
    axes: Vec<(usize, [isize; N])>,
    start: [isize; N],
    /// The innermost axis.
    pub length: usize,
    /// Every tensor's step along it.
    pub steps: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// Over `shape`, each tensor by its strides from its first element.
    pub fn new(shape: &[usize], strides: [&[isize]; N], start: [isize; N]) -> Walk<N> {
        let mut axes: Vec<(usize, [isize; N])> = Vec::new();
        for (axis, &length) in shape.iter().enumerate().filter(|&(_, &length)| length != 1) {
            let steps = strides.map(|s| s[axis]);
            match axes.last_mut() {
                Some((outer, outer_steps))
                    if (0..N).all(|i| outer_steps[i] == steps[i] * length as isize) =>
                {
                    *outer *= length;
                    *outer_steps = steps;
                }
                _ => axes.push((length, steps)),
            }
        }
        let (length, steps) = axes.pop().unwrap_or((1, [0; N]));
        Walk { axes, start, length, steps }
    }

    /// Visits the runs, or parts of runs, that make up elements `range`: the offset into every tensor, and how many
    /// elements.
    #[inline(always)]
    pub fn visit(&self, range: Range<usize>, mut visit: impl FnMut([isize; N], usize)) {
        if range.is_empty() || self.length == 0 {
            return;
        }
        let mut index = vec![0usize; self.axes.len()];
        let mut offsets = self.start;
        let mut rest = range.start / self.length;
        for (index, (length, steps)) in index.iter_mut().zip(&self.axes).rev() {
            *index = rest % length;
            rest /= length;
            (0..N).for_each(|i| offsets[i] += steps[i] * *index as isize);
        }
        let (mut within, mut left) = (range.start % self.length, range.len());
        loop {
            let count = left.min(self.length - within);
            let mut first = offsets;
            (0..N).for_each(|i| first[i] += self.steps[i] * within as isize);
            visit(first, count);
            left -= count;
            within = 0;
            let mut axis = self.axes.len();
            loop {
                if axis == 0 || left == 0 {
                    return;
                }
                axis -= 1;
                let (length, steps) = self.axes[axis];
                index[axis] += 1;
                if index[axis] < length {
                    (0..N).for_each(|i| offsets[i] += steps[i]);
                    break;
                }
                index[axis] = 0;
                (0..N).for_each(|i| offsets[i] -= steps[i] * (length as isize - 1));
            }
        }
    }
}

/// Visits all of `shape` in runs: for each, the offset into every tensor, the run's length and every tensor's step.
pub fn runs<const N: usize>(
    shape: &[usize],
    strides: [&[isize]; N],
    start: [isize; N],
    mut visit: impl FnMut([isize; N], usize, [isize; N]),
) {
    let walk = Walk::new(shape, strides, start);
    walk.visit(0..shape.iter().product(), |offsets, length| visit(offsets, length, walk.steps));
}

/// The elements of `data` that a walk over `shape` from `start` meets, in that order.
pub fn copy<T: Element>(
    data: &[T],
    shape: &[usize],
    strides: &[isize],
    start: isize,
) -> Result<Vec<T>, OpError> {
    let count = element_count(shape)?;
    let walk = Walk::new(shape, [strides], [start]);
    if let (0, [1]) = (walk.axes.len(), walk.steps) {
        let mut out = reserve(count)?;
        out.extend_from_slice(&data[start as usize..][..count]);
        return Ok(out);
    }
    let mut out = zeros(count)?;
    if let Some(&(rows, [1])) = walk.axes.last()
        && walk.steps[0] > 1
        && walk.length > 1
    {
        let step = walk.steps[0] as usize;
        split(&mut out, rows * walk.length, rows * walk.length * COPY_NS, |first, planes| {
            for (i, plane) in planes.chunks_exact_mut(rows * walk.length).enumerate() {
                let first = (first + i) * rows * walk.length;
                walk.visit(first..first + 1, |[offset], _| {
                    transpose(&data[offset as usize..], step, walk.length, plane);
                });
            }
        });
        return Ok(out);
    }
    split(&mut out, 1, COPY_NS, |first, part| {
        let mut written = 0;
        walk.visit(first..first + part.len(), |[offset], length| {
            let (offset, line) = (offset as usize, &mut part[written..written + length]);
            match walk.steps[0] {
                1 => line.copy_from_slice(&data[offset..offset + length]),
                0 => line.fill(data[offset]),
                step => {
                    for (i, y) in line.iter_mut().enumerate() {
                        *y = data[(offset as isize + i as isize * step) as usize];
                    }
                }
            }
            written += length;
        });
    });
    Ok(out)
}

/// Nanoseconds to copy an element, at most.
const COPY_NS: usize = 1;

/// Row `i` of `out`, rows of `length`, becomes elements `i, i + step, ...` of `data`. Several rows at a time share the
/// lines of memory that they read.
fn transpose<T: Element>(data: &[T], step: usize, length: usize, out: &mut [T]) {
    const ROWS: usize = 16;
    for (block, lines) in out.chunks_mut(ROWS * length).enumerate() {
        let rows = lines.len() / length;
        for j in 0..length {
            let source = &data[block * ROWS + j * step..][..rows];
            for (i, &x) in source.iter().enumerate() {
                lines[i * length + j] = x;
            }
        }
    }
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

    #[test]
    fn parts_of_a_walk_join_to_the_whole() {
        let (shape, strides) = ([2, 3, 4], [[0isize, 8, 1], [1, 2, 6]]);
        let walk = Walk::new(&shape, [&strides[0], &strides[1]], [5, 0]);
        let listed = |range: Range<usize>| {
            let mut all = Vec::new();
            walk.visit(range, |at, count| {
                all.extend((0..count as isize).map(|n| [0, 1].map(|i| at[i] + n * walk.steps[i])));
            });
            all
        };
        let whole = listed(0..24);
        assert_eq!((whole.len(), whole[0], whole[23]), (24, [5, 0], [5 + 19, 1 + 4 + 18]));
        for first in 0..=24 {
            for end in first..=24 {
                assert_eq!(listed(first..end), whole[first..end]);
            }
        }
    }

    #[test]
    fn large_transposed_copies_meet_every_element() {
        let (planes, rows, length) = (3, 37, 1100);
        let data: Vec<i64> = (0..(planes * rows * length) as i64).collect();
        let strides = [(rows * length) as isize, 1, rows as isize];
        let copied = copy(&data, &[planes, rows, length], &strides, 0).unwrap();
        for (at, value) in copied.into_iter().enumerate() {
            let (plane, row, column) = (at / (rows * length), at / length % rows, at % length);
            assert_eq!(value as usize, (plane * length + column) * rows + row);
        }
    }
}
