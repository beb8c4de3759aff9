//! Finds attention: each softmax between a product of queries with keys and one with values, and the reshapes that
//! split the three into heads.

use std::collections::BTreeSet;

use super::axes::Columns;
use super::index::Index;
use super::problem::MergeProblem;
use super::trace;
use super::weights::{ScaleSite, Site};
use crate::diagnostic::Diagnostic;

/// Operators that a value may pass between its projection and a product.
const PASSED: [&str; 14] = [
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Dropout",
    "Expand",
    "Identity",
    "Mul",
    "Neg",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Where one attention block is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The softmax.
    pub softmax: usize,
    /// The reshapes that make heads of queries, keys and values.
    pub splits: [usize; 3],
}

/// One attention block, and all that has to change with its heads.
#[derive(Clone, Debug)]
pub struct Block {
    /// Which it is, in the file's order.
    pub layer: usize,
    /// Name of its softmax.
    pub label: String,
    /// The softmax.
    pub softmax: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Columns of a query or key head.
    pub width: usize,
    /// Columns of a value head.
    pub value_width: usize,
    /// Where query and key heads are cut, as rotary embeddings do.
    pub cuts: BTreeSet<usize>,
    /// What scores are multiplied by in all.
    pub scale: f64,
    /// What they are multiplied by after the product.
    pub late_scale: f64,
    /// What scales them.
    pub scales: Vec<ScaleSite>,
    /// The product of queries and keys.
    pub scores: String,
    /// What the softmax is taken of.
    pub logits: String,
    /// The values that it averages, by head.
    pub values: String,
    /// Weights of queries, keys, values and outputs.
    pub sites: [Vec<Site>; 4],
    /// Shapes that nodes are told: node, operand, and what the result's shape becomes.
    pub shapes: Vec<(usize, usize, Vec<usize>)>,
    /// Places along the columns that nodes are told, to be multiplied: node, operand, entry.
    pub places: Vec<(usize, usize, usize)>,
    /// Operands that hold for all heads and are as wide as one: node, operand, columns.
    pub tables: Vec<(usize, usize, Vec<Columns>)>,
    /// Values by head, and the shapes that they get.
    pub reshaped: Vec<(String, Vec<usize>)>,
}

/// The attention blocks in the file's order.
///
/// # Errors
/// If there are none, or one's heads cannot be told.
pub fn find(index: &Index) -> Result<Vec<Found>, Diagnostic> {
    let softmaxes = (0..index.outline.nodes.len()).filter(|&at| {
        let node = index.node(at);
        node.op_type == "Softmax" && node.outputs.first().is_some_and(|o| index.maker(o) == Some(at))
    });
    let mut found = Vec::new();
    for softmax in softmaxes {
        if let Some(block) = find_block(index, softmax)? {
            found.push(block);
        }
    }
    if found.is_empty() {
        return Err(Diagnostic::new(index.outline.name.clone(), MergeProblem::NoAttention));
    }
    Ok(found)
}

/// Nothing if the softmax is not one of attention.
fn find_block(index: &Index, softmax: usize) -> Result<Option<Found>, Diagnostic> {
    let node = index.node(softmax);
    let logits = node.input(0).unwrap_or_default();
    let is_product = |at: usize| {
        let node = index.node(at);
        node.op_type == "MatMul"
            && node.inputs.iter().all(|operand| index.outline.values.contains_key(operand))
    };
    let through = |at: usize| PASSED.contains(&op_type(index, at)) || op_type(index, at) == "Reshape";
    let masked = |at: usize| through(at) || ["Where", "Max", "Min", "Sub"].contains(&op_type(index, at));
    let products = behind(index, logits, &is_product, &masked);
    let Some((values, side)) = product_after(index, &node.outputs[0]) else { return Ok(None) };
    let scores = match products.iter().collect::<Vec<_>>().as_slice() {
        [] => return Ok(None),
        &[&only] => only,
        several => {
            let found = format!("its scores are made of {} products", several.len());
            return Err(index.refuse(softmax, found, "one MatMul of queries and keys"));
        }
    };
    let is_split = |at: usize| splits_heads(index, at);
    let mut splits = [0; 3];
    for (split, (product, position)) in splits.iter_mut().zip([(scores, 0), (scores, 1), (values, 1 - side)])
    {
        let operand = index.node(product).input(position).unwrap_or_default();
        let found = behind(index, operand, &is_split, &through);
        match found.iter().collect::<Vec<_>>().as_slice() {
            &[&only] => *split = only,
            found => {
                let what =
                    format!("{} reshapes behind operand {position} could split it into heads", found.len());
                return Err(index.refuse(
                    product,
                    what,
                    "one Reshape from [.., heads * width] to [.., heads, width]",
                ));
            }
        }
    }
    Ok(Some(Found { softmax, splits }))
}

fn op_type<'o>(index: &Index<'o>, at: usize) -> &'o str {
    &index.node(at).op_type
}

/// The nodes that are `wanted` behind a value, through nodes that are `passed`.
fn behind(
    index: &Index,
    value: &str,
    wanted: &dyn Fn(usize) -> bool,
    passed: &dyn Fn(usize) -> bool,
) -> BTreeSet<usize> {
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut pending: Vec<usize> = index.maker(value).into_iter().collect();
    while let Some(at) = pending.pop() {
        if !seen.insert(at) {
            continue;
        }
        if wanted(at) {
            found.insert(at);
        } else if passed(at) {
            pending.extend(index.node(at).inputs.iter().filter_map(|input| index.maker(input)));
        }
    }
    found
}

/// The product that takes the softmax's result, and as which operand.
fn product_after(index: &Index, value: &str) -> Option<(usize, usize)> {
    let mut pending = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(value) = pending.pop() {
        for &(at, position) in index.users(value) {
            let node = index.node(at);
            match node.op_type.as_str() {
                "MatMul" => return Some((at, position)),
                "Cast" | "Dropout" | "Identity" | "IsNaN" | "Mul" | "Reshape" | "Where"
                    if seen.insert(at) =>
                {
                    pending.push(&node.outputs[0]);
                }
                _ => {}
            }
        }
    }
    None
}

/// Whether a node is a reshape from `[.., heads * width]` to `[.., heads, width]`.
fn splits_heads(index: &Index, at: usize) -> bool {
    let node = index.node(at);
    let (Some(input), Some(output)) = (node.input(0), node.outputs.first()) else { return false };
    let (from, to) = (index.shape(input), index.shape(output));
    let ([.., whole], [_, .., heads, width]) = (from, to) else { return false };
    // A single head is as wide as all: told from other reshapes by the axis of tokens before it.
    let before = |shape: &[usize], skip: usize| shape.iter().rev().nth(skip).copied();
    let is_single = to.len() == from.len() + 1 && before(from, 1) == before(to, 2);
    node.op_type == "Reshape" && to.len() > 2 && heads * width == *whole && (width != whole || is_single)
}

/// Follows the heads of block `layer` from where they are split to where they are joined.
///
/// # Errors
/// If heads do not come in groups of `factor`, or pass through something that cannot be changed.
pub fn block(index: &Index, found: &Found, layer: usize, factor: usize) -> Result<Block, Diagnostic> {
    let lengths = found.splits.map(|split| {
        let shape = index.shape(&index.node(split).outputs[0]);
        (shape[shape.len() - 2], shape[shape.len() - 1])
    });
    let [(heads, width), (kv_heads, _), (_, value_width)] = lengths;
    let what = [
        ("heads", heads, found.splits[0]),
        ("key heads", kv_heads, found.splits[1]),
        ("value heads", lengths[2].0, found.splits[2]),
    ];
    for (what, heads, split) in what {
        if !heads.is_multiple_of(factor) {
            let problem = MergeProblem::Indivisible { what, heads, factor };
            return Err(Diagnostic::new(index.node(split).label.clone(), problem));
        }
    }
    if lengths.iter().any(|&(heads, width)| heads * width == 0)
        || lengths[1].0 != lengths[2].0
        || !heads.is_multiple_of(kv_heads)
        || lengths[1].1 != width
    {
        let what = format!("heads and widths of queries, keys and values are {lengths:?}");
        let supported = "as many heads of keys as of values, which divide those of queries";
        return Err(index.refuse(found.softmax, what, supported));
    }
    let block = Block {
        layer,
        label: index.node(found.softmax).label.clone(),
        softmax: found.softmax,
        heads,
        kv_heads,
        width,
        value_width,
        cuts: BTreeSet::new(),
        scale: 1.0,
        late_scale: 1.0,
        scales: Vec::new(),
        scores: String::new(),
        logits: index.node(found.softmax).input(0).unwrap_or_default().to_owned(),
        values: String::new(),
        sites: Default::default(),
        shapes: Vec::new(),
        places: Vec::new(),
        tables: Vec::new(),
        reshaped: Vec::new(),
    };
    trace::trace(index, found, block, factor)
}
