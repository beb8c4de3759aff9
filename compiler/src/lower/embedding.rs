//! Looking rows up in a table by a public, a client-known or a shared index.

use marill_plaintext::Op;
use marill_program::{Owner as Party, Target};

use super::draft::{Id, Kind};
use super::{Lowering, Result, Value};
use crate::ir::{Owner, ValueId};
use crate::ownership::is_constant;

impl Lowering<'_> {
    /// `take(data, indices)` along `axis`.
    pub(super) fn gather(&mut self, id: ValueId, data: ValueId, indices: ValueId, axis: usize) -> Result<Id> {
        let public =
            self.graph.node(indices).facts.owner == Some(Owner::Public) && is_constant(self.graph, indices);
        match (self.value(data)?, self.value(indices)?) {
            (Value::Shared(x), Value::Plain(i)) if public => {
                self.builder.movement(&Op::Gather { axis }, &[x, i])
            }
            (Value::Shared(x), Value::Plain(i)) => self.choose_rows(id, x, i, axis),
            (Value::Plain(table), Value::Plain(i)) if axis == 0 && self.is_server_constant(table) => {
                self.look_up(id, table, i)
            }
            (Value::Plain(table), Value::Shared(i)) if axis == 0 && self.is_server_constant(table) => {
                self.look_up_shared(id, table, i)
            }
            _ => Err(self.refuse(
                "gather",
                "a shared index can only select rows (axis 0) of a constant of the server",
            )),
        }
    }

    /// Parts of a shared value at indices that one party knows: a product with one-hot rows.
    fn choose_rows(&mut self, id: ValueId, x: Id, indices: Id, axis: usize) -> Result<Id> {
        let shape = self.builder.shape(x).to_vec();
        let (depth, rank) = (shape[axis], shape.len());
        let count = self.builder.shape(indices).iter().product::<usize>();
        let is_other = |&at: &usize| at != axis;
        let first = std::iter::once(axis).chain((0..rank).filter(is_other)).collect();
        let turned = self.builder.movement(&Op::Transpose { perm: first }, &[x])?;
        let others: Vec<usize> = (0..rank).filter(is_other).map(|at| shape[at]).collect();
        let flat = Op::Reshape { shape: vec![depth, others.iter().product()] };
        let rows = self.builder.movement(&flat, &[turned])?;
        let hot = self.builder.plain(&Op::OneHot { depth }, &[indices])?;
        let hot = self.builder.plain(&Op::Reshape { shape: vec![count, depth] }, &[hot])?;
        let known = self.builder.encode(hot, 0, 1.5);
        let hot = self.builder.share(known);
        let chosen = self.masked_matmul(hot, rows)?;
        let split = Op::Reshape { shape: std::iter::once(count).chain(others.iter().copied()).collect() };
        let chosen = self.builder.movement(&split, &[chosen])?;
        // The indices' axes stand where the axis was.
        let perm = (1..=axis).chain([0]).chain(axis + 1..rank).collect();
        let chosen = self.builder.movement(&Op::Transpose { perm }, &[chosen])?;
        let shape = self.graph.shape(id).to_vec();
        self.builder.movement(&Op::Reshape { shape }, &[chosen])
    }

    /// Rows of the server's table at indices that the client knows: a one-hot product.
    fn look_up(&mut self, id: ValueId, table: Id, indices: Id) -> Result<Id> {
        let (matrix, rows) = self.as_matrix(table)?;
        let count = self.builder.shape(indices).iter().product::<usize>();
        let hot = self.builder.plain(&Op::OneHot { depth: rows }, &[indices])?;
        let flat = self.builder.plain(&Op::Reshape { shape: vec![count, rows] }, &[hot])?;
        let known = self.builder.encode(flat, 0, 1.5);
        debug_assert!(matches!(self.builder.get(known).kind, Kind::Known { owner: Party::Client }));
        let selected = self.select_rows(known, matrix, self.precision.hidden_frac)?;
        let shape = self.graph.shape(id).to_vec();
        self.builder.movement(&Op::Reshape { shape }, &[selected])
    }

    /// Rows at shared indices: the index is opened under a mask in a ring just large enough for it.
    fn look_up_shared(&mut self, id: ValueId, table: Id, indices: Id) -> Result<Id> {
        let (matrix, rows) = self.as_matrix(table)?;
        let count = self.builder.shape(indices).iter().product::<usize>();
        let flat = self.builder.movement(&Op::Reshape { shape: vec![count] }, &[indices])?;
        let bits = usize::BITS - (rows - 1).leading_zeros();
        // A ring of its own: an opening shared with other users could be wider.
        let own = self.builder.scale(flat, 1, 0);
        let masked = self.builder.open(own, Target::Both);
        self.builder.require_width(masked, bits.max(1));
        let hot = self.builder.one_hot(masked, rows);
        let selected = self.select_rows(hot, matrix, self.precision.hidden_frac)?;
        let shape = self.graph.shape(id).to_vec();
        self.builder.movement(&Op::Reshape { shape }, &[selected])
    }

    /// A table as a matrix of rows, and how many there are.
    fn as_matrix(&mut self, table: Id) -> Result<(Id, usize)> {
        let shape = self.builder.shape(table).to_vec();
        let rows = shape.first().copied().unwrap_or(1);
        if shape.len() == 2 {
            return Ok((table, rows));
        }
        let flat = Op::Reshape { shape: vec![rows, shape[1..].iter().product()] };
        Ok((self.builder.plain(&flat, &[table])?, rows))
    }
}
