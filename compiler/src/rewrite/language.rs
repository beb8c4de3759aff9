//! The terms of the e-graph: leaves by number, so that no two constants are ever merged by content, and operations.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use egg::{Id, Language};
use marill_plaintext::Op;

/// An operation, ordered and hashed by its text.
#[derive(Clone, Debug)]
pub struct Symbol(Arc<(Op, String)>);

impl Symbol {
    /// The operation.
    pub fn op(&self) -> &Op {
        &self.0.0
    }

    fn text(&self) -> &str {
        &self.0.1
    }
}

impl From<Op> for Symbol {
    fn from(op: Op) -> Symbol {
        let text = op.to_string();
        Symbol(Arc::new((op, text)))
    }
}

impl PartialEq for Symbol {
    fn eq(&self, other: &Symbol) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Symbol {}

impl PartialOrd for Symbol {
    fn partial_cmp(&self, other: &Symbol) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Symbol {
    fn cmp(&self, other: &Symbol) -> Ordering {
        self.text().cmp(other.text())
    }
}

impl Hash for Symbol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

/// What a term is, operands aside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// An input or constant, by its number in [`super::analysis::Known`].
    Leaf(u32),
    /// A public f32 that a rule computed, as its bits; its shape is `[]`.
    Scalar(u32),
    /// An operation on the operands.
    Apply(Symbol),
}

/// One e-node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// What it is.
    pub head: Head,
    /// Classes of the operands.
    pub operands: Vec<Id>,
}

impl Term {
    /// The operation, if it is one.
    pub fn op(&self) -> Option<&Op> {
        match &self.head {
            Head::Apply(symbol) => Some(symbol.op()),
            _ => None,
        }
    }
}

impl Language for Term {
    type Discriminant = &'static str;

    fn discriminant(&self) -> &'static str {
        match &self.head {
            Head::Leaf(_) => "leaf",
            Head::Scalar(_) => "scalar",
            Head::Apply(symbol) => symbol.op().name(),
        }
    }

    fn matches(&self, other: &Term) -> bool {
        self.head == other.head && self.operands.len() == other.operands.len()
    }

    fn children(&self) -> &[Id] {
        &self.operands
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.operands
    }
}
