//! What each party gets: `client/` and `server/`, each with the same program; public constants in both, the server's
//! private ones in its own alone.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use marill_plaintext::{DType, Tensor, evaluate};
use marill_program::{Owner as Party, ProgramError, ValidProgram};
use prost::Message;
use safetensors::tensor::{Dtype, Metadata, View};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Graph, NodeKind, ValueId};
use crate::lower::{BundleConstant, Lowered, Source};

const PARTIES: [&str; 2] = ["client", "server"];

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
    write_programs(out, lowered)?;
    let of = |owner: Party| lowered.constants.iter().filter(move |c| c.owner == owner);
    let public: Vec<&BundleConstant> = of(Party::Public).collect();
    for party in PARTIES {
        write_tensors(&out.join(party).join(PUBLIC), graph, &public)?;
    }
    let private: Vec<&BundleConstant> = of(Party::Server).collect();
    write_tensors(&out.join("server").join(PRIVATE), graph, &private)
}

/// Writes both parties' directories under `out` without constants: they tell what a run costs, and cannot be run.
///
/// # Errors
/// A file that cannot be written.
pub fn write_programs(out: &Path, lowered: &Lowered) -> Result<(), Diagnostic> {
    let program = lowered.program.encode_to_vec();
    for party in PARTIES {
        let directory = out.join(party);
        fs::create_dir_all(&directory).map_err(|e| unwritable(&directory, &e))?;
        let path = directory.join(PROGRAM);
        fs::write(&path, &program).map_err(|e| unwritable(&path, &e))?;
        // Another program's constants never stay, least of all private ones at the client.
        for stale in [PUBLIC, PRIVATE].map(|name| directory.join(name)) {
            if stale.exists() {
                fs::remove_file(&stale).map_err(|e| unwritable(&stale, &e))?;
            }
        }
    }
    Ok(())
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
        load(self.graph, self.constant).map(bytes).unwrap_or_default().into()
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

fn bytes(mut tensor: Tensor) -> Vec<u8> {
    // In order first, in blocks: a large transposed matrix is slow to read element by element.
    if let Tensor::F32(a) = &tensor
        && !a.is_standard_layout()
        && let Ok(ordered) = tensor.to_f32_vec()
    {
        let length = ordered.len();
        tensor = Tensor::f32([length], ordered).unwrap_or(tensor);
    }
    match &tensor {
        Tensor::F32(a) => little_endian(a.iter().map(|v| v.to_le_bytes())),
        Tensor::I64(a) => little_endian(a.iter().map(|v| v.to_le_bytes())),
        Tensor::Bool(a) => a.iter().map(|&v| u8::from(v)).collect(),
    }
}

fn little_endian<const N: usize>(elements: impl ExactSizeIterator<Item = [u8; N]>) -> Vec<u8> {
    let mut bytes = vec![0; N * elements.len()];
    bytes.as_chunks_mut::<N>().0.iter_mut().zip(elements).for_each(|(place, element)| *place = element);
    bytes
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

/// Why a party's directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file that is missing or damaged.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A program that is none.
    #[error("{} is not a program: {source}", path.display())]
    Program {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ProgramError,
    },
}

/// A party's directory: the program and where its constants lie. They are read when they are asked for.
#[derive(Debug)]
pub struct Bundle {
    program: ValidProgram,
    files: Vec<Tensors>,
}

/// Longest header of a safetensors file that is read.
const HEADER_LIMIT_BYTES: u64 = 100_000_000;

#[derive(Debug)]
struct Tensors {
    path: PathBuf,
    metadata: Metadata,
    data_start_bytes: u64,
}

/// The program in a party's directory, which may lack constants.
///
/// # Errors
/// A file that is missing or damaged.
pub fn read_program(directory: &Path) -> Result<ValidProgram, ReadError> {
    let path = directory.join(PROGRAM);
    let bytes = fs::read(&path).map_err(|e| unreadable(&path, &e))?;
    ValidProgram::decode(&bytes).map_err(|source| ReadError::Program { path, source })
}

impl Bundle {
    /// Opens a party's directory, as [`write`] makes it. The client's has no private constants.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn open(directory: &Path) -> Result<Bundle, ReadError> {
        let program = read_program(directory)?;
        let public = directory.join(PUBLIC);
        if !public.exists() {
            let reason = "there is none: was the model compiled with --cost-only?".to_owned();
            return Err(ReadError::File { path: public, reason });
        }
        let mut files = vec![Tensors::open(&public)?];
        let private = directory.join(PRIVATE);
        if private.exists() {
            files.push(Tensors::open(&private)?);
        }
        Ok(Bundle { program, files })
    }

    /// The program.
    pub fn program(&self) -> &ValidProgram {
        &self.program
    }

    /// Reads a constant.
    ///
    /// # Errors
    /// If no file of the bundle holds it, or the file cannot be read.
    pub fn constant(&self, name: &str) -> Result<Tensor, ReadError> {
        for file in &self.files {
            if let Some(tensor) = file.read(name)? {
                return Ok(tensor);
            }
        }
        let path = self.files.last().map(|file| file.path.clone()).unwrap_or_default();
        Err(ReadError::File { path, reason: format!("it holds no constant \"{name}\"") })
    }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> ReadError {
    ReadError::File { path: path.to_owned(), reason: reason.to_string() }
}

impl Tensors {
    fn open(path: &Path) -> Result<Tensors, ReadError> {
        let failed = |reason: &dyn std::fmt::Display| unreadable(path, reason);
        let mut file = File::open(path).map_err(|e| failed(&e))?;
        let length_bytes = file.metadata().map_err(|e| failed(&e))?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|e| failed(&e))?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > HEADER_LIMIT_BYTES.min(length_bytes) {
            return Err(failed(&format!("its header claims {header_bytes} bytes of {length_bytes}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(|e| failed(&e))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| failed(&e))?;
        let data_start_bytes = 8 + header_bytes;
        if data_start_bytes.checked_add(metadata.data_len() as u64) != Some(length_bytes) {
            return Err(failed(&format!("it lists {} bytes of data in {length_bytes}", metadata.data_len())));
        }
        Ok(Tensors { path: path.to_owned(), metadata, data_start_bytes })
    }

    fn read(&self, name: &str) -> Result<Option<Tensor>, ReadError> {
        let failed = |reason: &dyn std::fmt::Display| unreadable(&self.path, reason);
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end.saturating_sub(start)];
        let mut file = File::open(&self.path).map_err(|e| failed(&e))?;
        file.seek(SeekFrom::Start(self.data_start_bytes + start as u64)).map_err(|e| failed(&e))?;
        file.read_exact(&mut bytes).map_err(|e| failed(&e))?;
        let shape = info.shape.clone();
        let tensor = match info.dtype {
            Dtype::F32 => {
                Tensor::f32(shape, bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
            }
            Dtype::I64 => {
                Tensor::i64(shape, bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect())
            }
            Dtype::BOOL => Tensor::bool(shape, bytes.iter().map(|&b| b != 0).collect()),
            other => return Err(failed(&format!("\"{name}\" has elements of type {other:?}"))),
        };
        tensor.map(Some).map_err(|e| failed(&e))
    }
}
