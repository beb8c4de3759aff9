//! The graph itself: a petgraph DAG whose nodes are values and whose edges carry argument positions.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;

use super::{Constant, Facts, Owner};
use marill_plaintext::{Op, OpError, TensorType, infer};

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
    /// Where it comes from.
    pub kind: NodeKind,
    /// The exporter's name for the value, for diagnostics; unique names are not required except for inputs.
    pub name: String,
    /// What is known about it.
    pub facts: Facts,
}

/// A graph output and who learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The model's name for it.
    pub name: String,
    /// The value disclosed.
    pub value: ValueId,
    /// Filled in by the request: `Client`, `Server` or `Public` (both).
    pub reveal_to: Owner,
}

/// A dataflow graph. Edges run from argument to user; an edge's weight is the argument's position.
///
/// Methods that take a [`ValueId`] panic, as indexing does, if it is not of this graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Values and their uses.
    pub dag: StableDiGraph<Node, usize, u32>,
    /// Inputs in the model's order.
    pub inputs: Vec<ValueId>,
    /// Outputs in the model's order.
    pub outputs: Vec<Output>,
}

impl Graph {
    /// Adds an input after those already there.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let id = self.add(NodeKind::Input, name.into(), ty);
        self.inputs.push(id);
        id
    }

    /// Adds a value known when compiling.
    pub fn add_constant(&mut self, name: impl Into<String>, constant: impl Into<Constant>) -> ValueId {
        let constant = constant.into();
        let ty = constant.ty().clone();
        self.add(NodeKind::Constant(constant), name.into(), ty)
    }

    /// Adds the result of `op` on `args`, its type inferred.
    ///
    /// # Errors
    /// If the operation does not accept operands of these types.
    pub fn apply(&mut self, op: Op, args: &[ValueId], name: impl Into<String>) -> Result<ValueId, OpError> {
        let types: Vec<TensorType> = args.iter().map(|&arg| self.ty(arg).clone()).collect();
        let ty = infer(&op, &types)?;
        let id = self.add(NodeKind::Apply(op), name.into(), ty);
        for (position, &arg) in args.iter().enumerate() {
            self.dag.add_edge(arg, id, position);
        }
        Ok(id)
    }

    /// Declares an output.
    pub fn add_output(&mut self, name: impl Into<String>, value: ValueId, reveal_to: Owner) {
        self.outputs.push(Output { name: name.into(), value, reveal_to });
    }

    fn add(&mut self, kind: NodeKind, name: String, ty: TensorType) -> ValueId {
        let facts = Facts { ty, owner: None, range: None, encoding: None };
        self.dag.add_node(Node { kind, name, facts })
    }

    /// The node behind a value.
    pub fn node(&self, id: ValueId) -> &Node {
        &self.dag[id]
    }

    /// The node behind a value, to change its facts or name.
    pub fn node_mut(&mut self, id: ValueId) -> &mut Node {
        &mut self.dag[id]
    }

    /// Type of a value.
    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.dag[id].facts.ty
    }

    /// Shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.dag[id].facts.ty.shape
    }

    /// The operation that makes a value, if it is neither an input nor a constant.
    pub fn op(&self, id: ValueId) -> Option<&Op> {
        match &self.dag[id].kind {
            NodeKind::Apply(op) => Some(op),
            _ => None,
        }
    }

    /// The constant behind a value.
    pub fn constant(&self, id: ValueId) -> Option<&Constant> {
        match &self.dag[id].kind {
            NodeKind::Constant(constant) => Some(constant),
            _ => None,
        }
    }

    /// Operands in order.
    pub fn args(&self, id: ValueId) -> Vec<ValueId> {
        let mut edges: Vec<(usize, ValueId)> =
            self.dag.edges_directed(id, Incoming).map(|edge| (*edge.weight(), edge.source())).collect();
        edges.sort_unstable();
        edges.into_iter().map(|(_, arg)| arg).collect()
    }

    /// Operand at a position.
    pub fn arg(&self, id: ValueId, position: usize) -> Option<ValueId> {
        self.dag
            .edges_directed(id, Incoming)
            .find(|edge| *edge.weight() == position)
            .map(|edge| edge.source())
    }

    /// The values that take this one as an operand, each once, oldest first. Outputs do not count.
    pub fn users(&self, id: ValueId) -> Vec<ValueId> {
        let users: BTreeSet<ValueId> = self.dag.neighbors_directed(id, Outgoing).collect();
        users.into_iter().collect()
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, id: ValueId) -> bool {
        self.outputs.iter().any(|output| output.value == id)
    }

    /// Makes every operand and output that is `old` be `new`, except operands of `new` itself. `new` must have the
    /// type of `old` and must not depend on another user of `old`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        debug_assert_eq!(self.ty(old), self.ty(new), "replacing {:?}", self.node(old).name);
        let mut uses: Vec<_> = self
            .dag
            .edges_directed(old, Outgoing)
            .map(|edge| (edge.id(), edge.target(), *edge.weight()))
            .collect();
        uses.sort_unstable();
        for (edge, user, position) in uses {
            if user != new {
                self.dag.remove_edge(edge);
                self.dag.add_edge(new, user, position);
            }
        }
        for output in &mut self.outputs {
            if output.value == old {
                output.value = new;
            }
        }
    }

    /// All values, operands before users: inputs in order, then what the outputs need, depth first with operands in
    /// order, then dead values. The order depends on the structure alone, dead values aside.
    pub fn topological(&self) -> Vec<ValueId> {
        let mut order = Vec::with_capacity(self.dag.node_count());
        let mut seen = vec![false; self.dag.node_indices().map(|id| id.index() + 1).max().unwrap_or(0)];
        let roots = self
            .inputs
            .iter()
            .copied()
            .chain(self.outputs.iter().map(|o| o.value))
            .chain(self.dag.node_indices());
        for root in roots {
            if std::mem::replace(&mut seen[root.index()], true) {
                continue;
            }
            let mut path = vec![(root, self.args(root).into_iter())];
            while let Some((id, pending)) = path.last_mut() {
                match pending.next() {
                    Some(arg) if std::mem::replace(&mut seen[arg.index()], true) => {}
                    Some(arg) => path.push((arg, self.args(arg).into_iter())),
                    None => {
                        order.push(*id);
                        path.pop();
                    }
                }
            }
        }
        order
    }

    /// Removes values that no output needs. Inputs stay: they are the model's interface.
    pub fn remove_dead(&mut self) {
        let mut live: BTreeSet<ValueId> = self.inputs.iter().copied().collect();
        let mut pending: Vec<ValueId> = self.outputs.iter().map(|output| output.value).collect();
        while let Some(id) = pending.pop() {
            if live.insert(id) {
                pending.extend(self.dag.neighbors_directed(id, Incoming));
            }
        }
        self.dag.retain_nodes(|_, id| live.contains(&id));
    }

    /// Renumbers the values in topological order, and returns the new number of each old one.
    pub fn compact(&mut self) -> BTreeMap<ValueId, ValueId> {
        let mut dag = StableDiGraph::with_capacity(self.dag.node_count(), self.dag.edge_count());
        let mut renumbered = BTreeMap::new();
        for old in self.topological() {
            let new = dag.add_node(self.dag[old].clone());
            for (position, arg) in self.args(old).into_iter().enumerate() {
                dag.add_edge(renumbered[&arg], new, position);
            }
            renumbered.insert(old, new);
        }
        self.dag = dag;
        for id in self.inputs.iter_mut().chain(self.outputs.iter_mut().map(|output| &mut output.value)) {
            *id = renumbered[id];
        }
        renumbered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marill_plaintext::DType;

    fn row(length: usize) -> TensorType {
        TensorType { dtype: DType::F32, shape: vec![length] }
    }

    #[test]
    fn operands_keep_their_order_even_when_repeated() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", row(4));
        let y = graph.apply(Op::Neg, &[x], "y").unwrap();
        let difference = graph.apply(Op::Sub, &[y, x], "d").unwrap();
        let square = graph.apply(Op::Mul, &[difference, difference], "s").unwrap();
        assert_eq!(graph.args(difference), [y, x]);
        assert_eq!(graph.args(square), [difference, difference]);
        assert_eq!(graph.users(x), [y, difference]);
        assert_eq!(graph.users(difference), [square]);
    }

    #[test]
    fn replacing_a_value_moves_operands_and_outputs_but_not_its_replacement() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", row(4));
        let y = graph.apply(Op::Exp, &[x], "y").unwrap();
        let z = graph.apply(Op::Mul, &[y, y], "z").unwrap();
        graph.add_output("y", y, Owner::Client);
        graph.add_output("z", z, Owner::Client);
        let wrapped = graph.apply(Op::Neg, &[y], "w").unwrap();
        graph.replace_uses(y, wrapped);
        assert_eq!(graph.args(wrapped), [y]);
        assert_eq!(graph.args(z), [wrapped, wrapped]);
        assert_eq!(graph.outputs[0].value, wrapped);
    }

    #[test]
    fn compacting_orders_operands_first_and_is_idempotent() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", row(4));
        let dead = graph.apply(Op::Exp, &[x], "dead").unwrap();
        let user = graph.apply(Op::Add, &[x, dead], "user").unwrap();
        let late = graph.apply(Op::Neg, &[x], "late").unwrap();
        graph.replace_uses(dead, late);
        graph.add_output("out", user, Owner::Client);
        graph.remove_dead();
        assert_eq!(graph.dag.node_count(), 3);
        let first = graph.compact();
        assert!(first[&late] < first[&user]);
        let again = graph.compact();
        assert!(again.iter().all(|(old, new)| old == new));
    }
}
