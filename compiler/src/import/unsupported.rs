//! The nodes of a model that cannot be translated, told all at once.

use std::collections::BTreeMap;
use std::fmt;

/// Most nodes that the text names per operator; it counts them all.
const MAX_NAMED: usize = 32;
/// Most operators that the text names.
const MAX_OPERATORS: usize = 64;

/// A node that the compiler cannot translate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// ONNX operator.
    pub op_type: String,
    /// Its domain, "" for ONNX's own.
    pub domain: String,
    /// The node's name, or its first output's; after those of the calls that it lies in.
    pub node: String,
    /// Position among the nodes of the graph, function or branch that holds it, from 0.
    pub index: usize,
    /// Which function or branch holds it, "" for the graph.
    pub place: String,
    /// Its first output that somebody needs.
    pub output: String,
    /// Why not, where the operator alone does not say it.
    pub reason: Option<String>,
}

/// Every node of a model that the compiler cannot translate and that an output needs, in the order of evaluation.
/// What stands behind an `If` that is itself unsupported is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unsupported {
    /// The nodes, at least one.
    pub nodes: Vec<UnsupportedNode>,
    /// The model's opset of ONNX's own domain.
    pub opset: i64,
}

impl Unsupported {
    fn by_operator(&self) -> BTreeMap<(&str, &str), Vec<&UnsupportedNode>> {
        let mut groups: BTreeMap<(&str, &str), Vec<&UnsupportedNode>> = BTreeMap::new();
        for node in &self.nodes {
            groups.entry((&node.domain, &node.op_type)).or_default().push(node);
        }
        groups
    }

    /// What the user can do about it.
    pub(super) fn help(&self) -> String {
        let mut advice = Vec::new();
        if self.nodes.iter().any(|node| !node.domain.is_empty() && node.reason.is_none()) {
            advice
                .push("export without operators of other domains, before any runtime-specific optimisation");
        }
        if self.nodes.iter().any(|node| node.reason.is_some()) {
            advice.push("change what is said of single nodes");
        }
        advice.push("supported operators are listed in docs/onnx-support.md");
        advice.join("; ")
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.by_operator();
        let (nodes, operators) = (count(self.nodes.len(), "node"), count(groups.len(), "operator"));
        write!(f, "{nodes} of {operators} cannot be translated (opset {}):", self.opset)?;
        for (&(domain, op_type), nodes) in groups.iter().take(MAX_OPERATORS) {
            let dot = if domain.is_empty() { "" } else { "." };
            write!(f, "\n  {domain}{dot}{op_type}, {}", count(nodes.len(), "node"))?;
            for node in nodes.iter().take(MAX_NAMED) {
                write!(f, "\n    node {}", node.index)?;
                if !node.place.is_empty() {
                    write!(f, " of {}", node.place)?;
                }
                write!(f, " \"{}\", output \"{}\"", node.node, node.output)?;
                if let Some(reason) = &node.reason {
                    write!(f, ": {reason}")?;
                }
            }
            if nodes.len() > MAX_NAMED {
                write!(f, "\n    and {} more", nodes.len() - MAX_NAMED)?;
            }
        }
        if groups.len() > MAX_OPERATORS {
            write!(f, "\n  and {} more", count(groups.len() - MAX_OPERATORS, "operator"))?;
        }
        Ok(())
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
