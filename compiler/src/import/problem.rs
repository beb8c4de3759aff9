//! What can be wrong with an ONNX model, beyond what [`Problem`](crate::diagnostic::Problem) names for all stages.

use super::unsupported::Unsupported;
use super::wire::WireError;

/// What was found in the model. The diagnostic around it names the node or value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportProblem {
    /// The file is not an ONNX protobuf.
    #[error("this is not an ONNX model: {0}")]
    Wire(#[from] WireError),
    /// The bytes are protobuf, but not a model's.
    #[error("this is not an ONNX model: {what}")]
    Decode {
        /// What the decoder or the front door missed.
        what: String,
    },
    /// Nodes that the compiler cannot translate, all of those that the outputs need.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A known operator in a form that is not supported.
    #[error("{op_type} with {found} is not supported")]
    Form {
        /// ONNX operator.
        op_type: String,
        /// The attribute or operand and its value.
        found: String,
        /// What would work.
        supported: &'static str,
    },
    /// A known operator whose attributes or operands contradict ONNX.
    #[error("{op_type} has {found}")]
    Invalid {
        /// ONNX operator.
        op_type: String,
        /// The attribute or operand and its value.
        found: String,
        /// What ONNX allows.
        needed: &'static str,
    },
    /// An operand that decides a shape depends on an input's values.
    #[error("{operand} of {op_type} must be known when compiling, but depends on {}", list(inputs))]
    Dynamic {
        /// ONNX operator.
        op_type: String,
        /// ONNX's name of the operand.
        operand: &'static str,
        /// The graph inputs that it is computed from.
        inputs: Vec<String>,
    },
    /// A dimension of an input is symbolic and the request does not give it.
    #[error("dimension {axis} is \"{dim_param}\", which has no value")]
    Dimension {
        /// Which axis.
        axis: usize,
        /// The name to give it, as in `--dim NAME=N`.
        dim_param: String,
        /// Symbols to give a value to.
        missing: Vec<String>,
    },
    /// A dimension that is negative or not an expression of known symbols.
    #[error("dimension {axis} is {found}")]
    DimensionValue {
        /// Which axis.
        axis: usize,
        /// The value or expression.
        found: String,
    },
    /// An input or output that is no tensor of a known element type.
    #[error("has type {found}")]
    ValueType {
        /// What the model declares.
        found: String,
    },
    /// A tensor whose contents do not suit its declaration.
    #[error("tensor has {found}")]
    Tensor {
        /// What the model holds.
        found: String,
        /// What would work.
        needed: &'static str,
    },
    /// External data at a place that may not be read.
    #[error("external data at \"{location}\": {what}")]
    External {
        /// The file as the model names it.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// Two values, outputs or local functions of one name.
    #[error("is defined twice")]
    Redefined,
    /// An input or output that programs cannot name.
    #[error("has no name that can be shown")]
    Name,
    /// A local function that calls itself.
    #[error("calls itself{}", through(calls))]
    Recursion {
        /// The functions between, outermost first.
        calls: Vec<String>,
    },
    /// Local functions and branches that would grow too large in place of their calls.
    #[error("with local functions and branches in place the model has more than {limit} {what}")]
    Expansion {
        /// The limit.
        limit: usize,
        /// What it counts.
        what: &'static str,
    },
}

impl ImportProblem {
    /// A short stable name of the kind.
    pub fn code(&self) -> &'static str {
        match self {
            ImportProblem::Wire(_) | ImportProblem::Decode { .. } => "not-onnx",
            ImportProblem::Unsupported(_) => "operator",
            ImportProblem::Form { .. } => "operator-form",
            ImportProblem::Invalid { .. } => "operator-invalid",
            ImportProblem::Dynamic { .. } => "dynamic",
            ImportProblem::Dimension { .. } | ImportProblem::DimensionValue { .. } => "dimension",
            ImportProblem::ValueType { .. } => "value-type",
            ImportProblem::Tensor { .. } => "tensor",
            ImportProblem::External { .. } => "external-data",
            ImportProblem::Redefined => "redefined",
            ImportProblem::Name => "name",
            ImportProblem::Recursion { .. } => "recursion",
            ImportProblem::Expansion { .. } => "expansion",
        }
    }

    /// What would work, where that can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            ImportProblem::Wire(_) | ImportProblem::Decode { .. } => {
                Some("give a .onnx file as torch.onnx.export writes it, wholly downloaded".into())
            }
            ImportProblem::Unsupported(unsupported) => Some(unsupported.help()),
            ImportProblem::Form { supported, .. } => Some(format!("supported is {supported}")),
            ImportProblem::Invalid { needed, .. } | ImportProblem::Tensor { needed, .. } => {
                Some(format!("needed is {needed}"))
            }
            ImportProblem::Dynamic { .. } => {
                Some("shapes must follow from the dimensions alone, export with fixed shapes".into())
            }
            ImportProblem::Dimension { missing, .. } => Some(format!(
                "give it with {}",
                list_with(missing, |name| format!("--dim {}=N", quoted(name)))
            )),
            ImportProblem::DimensionValue { .. } => {
                Some("needed is a number, a name, or a sum, difference, product or quotient of those".into())
            }
            ImportProblem::ValueType { .. } => {
                Some("supported are tensors of floats, integers and booleans with a known rank".into())
            }
            ImportProblem::External { .. } => Some(
                "keep the data file beside the model, under the relative name that the model gives".into(),
            ),
            ImportProblem::Redefined => {
                Some("every value, output and function needs a name of its own".into())
            }
            ImportProblem::Name => {
                Some("inputs and outputs need names of printed characters, without spaces around them".into())
            }
            ImportProblem::Recursion { .. } => {
                Some("ONNX has no recursion: a function may only call others that do not call it".into())
            }
            ImportProblem::Expansion { .. } => {
                Some("export without local functions, or with fewer calls of them within each other".into())
            }
        }
    }
}

/// Graph inputs that something depends on, as a sentence needs them.
pub(super) fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "a large computed value".into();
    }
    list_with(names, |name| format!("input \"{name}\""))
}

/// The way from a function back to itself.
fn through(calls: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = if calls.len() > SHOWN { ", ..." } else { "" };
    let shown: Vec<String> = calls.iter().take(SHOWN).map(|name| format!("\"{name}\"")).collect();
    if shown.is_empty() { String::new() } else { format!(" by way of {}{more}", shown.join(", ")) }
}

fn list_with(names: &[String], show: impl Fn(&String) -> String) -> String {
    names.iter().map(show).collect::<Vec<_>>().join(" and ")
}

/// A name as a shell needs it.
fn quoted(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/:".contains(c));
    if plain { name.into() } else { format!("'{name}'") }
}
