//! Checks the graph's invariants after every stage. A failure is the compiler's fault.
//!
//! - acyclic, argument positions complete;
//! - every operation's type is what it infers from its operands, every constant's is its own;
//! - inputs are listed once, under distinct names; outputs exist and are revealed to somebody;
//! - facts rest on each other: an operation has an owner only if its operands have, an encoding only with an owner.

use std::collections::BTreeMap;

use petgraph::Direction::Incoming;
use petgraph::algo::is_cyclic_directed;

use super::{Graph, NodeKind, Owner, ValueId};
use crate::diagnostic::Bug;
use marill_plaintext::{TensorType, infer};

/// Checks every invariant.
///
/// # Errors
/// The first one that is broken.
pub fn verify(graph: &Graph) -> Result<(), Bug> {
    verify_interface(graph)?;
    if is_cyclic_directed(&graph.dag) {
        return Err(Bug::Cycle);
    }
    for id in graph.dag.node_indices() {
        verify_type(graph, id)?;
        verify_facts(graph, id)?;
    }
    Ok(())
}

fn verify_interface(graph: &Graph) -> Result<(), Bug> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for &id in &graph.inputs {
        if let Some(node) = graph.dag.node_weight(id) {
            counts.entry(&node.name).or_default().0 += 1;
        }
    }
    for node in graph.dag.node_weights() {
        if matches!(node.kind, NodeKind::Input) {
            counts.entry(&node.name).or_default().1 += 1;
        }
    }
    if let Some((name, &(listed, present))) = counts.iter().find(|(_, count)| **count != (1, 1)) {
        return Err(Bug::Inputs { name: (*name).to_owned(), listed, present });
    }
    for output in &graph.outputs {
        if !graph.dag.contains_node(output.value) {
            return Err(Bug::MissingOutput { name: output.name.clone() });
        }
        if output.reveal_to == Owner::Shared {
            return Err(Bug::UnrevealedOutput { name: output.name.clone() });
        }
    }
    Ok(())
}

fn verify_type(graph: &Graph, id: ValueId) -> Result<(), Bug> {
    let node = graph.node(id);
    let mut found: Vec<usize> = graph.dag.edges_directed(id, Incoming).map(|edge| *edge.weight()).collect();
    found.sort_unstable();
    if found.iter().enumerate().any(|(expected, &position)| expected != position)
        || (graph.op(id).is_none() && !found.is_empty())
    {
        return Err(Bug::Positions { node: node.name.clone(), found });
    }
    let expected = match &node.kind {
        NodeKind::Input => return Ok(()),
        NodeKind::Constant(constant) => constant.ty().clone(),
        NodeKind::Apply(op) => {
            let types: Vec<TensorType> =
                graph.args(id).into_iter().map(|arg| graph.ty(arg).clone()).collect();
            infer(op, &types).map_err(|source| Bug::Operands { node: node.name.clone(), source })?
        }
    };
    if expected != node.facts.ty {
        return Err(Bug::Type { node: node.name.clone(), expected, found: node.facts.ty.clone() });
    }
    Ok(())
}

fn verify_facts(graph: &Graph, id: ValueId) -> Result<(), Bug> {
    let node = graph.node(id);
    let early = |fact, missing| Err(Bug::EarlyFact { node: node.name.clone(), fact, missing });
    let facts = &node.facts;
    if facts.owner.is_some() && graph.args(id).iter().any(|&arg| graph.node(arg).facts.owner.is_none()) {
        return early("an owner", "the owner of an operand");
    }
    if facts.encoding.is_some() && facts.owner.is_none() {
        return early("an encoding", "its owner");
    }
    match facts.range {
        Some(range) if range.min.is_nan() || range.max.is_nan() || range.min > range.max => {
            Err(Bug::Range { node: node.name.clone(), min: range.min, max: range.max })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Encoding, Range};
    use marill_plaintext::{DType, Op};

    fn sample() -> (Graph, ValueId, ValueId) {
        let mut graph = Graph::default();
        let x = graph.add_input("x", TensorType { dtype: DType::F32, shape: vec![2, 3] });
        let y = graph.apply(Op::Sub, &[x, x], "y").unwrap();
        graph.add_output("y", y, Owner::Client);
        assert!(verify(&graph).is_ok());
        (graph, x, y)
    }

    #[test]
    fn each_broken_invariant_is_found() {
        let (mut graph, x, y) = sample();
        graph.dag.add_edge(y, x, 0);
        assert!(matches!(verify(&graph), Err(Bug::Cycle)));

        let (mut graph, x, y) = sample();
        graph.dag.add_edge(x, y, 3);
        assert!(matches!(verify(&graph), Err(Bug::Positions { .. })));

        let (mut graph, x, y) = sample();
        graph.dag.add_edge(x, y, 2);
        assert!(matches!(verify(&graph), Err(Bug::Operands { .. })));

        let (mut graph, _, y) = sample();
        graph.node_mut(y).facts.ty.shape = vec![3, 2];
        assert!(matches!(verify(&graph), Err(Bug::Type { .. })));

        let (mut graph, x, _) = sample();
        graph.inputs.push(x);
        assert!(matches!(verify(&graph), Err(Bug::Inputs { listed: 2, present: 1, .. })));

        let (mut graph, _, y) = sample();
        graph.dag.remove_node(y);
        assert!(matches!(verify(&graph), Err(Bug::MissingOutput { .. })));

        let (mut graph, _, _) = sample();
        graph.outputs[0].reveal_to = Owner::Shared;
        assert!(matches!(verify(&graph), Err(Bug::UnrevealedOutput { .. })));

        let (mut graph, _, y) = sample();
        graph.node_mut(y).facts.owner = Some(Owner::Client);
        assert!(matches!(verify(&graph), Err(Bug::EarlyFact { .. })));

        let (mut graph, x, _) = sample();
        graph.node_mut(x).facts.encoding = Some(Encoding { width_bits: 40, frac_bits: 16 });
        assert!(matches!(verify(&graph), Err(Bug::EarlyFact { .. })));

        let (mut graph, x, _) = sample();
        graph.node_mut(x).facts.range = Some(Range { min: 1.0, max: -1.0 });
        assert!(matches!(verify(&graph), Err(Bug::Range { .. })));
    }
}
