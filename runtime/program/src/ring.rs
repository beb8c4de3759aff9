//! Tensors of ring elements, held as u64 whatever the ring: arithmetic modulo 2^64 is right modulo every 2^k.

use marill_kernels::elements;
use marill_kernels::matmul::{MatShape, matmul_accumulate};
use marill_plaintext::{Op, OpError, Tensor, evaluate};

/// A row-major tensor of ring elements. Bits above the value's width are arbitrary.
#[derive(Clone, Debug)]
pub struct Ring {
    pub shape: Vec<usize>,
    pub data: Vec<u64>,
}

impl Ring {
    /// A tensor of `shape`; `data` has as many elements.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<u64>) -> Ring {
        let shape = shape.into();
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Ring { shape, data }
    }

    /// Zeros of `shape`.
    pub fn zeros(shape: &[usize]) -> Ring {
        Ring { shape: shape.to_vec(), data: vec![0; shape.iter().product()] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The tensor with `f` applied to every element.
    pub fn map(&self, f: impl Fn(u64) -> u64 + Sync) -> Ring {
        Ring { shape: self.shape.clone(), data: elements::map(&self.data, f) }
    }

    /// As [`Ring::map`], in place.
    pub fn map_in_place(&mut self, f: impl Fn(u64) -> u64 + Sync) {
        elements::map_in_place(&mut self.data, f);
    }

    /// `f(self, other)` element by element, in place; `other` is broadcast to this shape (which validation has inferred).
    pub fn zip_in_place(&mut self, other: &Ring, f: impl Fn(u64, u64) -> u64 + Sync) {
        let own = other.shape.iter().skip_while(|&&d| d == 1).count();
        let (_, last) = self.shape.split_at(self.shape.len().saturating_sub(own));
        if other.shape.ends_with(last) && other.len() == last.iter().product::<usize>() {
            return elements::zip_repeated_in_place(&mut self.data, &other.data, f);
        }
        *self = self.zip(other, &self.shape, f);
    }

    /// `f(self, other)` element by element, broadcast to `shape` (which validation has inferred).
    pub fn zip(&self, other: &Ring, shape: &[usize], f: impl Fn(u64, u64) -> u64 + Sync) -> Ring {
        if self.shape == shape && other.shape == shape {
            return Ring { shape: shape.to_vec(), data: elements::zip(&self.data, &other.data, f) };
        }
        let (rows, length) = shape.split_at(shape.len().saturating_sub(1));
        let length = length.first().copied().unwrap_or(1);
        let (left, right) = (strides(&self.shape, shape), strides(&other.shape, shape));
        let (a_step, b_step) = (left.last().copied().unwrap_or(0), right.last().copied().unwrap_or(0));
        let mut data = Vec::with_capacity(rows.iter().product::<usize>() * length);
        walk(rows, &left[..rows.len()], &right[..rows.len()], |i, j| match (a_step, b_step) {
            (1, 1) => {
                let pairs = self.data[i..][..length].iter().zip(&other.data[j..][..length]);
                data.extend(pairs.map(|(&a, &b)| f(a, b)));
            }
            (1, _) => data.extend(self.data[i..][..length].iter().map(|&a| f(a, other.data[j]))),
            (_, 1) => data.extend(other.data[j..][..length].iter().map(|&b| f(self.data[i], b))),
            _ => data.extend(std::iter::repeat_n(f(self.data[i], other.data[j]), length)),
        });
        Ring { shape: shape.to_vec(), data }
    }

    /// The tensor repeated to `shape`.
    pub fn broadcast(&self, shape: &[usize]) -> Ring {
        if self.shape == shape { self.clone() } else { self.zip(&Ring::new([], vec![0]), shape, |a, _| a) }
    }

    /// `self + other` modulo 2^64, broadcast to `shape`.
    pub fn add(&self, other: &Ring, shape: &[usize]) -> Ring {
        self.zip(other, shape, u64::wrapping_add)
    }

    /// `self - other` modulo 2^64, broadcast to `shape`.
    pub fn sub(&self, other: &Ring, shape: &[usize]) -> Ring {
        self.zip(other, shape, u64::wrapping_sub)
    }

    /// `self * other` modulo 2^64, broadcast to `shape`.
    pub fn mul(&self, other: &Ring, shape: &[usize]) -> Ring {
        self.zip(other, shape, u64::wrapping_mul)
    }

    /// Adds `other`, of the same shape, in place.
    pub fn accumulate(&mut self, other: &Ring) {
        self.zip_in_place(other, u64::wrapping_add);
    }

    /// Sum along `axis`, which stays with length 1.
    pub fn sum(&self, axis: usize) -> Ring {
        let (outer, length, inner) = split(&self.shape, axis);
        let mut shape = self.shape.clone();
        shape[axis] = 1;
        let mut result = Ring::zeros(&shape);
        for o in 0..outer {
            let target = &mut result.data[o * inner..(o + 1) * inner];
            for l in 0..length {
                let source = &self.data[(o * length + l) * inner..][..inner];
                for (t, &s) in target.iter_mut().zip(source) {
                    *t = t.wrapping_add(s);
                }
            }
        }
        result
    }

    /// The low `width` bits of numpy's `matmul`; `shape` is the result's, as inferred.
    pub fn matmul(&self, other: &Ring, shape: &[usize], width: u32) -> Ring {
        let (a_rank, b_rank) = (self.shape.len(), other.shape.len());
        let n = if a_rank == 1 { 1 } else { self.shape[a_rank - 2] };
        let k = self.shape[a_rank - 1];
        let m = if b_rank == 1 { 1 } else { other.shape[b_rank - 1] };
        let mut result = Ring::zeros(shape);
        if result.is_empty() || k == 0 {
            return result;
        }
        let a_batch = &self.shape[..a_rank.saturating_sub(2)];
        let b_batch = &other.shape[..b_rank.saturating_sub(2)];
        let batch: Vec<usize> = broadcast_batch(a_batch, b_batch);
        if b_batch.iter().product::<usize>() == 1 && a_batch.iter().product::<usize>() > 1 {
            // One right-hand matrix for all batches: a single tall product.
            let rows = self.len() / k;
            let shape = MatShape { n: rows, k, m };
            matmul_accumulate(&self.data, &other.data, &mut result.data, shape, width);
            return result;
        }
        let (left, right) = (strides(a_batch, &batch), strides(b_batch, &batch));
        let mut at = 0;
        walk(&batch, &left, &right, |i, j| {
            let a = &self.data[i * n * k..][..n * k];
            let b = &other.data[j * k * m..][..k * m];
            matmul_accumulate(a, b, &mut result.data[at * n * m..][..n * m], MatShape { n, k, m }, width);
            at += 1;
        });
        result
    }

    /// Puts slice `i` along `axis` at position `indices[i]` of a zero tensor with `size` positions.
    ///
    /// # Errors
    /// An index that is not below `size`.
    pub fn place(&self, indices: &[i64], axis: usize, size: usize) -> Result<Ring, OpError> {
        let (outer, length, inner) = split(&self.shape, axis);
        let mut shape = self.shape.clone();
        shape[axis] = size;
        let mut result = Ring::zeros(&shape);
        for (l, &index) in indices.iter().enumerate().take(length) {
            if index < 0 || index as usize >= size {
                return Err(OpError::IndexOutOfRange { op: "place", index, length: size });
            }
            for o in 0..outer {
                let source = &self.data[(o * length + l) * inner..][..inner];
                result.data[(o * size + index as usize) * inner..][..inner].copy_from_slice(source);
            }
        }
        Ok(result)
    }
}

/// Applies a movement operation to ring tensors; `indices` is the second operand of a `Gather`.
///
/// # Errors
/// What the operation itself reports: an index out of range.
pub fn movement(op: &Op, args: &[&Ring], indices: Option<&Tensor>) -> Result<Ring, OpError> {
    if let Op::Reshape { shape } = op {
        return Ok(Ring { shape: shape.clone(), data: args[0].data.clone() });
    }
    let mut tensors = Vec::with_capacity(args.len() + 1);
    for arg in args {
        tensors.push(Tensor::i64(arg.shape.clone(), arg.data.iter().map(|&v| v as i64).collect())?);
    }
    tensors.extend(indices.cloned());
    let operands: Vec<&Tensor> = tensors.iter().collect();
    let moved = evaluate(op, &operands)?;
    let data = moved.to_i64_vec()?.into_iter().map(|v| v as u64).collect();
    Ok(Ring { shape: moved.shape().to_vec(), data })
}

/// Outer, axis and inner extents.
fn split(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

fn broadcast_batch(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let dim = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank).map(|i| if dim(a, i) == 1 { dim(b, i) } else { dim(a, i) }).collect()
}

/// Element strides of `shape` seen as `target`; broadcast axes have stride 0.
fn strides(shape: &[usize], target: &[usize]) -> Vec<usize> {
    let mut result = vec![0; target.len()];
    let mut step = 1;
    for i in 0..shape.len().min(target.len()) {
        let axis = shape.len() - 1 - i;
        if shape[axis] != 1 {
            result[target.len() - 1 - i] = step;
        }
        step *= shape[axis];
    }
    result
}

/// Calls `visit` with both offsets for every position of `shape`, in row-major order.
fn walk(shape: &[usize], left: &[usize], right: &[usize], mut visit: impl FnMut(usize, usize)) {
    let total: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let (mut i, mut j) = (0, 0);
    for _ in 0..total {
        visit(i, j);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            i += left[axis];
            j += right[axis];
            if index[axis] < shape[axis] {
                break;
            }
            i -= left[axis] * shape[axis];
            j -= right[axis] * shape[axis];
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_place_is_the_same_as_anew() {
        let ring = |shape: &[usize], from: u64| {
            let len = shape.iter().product::<usize>() as u64;
            Ring::new(shape, (0..len).map(|i| (i + from).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect())
        };
        let shape = [2, 3, 4];
        for other in
            [&[2, 3, 4][..], &[3, 4], &[1, 3, 4], &[4], &[1, 1, 1], &[], &[2, 1, 1], &[2, 1, 4], &[3, 1]]
        {
            let (mut a, b) = (ring(&shape, 7), ring(other, 100));
            let expected = a.sub(&b, &shape);
            a.zip_in_place(&b, u64::wrapping_sub);
            assert_eq!((a.shape, a.data), (expected.shape, expected.data), "{other:?}");
        }
    }
}
