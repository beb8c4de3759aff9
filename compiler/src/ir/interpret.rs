//! Runs a graph in the clear, in f32: the reference that every stage must agree with.

use std::collections::BTreeMap;

use super::constant::ConstantError;
use super::{Graph, NodeKind, ValueId};
use marill_plaintext::{OpError, Tensor, TensorType, evaluate};

/// Why a graph cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum InterpretError {
    /// No tensor was given for an input.
    #[error("no tensor for input \"{name}\" of type {ty}")]
    MissingInput {
        /// Name of the input.
        name: String,
        /// What it needs.
        ty: TensorType,
    },
    /// The tensor for an input has another type.
    #[error("input \"{name}\" is {found}, the graph needs {expected}")]
    InputType {
        /// Name of the input.
        name: String,
        /// What the graph needs.
        expected: TensorType,
        /// What was given.
        found: TensorType,
    },
    /// A constant cannot be read.
    #[error("constant \"{name}\": {source}")]
    Constant {
        /// Name of the constant.
        name: String,
        /// Why not.
        source: ConstantError,
    },
    /// An operation failed on these values.
    #[error("\"{name}\": {source}")]
    Op {
        /// Name of the node.
        name: String,
        /// Why.
        source: OpError,
    },
}

/// Runs the graph; outputs in the graph's order. Inputs that no output needs may be missing.
///
/// # Errors
/// If an input is missing or of another type, a constant is absent, or an operation fails.
pub fn interpret(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<Vec<(String, Tensor)>, InterpretError> {
    interpret_with(graph, inputs, &mut |_, _| {})
}

/// As [`interpret`], and shows every value that an output needs to `observer`, operands before users. A value is
/// freed after its last use.
///
/// # Errors
/// As [`interpret`].
pub fn interpret_with(
    graph: &Graph,
    inputs: &BTreeMap<String, Tensor>,
    observer: &mut dyn FnMut(ValueId, &Tensor),
) -> Result<Vec<(String, Tensor)>, InterpretError> {
    let order = needed(graph);
    let mut uses_left: BTreeMap<ValueId, usize> = BTreeMap::new();
    for &id in &order {
        for arg in graph.args(id) {
            *uses_left.entry(arg).or_default() += 1;
        }
    }
    for output in &graph.outputs {
        *uses_left.entry(output.value).or_default() += 1;
    }
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for id in order {
        let node = graph.node(id);
        let name = || node.name.clone();
        let value = match &node.kind {
            NodeKind::Input => input(inputs, &node.name, &node.facts.ty)?,
            NodeKind::Constant(constant) => {
                constant.load().map_err(|source| InterpretError::Constant { name: name(), source })?
            }
            NodeKind::Apply(op) => {
                let args = graph.args(id);
                let operands: Vec<&Tensor> = args.iter().map(|arg| &values[arg]).collect();
                let value =
                    evaluate(op, &operands).map_err(|source| InterpretError::Op { name: name(), source })?;
                for arg in args {
                    release(&mut values, &mut uses_left, arg);
                }
                value
            }
        };
        observer(id, &value);
        values.insert(id, value);
    }
    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for output in &graph.outputs {
        outputs.push((output.name.clone(), values[&output.value].clone()));
        release(&mut values, &mut uses_left, output.value);
    }
    Ok(outputs)
}

/// What the outputs need, operands first. Constants come just before their first user, so few are loaded at once.
fn needed(graph: &Graph) -> Vec<ValueId> {
    let mut live = std::collections::BTreeSet::new();
    let mut pending: Vec<ValueId> = graph.outputs.iter().map(|output| output.value).collect();
    while let Some(id) = pending.pop() {
        if live.insert(id) {
            pending.extend(graph.args(id));
        }
    }
    graph.topological().into_iter().filter(|id| live.contains(id)).collect()
}

fn release(values: &mut BTreeMap<ValueId, Tensor>, uses_left: &mut BTreeMap<ValueId, usize>, id: ValueId) {
    if let Some(left) = uses_left.get_mut(&id) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            values.remove(&id);
        }
    }
}

fn input(
    inputs: &BTreeMap<String, Tensor>,
    name: &str,
    expected: &TensorType,
) -> Result<Tensor, InterpretError> {
    let tensor = inputs
        .get(name)
        .ok_or_else(|| InterpretError::MissingInput { name: name.to_owned(), ty: expected.clone() })?;
    let found = tensor.ty();
    if found != *expected {
        return Err(InterpretError::InputType { name: name.to_owned(), expected: expected.clone(), found });
    }
    Ok(tensor.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Constant, Owner};
    use marill_plaintext::{DType, Op};

    fn f32_ty(shape: &[usize]) -> TensorType {
        TensorType { dtype: DType::F32, shape: shape.to_vec() }
    }

    #[test]
    fn computes_outputs_in_order_and_shows_only_needed_values() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", f32_ty(&[2]));
        graph.add_input("unused", f32_ty(&[9]));
        let one = graph.add_constant("one", Tensor::f32(vec![2], vec![1.0, 1.0]).unwrap());
        let sum = graph.apply(Op::Add, &[x, one], "sum").unwrap();
        let square = graph.apply(Op::Mul, &[sum, sum], "square").unwrap();
        let dead = graph.apply(Op::Exp, &[sum], "dead").unwrap();
        graph.add_output("square", square, Owner::Client);
        graph.add_output("sum", sum, Owner::Client);
        let inputs = BTreeMap::from([("x".to_owned(), Tensor::f32(vec![2], vec![2.0, 3.0]).unwrap())]);
        let mut seen = Vec::new();
        let outputs = interpret_with(&graph, &inputs, &mut |id, _| seen.push(id)).unwrap();
        assert_eq!(outputs[0].0, "square");
        assert_eq!(outputs[0].1.to_f32_vec().unwrap(), [9.0, 16.0]);
        assert_eq!(outputs[1].1.to_f32_vec().unwrap(), [3.0, 4.0]);
        assert_eq!(seen.len(), 4);
        assert!(!seen.contains(&dead));
    }

    #[test]
    fn missing_inputs_wrong_types_and_absent_constants_are_named() {
        let mut graph = Graph::default();
        let x = graph.add_input("x", f32_ty(&[2]));
        let weight = graph.add_constant("w", Constant::absent(f32_ty(&[2]), [7; 8]));
        let sum = graph.apply(Op::Add, &[x, weight], "sum").unwrap();
        graph.add_output("sum", sum, Owner::Client);
        let run = |tensor: Option<Tensor>| {
            interpret(&graph, &tensor.into_iter().map(|t| ("x".to_owned(), t)).collect()).unwrap_err()
        };
        assert!(matches!(run(None), InterpretError::MissingInput { name, .. } if name == "x"));
        let wrong = Tensor::f32(vec![3], vec![0.0; 3]).unwrap();
        assert!(matches!(run(Some(wrong)), InterpretError::InputType { name, .. } if name == "x"));
        let right = Tensor::f32(vec![2], vec![0.0; 2]).unwrap();
        assert!(matches!(run(Some(right)), InterpretError::Constant { name, .. } if name == "w"));
    }
}
