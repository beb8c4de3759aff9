//! Counterparts of weights that differ from the base model, by where they stand: both graphs' uses of weights, in
//! order, are aligned as two sequences.

use std::collections::{BTreeMap, BTreeSet};

use super::{Status, weights_of};
use crate::ir::{Graph, ValueId};
use crate::ownership::is_constant;

/// A weight where it is first used.
struct Use {
    weight: ValueId,
    /// The operation and the operand's position.
    role: (&'static str, usize),
}

fn uses(graph: &Graph) -> Vec<Use> {
    let weights: BTreeSet<ValueId> = weights_of(graph).into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut uses = Vec::new();
    for id in graph.topological() {
        let Some(op) = graph.op(id).filter(|_| !is_constant(graph, id)) else { continue };
        for (position, arg) in graph.args(id).into_iter().enumerate() {
            if weights.contains(&arg) && seen.insert(arg) {
                uses.push(Use { weight: arg, role: (op.name(), position) });
            }
        }
    }
    uses
}

/// Pairs of a differing weight and the base model's weight in its place, of equal shape.
pub(super) fn counterparts(
    graph: &Graph,
    base: &Graph,
    found: &BTreeMap<ValueId, Status>,
    differing: &BTreeSet<ValueId>,
) -> Vec<(ValueId, ValueId)> {
    let (ours, theirs) = (uses(graph), uses(base));
    let score = |a: &Use, b: &Use| -> u32 {
        if a.role != b.role || graph.shape(a.weight) != base.shape(b.weight) {
            return 0;
        }
        let same_name = graph.node(a.weight).name == base.node(b.weight).name;
        match found.get(&a.weight) {
            Some(Status::Published { in_base }) => {
                // An anchor: equal contents align, and nothing else with them.
                if in_base.len() == 1 && in_base[0] == base.node(b.weight).name { 8 } else { 0 }
            }
            _ => 2 + u32::from(same_name),
        }
    };
    let width = theirs.len() + 1;
    let mut best = vec![0u32; (ours.len() + 1) * width];
    for i in (0..ours.len()).rev() {
        for j in (0..theirs.len()).rev() {
            let skipped = best[(i + 1) * width + j].max(best[i * width + j + 1]);
            let score = score(&ours[i], &theirs[j]);
            let taken = if score > 0 { score + best[(i + 1) * width + j + 1] } else { 0 };
            best[i * width + j] = skipped.max(taken);
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < ours.len() && j < theirs.len() {
        let score = score(&ours[i], &theirs[j]);
        let here = best[i * width + j];
        if score > 0 && here == score + best[(i + 1) * width + j + 1] {
            if differing.contains(&ours[i].weight) {
                pairs.push((ours[i].weight, theirs[j].weight));
            }
            (i, j) = (i + 1, j + 1);
        } else if here == best[(i + 1) * width + j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
