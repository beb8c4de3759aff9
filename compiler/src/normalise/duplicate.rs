//! Computes nothing twice: equal operations on equal operands, and equal public constants, become one value. Private
//! weights that happen to be equal stay apart, because the client sees the program and would learn that they are.

use std::collections::BTreeMap;

use super::pattern::substitute;
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, Owner, ValueId};
use crate::ownership::constant_owner;

pub(super) fn merge_duplicates(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut same_type: BTreeMap<String, usize> = BTreeMap::new();
    for node in graph.dag.node_weights() {
        if let NodeKind::Constant(constant) = &node.kind {
            *same_type.entry(constant.ty().to_string()).or_default() += 1;
        }
    }
    let mut changed = false;
    let mut constants: BTreeMap<[u8; 32], ValueId> = BTreeMap::new();
    let mut operations: BTreeMap<(String, Vec<ValueId>), ValueId> = BTreeMap::new();
    for id in graph.topological() {
        let first = match &graph.node(id).kind {
            NodeKind::Input => continue,
            NodeKind::Constant(constant) => {
                let is_alone = same_type[&constant.ty().to_string()] == 1;
                if is_alone || !constant.is_present() || constant_owner(graph, id) != Owner::Public {
                    continue;
                }
                *constants.entry(constant.digest()).or_insert(id)
            }
            NodeKind::Apply(op) => *operations.entry((op.to_string(), graph.args(id))).or_insert(id),
        };
        changed |= substitute(graph, id, first);
    }
    Ok(changed)
}
