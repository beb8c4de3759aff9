//! Weights whose elements a base model has, whatever the exporter called them and however it laid them out: the same
//! tensor, its transpose, a slice of one along an axis, or several whole ones joined along an axis.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Status, elements};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, ValueId};
use marill_plaintext::DType;

/// Elements by which a row is looked up before it is compared.
const KEY: usize = 8;
/// Rows with one key that are tried, at most.
const MAX_CANDIDATES: usize = 64;

type Key = Vec<u32>;

/// A tensor as a matrix: the last axis is a row, a vector is one column.
struct Matrix {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn load(graph: &Graph, id: ValueId) -> Result<Matrix, Diagnostic> {
        let (rows, columns) = sides(graph.shape(id));
        Ok(Matrix { data: elements(graph, id)?, rows, columns })
    }

    /// Bits of a line's element: of a row, or of a column where `by_columns`.
    fn bits(&self, by_columns: bool, line: usize, at: usize) -> u32 {
        let (row, column) = if by_columns { (at, line) } else { (line, at) };
        self.data[row * self.columns + column].to_bits()
    }

    /// How many lines there are, and how long they are.
    fn lines(&self, by_columns: bool) -> (usize, usize) {
        if by_columns { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    fn key(&self, by_columns: bool, line: usize) -> Key {
        let (_, length) = self.lines(by_columns);
        // Spread over the line: the beginning of a padded row tells nothing.
        let count = KEY.min(length);
        (0..count).map(|i| self.bits(by_columns, line, i * length / count)).collect()
    }
}

/// Rows and columns of a tensor as a matrix. A vector is a column of single elements, which can be a slice or be
/// joined like the rows of a matrix.
fn sides(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [length] => (*length, 1),
        [rows @ .., columns] => (rows.iter().product(), *columns),
    }
}

/// A line of a tensor of the base model.
#[derive(Clone, Copy)]
struct Place {
    tensor: usize,
    by_columns: bool,
    line: usize,
}

/// The base model's tensors, indexed by their lines. Elements are read when they are compared.
struct Index<'g> {
    base: &'g Graph,
    tensors: Vec<ValueId>,
    lines: BTreeMap<(usize, Key), Vec<Place>>,
    vectors: Vec<(usize, Vec<f32>)>,
    /// The tensor read last.
    last: RefCell<Option<(usize, Rc<Matrix>)>>,
}

impl<'g> Index<'g> {
    /// Of all tensors that could hold a part of a line of one of the `lengths`.
    fn new(base: &'g Graph, lengths: &[usize]) -> Result<Index<'g>, Diagnostic> {
        let (tensors, lines) = (Vec::new(), BTreeMap::new());
        let mut index = Index { base, tensors, lines, vectors: Vec::new(), last: RefCell::default() };
        for id in base.topological() {
            let is_weight = matches!(base.node(id).kind, NodeKind::Constant(_))
                && base.ty(id).dtype == DType::F32
                && base.ty(id).len() > 1;
            if !is_weight {
                continue;
            }
            let tensor = index.tensors.len();
            index.tensors.push(id);
            let (rows, columns) = sides(base.shape(id));
            // Single elements are found anywhere, so a vector is compared as a whole.
            if base.shape(id).len() == 1 {
                index.vectors.push((tensor, elements(base, id)?));
            } else if [rows, columns].iter().any(|length| *length > 1 && lengths.contains(length)) {
                let matrix = index.matrix(tensor)?;
                for by_columns in [false, true] {
                    index.add_lines(tensor, &matrix, by_columns, lengths);
                }
            }
        }
        Ok(index)
    }

    fn add_lines(&mut self, tensor: usize, matrix: &Matrix, by_columns: bool, lengths: &[usize]) {
        let (count, length) = matrix.lines(by_columns);
        if length == 1 || !lengths.contains(&length) {
            return;
        }
        for line in 0..count {
            let places = self.lines.entry((length, matrix.key(by_columns, line))).or_default();
            if places.len() < MAX_CANDIDATES {
                places.push(Place { tensor, by_columns, line });
            }
        }
    }

    fn matrix(&self, tensor: usize) -> Result<Rc<Matrix>, Diagnostic> {
        if let Some((last, matrix)) = &*self.last.borrow()
            && *last == tensor
        {
            return Ok(matrix.clone());
        }
        let matrix = Rc::new(Matrix::load(self.base, self.tensors[tensor])?);
        *self.last.borrow_mut() = Some((tensor, matrix.clone()));
        Ok(matrix)
    }

    fn name(&self, tensor: usize) -> String {
        self.base.node(self.tensors[tensor]).name.clone()
    }

    /// The tensors that all lines of `wanted` come from: one of which it is a run of neighbouring lines, or several
    /// whole ones in a row.
    fn cover(&self, wanted: &Matrix, by_columns: bool) -> Result<Option<Vec<usize>>, Diagnostic> {
        let (count, length) = wanted.lines(by_columns);
        let mut parts = Vec::new();
        let mut line = 0;
        while line < count && length > 1 {
            let none = Vec::new();
            let candidates = self.lines.get(&(length, wanted.key(by_columns, line))).unwrap_or(&none);
            let mut longest: Option<(usize, usize)> = None;
            for place in candidates {
                let (rows, columns) = sides(self.base.shape(self.tensors[place.tensor]));
                let available = if place.by_columns { columns } else { rows };
                let run = (available - place.line).min(count - line);
                let is_slice = line == 0 && run == count;
                let is_whole = place.line == 0 && run == available;
                if (is_slice || is_whole)
                    && longest.is_none_or(|(_, most)| run > most)
                    && equal(wanted, by_columns, line, &*self.matrix(place.tensor)?, *place, run)
                {
                    longest = Some((place.tensor, run));
                }
            }
            let Some((tensor, run)) = longest else { return Ok(None) };
            parts.push(tensor);
            line += run;
        }
        Ok((!parts.is_empty()).then_some(parts))
    }

    /// As [`Self::cover`] for vectors, element by element.
    fn cover_vector(&self, wanted: &[f32]) -> Option<Vec<usize>> {
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
        let mut parts = Vec::new();
        let mut rest = wanted;
        while !rest.is_empty() {
            let fits = |v: &&(usize, Vec<f32>)| v.1.len() <= rest.len() && same(&v.1, &rest[..v.1.len()]);
            let found = self.vectors.iter().filter(fits).rev().max_by_key(|v| v.1.len());
            let Some((tensor, data)) = found else { break };
            parts.push(*tensor);
            rest = &rest[data.len()..];
        }
        if rest.is_empty() {
            return Some(parts);
        }
        let is_slice = |v: &&(usize, Vec<f32>)| v.1.windows(wanted.len()).any(|window| same(window, wanted));
        let found = self.vectors.iter().find(is_slice).filter(|_| wanted.len() >= KEY);
        found.map(|(tensor, _)| vec![*tensor])
    }
}

/// Whether `run` lines of `wanted` from `line` on are those of `found` from `place` on.
fn equal(wanted: &Matrix, by_columns: bool, line: usize, found: &Matrix, place: Place, run: usize) -> bool {
    let (_, length) = wanted.lines(by_columns);
    if !by_columns && !place.by_columns {
        let of = |line: usize| line * length..(line + run) * length;
        let (a, b) = (&wanted.data[of(line)], &found.data[of(place.line)]);
        return a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    }
    let same = |i: usize, at: usize| {
        wanted.bits(by_columns, line + i, at) == found.bits(place.by_columns, place.line + i, at)
    };
    (0..run).all(|i| (0..length).all(|at| same(i, at)))
}

/// Of `candidates`, those whose elements are all in the base model.
pub(super) fn published(
    graph: &Graph,
    candidates: &[ValueId],
    base: &Graph,
) -> Result<BTreeMap<ValueId, Status>, Diagnostic> {
    let mut lengths: Vec<usize> = Vec::new();
    for &id in candidates {
        let (rows, columns) = sides(graph.shape(id));
        lengths.extend([rows, columns]);
    }
    lengths.sort_unstable();
    lengths.dedup();
    let index = Index::new(base, &lengths)?;
    let mut found = BTreeMap::new();
    for &id in candidates {
        let wanted = Matrix::load(graph, id)?;
        let parts = match graph.shape(id) {
            [_] => index.cover_vector(&wanted.data),
            _ => match index.cover(&wanted, false)? {
                None => index.cover(&wanted, true)?,
                parts => parts,
            },
        };
        if let Some(parts) = parts {
            let in_base = parts.into_iter().map(|part| index.name(part)).collect();
            found.insert(id, Status::Published { in_base });
        }
    }
    Ok(found)
}
