//! Whether public constants between a value and an output lose nothing of it, so that revealing the value tells no
//! more than the output does.
//!
//! A product `x W` with W `[d, n]` is injective in x if W has rank d. That is shown by d or more columns S of W: their
//! Gram matrix `S S^T` has a smallest eigenvalue above zero, and the largest singular value of W over the root of that
//! eigenvalue bounds W's condition number from above. A factor for each element is injective if none is near zero.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use marill_plaintext::{DType, Op, Tensor};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, Ix2, s};
use serde::Serialize;

use crate::bundle::constant_value;
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Graph, NodeKind, Owner, ValueId};

/// Largest condition number that is taken for injective: f32 tells such directions from noise by a wide margin.
pub const MAX_CONDITION: f64 = 1e5;
/// Columns that are looked at for each row, until that is enough; at last all.
const COLUMNS_PER_ROW: [f64; 2] = [1.25, 2.0];
/// More rows are not looked at: the certificate would take minutes.
const MAX_ROWS: usize = 8192;
/// Rows and columns of a block.
const BLOCK: usize = 128;
/// Columns that are held in f64 at a time.
const PART: usize = 1024;
/// Steps of inverse iteration, and how far below its estimate the eigenvalue may lie.
const STEPS: usize = 30;
const SAFETY: f64 = 0.5;

/// What was shown of a constant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The constant.
    pub weight: String,
    /// `[d, n]` of a matrix, `[d]` of factors.
    pub shape: Vec<usize>,
    /// Rank that was shown; below `d` where it was not.
    pub rank: usize,
    /// Upper bound of the condition number, where the rank was shown.
    pub condition: Option<f64>,
    /// Whether a product with it may be moved behind a reveal.
    pub is_injective: bool,
}

/// By constant of the graph.
pub type Certificates = BTreeMap<ValueId, Certificate>;

/// Certifies the public constants that only injective operations separate from an output.
///
/// # Errors
/// A constant that cannot be read.
pub fn certify(graph: &Graph) -> Result<Certificates, Diagnostic> {
    let mut certificates = Certificates::new();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<ValueId> = graph.outputs.iter().map(|output| output.value).collect();
    while let Some(id) = pending.pop() {
        if !seen.insert(id) {
            continue;
        }
        let args = graph.args(id);
        if let (Some(Op::Reveal { .. }), &[x]) = (graph.op(id), args.as_slice()) {
            pending.push(x);
            continue;
        }
        if graph.node(id).facts.owner != Some(Owner::Shared) {
            continue;
        }
        match (graph.op(id), args.as_slice()) {
            (Some(Op::MatMul), &[x, w]) if is_public_constant(graph, w) => {
                if let &[rows, columns] = graph.shape(w) {
                    let certificate = matrix(graph, w, rows, columns)?;
                    let is_injective = certificate.is_injective;
                    certificates.insert(w, certificate);
                    pending.extend(is_injective.then_some(x));
                }
            }
            (Some(Op::Add | Op::Sub | Op::Mul), &[a, b]) => {
                for (x, c) in [(a, b), (b, a)] {
                    if graph.op(id) == Some(&Op::Mul) && is_public_constant(graph, c) {
                        certificates.insert(c, factors(graph, c)?);
                    }
                    pending.extend(is_public_constant(graph, c).then_some(x));
                }
            }
            // Its gain becomes a factor; what is before a norm is not reached.
            (Some(Op::LayerNorm { .. } | Op::RmsNorm { .. }), &[_, gain, ..])
                if is_public_constant(graph, gain) =>
            {
                certificates.insert(gain, factors(graph, gain)?);
            }
            (Some(Op::Neg | Op::Reshape { .. } | Op::Transpose { .. }), &[x]) => pending.push(x),
            _ => {}
        }
    }
    Ok(certificates)
}

fn is_public_constant(graph: &Graph, id: ValueId) -> bool {
    let node = graph.node(id);
    matches!(node.kind, NodeKind::Constant(_))
        && node.facts.owner == Some(Owner::Public)
        && node.facts.ty.dtype == DType::F32
        && graph.constant(id).is_some_and(|constant| constant.is_present())
}

fn elements(graph: &Graph, id: ValueId) -> Result<Vec<f32>, Diagnostic> {
    let tensor = constant_value(graph, id)?;
    tensor.to_f32_vec().map_err(|error| Diagnostic::new(graph.node(id).name.clone(), Problem::Op(error)))
}

fn factors(graph: &Graph, id: ValueId) -> Result<Certificate, Diagnostic> {
    let magnitudes: Vec<f64> = elements(graph, id)?.iter().map(|v| f64::from(v.abs())).collect();
    let most = magnitudes.iter().fold(0.0, |most: f64, &v| if v.is_nan() { v } else { most.max(v) });
    let rank = magnitudes.iter().filter(|&&v| v * MAX_CONDITION >= most && v > 0.0).count();
    let is_injective = rank == magnitudes.len() && most.is_finite();
    let least = magnitudes.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Certificate {
        weight: graph.node(id).name.clone(),
        shape: graph.shape(id).to_vec(),
        rank,
        condition: is_injective.then_some(most / least),
        is_injective,
    })
}

fn matrix(graph: &Graph, id: ValueId, rows: usize, columns: usize) -> Result<Certificate, Diagnostic> {
    let mut certificate = Certificate {
        weight: graph.node(id).name.clone(),
        shape: vec![rows, columns],
        rank: 0,
        condition: None,
        is_injective: false,
    };
    if columns < rows || rows == 0 || rows > MAX_ROWS {
        return Ok(certificate);
    }
    let Tensor::F32(data) = constant_value(graph, id)? else { return Ok(certificate) };
    let Ok(data) = data.view().into_dimensionality::<Ix2>() else { return Ok(certificate) };
    let largest = data.fold(0.0, |sum, &v| sum + f64::from(v) * f64::from(v)).sqrt();
    let parts = COLUMNS_PER_ROW.map(|share| columns.min((share * rows as f64) as usize));
    for count in parts.into_iter().chain([columns]) {
        let Some(least) = least_singular_value(data, count) else { continue };
        let condition = largest / least;
        certificate.rank = rows;
        certificate.condition = Some(condition);
        certificate.is_injective = condition <= MAX_CONDITION;
        if certificate.is_injective || count == columns {
            break;
        }
    }
    Ok(certificate)
}

/// A lower bound of the least singular value of `count` evenly spread columns; `None` where it is not above zero.
fn least_singular_value(data: ArrayView2<'_, f32>, count: usize) -> Option<f64> {
    let rows = data.nrows();
    let factor = cholesky(gram(data, count))?;
    // Inverse iteration from a vector that no structured matrix is orthogonal to.
    let mut v: Vec<f64> = (0..rows).map(|i| 1.0 + ((i * 7919) % 101) as f64 / 101.0).collect();
    let mut eigenvalue = f64::INFINITY;
    for _ in 0..STEPS {
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm);
        solve(&factor, &mut v);
        eigenvalue = 1.0 / v.iter().map(|x| x * x).sum::<f64>().sqrt();
    }
    let bound = (SAFETY * eigenvalue).sqrt();
    (bound.is_finite() && bound > 0.0).then_some(bound)
}

/// The lower blocks of `a a^T`, for `count` evenly spread columns `a`.
fn gram(data: ArrayView2<'_, f32>, count: usize) -> Array2<f64> {
    let (n, columns) = data.dim();
    let mut gram = Array2::zeros((n, n));
    for start in (0..count).step_by(PART) {
        let part = PART.min(count - start);
        let a =
            Array2::from_shape_fn((n, part), |(i, j)| f64::from(data[[i, (start + j) * columns / count]]));
        by_block_rows(gram.view_mut(), &|first, mut rows| {
            let end = first + rows.nrows();
            let (left, right) = (a.slice(s![first..end, ..]), a.slice(s![..end, ..]));
            general_mat_mul(1.0, &left, &right.t(), 1.0, &mut rows.slice_mut(s![.., ..end]));
        });
    }
    gram
}

/// Calls `work` with the first row of every block of rows, and the block; on all processors.
fn by_block_rows(a: ArrayViewMut2<'_, f64>, work: &(dyn Fn(usize, ArrayViewMut2<'_, f64>) + Sync)) {
    let mut blocks: Vec<(usize, ArrayViewMut2<'_, f64>)> = Vec::new();
    let (mut start, mut rest) = (0, a);
    while rest.nrows() > 0 {
        let count = rest.nrows().min(BLOCK);
        let (block, others) = rest.split_at(Axis(0), count);
        blocks.push((start, block));
        start += count;
        rest = others;
    }
    // Later blocks of a triangle are longer: they are taken first.
    let queue = Mutex::new(blocks);
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((start, block)) = take() {
                    work(start, block);
                }
            });
        }
    });
}

/// `L` with `L L^T = a`, of the lower triangle of `a`, block by block; `None` if `a` is not positive definite in f64.
fn cholesky(mut a: Array2<f64>) -> Option<Array2<f64>> {
    let n = a.nrows();
    let scale = a.diag().iter().copied().fold(0.0, f64::max);
    let floor = scale * f64::EPSILON * n as f64;
    for start in (0..n).step_by(BLOCK) {
        let end = n.min(start + BLOCK);
        for j in start..end {
            let row: Vec<f64> = a.slice(s![j, start..j]).to_vec();
            let pivot = a[[j, j]] - row.iter().map(|v| v * v).sum::<f64>();
            if pivot.is_nan() || pivot <= floor {
                return None;
            }
            let root = pivot.sqrt();
            a[[j, j]] = root;
            for i in j + 1..end {
                let done: f64 = a.slice(s![i, start..j]).iter().zip(&row).map(|(a, b)| a * b).sum();
                a[[i, j]] = (a[[i, j]] - done) / root;
            }
        }
        let block = a.slice(s![start..end, start..end]).to_owned();
        // Below the block: its columns of L, then what they take from the columns to their right.
        by_block_rows(a.slice_mut(s![end.., start..end]), &|_, mut rows| {
            for mut row in rows.rows_mut() {
                for j in 0..block.nrows() {
                    let done: f64 = (0..j).map(|i| row[i] * block[[j, i]]).sum();
                    row[j] = (row[j] - done) / block[[j, j]];
                }
            }
        });
        let panel = a.slice(s![end.., start..end]).to_owned();
        by_block_rows(a.slice_mut(s![end.., end..]), &|first, mut rows| {
            let last = first + rows.nrows();
            let (left, right) = (panel.slice(s![first..last, ..]), panel.slice(s![..last, ..]));
            general_mat_mul(-1.0, &left, &right.t(), 1.0, &mut rows.slice_mut(s![.., ..last]));
        });
    }
    Some(a)
}

/// Solves `L L^T x = v` in place.
fn solve(l: &Array2<f64>, v: &mut [f64]) {
    let n = v.len();
    for i in 0..n {
        let done: f64 = l.row(i).iter().take(i).zip(v.iter()).map(|(a, b)| a * b).sum();
        v[i] = (v[i] - done) / l[[i, i]];
    }
    for i in (0..n).rev() {
        v[i] /= l[[i, i]];
        let x = v[i];
        let row = l.row(i);
        v[..i].iter_mut().zip(row.iter()).for_each(|(v, a)| *v -= a * x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_singular_value_is_bounded_from_below() {
        // Orthogonal rows of lengths 3, 2 and 0.5, in six columns.
        let mut data = vec![0.0f32; 18];
        for (row, length) in [(0usize, 3.0f32), (1, 2.0), (2, 0.5)] {
            data[row * 6 + 2 * row] = length / 2f32.sqrt();
            data[row * 6 + 2 * row + 1] = length / 2f32.sqrt();
        }
        let of = |data: &[f32], columns| {
            let data = ArrayView2::from_shape((data.len() / columns, columns), data).unwrap();
            least_singular_value(data, columns)
        };
        let bound = of(&data, 6).unwrap();
        assert!(bound <= 0.5 && bound > 0.3, "{bound}");
        // A row that is the sum of the others.
        let sum: Vec<f32> = (0..6).map(|i| data[i] + data[6 + i]).collect();
        data[12..].copy_from_slice(&sum);
        assert_eq!(of(&data, 6), None);
        assert_eq!(of(&[f32::NAN; 6], 3), None);
    }

    /// More rows than a block has: the factor times its transpose is the matrix.
    #[test]
    fn blocks_factor_as_a_whole() {
        let (n, m) = (2 * BLOCK + 37, PART + 5);
        let a = Array2::from_shape_fn((n, m), |(i, j)| ((i * 31 + j * 17 + i * j) % 23) as f32 / 23.0 - 0.5);
        let a = a + Array2::from_shape_fn((n, m), |(i, j)| if i == j { 4.0 } else { 0.0 });
        let mut factor = cholesky(gram(a.view(), m)).unwrap();
        let a = a.mapv(f64::from);
        for i in 0..n {
            factor.slice_mut(s![i, i + 1..]).fill(0.0);
        }
        let difference = factor.dot(&factor.t()) - a.dot(&a.t());
        assert!(difference.iter().all(|v| v.abs() < 1e-9));
    }
}
