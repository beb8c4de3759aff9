//! What can be wrong: [`Diagnostic`] with the user's model, [`Bug`] with the compiler.

use std::fmt;
use std::path::PathBuf;

use marill_plaintext::{OpError, TensorType};

use crate::import::problem::ImportProblem;
use crate::ir::constant::ConstantError;
use crate::merge_heads::problem::MergeProblem;
use crate::request::Numerics;

/// A problem with the user's model or request, and the node at which it was found.
#[derive(Debug)]
pub struct Diagnostic {
    /// The exporter's name of the node, value or file entry.
    pub node: String,
    /// What was found there.
    pub problem: Problem,
}

/// What was found. Each kind has a stable [`Problem::code`].
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a well-formed model.
    #[error("the model is malformed: {what}")]
    Malformed {
        /// The rule of the format that it breaks.
        what: &'static str,
    },
    /// The model's opset is outside what is supported.
    #[error("opset {found} of domain \"{domain}\" is not supported, {min} to {max} are")]
    Opset {
        /// Operator set domain.
        domain: String,
        /// Version in the model.
        found: i64,
        /// Oldest supported.
        min: i64,
        /// Newest supported.
        max: i64,
    },
    /// An operator that the compiler does not know.
    #[error("op_type {op_type} of domain \"{domain}\" is not supported")]
    OpType {
        /// ONNX operator.
        op_type: String,
        /// Operator set domain.
        domain: String,
    },
    /// A known operator in a form that is not supported.
    #[error("attribute {attribute} of {op_type} is {found}, supported is {supported}")]
    Attribute {
        /// ONNX operator.
        op_type: String,
        /// Attribute name.
        attribute: &'static str,
        /// Its value in the model.
        found: String,
        /// What would work.
        supported: &'static str,
    },
    /// An operator with too few or too many operands.
    #[error("{op_type} has {found} operands, {needed} are needed")]
    OperandCount {
        /// ONNX operator.
        op_type: String,
        /// Count in the model.
        found: usize,
        /// What would work.
        needed: &'static str,
    },
    /// An element type that the compiler does not know.
    #[error("element type {found} is not supported")]
    ElementType {
        /// ONNX's name or number of the type.
        found: String,
    },
    /// A value is used but nothing defines it.
    #[error("value \"{value}\" is used but not defined")]
    Undefined {
        /// The value.
        value: String,
    },
    /// A dimension of an input is symbolic and the request does not give it.
    #[error("dimension {axis} (\"{dim_param}\") is not fixed")]
    Dimension {
        /// Which axis.
        axis: usize,
        /// ONNX's name for it, maybe empty.
        dim_param: String,
    },
    /// An operand that decides a shape depends on the input's values.
    #[error("operand {operand} of {op_type} must be known when compiling")]
    NotConstant {
        /// ONNX operator.
        op_type: String,
        /// Which operand.
        operand: usize,
    },
    /// The request names an input that the model does not have.
    #[error("the model has no such input")]
    UnknownInput {
        /// The inputs it has.
        inputs: Vec<String>,
    },
    /// The request gives an input to nobody.
    #[error("an input is known to a party before it is shared, its owner cannot be \"shared\"")]
    UnownedInput,
    /// An operation cannot be applied to its operands.
    #[error(transparent)]
    Op(#[from] OpError),
    /// An operation that no protocol computes on shared values.
    #[error("{op} cannot be computed on private values: {reason}")]
    NotOnShares {
        /// The operation.
        op: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// The fixed-point numbers would need more than 64 bits.
    #[error("the values here need rings of more than 64 bits")]
    RingTooNarrow,
    /// A sample input went beyond the bounds that the program's rings are made for.
    #[error("a value reached {found:.4}, its ring allows {allowed:.4}")]
    Headroom {
        /// Largest magnitude on the samples.
        found: f64,
        /// Largest magnitude that is computed right.
        allowed: f64,
    },
    /// The request names an output that the model does not have.
    #[error("the model has no such output")]
    UnknownOutput {
        /// The outputs it has.
        outputs: Vec<String>,
    },
    /// A pattern that names no weight of the model.
    #[error("{option} names no weight")]
    NoSuchWeight {
        /// The option that the pattern came with.
        option: &'static str,
        /// The weights there are.
        names: Vec<String>,
    },
    /// A weight that is asked to be private and public.
    #[error("a pattern of --private and one of --public-weights both match this weight")]
    BothOwners,
    /// Fraction or range bits for which no program can be made.
    #[error("{what} is {found}, allowed is {} to {}", allowed.start(), allowed.end())]
    Numerics {
        /// Which setting.
        what: &'static str,
        /// Its value.
        found: u32,
        /// What would work.
        allowed: std::ops::RangeInclusive<u32>,
    },
    /// The compiler's own fault.
    #[error("this is a fault of the compiler, please report it: {0}")]
    Bug(Box<Bug>),
    /// A bundle cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An initializer cannot be read.
    #[error(transparent)]
    Constant(#[from] ConstantError),
    /// The model is not of a form that can be imported.
    #[error(transparent)]
    Import(#[from] ImportProblem),
    /// The model's heads cannot be merged.
    #[error(transparent)]
    Merge(#[from] MergeProblem),
}

impl Problem {
    /// A short stable name of the kind.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::Unreadable { .. } => "unreadable",
            Problem::Malformed { .. } => "malformed",
            Problem::Opset { .. } => "opset",
            Problem::OpType { .. } => "op-type",
            Problem::Attribute { .. } => "attribute",
            Problem::OperandCount { .. } => "operand-count",
            Problem::ElementType { .. } => "element-type",
            Problem::Undefined { .. } => "undefined",
            Problem::Dimension { .. } => "dimension",
            Problem::NotConstant { .. } => "not-constant",
            Problem::UnknownInput { .. } => "unknown-input",
            Problem::UnownedInput => "unowned-input",
            Problem::NotOnShares { .. } => "not-on-shares",
            Problem::RingTooNarrow => "ring-too-narrow",
            Problem::Headroom { .. } => "headroom",
            Problem::UnknownOutput { .. } => "unknown-output",
            Problem::NoSuchWeight { .. } => "no-such-weight",
            Problem::BothOwners => "both-owners",
            Problem::Numerics { .. } => "numerics",
            Problem::Bug(_) => "bug",
            Problem::Unwritable { .. } => "unwritable",
            Problem::Op(_) => "operands",
            Problem::Constant(_) => "constant",
            Problem::Import(problem) => problem.code(),
            Problem::Merge(_) => "merge-heads",
        }
    }

    /// What would work, where that can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Problem::Opset { min, max, .. } => {
                Some(format!("export the model again with opset_version between {min} and {max}"))
            }
            Problem::OpType { domain, .. } if !domain.is_empty() && domain != "ai.onnx" => Some(
                "export without operators of other domains, before any runtime-specific optimisation".into(),
            ),
            Problem::Dimension { dim_param, .. } if !dim_param.is_empty() => {
                Some(format!("give it with --dim {dim_param}=N"))
            }
            Problem::UnknownInput { inputs } => Some(format!("its inputs are: {}", inputs.join(", "))),
            Problem::UnownedInput => Some("give it to the client, the server or both (public)".into()),
            Problem::UnknownOutput { outputs } => Some(format!("its outputs are: {}", outputs.join(", "))),
            Problem::NoSuchWeight { names, .. } => {
                const SHOWN: usize = 12;
                let more = if names.len() > SHOWN { ", ..." } else { "" };
                let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
                Some(format!("its weights are: {}{more}", shown.join(", ")))
            }
            Problem::RingTooNarrow => Some("ask for fewer bits with --frac-bits or --range-bits".into()),
            Problem::Headroom { found, allowed } => {
                let bits = (found / allowed).log2().ceil().max(1.0);
                Some(format!(
                    "it takes {bits} more --hidden-bits or, if it is no hidden state, --range-bits, which are at most {} and \
                     {} (both parties see them)",
                    Numerics::HIDDEN_BITS.end(),
                    Numerics::RANGE_BITS.end()
                ))
            }
            Problem::NotConstant { .. } => Some("export the model with fixed input shapes".into()),
            Problem::Import(problem) => problem.help(),
            Problem::Merge(problem) => problem.help(),
            _ => None,
        }
    }
}

impl Diagnostic {
    /// A problem at a node.
    pub fn new(node: impl Into<String>, problem: impl Into<Problem>) -> Diagnostic {
        Diagnostic { node: node.into(), problem: problem.into() }
    }

    /// A short stable name of the kind of problem.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }

    /// What would work, where that can be said.
    pub fn help(&self) -> Option<String> {
        self.problem.help()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] ", self.code())?;
        if !self.node.is_empty() {
            write!(f, "at \"{}\": ", self.node)?;
        }
        write!(f, "{}", self.problem)?;
        match self.help() {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

/// An invariant of the graph is broken: the compiler's fault, never the user's.
#[derive(Debug, thiserror::Error)]
pub enum Bug {
    /// The lowered program does not pass the runtime's own checks.
    #[error("the lowered program is invalid: {source}")]
    Program {
        /// Why.
        source: marill_program::ProgramError,
    },
    /// The lowered program would tell somebody what it must not.
    #[error("the lowered program leaks: {source}")]
    Flow {
        /// What the check found.
        source: marill_program::flow::FlowError,
    },
    /// Values depend on themselves.
    #[error("the graph has a cycle")]
    Cycle,
    /// The argument positions of a node are not 0, 1, 2...
    #[error("\"{node}\" has arguments at positions {found:?}")]
    Positions {
        /// Name of the node.
        node: String,
        /// Positions found, sorted.
        found: Vec<usize>,
    },
    /// An operation does not accept its operands.
    #[error("\"{node}\": {source}")]
    Operands {
        /// Name of the node.
        node: String,
        /// Why not.
        source: OpError,
    },
    /// A node's recorded type is not what it computes.
    #[error("\"{node}\" is recorded as {found} but is {expected}")]
    Type {
        /// Name of the node.
        node: String,
        /// What the operation or constant gives.
        expected: TensorType,
        /// What is recorded.
        found: TensorType,
    },
    /// `inputs` and the input nodes differ, or two have one name.
    #[error("input \"{name}\" is listed {listed} times and present {present} times")]
    Inputs {
        /// Name of the input.
        name: String,
        /// Times in the list of inputs.
        listed: usize,
        /// Times in the graph.
        present: usize,
    },
    /// An output's value is not in the graph.
    #[error("output \"{name}\" has no value")]
    MissingOutput {
        /// Name of the output.
        name: String,
    },
    /// Nobody learns an output.
    #[error("output \"{name}\" is revealed to nobody")]
    UnrevealedOutput {
        /// Name of the output.
        name: String,
    },
    /// A fact is recorded before the stage that may know it.
    #[error("\"{node}\" has {fact} but not what it rests on, {missing}")]
    EarlyFact {
        /// Name of the node.
        node: String,
        /// The fact found.
        fact: &'static str,
        /// The fact missing.
        missing: &'static str,
    },
    /// A range whose bounds are swapped or not numbers.
    #[error("\"{node}\" has the range {min} to {max}")]
    Range {
        /// Name of the node.
        node: String,
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
}
