//! Why the heads of a model cannot be merged.

/// What was found in the model or the request. The diagnostic around it names the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeProblem {
    /// No softmax over products of two computed values.
    #[error("the model has no attention")]
    NoAttention,
    /// The heads do not divide into groups of this size.
    #[error("{heads} {what} cannot be merged in groups of {factor}")]
    Indivisible {
        /// Heads, or key and value heads.
        what: &'static str,
        /// How many there are.
        heads: usize,
        /// How many are to become one.
        factor: usize,
    },
    /// Layers that the model does not have.
    #[error("layers {start} to before {end} were asked for, the model has {count}")]
    Layers {
        /// First layer.
        start: usize,
        /// The layer after the last.
        end: usize,
        /// Attention blocks in the model.
        count: usize,
    },
    /// Attention that is spelled in a way that cannot be changed.
    #[error("{op_type}: {found}")]
    Form {
        /// ONNX operator.
        op_type: String,
        /// What stands in the way.
        found: String,
        /// What would work.
        supported: &'static str,
    },
    /// A shape that did not follow.
    #[error("its shape would be {found:?} where merged heads need {needed:?}")]
    Shape {
        /// What the changed model computes.
        found: Vec<usize>,
        /// What it would have to be.
        needed: Vec<usize>,
    },
    /// A scale that did not follow.
    #[error("its scores would be scaled by {found} where merged heads need {needed}")]
    Scale {
        /// What the changed model does.
        found: String,
        /// What it would have to do.
        needed: String,
    },
}

impl MergeProblem {
    /// What would work, where that can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            MergeProblem::NoAttention => Some(
                "recognised is a Softmax between a MatMul of queries and keys and one with values".into(),
            ),
            MergeProblem::Indivisible { heads, .. } => {
                let factors: Vec<String> =
                    (2..=*heads).filter(|f| heads.is_multiple_of(*f)).map(|f| f.to_string()).collect();
                match factors.as_slice() {
                    [] => Some("a single head has nothing to be merged with".into()),
                    _ => Some(format!("factors that work here are {}", factors.join(", "))),
                }
            }
            MergeProblem::Layers { count, .. } => Some(format!("give --layers A..B with B at most {count}")),
            MergeProblem::Form { supported, .. } => Some(format!("supported is {supported}")),
            MergeProblem::Shape { .. } => Some(
                "export with fixed shapes, or with shapes that are joined of constants and dimensions".into(),
            ),
            MergeProblem::Scale { .. } => {
                Some("supported is a scale that is a constant or follows from the width of a head".into())
            }
        }
    }
}
