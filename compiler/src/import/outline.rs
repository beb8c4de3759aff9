//! An ONNX model as its file spells it, for those that change models: nodes and tensors by name, beside the graph
//! that importing makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use marill_plaintext::{Tensor, TensorType};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{AttributeProto, NodeProto};

use super::importer::Importer;
use super::problem::ImportProblem;
use super::tensors::{self, Files};
use super::{ImportRequest, body, node};
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::constant::Bytes;
use crate::ir::{Constant, Graph, ValueId};

/// Most elements of a known value that [`Outline::known`] keeps.
const MAX_KNOWN: usize = 256;

/// A model's nodes and values.
pub struct Outline {
    /// The file, as it is.
    pub bytes: Bytes,
    /// The model's name in diagnostics.
    pub name: String,
    /// Nodes in the file's order.
    pub nodes: Vec<OutlineNode>,
    /// Tensors that the graph holds, by name.
    pub initializers: BTreeMap<String, Initializer>,
    /// Names of the graph's outputs.
    pub outputs: Vec<String>,
    /// Types of all values that an output needs.
    pub types: BTreeMap<String, TensorType>,
    /// Elements of small values that do not depend on the inputs.
    pub known: BTreeMap<String, Tensor>,
    /// The same model as a graph.
    pub graph: Graph,
    /// Where a value is in `graph`, if it depends on the inputs.
    pub values: BTreeMap<String, ValueId>,
}

/// A node, by the names in the file.
pub struct OutlineNode {
    /// ONNX operator, after its domain if that is not ONNX's own.
    pub op_type: String,
    /// Its name, or its first output's, for diagnostics.
    pub label: String,
    /// Operands; an empty name is one left out.
    pub inputs: Vec<String>,
    /// Results.
    pub outputs: Vec<String>,
    attributes: BTreeMap<String, Attribute>,
}

enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Other,
}

/// A tensor that the graph holds.
#[derive(Clone)]
pub struct Initializer {
    /// Its type and elements.
    pub constant: Constant,
    /// ONNX's number of its element type.
    pub data_type: i32,
    /// Whether its elements lie in another file.
    pub is_external: bool,
}

impl OutlineNode {
    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// An attribute of several integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// Whether the node has an attribute.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    /// Operand `index`, if given.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }
}

impl Outline {
    /// Shape of a value that an output needs.
    pub fn shape(&self, value: &str) -> Option<&[usize]> {
        self.types.get(value).map(|ty| ty.shape.as_slice())
    }
}

/// Reads the model at `path` as [`super::import`] does, and keeps its own spelling.
///
/// # Errors
/// As [`super::import`], and if the graph calls local functions or has branches.
pub fn outline(path: &Path, request: &ImportRequest) -> Result<Outline, Diagnostic> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = tensors::map(path).map_err(|problem| Diagnostic::new(name.clone(), problem))?;
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut files = Files::new(bytes.clone(), Some(directory));
    let (model, payloads) = super::parse((*bytes).as_ref(), &name)?;
    let Some(graph) = model.graph.as_ref() else {
        let problem = ImportProblem::Decode { what: "it holds no graph".into() };
        return Err(Diagnostic::new(name, Problem::Import(problem)));
    };
    let opset = super::opset(&model, &name)?;
    let functions = body::functions(&model)?;
    for node in &graph.node {
        let key = (body::canonical(&node.domain), node.op_type.as_str(), node.overload.as_str());
        if functions.contains_key(&key) || node.attribute.iter().any(|attribute| attribute.g.is_some()) {
            let problem = ImportProblem::Form {
                op_type: node.op_type.clone(),
                found: "nodes of its own".into(),
                supported: "a model without local functions and branches",
            };
            return Err(Diagnostic::new(node::label(node), Problem::Import(problem)));
        }
    }
    let mut importer = Importer::new(functions, opset, &payloads, &mut files);
    importer.seen = Some(BTreeMap::new());
    importer.run(graph, request, &name)?;
    let seen = importer.seen.take().unwrap_or_default();
    let mut imported = importer.context.graph;
    imported.remove_dead();
    let renumbered = imported.compact();
    for node in &graph.node {
        let held = node.attribute.iter().filter_map(|attribute| attribute.t.as_ref());
        if held.into_iter().any(|tensor| tensor.data_location.enum_value() == Ok(DataLocation::EXTERNAL)) {
            let problem = ImportProblem::Form {
                op_type: node.op_type.clone(),
                found: "a tensor in another file".into(),
                supported: "external data of initializers",
            };
            return Err(Diagnostic::new(node::label(node), Problem::Import(problem)));
        }
    }
    let mut outline = Outline {
        bytes,
        name,
        nodes: graph.node.iter().map(outline_node).collect(),
        initializers: BTreeMap::new(),
        outputs: graph.output.iter().map(|output| output.name.clone()).collect(),
        types: BTreeMap::new(),
        known: BTreeMap::new(),
        graph: imported,
        values: BTreeMap::new(),
    };
    for (name, value) in seen {
        if value.elements() <= MAX_KNOWN
            && let Some(tensor) = value.known()
        {
            outline.known.insert(name.clone(), tensor);
        }
        if let Some(id) = value.computed().and_then(|id| renumbered.get(&id)) {
            outline.values.insert(name.clone(), *id);
        }
        outline.types.insert(name, value.ty.clone());
    }
    for tensor in &graph.initializer {
        let is_external = tensor.data_location.enum_value() == Ok(DataLocation::EXTERNAL);
        // What no output needs may be of a type that nobody can read; it is copied, never looked at.
        if !is_external && !outline.types.contains_key(&tensor.name) {
            continue;
        }
        let constant = tensors::constant(tensor, &payloads, &mut files, &tensor.name)?;
        let initializer = Initializer { constant, data_type: tensor.data_type, is_external };
        outline.initializers.insert(tensor.name.clone(), initializer);
    }
    Ok(outline)
}

fn outline_node(proto: &NodeProto) -> OutlineNode {
    OutlineNode {
        op_type: body::spelled((body::canonical(&proto.domain), &proto.op_type, "")),
        label: node::label(proto),
        inputs: proto.input.clone(),
        outputs: proto.output.clone(),
        attributes: proto.attribute.iter().map(|a| (a.name.clone(), attribute(a))).collect(),
    }
}

fn attribute(proto: &AttributeProto) -> Attribute {
    match proto.type_.enum_value() {
        Ok(AttributeType::INT) => Attribute::Int(proto.i),
        Ok(AttributeType::FLOAT) => Attribute::Float(proto.f),
        Ok(AttributeType::INTS) => Attribute::Ints(proto.ints.clone()),
        _ => Attribute::Other,
    }
}
