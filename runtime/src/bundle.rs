//! A party's directory: the program, and the constants beside it.
//!
//! `program.marill` and `public.safetensors` are alike at both parties; the server's `private.safetensors` is its own.
//! Constants are read when they are used, one at a time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use marill_plaintext::{DType, OpError, Tensor, TensorType};
use marill_program::flow::Consent;
use marill_program::{Form, Instruction, Owner, ValidProgram};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::error::{InputFault, RunError};
use crate::files::read_exact_at;
use crate::sharing::Party;

/// The program's file name in a bundle.
pub const PROGRAM_FILE: &str = "program.marill";
/// The public constants' file name in a bundle.
pub const PUBLIC_FILE: &str = "public.safetensors";
/// The server's constants' file name in its bundle.
pub const PRIVATE_FILE: &str = "private.safetensors";

/// Longest program file that is read.
pub const PROGRAM_LIMIT_BYTES: u64 = 1 << 28;
/// Longest header of a safetensors file that is read.
const HEADER_LIMIT_BYTES: u64 = 100_000_000;

/// A program with the constants that one party has, and what this party allows it to tell.
pub struct Bundle {
    program: ValidProgram,
    program_bytes: Vec<u8>,
    public: Constants,
    private: Constants,
    consent: Consent,
}

enum Constants {
    Absent(PathBuf),
    File(Archive),
    Memory(BTreeMap<String, Tensor>),
}

struct Archive {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start_bytes: u64,
}

fn file_fault(path: &Path, action: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::File { path: path.to_owned(), action, source }
}

/// The bytes of a file of at most `limit_bytes`.
fn read_file(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, RunError> {
    let fault = file_fault(path, "read");
    let needed_bytes = fs::metadata(path).map_err(&fault)?.len();
    if needed_bytes > limit_bytes {
        return Err(RunError::Exhausted { what: "program file", needed_bytes, limit_bytes });
    }
    fs::read(path).map_err(fault)
}

/// Decodes and checks a program's bytes.
///
/// # Errors
/// `BadProgram`.
pub fn decode_program(bytes: &[u8]) -> Result<ValidProgram, RunError> {
    ValidProgram::decode(bytes).map_err(|error| RunError::BadProgram { reason: Box::new(error) })
}

/// Reads and checks a program's file; also its bytes.
///
/// # Errors
/// `File`, `Exhausted` for one that is too long, `BadProgram`.
pub fn read_program(path: &Path) -> Result<(ValidProgram, Vec<u8>), RunError> {
    let bytes = read_file(path, PROGRAM_LIMIT_BYTES)?;
    Ok((decode_program(&bytes)?, bytes))
}

impl Bundle {
    /// Opens the directory of a party, and checks that every constant that it must have is there in the program's
    /// type.
    ///
    /// # Errors
    /// `File` for a file that is missing or damaged, `BadProgram`, `BadInput` naming a constant and its file.
    pub fn open(directory: &Path, party: Party) -> Result<Bundle, RunError> {
        let (program, program_bytes) = read_program(&directory.join(PROGRAM_FILE))?;
        let public = Constants::open(directory.join(PUBLIC_FILE))?;
        let private = match party {
            Party::Server => Constants::open(directory.join(PRIVATE_FILE))?,
            Party::Client => Constants::Absent(directory.join(PRIVATE_FILE)),
        };
        let bundle = Bundle { program, program_bytes, public, private, consent: Consent::default() };
        bundle.check(party)?;
        Ok(bundle)
    }

    /// A bundle of tensors in memory; the client's has no private ones.
    pub fn in_memory(
        program: ValidProgram,
        public: BTreeMap<String, Tensor>,
        private: Option<BTreeMap<String, Tensor>>,
    ) -> Bundle {
        let program_bytes = program.encode();
        let private = private.map_or_else(|| Constants::Absent(PRIVATE_FILE.into()), Constants::Memory);
        let (public, consent) = (Constants::Memory(public), Consent::default());
        Bundle { program, program_bytes, public, private, consent }
    }

    /// The same, for a party that allows `consent`; without it nothing is allowed.
    pub fn allowing(self, consent: Consent) -> Bundle {
        Bundle { consent, ..self }
    }

    /// What this party allows.
    pub fn consent(&self) -> &Consent {
        &self.consent
    }

    /// The program.
    pub fn program(&self) -> &ValidProgram {
        &self.program
    }

    /// The program's file.
    pub fn program_bytes(&self) -> &[u8] {
        &self.program_bytes
    }

    fn constants(&self, owner: Owner) -> &Constants {
        if owner == Owner::Public { &self.public } else { &self.private }
    }

    fn check(&self, party: Party) -> Result<(), RunError> {
        for at in 0..self.program.len() {
            let Instruction::Constant(c) = self.program.instruction(at) else { continue };
            let Some((owner, ty)) = self.wanted(at).filter(|(owner, _)| party.knows(*owner)) else {
                continue;
            };
            match self.constants(owner) {
                Constants::File(archive) => archive.find(&c.name, &ty).map(|_| ())?,
                Constants::Absent(path) => {
                    let text = format!("it must hold the constant '{}'", c.name);
                    let source = io::Error::new(io::ErrorKind::NotFound, text);
                    return Err(RunError::File { path: path.clone(), action: "open", source });
                }
                Constants::Memory(_) => {}
            }
        }
        Ok(())
    }

    fn wanted(&self, at: usize) -> Option<(Owner, TensorType)> {
        let ty = self.program.types().get(at)?;
        match ty.form {
            Form::Plain { owner, dtype } => Some((owner, TensorType { dtype, shape: ty.shape.clone() })),
            _ => None,
        }
    }

    /// The tensor of the `Constant` instruction `at`.
    ///
    /// # Errors
    /// `BadInput` for one that is missing or of another type, `File`, and `BadInput` where `at` is no constant of this
    /// party.
    pub fn constant(&self, at: u32) -> Result<Tensor, RunError> {
        let missing = |name: String| RunError::BadInput { name, reason: InputFault::Missing };
        let (Instruction::Constant(c), Some((owner, ty))) =
            (self.program.instruction(at as usize), self.wanted(at as usize))
        else {
            return Err(missing(format!("constant {at}")));
        };
        match self.constants(owner) {
            Constants::Absent(path) => Err(missing(located(&c.name, path))),
            Constants::Memory(tensors) => {
                let tensor = tensors.get(&c.name).ok_or_else(|| missing(c.name.clone()))?;
                check_type(&c.name, &ty, tensor.dtype().name().to_owned(), tensor.dtype(), tensor.shape())?;
                Ok(tensor.clone())
            }
            Constants::File(archive) => archive.load(&c.name, &ty),
        }
    }

    /// The elements of the `Constant` instruction `at`, which are f32, to be read in parts.
    ///
    /// # Errors
    /// As [`Bundle::constant`].
    pub fn floats(&self, at: u32) -> Result<Floats<'_>, RunError> {
        if let (Instruction::Constant(c), Some((owner, ty))) =
            (self.program.instruction(at as usize), self.wanted(at as usize))
            && ty.dtype == DType::F32
            && let Constants::File(archive) = self.constants(owner)
        {
            let (start_bytes, count_bytes) = archive.find(&c.name, &ty)?;
            return Ok(Floats(Place::File { archive, start_bytes, count_bytes }));
        }
        Ok(Floats::of(self.constant(at)?))
    }
}

/// The elements of an f32 tensor, in order, read in parts by any number of threads.
pub struct Floats<'a>(Place<'a>);

enum Place<'a> {
    File { archive: &'a Archive, start_bytes: u64, count_bytes: usize },
    Memory(Tensor),
}

impl Floats<'_> {
    /// Those of a tensor in memory.
    pub(crate) fn of(tensor: Tensor) -> Floats<'static> {
        Floats(Place::Memory(tensor))
    }

    /// Overwrites `floats` with elements `range`.
    ///
    /// # Errors
    /// `File`; `BadProgram` for a tensor of another type or of fewer elements.
    pub fn read(&self, range: Range<usize>, floats: &mut Vec<f32>) -> Result<(), RunError> {
        floats.clear();
        match &self.0 {
            Place::File { archive, start_bytes, count_bytes } => {
                let fault = file_fault(&archive.path, "read");
                let (first, count) = (range.start * size_of::<f32>(), range.len() * size_of::<f32>());
                if first.saturating_add(count) > *count_bytes {
                    return Err(fault(io::ErrorKind::UnexpectedEof.into()));
                }
                let start_bytes = start_bytes + first as u64;
                read(&archive.file, start_bytes, count, f32::from_le_bytes, floats).map_err(fault)
            }
            Place::Memory(tensor) => slice(tensor, range, floats),
        }
    }
}

/// Elements `range` of an f32 tensor, in order, at the end of `floats`.
///
/// # Errors
/// `BadProgram` for a tensor of another type or of fewer elements.
fn slice(tensor: &Tensor, range: Range<usize>, floats: &mut Vec<f32>) -> Result<(), RunError> {
    let bad = |error: OpError| RunError::BadProgram { reason: Box::new(error) };
    let array = tensor.as_f32().map_err(bad)?;
    let length = array.len();
    let missing = || bad(OpError::IndexOutOfRange { op: "slice", index: range.end as i64, length });
    match array.as_slice() {
        Some(values) => floats.extend_from_slice(values.get(range.clone()).ok_or_else(missing)?),
        None if range.end <= length => floats.extend(array.iter().skip(range.start).take(range.len())),
        None => return Err(missing()),
    }
    Ok(())
}

fn located(name: &str, path: &Path) -> String {
    format!("'{name}' of {}", path.display())
}

/// Compares a tensor's type with the program's.
pub(crate) fn check_type(
    name: &str,
    wanted: &TensorType,
    found_name: String,
    found: impl Into<Option<DType>>,
    shape: &[usize],
) -> Result<(), RunError> {
    let fault = |reason| Err(RunError::BadInput { name: name.to_owned(), reason });
    if found.into() != Some(wanted.dtype) {
        let expected = wanted.dtype.name().to_owned();
        return fault(InputFault::ElementType { expected, found: found_name });
    }
    if shape != wanted.shape {
        return fault(InputFault::Shape { expected: wanted.shape.clone(), found: shape.to_vec() });
    }
    Ok(())
}

impl Constants {
    fn open(path: PathBuf) -> Result<Constants, RunError> {
        match File::open(&path) {
            Ok(file) => Archive::new(path, file).map(Constants::File),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Constants::Absent(path)),
            Err(error) => Err(file_fault(&path, "open")(error)),
        }
    }
}

impl Archive {
    fn new(path: PathBuf, mut file: File) -> Result<Archive, RunError> {
        let damaged = |text: String| {
            let text = format!("the safetensors header is damaged: {text}");
            file_fault(&path, "read")(io::Error::new(io::ErrorKind::InvalidData, text))
        };
        let length_bytes = file.metadata().map_err(file_fault(&path, "read"))?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(file_fault(&path, "read"))?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > HEADER_LIMIT_BYTES.min(length_bytes) {
            return Err(damaged(format!("it claims {header_bytes} bytes of {length_bytes}")));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact(&mut header).map_err(file_fault(&path, "read"))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
        let data_start_bytes = 8 + header_bytes;
        if data_start_bytes.checked_add(metadata.data_len() as u64) != Some(length_bytes) {
            let held = length_bytes.saturating_sub(data_start_bytes);
            return Err(damaged(format!(
                "it lists {} bytes of data, the file has {held}",
                metadata.data_len()
            )));
        }
        Ok(Archive { path, file, metadata, data_start_bytes })
    }

    /// Where a tensor of the wanted type lies: first byte and length.
    fn find(&self, name: &str, wanted: &TensorType) -> Result<(u64, usize), RunError> {
        let info = self.metadata.info(name);
        let name = located(name, &self.path);
        let missing = || RunError::BadInput { name: name.clone(), reason: InputFault::Missing };
        let info = info.ok_or_else(missing)?;
        let dtype = match info.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::I64 => Some(DType::I64),
            Dtype::BOOL => Some(DType::Bool),
            _ => None,
        };
        check_type(&name, wanted, format!("{:?}", info.dtype), dtype, &info.shape)?;
        let (start, end) = info.data_offsets;
        Ok((self.data_start_bytes + start as u64, end - start))
    }

    fn load(&self, name: &str, wanted: &TensorType) -> Result<Tensor, RunError> {
        let (start_bytes, count_bytes) = self.find(name, wanted)?;
        let fault = file_fault(&self.path, "read");
        let malformed = |error: OpError| fault(io::Error::other(error.to_string()));
        let (shape, file) = (wanted.shape.clone(), &self.file);
        let tensor = match wanted.dtype {
            DType::F32 => {
                Tensor::f32(shape, all(file, start_bytes, count_bytes, f32::from_le_bytes).map_err(&fault)?)
            }
            DType::I64 => {
                Tensor::i64(shape, all(file, start_bytes, count_bytes, i64::from_le_bytes).map_err(&fault)?)
            }
            DType::Bool => {
                let truth = |[b]: [u8; 1]| b != 0;
                Tensor::bool(shape, all(file, start_bytes, count_bytes, truth).map_err(&fault)?)
            }
        };
        tensor.map_err(malformed)
    }
}

/// Elements of `N` bytes each, `count_bytes` of them.
fn all<T, const N: usize>(
    file: &File,
    start_bytes: u64,
    count_bytes: usize,
    element: impl Fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let mut elements = Vec::new();
    read(file, start_bytes, count_bytes, element, &mut elements)?;
    Ok(elements)
}

/// The same at the end of `elements`, through a small buffer.
fn read<T, const N: usize>(
    file: &File,
    start_bytes: u64,
    count_bytes: usize,
    element: impl Fn([u8; N]) -> T,
    elements: &mut Vec<T>,
) -> io::Result<()> {
    const BUFFER_BYTES: usize = 1 << 12;
    elements.try_reserve_exact(count_bytes / N).map_err(io::Error::other)?;
    let mut buffer = [0; BUFFER_BYTES];
    let mut done = 0;
    while done < count_bytes {
        let bytes = &mut buffer[..BUFFER_BYTES.min(count_bytes - done)];
        read_exact_at(file, bytes, start_bytes + done as u64)?;
        elements.extend(bytes.as_chunks().0.iter().map(|chunk| element(*chunk)));
        done += bytes.len();
    }
    Ok(())
}
