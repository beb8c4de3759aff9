//! The numbers: an operation applied to tensors.
//!
//! Arithmetic is in f32, or i64 that wraps; sums over an axis, means, variances and functions such as exponentials are
//! computed in f64. Every result is alike to the bit on every machine and for every number of threads: two parties
//! that compute the same public value encode the same integers. Each family of operations has its own file; all work
//! on the result's shape from [`crate::infer`].

mod elementwise;
mod matrix;
mod movement;
mod parallel;
mod product;
mod real;
mod recognised;
mod reduce;
mod walk;

use std::borrow::Cow;

use ndarray::{ArcArray, IxDyn};

use crate::{DType, Op, OpError, Tensor, TensorType, infer};

pub use parallel::threads;
pub use real::erf;

/// Runs `$body` with `$T` the element type of `$tensor`.
macro_rules! by_dtype {
    ($tensor:expr, $T:ident => $body:expr) => {
        match $tensor.dtype() {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::Bool => {
                type $T = bool;
                $body
            }
        }
    };
}

/// `op` applied to `args`. The result has exactly the type that [`crate::infer`] gives.
///
/// Errors: those of `infer`; an index out of range; an i64 divided by zero; no memory for the result.
pub fn evaluate(op: &Op, args: &[&Tensor]) -> Result<Tensor, OpError> {
    let types: Vec<TensorType> = args.iter().map(|arg| arg.ty()).collect();
    let ty = infer(op, &types)?;
    match op {
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Expand { .. }
        | Op::Gather { .. }
        | Op::GatherNd { .. }
        | Op::ScatterNd
        | Op::Tile { .. }
        | Op::Trilu { .. } => by_dtype!(args[0], T => movement::apply::<T>(op, args, ty.shape)),
        Op::Add
        | Op::Sub
        | Op::Mul
        | Op::Div
        | Op::Pow
        | Op::Max
        | Op::Min
        | Op::And
        | Op::Or
        | Op::Equal
        | Op::Less
        | Op::LessOrEqual
        | Op::Greater
        | Op::GreaterOrEqual => elementwise::binary(op, args[0], args[1], ty.shape),
        Op::Where => {
            by_dtype!(args[1], T => elementwise::select::<T>(args[0], args[1], args[2], ty.shape))
        }
        Op::ReduceSum { axes, .. } | Op::ReduceMean { axes, .. } | Op::ReduceMax { axes, .. } => {
            reduce::over(op, args[0], axes, ty.shape)
        }
        Op::CumSum { axis, exclusive, reverse } => reduce::cum_sum(args[0], *axis, *exclusive, *reverse),
        Op::ArgMax { axis, .. } => reduce::arg_max(args[0], *axis, ty.shape),
        Op::MatMul => product::mat_mul(args[0], args[1], ty.shape),
        Op::Conv { strides, pads, dilations, group } => {
            let window = product::Window { strides: *strides, pads: *pads, dilations: *dilations };
            product::conv(args[0], args[1], &window, *group, ty.shape)
        }
        Op::OneHot { depth } => movement::one_hot(op, args[0], *depth, ty.shape),
        Op::Softmax { axis } => recognised::softmax(args[0], *axis),
        Op::AttentionSoftmax => recognised::attention_softmax(args[0], args[1], args.get(2).copied()),
        Op::LayerNorm { epsilon } => recognised::layer_norm(args[0], args.get(1).zip(args.get(2)), *epsilon),
        Op::RmsNorm { epsilon } => recognised::rms_norm(args[0], args.get(1), *epsilon),
        Op::Rotary => recognised::rotary(args[0], args[1], args[2]),
        Op::Reveal { .. } => Ok(args[0].clone()),
        Op::Cast { to } => Ok(args[0].cast(*to)),
        _ => elementwise::unary(op, args[0]),
    }
}

/// An element type with its variant of [`Tensor`].
pub(crate) trait Element: Copy + Default + PartialEq + Send + Sync + 'static {
    fn array(tensor: &Tensor) -> Result<&ArcArray<Self, IxDyn>, OpError>;
    fn tensor(shape: Vec<usize>, data: Vec<Self>) -> Result<Tensor, OpError>;
    fn wrap(array: ArcArray<Self, IxDyn>) -> Tensor;
}

impl Element for f32 {
    fn array(tensor: &Tensor) -> Result<&ArcArray<f32, IxDyn>, OpError> {
        tensor.as_f32()
    }
    fn tensor(shape: Vec<usize>, data: Vec<f32>) -> Result<Tensor, OpError> {
        Tensor::f32(shape, data)
    }
    fn wrap(array: ArcArray<f32, IxDyn>) -> Tensor {
        Tensor::F32(array)
    }
}

impl Element for i64 {
    fn array(tensor: &Tensor) -> Result<&ArcArray<i64, IxDyn>, OpError> {
        tensor.as_i64()
    }
    fn tensor(shape: Vec<usize>, data: Vec<i64>) -> Result<Tensor, OpError> {
        Tensor::i64(shape, data)
    }
    fn wrap(array: ArcArray<i64, IxDyn>) -> Tensor {
        Tensor::I64(array)
    }
}

impl Element for bool {
    fn array(tensor: &Tensor) -> Result<&ArcArray<bool, IxDyn>, OpError> {
        tensor.as_bool()
    }
    fn tensor(shape: Vec<usize>, data: Vec<bool>) -> Result<Tensor, OpError> {
        Tensor::bool(shape, data)
    }
    fn wrap(array: ArcArray<bool, IxDyn>) -> Tensor {
        Tensor::Bool(array)
    }
}

/// A tensor's elements in row-major order, copied only where they do not lie so already.
pub(crate) fn elements<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, OpError> {
    let array = T::array(tensor)?;
    if let Some(slice) = array.as_slice() {
        return Ok(Cow::Borrowed(slice));
    }
    Ok(Cow::Owned(match strided(array) {
        Some(data) => walk::copy(data, array.shape(), array.strides(), 0)?,
        None => array.iter().copied().collect(),
    }))
}

/// The elements of an array that fills its memory, in the order of memory: an element's place is its index times the
/// array's strides.
fn strided<T>(array: &ArcArray<T, IxDyn>) -> Option<&[T]> {
    let reaches = |(&length, &stride): (&usize, &isize)| length < 2 || stride > 0;
    let forward = array.shape().iter().zip(array.strides()).all(reaches);
    array.as_slice_memory_order().filter(|_| forward)
}

/// `elements` copies of the zero of `T`.
fn zeros<T: Element>(elements: usize) -> Result<Vec<T>, OpError> {
    let mut data = crate::tensor::reserve(elements)?;
    data.resize(elements, T::default());
    Ok(data)
}

/// The position that `index` means on an axis of length `length`; negative ones count from the end.
fn position(op: &'static str, index: i64, length: usize) -> Result<usize, OpError> {
    let from_start = if index < 0 { i128::from(index) + length as i128 } else { i128::from(index) };
    match usize::try_from(from_start) {
        Ok(at) if at < length => Ok(at),
        _ => Err(OpError::IndexOutOfRange { op, index, length }),
    }
}

/// What a dispatcher answers for an operation or element type that `infer` has kept from it.
fn foreign(op: &Op, operand: usize, found: DType) -> OpError {
    OpError::Dtype { op: op.name(), operand, expected: "another type", found }
}
