//! Sums and tournaments along axes.

use marill_plaintext::Op;
use marill_program::Target;

use super::draft::{Id, Operand, signed_bits};
use super::{Lowering, Result};
use crate::ir::ValueId;

impl Lowering<'_> {
    /// Sum or mean over `axes`.
    pub(super) fn reduce(&mut self, x: ValueId, axes: &[usize], keepdims: bool, mean: bool) -> Result<Id> {
        let mut x = self.shares(x)?;
        let shape = self.builder.shape(x).to_vec();
        for &axis in axes {
            x = self.builder.sum(x, axis);
        }
        if mean {
            let count: usize = axes.iter().map(|&a| shape[a]).product();
            x = self.scaled(x, 1.0 / count as f64)?;
        }
        self.without_axes(x, axes, keepdims)
    }

    fn without_axes(&mut self, x: Id, axes: &[usize], keepdims: bool) -> Result<Id> {
        if keepdims {
            return Ok(x);
        }
        let shape = self.builder.shape(x).iter().enumerate().filter(|(i, _)| !axes.contains(i));
        let shape = shape.map(|(_, &d)| d).collect();
        self.builder.movement(&Op::Reshape { shape }, &[x])
    }

    /// Exact largest element over `axes`.
    pub(super) fn reduce_max(&mut self, x: ValueId, axes: &[usize], keepdims: bool) -> Result<Id> {
        let x = self.shares(x)?;
        let x = self.builder.at_frac(x, self.builder.frac(x).min(self.precision.activation_frac));
        let shape = self.builder.shape(x).to_vec();
        let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
        let perm: Vec<usize> = kept.iter().chain(axes).copied().collect();
        let rows: usize = kept.iter().map(|&a| shape[a]).product();
        let length: usize = axes.iter().map(|&a| shape[a]).product();
        if length == 0 {
            return Err(self.refuse("reduce_max", "there is no largest of no elements"));
        }
        let x = self.builder.movement(&Op::Transpose { perm }, &[x])?;
        let x = self.builder.movement(&Op::Reshape { shape: vec![rows, length] }, &[x])?;
        let largest = self.tournament(x, vec![(0..length).collect()], &mut |this, a, b| {
            let difference = this.builder.sub(a, b)?;
            let positive = this.relu(difference)?;
            this.builder.add(positive, b)
        })?;
        let with_ones = (0..shape.len()).map(|a| if axes.contains(&a) { 1 } else { shape[a] }).collect();
        let largest = self.builder.movement(&Op::Reshape { shape: with_ones }, &[largest])?;
        self.without_axes(largest, axes, keepdims)
    }

    /// Plays each row's elements off against each other, pairwise: `[b, t]` with rows given as positions along the
    /// second axis -> `[b, rows]`. `larger(a, b)` is called once per level; `a` stands before `b` in the row.
    pub(super) fn tournament(
        &mut self,
        x: Id,
        mut rows: Vec<Vec<usize>>,
        larger: &mut dyn FnMut(&mut Self, Id, Id) -> Result<Id>,
    ) -> Result<Id> {
        let mut current = x;
        while rows.iter().any(|r| r.len() > 1) {
            let (mut first, mut second, mut carried) = (Vec::new(), Vec::new(), Vec::new());
            let pairs: usize = rows.iter().map(|r| r.len() / 2).sum();
            for row in &mut rows {
                let mut next = Vec::with_capacity(row.len().div_ceil(2));
                for pair in row.chunks(2) {
                    if let &[a, b] = pair {
                        next.push(first.len());
                        first.push(a);
                        second.push(b);
                    } else {
                        next.push(pairs + carried.len());
                        carried.push(pair[0]);
                    }
                }
                *row = next;
            }
            let a = self.take(current, &first)?;
            let b = self.take(current, &second)?;
            let won = larger(self, a, b)?;
            current = if carried.is_empty() {
                won
            } else {
                let rest = self.take(current, &carried)?;
                let rest = self.builder.at_frac(rest, self.builder.frac(won));
                self.builder.movement(&Op::Concat { axis: 1 }, &[won, rest])?
            };
        }
        let order: Vec<usize> = rows.iter().map(|r| r[0]).collect();
        self.take(current, &order)
    }

    /// Positions `indices` along the second axis.
    pub(super) fn take(&mut self, x: Id, indices: &[usize]) -> Result<Id> {
        let all = self.builder.shape(x)[1];
        if indices.len() == all && indices.iter().enumerate().all(|(i, &v)| i == v) {
            return Ok(x);
        }
        let indices = self.indices(indices)?;
        self.builder.movement(&Op::Gather { axis: 1 }, &[x, indices])
    }

    /// First position of the largest element along `axis`.
    pub(super) fn arg_max(&mut self, x: ValueId, axis: usize, keepdims: bool) -> Result<Id> {
        let x = self.shares(x)?;
        let x = self.builder.at_frac(x, self.builder.frac(x).min(self.precision.output_frac));
        let shape = self.builder.shape(x).to_vec();
        let length = shape[axis];
        let mut perm: Vec<usize> = (0..shape.len()).filter(|&a| a != axis).collect();
        let rows: usize = perm.iter().map(|&a| shape[a]).product();
        perm.push(axis);
        let x = self.builder.movement(&Op::Transpose { perm }, &[x])?;
        let mut values = self.builder.movement(&Op::Reshape { shape: vec![rows, length] }, &[x])?;
        let positions = (0..rows * length).map(|i| (i % length) as i64).collect();
        let tensor = marill_plaintext::Tensor::i64([rows, length], positions);
        let tensor = self.ok(tensor)?;
        let known = self.made(&format!("positions.{rows}x{length}"), tensor);
        let known = self.builder.encode(known, 0, length as f64);
        let mut indices = self.builder.share(known);
        let index_bits = signed_bits(length as f64, 0);
        while self.builder.shape(values)[1] > 1 {
            let count = self.builder.shape(values)[1];
            let even: Vec<usize> = (0..count / 2).map(|i| 2 * i).collect();
            let odd: Vec<usize> = even.iter().map(|i| i + 1).collect();
            let (a, b) = (self.take(values, &even)?, self.take(values, &odd)?);
            let (i, j) = (self.take(indices, &even)?, self.take(indices, &odd)?);
            let difference = self.builder.sub(a, b)?;
            let (bit, opened) = self.is_positive(difference)?;
            let operand = Operand::Narrow(signed_bits(self.builder.bound(difference), self.builder.frac(a)));
            let gain = self.builder.bit_product(bit, 0, opened, operand);
            let mut won = self.builder.add(gain, b)?;
            let apart = self.builder.sub(i, j)?;
            self.builder.set_bound(apart, length as f64);
            let apart = self.builder.open(apart, Target::Both);
            let step = self.builder.bit_product(bit, 0, apart, Operand::Narrow(index_bits));
            let mut place = self.builder.add(step, j)?;
            if count % 2 == 1 {
                let (value, index) = (self.take(values, &[count - 1])?, self.take(indices, &[count - 1])?);
                won = self.builder.movement(&Op::Concat { axis: 1 }, &[won, value])?;
                place = self.builder.movement(&Op::Concat { axis: 1 }, &[place, index])?;
            }
            self.builder.set_bound(won, self.precision.hidden_bound);
            self.builder.set_bound(place, length as f64);
            (values, indices) = (won, place);
        }
        let mut result: Vec<usize> = shape.clone();
        if keepdims {
            result[axis] = 1;
        } else {
            result.remove(axis);
        }
        self.builder.movement(&Op::Reshape { shape: result }, &[indices])
    }
}
