//! The closed set of tensor operations, each with its attributes.
//!
//! Attributes are canonical: axes are non-negative, shapes fully known, slices clamped to their axis. Every
//! operation has exactly one result.

use std::ops::RangeInclusive;

use crate::tensor::DType;

/// Which formula a GELU follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GeluForm {
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Erf,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    Tanh,
}

/// Whom a value is revealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// The client alone.
    Client,
    /// The server alone.
    Server,
    /// Both parties.
    Both,
}

/// One tensor operation. Operand order is given in brackets; binary operations broadcast as numpy does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // Data movement: the result's elements are some of the operands' elements.
    /// `[x]`: same elements, new shape.
    Reshape {
        /// Shape of the result.
        shape: Vec<usize>,
    },
    /// `[x]`: result axis `i` is operand axis `perm[i]`.
    Transpose {
        /// A permutation of the axes.
        perm: Vec<usize>,
    },
    /// `[x, y, ...]`: joined along `axis`.
    Concat {
        /// The axis, from 0.
        axis: usize,
    },
    /// `[x]`: elements `start, start + step, ...` before `end` along `axis`; with a negative step, after `end`.
    /// `end` may be -1 when `step < 0`, meaning "through element 0".
    Slice {
        /// The axis, from 0.
        axis: usize,
        /// First index.
        start: i64,
        /// Index not reached.
        end: i64,
        /// Distance between indices, not 0.
        step: i64,
    },
    /// `[x]`: broadcast to `shape`.
    Expand {
        /// Shape of the result.
        shape: Vec<usize>,
    },
    /// `[x, indices i64]`: numpy `take` along `axis`; negative indices count from the end.
    Gather {
        /// The axis, from 0.
        axis: usize,
    },
    /// `[x, indices i64]`: ONNX GatherND with `batch_dims`.
    GatherNd {
        /// How many leading axes operand and indices share.
        batch_dims: usize,
    },
    /// `[x, indices i64, updates]`: ONNX ScatterND, last writer wins.
    ScatterNd,
    /// `[x]`: repeated `repeats[i]` times along axis `i`.
    Tile {
        /// One count per axis.
        repeats: Vec<usize>,
    },
    /// `[x]`: keeps the upper (or lower) triangle of the last two axes relative to diagonal `diagonal`, zero elsewhere.
    Trilu {
        /// Whether the upper triangle is kept.
        upper: bool,
        /// 0 is the main diagonal, positive above it.
        diagonal: i64,
    },

    // Element-wise arithmetic.
    /// `[x, y]`: `x + y`.
    Add,
    /// `[x, y]`: `x - y`.
    Sub,
    /// `[x, y]`: `x * y`.
    Mul,
    /// `[x, y]`: `x / y`; i64 truncates toward zero.
    Div,
    /// `[x, exponent]`.
    Pow,
    /// `[x, y]`: the larger; NaN if either is.
    Max,
    /// `[x, y]`: the smaller; NaN if either is.
    Min,
    /// `[x]`: `-x`.
    Neg,
    /// `[x]`: `|x|`.
    Abs,
    /// `[x]`: rounded down.
    Floor,
    /// `[x]`: square root.
    Sqrt,
    /// `[x]`: `1 / x`.
    Reciprocal,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `[x]`: `e^x`.
    Exp,
    /// `[x]`: natural logarithm.
    Log,
    /// `[x]`: sine of radians.
    Sin,
    /// `[x]`: cosine of radians.
    Cos,
    /// `[x]`: error function.
    Erf,
    /// `[x]`: hyperbolic tangent.
    Tanh,
    /// `[x]`: `1 / (1 + e^-x)`.
    Sigmoid,
    /// `[x]`: `max(x, 0)`.
    Relu,
    /// `[x]`: clamped to `min ..= max`.
    Clip {
        /// Lower bound.
        min: f32,
        /// Upper bound; wins over `min`.
        max: f32,
    },

    // Element-wise logic.
    /// `[x bool]`.
    Not,
    /// `[x bool, y bool]`.
    And,
    /// `[x bool, y bool]`.
    Or,
    /// `[x, y] -> bool`.
    Equal,
    /// `[x, y] -> bool`: `x < y`.
    Less,
    /// `[x, y] -> bool`: `x <= y`.
    LessOrEqual,
    /// `[x, y] -> bool`: `x > y`.
    Greater,
    /// `[x, y] -> bool`: `x >= y`.
    GreaterOrEqual,
    /// `[condition bool, x, y]`.
    Where,
    /// `[x] -> bool`.
    IsNan,
    /// `[x]`: see [`crate::Tensor::cast`].
    Cast {
        /// Element type of the result.
        to: DType,
    },

    // Reductions. `axes` is sorted and non-empty.
    /// `[x]`: sum over `axes`.
    ReduceSum {
        /// The axes reduced, strictly increasing.
        axes: Vec<usize>,
        /// Whether reduced axes stay, with length 1.
        keepdims: bool,
    },
    /// `[x]`: mean over `axes`.
    ReduceMean {
        /// The axes reduced, strictly increasing.
        axes: Vec<usize>,
        /// Whether reduced axes stay, with length 1.
        keepdims: bool,
    },
    /// `[x]`: largest over `axes`; the least value of its type over no elements.
    ReduceMax {
        /// The axes reduced, strictly increasing.
        axes: Vec<usize>,
        /// Whether reduced axes stay, with length 1.
        keepdims: bool,
    },
    /// `[x]`: running sum along `axis`.
    CumSum {
        /// The axis, from 0.
        axis: usize,
        /// Whether a sum leaves out its own element.
        exclusive: bool,
        /// Whether sums run from the end.
        reverse: bool,
    },
    /// `[x] -> i64`: first index of the largest element along `axis`.
    ArgMax {
        /// The axis, from 0.
        axis: usize,
        /// Whether reduced axes stay, with length 1.
        keepdims: bool,
    },

    // Products.
    /// `[a, b]`: numpy `matmul`, batch axes broadcast.
    MatMul,
    /// `[x n,c,h,w; weight m,c/group,kh,kw]` (no bias): ONNX Conv in two dimensions, `pads` = top, left, bottom, right.
    Conv {
        /// Rows, columns.
        strides: [usize; 2],
        /// Zeros added at top, left, bottom, right.
        pads: [usize; 4],
        /// Rows, columns.
        dilations: [usize; 2],
        /// Channels are split into this many independent convolutions.
        group: usize,
    },
    /// `[indices i64] -> f32`: appends an axis of `depth` with 1 at the index; negative indices count from the end.
    OneHot {
        /// Length of the new axis.
        depth: usize,
    },

    // Recognised by the compiler's normalise stage.
    /// `[x]`.
    Softmax {
        /// The axis, from 0.
        axis: usize,
    },
    /// `[scores, keep bool]` or `[scores, keep bool, bias f32]`: softmax along the last axis of `scores + bias` over
    /// the positions that `keep` marks; the others are 0. `keep` and `bias` broadcast to `scores`. A row with no
    /// position to keep is 0. Bias values of -1e4 and below mean "masked".
    AttentionSoftmax,
    /// `[x]` or `[x, gain, bias]`: normalised along the last axis. Without gain and bias they are 1 and 0.
    LayerNorm {
        /// Added to the mean square under the root.
        epsilon: f32,
    },
    /// `[x]` or `[x, gain]`: divided by the root mean square along the last axis. Without a gain it is 1.
    RmsNorm {
        /// Added to the mean square under the root.
        epsilon: f32,
    },
    /// `[x]`.
    Gelu {
        /// Which formula.
        form: GeluForm,
    },
    /// `[x]`: `x * sigmoid(x)`.
    Silu,
    /// `[x]`: x itself, which the receiver knows from here on. Only the compiler's graph has it.
    Reveal {
        /// Who learns it.
        to: Receiver,
    },
    /// `[x, cos, sin]`: `x * cos + rotate_half(x) * sin` along the last axis; `rotate_half(x) = concat(-x[h/2..], x[..h/2])`.
    Rotary,
}

impl Op {
    /// How many operands the operation takes. `LayerNorm` takes one or three, not two.
    pub fn arity(&self) -> RangeInclusive<usize> {
        match self {
            Op::Concat { .. } => 1..=usize::MAX,
            Op::AttentionSoftmax => 2..=3,
            Op::LayerNorm { .. } => 1..=3,
            Op::RmsNorm { .. } => 1..=2,
            Op::ScatterNd | Op::Where | Op::Rotary => 3..=3,
            Op::Gather { .. } | Op::GatherNd { .. } | Op::MatMul | Op::Conv { .. } => 2..=2,
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow | Op::Max | Op::Min => 2..=2,
            Op::And | Op::Or | Op::Equal => 2..=2,
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => 2..=2,
            _ => 1..=1,
        }
    }

    /// Whether every element of the result is an element of a data operand, or zero. For `Gather`, `GatherNd` and
    /// `ScatterNd` the indices decide which, so this holds for the data operands once the indices are known.
    pub fn is_movement(&self) -> bool {
        matches!(
            self,
            Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Concat { .. }
                | Op::Slice { .. }
                | Op::Expand { .. }
                | Op::Gather { .. }
                | Op::GatherNd { .. }
                | Op::ScatterNd
                | Op::Tile { .. }
                | Op::Trilu { .. }
        )
    }
}
