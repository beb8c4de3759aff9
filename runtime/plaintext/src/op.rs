//! The closed set of tensor operations, each with its attributes.
//!
//! Attributes are canonical: axes are non-negative, shapes fully known, slices clamped to their axis. Every
//! operation has exactly one result.

use crate::tensor::DType;

/// Which formula a GELU follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GeluForm {
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Erf,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    Tanh,
}

/// One tensor operation. Operand order is given in brackets; binary operations broadcast as numpy does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // Data movement: the result's elements are some of the operands' elements.
    /// `[x]`: same elements, new shape.
    Reshape { shape: Vec<usize> },
    /// `[x]`: result axis `i` is operand axis `perm[i]`.
    Transpose { perm: Vec<usize> },
    /// `[x, y, ...]`: joined along `axis`.
    Concat { axis: usize },
    /// `[x]`: elements `start, start + step, ...` before `end` along `axis`; with a negative step, after `end`.
    /// `end` may be -1 when `step < 0`, meaning "through element 0".
    Slice { axis: usize, start: i64, end: i64, step: i64 },
    /// `[x]`: broadcast to `shape`.
    Expand { shape: Vec<usize> },
    /// `[x, indices i64]`: numpy `take` along `axis`; negative indices count from the end.
    Gather { axis: usize },
    /// `[x, indices i64]`: ONNX GatherND with `batch_dims`.
    GatherNd { batch_dims: usize },
    /// `[x, indices i64, updates]`: ONNX ScatterND, last writer wins.
    ScatterNd,
    /// `[x]`: repeated `repeats[i]` times along axis `i`.
    Tile { repeats: Vec<usize> },
    /// `[x]`: keeps the upper (or lower) triangle of the last two axes relative to diagonal `diagonal`, zero elsewhere.
    Trilu { upper: bool, diagonal: i64 },

    // Element-wise arithmetic.
    Add,
    Sub,
    Mul,
    Div,
    /// `[x, exponent]`.
    Pow,
    Max,
    Min,
    Neg,
    Abs,
    Floor,
    Sqrt,
    Reciprocal,
    /// `1 / sqrt(x)`.
    Rsqrt,
    Exp,
    Log,
    Sin,
    Cos,
    Erf,
    Tanh,
    Sigmoid,
    Relu,
    /// `[x]`: clamped to `min ..= max`.
    Clip { min: f32, max: f32 },

    // Element-wise logic.
    Not,
    And,
    Or,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `[condition bool, x, y]`.
    Where,
    IsNan,
    Cast { to: DType },

    // Reductions. `axes` is sorted and non-empty.
    ReduceSum { axes: Vec<usize>, keepdims: bool },
    ReduceMean { axes: Vec<usize>, keepdims: bool },
    ReduceMax { axes: Vec<usize>, keepdims: bool },
    /// `[x]`: running sum along `axis`.
    CumSum { axis: usize, exclusive: bool, reverse: bool },
    /// `[x] -> i64`: first index of the largest element along `axis`.
    ArgMax { axis: usize, keepdims: bool },

    // Products.
    /// `[a, b]`: numpy `matmul`, batch axes broadcast.
    MatMul,
    /// `[x n,c,h,w; weight m,c/group,kh,kw]` (no bias): ONNX Conv in two dimensions, `pads` = top, left, bottom, right.
    Conv { strides: [usize; 2], pads: [usize; 4], dilations: [usize; 2], group: usize },
    /// `[indices i64] -> f32`: appends an axis of `depth` with 1 at the index.
    OneHot { depth: usize },

    // Recognised by the compiler's normalise stage.
    /// `[x]`.
    Softmax { axis: usize },
    /// `[scores, keep bool]` or `[scores, keep bool, bias f32]`: softmax along the last axis of `scores + bias` over
    /// the positions that `keep` marks; the others are 0. `keep` and `bias` broadcast to `scores`. A row with no
    /// position to keep is 0. Bias values of -1e4 and below mean "masked".
    AttentionSoftmax,
    /// `[x, gain, bias]`: normalised along the last axis.
    LayerNorm { epsilon: f32 },
    /// `[x, gain]`: divided by the root mean square along the last axis.
    RmsNorm { epsilon: f32 },
    /// `[x]`.
    Gelu { form: GeluForm },
    /// `[x]`: `x * sigmoid(x)`.
    Silu,
    /// `[x, cos, sin]`: `x * cos + rotate_half(x) * sin` along the last axis; `rotate_half(x) = concat(-x[h/2..], x[..h/2])`.
    Rotary,
}
