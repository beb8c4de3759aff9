//! Which shared values are opened for public linear work under their masks, rather than each result of that work.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, NodeKind, Owner, ValueId};
use crate::ownership::is_constant;
use crate::rewrite::analysis::Fact;
use crate::rewrite::cost::{CostModel, under_mask};

/// The values whose opening, wide enough for the work, is estimated to take less time than opening what comes of it.
pub(super) fn sources(graph: &Graph, cost: &CostModel) -> BTreeSet<ValueId> {
    let mut opened: BTreeMap<ValueId, f64> = BTreeMap::new();
    for id in graph.topological() {
        let NodeKind::Apply(op) = &graph.node(id).kind else { continue };
        if graph.node(id).facts.owner != Some(Owner::Shared) {
            continue;
        }
        let args = graph.args(id);
        let facts: Vec<Fact> = args.iter().map(|&arg| fact(graph, arg)).collect();
        let facts: Vec<&Fact> = facts.iter().collect();
        for (operand, opening) in cost.of(op, &facts, graph.ty(id)).openings {
            let paid_s = opened.entry(args[operand]).or_default();
            *paid_s = paid_s.max(cost.opening_s(graph.ty(args[operand]), opening));
        }
    }
    let mut served: BTreeMap<ValueId, f64> = BTreeMap::new();
    for (&id, paid_s) in &opened {
        *served.entry(source(graph, id)).or_default() += paid_s;
    }
    let is_cheaper =
        |(id, paid_s): (ValueId, f64)| (cost.wide_opening_s(graph.ty(id)) < paid_s).then_some(id);
    served.into_iter().filter_map(is_cheaper).collect()
}

/// The value that public linear work made `id` of.
fn source(graph: &Graph, mut id: ValueId) -> ValueId {
    while let Some(op) = graph.op(id) {
        let args = graph.args(id);
        let facts: Vec<Fact> = args.iter().map(|&arg| fact(graph, arg)).collect();
        let facts: Vec<&Fact> = facts.iter().collect();
        let Some(operand) = under_mask(op, &facts, &fact(graph, id)) else { break };
        id = args[operand];
    }
    id
}

fn fact(graph: &Graph, id: ValueId) -> Fact {
    let is_constant = is_constant(graph, id);
    let owner = graph.node(id).facts.owner.unwrap_or(Owner::Server);
    // Whatever it is: only that it is a public number matters here.
    let is_scalar = is_constant && owner == Owner::Public && graph.ty(id).len() == 1;
    Fact {
        ty: graph.ty(id).clone(),
        owner,
        is_constant,
        scalar: is_scalar.then_some(1.0),
        is_injective: false,
    }
}
