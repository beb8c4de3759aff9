//! Stage 1: ONNX bytes to a [`Graph`]. The only place that knows ONNX's names.
//!
//! Precondition: any bytes. Postcondition: every operation is of the closed set with canonical attributes, every
//! shape is known, whatever follows from shapes and small constants alone is computed, tables of floats in which no
//! weight has a part are everybody's, weights still lie in the file. `wire` finds the tensors, `tensors` refers to
//! them, `importer` walks the nodes and puts local functions and branches in place, `ops` translates one operator each.

mod body;
mod context;
mod dims;
mod importer;
mod node;
pub mod ops;
pub mod outline;
pub mod problem;
mod tensors;
pub mod unsupported;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use marill_plaintext::TensorType;
use onnx_protobuf::tensor_shape_proto::dimension;
use onnx_protobuf::type_proto;
use onnx_protobuf::{Message, ModelProto, OperatorSetIdProto, ValueInfoProto};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::Graph;
use crate::ir::constant::Bytes;
use dims::DimError;
use importer::Importer;
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
/// If a file cannot be read or is no ONNX model, or the model uses what the compiler does not support: operators, all
/// of which the error names, an opset, control flow that depends on inputs, shapes that depend on values, a symbolic
/// dimension without a value, local functions that call themselves or grow too large.
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
    let mut importer = Importer::new(body::functions(&model)?, opset, &payloads, &mut files);
    importer.run(graph, request, name)?;
    let mut graph = importer.context.graph;
    graph.remove_dead();
    graph.compact();
    Ok(graph)
}

/// The model's opset of ONNX's own domain.
fn opset(model: &ModelProto, name: &str) -> Result<i64, Diagnostic> {
    checked_opset(own_opset(&model.opset_import).unwrap_or(1), name)
}

/// The version of ONNX's own domain among `sets`.
fn own_opset(sets: &[OperatorSetIdProto]) -> Option<i64> {
    sets.iter().find(|set| body::canonical(&set.domain).is_empty()).map(|set| set.version)
}

/// `opset`, if its operators are translated; `name` is what has it.
fn checked_opset(opset: i64, name: &str) -> Result<i64, Diagnostic> {
    if !(MIN_OPSET..=MAX_OPSET).contains(&opset) {
        let problem = Problem::Opset { domain: String::new(), found: opset, min: MIN_OPSET, max: MAX_OPSET };
        return Err(Diagnostic::new(name, problem));
    }
    Ok(opset)
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
