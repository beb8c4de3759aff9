//! Operators that take columns of heads apart and join them, as rotary embeddings do.

use super::super::axes::{self, Factor};
use super::super::index;
use super::{Stage, Tag, Trace};
use crate::diagnostic::Diagnostic;

impl Trace<'_, '_> {
    pub(super) fn slice(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let rank = tag.axes.len();
        let list = |position: usize| node.input(position).and_then(|value| self.index.integers(value));
        let (Some(starts), Some(ends)) = (list(1), list(2)) else {
            return Err(self.refuse(at, "where it cuts is not known"));
        };
        let given = list(3).unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4).unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), given.len(), steps.len()] != [starts.len(); 3] {
            return Err(self.refuse(at, "its bounds and axes differ in number"));
        }
        let mut axes = tag.axes.clone();
        for (entry, &axis) in given.iter().enumerate() {
            let Some(axis) = index::axis(axis, rank) else {
                return Err(self.refuse(at, "its axes are not known"));
            };
            let length = axes::length(&axes[axis]) as i64;
            let bound = |value: i64| if value < 0 { (value + length).max(0) } else { value.min(length) };
            let (start, end) = (bound(starts[entry]), bound(ends[entry]));
            if axes::has_heads(&axes[axis]) && (start, end) != (0, length) {
                return Err(self.refuse(at, "it takes some of the heads"));
            }
            match axes::columns(&axes[axis]) {
                Some(pieces) if steps[entry] == 1 => {
                    let cuts = &mut self.block.cuts;
                    axes[axis] = vec![Factor::Width(axes::slice(pieces, start as usize, end as usize, cuts))];
                    self.block.places.extend([(at, 1, entry), (at, 2, entry)]);
                }
                Some(_) => return Err(self.refuse(at, "it takes columns of heads in steps")),
                None if axes::has_heads(&axes[axis]) => {}
                None => axes[axis] = axes::plain(self.index.shape(&node.outputs[0])[axis]),
            }
        }
        self.cut_is_of_keys(at, &tag)?;
        self.pass(at, Tag { axes, ..tag })
    }

    pub(super) fn split_columns(&mut self, at: usize, tag: Tag) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let axis = index::axis(node.int("axis").unwrap_or(0), tag.axes.len());
        let Some((axis, pieces)) =
            axis.and_then(|axis| Some((axis, axes::columns(&tag.axes[axis])?.clone())))
        else {
            return Err(self.refuse(at, "it splits something else than the columns of heads"));
        };
        let mut start = 0;
        for (entry, output) in node.outputs.iter().enumerate() {
            let end = start + self.index.shape(output).get(axis).copied().unwrap_or(0);
            let mut axes = tag.axes.clone();
            axes[axis] = vec![Factor::Width(axes::slice(&pieces, start, end, &mut self.block.cuts))];
            start = end;
            self.define(at, output, Tag { axes, ..tag.clone() });
            if node.input(1).is_some() {
                self.block.places.push((at, 1, entry));
            }
        }
        self.cut_is_of_keys(at, &tag)
    }

    fn cut_is_of_keys(&self, at: usize, tag: &Tag) -> Result<(), Diagnostic> {
        match tag.stage {
            Stage::Value | Stage::Context => Err(self.refuse(at, "it cuts heads of values")),
            _ => Ok(()),
        }
    }

    pub(super) fn concat(&mut self, at: usize, tagged: &[usize]) -> Result<(), Diagnostic> {
        let node = self.index.node(at);
        let first = self.tags[node.inputs[tagged[0]].as_str()].clone();
        let rank = first.axes.len();
        let Some(axis) = node.int("axis").and_then(|axis| index::axis(axis, rank)) else {
            return Err(self.refuse(at, "its axis is not known"));
        };
        if tagged.len() < node.inputs.len() {
            let supported =
                "attention without a cache of keys and values: export the model without past inputs";
            return Err(self.index.refuse(at, "heads are joined with values from elsewhere", supported));
        }
        let mut joined = Vec::new();
        for input in &node.inputs {
            let tag = &self.tags[input.as_str()];
            let others_agree =
                (0..rank).filter(|&other| other != axis).all(|other| tag.axes[other] == first.axes[other]);
            match axes::columns(&tag.axes[axis]) {
                Some(pieces) if others_agree && tag.stage == first.stage => {
                    joined.extend(pieces.iter().copied())
                }
                _ => return Err(self.refuse(at, "it joins something else than columns of heads")),
            }
        }
        let mut axes = first.axes.clone();
        axes[axis] = vec![Factor::Width(joined)];
        self.pass(at, Tag { axes, ..first })
    }
}
