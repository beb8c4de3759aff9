//! Who makes and who uses each value of a model.

use std::collections::BTreeMap;

use marill_plaintext::{DType, Tensor};

use super::problem::MergeProblem;
use crate::diagnostic::{Diagnostic, Problem};
use crate::import::outline::{Outline, OutlineNode};

/// A model, with its nodes by what they make and use. Nodes that no output needs are left out.
pub struct Index<'o> {
    /// The model.
    pub outline: &'o Outline,
    makers: BTreeMap<&'o str, usize>,
    users: BTreeMap<&'o str, Vec<(usize, usize)>>,
}

/// An initializer behind an operand.
pub struct Weight<'o> {
    /// Its name.
    pub name: &'o str,
    /// Whether the operand is its transpose.
    pub is_transposed: bool,
}

impl<'o> Index<'o> {
    /// Looks through `outline`.
    pub fn new(outline: &'o Outline) -> Index<'o> {
        let mut index = Index { outline, makers: BTreeMap::new(), users: BTreeMap::new() };
        for (at, node) in outline.nodes.iter().enumerate() {
            if !node.outputs.iter().any(|output| outline.types.contains_key(output)) {
                continue;
            }
            for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                index.makers.insert(output, at);
            }
            for (position, input) in node.inputs.iter().enumerate().filter(|(_, input)| !input.is_empty()) {
                index.users.entry(input).or_default().push((at, position));
            }
        }
        index
    }

    /// A node.
    pub fn node(&self, at: usize) -> &'o OutlineNode {
        &self.outline.nodes[at]
    }

    /// The node that makes a value.
    pub fn maker(&self, value: &str) -> Option<usize> {
        self.makers.get(value).copied()
    }

    /// The nodes that use a value, and as which operand.
    pub fn users(&self, value: &str) -> &[(usize, usize)] {
        self.users.get(value).map_or(&[], Vec::as_slice)
    }

    /// Shape of a value.
    pub fn shape(&self, value: &str) -> &'o [usize] {
        self.outline.shape(value).unwrap_or_default()
    }

    /// The number that a value is, if it is one and known.
    pub fn scalar(&self, value: &str) -> Option<f64> {
        let tensor = self.outline.known.get(value).filter(|tensor| tensor.len() == 1)?;
        tensor.cast(DType::F32).to_f32_vec().ok()?.first().map(|&x| f64::from(x))
    }

    /// The integers that a value is, if they are known.
    pub fn integers(&self, value: &str) -> Option<Vec<i64>> {
        self.outline.known.get(value)?.to_i64_vec().ok()
    }

    /// The tensor that the file itself holds for a value: an initializer's or a Constant's.
    pub fn stored(&self, value: &str) -> Option<Tensor> {
        if let Some(initializer) = self.outline.initializers.get(value) {
            return initializer.constant.load().ok();
        }
        let node = self.node(self.maker(value)?);
        match node.op_type.as_str() {
            "Constant" => self.outline.known.get(value).cloned(),
            "Identity" => self.stored(node.input(0)?),
            _ => None,
        }
    }

    /// The initializer behind an operand.
    pub fn weight(&self, value: &'o str) -> Option<Weight<'o>> {
        if self.outline.initializers.contains_key(value) {
            return Some(Weight { name: value, is_transposed: false });
        }
        let node = self.node(self.maker(value)?);
        match node.op_type.as_str() {
            "Identity" => self.weight(node.input(0)?),
            "Transpose" if self.shape(value).len() == 2 && node.ints("perm").is_none_or(|p| p == [1, 0]) => {
                let weight = self.weight(node.input(0)?)?;
                Some(Weight { is_transposed: !weight.is_transposed, ..weight })
            }
            _ => None,
        }
    }

    /// Refuses what a node has.
    pub fn refuse(&self, at: usize, found: impl Into<String>, supported: &'static str) -> Diagnostic {
        let node = self.node(at);
        let problem = MergeProblem::Form { op_type: node.op_type.clone(), found: found.into(), supported };
        Diagnostic::new(node.label.clone(), Problem::Merge(problem))
    }
}

/// `axis` of a value with `rank` axes, counted from the front.
pub fn axis(axis: i64, rank: usize) -> Option<usize> {
    let resolved = if axis < 0 { axis.checked_add(rank as i64)? } else { axis };
    usize::try_from(resolved).ok().filter(|&axis| axis < rank)
}
