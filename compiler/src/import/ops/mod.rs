//! One function per ONNX operator, by family, and the table that names them all.

mod constants;
mod elementwise;
mod logic;
mod movement;
mod neural;
mod products;
mod reductions;
mod selection;

use super::context::{Context, Operand};
use super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

/// Translates a node; the results are its outputs in order.
type Translate = fn(&mut Context, &OnnxNode) -> Result<Vec<Operand>, Diagnostic>;

/// A supported operator of ONNX's own domain.
pub struct Operator {
    /// ONNX's name.
    pub op_type: &'static str,
    /// First opset in which it exists, at least [`super::MIN_OPSET`].
    pub since: i64,
    /// What is not supported, or becomes of it.
    pub notes: &'static str,
    pub(super) translate: Translate,
}

const fn operator(op_type: &'static str, since: i64, notes: &'static str, translate: Translate) -> Operator {
    Operator { op_type, since, notes, translate }
}

/// Every supported operator, sorted by name.
pub const OPERATORS: &[Operator] = &[
    operator("Abs", 11, "", elementwise::abs),
    operator("Add", 11, "", elementwise::add),
    operator("And", 11, "", logic::and),
    operator("ArgMax", 11, "`select_last_index` = 0", reductions::arg_max),
    operator(
        "Attention",
        23,
        "becomes products and a softmax; no score output, no `nonpad_kv_seqlen`",
        neural::attention,
    ),
    operator("Cast", 11, "every float type becomes f32, every integer type i64", elementwise::cast),
    operator("CastLike", 15, "as Cast", elementwise::cast_like),
    operator("Ceil", 11, "", elementwise::ceil),
    operator("Clip", 11, "", elementwise::clip),
    operator("Concat", 11, "", movement::concat),
    operator("Constant", 11, "no sparse tensors, no strings", constants::constant),
    operator("ConstantOfShape", 11, "the shape must be known", constants::constant_of_shape),
    operator("Conv", 11, "one or two spatial axes", products::conv),
    operator("Cos", 11, "", elementwise::cos),
    operator("CumSum", 11, "the axis must be known", reductions::cum_sum),
    operator("Div", 11, "", elementwise::div),
    operator("Dropout", 11, "inference: the identity; no mask output", movement::dropout),
    operator("Einsum", 12, "two operands that amount to a matrix product", products::einsum),
    operator("Equal", 11, "", logic::equal),
    operator("Erf", 11, "", elementwise::erf),
    operator("Exp", 11, "", elementwise::exp),
    operator("Expand", 11, "the shape must be known", movement::expand),
    operator("Flatten", 11, "", movement::flatten),
    operator("Floor", 11, "", elementwise::floor),
    operator("Gather", 11, "", selection::gather),
    operator("GatherND", 11, "", selection::gather_nd),
    operator("Gelu", 20, "both approximations", neural::gelu),
    operator("Gemm", 11, "", products::gemm),
    operator("Greater", 11, "", logic::greater),
    operator("GreaterOrEqual", 12, "", logic::greater_or_equal),
    operator("Identity", 11, "", movement::identity),
    operator("IsInf", 11, "", logic::is_inf),
    operator("IsNaN", 11, "", logic::is_nan),
    operator("LayerNormalization", 17, "no mean and deviation outputs", neural::layer_normalization),
    operator("Less", 11, "", logic::less),
    operator("LessOrEqual", 12, "", logic::less_or_equal),
    operator("Log", 11, "", elementwise::log),
    operator("LogSoftmax", 11, "as Softmax", neural::log_softmax),
    operator("MatMul", 11, "", products::mat_mul),
    operator("Max", 11, "any number of operands", elementwise::max),
    operator("Mean", 11, "any number of operands", elementwise::mean),
    operator("Min", 11, "any number of operands", elementwise::min),
    operator("Mod", 11, "integers", elementwise::modulo),
    operator("Mul", 11, "", elementwise::mul),
    operator("Neg", 11, "", elementwise::neg),
    operator("Not", 11, "", logic::not),
    operator("OneHot", 11, "depth and values must be known", selection::one_hot),
    operator("Or", 11, "", logic::or),
    operator("Pad", 11, "constant mode, known non-negative pads", movement::pad),
    operator("Pow", 11, "", elementwise::pow),
    operator("RMSNormalization", 23, "", neural::rms_normalization),
    operator("Range", 11, "the bounds must be known", constants::range),
    operator("Reciprocal", 11, "", elementwise::reciprocal),
    operator("ReduceL2", 11, "the axes must be known", reductions::reduce_l2),
    operator("ReduceMax", 11, "the axes must be known", reductions::reduce_max),
    operator("ReduceMean", 11, "the axes must be known", reductions::reduce_mean),
    operator("ReduceMin", 11, "the axes must be known", reductions::reduce_min),
    operator("ReduceProd", 11, "known integers", reductions::reduce_prod),
    operator("ReduceSum", 11, "the axes must be known", reductions::reduce_sum),
    operator("ReduceSumSquare", 11, "the axes must be known", reductions::reduce_sum_square),
    operator("Relu", 11, "", elementwise::relu),
    operator("Reshape", 11, "the shape must be known", movement::reshape),
    operator("ScatterND", 11, "no reduction", selection::scatter_nd),
    operator("Shape", 11, "", constants::shape),
    operator("Sigmoid", 11, "", elementwise::sigmoid),
    operator("Sin", 11, "", elementwise::sin),
    operator("Size", 11, "", constants::size),
    operator("Slice", 11, "starts, ends, axes and steps must be known", movement::slice),
    operator("Softmax", 11, "before opset 13 along the last axis only", neural::softmax),
    operator("Split", 11, "the lengths must be known", movement::split),
    operator("Sqrt", 11, "", elementwise::sqrt),
    operator("Squeeze", 11, "the axes must be known", movement::squeeze),
    operator("Sub", 11, "", elementwise::sub),
    operator("Sum", 11, "any number of operands", elementwise::sum),
    operator("Tanh", 11, "", elementwise::tanh),
    operator("Tile", 11, "the repeats must be known", movement::tile),
    operator("Transpose", 11, "", movement::transpose),
    operator("Trilu", 14, "the diagonal must be known", movement::trilu),
    operator("Unsqueeze", 11, "the axes must be known", movement::unsqueeze),
    operator("Where", 11, "", logic::where_),
    operator("Xor", 11, "", logic::xor),
];

/// The operator of this name.
pub fn find(op_type: &str) -> Option<&'static Operator> {
    OPERATORS.binary_search_by(|operator| operator.op_type.cmp(op_type)).ok().map(|index| &OPERATORS[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.op_type < b.op_type));
        assert!(OPERATORS.iter().all(|operator| find(operator.op_type).is_some()));
        assert!(find("LSTM").is_none());
    }
}
