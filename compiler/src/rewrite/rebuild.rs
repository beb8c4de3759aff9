//! The chosen forms as a graph.

use std::collections::BTreeMap;

use egg::Id;

use super::Space;
use super::extract::{Choice, Forms};
use super::language::Head;
use crate::diagnostic::Diagnostic;
use crate::ir::{Facts, Graph, NodeKind, Owner, ValueId};
use marill_plaintext::Tensor;

/// Builds what the outputs need. Inputs stay, used or not; a value that was in the graph keeps its name and range, a
/// new one has the name of the value that it was first needed for.
pub(super) fn rebuild(
    old: &Graph,
    space: &Space,
    forms: &Forms,
    choice: &Choice,
) -> Result<Graph, Diagnostic> {
    let mut origins: BTreeMap<Id, ValueId> = BTreeMap::new();
    for value in old.topological() {
        origins.entry(space.classes.find(space.values[&value])).or_insert(value);
    }
    let mut builder =
        Builder { old, space, forms, choice, origins, graph: Graph::default(), built: BTreeMap::new() };
    for &input in &old.inputs {
        let place = forms.place(&space.classes, space.values[&input]);
        let node = old.node(input);
        let id = builder.graph.add_input(node.name.clone(), node.facts.ty.clone());
        builder.keep_facts(id, &node.facts);
        builder.built.insert(place, id);
    }
    for (output, &root) in old.outputs.iter().zip(&space.roots) {
        let value = builder.build(forms.place(&space.classes, root), &output.name)?;
        builder.graph.add_output(output.name.clone(), value, output.reveal_to);
    }
    Ok(builder.graph)
}

struct Builder<'a> {
    old: &'a Graph,
    space: &'a Space,
    forms: &'a Forms,
    choice: &'a Choice,
    /// The first value of the old graph in each class.
    origins: BTreeMap<Id, ValueId>,
    graph: Graph,
    built: BTreeMap<u32, ValueId>,
}

impl Builder<'_> {
    fn keep_facts(&mut self, id: ValueId, facts: &Facts) {
        let kept = &mut self.graph.node_mut(id).facts;
        kept.owner = facts.owner;
        kept.range = facts.range;
    }

    fn name(&self, place: u32) -> Option<&str> {
        self.origins.get(&self.forms.id(place)).map(|&value| self.old.node(value).name.as_str())
    }

    /// Builds the class of an output and what it needs.
    fn build(&mut self, root: u32, output: &str) -> Result<ValueId, Diagnostic> {
        let mut path = vec![(root, self.name(root).unwrap_or(output).to_owned())];
        while let Some((place, name)) = path.last().cloned() {
            let Some((term, operands)) = self.forms.chosen(self.choice, place) else { break };
            let missing = operands.iter().find(|operand| !self.built.contains_key(operand));
            if let Some(&operand) = missing {
                path.push((operand, self.name(operand).unwrap_or(&name).to_owned()));
                continue;
            }
            path.pop();
            if self.built.contains_key(&place) {
                continue;
            }
            let args: Vec<ValueId> = operands.iter().map(|operand| self.built[operand]).collect();
            let id = match &term.head {
                Head::Leaf(number) => self.leaf(self.space.leaves[*number as usize]),
                Head::Scalar(bits) => {
                    let name = self.name(place).unwrap_or("scale").to_owned();
                    let id = self.graph.add_constant(name, Tensor::scalar_f32(f32::from_bits(*bits)));
                    self.graph.node_mut(id).facts.owner = Some(Owner::Public);
                    id
                }
                Head::Apply(symbol) => self.apply(place, symbol.op(), &args, name)?,
            };
            self.built.insert(place, id);
        }
        Ok(self.built[&root])
    }

    fn leaf(&mut self, value: ValueId) -> ValueId {
        let node = self.old.node(value);
        let id = match &node.kind {
            NodeKind::Constant(constant) => self.graph.add_constant(node.name.clone(), constant.clone()),
            _ => self.graph.add_input(node.name.clone(), node.facts.ty.clone()),
        };
        self.keep_facts(id, &node.facts);
        id
    }

    fn apply(
        &mut self,
        place: u32,
        op: &marill_plaintext::Op,
        args: &[ValueId],
        name: String,
    ) -> Result<ValueId, Diagnostic> {
        let id = match self.graph.apply(op.clone(), args, name.as_str()) {
            Ok(id) => id,
            Err(error) => return Err(Diagnostic::new(name, error)),
        };
        let owners = args.iter().map(|&arg| self.graph.node(arg).facts.owner.unwrap_or(Owner::Shared));
        let owner = Owner::of_result(op, owners);
        let range =
            self.origins.get(&self.forms.id(place)).and_then(|&value| self.old.node(value).facts.range);
        let facts = &mut self.graph.node_mut(id).facts;
        (facts.owner, facts.range) = (Some(owner), range);
        Ok(id)
    }
}
