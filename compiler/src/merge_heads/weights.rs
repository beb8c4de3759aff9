//! The weights around attention: whose columns make the heads, and whose rows take them together again.

use std::collections::BTreeSet;

use super::index::{self, Index};
use crate::diagnostic::Diagnostic;

const TRUNK: &str = "a MatMul or Gemm with a weight, a bias, a scale, Reshape, Split or Slice between the weights and \
                     the heads";
const OUTPUT: &str = "a MatMul or Gemm with a weight right after the heads are joined";

/// A stretch of an initializer's axis that heads are along.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// The node and operand that use the initializer.
    pub user: (usize, usize),
    /// The initializer.
    pub weight: String,
    /// The axis.
    pub axis: usize,
    /// Where the heads begin.
    pub offset: usize,
    /// Whether the operand is the initializer itself, so that another can take its place.
    pub is_direct: bool,
}

/// A constant that scores are scaled by.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleSite {
    /// The node and operand.
    pub user: (usize, usize),
    /// The factor that it amounts to.
    pub value: f64,
    /// Whether the node divides by the operand.
    pub divides: bool,
    /// Whether the operand follows from the width of a head.
    pub follows: bool,
}

/// Walks from the value that is split into heads to the weights that make it.
pub struct Columns<'i, 'o> {
    index: &'i Index<'o>,
    /// Weights found.
    pub sites: Vec<Site>,
    /// Scales before the split.
    pub scales: Vec<ScaleSite>,
    /// Nodes passed.
    pub passed: BTreeSet<usize>,
}

impl<'i, 'o> Columns<'i, 'o> {
    /// A walk that has not begun.
    pub fn new(index: &'i Index<'o>) -> Columns<'i, 'o> {
        Columns { index, sites: Vec::new(), scales: Vec::new(), passed: BTreeSet::new() }
    }

    /// Walks on from `value`, whose last axis has the heads from `offset` on.
    pub fn walk(&mut self, value: &'o str, offset: usize, user: usize) -> Result<(), Diagnostic> {
        self.step(value, offset, user, true)
    }

    fn step(&mut self, value: &'o str, offset: usize, user: usize, trunk: bool) -> Result<(), Diagnostic> {
        let index = self.index;
        let Some(at) = index.maker(value) else {
            return Err(index.refuse(user, format!("its heads come from \"{value}\""), TRUNK));
        };
        let node = index.node(at);
        let refuse = |found: &str| index.refuse(at, found, TRUNK);
        let operand = |position: usize| {
            node.input(position).ok_or_else(|| refuse("an operand that ONNX requires is missing"))
        };
        let last = |value: &str| index.shape(value).last().copied();
        self.passed.insert(at);
        match node.op_type.as_str() {
            "Identity" | "Cast" | "Dropout" => self.step(operand(0)?, offset, at, trunk),
            "Reshape" => {
                if last(operand(0)?) != last(value) {
                    return Err(refuse("heads are rearranged before they are split"));
                }
                self.step(operand(0)?, offset, at, trunk)
            }
            "Split" => {
                let rank = index.shape(value).len();
                if index::axis(node.int("axis").unwrap_or(0), rank) != rank.checked_sub(1) {
                    return Err(refuse("it does not split along the last axis"));
                }
                let before = node.outputs.iter().take_while(|output| *output != value);
                let start: usize = before.filter_map(|output| last(output)).sum();
                self.step(operand(0)?, offset + start, at, trunk)
            }
            "Slice" => {
                let start = slice_start(index, at, value)
                    .ok_or_else(|| refuse("it takes something else than a stretch of the last axis"))?;
                self.step(operand(0)?, offset + start, at, trunk)
            }
            "Mul" | "Div" => {
                let scaled = [0, 1].into_iter().find_map(|position| {
                    let other = node.input(1 - position)?;
                    Some((position, index.scalar(other)?)).filter(|_| node.op_type == "Mul" || position == 0)
                });
                let Some((position, number)) = scaled else {
                    return Err(refuse("something else than a known number scales the heads"));
                };
                if trunk {
                    let divides = node.op_type == "Div";
                    let value = if divides { 1.0 / number } else { number };
                    let user = (at, 1 - position);
                    self.scales.push(ScaleSite { user, value, divides, follows: false });
                }
                self.step(operand(position)?, offset, at, trunk)
            }
            "Add" => {
                for position in [0, 1] {
                    let term = operand(position)?;
                    if index.weight(term).is_some() {
                        self.site((at, position), term, None, offset, last(value))?;
                    } else {
                        let is_sum = !is_weightless(index, operand(1 - position)?);
                        self.step(term, offset, at, trunk && !is_sum)?;
                    }
                }
                Ok(())
            }
            "MatMul" => self.site((at, 1), operand(1)?, Some(1), offset, last(value)),
            "Gemm" => {
                let axis = if node.int("transB").unwrap_or(0) == 0 { 1 } else { 0 };
                self.site((at, 1), operand(1)?, Some(axis), offset, last(value))?;
                match node.input(2) {
                    Some(bias) => self.site((at, 2), bias, None, offset, last(value)),
                    None => Ok(()),
                }
            }
            _ => Err(refuse("the heads do not come from a matrix product with a weight")),
        }
    }

    /// Notes `operand`, of which `axis` (of two), or else the last axis, has `length` columns.
    fn site(
        &mut self,
        user: (usize, usize),
        operand: &'o str,
        axis: Option<usize>,
        offset: usize,
        length: Option<usize>,
    ) -> Result<(), Diagnostic> {
        let index = self.index;
        let found = site(index, user, operand, axis, offset)?;
        let has = index.shape(&found.weight).get(found.axis).copied();
        if has != length {
            return Err(index.refuse(
                user.0,
                format!("operand \"{operand}\" is the same for all heads"),
                TRUNK,
            ));
        }
        self.sites.push(found);
        Ok(())
    }
}

/// Whether a value is a bias or another known tensor rather than a branch of the computation.
fn is_weightless(index: &Index, value: &str) -> bool {
    index.outline.initializers.contains_key(value) || index.outline.known.contains_key(value)
}

/// Where a Slice along the last axis begins, if it does nothing else.
fn slice_start(index: &Index, at: usize, value: &str) -> Option<usize> {
    let node = index.node(at);
    let shape = index.shape(node.input(0)?);
    let starts = index.integers(node.input(1)?)?;
    let axes = node.input(3).map_or(Some(vec![0]), |axes| index.integers(axes))?;
    let steps = node.input(4).map_or(Some(vec![1]), |steps| index.integers(steps))?;
    let (&[start], &[axis], &[1]) = (starts.as_slice(), axes.as_slice(), steps.as_slice()) else {
        return None;
    };
    let last = shape.len().checked_sub(1)?;
    let length = shape[last];
    (index::axis(axis, shape.len()) == Some(last) && index.shape(value).len() == shape.len())
        .then(|| index::axis(start, length))?
}

fn site<'o>(
    index: &Index<'o>,
    user: (usize, usize),
    operand: &'o str,
    axis: Option<usize>,
    offset: usize,
) -> Result<Site, Diagnostic> {
    let refuse = |found: String| {
        index.refuse(user.0, found, "weights that are f32 initializers of the graph, of one or two axes")
    };
    let weight =
        index.weight(operand).ok_or_else(|| refuse(format!("operand \"{operand}\" is not a weight")))?;
    let rank = index.shape(weight.name).len();
    let is_f32 = index.outline.initializers.get(weight.name).is_some_and(|tensor| tensor.data_type == 1);
    let axis = match axis {
        Some(axis) if rank == 2 && weight.is_transposed => 1 - axis,
        Some(axis) if rank == 2 => axis,
        None if rank > 0 && !weight.is_transposed => rank - 1,
        _ => return Err(refuse(format!("weight \"{}\" has {rank} axes", weight.name))),
    };
    if !is_f32 {
        return Err(refuse(format!("weight \"{}\" is not of f32 elements", weight.name)));
    }
    let (name, is_direct) = (weight.name.to_owned(), !weight.is_transposed);
    Ok(Site { user, weight: name, axis, offset, is_direct })
}

/// The weights whose rows take `value`, in whose last axis the heads lie side by side.
pub fn rows(index: &Index, value: &str, maker: usize) -> Result<Vec<Site>, Diagnostic> {
    let mut sites = Vec::new();
    let mut pending = vec![(value, maker)];
    while let Some((value, maker)) = pending.pop() {
        if index.outline.outputs.iter().any(|output| output == value) {
            return Err(index.refuse(maker, "the joined heads are an output of the model", OUTPUT));
        }
        for &(at, position) in index.users(value) {
            let node = index.node(at);
            let refuse = |found: &str| index.refuse(at, found, OUTPUT);
            let operand =
                |position: usize| node.input(position).ok_or_else(|| refuse("an operand is missing"));
            match (node.op_type.as_str(), position) {
                ("Shape", _) => {}
                ("Identity" | "Cast" | "Dropout", 0) => pending.push((&node.outputs[0], at)),
                ("Reshape", 0) if index.shape(&node.outputs[0]).last() == index.shape(value).last() => {
                    pending.push((&node.outputs[0], at));
                }
                ("MatMul", 0) => sites.push(site(index, (at, 1), operand(1)?, Some(0), 0)?),
                ("Gemm", 0) if node.int("transA").unwrap_or(0) == 0 => {
                    let axis = if node.int("transB").unwrap_or(0) == 0 { 0 } else { 1 };
                    sites.push(site(index, (at, 1), operand(1)?, Some(axis), 0)?);
                }
                _ => return Err(refuse("the joined heads go elsewhere than into a product with a weight")),
            }
        }
    }
    Ok(sites)
}
