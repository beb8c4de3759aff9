//! `TensorProto` to [`Constant`], its elements left where they are: in the model's file or in a file beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use marill_plaintext::shape::element_count;
use memmap2::Mmap;
use onnx_protobuf::TensorProto;
use onnx_protobuf::tensor_proto::DataLocation;

use super::problem::ImportProblem;
use super::wire::{self, Encoding, Payload};
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::Constant;
use crate::ir::constant::{Bytes, Contents, Element};

/// The bytes of a model: its own file, and those that its external data lies in.
pub(super) struct Files {
    pub model: Bytes,
    /// Where external data is looked for; `None` if the model came without a file.
    pub directory: Option<PathBuf>,
    mapped: BTreeMap<PathBuf, Bytes>,
}

impl Files {
    pub fn new(model: Bytes, directory: Option<PathBuf>) -> Files {
        Files { model, directory, mapped: BTreeMap::new() }
    }

    fn external(&mut self, location: &str) -> Result<Bytes, Problem> {
        let refuse = |what: &str| ImportProblem::External { location: location.into(), what: what.into() };
        let relative = Path::new(location);
        let inside =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !inside {
            return Err(refuse("is not below the model's directory").into());
        }
        let directory =
            self.directory.as_ref().ok_or_else(|| refuse("the model came without a directory"))?;
        let path = directory.join(relative);
        if let Some(bytes) = self.mapped.get(&path) {
            return Ok(bytes.clone());
        }
        let bytes = map(&path)?;
        self.mapped.insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// Maps a file for reading.
///
/// # Errors
/// If it is not a regular file that can be opened and mapped.
pub(super) fn map(path: &Path) -> Result<Bytes, Problem> {
    let unreadable = |source| Problem::Unreadable { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(std::io::Error::other("not a regular file")));
    }
    if metadata.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the map is read-only and private to this process; as with every memory map, a file that another
    // process shortens meanwhile ends this one with a bus error, which costs a compilation and nothing else.
    #[allow(unsafe_code)]
    let mapped = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    Ok(Arc::new(Mapped(mapped)))
}

/// A file mapped for reading.
struct Mapped(Mmap);

/// Shorter ranges are left in memory.
const RELEASED_BYTES: usize = 1 << 20;

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Contents for Mapped {
    fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.len() >= RELEASED_BYTES {
            // SAFETY: the map is of a file and nothing writes to it, so pages that are dropped are read again from the
            // file, with the same bytes.
            #[allow(unsafe_code)]
            let advised = unsafe {
                self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // Without it more memory is in use, no more.
            let _ = advised;
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// ONNX's `TensorProto.DataType` as an element encoding; strings, complex numbers and 4- and 8-bit floats have none.
pub(super) fn element(data_type: i32) -> Option<Element> {
    Some(match data_type {
        1 => Element::F32,
        2 => Element::U8,
        3 => Element::I8,
        4 => Element::U16,
        5 => Element::I16,
        6 => Element::I32,
        7 => Element::I64,
        9 => Element::Bool,
        10 => Element::F16,
        11 => Element::F64,
        12 => Element::U32,
        13 => Element::U64,
        16 => Element::Bf16,
        _ => return None,
    })
}

/// The constant that `tensor` describes. `node` names it in diagnostics.
pub(super) fn constant(
    tensor: &TensorProto,
    payloads: &[Payload],
    files: &mut Files,
    node: &str,
) -> Result<Constant, Diagnostic> {
    read(tensor, payloads, files).map_err(|problem| Diagnostic::new(node, problem))
}

fn read(tensor: &TensorProto, payloads: &[Payload], files: &mut Files) -> Result<Constant, Problem> {
    let wrong = |found: String, needed| Problem::from(ImportProblem::Tensor { found, needed });
    let Some(element) = element(tensor.data_type) else {
        return Err(Problem::ElementType { found: format!("TensorProto.DataType {}", tensor.data_type) });
    };
    let shape: Vec<usize> = tensor
        .dims
        .iter()
        .map(|&dim| {
            usize::try_from(dim).map_err(|_| wrong(format!("dimension {dim}"), "no negative dimension"))
        })
        .collect::<Result<_, _>>()?;
    element_count(&shape)?;
    let needed_bytes = shape
        .iter()
        .try_fold(element.size_bytes(), |bytes, &dim| bytes.checked_mul(dim))
        .filter(|&bytes| bytes <= isize::MAX as usize)
        .ok_or_else(|| wrong(format!("shape {shape:?}"), "a shape that fits in memory"))?;

    if tensor.data_location.enum_value() == Ok(DataLocation::EXTERNAL) {
        return external(tensor, element, shape, needed_bytes, files);
    }
    let payload = tensor
        .segment
        .as_ref()
        .and_then(|segment| usize::try_from(segment.begin).ok())
        .and_then(|index| payloads.get(index));
    let Some(payload) = payload else {
        if needed_bytes == 0 {
            return Ok(Constant::mapped(Arc::new(Vec::new()), 0, 0, element, shape)?);
        }
        return Err(wrong("no contents".into(), "raw_data, typed data or external data"));
    };
    let suits = match payload.encoding {
        Encoding::Raw => true,
        Encoding::Floats => element == Element::F32,
        Encoding::Doubles => element == Element::F64,
        Encoding::Varints => !matches!(element, Element::F32 | Element::F64),
    };
    if !suits {
        return Err(wrong(
            format!("{:?} data for {element:?} elements", payload.encoding),
            "data of its own type",
        ));
    }
    let bytes = files.model.clone();
    let file: &[u8] = (*bytes).as_ref();
    match (payload.encoding, payload.parts.as_slice()) {
        (Encoding::Varints, parts) => {
            let mut elements = Vec::new();
            for part in parts {
                for value in wire::varints(&file[part.clone()]) {
                    let value = value.map_err(ImportProblem::from)?.to_le_bytes();
                    let width = element.size_bytes();
                    if element == Element::Bool {
                        elements.push(u8::from(value != [0; 8]));
                    } else {
                        elements.extend_from_slice(&value[..width]);
                    }
                }
            }
            let length = elements.len();
            Ok(Constant::mapped(Arc::new(elements), 0, length, element, shape)?)
        }
        (_, [part]) => {
            let range = part.clone();
            Ok(Constant::mapped(bytes.clone(), range.start, range.len(), element, shape)?)
        }
        (_, parts) => {
            let elements: Vec<u8> =
                parts.iter().flat_map(|part| file[part.clone()].iter().copied()).collect();
            let length = elements.len();
            Ok(Constant::mapped(Arc::new(elements), 0, length, element, shape)?)
        }
    }
}

fn external(
    tensor: &TensorProto,
    element: Element,
    shape: Vec<usize>,
    needed_bytes: usize,
    files: &mut Files,
) -> Result<Constant, Problem> {
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|e| e.value.as_str());
    let location = entry("location").unwrap_or_default();
    let number = |key: &str, default: usize| match entry(key) {
        None => Ok(default),
        Some(text) => text.trim().parse::<usize>().map_err(|_| {
            Problem::from(ImportProblem::External {
                location: location.into(),
                what: format!("{key} is \"{text}\", needed is a number of bytes"),
            })
        }),
    };
    let (offset, length) = (number("offset", 0)?, number("length", needed_bytes)?);
    let bytes = files.external(location)?;
    Ok(Constant::mapped(bytes, offset, length, element, shape)?)
}
