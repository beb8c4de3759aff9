//! What to change in the file for heads to be reordered and merged.

use std::collections::{BTreeMap, BTreeSet};

use marill_plaintext::{Tensor, TensorType};

use super::axes;
use super::block::Block;
use super::index::Index;
use super::weights::Site;
use crate::diagnostic::Diagnostic;
use crate::export::{Edits, NewNode};

/// Most elements of a table that is widened in the file; larger ones are widened by a node.
const MAX_TABLE: usize = 1 << 22;

/// Which heads of a block become one.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Heads of queries, group after group.
    pub queries: Vec<usize>,
    /// Heads of keys and values, group after group.
    pub keys: Vec<usize>,
    /// By which each head's queries are multiplied.
    pub gains: Vec<f64>,
}

/// The edits that merge `factor` heads each in `blocks`. With a factor of 1 heads are reordered and nothing else.
///
/// # Errors
/// If a weight cannot be changed for one of its users alone.
pub fn edits(
    index: &Index,
    blocks: &[(Block, Choice)],
    factor: usize,
    is_static: bool,
) -> Result<Edits, Diagnostic> {
    let mut editor = Editor {
        index,
        edits: Edits::default(),
        factor,
        is_static,
        names: BTreeMap::new(),
        weights: BTreeMap::new(),
    };
    for (block, choice) in blocks {
        editor.weights(block, choice)?;
        if factor > 1 {
            editor.scales(block);
            editor.shapes(block);
            editor.places(block)?;
            editor.tables(block);
            editor.edits.retyped.extend(block.reshaped.iter().map(|(name, _)| name.clone()));
        }
    }
    editor.finish()
}

struct Editor<'i, 'o> {
    index: &'i Index<'o>,
    edits: Edits,
    factor: usize,
    is_static: bool,
    /// New values by what they stand for and hold.
    names: BTreeMap<(String, String), String>,
    /// Changed weights by user.
    weights: BTreeMap<(usize, usize), (Site, Tensor)>,
}

impl Editor<'_, '_> {
    fn weights(&mut self, block: &Block, choice: &Choice) -> Result<(), Diagnostic> {
        let cut = axes::refine(&[(0, block.width)], &block.cuts);
        let whole = [(0, block.value_width)];
        let order = |heads: &[usize], width: usize, pieces: &[axes::Columns]| -> Vec<usize> {
            let merged = heads.chunks(self.factor).flat_map(|group| {
                pieces.iter().flat_map(move |&(start, end)| {
                    group.iter().flat_map(move |head| (start..end).map(move |c| head * width + c))
                })
            });
            merged.collect()
        };
        let orders = [
            order(&choice.queries, block.width, &cut),
            order(&choice.keys, block.width, &cut),
            order(&choice.keys, block.value_width, &whole),
            order(&choice.queries, block.value_width, &whole),
        ];
        for (role, (sites, order)) in block.sites.iter().zip(orders).enumerate() {
            let gains: Vec<f32> = match role {
                0 => order.iter().map(|&column| choice.gains[column / block.width] as f32).collect(),
                _ => vec![1.0; order.len()],
            };
            for site in sites {
                self.weight(site, &order, &gains)?;
            }
        }
        Ok(())
    }

    fn weight(&mut self, site: &Site, order: &[usize], gains: &[f32]) -> Result<(), Diagnostic> {
        let index = self.index;
        let refuse = |found: &str| {
            index.refuse(
                site.user.0,
                format!("weight \"{}\" {found}", site.weight),
                "weights that can be read",
            )
        };
        let known = match self.weights.get(&site.user) {
            Some((_, tensor)) => Some(tensor.clone()),
            None => index.outline.initializers.get(&site.weight).and_then(|w| w.constant.load().ok()),
        };
        let tensor = known.ok_or_else(|| refuse("is absent"))?;
        let shape = tensor.shape().to_vec();
        let data = tensor.to_f32_vec().map_err(|_| refuse("is not of floats"))?;
        let length = shape.get(site.axis).copied().unwrap_or(0);
        if data.is_empty() || site.offset + order.len() > length {
            return Err(refuse("is too short for its heads"));
        }
        let inner: usize = shape[site.axis + 1..].iter().product();
        let mut changed = data.clone();
        for (from, to) in data.chunks(length * inner).zip(changed.chunks_mut(length * inner)) {
            for (at, (&source, &gain)) in order.iter().zip(gains).enumerate() {
                let (at, source) = ((site.offset + at) * inner, (site.offset + source) * inner);
                for i in 0..inner {
                    to[at + i] = from[source + i] * gain;
                }
            }
        }
        let tensor = Tensor::f32(shape, changed).map_err(|_| refuse("is too large"))?;
        self.weights.insert(site.user, (site.clone(), tensor));
        Ok(())
    }

    /// Constants that scale scores: the square root of the width is `sqrt(factor)` times as large. A scale that
    /// follows from the width needs no change.
    fn scales(&mut self, block: &Block) {
        if !has_own_scale(block) {
            return;
        }
        let constants: Vec<_> = block.scales.iter().filter(|scale| !scale.follows).collect();
        let change = (self.factor as f64).powf(-0.5 / constants.len().max(1) as f64);
        for scale in constants {
            let operand = &self.index.node(scale.user.0).inputs[scale.user.1];
            let old = if scale.divides { 1.0 / scale.value } else { scale.value };
            let new = if scale.divides { old / change } else { old * change };
            let shape = self.index.shape(operand).to_vec();
            if let Ok(tensor) = Tensor::f32(shape, vec![new as f32]) {
                let name = self.constant(operand, tensor);
                self.edits.rewired.insert(scale.user, name);
            }
        }
    }

    fn shapes(&mut self, block: &Block) {
        for (node, position, shape) in &block.shapes {
            let operand = self.index.node(*node).inputs.get(*position).cloned().unwrap_or_default();
            let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
            if let Some(name) = self.integers(&operand, &shape) {
                self.edits.rewired.insert((*node, *position), name);
            }
        }
    }

    /// A value in the place of `operand` with `wanted` elements; -1 and 0, which follow from the rest, stay. Nothing
    /// if the operand follows by itself or cannot be changed.
    fn integers(&mut self, operand: &str, wanted: &[i64]) -> Option<String> {
        let index = self.index;
        let old = index.integers(operand);
        let stored = index.stored(operand).and_then(|tensor| tensor.to_i64_vec().ok());
        if let Some(old) = stored.or_else(|| old.filter(|_| self.is_static)) {
            let kept = |(&old, &new): (&i64, &i64)| if old < 1 { old } else { new };
            if old.len() != wanted.len() {
                return None;
            }
            let new: Vec<i64> = old.iter().zip(wanted).map(kept).collect();
            if new == old {
                return None;
            }
            let tensor = Tensor::i64(index.shape(operand).to_vec(), new).ok()?;
            return Some(self.constant(operand, tensor));
        }
        let maker = index.maker(operand)?;
        let node = index.node(maker);
        let mut inputs = node.inputs.clone();
        match node.op_type.as_str() {
            "Concat" => {
                let mut from = 0;
                for input in &mut inputs {
                    let length = index.shape(input).iter().product::<usize>();
                    let piece = wanted.get(from..from + length)?;
                    from += length;
                    if let Some(name) = self.integers(&input.clone(), piece) {
                        *input = name;
                    }
                }
            }
            "Where" | "Reshape" | "Cast" | "Identity" | "Unsqueeze" | "Squeeze" => {
                // A Where keeps the entries that are not -1.
                let inner = inputs.get_mut(if node.op_type == "Where" { 2 } else { 0 })?;
                *inner = self.integers(&inner.clone(), wanted)?;
            }
            _ => return None,
        }
        if inputs == node.inputs {
            return None;
        }
        let key = (operand.to_owned(), format!("{inputs:?}"));
        if let Some(name) = self.names.get(&key) {
            return Some(name.clone());
        }
        let output = self.name(operand);
        self.names.insert(key, output.clone());
        // Before the node that it stands for, so that it precedes all users of either.
        let copies = self.edits.inserted.entry(maker).or_default();
        copies.push(NewNode::Copy { node: maker, inputs, output: output.clone() });
        Some(output)
    }

    /// Bounds of slices and lengths of splits along the columns.
    fn places(&mut self, block: &Block) -> Result<(), Diagnostic> {
        let mut entries: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
        for &(node, position, entry) in &block.places {
            entries.entry((node, position)).or_default().insert(entry);
        }
        for ((node, position), entries) in entries {
            let operand = self.index.node(node).inputs[position].clone();
            let Some(mut places) = self.index.integers(&operand) else { continue };
            for entry in entries {
                // Beyond any width: to the end.
                if let Some(place) = places.get_mut(entry).filter(|p| p.unsigned_abs() < 1 << 31) {
                    *place *= self.factor as i64;
                }
            }
            let is_own = self.is_static || self.index.stored(&operand).is_some();
            if is_own && Some(&places) != self.index.integers(&operand).as_ref() {
                let shape = self.index.shape(&operand).to_vec();
                let tensor = Tensor::i64(shape, places)
                    .map_err(|error| Diagnostic::new(self.index.node(node).label.clone(), error))?;
                let name = self.constant(&operand, tensor);
                self.edits.rewired.insert((node, position), name);
            }
        }
        Ok(())
    }

    /// Rotary tables and the like, which hold for every head: as many columns for each merged one.
    fn tables(&mut self, block: &Block) {
        for (node, position, pieces) in &block.tables {
            let operand = self.index.node(*node).inputs[*position].clone();
            let order = axes::widened(pieces, self.factor);
            let stored = self.index.stored(&operand).filter(|tensor| tensor.len() <= MAX_TABLE);
            let widened = stored.and_then(|tensor| widen(&tensor, &order));
            let name = if let Some(tensor) = widened {
                self.constant(&operand, tensor)
            } else {
                self.gathered(&operand, &order, *node)
            };
            self.edits.rewired.insert((*node, *position), name);
        }
    }

    fn gathered(&mut self, operand: &str, order: &[usize], before: usize) -> String {
        let key = (operand.to_owned(), format!("{order:?}"));
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let indices: Vec<i64> = order.iter().map(|&column| column as i64).collect();
        let indices = Tensor::i64([indices.len()], indices).unwrap_or_else(|_| Tensor::scalar_i64(0));
        let indices = self.constant("heads.columns", indices);
        let output = self.name(operand);
        self.names.insert(key, output.clone());
        let inputs = [operand.to_owned(), indices];
        // The first user in the file's order comes first here too.
        let nodes = self.edits.inserted.entry(before).or_default();
        nodes.push(NewNode::Gather { inputs, output: output.clone() });
        output
    }

    /// The name of a constant in the place of `like`.
    fn constant(&mut self, like: &str, tensor: Tensor) -> String {
        let key = (like.to_owned(), format!("{:?}", contents(&tensor)));
        if let Some(name) = self.names.get(&key) {
            return name.clone();
        }
        let name = self.name(like);
        self.names.insert(key, name.clone());
        self.edits.added.insert(name.clone(), tensor);
        name
    }

    /// A name like `like` that no value has.
    fn name(&self, like: &str) -> String {
        let taken = |name: &str| {
            self.index.outline.types.contains_key(name) || self.names.values().any(|known| known == name)
        };
        let base = format!("{like}.merged{}", self.factor);
        let numbered = (1..).map(|i| format!("{base}.{i}"));
        std::iter::once(base.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(base)
    }

    fn finish(mut self) -> Result<Edits, Diagnostic> {
        for (user, (site, tensor)) in std::mem::take(&mut self.weights) {
            let index = self.index;
            let old = index.outline.initializers.get(&site.weight).and_then(|w| w.constant.load().ok());
            if old.as_ref() == Some(&tensor) {
                continue;
            }
            let operand = &index.node(user.0).inputs[user.1];
            if is_only_user(index, operand, &site.weight) {
                self.edits.replaced.insert(site.weight, tensor);
            } else if site.is_direct {
                let name = self.constant(&site.weight, tensor);
                self.edits.rewired.insert(user, name);
            } else {
                let found = format!("weight \"{}\" is used elsewhere too", site.weight);
                return Err(index.refuse(user.0, found, "weights that only one projection uses"));
            }
        }
        self.remove_unused();
        Ok(self.edits)
    }

    /// Leaves out what only the old operands needed.
    fn remove_unused(&mut self) {
        let outline = self.index.outline;
        loop {
            let mut used: BTreeSet<&str> = outline.outputs.iter().map(String::as_str).collect();
            for (at, node) in outline.nodes.iter().enumerate() {
                if self.edits.removed_nodes.contains(&at) {
                    continue;
                }
                for (position, input) in node.inputs.iter().enumerate() {
                    used.insert(self.edits.rewired.get(&(at, position)).unwrap_or(input));
                }
            }
            for new in self.edits.inserted.values().flatten() {
                match new {
                    NewNode::Copy { inputs, .. } => used.extend(inputs.iter().map(String::as_str)),
                    NewNode::Gather { inputs, .. } => used.extend(inputs.iter().map(String::as_str)),
                }
            }
            let was_used = |name: &String| !self.index.users(name).is_empty();
            let unused: Vec<usize> = (0..outline.nodes.len())
                .filter(|at| !self.edits.removed_nodes.contains(at))
                .filter(|&at| {
                    let outputs = &outline.nodes[at].outputs;
                    outputs.iter().any(was_used)
                        && !outputs.iter().any(|output| used.contains(output.as_str()))
                })
                .collect();
            if unused.is_empty() {
                let names = outline.initializers.keys();
                let removed = names.filter(|name| was_used(name) && !used.contains(name.as_str()));
                self.edits.removed_tensors = removed.cloned().collect();
                return;
            }
            self.edits.removed_nodes.extend(unused);
        }
    }
}

/// Whether the model has a scale for scores that goes with the width, as a constant rather than computed from it.
fn has_own_scale(block: &Block) -> bool {
    let following: f64 = block.scales.iter().filter(|s| s.follows).map(|s| s.value).product();
    (following * (block.width as f64).sqrt() - 1.0).abs() > 1e-4
}

/// What scores will be multiplied by if heads of `block` are merged and nothing else is done.
pub fn merged_scale(block: &Block, factor: usize) -> f64 {
    let is_unscaled = block.scales.is_empty();
    if is_unscaled { block.scale } else { block.scale / (factor as f64).sqrt() }
}

/// Whether `operand`, which is or comes from an initializer, is all that uses it, and once.
fn is_only_user(index: &Index, operand: &str, weight: &str) -> bool {
    let mut value = operand;
    loop {
        if index.users(value).len() != 1 || index.outline.outputs.iter().any(|output| output == value) {
            return false;
        }
        if value == weight {
            return true;
        }
        match index.maker(value).and_then(|at| index.node(at).input(0)) {
            Some(behind) => value = behind,
            None => return false,
        }
    }
}

fn contents(tensor: &Tensor) -> (TensorType, Vec<i64>) {
    let bits = match tensor {
        Tensor::F32(array) => array.iter().map(|x| i64::from(x.to_bits())).collect(),
        other => other.cast(marill_plaintext::DType::I64).to_i64_vec().unwrap_or_default(),
    };
    (tensor.ty(), bits)
}

/// The tensor with these columns of its last axis.
fn widen(tensor: &Tensor, order: &[usize]) -> Option<Tensor> {
    let mut shape = tensor.shape().to_vec();
    let width = shape.last().copied().filter(|&width| width > 0)?;
    let data = tensor.to_f32_vec().ok()?;
    let wide = data.chunks(width).flat_map(|row| order.iter().map(|&column| row[column])).collect();
    *shape.last_mut()? = order.len();
    Tensor::f32(shape, wide).ok()
}
