//! The walk over a model's nodes. Local functions and the branches of an `If` that are taken stand in place of their
//! calls: each has names of its own, so nothing is renamed but the values that it makes.
//!
//! A node that cannot be translated does not end the walk: what depends on it is passed over, so that one message can
//! name every such node.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use marill_program::flow::is_hidden;
use onnx_protobuf::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto};

use super::body::{Body, Functions, Key, LiveNode, canonical, spelled};
use super::context::{Context, Operand};
use super::node::{self, Attributes, OnnxNode};
use super::problem::{ImportProblem, list};
use super::tensors::{self, Files};
use super::unsupported::{Unsupported, UnsupportedNode};
use super::wire::Payload;
use super::{ImportRequest, ops, value_type};
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Constant, Owner};

/// Most fields that the model has with functions and branches in place of their calls.
const MAX_FIELDS: usize = 1 << 20;
/// So many bytes of names count as one field.
const NAME_BYTES: usize = 32;
/// Most functions and branches within each other.
const MAX_DEPTH: usize = 64;

pub(super) struct Importer<'m> {
    pub context: Context,
    /// Every value of the model's graph by name, where somebody wants to look at the model itself.
    pub seen: Option<BTreeMap<String, Operand>>,
    scopes: Vec<Scope<'m>>,
    functions: Functions<'m>,
    /// The functions that are being walked, outermost first.
    calls: Vec<Key<'m>>,
    payloads: &'m [Payload],
    files: &'m mut Files,
    /// Tensors in functions' attributes by the number of their contents: they are the same at every call.
    held: BTreeMap<i64, Constant>,
    /// Fields that functions and branches may still have.
    fields_left: usize,
    unsupported: Vec<UnsupportedNode>,
    /// The first fault of another kind.
    fault: Option<Diagnostic>,
}

/// The values of one graph, function call or branch.
struct Scope<'m> {
    values: BTreeMap<&'m str, Slot>,
    /// How often each value is still to be used.
    uses: BTreeMap<&'m str, usize>,
    /// Whether the names around it may be used.
    is_open: bool,
    frame: Rc<Frame<'m>>,
}

/// What the nodes of a graph or function have in common, those in their branches included.
struct Frame<'m> {
    /// Stands before the names of values and nodes.
    prefix: String,
    opset: i64,
    /// The function's parameters that are attributes; `None` in the model's graph.
    parameters: Option<Attributes<'m>>,
}

#[derive(Clone)]
enum Slot {
    Value(Operand),
    /// A parameter that the call leaves out.
    Absent,
    /// What cannot be known because of a fault that is already recorded.
    Unknown,
}

/// Why a node has no results.
enum Failure {
    /// An operand has none.
    Unknown,
    /// It cannot be translated, for this reason if the operator alone does not say it.
    Unsupported(Option<String>),
    Fault(Diagnostic),
    /// Nothing more can be said about the model.
    Fatal(Diagnostic),
}

impl From<Diagnostic> for Failure {
    fn from(fault: Diagnostic) -> Failure {
        Failure::Fault(fault)
    }
}

/// A node and where it is.
struct Site<'m, 'b> {
    proto: &'m NodeProto,
    index: usize,
    place: &'b str,
    label: String,
    frame: Rc<Frame<'m>>,
}

impl Site<'_, '_> {
    fn refuse(&self, problem: ImportProblem) -> Diagnostic {
        Diagnostic::new(self.label.clone(), Problem::Import(problem))
    }

    fn invalid(&self, found: String, needed: &'static str) -> Diagnostic {
        self.refuse(ImportProblem::Invalid { op_type: self.proto.op_type.clone(), found, needed })
    }
}

impl<'m> Importer<'m> {
    pub fn new(
        functions: Functions<'m>,
        opset: i64,
        payloads: &'m [Payload],
        files: &'m mut Files,
    ) -> Importer<'m> {
        let frame = Frame { prefix: String::new(), opset, parameters: None };
        Importer {
            context: Context::default(),
            seen: None,
            scopes: vec![Scope::new(BTreeMap::new(), false, Rc::new(frame))],
            functions,
            calls: Vec::new(),
            payloads,
            files,
            held: BTreeMap::new(),
            fields_left: MAX_FIELDS,
            unsupported: Vec::new(),
            fault: None,
        }
    }

    /// Puts the model's graph into `context`. `name` is the model's in diagnostics.
    pub fn run(
        &mut self,
        graph: &'m GraphProto,
        request: &ImportRequest,
        name: &str,
    ) -> Result<(), Diagnostic> {
        let stored: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        // Before IR version 4 every initializer is an input too.
        for input in graph.input.iter().filter(|input| !stored.contains(input.name.as_str())) {
            let slot = match named(&input.name).and_then(|()| value_type(input, request)) {
                Ok(ty) => Slot::Value(self.context.input(&input.name, ty)),
                Err(fault) => self.blame(fault),
            };
            self.define(&input.name, slot);
        }
        let results = graph.output.iter().map(|output| output.name.as_str()).collect();
        self.walk(&Body::of_graph(graph, results, String::new()))?;
        let mut told: BTreeSet<&str> = BTreeSet::new();
        for output in &graph.output {
            let is_new = told.insert(&output.name);
            let slot = named(&output.name).and_then(|()| self.value(&output.name, &output.name));
            match slot {
                Ok(_) if !is_new => {
                    let twice = Problem::Import(ImportProblem::Redefined);
                    drop(self.blame(Diagnostic::new(output.name.clone(), twice)));
                }
                Ok(Slot::Value(value)) => {
                    let id = self.context.materialise(&value);
                    self.context.graph.add_output(output.name.clone(), id, Owner::Client);
                }
                Ok(Slot::Absent | Slot::Unknown) => {}
                Err(fault) => drop(self.blame(fault)),
            }
        }
        if !self.unsupported.is_empty() {
            let nodes = std::mem::take(&mut self.unsupported);
            let unsupported = Unsupported { nodes, opset: self.scopes[0].frame.opset };
            return Err(Diagnostic::new(name, Problem::Import(unsupported.into())));
        }
        self.fault.take().map_or(Ok(()), Err)
    }

    /// Defines what `body` makes in the innermost scope.
    fn walk(&mut self, body: &Body<'m>) -> Result<(), Diagnostic> {
        let live = body.live();
        let uses = &mut self.scope().uses;
        for name in live.iter().flat_map(|node| &node.reads).chain(&body.results) {
            *uses.entry(*name).or_default() += 1;
        }
        for tensor in body.initializers {
            if self.is_used(&tensor.name) {
                let slot = match tensors::constant(tensor, self.payloads, self.files, &tensor.name) {
                    Ok(constant) => {
                        let name = format!("{}{}", self.frame().prefix, tensor.name);
                        Slot::Value(self.context.stored(&name, constant))
                    }
                    Err(fault) => self.blame(fault),
                };
                self.define(&tensor.name, slot);
            }
        }
        for node in live {
            self.node(&node, &body.place)?;
            node.reads.iter().for_each(|name| self.release(name));
        }
        Ok(())
    }

    fn node(&mut self, node: &LiveNode<'m>, place: &str) -> Result<(), Diagnostic> {
        let proto = node.proto;
        let frame = self.frame();
        let label = format!("{}{}", frame.prefix, node::label(proto));
        let site = Site { proto, index: node.index, place, label, frame };
        let key = (canonical(&proto.domain), proto.op_type.as_str(), proto.overload.as_str());
        let results = match self.functions.get(&key).copied() {
            Some(function) => self.call(&site, key, function),
            None if (key.0, key.1) == ("", "If") => self.branch(&site),
            None => self.operator(&site),
        };
        let results = match results {
            Ok(results) => results,
            Err(Failure::Fatal(fault)) => return Err(fault),
            Err(failure) => {
                self.fail(&site, failure);
                Vec::new()
            }
        };
        for (index, name) in proto.output.iter().enumerate() {
            if self.is_used(name) {
                self.define(name, results.get(index).cloned().unwrap_or(Slot::Unknown));
            }
        }
        Ok(())
    }

    fn fail(&mut self, site: &Site<'m, '_>, failure: Failure) {
        match failure {
            Failure::Unknown => {}
            Failure::Unsupported(reason) => {
                let outputs = || site.proto.output.iter().filter(|name| !name.is_empty());
                let output = outputs().find(|name| self.is_used(name)).or(outputs().next());
                self.unsupported.push(UnsupportedNode {
                    op_type: site.proto.op_type.clone(),
                    domain: canonical(&site.proto.domain).into(),
                    node: site.label.clone(),
                    index: site.index,
                    place: site.place.into(),
                    output: output.cloned().unwrap_or_default(),
                    reason,
                });
            }
            Failure::Fault(fault) | Failure::Fatal(fault) => drop(self.blame(fault)),
        }
    }

    /// A node whose operator the table has.
    fn operator(&mut self, site: &Site<'m, '_>) -> Result<Vec<Slot>, Failure> {
        let Site { proto, frame, .. } = site;
        let domain = canonical(&proto.domain);
        let Some(operator) = ops::find(domain, &proto.op_type) else {
            let is_control = domain.is_empty() && ["Loop", "Scan"].contains(&proto.op_type.as_str());
            return Err(Failure::Unsupported(is_control.then(|| "repeats a graph, unroll it".into())));
        };
        if domain.is_empty() && operator.since > frame.opset {
            let reason = format!("exists from opset {} on, {} is used here", operator.since, frame.opset);
            return Err(Failure::Unsupported(Some(reason)));
        }
        let mut inputs = Vec::with_capacity(proto.input.len());
        for slot in self.operands(site)? {
            inputs.push(match slot {
                Slot::Value(value) => Some(value),
                Slot::Absent => None,
                Slot::Unknown => return Err(Failure::Unknown),
            });
        }
        let used: Vec<bool> = proto.output.iter().map(|name| self.is_used(name)).collect();
        let attributes = attributes(site)?;
        let value = attributes.get("value").and_then(|attribute| attribute.t.as_ref());
        let mut node = OnnxNode::new(&proto.op_type, &site.label, frame.opset, inputs, used, attributes);
        if let Some(tensor) = value {
            node.value = Some(self.held(tensor, &site.label)?);
        }
        let first = proto.output.iter().find(|name| !name.is_empty());
        let label = first.map_or_else(|| site.label.clone(), |name| format!("{}{name}", frame.prefix));
        self.context.set_label(label);
        let results = (operator.translate)(&mut self.context, &node)?;
        match (results.len()..proto.output.len()).find(|&index| node.used[index]) {
            Some(index) => Err(node.form(format!("output {index} in use"), "the outputs before it").into()),
            None => Ok(results.into_iter().map(Slot::Value).collect()),
        }
    }

    /// The tensor in an attribute.
    fn held(&mut self, tensor: &TensorProto, label: &str) -> Result<Constant, Diagnostic> {
        let number = tensor.segment.as_ref().filter(|_| !self.calls.is_empty()).map(|segment| segment.begin);
        if let Some(constant) = number.and_then(|number| self.held.get(&number)) {
            return Ok(constant.clone());
        }
        let constant = tensors::constant(tensor, self.payloads, self.files, label)?;
        self.held.extend(number.map(|number| (number, constant.clone())));
        Ok(constant)
    }

    /// A call of a local function.
    fn call(
        &mut self,
        site: &Site<'m, '_>,
        key: Key<'m>,
        function: &'m FunctionProto,
    ) -> Result<Vec<Slot>, Failure> {
        if let Some(start) = self.calls.iter().position(|&call| call == key) {
            let calls = self.calls[start + 1..].iter().map(|&call| spelled(call)).collect();
            return Err(Diagnostic::new(spelled(key), ImportProblem::Recursion { calls }).into());
        }
        let given = [site.proto.input.len(), site.proto.output.len()];
        let declared = [function.input.len(), function.output.len()];
        if given[0] > declared[0] || given[1] > declared[1] {
            let found = format!("{} operands and {} outputs", given[0], given[1]);
            return Err(site.invalid(found, "as many as the function has, or fewer").into());
        }
        let names = function.input.len() + function.output.len() + function.attribute_proto.len();
        self.spend(site, names)?;
        let mut operands = self.operands(site)?.into_iter();
        let mut values = BTreeMap::new();
        for name in &function.input {
            let slot = operands.next().unwrap_or(Slot::Absent);
            if values.insert(name.as_str(), slot).is_some() {
                return Err(Diagnostic::new(name.clone(), ImportProblem::Redefined).into());
            }
        }
        let mut parameters: Attributes<'m> =
            function.attribute_proto.iter().map(|default| (default.name.as_str(), default)).collect();
        parameters.extend(attributes(site)?);
        let opset = match super::own_opset(&function.opset_import) {
            None => site.frame.opset,
            Some(found) => super::checked_opset(found, &spelled(key))?,
        };
        let prefix = format!("{}/", site.label);
        let frame = Frame { prefix, opset, parameters: Some(parameters) };
        let results = self.needed(site, function.output.iter().map(String::as_str));
        let place = format!("function \"{}\"", spelled(key));
        let body = Body { nodes: &function.node, initializers: &[], results, place };
        self.calls.push(key);
        let results = self.enter(site, &body, Scope::new(values, false, Rc::new(frame)));
        self.calls.pop();
        results
    }

    /// An `If`: the branch that is taken, as if it stood in its place.
    fn branch(&mut self, site: &Site<'m, '_>) -> Result<Vec<Slot>, Failure> {
        let operands = self.operands(site)?;
        let condition = match operands.as_slice() {
            [Slot::Value(condition)] => condition,
            [Slot::Unknown] => return Err(Failure::Unknown),
            other => return Err(site.invalid(format!("{} operands", other.len()), "a condition").into()),
        };
        let Some(known) = condition.known() else {
            let sources = list(&self.context.sources(condition));
            let reason = format!("its condition is not known when compiling, it depends on {sources}");
            return Err(Failure::Unsupported(Some(reason)));
        };
        let taken = match known.as_bool().ok().map(|flags| flags.iter().copied().collect::<Vec<_>>()) {
            Some(flags) if flags.len() == 1 => flags[0],
            _ => return Err(site.invalid(format!("a condition {}", condition.ty), "one boolean").into()),
        };
        let name = if taken { "then_branch" } else { "else_branch" };
        let attributes = attributes(site)?;
        let Some(graph) = attributes.get(name).and_then(|attribute| attribute.g.as_ref()) else {
            return Err(site.invalid(format!("no {name}"), "a graph for each branch").into());
        };
        if graph.output.len() != site.proto.output.len() {
            let found = format!("{} outputs and {} of {name}", site.proto.output.len(), graph.output.len());
            return Err(site.invalid(found, "as many of each").into());
        }
        let results = self.needed(site, graph.output.iter().map(|output| output.name.as_str()));
        let body = Body::of_graph(graph, results, format!("{name} of \"{}\"", site.label));
        self.enter(site, &body, Scope::new(BTreeMap::new(), true, site.frame.clone()))
    }

    /// The names among `results` whose counterparts among the node's outputs are in use, "" for the others.
    fn needed(&self, site: &Site<'m, '_>, results: impl Iterator<Item = &'m str>) -> Vec<&'m str> {
        let is_needed = |index: usize| site.proto.output.get(index).is_some_and(|name| self.is_used(name));
        results.enumerate().map(|(index, name)| if is_needed(index) { name } else { "" }).collect()
    }

    /// Walks a function or branch in a scope of its own and gives its results.
    fn enter(
        &mut self,
        site: &Site<'m, '_>,
        body: &Body<'m>,
        scope: Scope<'m>,
    ) -> Result<Vec<Slot>, Failure> {
        if self.scopes.len() > MAX_DEPTH {
            return Err(too_large(site, MAX_DEPTH, "of them within each other"));
        }
        // Every node keeps names that start with the prefix.
        let names = (scope.frame.prefix.len() + body.place.len()) / NAME_BYTES;
        self.spend(site, body.fields().saturating_add(body.nodes.len().saturating_mul(names)))?;
        self.scopes.push(scope);
        self.walk(body).map_err(Failure::Fatal)?;
        let result = |name: &&'m str| match *name {
            "" => Ok(Slot::Absent),
            name => self.value(name, &site.label),
        };
        let results = body.results.iter().map(result).collect::<Result<Vec<Slot>, Diagnostic>>();
        self.scopes.pop();
        Ok(results?)
    }

    /// Counts the fields of something that stands in place of its call.
    fn spend(&mut self, site: &Site<'m, '_>, fields: usize) -> Result<(), Failure> {
        let left = self.fields_left.checked_sub(fields);
        self.fields_left = left.ok_or_else(|| too_large(site, MAX_FIELDS, "fields"))?;
        Ok(())
    }

    /// The node's operands, as many as it names.
    fn operands(&self, site: &Site<'m, '_>) -> Result<Vec<Slot>, Diagnostic> {
        let operand = |name: &String| match name.is_empty() {
            true => Ok(Slot::Absent),
            false => self.value(name, &site.label),
        };
        site.proto.input.iter().map(operand).collect()
    }

    fn scope(&mut self) -> &mut Scope<'m> {
        let innermost = self.scopes.len() - 1;
        &mut self.scopes[innermost]
    }

    fn frame(&self) -> Rc<Frame<'m>> {
        self.scopes[self.scopes.len() - 1].frame.clone()
    }

    /// Whether something in the innermost scope uses a value of this name.
    fn is_used(&self, name: &str) -> bool {
        !name.is_empty() && self.scopes.last().is_some_and(|scope| scope.uses.contains_key(name))
    }

    fn blame(&mut self, fault: Diagnostic) -> Slot {
        self.fault.get_or_insert(fault);
        Slot::Unknown
    }

    fn define(&mut self, name: &'m str, slot: Slot) {
        let is_outermost = self.scopes.len() == 1;
        if let (true, Some(seen), Slot::Value(value)) = (is_outermost, &mut self.seen, &slot) {
            seen.insert(name.to_owned(), value.clone());
        }
        let is_new = match self.scope().values.entry(name) {
            Entry::Vacant(place) => {
                place.insert(slot);
                true
            }
            Entry::Occupied(_) => false,
        };
        if !is_new {
            drop(self.blame(Diagnostic::new(name, Problem::Import(ImportProblem::Redefined))));
        }
    }

    fn value(&self, name: &str, user: &str) -> Result<Slot, Diagnostic> {
        for scope in self.scopes.iter().rev() {
            if let Some(slot) = scope.values.get(name) {
                return Ok(slot.clone());
            }
            if !scope.is_open {
                break;
            }
        }
        Err(Diagnostic::new(user, Problem::Undefined { value: name.into() }))
    }

    /// Forgets a value's elements after its last use.
    fn release(&mut self, name: &str) {
        let scope = self.scope();
        if let Some(left) = scope.uses.get_mut(name) {
            *left -= 1;
            if *left == 0 {
                scope.values.remove(name);
            }
        }
    }
}

/// Makes sure that a program can have an input or output of this name.
fn named(name: &str) -> Result<(), Diagnostic> {
    if name.trim() != name || name.is_empty() || name.chars().any(is_hidden) {
        return Err(Diagnostic::new(name.escape_debug().to_string(), Problem::Import(ImportProblem::Name)));
    }
    Ok(())
}

fn too_large(site: &Site, limit: usize, what: &'static str) -> Failure {
    Failure::Fatal(site.refuse(ImportProblem::Expansion { limit, what }))
}

impl<'m> Scope<'m> {
    fn new(values: BTreeMap<&'m str, Slot>, is_open: bool, frame: Rc<Frame<'m>>) -> Scope<'m> {
        Scope { values, uses: BTreeMap::new(), is_open, frame }
    }
}

/// The node's attributes, each reference to a parameter replaced by what the call gives. A parameter that the call
/// leaves out and that has no default takes the attribute away.
fn attributes<'m>(site: &Site<'m, '_>) -> Result<Attributes<'m>, Diagnostic> {
    let mut found = Attributes::new();
    for attribute in &site.proto.attribute {
        let value: &'m AttributeProto = match (attribute.ref_attr_name.as_str(), &site.frame.parameters) {
            ("", _) => attribute,
            (parameter, Some(parameters)) => match parameters.get(parameter).copied() {
                Some(value) => value,
                None => continue,
            },
            (parameter, None) => {
                let found = format!("{} that refers to \"{parameter}\"", attribute.name);
                return Err(site.invalid(found, "references to attributes in local functions only"));
            }
        };
        let (declared, given) = (attribute.type_.value(), value.type_.value());
        if declared != given && declared != 0 && given != 0 {
            let found = format!("{} of type {given} for one of type {declared}", attribute.name);
            return Err(site.invalid(found, "attributes of the types that the function declares"));
        }
        if value.g.is_some() && !attribute.ref_attr_name.is_empty() {
            let found = format!("{} that is a graph from outside", attribute.name);
            return Err(site.invalid(found, "graphs that stand where they are used"));
        }
        found.entry(attribute.name.as_str()).or_insert(value);
    }
    Ok(found)
}
