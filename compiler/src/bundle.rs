//! What each party gets: `client/` and `server/`, each with the same program; public constants in both, the server's
//! private ones in its own alone.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use marill_plaintext::{DType, Tensor, evaluate};
use marill_program::Owner as Party;
use prost::Message;
use safetensors::tensor::{Dtype, View};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Graph, NodeKind, ValueId};
use crate::lower::{BundleConstant, Lowered, Source};

/// File names within a party's directory.
pub const PROGRAM: &str = "program.marill";
/// Constants that both parties hold.
pub const PUBLIC: &str = "public.safetensors";
/// Constants that the server alone holds.
pub const PRIVATE: &str = "private.safetensors";

/// A value that depends on constants alone, computed now. Nothing is kept: large weights pass through one at a time.
///
/// # Errors
/// A constant that cannot be read, or an operation that fails on it.
pub fn constant_value(graph: &Graph, id: ValueId) -> Result<Tensor, Diagnostic> {
    let node = graph.node(id);
    let at = |problem: Problem| Diagnostic::new(&node.name, problem);
    match &node.kind {
        NodeKind::Constant(constant) => constant.load().map_err(|e| at(e.into())),
        NodeKind::Apply(op) => {
            let args = graph.args(id).into_iter().map(|a| constant_value(graph, a));
            let args = args.collect::<Result<Vec<Tensor>, Diagnostic>>()?;
            evaluate(op, &args.iter().collect::<Vec<_>>()).map_err(|e| at(e.into()))
        }
        NodeKind::Input => Err(at(Problem::Undefined { value: node.name.clone() })),
    }
}

/// The tensor of a bundle's constant.
///
/// # Errors
/// As [`constant_value`].
pub fn load(graph: &Graph, constant: &BundleConstant) -> Result<Tensor, Diagnostic> {
    match &constant.source {
        Source::Graph(id) => constant_value(graph, *id),
        Source::Made(made) => made.load().map_err(|e| Diagnostic::new(&constant.name, Problem::from(e))),
    }
}

/// Writes both parties' directories under `out`.
///
/// # Errors
/// A file that cannot be written, or a constant that cannot be read.
pub fn write(out: &Path, graph: &Graph, lowered: &Lowered) -> Result<(), Diagnostic> {
    let program = lowered.program.encode_to_vec();
    for party in ["client", "server"] {
        let directory = out.join(party);
        fs::create_dir_all(&directory).map_err(|e| unwritable(&directory, &e))?;
        let path = directory.join(PROGRAM);
        fs::write(&path, &program).map_err(|e| unwritable(&path, &e))?;
        // A bundle for the client never holds a stale file of private weights.
        let private = directory.join(PRIVATE);
        if private.exists() {
            fs::remove_file(&private).map_err(|e| unwritable(&private, &e))?;
        }
    }
    let of = |owner: Party| lowered.constants.iter().filter(move |c| c.owner == owner);
    let public: Vec<&BundleConstant> = of(Party::Public).collect();
    for party in ["client", "server"] {
        write_tensors(&out.join(party).join(PUBLIC), graph, &public)?;
    }
    let private: Vec<&BundleConstant> = of(Party::Server).collect();
    write_tensors(&out.join("server").join(PRIVATE), graph, &private)
}

fn unwritable(path: &Path, reason: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::new("", Problem::Unwritable { path: path.to_owned(), reason: reason.to_string() })
}

/// A tensor that is computed while the file is written.
struct Lazy<'g> {
    graph: &'g Graph,
    constant: &'g BundleConstant,
    shape: Vec<usize>,
    dtype: DType,
}

impl View for &Lazy<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F32 => Dtype::F32,
            DType::I64 => Dtype::I64,
            DType::Bool => Dtype::BOOL,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        // Every constant was loaded once before writing began; failing here means the model's file changed meanwhile,
        // and the short tensor makes the writer report it.
        load(self.graph, self.constant).map(|t| bytes(&t)).unwrap_or_default().into()
    }

    fn data_len(&self) -> usize {
        let size = match self.dtype {
            DType::F32 => 4,
            DType::I64 => 8,
            DType::Bool => 1,
        };
        self.shape.iter().product::<usize>() * size
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    match tensor {
        Tensor::F32(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Tensor::I64(a) => a.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Tensor::Bool(a) => a.iter().map(|&v| u8::from(v)).collect(),
    }
}

fn write_tensors(path: &Path, graph: &Graph, constants: &[&BundleConstant]) -> Result<(), Diagnostic> {
    let mut lazy = Vec::with_capacity(constants.len());
    for constant in constants {
        let ty = match &constant.source {
            Source::Graph(id) => graph.ty(*id).clone(),
            Source::Made(made) => made.ty().clone(),
        };
        lazy.push((constant.name.clone(), Lazy { graph, constant, shape: ty.shape, dtype: ty.dtype }));
    }
    let views = lazy.iter().map(|(name, tensor)| (name.clone(), tensor));
    safetensors::serialize_to_file(views, None, path).map_err(|e| unwritable(path, &e))?;
    let expected: usize = lazy.iter().map(|(_, tensor)| (&tensor).data_len()).sum();
    let found = fs::metadata(path).map_err(|e| unwritable(path, &e))?.len();
    if (found as usize) < expected {
        return Err(unwritable(path, &"a constant could not be read again while writing"));
    }
    Ok(())
}
