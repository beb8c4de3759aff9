//! Stage 4: who may know each value.
//!
//! Precondition: a normalised graph. Postcondition: every value has an owner; an operation's owner is the join of its
//! operands' owners. Nothing else changes. Owners depend on the graph's structure alone, never on the elements of a
//! constant, so they tell nothing about private weights.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Graph, NodeKind, Owner, ValueId};
use marill_plaintext::{DType, Op};
use petgraph::Direction::Outgoing;
use petgraph::visit::EdgeRef;

/// Gives every value its owner: inputs as `owners` says by name, the client where it says nothing; constants as
/// [`constant_owner`] says; operations the join of their operands.
///
/// # Errors
/// If `owners` names an input that the graph does not have, or gives one to nobody.
pub fn assign(graph: &mut Graph, owners: &BTreeMap<String, Owner>) -> Result<(), Diagnostic> {
    let names: BTreeSet<&str> = graph.inputs.iter().map(|&id| graph.node(id).name.as_str()).collect();
    for (name, &owner) in owners {
        if !names.contains(name.as_str()) {
            let inputs = graph.inputs.iter().map(|&id| graph.node(id).name.clone()).collect();
            return Err(Diagnostic::new(name.clone(), Problem::UnknownInput { inputs }));
        }
        if owner == Owner::Shared {
            return Err(Diagnostic::new(name.clone(), Problem::UnownedInput));
        }
    }
    for id in graph.topological() {
        let owner = match &graph.node(id).kind {
            NodeKind::Input => owners.get(&graph.node(id).name).copied().unwrap_or(Owner::Client),
            NodeKind::Constant(_) => constant_owner(graph, id),
            NodeKind::Apply(op) => result_owner(graph, op, &graph.args(id)),
        };
        graph.node_mut(id).facts.owner = Some(owner);
    }
    Ok(())
}

/// The owner of a constant: the one that it has, as what was computed of configuration alone has from import on; or by
/// structure, because the elements of a private weight must not show in the program:
/// - integers and booleans are positions, masks and shapes: public, unless they become a factor of a product or rows to
///   look up, as weights do that are kept as integers;
/// - one f32 is a scale or an epsilon: public, unless it stands where a layer of width one has its weight or bias;
/// - tables of which every use, through data movement, is a rotary embedding's cosine or sine or a softmax's mask
///   are configuration, and so are frequencies of which such cosines and sines are computed: public;
/// - every other f32 constant is a weight: the server's.
pub fn constant_owner(graph: &Graph, id: ValueId) -> Owner {
    let ty = graph.ty(id);
    if let Some(owner) = graph.node(id).facts.owner {
        return owner;
    }
    if ty.dtype != DType::F32 {
        return if becomes_weight(graph, id) { Owner::Server } else { Owner::Public };
    }
    let is_scale =
        ty.len() == 1 && !uses(graph, id).any(|(user, position)| is_parameter(graph, id, user, position));
    if is_scale || is_table(graph, id) { Owner::Public } else { Owner::Server }
}

/// Whether the value depends on constants alone, and nothing is revealed on the way.
pub fn is_constant(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        match graph.node(id).kind {
            NodeKind::Input | NodeKind::Apply(Op::Reveal { .. }) => return false,
            NodeKind::Constant(_) => {}
            NodeKind::Apply(_) => pending.extend(graph.args(id).into_iter().filter(|&arg| seen.insert(arg))),
        }
    }
    true
}

fn result_owner(graph: &Graph, op: &Op, args: &[ValueId]) -> Owner {
    Owner::of_result(op, args.iter().filter_map(|&arg| graph.node(arg).facts.owner))
}

fn uses(graph: &Graph, id: ValueId) -> impl Iterator<Item = (ValueId, usize)> {
    graph.dag.edges_directed(id, Outgoing).map(|edge| (edge.target(), *edge.weight()))
}

/// Whether operand `position` of `user` is where a layer has a weight or bias, for an operand of one element.
fn is_parameter(graph: &Graph, id: ValueId, user: ValueId, position: usize) -> bool {
    match graph.op(user) {
        Some(Op::MatMul | Op::Conv { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. }) => true,
        Some(Op::Gather { .. } | Op::GatherNd { .. }) => position == 0,
        Some(Op::Add | Op::Sub) => {
            let has_axes = !graph.shape(id).is_empty();
            has_axes
                && graph.arg(user, 1 - position).is_some_and(|other| is_product_of_width_one(graph, other))
        }
        Some(op) if op.is_movement() => {
            uses(graph, user).any(|(next, at)| is_parameter(graph, user, next, at))
        }
        _ => false,
    }
}

fn is_product_of_width_one(graph: &Graph, mut id: ValueId) -> bool {
    while graph.op(id).is_some_and(Op::is_movement)
        && let Some(x) = graph.arg(id, 0)
    {
        id = x;
    }
    matches!(graph.op(id), Some(Op::MatMul | Op::Conv { .. })) && graph.shape(id).last() == Some(&1)
}

/// Whether the value is where a layer has its weight, once it is converted, scaled and moved by constants.
fn becomes_weight(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        for (user, position) in uses(graph, id) {
            let Some(op) = graph.op(user) else { continue };
            if matches!(op, Op::Gather { .. } | Op::GatherNd { .. }) && position > 0 {
                // Indices choose elements, they are none.
                continue;
            }
            if is_constant(graph, user) {
                let is_scaling = matches!(op, Op::Cast { .. } | Op::Add | Op::Sub | Op::Mul | Op::Div);
                if (is_scaling || op.is_movement()) && seen.insert(user) {
                    pending.push(user);
                }
            } else if graph.ty(id).dtype == DType::F32
                && matches!(op, Op::MatMul | Op::Conv { .. } | Op::Gather { .. } | Op::GatherNd { .. })
            {
                return true;
            }
        }
    }
    false
}

/// Whether every use of the value, through data movement and operations on constants, is a table's.
fn is_table(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    let mut used = false;
    while let Some(id) = pending.pop() {
        if graph.is_output(id) {
            return false;
        }
        for (user, position) in uses(graph, id) {
            match graph.op(user) {
                Some(Op::Rotary) if position > 0 => used = true,
                Some(Op::AttentionSoftmax) if position == 1 => used = true,
                Some(op)
                    if (op.is_movement() && (position == 0 || matches!(op, Op::Concat { .. })))
                        || is_angle(graph, user, position)
                        || is_constant(graph, user) =>
                {
                    if seen.insert(user) {
                        pending.push(user);
                    }
                }
                _ => return false,
            }
        }
    }
    used
}

/// Whether `user` makes angles, or their cosines and sines, of frequencies at `position` and of nothing else but
/// positions.
fn is_angle(graph: &Graph, user: ValueId, position: usize) -> bool {
    match graph.op(user) {
        Some(Op::Cast { .. } | Op::Cos | Op::Sin) => true,
        Some(Op::Mul | Op::MatMul) => {
            graph.arg(user, 1 - position).is_some_and(|other| is_of_positions(graph, other))
        }
        _ => false,
    }
}

/// Whether the value is computed of integer inputs and of integer or single constants alone, without any table.
fn is_of_positions(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        let ty = graph.ty(id);
        let is_allowed = match graph.node(id).kind {
            NodeKind::Input => ty.dtype != DType::F32,
            NodeKind::Constant(_) => ty.dtype != DType::F32 || ty.len() == 1,
            NodeKind::Apply(ref op) => {
                op.is_movement()
                    || matches!(op, Op::Cast { .. } | Op::Add | Op::Sub | Op::Mul | Op::CumSum { .. })
            }
        };
        if !is_allowed {
            return false;
        }
        pending.extend(graph.args(id).into_iter().filter(|&arg| seen.insert(arg)));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{self, TextOptions};

    fn owned(text: &str, owners: &[(&str, Owner)]) -> Result<String, Diagnostic> {
        let mut graph = ir::parse(text).unwrap();
        let owners = owners.iter().map(|&(name, owner)| (name.to_owned(), owner)).collect();
        assign(&mut graph, &owners)?;
        ir::verify(&graph).unwrap();
        Ok(ir::print(&graph, TextOptions::default()))
    }

    /// The owner that each line of the text ends in.
    fn last_words(printed: &str) -> Vec<&str> {
        printed.lines().filter_map(|line| line.split(" @").nth(1)).collect()
    }

    #[test]
    fn operations_join_their_operands() {
        let printed = owned(
            r#"
            %0 = input "x" : f32[2,4]
            %1 = input "y" : f32[2,4]
            %2 = input "z" : f32[2,4]
            %3 = constant "w" : f32[4,4] #0000000000000000
            %4 = constant "scale" : f32[] [0.5]
            %5 = neg(%3) : f32[4,4]
            %6 = mul(%0, %4) : f32[2,4]
            %7 = add(%6, %2) : f32[2,4]
            %8 = mat_mul(%7, %5) : f32[2,4]
            %9 = mat_mul(%1, %5) : f32[2,4]
            output "a" = %8 reveal=client
            output "b" = %9 reveal=server
            "#,
            &[("y", Owner::Server), ("z", Owner::Public)],
        )
        .unwrap();
        // x, y, z, scale, mul, add, w, neg, both products.
        let expected = "client server public public client client server server shared server";
        assert_eq!(last_words(&printed).join(" "), expected);
    }

    #[test]
    fn constants_are_owned_by_their_role() {
        let printed = owned(
            r#"
            %0 = input "x" : f32[1,3,4]
            %1 = input "positions" : i64[1,3]
            %2 = constant "cos" : f32[8,4] #0000000000000000
            %3 = gather{axis=0}(%2, %1) : f32[1,3,4]
            %5 = constant "angle" : f32[1,3,4] #0000000000000000
            %6 = sin(%5) : f32[1,3,4]
            %7 = rotary(%0, %3, %6) : f32[1,3,4]
            %8 = constant "ids" : i64[4] [0, 1, 2, 3]
            %9 = constant "table" : f32[9,4] #0000000000000000
            %10 = gather{axis=0}(%9, %8) : f32[4,4]
            %11 = mat_mul(%7, %10) : f32[1,3,4]
            %12 = constant "weight of width one" : f32[4,1] #0000000000000000
            %13 = mat_mul(%11, %12) : f32[1,3,1]
            %14 = constant "bias of width one" : f32[1] [0.25]
            %15 = add(%13, %14) : f32[1,3,1]
            %16 = constant "factor" : f32[1] [0.25]
            %17 = mul(%15, %16) : f32[1,3,1]
            output "y" = %17 reveal=client
            output "angle" = %5 reveal=client
            "#,
            &[],
        )
        .unwrap();
        for (name, owner) in [
            ("cos", "public"),
            // Also an output, so not only configuration.
            ("angle", "server"),
            ("ids", "public"),
            ("table", "server"),
            ("weight of width one", "server"),
            ("bias of width one", "server"),
            ("factor", "public"),
        ] {
            let line = printed.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap();
            assert!(line.ends_with(&format!("@{owner}")), "{line}");
        }
    }

    #[test]
    fn unknown_and_unowned_inputs_are_named() {
        let text = "%0 = input \"x\" : f32[2]\noutput \"y\" = %0 reveal=client";
        let error = owned(text, &[("X", Owner::Client)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "[unknown-input] at \"X\": the model has no such input\nhelp: its inputs are: x"
        );
        let error = owned(text, &[("x", Owner::Shared)]).unwrap_err();
        assert_eq!(error.code(), "unowned-input");
    }
}
