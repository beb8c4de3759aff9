//! Matrix products of masks: their shapes, and how gates make them, which is cheapest for a few elements.

use super::gates::{Engine, Side};
use super::sums::{Lanes, Sums, To};
use crate::ring::Ring;
use crate::schema::Instruction;
use crate::validate::ValidProgram;
use crate::value::Form;

/// One product of a batch: rows, inner length and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub n: usize,
    pub k: usize,
    pub m: usize,
}

/// Both operands' numbers, one matrix after the other for every product of the batch, and the products' shape.
pub(super) struct Batch {
    pub shape: Shape,
    pub count: usize,
}

pub(super) fn batch(program: &ValidProgram, at: u32, a: u32, b: u32) -> Batch {
    let (left, right) = (&program.ty(a).shape, &program.ty(b).shape);
    let k = left.last().copied().unwrap_or(1);
    let m = if right.len() < 2 { 1 } else { right[right.len() - 1] };
    let total = program.ty(at).len();
    if right.len() <= 2 {
        return Batch { shape: Shape { n: total / m.max(1), k, m }, count: 1 };
    }
    let n = if left.len() < 2 { 1 } else { left[left.len() - 2] };
    Batch { shape: Shape { n, k, m }, count: total / (n * m).max(1) }
}

/// Repeats the matrices of an operand of product `at` for the whole batch.
pub fn operand(program: &ValidProgram, at: u32, value: u32, numbers: &[u64]) -> Vec<u64> {
    match program.instruction(at as usize) {
        Instruction::MatMul(p) => repeated(program, at, value, numbers, &batch(program, at, p.a, p.b)),
        Instruction::SquareSum(_) => numbers.to_vec(),
        _ => Vec::new(),
    }
}

fn repeated(program: &ValidProgram, at: u32, value: u32, numbers: &[u64], batch: &Batch) -> Vec<u64> {
    let shape = &program.ty(value).shape;
    if numbers.is_empty() || batch.count == 1 || shape.len() < 2 {
        return numbers.to_vec();
    }
    let mut out = program.ty(at).shape.clone();
    let rank = out.len();
    out[rank - 2..].copy_from_slice(&shape[shape.len() - 2..]);
    Ring::new(shape.clone(), numbers.to_vec()).broadcast(&out).data
}

/// Adds the product of both operands' masks, or of mask and weight, to a sum.
pub(super) fn product<E: Engine>(
    program: &ValidProgram,
    at: u32,
    parts: &[(u32, Vec<u64>); 2],
    to: To,
    sums: &mut Sums<'_, E>,
) -> Result<(), E::Error> {
    let Instruction::MatMul(p) = program.instruction(at as usize) else { return Ok(()) };
    let batch = batch(program, at, p.a, p.b);
    let [left, right] = parts.each_ref().map(|(v, numbers)| repeated(program, at, *v, numbers, &batch));
    let Shape { n, k, m } = batch.shape;
    if batch.count * n * k * m == 0 {
        return Ok(());
    }
    let lanes = Lanes { count: batch.count * n * k, per: m };
    let rows = |numbers: &[u64]| -> Vec<u64> {
        if numbers.is_empty() {
            return Vec::new();
        }
        let matrix = |b: usize| &numbers[b * k * m..][..k * m];
        (0..batch.count * n).flat_map(|row| matrix(row / n.max(1)).iter().copied()).collect()
    };
    let weighted = matches!(program.ty(p.b).form, Form::Weight { .. });
    if !weighted && !left.is_empty() {
        let mut shape = program.ty(at).shape.clone();
        let (a, b) = (&program.ty(p.a).shape, &program.ty(p.b).shape);
        let (a, b) = (Ring::new(a.clone(), parts[0].1.clone()), Ring::new(b.clone(), parts[1].1.clone()));
        shape.truncate(program.ty(at).shape.len());
        sums.add(to.sum, 1, &a.matmul(&b, &shape, to.width).data);
    }
    let choosers: &[Side] = if weighted { &[Side::Client] } else { &[Side::Client, Side::Server] };
    for &chooser in choosers {
        let own = if sums.side() == chooser { left.clone() } else { rows(&right) };
        sums.private_terms(to, lanes, k, chooser, to.width, &own)?;
    }
    Ok(())
}
