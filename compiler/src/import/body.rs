//! Lists of nodes: the model's graph, a local function's, a branch's. What their results need, and how large they are.

use std::collections::{BTreeMap, BTreeSet};

use onnx_protobuf::{FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::problem::ImportProblem;
use crate::diagnostic::{Diagnostic, Problem};

/// Nodes, and the tensors beside them.
pub(super) struct Body<'m> {
    pub nodes: &'m [NodeProto],
    pub initializers: &'m [TensorProto],
    /// Names of the results that somebody needs.
    pub results: Vec<&'m str>,
    /// What this is, for diagnostics; "" for the model's graph.
    pub place: String,
}

/// A node that a result needs.
pub(super) struct LiveNode<'m> {
    /// Position in the file.
    pub index: usize,
    pub proto: &'m NodeProto,
    /// Names that it reads, those that its branches take from around it included.
    pub reads: Vec<&'m str>,
}

impl<'m> Body<'m> {
    pub fn of_graph(graph: &'m GraphProto, results: Vec<&'m str>, place: String) -> Body<'m> {
        Body { nodes: &graph.node, initializers: &graph.initializer, results, place }
    }

    /// Nodes that the results need, in the file's order.
    pub fn live(&self) -> Vec<LiveNode<'m>> {
        let mut needed: BTreeSet<&str> = self.results.iter().copied().collect();
        let mut live = Vec::new();
        // ONNX requires nodes in topological order, so one pass backwards suffices.
        for (index, proto) in self.nodes.iter().enumerate().rev() {
            if proto.output.iter().any(|name| !name.is_empty() && needed.contains(name.as_str())) {
                let mut reads = Vec::new();
                node_reads(proto, &mut reads);
                needed.extend(&reads);
                live.push(LiveNode { index, proto, reads });
            }
        }
        live.reverse();
        live
    }

    /// How large the body is, in fields of the file.
    pub fn fields(&self) -> usize {
        self.initializers.len() + self.nodes.iter().map(node_fields).sum::<usize>()
    }
}

fn node_reads<'m>(node: &'m NodeProto, reads: &mut Vec<&'m str>) {
    reads.extend(node.input.iter().map(String::as_str));
    for graph in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
        graph.node.iter().for_each(|node| node_reads(node, reads));
        reads.extend(graph.output.iter().map(|output| output.name.as_str()));
    }
}

fn node_fields(node: &NodeProto) -> usize {
    let nested = |graph: &GraphProto| {
        graph.initializer.len() + graph.output.len() + graph.node.iter().map(node_fields).sum::<usize>()
    };
    let attributes = node.attribute.iter().map(|attribute| 1 + attribute.g.as_ref().map_or(0, nested));
    1 + node.input.len() + node.output.len() + attributes.sum::<usize>()
}

/// What a local function is called by: domain, name and overload.
pub(super) type Key<'m> = (&'m str, &'m str, &'m str);

/// The model's local functions.
pub(super) type Functions<'m> = BTreeMap<Key<'m>, &'m FunctionProto>;

pub(super) fn functions(model: &ModelProto) -> Result<Functions<'_>, Diagnostic> {
    let mut functions = Functions::new();
    for function in &model.functions {
        let key = (canonical(&function.domain), function.name.as_str(), function.overload.as_str());
        if functions.insert(key, function).is_some() {
            return Err(Diagnostic::new(spelled(key), Problem::Import(ImportProblem::Redefined)));
        }
    }
    Ok(functions)
}

/// A function or operator with its domain.
pub(super) fn spelled((domain, name, overload): Key) -> String {
    let separated = |part: &str, separator: &str| if part.is_empty() { "" } else { separator }.to_owned();
    format!("{domain}{}{name}{}{overload}", separated(domain, "."), separated(overload, ":"))
}

/// ONNX's own domain has two names.
pub(super) fn canonical(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
