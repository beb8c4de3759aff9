//! Values known when compiling: held in memory, or left in the model's file until somebody needs the numbers.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use marill_plaintext::{DType, Op, Tensor, TensorType, evaluate};
use ndarray::{ArcArray, IxDyn};

/// Bytes that outlive the model's loading, typically of a mapped file.
pub type Bytes = Arc<dyn Contents>;

/// What constants lie in.
pub trait Contents: AsRef<[u8]> + Send + Sync {
    /// Frees the memory that bytes which were read take, where they can be read again. Larger models than there is
    /// memory for pass through it so.
    fn release(&self, _range: Range<usize>) {}
}

impl Contents for Vec<u8> {}

/// Element encoding of bytes in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary64.
    F64,
    /// Signed, 64 bits.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits; values above `i64::MAX` become `i64::MAX`.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, non-zero is true.
    Bool,
}

impl Element {
    /// Length of one element in the file.
    pub fn size_bytes(self) -> usize {
        match self {
            Element::F64 | Element::I64 | Element::U64 => 8,
            Element::F32 | Element::I32 | Element::U32 => 4,
            Element::F16 | Element::Bf16 | Element::I16 | Element::U16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
        }
    }

    /// The element type that the compiler works with.
    pub fn dtype(self) -> DType {
        match self {
            Element::F32 | Element::F16 | Element::Bf16 | Element::F64 => DType::F32,
            Element::Bool => DType::Bool,
            _ => DType::I64,
        }
    }
}

/// Why a constant cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstantError {
    /// The shape's byte count overflows or differs from the bytes given.
    #[error("{found_bytes} bytes of data, but {element:?}{shape:?} needs {needed_bytes:?}")]
    Length {
        /// Element encoding.
        element: Element,
        /// Declared shape.
        shape: Vec<usize>,
        /// What the shape needs; `None` if it exceeds the address space.
        needed_bytes: Option<usize>,
        /// What was given.
        found_bytes: usize,
    },
    /// The data would lie outside its file.
    #[error("data at bytes {offset_bytes} + {length_bytes} lies outside a file of {file_bytes} bytes")]
    OutOfFile {
        /// Where the data starts.
        offset_bytes: usize,
        /// How long it is.
        length_bytes: usize,
        /// Length of the file.
        file_bytes: usize,
    },
    /// The constant was parsed from text that holds only its digest.
    #[error("the elements of {ty} (digest {digest}) are not in the text form, load the model itself")]
    Absent {
        /// Its type.
        ty: TensorType,
        /// First hexadecimal digits of its digest.
        digest: String,
    },
}

#[derive(Clone)]
enum Source {
    Inline(Tensor),
    /// Axis `i` of the constant is axis `axes[i]` of what the file holds.
    Mapped {
        bytes: Bytes,
        offset_bytes: usize,
        element: Element,
        axes: Vec<usize>,
    },
    Absent {
        digest_prefix: [u8; 8],
    },
}

/// A tensor known when compiling. Cloning is cheap and shares the digest.
#[derive(Clone)]
pub struct Constant {
    ty: TensorType,
    source: Source,
    digest: Arc<OnceLock<[u8; 32]>>,
}

impl Constant {
    fn new(ty: TensorType, source: Source) -> Constant {
        Constant { ty, source, digest: Arc::default() }
    }

    /// A constant whose elements are in memory.
    pub fn inline(tensor: Tensor) -> Constant {
        Constant::new(tensor.ty(), Source::Inline(tensor))
    }

    /// A constant whose elements stay in `bytes[offset_bytes .. offset_bytes + length_bytes]`, at any alignment.
    ///
    /// # Errors
    /// If that range is outside `bytes`, or `length_bytes` is not what `shape` needs.
    pub fn mapped(
        bytes: Bytes,
        offset_bytes: usize,
        length_bytes: usize,
        element: Element,
        shape: Vec<usize>,
    ) -> Result<Constant, ConstantError> {
        let needed_bytes =
            shape.iter().try_fold(element.size_bytes(), |product, &dim| product.checked_mul(dim));
        if needed_bytes != Some(length_bytes) {
            return Err(ConstantError::Length { element, shape, needed_bytes, found_bytes: length_bytes });
        }
        let file_bytes = (*bytes).as_ref().len();
        if offset_bytes.checked_add(length_bytes).is_none_or(|end| end > file_bytes) {
            return Err(ConstantError::OutOfFile { offset_bytes, length_bytes, file_bytes });
        }
        let axes = (0..shape.len()).collect();
        let ty = TensorType { dtype: element.dtype(), shape };
        Ok(Constant::new(ty, Source::Mapped { bytes, offset_bytes, element, axes }))
    }

    /// A constant of which only the type and the first bytes of the digest are known.
    pub fn absent(ty: TensorType, digest_prefix: [u8; 8]) -> Constant {
        Constant::new(ty, Source::Absent { digest_prefix })
    }

    /// Type of the loaded tensor.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// Encoding of the elements where they are kept.
    pub fn element(&self) -> Element {
        match (&self.source, self.ty.dtype) {
            (Source::Mapped { element, .. }, _) => *element,
            (_, DType::F32) => Element::F32,
            (_, DType::I64) => Element::I64,
            (_, DType::Bool) => Element::Bool,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.ty.shape.iter().product()
    }

    /// The same elements in another shape, without reading them; nothing if the count differs, they are absent, or they
    /// lie transposed in a file.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Constant> {
        let ty = TensorType { dtype: self.ty.dtype, shape };
        let elements = ty.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if elements != Some(self.elements()) {
            return None;
        }
        let source = match &self.source {
            Source::Inline(tensor) => Source::Inline(reshape_tensor(tensor, &ty.shape)?),
            Source::Mapped { bytes, offset_bytes, element, axes } if axes.is_sorted() => {
                let axes = (0..ty.shape.len()).collect();
                Source::Mapped { bytes: bytes.clone(), offset_bytes: *offset_bytes, element: *element, axes }
            }
            Source::Mapped { .. } | Source::Absent { .. } => return None,
        };
        Some(Constant::new(ty, source))
    }

    /// Axis `i` becomes what axis `perm[i]` is, without reading the elements; nothing if they are absent or `perm` is no
    /// permutation of the axes.
    pub fn transposed(&self, perm: &[usize]) -> Option<Constant> {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.ty.shape.len()) {
            return None;
        }
        let shape = perm.iter().map(|&axis| self.ty.shape[axis]).collect();
        let ty = TensorType { dtype: self.ty.dtype, shape };
        let source = match &self.source {
            Source::Inline(tensor) => Source::Inline(transpose_tensor(tensor, perm)?),
            Source::Mapped { bytes, offset_bytes, element, axes } => {
                let axes = perm.iter().map(|&axis| axes[axis]).collect();
                Source::Mapped { bytes: bytes.clone(), offset_bytes: *offset_bytes, element: *element, axes }
            }
            Source::Absent { .. } => return None,
        };
        Some(Constant::new(ty, source))
    }

    /// Whether [`Constant::load`] can succeed.
    pub fn is_present(&self) -> bool {
        !matches!(self.source, Source::Absent { .. })
    }

    /// The elements, converted to the compiler's element types.
    ///
    /// # Errors
    /// If the elements are absent.
    pub fn load(&self) -> Result<Tensor, ConstantError> {
        match &self.source {
            Source::Inline(tensor) => Ok(tensor.clone()),
            Source::Mapped { element, axes, .. } => {
                let raw = self.raw();
                let mut shape = self.ty.shape.clone();
                axes.iter().zip(&self.ty.shape).for_each(|(&axis, &length)| shape[axis] = length);
                let loaded = match element.dtype() {
                    DType::F32 => shaped(&shape, floats(raw, *element)).map(Tensor::F32),
                    DType::I64 => shaped(&shape, integers(raw, *element)).map(Tensor::I64),
                    DType::Bool => shaped(&shape, raw.iter().map(|&b| b != 0).collect()).map(Tensor::Bool),
                };
                self.release();
                loaded.and_then(|tensor| transpose_tensor(&tensor, axes)).ok_or_else(|| {
                    ConstantError::Length {
                        element: *element,
                        shape: self.ty.shape.clone(),
                        needed_bytes: None,
                        found_bytes: raw.len(),
                    }
                })
            }
            Source::Absent { digest_prefix } => {
                Err(ConstantError::Absent { ty: self.ty.clone(), digest: hex(digest_prefix) })
            }
        }
    }

    /// BLAKE3 over element type, shape and the elements as little-endian f32, i64 or one byte per bool: equal for
    /// equal tensors however they are stored. An absent constant gives the known first bytes, then zeros.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            if let Source::Absent { digest_prefix } = &self.source {
                let mut digest = [0; 32];
                digest[..8].copy_from_slice(digest_prefix);
                return digest;
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[match self.ty.dtype {
                DType::F32 => 0,
                DType::I64 => 1,
                DType::Bool => 2,
            }]);
            hasher.update(&(self.ty.shape.len() as u64).to_le_bytes());
            for &dim in &self.ty.shape {
                hasher.update(&(dim as u64).to_le_bytes());
            }
            self.stream(&mut |chunk| {
                hasher.update(chunk);
            });
            self.release();
            *hasher.finalize().as_bytes()
        })
    }

    /// First 16 hexadecimal digits of [`Constant::digest`].
    pub fn short_digest(&self) -> String {
        hex(&self.digest()[..8])
    }

    /// The elements as the file has them, in its order; nothing if they are not in a file.
    pub(crate) fn raw(&self) -> &[u8] {
        match &self.source {
            Source::Mapped { bytes, offset_bytes, element, .. } => {
                let length_bytes = self.elements() * element.size_bytes();
                &(**bytes).as_ref()[*offset_bytes..*offset_bytes + length_bytes]
            }
            _ => &[],
        }
    }

    /// Lets go of what reading the elements has brought into memory.
    fn release(&self) {
        if let Source::Mapped { bytes, offset_bytes, .. } = &self.source {
            bytes.release(*offset_bytes..*offset_bytes + self.raw().len());
        }
    }

    /// The elements at `places`, counted in row-major order, as f32; of the file, these alone are read.
    ///
    /// # Errors
    /// If the elements are absent.
    ///
    /// # Panics
    /// If there is no such place.
    pub(crate) fn elements_at(&self, places: &[usize]) -> Result<Vec<f32>, ConstantError> {
        let Source::Mapped { element, axes, .. } = &self.source else {
            let elements = self.load()?.cast(DType::F32).to_f32_vec().unwrap_or_default();
            return Ok(places.iter().map(|&place| elements[place]).collect());
        };
        let shape = &self.ty.shape;
        let mut strides = vec![1; axes.len()];
        let mut stride = 1;
        for axis in (0..axes.len()).rev() {
            let here = axes.iter().position(|&from| from == axis).unwrap_or(axis);
            strides[here] = stride;
            stride *= shape[here];
        }
        let (raw, width) = (self.raw(), element.size_bytes());
        let mut picked = Vec::with_capacity(places.len() * width);
        for &place in places {
            let (mut at, mut rest) = (0, place);
            for (&length, &stride) in shape.iter().zip(&strides).rev() {
                at += rest % length * stride;
                rest /= length;
            }
            picked.extend_from_slice(&raw[at * width..(at + 1) * width]);
        }
        self.release();
        Ok(match element.dtype() {
            DType::F32 => floats(&picked, *element),
            DType::I64 => integers(&picked, *element).into_iter().map(|v| v as f32).collect(),
            DType::Bool => picked.iter().map(|&b| f32::from(u8::from(b != 0))).collect(),
        })
    }

    /// Whether both lie in files, alike to the last byte. Others may be equal too.
    pub(crate) fn has_bytes_of(&self, other: &Constant) -> bool {
        const PIECE: usize = 1 << 26;
        let (Source::Mapped { element, axes, .. }, Source::Mapped { element: others, axes: other_axes, .. }) =
            (&self.source, &other.source)
        else {
            return false;
        };
        if self.ty != other.ty || element != others || axes != other_axes {
            return false;
        }
        let mut pieces = self.raw().chunks(PIECE).zip(other.raw().chunks(PIECE));
        pieces.all(|(a, b)| {
            let are_equal = a == b;
            self.release();
            other.release();
            are_equal
        })
    }

    /// Feeds the canonical element bytes to `sink` in pieces of bounded size.
    fn stream(&self, sink: &mut dyn FnMut(&[u8])) {
        const PIECE: usize = 1 << 14;
        match &self.source {
            Source::Inline(tensor) => stream_tensor(tensor, PIECE, sink),
            Source::Mapped { axes, .. } if !axes.is_sorted() => {
                self.load().iter().for_each(|tensor| stream_tensor(tensor, PIECE, sink));
            }
            Source::Mapped { element: Element::F32 | Element::I64, .. } => {
                self.raw().chunks(PIECE).for_each(sink);
            }
            Source::Mapped { element, .. } => {
                for chunk in self.raw().chunks(PIECE) {
                    let canonical: Vec<u8> = match element.dtype() {
                        DType::F32 => floats(chunk, *element).iter().flat_map(|x| x.to_le_bytes()).collect(),
                        DType::I64 => {
                            integers(chunk, *element).iter().flat_map(|x| x.to_le_bytes()).collect()
                        }
                        DType::Bool => chunk.iter().map(|&b| u8::from(b != 0)).collect(),
                    };
                    sink(&canonical);
                }
            }
            Source::Absent { .. } => {}
        }
    }
}

impl fmt::Debug for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source {
            Source::Inline(_) => "inline",
            Source::Mapped { .. } => "mapped",
            Source::Absent { .. } => "absent",
        };
        write!(f, "Constant({source} {})", self.ty)
    }
}

impl From<Tensor> for Constant {
    fn from(tensor: Tensor) -> Constant {
        Constant::inline(tensor)
    }
}

fn shaped<T>(shape: &[usize], elements: Vec<T>) -> Option<ArcArray<T, IxDyn>> {
    ArcArray::from_shape_vec(IxDyn(shape), elements).ok()
}

fn reshape_tensor(tensor: &Tensor, shape: &[usize]) -> Option<Tensor> {
    Some(match tensor {
        Tensor::F32(array) => Tensor::F32(array.to_shape(shape).ok()?.into_owned().into_shared()),
        Tensor::I64(array) => Tensor::I64(array.to_shape(shape).ok()?.into_owned().into_shared()),
        Tensor::Bool(array) => Tensor::Bool(array.to_shape(shape).ok()?.into_owned().into_shared()),
    })
}

/// Shares the elements.
fn transpose_tensor(tensor: &Tensor, axes: &[usize]) -> Option<Tensor> {
    evaluate(&Op::Transpose { perm: axes.to_vec() }, &[tensor]).ok()
}

fn stream_tensor(tensor: &Tensor, piece_bytes: usize, sink: &mut dyn FnMut(&[u8])) {
    let mut buffer: Vec<u8> = Vec::with_capacity(piece_bytes + 8);
    let mut push = |bytes: &[u8]| {
        buffer.extend_from_slice(bytes);
        if buffer.len() >= piece_bytes {
            sink(&buffer);
            buffer.clear();
        }
    };
    match tensor {
        Tensor::F32(array) => array.iter().for_each(|x| push(&x.to_le_bytes())),
        Tensor::I64(array) => array.iter().for_each(|x| push(&x.to_le_bytes())),
        Tensor::Bool(array) => array.iter().for_each(|&x| push(&[u8::from(x)])),
    }
    sink(&buffer);
}

fn floats(raw: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F16 => pieces(raw).map(|b| f16_to_f32(u16::from_le_bytes(b))).collect(),
        Element::Bf16 => {
            pieces(raw).map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)).collect()
        }
        Element::F64 => pieces(raw).map(|b| f64::from_le_bytes(b) as f32).collect(),
        _ => pieces(raw).map(f32::from_le_bytes).collect(),
    }
}

fn integers(raw: &[u8], element: Element) -> Vec<i64> {
    match element {
        Element::I32 => pieces(raw).map(|b| i64::from(i32::from_le_bytes(b))).collect(),
        Element::I16 => pieces(raw).map(|b| i64::from(i16::from_le_bytes(b))).collect(),
        Element::I8 => pieces(raw).map(|b| i64::from(i8::from_le_bytes(b))).collect(),
        Element::U64 => {
            pieces(raw).map(|b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)).collect()
        }
        Element::U32 => pieces(raw).map(|b| i64::from(u32::from_le_bytes(b))).collect(),
        Element::U16 => pieces(raw).map(|b| i64::from(u16::from_le_bytes(b))).collect(),
        Element::U8 => raw.iter().map(|&b| i64::from(b)).collect(),
        _ => pieces(raw).map(i64::from_le_bytes).collect(),
    }
}

fn pieces<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    raw.as_chunks::<N>().0.iter().copied()
}

fn f16_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0f32 } else { 1.0 };
    let exponent = i32::from((half >> 10) & 0x1f);
    let fraction = f32::from(half & 0x3ff);
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(raw: Vec<u8>, offset_bytes: usize, element: Element, shape: Vec<usize>) -> Constant {
        let length_bytes = raw.len() - offset_bytes;
        Constant::mapped(Arc::new(raw), offset_bytes, length_bytes, element, shape).unwrap()
    }

    #[test]
    fn unaligned_bytes_load_and_digest_like_the_tensor_in_memory() {
        let values = [1.5f32, -2.0, 0.0, 1e-8, 65504.0, 7.0];
        let mut raw = vec![0xee; 3];
        raw.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let stored = mapped(raw, 3, Element::F32, vec![2, 3]);
        let inline = Constant::inline(Tensor::F32(shaped(&[2, 3], values.to_vec()).unwrap()));
        assert_eq!(stored.load().unwrap(), inline.load().unwrap());
        assert_eq!(stored.digest(), inline.digest());
        let reshaped = Constant::inline(Tensor::F32(shaped(&[3, 2], values.to_vec()).unwrap()));
        assert_ne!(inline.digest(), reshaped.digest());
    }

    #[test]
    fn transposing_reads_nothing_and_gives_what_the_tensor_in_memory_gives() {
        let halves: Vec<u8> = (0..24u16).flat_map(|i| (0x3c00 + i).to_le_bytes()).collect();
        let stored = mapped(halves, 0, Element::F16, vec![2, 3, 4]);
        let inline = Constant::inline(stored.load().unwrap());
        for perm in [[2, 0, 1], [0, 2, 1], [1, 2, 0], [0, 1, 2]] {
            let expected =
                evaluate(&Op::Transpose { perm: perm.to_vec() }, &[&stored.load().unwrap()]).unwrap();
            for transposed in [&stored, &inline].map(|constant| constant.transposed(&perm).unwrap()) {
                assert_eq!(transposed.ty(), &expected.ty());
                assert_eq!(transposed.load().unwrap(), expected, "{perm:?}");
                assert_eq!(transposed.digest(), Constant::inline(expected.clone()).digest());
                let all: Vec<usize> = (0..24).collect();
                assert_eq!(transposed.elements_at(&all).unwrap(), expected.to_f32_vec().unwrap());
            }
        }
        let twice = stored.transposed(&[2, 0, 1]).unwrap().transposed(&[2, 0, 1]).unwrap();
        assert_eq!(twice.load().unwrap(), stored.transposed(&[1, 2, 0]).unwrap().load().unwrap());
        assert!(twice.reshaped(vec![24]).is_none());
        assert_eq!(stored.reshaped(vec![4, 6]).unwrap().transposed(&[1, 0]).unwrap().ty().shape, [6, 4]);
        assert!(twice.has_bytes_of(&twice.clone()) && !twice.has_bytes_of(&stored));
        assert!(stored.transposed(&[0, 1]).is_none() && stored.transposed(&[0, 0, 1]).is_none());
    }

    #[test]
    fn every_element_type_becomes_one_of_three() {
        let halves = [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0x7c00];
        let raw = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
        let expected = [1.0, -2.0, 5.960_464_5e-8, 65504.0, f32::INFINITY];
        assert_eq!(mapped(raw, 0, Element::F16, vec![5]).load().unwrap().to_f32_vec().unwrap(), expected);
        let raw = 1.5f32.to_le_bytes()[2..].to_vec();
        assert_eq!(mapped(raw, 0, Element::Bf16, vec![1]).load().unwrap().to_f32_vec().unwrap(), [1.5]);
        let raw = 0.25f64.to_le_bytes().to_vec();
        assert_eq!(mapped(raw, 0, Element::F64, vec![1]).load().unwrap().to_f32_vec().unwrap(), [0.25]);
        for (element, raw, expected) in [
            (Element::I8, vec![0xff], -1),
            (Element::U8, vec![0xff], 255),
            (Element::I16, vec![0xfe, 0xff], -2),
            (Element::U16, vec![0xfe, 0xff], 65534),
            (Element::I32, vec![0xfd, 0xff, 0xff, 0xff], -3),
            (Element::U32, vec![0xff, 0xff, 0xff, 0xff], 4_294_967_295),
            (Element::U64, vec![0xff; 8], i64::MAX),
        ] {
            let constant = mapped(raw, 0, element, vec![]);
            assert_eq!(
                constant.load().unwrap(),
                Tensor::I64(shaped(&[], vec![expected]).unwrap()),
                "{element:?}"
            );
            assert_eq!(constant.digest(), Constant::inline(constant.load().unwrap()).digest(), "{element:?}");
        }
        let flags = mapped(vec![0, 2], 0, Element::Bool, vec![2]);
        assert_eq!(flags.load().unwrap(), Tensor::Bool(shaped(&[2], vec![false, true]).unwrap()));
    }

    #[test]
    fn data_outside_the_file_or_of_another_length_is_refused() {
        let bytes: Bytes = Arc::new(vec![0u8; 16]);
        let make =
            |offset, length, shape| Constant::mapped(bytes.clone(), offset, length, Element::F32, shape);
        assert!(matches!(make(8, 12, vec![3]), Err(ConstantError::OutOfFile { .. })));
        assert!(matches!(make(usize::MAX, 4, vec![1]), Err(ConstantError::OutOfFile { .. })));
        assert!(matches!(make(0, 8, vec![3]), Err(ConstantError::Length { needed_bytes: Some(12), .. })));
        assert!(matches!(
            make(0, 8, vec![usize::MAX, 2]),
            Err(ConstantError::Length { needed_bytes: None, .. })
        ));
    }
}
