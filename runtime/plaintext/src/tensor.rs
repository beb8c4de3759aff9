//! Clear-text tensors: f32, i64 or bool elements, row-major when viewed as a slice.

use ndarray::{ArcArray, IxDyn};

/// Element type. ONNX's f16, bf16 and f64 become `F32`, its narrower integers `I64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    I64,
    Bool,
}

/// Element type and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// A tensor in the clear. Cloning shares the elements.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    F32(ArcArray<f32, IxDyn>),
    I64(ArcArray<i64, IxDyn>),
    Bool(ArcArray<bool, IxDyn>),
}
