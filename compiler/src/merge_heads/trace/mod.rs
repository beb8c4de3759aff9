//! Follows heads through a model, from the reshapes that split them to the one that joins them, and notes all that
//! depends on how many there are and how wide they are.

mod columns;

use std::collections::{BTreeMap, BTreeSet};

use super::axes::{self, Axis, Columns, Factor};
use super::block::{Block, Found};
use super::index::{self, Index};
use super::weights::{self, ScaleSite};
use crate::diagnostic::Diagnostic;

const OPERATORS: &str = "Add, Cast, Concat, Div, Dropout, Expand, Identity, IsNaN, MatMul, Max, Min, Mul, Neg, \
                         Reshape, Slice, Softmax, Split, Squeeze, Sub, Transpose, Unsqueeze and Where between the \
                         split into heads and their joining";
const SHARED: &str = "what is added to or multiplied with all heads alike";

/// How far a value has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Value,
    Key,
    Query,
    Scores,
    Weights,
    Context,
}

/// A value by head.
#[derive(Clone, Debug)]
struct Tag {
    stage: Stage,
    axes: Vec<Axis>,
    /// What it has been multiplied by.
    scale: f64,
}

struct Trace<'i, 'o> {
    index: &'i Index<'o>,
    block: Block,
    factor: usize,
    tags: BTreeMap<&'o str, Tag>,
    /// Operands as wide as a head, once every cut is known.
    wide: Vec<(usize, usize, Vec<Columns>)>,
    /// Pairs of columns that meet.
    met: Vec<(usize, Vec<Columns>, Vec<Columns>)>,
    joined: Option<(&'o str, usize)>,
}

/// Completes `block`, which `found` begins.
pub fn trace(index: &Index, found: &Found, block: Block, factor: usize) -> Result<Block, Diagnostic> {
    let mut trace = Trace {
        index,
        block,
        factor,
        tags: BTreeMap::new(),
        wide: Vec::new(),
        met: Vec::new(),
        joined: None,
    };
    let mut passed = BTreeSet::new();
    for (role, (split, stage)) in
        found.splits.into_iter().zip([Stage::Query, Stage::Key, Stage::Value]).enumerate()
    {
        let node = index.node(split);
        let mut columns = weights::Columns::new(index);
        columns.walk(node.input(0).unwrap_or_default(), 0, split)?;
        passed.extend(columns.passed.iter().copied().chain([split]));
        let scale = columns.scales.iter().map(|scale| scale.value).product();
        trace.block.sites[role] = columns.sites;
        if stage != Stage::Value {
            trace.block.scales.extend(columns.scales.into_iter().filter(|scale| scale.value != 1.0));
        }
        trace.split(split, stage, scale)?;
    }
    trace.only_heads(&passed)?;
    for at in *found.splits.iter().min().unwrap_or(&0)..index.outline.nodes.len() {
        if !found.splits.contains(&at) {
            trace.node(at)?;
        }
    }
    trace.finish()
}

impl<'o> Trace<'_, 'o> {
    fn refuse(&self, at: usize, found: impl Into<String>) -> Diagnostic {
        self.index.refuse(at, found, OPERATORS)
    }

    fn split(&mut self, at: usize, stage: Stage, scale: f64) -> Result<(), Diagnostic> {
        let output = self.index.node(at).outputs[0].as_str();
        let shape = self.index.shape(output);
        let (heads, width) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        let mut axes: Vec<Axis> =
            shape[..shape.len() - 2].iter().map(|&length| axes::plain(length)).collect();
        axes.push(vec![Factor::Heads(heads)]);
        axes.push(vec![Factor::Width(vec![(0, width)])]);
        self.define(at, output, Tag { stage, axes, scale });
        self.told(at, 1, output);
        Ok(())
    }

    /// That nothing else uses what makes the heads.
    fn only_heads(&self, passed: &BTreeSet<usize>) -> Result<(), Diagnostic> {
        for &at in passed {
            for output in &self.index.node(at).outputs {
                let other = self
                    .index
                    .users(output)
                    .iter()
                    .map(|(user, _)| *user)
                    .find(|user| !passed.contains(user) && self.index.node(*user).op_type != "Shape");
                let is_split = self.tags.contains_key(output.as_str());
                if let Some(other) = other.filter(|_| !is_split) {
                    let found = format!("it uses \"{output}\", which is also split into heads");
                    return Err(self.refuse(other, found));
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, at: usize, output: &'o str, tag: Tag) {
        let shape: Vec<usize> = tag.axes.iter().map(|axis| axes::merged_length(axis, self.factor)).collect();
        debug_assert_eq!(
            tag.axes.iter().map(axes::length).collect::<Vec<_>>(),
            self.index.shape(output),
            "{at}"
        );
        self.block.reshaped.push((output.to_owned(), shape));
        self.tags.insert(output, tag);
    }

    /// Notes that operand `position` tells the shape of `output`.
    fn told(&mut self, at: usize, position: usize, output: &str) {
        if let Some((_, shape)) = self.block.reshaped.last().filter(|(name, _)| name == output) {
            self.block.shapes.push((at, position, shape.clone()));
        }
    }

    fn node(&mut self, at: usize) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let tagged: Vec<usize> = (0..node.inputs.len())
            .filter(|&position| self.tags.contains_key(node.inputs[position].as_str()))
            .collect();
        let is_live = node.outputs.first().is_some_and(|output| self.index.maker(output) == Some(at));
        let (true, Some(&first)) = (is_live, tagged.first()) else { return Ok(()) };
        let tag = self.tags[node.inputs[first].as_str()].clone();
        match node.op_type.as_str() {
            "Shape" => Ok(()),
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Where" => self.elementwise(at, &tagged),
            "MatMul" if tagged.len() == 2 => self.product(at),
            // What exporters make of an empty cache.
            "Concat" if node.inputs.len() == 1 => self.pass(at, tag),
            "Concat" => self.concat(at, &tagged),
            _ if tagged != [0] => Err(self.refuse(at, "it takes heads as another operand than its first")),
            "Cast" | "Dropout" | "Identity" | "IsNaN" | "Neg" => self.pass(at, tag),
            "Softmax" => self.softmax(at, tag),
            "Reshape" | "Expand" => self.reshape(at, tag),
            "Transpose" => self.transpose(at, tag),
            "Unsqueeze" | "Squeeze" => self.squeeze(at, tag),
            "Slice" => self.slice(at, tag),
            "Split" => self.split_columns(at, tag),
            _ => Err(self.refuse(at, "it computes on heads")),
        }
    }

    fn pass(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        self.define(at, &self.index.node(at).outputs[0], tag);
        Ok(())
    }

    fn softmax(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let rank = tag.axes.len();
        let is_last = index::axis(self.index.node(at).int("axis").unwrap_or(-1), rank) == rank.checked_sub(1);
        let is_plain = tag.axes.last().is_some_and(|axis| !axes::has_heads(axis) && !axes::has_width(axis));
        if at != self.block.softmax || tag.stage != Stage::Scores || !is_last || !is_plain {
            return Err(self.refuse(at, "it is not taken of scores along their last axis"));
        }
        self.block.scale = tag.scale;
        self.pass(at, Tag { stage: Stage::Weights, ..tag })
    }

    fn reshape(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let output = node.outputs[0].as_str();
        let shape = self.index.shape(output);
        let regrouped =
            if node.op_type == "Expand" { expand(&tag.axes, shape) } else { axes::regroup(&tag.axes, shape) };
        let Some(axes) = regrouped else {
            return Err(self.refuse(at, format!("its result {shape:?} takes heads apart")));
        };
        let is_single = self.block.heads == 1 && axes.len() < tag.axes.len();
        let is_join = |axis: &Axis| match axis.as_slice() {
            [Factor::Heads(_), Factor::Width(_)] => true,
            [Factor::Width(_)] => is_single,
            _ => false,
        };
        if tag.stage == Stage::Context && axes.last().is_some_and(is_join) {
            if axes.iter().rev().skip(1).any(axes::has_heads) || self.joined.is_some() {
                return Err(self.refuse(at, "heads are joined in part or twice"));
            }
            self.joined = Some((output, at));
            return Ok(());
        }
        if axes.iter().any(|axis| axes::has_width(axis) && axis.len() > 1) {
            return Err(
                self.refuse(at, format!("its result {shape:?} mixes columns of heads with other axes"))
            );
        }
        self.define(at, output, Tag { axes, ..tag });
        self.told(at, 1, output);
        Ok(())
    }

    fn transpose(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let rank = tag.axes.len() as i64;
        let reversed: Vec<i64> = (0..rank).rev().collect();
        let perm = self.index.node(at).ints("perm").unwrap_or(&reversed);
        let axes = perm.iter().filter_map(|&axis| tag.axes.get(usize::try_from(axis).ok()?).cloned());
        self.pass(at, Tag { axes: axes.collect(), ..tag })
    }

    fn squeeze(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let (from, to) = (tag.axes.len(), self.index.shape(&node.outputs[0]).len());
        let given = node.ints("axes").map(<[i64]>::to_vec);
        let given = given.or_else(|| self.index.integers(node.input(1)?)).unwrap_or_default();
        let places: BTreeSet<usize> =
            given.iter().filter_map(|&axis| index::axis(axis, from.max(to))).collect();
        let mut left = tag.axes.iter().cloned();
        let axes: Vec<Axis> = if node.op_type == "Unsqueeze" {
            (0..to)
                .filter_map(|axis| if places.contains(&axis) { Some(Axis::new()) } else { left.next() })
                .collect()
        } else {
            let kept = |axis: &usize| !places.contains(axis);
            (0..from).filter(kept).map(|axis| tag.axes[axis].clone()).collect()
        };
        if axes.len() != to {
            return Err(self.refuse(at, "its axes are not known"));
        }
        self.pass(at, Tag { axes, ..tag })
    }

    fn product(&mut self, at: usize) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let [left, right] = [0, 1].map(|position| self.tags[node.inputs[position].as_str()].clone());
        let (Some((inner, rows)), Some((columns, contracted))) = (ends(&left.axes), ends(&right.axes)) else {
            return Err(self.refuse(at, "it multiplies vectors"));
        };
        let stage = match (left.stage, right.stage) {
            (Stage::Query, Stage::Key)
                if axes::columns(inner).is_some() && axes::columns(contracted).is_some() =>
            {
                self.met.extend(
                    axes::columns(inner)
                        .zip(axes::columns(contracted))
                        .map(|(l, r)| (at, l.clone(), r.clone())),
                );
                Stage::Scores
            }
            (Stage::Weights, Stage::Value) if axes::columns(columns).is_some() && !axes::has_width(inner) => {
                self.block.values = node.inputs[1].clone();
                Stage::Context
            }
            _ => {
                return Err(self.refuse(
                    at,
                    "it multiplies heads otherwise than queries with keys, weights with values",
                ));
            }
        };
        let shape = self.index.shape(&node.outputs[0]);
        let batch = shape.len().saturating_sub(2);
        let of = |tag: &Tag, axis: usize| {
            let missing = batch.saturating_sub(tag.axes.len() - 2);
            axis.checked_sub(missing).map(|axis| tag.axes[axis].clone()).filter(|axis| axes::length(axis) > 1)
        };
        let mut axes = Vec::with_capacity(shape.len());
        for axis in 0..batch {
            axes.push(match (of(&left, axis), of(&right, axis)) {
                (Some(l), Some(r)) => {
                    let agree = axes::merged_length(&l, self.factor) == axes::merged_length(&r, self.factor);
                    if !agree || axes::has_width(&l) || axes::has_width(&r) {
                        return Err(self.refuse(at, "the heads of its operands do not correspond"));
                    }
                    l
                }
                (l, r) => l.or(r).unwrap_or_default(),
            });
        }
        axes.extend([rows.clone(), columns.clone()]);
        if stage == Stage::Scores {
            node.outputs[0].clone_into(&mut self.block.scores);
        }
        self.pass(at, Tag { stage, axes, scale: left.scale * right.scale })?;
        Ok(())
    }

    fn elementwise(&mut self, at: usize, tagged: &[usize]) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let mut result = self.tags[node.inputs[tagged[0]].as_str()].clone();
        let rank = self.index.shape(&node.outputs[0]).len();
        let mut axes = vec![Axis::new(); rank];
        for &position in tagged {
            let tag = self.tags[node.inputs[position].as_str()].clone();
            if tag.stage > result.stage {
                result = tag.clone();
            }
            for (axis, own) in tag.axes.iter().enumerate() {
                let axis = axis + rank - tag.axes.len();
                match (axes::columns(&axes[axis]), axes::columns(own)) {
                    (Some(known), Some(pieces)) if axes::length(&axes[axis]) == axes::length(own) => {
                        self.met.push((at, known.clone(), pieces.clone()));
                    }
                    _ if axes[axis].is_empty() || axes[axis] == *own => axes[axis].clone_from(own),
                    _ if own.is_empty() => {}
                    _ => return Err(self.refuse(at, "the heads of its operands do not correspond")),
                }
            }
        }
        for position in (0..node.inputs.len()).filter(|position| !tagged.contains(position)) {
            let shape = self.index.shape(&node.inputs[position]);
            for (axis, &length) in shape.iter().enumerate() {
                let axis = axis + rank - shape.len();
                if length == 1 {
                    continue;
                }
                if axes::has_heads(&axes[axis]) {
                    let found = format!("operand \"{}\" differs from head to head", node.inputs[position]);
                    return Err(self.index.refuse(at, found, SHARED));
                }
                match axes::columns(&axes[axis]).cloned() {
                    // Heads of values are never cut.
                    Some(pieces) if [Stage::Value, Stage::Context].contains(&result.stage) => {
                        self.block.tables.push((at, position, pieces));
                    }
                    Some(pieces) => self.wide.push((at, position, pieces)),
                    None if axes[axis].is_empty() => axes[axis] = axes::plain(length),
                    None => {}
                }
            }
        }
        if matches!(node.op_type.as_str(), "Mul" | "Div") && tagged.len() == 1 {
            self.scale(at, 1 - tagged[0], &mut result)?;
        }
        self.pass(at, Tag { axes, ..result })
    }

    /// Notes a known number that scores, or what they are made of, are scaled by.
    fn scale(&mut self, at: usize, position: usize, tag: &mut Tag) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let divides = node.op_type == "Div";
        if divides && position == 0 {
            return Err(self.refuse(at, "it divides by heads"));
        }
        let operand = node.input(position).unwrap_or_default();
        let Some(number) = self.index.scalar(operand) else { return Ok(()) };
        let value = if divides { 1.0 / number } else { number };
        if !(Stage::Key..=Stage::Scores).contains(&tag.stage) || value == 1.0 {
            return Ok(());
        }
        tag.scale *= value;
        if tag.stage == Stage::Scores {
            self.block.late_scale *= value;
        }
        let follows = self.follows(operand);
        self.block.scales.push(ScaleSite { user: (at, position), value, divides, follows });
        Ok(())
    }

    /// Whether a value is computed from the shape of a value by head.
    fn follows(&self, value: &str) -> bool {
        let mut pending: Vec<usize> = self.index.maker(value).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(at) = pending.pop() {
            let node = self.index.node(at);
            if !seen.insert(at) {
                continue;
            }
            if node.op_type == "Shape" {
                if node.input(0).is_some_and(|input| self.tags.contains_key(input)) {
                    return true;
                }
                continue;
            }
            pending.extend(node.inputs.iter().filter_map(|input| self.index.maker(input)));
        }
        false
    }

    fn finish(mut self) -> Result<Block, Diagnostic> {
        let softmax = self.block.softmax;
        for (name, at) in self.tags.keys().filter_map(|&name| Some((name, self.index.maker(name)?))) {
            if self.index.outline.outputs.iter().any(|output| output == name) {
                let supported = "a model whose outputs do not depend on the number of heads";
                return Err(self.index.refuse(
                    at,
                    format!("output \"{name}\" of the model is by head"),
                    supported,
                ));
            }
        }
        let Some((joined, at)) = self.joined else {
            return Err(self.refuse(softmax, "its heads are not joined by a Reshape to [.., heads * width]"));
        };
        self.block.sites[3] = weights::rows(self.index, joined, at)?;
        let cuts = &self.block.cuts;
        for (at, left, right) in &self.met {
            let lengths = |pieces: &[Columns]| -> Vec<usize> {
                axes::refine(pieces, cuts).iter().map(|(start, end)| end - start).collect()
            };
            if lengths(left) != lengths(right) {
                return Err(self.refuse(*at, "columns of heads that are cut differently meet"));
            }
        }
        let tables =
            self.wide.into_iter().map(|(at, position, pieces)| (at, position, axes::refine(&pieces, cuts)));
        self.block.tables.extend(tables);
        Ok(self.block)
    }
}

/// The last axis and the one before it.
fn ends(axes: &[Axis]) -> Option<(&Axis, &Axis)> {
    match axes {
        [.., rows, columns] => Some((columns, rows)),
        _ => None,
    }
}

/// The axes once a value is broadcast to `shape`.
fn expand(axes: &[Axis], shape: &[usize]) -> Option<Vec<Axis>> {
    let missing = shape.len().checked_sub(axes.len())?;
    let expanded = shape.iter().enumerate().map(|(axis, &length)| {
        let own = axis.checked_sub(missing).and_then(|axis| axes.get(axis));
        match own {
            Some(own) if axes::length(own) == length => Some(own.clone()),
            Some(own) if !own.is_empty() => None,
            _ => Some(axes::plain(length)),
        }
    });
    expanded.collect()
}
