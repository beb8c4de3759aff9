//! The graph itself: a petgraph DAG whose nodes are values and whose edges carry argument positions.

use petgraph::stable_graph::{NodeIndex, StableDiGraph};

use super::{Constant, Facts, Owner};
use marill_plaintext::Op;

/// Identifies a value (a node) of one [`Graph`].
pub type ValueId = NodeIndex<u32>;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A graph input; the node's name is the input's name.
    Input,
    /// Known when compiling: an initializer or a folded value.
    Constant(Constant),
    /// The result of an operation on the node's arguments.
    Apply(Op),
}

/// One value.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: NodeKind,
    /// The exporter's name for the value, for diagnostics; unique names are not required except for inputs.
    pub name: String,
    pub facts: Facts,
}

/// A graph output and who learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub value: ValueId,
    /// Filled in by the request: `Client`, `Server` or `Public` (both).
    pub reveal_to: Owner,
}

/// A dataflow graph. Edges run from argument to user; an edge's weight is the argument's position.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub dag: StableDiGraph<Node, usize, u32>,
    /// Inputs in the model's order.
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<Output>,
}
