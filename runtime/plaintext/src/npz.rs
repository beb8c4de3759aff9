//! Named tensors in `.npz` files, as numpy writes them: zip archives of `.npy`, stored or deflated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{
    NpzReader, NpzWriter, ReadDataError, ReadNpyError, ReadNpzError, ReadableElement, WriteNpzError,
};
use py_literal::Value;

use crate::Tensor;

/// Why tensors cannot be read from or written to a file.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be opened or created.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The archive is damaged, or none.
    #[error("cannot read the archive: {0}")]
    Archive(ReadNpzError),
    /// An array is damaged, or of an element type other than f16, f32, f64, signed and unsigned integers and bool.
    #[error("cannot read array \"{name}\": {source}")]
    Array {
        /// Its name.
        name: String,
        /// Why.
        source: ReadNpzError,
    },
    /// An unsigned integer that exceeds an i64.
    #[error("array \"{name}\" holds {found}, the largest integer supported is 2^63 - 1")]
    Integer {
        /// The array's name.
        name: String,
        /// The element.
        found: u64,
    },
    /// Writing failed.
    #[error("cannot write array \"{name}\": {source}")]
    Write {
        /// Its name, empty for the archive's directory.
        name: String,
        /// Why.
        source: WriteNpzError,
    },
}

/// Reads every array of the file at `path`, by name without `.npy`. Floats become f32, integers i64.
///
/// # Errors
/// If the file cannot be read or an array has another element type.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, NpzError> {
    let file = File::open(path).map_err(|source| NpzError::Open { path: path.into(), source })?;
    read_from(file)
}

/// As [`read`], from memory.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>, NpzError> {
    read_from(Cursor::new(bytes))
}

fn read_from(source: impl Read + Seek) -> Result<BTreeMap<String, Tensor>, NpzError> {
    let mut archive = NpzReader::new(source).map_err(NpzError::Archive)?;
    let names = archive.names().map_err(NpzError::Archive)?;
    let mut tensors = BTreeMap::new();
    for (index, name) in names.into_iter().enumerate() {
        let tensor = array(&mut archive, index, &name)?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Tries one element type after the other: an array's own can only be told by reading it.
fn array<R: Read + Seek>(archive: &mut NpzReader<R>, index: usize, name: &str) -> Result<Tensor, NpzError> {
    let failed = |source| NpzError::Array { name: name.into(), source };
    if let Some(array) = attempt::<f32, R>(archive, index).map_err(failed)? {
        return Ok(Tensor::F32(array.into_shared()));
    }
    if let Some(array) = attempt::<i64, R>(archive, index).map_err(failed)? {
        return Ok(Tensor::I64(array.into_shared()));
    }
    if let Some(array) = attempt::<bool, R>(archive, index).map_err(failed)? {
        return Ok(Tensor::Bool(array.into_shared()));
    }
    if let Some(array) = attempt::<f64, R>(archive, index).map_err(failed)? {
        return Ok(Tensor::F32(array.mapv(|x| x as f32).into_shared()));
    }
    if let Some(array) = attempt::<Half, R>(archive, index).map_err(failed)? {
        return Ok(Tensor::F32(array.mapv(|x| x.to_f32()).into_shared()));
    }
    macro_rules! integers {
        ($($element:ty),*) => {$(
            if let Some(array) = attempt::<$element, R>(archive, index).map_err(failed)? {
                return Ok(Tensor::I64(array.mapv(i64::from).into_shared()));
            }
        )*};
    }
    integers!(i32, u8, i8, i16, u16, u32);
    let array: ArrayD<u64> = archive.by_index(index).map_err(failed)?;
    if let Some(&found) = array.iter().find(|&&x| i64::try_from(x).is_err()) {
        return Err(NpzError::Integer { name: name.into(), found });
    }
    Ok(Tensor::I64(array.mapv(|x| x as i64).into_shared()))
}

/// IEEE half precision as its bits.
#[derive(Clone, Copy)]
struct Half(u16);

impl Half {
    /// The same number: every half is a single.
    fn to_f32(self) -> f32 {
        let sign = if self.0 >> 15 == 1 { -1.0 } else { 1.0 };
        let (exponent, fraction) = ((self.0 >> 10) & 31, f32::from(self.0 & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f32.powi(-24),
            31 if fraction == 0.0 => f32::INFINITY,
            31 => f32::NAN,
            _ => (1024.0 + fraction) * 2f32.powi(i32::from(exponent) - 25),
        };
        sign * magnitude
    }
}

impl ReadableElement for Half {
    fn read_to_end_exact_vec<R: Read>(
        mut reader: R,
        type_desc: &Value,
        len: usize,
    ) -> Result<Vec<Half>, ReadDataError> {
        if !matches!(type_desc, Value::String(text) if text == "<f2") {
            return Err(ReadDataError::WrongDescriptor(type_desc.clone()));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        let found = bytes.len() / 2;
        if found < len {
            return Err(ReadDataError::MissingData);
        }
        if bytes.len() > 2 * len {
            return Err(ReadDataError::ExtraBytes(bytes.len() - 2 * len));
        }
        Ok(bytes.as_chunks().0.iter().map(|chunk| Half(u16::from_le_bytes(*chunk))).collect())
    }
}

/// `None` if the array has another element type.
fn attempt<T: ReadableElement, R: Read + Seek>(
    archive: &mut NpzReader<R>,
    index: usize,
) -> Result<Option<ArrayD<T>>, ReadNpzError> {
    match archive.by_index::<ndarray::OwnedRepr<T>, IxDyn>(index) {
        Ok(array) => Ok(Some(array)),
        Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes tensors to a new or emptied file at `path`, uncompressed.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), NpzError> {
    let file = File::create(path).map_err(|source| NpzError::Open { path: path.into(), source })?;
    write_to(file, tensors).map(drop)
}

/// As [`write`], to memory.
///
/// # Errors
/// If an array has more than 4 GiB.
pub fn write_bytes(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, NpzError> {
    Ok(write_to(Cursor::new(Vec::new()), tensors)?.into_inner())
}

fn write_to<W: Write + Seek>(target: W, tensors: &BTreeMap<String, Tensor>) -> Result<W, NpzError> {
    let mut archive = NpzWriter::new(target);
    for (name, tensor) in tensors {
        let written = match tensor {
            Tensor::F32(array) => archive.add_array(name.as_str(), array),
            Tensor::I64(array) => archive.add_array(name.as_str(), array),
            Tensor::Bool(array) => archive.add_array(name.as_str(), array),
        };
        written.map_err(|source| NpzError::Write { name: name.clone(), source })?;
    }
    archive.finish().map_err(|source| NpzError::Write { name: String::new(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array};

    #[test]
    fn tensors_come_back_as_written() {
        let tensors: BTreeMap<String, Tensor> = [
            ("x".to_string(), Tensor::f32(vec![2, 2], vec![1.5, -0.0, f32::INFINITY, 4.0]).unwrap()),
            ("ids".to_string(), Tensor::i64(vec![3], vec![1, -2, i64::MAX]).unwrap()),
            ("mask".to_string(), Tensor::bool(vec![2, 1], vec![true, false]).unwrap()),
            ("one".to_string(), Tensor::scalar_f32(7.0)),
        ]
        .into_iter()
        .collect();
        assert_eq!(read_bytes(&write_bytes(&tensors).unwrap()).unwrap(), tensors);
    }

    #[test]
    fn other_element_types_become_the_three() {
        let mut archive = NpzWriter::new_compressed(Cursor::new(Vec::new()));
        archive.add_array("f64", &array![0.5f64, 2.0]).unwrap();
        archive.add_array("i32", &array![-3i32]).unwrap();
        archive.add_array("u8", &array![200u8]).unwrap();
        archive.add_array("u64", &array![1u64 << 62]).unwrap();
        archive
            .add_array("columns", &Array::from_shape_vec((2, 2), vec![1f32, 2., 3., 4.]).unwrap().t())
            .unwrap();
        let read = read_bytes(&archive.finish().unwrap().into_inner()).unwrap();
        assert_eq!(read["f64"], Tensor::f32(vec![2], vec![0.5, 2.0]).unwrap());
        assert_eq!(read["i32"], Tensor::i64(vec![1], vec![-3]).unwrap());
        assert_eq!(read["u8"], Tensor::i64(vec![1], vec![200]).unwrap());
        assert_eq!(read["u64"], Tensor::i64(vec![1], vec![1 << 62]).unwrap());
        assert_eq!(read["columns"], Tensor::f32(vec![2, 2], vec![1., 3., 2., 4.]).unwrap());
    }

    #[test]
    fn halves_become_singles() {
        // One array of 1, -2, 65504, 2^-24, infinity; as numpy lays it out.
        let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        npy.extend_from_slice(b"{'descr': '<f2', 'fortran_order': False, 'shape': (5,), }");
        npy.resize(127, b' ');
        npy.push(b'\n');
        for bits in [0x3c00u16, 0xc000, 0x7bff, 0x0001, 0x7c00] {
            npy.extend_from_slice(&bits.to_le_bytes());
        }
        let halves = <ArrayD<Half> as ndarray_npy::ReadNpyExt>::read_npy(npy.as_slice()).unwrap();
        let singles: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        assert_eq!(singles, [1.0, -2.0, 65504.0, 2f32.powi(-24), f32::INFINITY]);
        assert!(Half(0x7e00).to_f32().is_nan());
        let read = <ArrayD<Half> as ndarray_npy::ReadNpyExt>::read_npy(&npy[..npy.len() - 1]);
        assert!(matches!(read, Err(ReadNpyError::MissingData)));
    }

    #[test]
    fn what_cannot_be_represented_is_refused() {
        assert!(matches!(read_bytes(b"not a zip"), Err(NpzError::Archive(_))));
        let mut archive = NpzWriter::new(Cursor::new(Vec::new()));
        archive.add_array("big", &array![u64::MAX]).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        assert!(matches!(read_bytes(&bytes), Err(NpzError::Integer { found: u64::MAX, .. })));
        assert!(read_bytes(&bytes[..bytes.len() / 2]).is_err());
    }
}
