//! One ONNX node with its operands at hand.

use std::collections::BTreeMap;

use onnx_protobuf::{AttributeProto, NodeProto};

use super::context::Operand;
use super::problem::ImportProblem;
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::Constant;

/// Most that a message repeats of the model.
const MAX_FOUND_BYTES: usize = 256;

/// A node's attributes by name; a function's parameter may stand under another name than its own.
pub(super) type Attributes<'m> = BTreeMap<&'m str, &'m AttributeProto>;

/// A node being translated.
pub(super) struct OnnxNode<'m> {
    pub op_type: String,
    /// Its name, or its first output's, for diagnostics.
    pub label: String,
    /// The opset of the model or function.
    pub opset: i64,
    pub outputs: usize,
    /// Whether something uses each output.
    pub used: Vec<bool>,
    /// The tensor of attribute `value`, which the file holds.
    pub value: Option<Constant>,
    inputs: Vec<Option<Operand>>,
    attributes: Attributes<'m>,
}

impl<'m> OnnxNode<'m> {
    pub fn new(
        op_type: &str,
        label: &str,
        opset: i64,
        inputs: Vec<Option<Operand>>,
        used: Vec<bool>,
        attributes: Attributes<'m>,
    ) -> OnnxNode<'m> {
        OnnxNode {
            op_type: op_type.into(),
            label: label.into(),
            opset,
            outputs: used.len(),
            used,
            value: None,
            inputs,
            attributes,
        }
    }

    /// Operand `index`, if given.
    pub fn input(&self, index: usize) -> Option<&Operand> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// How many operands are named, left out or not.
    pub fn count(&self) -> usize {
        self.inputs.len()
    }

    /// Operand `index`, which ONNX requires.
    pub fn need(&self, index: usize) -> Result<&Operand, Diagnostic> {
        self.input(index).ok_or_else(|| {
            self.invalid(format!("{} operands", self.count()), "all operands that ONNX requires")
        })
    }

    /// All operands, none of which may be left out.
    pub fn all(&self) -> Result<Vec<&Operand>, Diagnostic> {
        (0..self.inputs.len().max(1)).map(|index| self.need(index)).collect()
    }

    fn attribute(&self, name: &str) -> Option<&'m AttributeProto> {
        self.attributes.get(name).copied()
    }

    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.int(name, i64::from(default)) != 0
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |attribute| attribute.f)
    }

    pub fn ints(&self, name: &str) -> Option<&'m [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub fn floats(&self, name: &str) -> Option<&'m [f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.attribute(name).map(|attribute| String::from_utf8_lossy(&attribute.s).into_owned())
    }

    /// That the node breaks ONNX's rules: what it has, and what would work.
    pub fn invalid(&self, found: impl Into<String>, needed: &'static str) -> Diagnostic {
        let (op_type, found) = (self.op_type.clone(), shortened(found.into()));
        let problem = ImportProblem::Invalid { op_type, found, needed };
        Diagnostic::new(self.label.clone(), Problem::Import(problem))
    }

    /// That the node is of a form that is not supported: what it has, and what would work.
    pub fn form(&self, found: impl Into<String>, supported: &'static str) -> Diagnostic {
        let (op_type, found) = (self.op_type.clone(), shortened(found.into()));
        let problem = ImportProblem::Form { op_type, found, supported };
        Diagnostic::new(self.label.clone(), Problem::Import(problem))
    }

    /// `axis` of a tensor with `rank` axes, counted from the front.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Diagnostic> {
        let limit = rank as i64;
        let resolved = if axis < 0 { axis.checked_add(limit) } else { Some(axis) };
        match resolved {
            Some(resolved) if (0..limit).contains(&resolved) => Ok(resolved as usize),
            _ => Err(self.invalid(format!("axis {axis} for {rank} axes"), "an axis of the operand")),
        }
    }

    /// Distinct `axes` of a tensor with `rank` axes, sorted.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Diagnostic> {
        if axes.len() > rank {
            return Err(
                self.invalid(format!("{} axes for {rank}", axes.len()), "distinct axes of the operand")
            );
        }
        let mut resolved = axes.iter().map(|&axis| self.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?;
        resolved.sort_unstable();
        if resolved.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.invalid(format!("axes {axes:?}"), "distinct axes"));
        }
        Ok(resolved)
    }

    /// A non-negative length.
    pub fn length(&self, value: i64, what: &str) -> Result<usize, Diagnostic> {
        usize::try_from(value).map_err(|_| self.invalid(format!("{what} {value}"), "no negative length"))
    }
}

/// The beginning of what a model says, enough for a message.
fn shortened(mut found: String) -> String {
    if found.len() > MAX_FOUND_BYTES {
        found.truncate(found.floor_char_boundary(MAX_FOUND_BYTES));
        found.push('…');
    }
    found
}

/// The node's name, or its first output's.
pub(super) fn label(proto: &NodeProto) -> String {
    if proto.name.is_empty() { proto.output.first().cloned().unwrap_or_default() } else { proto.name.clone() }
}
