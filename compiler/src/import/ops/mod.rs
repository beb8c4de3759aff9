//! One function per ONNX operator, by family, and the table that names them all.

mod attention;
mod constants;
mod elementwise;
mod fused_attention;
mod logic;
mod microsoft;
mod movement;
mod neural;
mod products;
mod reductions;
mod rotary;
mod selection;

use super::context::{Context, Operand};
use super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

/// Translates a node; the results are its outputs in order.
type Translate = fn(&mut Context, &OnnxNode) -> Result<Vec<Operand>, Diagnostic>;

/// The domain of onnxruntime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// What a node costs where no party knows its operands. What one party knows is computed there, at no cost to both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Nothing is sent.
    Free,
    /// A product; free if one factor is public.
    Product,
    /// A look-up in a table.
    LookUp,
    /// Comparisons.
    Comparison,
    /// Roots and inverses: comparisons, look-ups and products; free by a public number.
    Root,
    /// Several of the others.
    Composite,
    /// No protocol computes it: a party must know the operands.
    Known,
}

/// A supported operator.
pub struct Operator {
    /// Its domain, "" for ONNX's own.
    pub domain: &'static str,
    /// ONNX's name.
    pub op_type: &'static str,
    /// First opset of ONNX's own domain in which it exists, at least [`super::MIN_OPSET`]; other domains' operators are
    /// read in every opset.
    pub since: i64,
    /// What it costs on shares.
    pub cost: Cost,
    /// What is not supported, or becomes of it.
    pub notes: &'static str,
    pub(super) translate: Translate,
}

const fn operator(
    op_type: &'static str,
    since: i64,
    cost: Cost,
    notes: &'static str,
    translate: Translate,
) -> Operator {
    Operator { domain: "", op_type, since, cost, notes, translate }
}

const fn microsoft(op_type: &'static str, cost: Cost, notes: &'static str, translate: Translate) -> Operator {
    Operator { domain: MICROSOFT, op_type, since: super::MIN_OPSET, cost, notes, translate }
}

/// Every supported operator, sorted by domain and name.
pub const OPERATORS: &[Operator] = &[
    operator("Abs", 11, Cost::Comparison, "", elementwise::abs),
    operator("Add", 11, Cost::Free, "", elementwise::add),
    operator("And", 11, Cost::Known, "", logic::and),
    operator("ArgMax", 11, Cost::Comparison, "`select_last_index` = 0", reductions::arg_max),
    operator(
        "Attention",
        23,
        Cost::Composite,
        "becomes products and a softmax; no score output, no `nonpad_kv_seqlen`",
        attention::attention,
    ),
    operator(
        "Cast",
        11,
        Cost::Free,
        "every float type becomes f32, every integer type i64",
        elementwise::cast,
    ),
    operator("CastLike", 15, Cost::Free, "as Cast", elementwise::cast_like),
    operator("Ceil", 11, Cost::Known, "", elementwise::ceil),
    operator("Clip", 11, Cost::Comparison, "", elementwise::clip),
    operator("Concat", 11, Cost::Free, "", movement::concat),
    operator("Constant", 11, Cost::Free, "no sparse tensors, no strings", constants::constant),
    operator("ConstantOfShape", 11, Cost::Known, "the shape must be known", constants::constant_of_shape),
    operator(
        "Conv",
        11,
        Cost::Product,
        "one or two spatial axes; becomes a product of its windows",
        products::conv,
    ),
    operator("Cos", 11, Cost::Known, "", elementwise::cos),
    operator("CumSum", 11, Cost::Known, "the axis must be known", reductions::cum_sum),
    operator("Div", 11, Cost::Root, "", elementwise::div),
    operator("Dropout", 11, Cost::Free, "inference: the identity; no mask output", movement::dropout),
    operator("Einsum", 12, Cost::Product, "two operands that amount to a matrix product", products::einsum),
    operator("Equal", 11, Cost::Known, "", logic::equal),
    operator("Erf", 11, Cost::LookUp, "", elementwise::erf),
    operator("Exp", 11, Cost::LookUp, "", elementwise::exp),
    operator("Expand", 11, Cost::Free, "the shape must be known", movement::expand),
    operator("EyeLike", 11, Cost::Free, "a matrix's shape", constants::eye_like),
    operator("Flatten", 11, Cost::Free, "", movement::flatten),
    operator("Floor", 11, Cost::Known, "", elementwise::floor),
    operator("Gather", 11, Cost::LookUp, "free if the indices are public", selection::gather),
    operator("GatherElements", 11, Cost::Free, "the indices must be known", selection::gather_elements),
    operator("GatherND", 11, Cost::LookUp, "free if the indices are public", selection::gather_nd),
    operator("Gelu", 20, Cost::LookUp, "both approximations", neural::gelu),
    operator("Gemm", 11, Cost::Product, "", products::gemm),
    operator("GlobalAveragePool", 11, Cost::Free, "", reductions::global_average_pool),
    operator("Greater", 11, Cost::Known, "", logic::greater),
    operator("GreaterOrEqual", 12, Cost::Known, "", logic::greater_or_equal),
    operator("Identity", 11, Cost::Free, "", movement::identity),
    operator("IsInf", 11, Cost::Known, "", logic::is_inf),
    operator("IsNaN", 11, Cost::Known, "", logic::is_nan),
    operator(
        "LayerNormalization",
        11,
        Cost::Composite,
        "no mean and deviation outputs; onnxruntime writes it before opset 17, too",
        neural::layer_normalization,
    ),
    operator("Less", 11, Cost::Known, "", logic::less),
    operator("LessOrEqual", 12, Cost::Known, "", logic::less_or_equal),
    operator("Log", 11, Cost::Known, "", elementwise::log),
    operator("LogSoftmax", 11, Cost::Known, "as Softmax", neural::log_softmax),
    operator("MatMul", 11, Cost::Product, "", products::mat_mul),
    operator("Max", 11, Cost::Comparison, "any number of operands", elementwise::max),
    operator("Mean", 11, Cost::Free, "any number of operands", elementwise::mean),
    operator("Min", 11, Cost::Comparison, "any number of operands", elementwise::min),
    operator("Mod", 11, Cost::Known, "integers", elementwise::modulo),
    operator("Mul", 11, Cost::Product, "", elementwise::mul),
    operator("Neg", 11, Cost::Free, "", elementwise::neg),
    operator("Not", 11, Cost::Known, "", logic::not),
    operator("OneHot", 11, Cost::Known, "depth and values must be known", selection::one_hot),
    operator("Or", 11, Cost::Known, "", logic::or),
    operator("Pad", 11, Cost::Free, "constant mode, known non-negative pads", movement::pad),
    operator("Pow", 11, Cost::Root, "on shares by 2, 3, 1/2, -1/2 and -1", elementwise::pow),
    operator("RMSNormalization", 23, Cost::Composite, "", neural::rms_normalization),
    operator("Range", 11, Cost::Known, "the bounds must be known", constants::range),
    operator("Reciprocal", 11, Cost::Root, "", elementwise::reciprocal),
    operator("ReduceL2", 11, Cost::Root, "the axes must be known", reductions::reduce_l2),
    operator("ReduceMax", 11, Cost::Comparison, "the axes must be known", reductions::reduce_max),
    operator("ReduceMean", 11, Cost::Free, "the axes must be known", reductions::reduce_mean),
    operator("ReduceMin", 11, Cost::Comparison, "the axes must be known", reductions::reduce_min),
    operator("ReduceProd", 11, Cost::Known, "known integers", reductions::reduce_prod),
    operator("ReduceSum", 11, Cost::Free, "the axes must be known", reductions::reduce_sum),
    operator("ReduceSumSquare", 11, Cost::Product, "the axes must be known", reductions::reduce_sum_square),
    operator("Relu", 11, Cost::Comparison, "", elementwise::relu),
    operator("Reshape", 11, Cost::Free, "the shape must be known", movement::reshape),
    operator(
        "RotaryEmbedding",
        23,
        Cost::Product,
        "a rotary embedding; tables known or rows of them",
        rotary::rotary_embedding,
    ),
    operator("ScatterND", 11, Cost::Known, "no reduction", selection::scatter_nd),
    operator("Shape", 11, Cost::Free, "", constants::shape),
    operator("Sigmoid", 11, Cost::LookUp, "", elementwise::sigmoid),
    operator("Sign", 11, Cost::Known, "", elementwise::sign),
    operator(
        "SimplifiedLayerNormalization",
        11,
        Cost::Composite,
        "onnxruntime's name for RMSNormalization; no deviation output",
        neural::rms_normalization,
    ),
    operator("Sin", 11, Cost::Known, "", elementwise::sin),
    operator("Size", 11, Cost::Free, "", constants::size),
    operator("Slice", 11, Cost::Free, "starts, ends, axes and steps must be known", movement::slice),
    operator("Softmax", 11, Cost::Composite, "before opset 13 along the last axis only", neural::softmax),
    operator("Split", 11, Cost::Free, "the lengths must be known", movement::split),
    operator("Sqrt", 11, Cost::Root, "", elementwise::sqrt),
    operator("Squeeze", 11, Cost::Free, "the axes must be known", movement::squeeze),
    operator("Sub", 11, Cost::Free, "", elementwise::sub),
    operator("Sum", 11, Cost::Free, "any number of operands", elementwise::sum),
    operator("Tanh", 11, Cost::LookUp, "", elementwise::tanh),
    operator("Tile", 11, Cost::Free, "the repeats must be known", movement::tile),
    operator("Transpose", 11, Cost::Free, "", movement::transpose),
    operator("Trilu", 14, Cost::Known, "the diagonal must be known", movement::trilu),
    operator("Unsqueeze", 11, Cost::Free, "the axes must be known", movement::unsqueeze),
    operator("Where", 11, Cost::Product, "the condition must be known to a party", logic::where_),
    operator("Xor", 11, Cost::Known, "", logic::xor),
    microsoft(
        "Attention",
        Cost::Composite,
        "one product for all projections; a mask of lengths, or of numbers per key, or per query and key",
        fused_attention::packed_attention,
    ),
    microsoft("BiasGelu", Cost::LookUp, "", microsoft::bias_gelu),
    microsoft("EmbedLayerNormalization", Cost::Composite, "", microsoft::embed_layer_normalization),
    microsoft("FastGelu", Cost::LookUp, "by the approximation with tanh", microsoft::fast_gelu),
    microsoft("FusedGemm", Cost::Composite, "activations Relu, Sigmoid and Tanh", microsoft::fused_gemm),
    microsoft("FusedMatMul", Cost::Product, "`transBatchA` = `transBatchB` = 0", microsoft::fused_mat_mul),
    microsoft("Gelu", Cost::LookUp, "", microsoft::gelu),
    microsoft(
        "GroupQueryAttention",
        Cost::Composite,
        "with a past, the lengths must be known; positions follow the past",
        fused_attention::grouped_query_attention,
    ),
    microsoft(
        "MultiHeadAttention",
        Cost::Composite,
        "operands apart or packed; a mask of lengths, or of numbers per key, or per query and key",
        fused_attention::multi_head_attention,
    ),
    microsoft("QuickGelu", Cost::LookUp, "as SiLU of `alpha * x`", microsoft::quick_gelu),
    microsoft("RotaryEmbedding", Cost::Product, "`scale` = 1, no packed batches", rotary::microsoft),
    microsoft(
        "SkipLayerNormalization",
        Cost::Composite,
        "no mean and deviation outputs",
        microsoft::skip_layer_normalization,
    ),
    microsoft(
        "SkipSimplifiedLayerNormalization",
        Cost::Composite,
        "no mean and deviation outputs",
        microsoft::skip_simplified_layer_normalization,
    ),
];

/// The operator of this name.
pub fn find(domain: &str, op_type: &str) -> Option<&'static Operator> {
    let key = |operator: &'static Operator| (operator.domain, operator.op_type);
    let index = OPERATORS.binary_search_by(|operator| key(operator).cmp(&(domain, op_type)));
    index.ok().map(|index| &OPERATORS[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPERATORS.is_sorted_by(|a, b| (a.domain, a.op_type) < (b.domain, b.op_type)));
        assert!(OPERATORS.iter().all(|operator| find(operator.domain, operator.op_type).is_some()));
        assert!(find("", "LSTM").is_none() && find("", "FastGelu").is_none());
    }
}
