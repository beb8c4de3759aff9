//! Clear-text tensors: f32, i64 or bool elements, row-major when viewed as a slice.

use std::fmt;
use std::str::FromStr;

use ndarray::{ArcArray, Array, IxDyn};

use crate::OpError;
use crate::evaluate::elements;
use crate::shape::element_count;
use crate::text::{parse_list, write_list};

/// Element type. ONNX's f16, bf16 and f64 become `F32`, its narrower integers `I64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// Signed 64-bit integer.
    I64,
    /// Truth value.
    Bool,
}

impl DType {
    /// `f32`, `i64` or `bool`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::I64 => "i64",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = OpError;

    fn from_str(text: &str) -> Result<DType, OpError> {
        match text {
            "f32" => Ok(DType::F32),
            "i64" => Ok(DType::I64),
            "bool" => Ok(DType::Bool),
            _ => Err(OpError::Malformed { text: text.to_string(), expected: "f32, i64 or bool" }),
        }
    }
}

/// Element type and shape. Its text is `f32[1,16]`; a scalar's is `f32[]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Length of each axis.
    pub shape: Vec<usize>,
}

impl TensorType {
    /// A type of `dtype` elements in `shape`. Nothing is checked; [`crate::infer`] checks its operands.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>) -> TensorType {
        TensorType { dtype, shape: shape.into() }
    }

    /// Number of elements, saturating at `usize::MAX`.
    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.shape.iter().fold(1, |n, &d| n.saturating_mul(d)) }
    }

    /// Whether some axis has length 0.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype.name())?;
        write_list(f, &self.shape)
    }
}

impl FromStr for TensorType {
    type Err = OpError;

    fn from_str(text: &str) -> Result<TensorType, OpError> {
        let malformed =
            || OpError::Malformed { text: text.to_string(), expected: "a type such as f32[1,16]" };
        let open = text.find('[').ok_or_else(malformed)?;
        let dtype = text[..open].parse().map_err(|_| malformed())?;
        let shape: Vec<usize> = parse_list(&text[open..]).ok_or_else(malformed)?;
        element_count(&shape)?;
        Ok(TensorType { dtype, shape })
    }
}

/// A tensor in the clear. Cloning shares the elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Of f32 elements.
    F32(ArcArray<f32, IxDyn>),
    /// Of i64 elements.
    I64(ArcArray<i64, IxDyn>),
    /// Of truth values.
    Bool(ArcArray<bool, IxDyn>),
}

fn array<T: Clone>(shape: Vec<usize>, data: Vec<T>) -> Result<ArcArray<T, IxDyn>, OpError> {
    let expected = element_count(&shape)?;
    let wrong = OpError::DataLength { shape: shape.clone(), expected, found: data.len() };
    if data.len() != expected {
        return Err(wrong);
    }
    Ok(Array::from_shape_vec(IxDyn(&shape), data).map_err(|_| wrong)?.into_shared())
}

impl Tensor {
    /// Row-major `data` in `shape`. Errors: the element count is not the data's length, or exceeds 2^40.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Result<Tensor, OpError> {
        array(shape.into(), data).map(Tensor::F32)
    }

    /// Row-major `data` in `shape`. Errors: the element count is not the data's length, or exceeds 2^40.
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Result<Tensor, OpError> {
        array(shape.into(), data).map(Tensor::I64)
    }

    /// Row-major `data` in `shape`. Errors: the element count is not the data's length, or exceeds 2^40.
    pub fn bool(shape: impl Into<Vec<usize>>, data: Vec<bool>) -> Result<Tensor, OpError> {
        array(shape.into(), data).map(Tensor::Bool)
    }

    /// One element, no axes.
    pub fn scalar_f32(value: f32) -> Tensor {
        Tensor::F32(ArcArray::from_elem(IxDyn(&[]), value))
    }

    /// One element, no axes.
    pub fn scalar_i64(value: i64) -> Tensor {
        Tensor::I64(ArcArray::from_elem(IxDyn(&[]), value))
    }

    /// One element, no axes.
    pub fn scalar_bool(value: bool) -> Tensor {
        Tensor::Bool(ArcArray::from_elem(IxDyn(&[]), value))
    }

    /// Zeros (or `false`) of type `ty`. Errors: more than 2^40 elements, or no memory for them.
    pub fn zeros(ty: TensorType) -> Result<Tensor, OpError> {
        fn filled<T: Clone>(shape: &[usize], zero: T) -> Result<Vec<T>, OpError> {
            let elements = element_count(shape)?;
            let mut data = reserve(elements)?;
            data.resize(elements, zero);
            Ok(data)
        }
        match ty.dtype {
            DType::F32 => filled(&ty.shape, 0.0).and_then(|data| Tensor::f32(ty.shape, data)),
            DType::I64 => filled(&ty.shape, 0).and_then(|data| Tensor::i64(ty.shape, data)),
            DType::Bool => filled(&ty.shape, false).and_then(|data| Tensor::bool(ty.shape, data)),
        }
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Tensor::F32(a) => a.shape(),
            Tensor::I64(a) => a.shape(),
            Tensor::Bool(a) => a.shape(),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Tensor::F32(_) => DType::F32,
            Tensor::I64(_) => DType::I64,
            Tensor::Bool(_) => DType::Bool,
        }
    }

    /// Element type and shape.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype(), self.shape())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Tensor::F32(a) => a.len(),
            Tensor::I64(a) => a.len(),
            Tensor::Bool(a) => a.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn not(&self, expected: DType) -> OpError {
        OpError::ElementType { expected, found: self.dtype() }
    }

    /// The array of f32 elements. Errors: the elements are of another type.
    pub fn as_f32(&self) -> Result<&ArcArray<f32, IxDyn>, OpError> {
        if let Tensor::F32(a) = self { Ok(a) } else { Err(self.not(DType::F32)) }
    }

    /// The array of i64 elements. Errors: the elements are of another type.
    pub fn as_i64(&self) -> Result<&ArcArray<i64, IxDyn>, OpError> {
        if let Tensor::I64(a) = self { Ok(a) } else { Err(self.not(DType::I64)) }
    }

    /// The array of truth values. Errors: the elements are of another type.
    pub fn as_bool(&self) -> Result<&ArcArray<bool, IxDyn>, OpError> {
        if let Tensor::Bool(a) = self { Ok(a) } else { Err(self.not(DType::Bool)) }
    }

    /// The same tensor, row-major in memory; copied only where it is not.
    pub fn in_order(self) -> Tensor {
        if let Tensor::F32(a) = &self
            && !a.is_standard_layout()
            && let Ok(data) = elements::<f32>(&self)
            && let Ok(tensor) = Tensor::f32(self.shape(), data.into_owned())
        {
            return tensor;
        }
        self
    }

    /// The f32 elements in row-major order. Errors: the elements are of another type.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, OpError> {
        Ok(elements::<f32>(self)?.into_owned())
    }

    /// The i64 elements in row-major order. Errors: the elements are of another type.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>, OpError> {
        Ok(elements::<i64>(self)?.into_owned())
    }

    /// The truth values in row-major order. Errors: the elements are of another type.
    pub fn to_bool_vec(&self) -> Result<Vec<bool>, OpError> {
        Ok(elements::<bool>(self)?.into_owned())
    }

    /// The same values as `to` elements: f32 to i64 truncates toward zero and saturates (NaN is 0), anything to
    /// bool is "not zero", `true` is 1.
    pub fn cast(&self, to: DType) -> Tensor {
        fn map<S: Copy, T: Clone>(a: &ArcArray<S, IxDyn>, f: impl Fn(S) -> T) -> ArcArray<T, IxDyn> {
            a.map(|&x| f(x)).into_shared()
        }
        match (self, to) {
            (Tensor::F32(_), DType::F32) | (Tensor::I64(_), DType::I64) | (Tensor::Bool(_), DType::Bool) => {
                self.clone()
            }
            (Tensor::F32(a), DType::I64) => Tensor::I64(map(a, |x| x as i64)),
            (Tensor::F32(a), DType::Bool) => Tensor::Bool(map(a, |x| x != 0.0)),
            (Tensor::I64(a), DType::F32) => Tensor::F32(map(a, |x| x as f32)),
            (Tensor::I64(a), DType::Bool) => Tensor::Bool(map(a, |x| x != 0)),
            (Tensor::Bool(a), DType::F32) => Tensor::F32(map(a, |x| f32::from(u8::from(x)))),
            (Tensor::Bool(a), DType::I64) => Tensor::I64(map(a, i64::from)),
        }
    }
}

impl From<ArcArray<f32, IxDyn>> for Tensor {
    fn from(array: ArcArray<f32, IxDyn>) -> Tensor {
        Tensor::F32(array)
    }
}

impl From<ArcArray<i64, IxDyn>> for Tensor {
    fn from(array: ArcArray<i64, IxDyn>) -> Tensor {
        Tensor::I64(array)
    }
}

impl From<ArcArray<bool, IxDyn>> for Tensor {
    fn from(array: ArcArray<bool, IxDyn>) -> Tensor {
        Tensor::Bool(array)
    }
}

/// An empty vector with room for `elements`.
pub(crate) fn reserve<T>(elements: usize) -> Result<Vec<T>, OpError> {
    let mut data = Vec::new();
    data.try_reserve_exact(elements).map_err(|_| OpError::OutOfMemory { elements })?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_text_round_trips_and_is_strict() {
        for text in ["f32[1,16]", "i64[]", "bool[0,3]"] {
            assert_eq!(text.parse::<TensorType>().unwrap().to_string(), text);
        }
        for text in ["", "f32", "f32[", "f32[1,]", "f32[1]x", "f64[1]", "f32[-1]", "f32[+1]", "f32[1;2]"] {
            assert!(matches!(text.parse::<TensorType>(), Err(OpError::Malformed { .. })), "{text}");
        }
        assert!(matches!("f32[1099511627777]".parse::<TensorType>(), Err(OpError::TooManyElements { .. })));
    }

    #[test]
    fn constructors_check_the_data() {
        assert_eq!(
            Tensor::f32([2, 3], vec![0.0; 5]),
            Err(OpError::DataLength { shape: vec![2, 3], expected: 6, found: 5 })
        );
        assert!(Tensor::i64([usize::MAX, 0], vec![]).is_err());
        let t = Tensor::i64([2, 1], vec![3, -4]).unwrap();
        assert_eq!((t.len(), t.ty().to_string().as_str()), (2, "i64[2,1]"));
        assert_eq!(t.as_f32(), Err(OpError::ElementType { expected: DType::F32, found: DType::I64 }));
        let zeros = Tensor::zeros(TensorType::new(DType::Bool, [3])).unwrap();
        assert_eq!(zeros.to_bool_vec().unwrap(), [false; 3]);
    }

    #[test]
    fn casts() {
        let x = Tensor::f32([5], vec![-1.9, 0.0, 2.5, f32::NAN, f32::INFINITY]).unwrap();
        assert_eq!(x.cast(DType::I64).to_i64_vec().unwrap(), [-1, 0, 2, 0, i64::MAX]);
        assert_eq!(x.cast(DType::Bool).to_bool_vec().unwrap(), [true, false, true, true, true]);
        let b = Tensor::bool([2], vec![true, false]).unwrap();
        assert_eq!(b.cast(DType::F32).to_f32_vec().unwrap(), [1.0, 0.0]);
        assert_eq!(b.cast(DType::I64).cast(DType::Bool), b);
    }
}
