//! Stage 1: ONNX bytes to a [`Graph`]. The only place that knows ONNX's names.
//!
//! Precondition: any bytes. Postcondition: every operation is of the closed set with canonical attributes, every
//! shape is known, whatever follows from shapes and small constants alone is computed, weights still lie in the
//! file. `wire` finds the tensors, `tensors` refers to them, `ops` translates one operator each.

mod context;
mod dims;
mod node;
pub mod ops;
pub mod outline;
pub mod problem;
mod tensors;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use marill_plaintext::TensorType;
use onnx_protobuf::tensor_shape_proto::dimension;
use onnx_protobuf::type_proto;
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, ValueInfoProto};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::constant::Bytes;
use crate::ir::{Graph, Owner};
use context::{Context, Operand};
use dims::DimError;
use node::OnnxNode;
use problem::ImportProblem;
use tensors::Files;
use wire::Payload;

/// Oldest opset whose operators are translated.
pub const MIN_OPSET: i64 = 11;
/// Newest opset whose operators are translated.
pub const MAX_OPSET: i64 = 23;

/// What the user decides about the model's shapes.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// Values of symbolic dimensions by `dim_param`; a nameless one is called `INPUT.AXIS`.
    pub dims: BTreeMap<String, usize>,
}

/// Reads the model at `path`. Its weights, and those in data files beside it, stay in memory maps: importing
/// touches next to none of them. Outputs are to be revealed to the client until the request says otherwise.
///
/// # Errors
/// If a file cannot be read or is no ONNX model, or the model uses what the compiler does not support: an operator,
/// an opset, control flow, shapes that depend on values, a symbolic dimension without a value.
pub fn import(path: &Path, request: &ImportRequest) -> Result<Graph, Diagnostic> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = tensors::map(path).map_err(|problem| Diagnostic::new(name.clone(), problem))?;
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    read(Files::new(bytes, Some(directory)), &name, request)
}

/// As [`import`], for a model in memory, which cannot have external data.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: Vec<u8>, request: &ImportRequest) -> Result<Graph, Diagnostic> {
    read(Files::new(Arc::new(bytes), None), "model", request)
}

/// The names that the shapes of the model's inputs can take values from, see [`ImportRequest::dims`].
///
/// # Errors
/// If the file cannot be read or is no ONNX model.
pub fn symbolic_dims(path: &Path) -> Result<BTreeSet<String>, Diagnostic> {
    let model = skeleton(path)?;
    let mut names = BTreeSet::new();
    for input in &model.graph.input {
        let Some(type_proto::Value::TensorType(tensor)) =
            input.type_.as_ref().and_then(|ty| ty.value.as_ref())
        else {
            continue;
        };
        for (axis, dim) in tensor.shape.dim.iter().enumerate() {
            let text = match &dim.value {
                Some(dimension::Value::DimValue(_)) => continue,
                Some(dimension::Value::DimParam(text)) if !text.is_empty() => text.clone(),
                _ => format!("{}.{axis}", input.name),
            };
            if let Err(DimError::Missing(symbols)) = dims::evaluate(&text, &BTreeMap::new()) {
                names.extend(symbols);
            }
            names.insert(text);
        }
    }
    Ok(names)
}

/// Names of the model's initializers. What is computed of several has the name of a node's result, so it is none.
///
/// # Errors
/// If the file cannot be read or is no ONNX model.
pub fn initializers(path: &Path) -> Result<BTreeSet<String>, Diagnostic> {
    let model = skeleton(path)?;
    Ok(model.graph.initializer.iter().map(|tensor| tensor.name.clone()).collect())
}

/// The model at `path` without its tensors' contents.
fn skeleton(path: &Path) -> Result<ModelProto, Diagnostic> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = tensors::map(path).map_err(|problem| Diagnostic::new(name.clone(), problem))?;
    parse((*bytes).as_ref(), &name).map(|(model, _)| model)
}

/// The model without its tensors' contents, and where those lie.
fn parse(bytes: &[u8], name: &str) -> Result<(ModelProto, Vec<Payload>), Diagnostic> {
    let refuse = |problem: ImportProblem| Diagnostic::new(name, Problem::Import(problem));
    let skeleton = wire::scan(bytes).map_err(|error| refuse(error.into()))?;
    let model = ModelProto::parse_from_bytes(&skeleton.model)
        .map_err(|error| refuse(ImportProblem::Decode { what: error.to_string() }))?;
    Ok((model, skeleton.payloads))
}

fn read(mut files: Files, name: &str, request: &ImportRequest) -> Result<Graph, Diagnostic> {
    let bytes: Bytes = files.model.clone();
    let refuse = |problem: ImportProblem| Diagnostic::new(name, Problem::Import(problem));
    let (model, payloads) = parse((*bytes).as_ref(), name)?;
    let Some(graph) = model.graph.as_ref() else {
        return Err(refuse(ImportProblem::Decode { what: "it holds no graph".into() }));
    };
    let opset = opset(&model, name)?;
    if graph.output.is_empty() {
        return Err(refuse(ImportProblem::Decode { what: "its graph has no outputs".into() }));
    }
    let mut importer = Importer {
        context: Context::default(),
        values: BTreeMap::new(),
        uses: BTreeMap::new(),
        payloads: &payloads,
        files: &mut files,
        opset,
        seen: None,
    };
    importer.run(graph, request)?;
    let mut graph = importer.context.graph;
    graph.remove_dead();
    graph.compact();
    Ok(graph)
}

/// The model's opset of ONNX's own domain.
fn opset(model: &ModelProto, name: &str) -> Result<i64, Diagnostic> {
    let own = model.opset_import.iter().find(|set| is_own_domain(&set.domain));
    let opset = own.map_or(1, |set| set.version);
    if !(MIN_OPSET..=MAX_OPSET).contains(&opset) {
        let problem = Problem::Opset { domain: String::new(), found: opset, min: MIN_OPSET, max: MAX_OPSET };
        return Err(Diagnostic::new(name, problem));
    }
    Ok(opset)
}

fn is_own_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

struct Importer<'m> {
    context: Context,
    values: BTreeMap<&'m str, Operand>,
    /// How often each value is still to be used.
    uses: BTreeMap<&'m str, usize>,
    payloads: &'m [Payload],
    files: &'m mut Files,
    opset: i64,
    /// Every value by name, where somebody wants to look at the model itself.
    seen: Option<BTreeMap<String, Operand>>,
}

impl<'m> Importer<'m> {
    fn run(&mut self, graph: &'m GraphProto, request: &ImportRequest) -> Result<(), Diagnostic> {
        let live = live_nodes(graph);
        for node in live.iter().map(|&index| &graph.node[index]) {
            for name in &node.input {
                *self.uses.entry(name).or_default() += 1;
            }
        }
        for output in &graph.output {
            *self.uses.entry(&output.name).or_default() += 1;
        }
        let stored: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        // Before IR version 4 every initializer is an input too.
        for input in graph.input.iter().filter(|input| !stored.contains(input.name.as_str())) {
            let ty = value_type(input, request)?;
            let value = self.context.input(&input.name, ty);
            self.define(&input.name, value)?;
        }
        for tensor in &graph.initializer {
            if self.uses.contains_key(tensor.name.as_str()) {
                let constant = tensors::constant(tensor, self.payloads, self.files, &tensor.name)?;
                let value = self.context.stored(&tensor.name, constant);
                self.define(&tensor.name, value)?;
            }
        }
        for index in live {
            self.node(&graph.node[index])?;
        }
        for output in &graph.output {
            let value = self.value(&output.name, &output.name)?;
            let id = self.context.materialise(&value);
            self.context.graph.add_output(output.name.clone(), id, Owner::Client);
        }
        Ok(())
    }

    fn node(&mut self, proto: &'m NodeProto) -> Result<(), Diagnostic> {
        let label = node::label(proto);
        let unsupported = || {
            let (op_type, domain) = (proto.op_type.clone(), proto.domain.clone());
            let problem = ImportProblem::Operator { op_type, domain, opset: self.opset };
            Diagnostic::new(label.clone(), Problem::Import(problem))
        };
        if !is_own_domain(&proto.domain) {
            return Err(unsupported());
        }
        let operator = ops::find(&proto.op_type).filter(|operator| operator.since <= self.opset);
        let operator = operator.ok_or_else(unsupported)?;
        let inputs = proto
            .input
            .iter()
            .map(|name| if name.is_empty() { Ok(None) } else { self.value(name, &label).map(Some) })
            .collect::<Result<Vec<_>, _>>()?;
        let used = proto.output.iter().map(|name| self.uses.contains_key(name.as_str())).collect();
        let mut node = OnnxNode::new(proto, self.opset, inputs, used);
        if let Some(tensor) = node::value(proto) {
            node.value = Some(tensors::constant(tensor, self.payloads, self.files, &label)?);
        }
        self.context.label = proto.output.iter().find(|name| !name.is_empty()).unwrap_or(&label).clone();
        let results = (operator.translate)(&mut self.context, &node)?;
        for (index, name) in proto.output.iter().enumerate() {
            match results.get(index) {
                Some(value) if !name.is_empty() => self.define(name, value.clone())?,
                None if node.used[index] && !name.is_empty() => {
                    return Err(node.form(format!("output {index} in use"), "the outputs before it"));
                }
                _ => {}
            }
        }
        drop(node);
        for name in &proto.input {
            self.release(name);
        }
        Ok(())
    }

    fn define(&mut self, name: &'m str, value: Operand) -> Result<(), Diagnostic> {
        if let Some(seen) = &mut self.seen {
            seen.insert(name.to_owned(), value.clone());
        }
        if self.values.insert(name, value).is_some() {
            return Err(Diagnostic::new(name, Problem::Import(ImportProblem::Redefined)));
        }
        Ok(())
    }

    fn value(&self, name: &str, user: &str) -> Result<Operand, Diagnostic> {
        let undefined = || Diagnostic::new(user, Problem::Undefined { value: name.into() });
        self.values.get(name).cloned().ok_or_else(undefined)
    }

    /// Forgets a value's elements after its last use.
    fn release(&mut self, name: &'m str) {
        if let Some(left) = self.uses.get_mut(name) {
            *left -= 1;
            if *left == 0 {
                self.values.remove(name);
            }
        }
    }
}

/// Nodes that the outputs need, in the file's order.
fn live_nodes(graph: &GraphProto) -> Vec<usize> {
    let mut needed: BTreeSet<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let mut live = Vec::new();
    // ONNX requires nodes in topological order, so one pass backwards suffices.
    for (index, node) in graph.node.iter().enumerate().rev() {
        if node.output.iter().any(|name| !name.is_empty() && needed.contains(name.as_str())) {
            live.push(index);
            needed.extend(node.input.iter().map(String::as_str));
        }
    }
    live.reverse();
    live
}

fn value_type(input: &ValueInfoProto, request: &ImportRequest) -> Result<TensorType, Diagnostic> {
    let refuse = |problem: ImportProblem| Diagnostic::new(input.name.clone(), Problem::Import(problem));
    let tensor = match input.type_.as_ref().and_then(|ty| ty.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor,
        _ => return Err(refuse(ImportProblem::ValueType { found: "no tensor type".into() })),
    };
    let dtype = tensors::element(tensor.elem_type)
        .ok_or_else(|| {
            refuse(ImportProblem::ValueType { found: format!("element type {}", tensor.elem_type) })
        })?
        .dtype();
    let dims = match tensor.shape.as_ref() {
        Some(shape) => &shape.dim,
        None => return Err(refuse(ImportProblem::ValueType { found: "a tensor of unknown rank".into() })),
    };
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        let text = match &dim.value {
            Some(dimension::Value::DimValue(value)) => {
                let value = usize::try_from(*value)
                    .map_err(|_| refuse(ImportProblem::DimensionValue { axis, found: value.to_string() }))?;
                shape.push(value);
                continue;
            }
            Some(dimension::Value::DimParam(text)) if !text.is_empty() => text.clone(),
            _ => format!("{}.{axis}", input.name),
        };
        shape.push(dims::evaluate(&text, &request.dims).map_err(|error| match error {
            DimError::Missing(missing) => refuse(ImportProblem::Dimension { axis, dim_param: text, missing }),
            DimError::Invalid => refuse(ImportProblem::DimensionValue { axis, found: format!("\"{text}\"") }),
        })?);
    }
    marill_plaintext::shape::element_count(&shape)
        .map_err(|error| Diagnostic::new(input.name.clone(), error))?;
    Ok(TensorType { dtype, shape })
}
