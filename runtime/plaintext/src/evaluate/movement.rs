//! Data movement: results made of the operands' elements.

use ndarray::IxDyn;

use super::walk::{around, copy, expand, row_major};
use super::{Element, elements, foreign, position, zeros};
use crate::tensor::reserve;
use crate::{Op, OpError, Tensor};

pub fn apply<T: Element>(op: &Op, args: &[&Tensor], shape: Vec<usize>) -> Result<Tensor, OpError> {
    let x = args[0];
    let from = x.shape();
    let indexed = matches!(op, Op::Gather { .. } | Op::GatherNd { .. } | Op::ScatterNd);
    if shape.contains(&0) && !indexed {
        return T::tensor(shape, Vec::new());
    }
    match op {
        Op::Reshape { .. } => return reshape::<T>(x, shape),
        // Shares the elements: a product reads them as they lie, and what needs them in order copies them.
        Op::Transpose { perm } => return Ok(T::wrap(T::array(x)?.clone().permuted_axes(IxDyn(perm)))),
        _ => {}
    }
    let data = elements::<T>(x)?;
    let moved = match op {
        Op::Slice { axis, start, step, .. } => {
            let mut strides = row_major(from);
            let first = strides[*axis].wrapping_mul(*start as isize);
            // A step too long for the product is never taken: the result then has at most one index here.
            strides[*axis] = strides[*axis].wrapping_mul(*step as isize);
            copy(&data, &shape, &strides, first)?
        }
        Op::Expand { .. } => expand(&data, from, &shape)?,
        Op::Tile { repeats } => {
            let walked: Vec<usize> = repeats.iter().zip(from).flat_map(|(&r, &d)| [r, d]).collect();
            let strides: Vec<isize> = row_major(from).into_iter().flat_map(|s| [0, s]).collect();
            copy(&data, &walked, &strides, 0)?
        }
        Op::Concat { axis } => concat::<T>(args, *axis, &shape)?,
        Op::Gather { axis } => gather(op, &data, from, *axis, &elements::<i64>(args[1])?)?,
        Op::GatherNd { batch_dims } => gather_nd(op, &data, from, *batch_dims, args[1])?,
        Op::ScatterNd => scatter_nd(op, data.into_owned(), from, args[1], &elements::<T>(args[2])?)?,
        Op::Trilu { upper, diagonal } => trilu(data.into_owned(), from, *upper, *diagonal),
        _ => return Err(foreign(op, 0, x.dtype())),
    };
    T::tensor(shape, moved)
}

fn reshape<T: Element>(x: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    macro_rules! shared {
        ($variant:ident, $array:expr) => {
            if $array.is_standard_layout() {
                if let Ok(same) = $array.clone().into_shape_with_order(IxDyn(&shape)) {
                    return Ok(Tensor::$variant(same));
                }
            }
        };
    }
    match x {
        Tensor::F32(array) => shared!(F32, array),
        Tensor::I64(array) => shared!(I64, array),
        Tensor::Bool(array) => shared!(Bool, array),
    }
    T::tensor(shape, elements::<T>(x)?.into_owned())
}

fn concat<T: Element>(args: &[&Tensor], axis: usize, shape: &[usize]) -> Result<Vec<T>, OpError> {
    let (blocks, length, inner) = around(shape, axis);
    let parts = args
        .iter()
        .map(|arg| Ok((arg.shape()[axis] * inner, elements::<T>(arg)?)))
        .collect::<Result<Vec<_>, OpError>>()?;
    let mut out = reserve(blocks * length * inner)?;
    for block in 0..blocks {
        for (width, data) in &parts {
            out.extend_from_slice(&data[block * width..(block + 1) * width]);
        }
    }
    Ok(out)
}

fn gather<T: Element>(
    op: &Op,
    data: &[T],
    from: &[usize],
    axis: usize,
    indices: &[i64],
) -> Result<Vec<T>, OpError> {
    let (blocks, length, inner) = around(from, axis);
    let mut positions = reserve(indices.len())?;
    for &index in indices {
        positions.push(position(op.name(), index, length)?);
    }
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = reserve(blocks * positions.len() * inner)?;
    for block in 0..blocks {
        for at in &positions {
            let first = (block * length + at) * inner;
            out.extend_from_slice(&data[first..first + inner]);
        }
    }
    Ok(out)
}

/// The block that a tuple of indices names among the axes `axes`, in row-major order.
fn block_of(op: &Op, tuple: &[i64], axes: &[usize]) -> Result<usize, OpError> {
    let step = |block: usize, (&index, &length): (&i64, &usize)| {
        Ok(block * length + position(op.name(), index, length)?)
    };
    tuple.iter().zip(axes).try_fold(0, step)
}

fn gather_nd<T: Element>(
    op: &Op,
    data: &[T],
    from: &[usize],
    batch: usize,
    indices: &Tensor,
) -> Result<Vec<T>, OpError> {
    let to = indices.shape();
    let depth = to[to.len() - 1];
    let batches: usize = to[..batch].iter().product();
    let per_batch: usize = to[batch..to.len() - 1].iter().product();
    let width: usize = from[batch + depth..].iter().product();
    let blocks: usize = from[batch..batch + depth].iter().product();
    let mut out = reserve(batches * per_batch * width)?;
    for (i, tuple) in elements::<i64>(indices)?.chunks_exact(depth).enumerate() {
        let block = (i / per_batch) * blocks + block_of(op, tuple, &from[batch..])?;
        out.extend_from_slice(&data[block * width..(block + 1) * width]);
    }
    Ok(out)
}

fn scatter_nd<T: Element>(
    op: &Op,
    mut data: Vec<T>,
    shape: &[usize],
    indices: &Tensor,
    updates: &[T],
) -> Result<Vec<T>, OpError> {
    let depth = indices.shape()[indices.shape().len() - 1];
    let width: usize = shape[depth..].iter().product();
    for (i, tuple) in elements::<i64>(indices)?.chunks_exact(depth).enumerate() {
        let block = block_of(op, tuple, shape)?;
        data[block * width..(block + 1) * width].copy_from_slice(&updates[i * width..(i + 1) * width]);
    }
    Ok(data)
}

fn trilu<T: Element>(mut data: Vec<T>, shape: &[usize], upper: bool, diagonal: i64) -> Vec<T> {
    let (rows, columns) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    if data.is_empty() {
        return data;
    }
    for (i, row) in data.chunks_exact_mut(columns).enumerate() {
        let first = i128::from(diagonal) + (i % rows) as i128;
        let cut = |at: i128| at.clamp(0, columns as i128) as usize;
        let cleared = if upper { 0..cut(first) } else { cut(first + 1)..columns };
        row[cleared].fill(T::default());
    }
    data
}

/// `[indices] -> [..indices, depth]`, 1 at each index.
pub fn one_hot(op: &Op, indices: &Tensor, depth: usize, shape: Vec<usize>) -> Result<Tensor, OpError> {
    let mut out = zeros::<f32>(indices.len() * depth)?;
    for (i, &index) in elements::<i64>(indices)?.iter().enumerate() {
        out[i * depth + position(op.name(), index, depth)?] = 1.0;
    }
    Tensor::f32(shape, out)
}
