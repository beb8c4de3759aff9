//! Writes a changed ONNX model. The only place that does.
//!
//! Precondition: an [`Outline`] and [`Edits`] that name its nodes and tensors. Postcondition: a file that holds what
//! the model's file holds, byte for byte, but for what the edits name; nothing in it refers to the old data files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use marill_plaintext::Tensor;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{AttributeProto, Message, NodeProto, StringStringEntryProto, TensorProto};

use crate::diagnostic::{Diagnostic, Problem};
use crate::import::outline::Outline;
use crate::import::problem::ImportProblem;
use crate::import::wire::{Field, fields, put_varint};

/// Bytes up to which everything is in one file; a protobuf message cannot have twice as many.
pub const MAX_INLINE_BYTES: u64 = 1 << 30;
/// Shorter tensors stay in the model's file in any case.
const MIN_EXTERNAL_BYTES: usize = 1024;

/// What to change of a model.
#[derive(Debug, Default)]
pub struct Edits {
    /// New names of operands, by node and position.
    pub rewired: BTreeMap<(usize, usize), String>,
    /// Nodes to put before a node.
    pub inserted: BTreeMap<usize, Vec<NewNode>>,
    /// Nodes to leave out.
    pub removed_nodes: BTreeSet<usize>,
    /// New elements of initializers.
    pub replaced: BTreeMap<String, Tensor>,
    /// New initializers.
    pub added: BTreeMap<String, Tensor>,
    /// Initializers to leave out.
    pub removed_tensors: BTreeSet<String>,
    /// Values whose recorded types no longer hold.
    pub retyped: BTreeSet<String>,
}

/// A node to add.
#[derive(Debug)]
pub enum NewNode {
    /// A node of the model with other operands and another result.
    Copy {
        /// Which node.
        node: usize,
        /// Its operands.
        inputs: Vec<String>,
        /// Its result.
        output: String,
    },
    /// ONNX's Gather along the last axis.
    Gather {
        /// Data and indices.
        inputs: [String; 2],
        /// Its result.
        output: String,
    },
}

/// Field numbers of the messages that are taken apart.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_VALUE_INFO: u64 = 13;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_OUTPUT: u64 = 2;
    pub const NODE_NAME: u64 = 3;
    pub const TENSOR_NAME: u64 = 8;
    pub const VALUE_NAME: u64 = 1;
    /// Documentation and metadata of a tensor.
    pub const TENSOR_NOTES: [u64; 2] = [12, 16];
}

/// Writes the model with `edits` to `path`, with its larger tensors in a second file, `path` with `.data` appended,
/// if it has more than [`MAX_INLINE_BYTES`].
///
/// # Errors
/// If a file cannot be written or the model's bytes are not what its outline says.
pub fn write(outline: &Outline, edits: &Edits, path: &Path) -> Result<(), Diagnostic> {
    write_within(outline, edits, path, MAX_INLINE_BYTES)
}

/// As [`write`], with everything in one file up to `inline_bytes`.
///
/// # Errors
/// As [`write`].
pub fn write_within(
    outline: &Outline,
    edits: &Edits,
    path: &Path,
    inline_bytes: u64,
) -> Result<(), Diagnostic> {
    let file: &[u8] = (*outline.bytes).as_ref();
    let external = outline.initializers.values().filter(|tensor| tensor.is_external);
    let total = file.len() + external.map(|tensor| tensor.constant.raw().len()).sum::<usize>();
    let side = appended(path, ".data");
    let location = side.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let side_bytes = (total as u64 > inline_bytes).then(Vec::new);
    let mut writer = Writer { file, outline, edits, side: side_bytes, side_length: 0, location };
    let pieces = writer.model()?;
    // Written beside and renamed: the old file may be the one that is being read.
    if let Some(parts) = &writer.side {
        store(&side, parts)?;
    }
    store(path, &pieces)
}

fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn store(path: &Path, pieces: &[Piece<'_>]) -> Result<(), Diagnostic> {
    let partial = appended(path, ".partial");
    let save = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(&partial)?);
        for piece in pieces {
            out.write_all(piece.bytes())?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, path)
    };
    save().map_err(|error| {
        let _ = fs::remove_file(&partial);
        Diagnostic::new("", Problem::Unwritable { path: path.to_owned(), reason: error.to_string() })
    })
}

enum Piece<'f> {
    Old(&'f [u8]),
    New(Vec<u8>),
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Old(bytes) => bytes,
            Piece::New(bytes) => bytes,
        }
    }
}

struct Writer<'f> {
    file: &'f [u8],
    outline: &'f Outline,
    edits: &'f Edits,
    /// Contents of the second file, if there is one.
    side: Option<Vec<Piece<'f>>>,
    side_length: usize,
    location: String,
}

impl<'f> Writer<'f> {
    fn fields(&self, range: Range<usize>) -> Result<Vec<Field>, Diagnostic> {
        fields(self.file, range).map_err(|error| self.refuse(error.into()))
    }

    fn refuse(&self, problem: ImportProblem) -> Diagnostic {
        Diagnostic::new(self.outline.name.clone(), Problem::Import(problem))
    }

    fn old(&self, range: Range<usize>) -> Piece<'f> {
        Piece::Old(&self.file[range])
    }

    fn model(&mut self) -> Result<Vec<Piece<'f>>, Diagnostic> {
        let mut pieces = Vec::new();
        let parts = self.fields(0..self.file.len())?;
        if parts.iter().filter(|part| part.number == field::MODEL_GRAPH).count() != 1 {
            return Err(self.refuse(ImportProblem::Decode { what: "its graph is in several parts".into() }));
        }
        for part in parts {
            if part.number == field::MODEL_GRAPH {
                let graph = self.graph(part.content)?;
                nest(field::MODEL_GRAPH, graph, &mut pieces);
            } else {
                pieces.push(self.old(part.whole));
            }
        }
        Ok(pieces)
    }

    fn graph(&mut self, range: Range<usize>) -> Result<Vec<Piece<'f>>, Diagnostic> {
        let mut pieces = Vec::new();
        let parts = self.fields(range)?;
        let nodes: Vec<Range<usize>> =
            parts.iter().filter(|p| p.number == field::GRAPH_NODE).map(|p| p.content.clone()).collect();
        let mut node = 0;
        for part in parts {
            match part.number {
                field::GRAPH_NODE => {
                    for new in self.edits.inserted.get(&node).into_iter().flatten() {
                        let encoded = self.new_node(new, &nodes)?;
                        nest(field::GRAPH_NODE, vec![Piece::New(encoded)], &mut pieces);
                    }
                    let changed = self.edits.rewired.range((node, 0)..=(node, usize::MAX)).next().is_some();
                    if changed {
                        let rewired = |at: usize| self.edits.rewired.get(&(node, at)).cloned();
                        let encoded = self.renamed(part.content, &rewired, None)?;
                        nest(field::GRAPH_NODE, vec![Piece::New(encoded)], &mut pieces);
                    } else if !self.edits.removed_nodes.contains(&node) {
                        pieces.push(self.old(part.whole));
                    }
                    node += 1;
                }
                field::GRAPH_INITIALIZER => self.initializer(&part, &mut pieces)?,
                field::GRAPH_VALUE_INFO
                    if self.edits.retyped.contains(&self.text(&part, field::VALUE_NAME)?) => {}
                _ => pieces.push(self.old(part.whole)),
            }
        }
        for (name, tensor) in &self.edits.added {
            let encoded = self.tensor(name, tensor)?;
            nest(field::GRAPH_INITIALIZER, vec![Piece::New(encoded)], &mut pieces);
        }
        Ok(pieces)
    }

    /// The last text of number `number` in a message.
    fn text(&self, message: &Field, number: u64) -> Result<String, Diagnostic> {
        let parts = self.fields(message.content.clone())?;
        let text = parts.into_iter().rfind(|part| part.number == number);
        Ok(text
            .map(|part| String::from_utf8_lossy(&self.file[part.content]).into_owned())
            .unwrap_or_default())
    }

    fn new_node(&self, new: &NewNode, nodes: &[Range<usize>]) -> Result<Vec<u8>, Diagnostic> {
        match new {
            NewNode::Copy { node, inputs, output } => {
                let range = nodes.get(*node).cloned().unwrap_or_default();
                self.renamed(range, &|at| inputs.get(at).cloned(), Some(output))
            }
            NewNode::Gather { inputs, output } => {
                let mut axis = AttributeProto::new();
                axis.name = "axis".into();
                axis.type_ = AttributeType::INT.into();
                axis.i = -1;
                let mut node = NodeProto::new();
                node.op_type = "Gather".into();
                node.name.clone_from(output);
                node.input = inputs.to_vec();
                node.output = vec![output.clone()];
                node.attribute = vec![axis];
                self.encode(&node)
            }
        }
    }

    /// A node with some of its operands renamed, and with `output` for its result and name if given.
    fn renamed(
        &self,
        node: Range<usize>,
        operand: &dyn Fn(usize) -> Option<String>,
        output: Option<&String>,
    ) -> Result<Vec<u8>, Diagnostic> {
        let mut encoded = Vec::new();
        let mut at = 0;
        for part in self.fields(node)? {
            let renamed = match part.number {
                field::NODE_INPUT => {
                    at += 1;
                    operand(at - 1)
                }
                field::NODE_OUTPUT | field::NODE_NAME => output.cloned(),
                _ => None,
            };
            match renamed {
                Some(name) => put_text(part.number, &name, &mut encoded),
                None => encoded.extend_from_slice(&self.file[part.whole]),
            }
        }
        Ok(encoded)
    }

    fn initializer(&mut self, part: &Field, pieces: &mut Vec<Piece<'f>>) -> Result<(), Diagnostic> {
        let name = self.text(part, field::TENSOR_NAME)?;
        if self.edits.removed_tensors.contains(&name) {
            return Ok(());
        }
        let replaced = self.edits.replaced.get(&name);
        let known = self.outline.initializers.get(&name);
        let external = known.filter(|tensor| tensor.is_external);
        if replaced.is_none() && external.is_none() {
            pieces.push(self.old(part.whole.clone()));
            return Ok(());
        }
        let mut encoded = match (replaced, external) {
            (Some(tensor), _) => self.tensor(&name, tensor)?,
            (None, Some(tensor)) => {
                let mut proto = self.header(&name, &tensor.constant.ty().shape, tensor.data_type);
                let raw = tensor.constant.raw();
                if self.goes_aside(raw.len()) {
                    self.put_aside(&mut proto, Piece::Old(raw));
                } else {
                    proto.raw_data = raw.to_vec();
                }
                self.encode(&proto)?
            }
            (None, None) => Vec::new(),
        };
        for note in self.fields(part.content.clone())? {
            if field::TENSOR_NOTES.contains(&note.number) {
                encoded.extend_from_slice(&self.file[note.whole]);
            }
        }
        nest(field::GRAPH_INITIALIZER, vec![Piece::New(encoded)], pieces);
        Ok(())
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<Vec<u8>, Diagnostic> {
        let (data_type, raw): (i32, Vec<u8>) = match tensor {
            Tensor::F32(array) => (1, array.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Tensor::I64(array) => (7, array.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Tensor::Bool(array) => (9, array.iter().map(|&x| u8::from(x)).collect()),
        };
        let mut proto = self.header(name, tensor.shape(), data_type);
        if self.goes_aside(raw.len()) {
            self.put_aside(&mut proto, Piece::New(raw));
        } else {
            proto.raw_data = raw;
        }
        self.encode(&proto)
    }

    fn header(&self, name: &str, shape: &[usize], data_type: i32) -> TensorProto {
        let mut proto = TensorProto::new();
        proto.name = name.into();
        proto.dims = shape.iter().map(|&length| length as i64).collect();
        proto.data_type = data_type;
        proto
    }

    fn goes_aside(&self, length: usize) -> bool {
        self.side.is_some() && length >= MIN_EXTERNAL_BYTES
    }

    fn put_aside(&mut self, proto: &mut TensorProto, contents: Piece<'f>) {
        /// Where loaders that map files like tensors to begin.
        const ALIGNMENT: usize = 64;
        let Some(side) = &mut self.side else { return };
        let padding = self.side_length.next_multiple_of(ALIGNMENT) - self.side_length;
        side.push(Piece::New(vec![0; padding]));
        let offset = self.side_length + padding;
        let length = contents.bytes().len();
        for (key, value) in [
            ("location", self.location.clone()),
            ("offset", offset.to_string()),
            ("length", length.to_string()),
        ] {
            let mut entry = StringStringEntryProto::new();
            entry.key = key.into();
            entry.value = value;
            proto.external_data.push(entry);
        }
        proto.data_location = DataLocation::EXTERNAL.into();
        side.push(contents);
        self.side_length = offset + length;
    }

    fn encode(&self, message: &impl Message) -> Result<Vec<u8>, Diagnostic> {
        message
            .write_to_bytes()
            .map_err(|error| self.refuse(ImportProblem::Decode { what: error.to_string() }))
    }
}

/// Appends a field that holds a message.
fn nest<'f>(number: u64, message: Vec<Piece<'f>>, pieces: &mut Vec<Piece<'f>>) {
    let length: usize = message.iter().map(|piece| piece.bytes().len()).sum();
    let mut head = Vec::new();
    put_varint(number << 3 | 2, &mut head);
    put_varint(length as u64, &mut head);
    pieces.push(Piece::New(head));
    pieces.extend(message);
}

fn put_text(number: u64, text: &str, out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}
