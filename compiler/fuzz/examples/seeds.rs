//! Writes what fuzzing starts from into a folder, one folder per target: ONNX's node tests as models, as graphs in
//! text and as programs; and, where they are at hand, exported models with inputs in place of their weights.
//!
//! `seeds CORPUS [MODELS]`

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use marill_compiler::import::import_bytes;
use marill_compiler::ir::{TextOptions, print};
use marill_compiler::normalise::normalise;
use marill_compiler::npz;
use marill_fuzz::street::{compile, import_request, is_small};
use marill_program::Suite;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::{Message, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto};

/// Longest seed.
const MAX_BYTES: usize = 64 << 10;
/// Longest program and text.
const MAX_SHORT_BYTES: usize = 4 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let corpus =
        Corpus { folder: arguments.next().expect("usage: seeds CORPUS [MODELS]"), counts: BTreeMap::new() };
    let corpus = node_tests(corpus);
    let corpus = exports(corpus, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/exports"));
    let corpus = arguments.next().iter().fold(corpus, |corpus, models| exports(corpus, models));
    println!("{:?}", corpus.counts);
}

struct Corpus {
    folder: PathBuf,
    counts: BTreeMap<&'static str, usize>,
}

impl Corpus {
    fn add(&mut self, target: &'static str, name: &str, bytes: &[u8], max_bytes: usize) {
        if bytes.len() > max_bytes {
            return;
        }
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
        *self.counts.entry(target).or_default() += 1;
    }
}

/// As `tests/onnx_nodes.rs` reads them.
fn node_tests(mut corpus: Corpus) -> Corpus {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/onnx_nodes");
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let archive = npz::read(&folder.join("cases.npz")).unwrap();
    let archive: Vec<u8> = archive["cases"].to_i64_vec().unwrap().iter().map(|&byte| byte as u8).collect();
    let mut rest = archive.as_slice();
    let mut next = || {
        let (length, tail) = rest.split_first_chunk::<4>().unwrap();
        let (message, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        rest = tail;
        message
    };
    let mut operators = HashSet::new();
    for entry in manifest["cases"].as_array().unwrap() {
        let name = entry["case"].as_str().unwrap();
        let bytes = next();
        for samples in ["inputs", "outputs"] {
            (0..entry[samples].as_u64().unwrap()).for_each(|_| _ = next());
        }
        corpus.add("import", name, bytes, MAX_BYTES);
        let Ok(graph) = import_bytes(bytes.to_vec(), &import_request()) else { continue };
        if !is_small(&graph) {
            continue;
        }
        corpus.add("compile", name, bytes, MAX_SHORT_BYTES);
        if let Ok(graph) = normalise(graph) {
            let text = print(&graph, TextOptions { names: true });
            corpus.add("graph_text", name, text.as_bytes(), MAX_SHORT_BYTES);
        }
        let shared = shared(ModelProto::parse_from_bytes(bytes).unwrap()).write_to_bytes().unwrap();
        corpus.add("compile", &format!("{name}_shared"), &shared, MAX_SHORT_BYTES);
        // One program per operator: many would take long.
        if !operators.insert(&entry["op"]) {
            continue;
        }
        let Ok(graph) = import_bytes(shared, &import_request()) else { continue };
        for (suite, file) in [(Suite::Dealer, format!("{name}_dealer")), (Suite::TwoParty, name.to_owned())] {
            if let Ok(program) = compile(graph.clone(), suite) {
                corpus.add("program", &file, &program.encode(), MAX_SHORT_BYTES);
            }
        }
    }
    corpus
}

/// `model` with each input of floats as a sum of two.
fn shared(mut model: ModelProto) -> ModelProto {
    let graph = model.graph.mut_or_insert_default();
    let mut sums = Vec::new();
    for input in std::mem::take(&mut graph.input) {
        let is_float = input.type_.has_tensor_type() && input.type_.tensor_type().elem_type == 1;
        if !is_float {
            graph.input.push(input);
            continue;
        }
        let parts = ["a", "b"].map(|part| format!("{} {part}", input.name));
        graph.input.extend(parts.clone().map(|name| ValueInfoProto { name, ..input.clone() }));
        sums.push(NodeProto {
            op_type: "Add".into(),
            input: parts.to_vec(),
            output: vec![input.name],
            ..Default::default()
        });
    }
    sums.append(&mut graph.node);
    graph.node = sums;
    model
}

/// Exported models: files in `folder`, and those that are the only one of a folder in it.
fn exports(mut corpus: Corpus, folder: &Path) -> Corpus {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let file = if path.is_dir() { path.join("model.onnx") } else { path.clone() };
        if file.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        let Ok(bytes) = fs::read(file) else { continue };
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = stripped(ModelProto::parse_from_bytes(&bytes).unwrap()).write_to_bytes().unwrap();
        corpus.add("import", &name, &bytes, MAX_BYTES);
    }
    corpus
}

/// `model` with inputs in place of large tensors, without what only people read.
fn stripped(mut model: ModelProto) -> ModelProto {
    model.metadata_props.clear();
    let graph = model.graph.mut_or_insert_default();
    graph.value_info.clear();
    for node in &mut graph.node {
        node.metadata_props.clear();
        node.doc_string.clear();
        node.name.clear();
    }
    for tensor in std::mem::take(&mut graph.initializer) {
        match tensor.raw_data.len() {
            0..=64 => graph.initializer.push(tensor),
            _ => graph.input.push(described(&tensor)),
        }
    }
    model
}

fn described(tensor: &TensorProto) -> ValueInfoProto {
    let mut described = type_proto::Tensor::new();
    described.elem_type = tensor.data_type;
    let dim =
        |&length: &i64| Dimension { value: Some(dimension::Value::DimValue(length)), ..Default::default() };
    described.shape.mut_or_insert_default().dim = tensor.dims.iter().map(dim).collect();
    let mut ty = TypeProto::new();
    ty.value = Some(type_proto::Value::TensorType(described));
    ValueInfoProto { name: tensor.name.clone(), type_: Some(ty).into(), ..Default::default() }
}
