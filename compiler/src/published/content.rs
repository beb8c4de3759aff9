//! Weights whose elements a base model has, whatever the exporter called them and however it laid them out: the same
//! tensor, its transpose, a slice of one along an axis, or several whole ones joined along an axis.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Status, elements};
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Constant, Graph, NodeKind, ValueId};
use marill_plaintext::DType;

/// Elements by which a row is looked up before it is compared.
const KEY: usize = 8;
/// Rows with one key that are tried, at most.
const MAX_CANDIDATES: usize = 64;
/// Lines that are looked at together.
const LINES: usize = 4096;

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
        self.data[place([self.rows, self.columns], by_columns, line, at)].to_bits()
    }

    /// How many lines there are, and how long they are.
    fn lines(&self, by_columns: bool) -> (usize, usize) {
        lines([self.rows, self.columns], by_columns)
    }

    fn key(&self, by_columns: bool, line: usize) -> Key {
        let (_, length) = self.lines(by_columns);
        key_places(length).map(|at| self.bits(by_columns, line, at)).collect()
    }
}

/// How many rows there are, or columns where `by_columns`, and how long they are.
fn lines([rows, columns]: [usize; 2], by_columns: bool) -> (usize, usize) {
    if by_columns { (columns, rows) } else { (rows, columns) }
}

/// Where an element of a line is in row-major order.
fn place([_, columns]: [usize; 2], by_columns: bool, line: usize, at: usize) -> usize {
    let (row, column) = if by_columns { (at, line) } else { (line, at) };
    row * columns + column
}

/// Elements of a line that its key has, spread over it: the beginning of a padded row tells nothing.
fn key_places(length: usize) -> impl Iterator<Item = usize> {
    let count = KEY.min(length);
    (0..count).map(move |i| i * length / count)
}

/// The keys of `lines` of a constant, of which nothing else is read.
fn keys(
    graph: &Graph,
    id: ValueId,
    by_columns: bool,
    chosen: std::ops::Range<usize>,
) -> Result<Vec<Key>, Diagnostic> {
    let Some(constant) = graph.constant(id) else { return Ok(Vec::new()) };
    let (rows, columns) = sides(graph.shape(id));
    let (_, length) = lines([rows, columns], by_columns);
    let of_line = |line| key_places(length).map(move |at| place([rows, columns], by_columns, line, at));
    let places: Vec<usize> = chosen.flat_map(of_line).collect();
    let at = |error| Diagnostic::new(graph.node(id).name.clone(), Problem::from(error));
    let elements = constant.elements_at(&places).map_err(at)?;
    Ok(elements.chunks(KEY.min(length)).map(|key| key.iter().map(|v| v.to_bits()).collect()).collect())
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

/// The base model's tensors, and where in them lines are that a weight could begin with. Elements are read when they are
/// compared.
struct Index<'g> {
    base: &'g Graph,
    tensors: Vec<ValueId>,
    lines: BTreeMap<(usize, Key), Vec<Place>>,
    vectors: Vec<(usize, Vec<f32>)>,
    /// The tensor read last.
    last: RefCell<Option<(usize, Rc<Matrix>)>>,
}

impl<'g> Index<'g> {
    /// Of the lines with a key that is `wanted`, which slices begin with, and of every tensor's first, where the next
    /// of several joined ones may begin.
    fn new(base: &'g Graph, wanted: &BTreeSet<(usize, Key)>) -> Result<Index<'g>, Diagnostic> {
        let lengths: BTreeSet<usize> = wanted.iter().map(|(length, _)| *length).collect();
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
            // Single elements are found anywhere, so a vector is compared as a whole.
            if base.shape(id).len() == 1 {
                index.vectors.push((tensor, elements(base, id)?));
                continue;
            }
            for by_columns in [false, true] {
                index.add_lines(tensor, by_columns, &lengths, wanted)?;
            }
        }
        Ok(index)
    }

    fn add_lines(
        &mut self,
        tensor: usize,
        by_columns: bool,
        lengths: &BTreeSet<usize>,
        wanted: &BTreeSet<(usize, Key)>,
    ) -> Result<(), Diagnostic> {
        let id = self.tensors[tensor];
        let (rows, columns) = sides(self.base.shape(id));
        let (count, length) = lines([rows, columns], by_columns);
        if length == 1 || !lengths.contains(&length) {
            return Ok(());
        }
        for start in (0..count).step_by(LINES) {
            let chosen = start..count.min(start + LINES);
            for (line, key) in chosen.clone().zip(keys(self.base, id, by_columns, chosen)?) {
                let key = (length, key);
                if line > 0 && !wanted.contains(&key) {
                    continue;
                }
                let places = self.lines.entry(key).or_default();
                if places.len() < MAX_CANDIDATES {
                    places.push(Place { tensor, by_columns, line });
                }
            }
        }
        Ok(())
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

    /// Whether a line here looks like the first row or column of a weight.
    fn has_start(&self, graph: &Graph, id: ValueId) -> Result<bool, Diagnostic> {
        if graph.ty(id).is_empty() {
            return Ok(false);
        }
        let (rows, columns) = sides(graph.shape(id));
        for by_columns in [false, true] {
            let (_, length) = lines([rows, columns], by_columns);
            let mut starts = keys(graph, id, by_columns, 0..1)?.into_iter();
            if starts.any(|key| self.lines.contains_key(&(length, key))) {
                return Ok(true);
            }
        }
        Ok(false)
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
    let mut found = namesakes(graph, candidates, base);
    let rest: Vec<ValueId> = candidates.iter().copied().filter(|id| !found.contains_key(id)).collect();
    if rest.is_empty() {
        return Ok(found);
    }
    let mut wanted = BTreeSet::new();
    for &id in rest.iter().filter(|&&id| graph.shape(id).len() != 1 && !graph.ty(id).is_empty()) {
        let (rows, columns) = sides(graph.shape(id));
        for by_columns in [false, true] {
            let (_, length) = lines([rows, columns], by_columns);
            wanted.extend(keys(graph, id, by_columns, 0..1)?.into_iter().map(|key| (length, key)));
        }
    }
    let index = Index::new(base, &wanted)?;
    for &id in &rest {
        let parts = match graph.shape(id) {
            [_] => index.cover_vector(&elements(graph, id)?),
            _ if !index.has_start(graph, id)? => None,
            _ => {
                let wanted = Matrix::load(graph, id)?;
                match index.cover(&wanted, false)? {
                    None => index.cover(&wanted, true)?,
                    parts => parts,
                }
            }
        };
        if let Some(parts) = parts {
            let in_base = parts.into_iter().map(|part| index.name(part)).collect();
            found.insert(id, Status::Published { in_base });
        }
    }
    Ok(found)
}

/// The candidates that the base model has under the same name, byte for byte: nearly all, as a rule, and nothing is
/// kept of them.
fn namesakes(graph: &Graph, candidates: &[ValueId], base: &Graph) -> BTreeMap<ValueId, Status> {
    let mut named: BTreeMap<&str, Vec<&Constant>> = BTreeMap::new();
    for node in base.dag.node_weights() {
        if let NodeKind::Constant(constant) = &node.kind {
            named.entry(&node.name).or_default().push(constant);
        }
    }
    // Single elements are found anywhere.
    let is_there = |&&id: &&ValueId| {
        let namesakes = named.get(graph.node(id).name.as_str());
        let constant = graph.constant(id);
        graph.ty(id).len() > 1
            && namesakes
                .zip(constant)
                .is_some_and(|(others, this)| others.iter().any(|o| this.has_bytes_of(o)))
    };
    let status = |id: ValueId| Status::Published { in_base: vec![graph.node(id).name.clone()] };
    candidates.iter().filter(is_there).map(|&id| (id, status(id))).collect()
}
