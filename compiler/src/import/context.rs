//! What an operator's translation works with: values that fold away while they are known, and the graph for the rest.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use marill_plaintext::{DType, Op, OpError, Tensor, TensorType, evaluate, infer};

use super::node::OnnxNode;
use super::problem::ImportProblem;
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::constant::Element;
use crate::ir::{Constant, Graph, NodeKind, Owner, ValueId};

/// Most elements of a value that is computed while importing; larger ones become nodes.
const MAX_FOLDED_ELEMENTS: usize = 1 << 20;
/// Most elements of an f32 initializer that computations see through. Larger ones are weights: they stay in the
/// file, where they can be recognised.
const MAX_FOLDED_WEIGHTS: usize = 4096;

/// Most multiplications, or elements read and written, that computing while importing may take: seconds. Beyond, values
/// become nodes.
const MAX_FOLDING: usize = 1 << 29;
/// How many sums take as long as an element of a function or a step along an axis.
const SLOW_WORK: usize = 8;
/// Most bytes that computed values take at once. Beyond, values become nodes.
const MAX_HELD_BYTES: usize = 1 << 29;
/// Most nodes that are looked at to say what values depend on.
const MAX_LOOKS: usize = 1 << 20;
/// Longest name of a computed value; a node may make many.
const MAX_LABEL_BYTES: usize = 512;

/// A value of the model.
pub(super) struct Value {
    pub name: String,
    pub ty: TensorType,
    kind: Kind,
}

enum Kind {
    /// Computed when the program runs.
    Computed(ValueId),
    /// Known now; in the graph only once something computed uses it. `public` where no weight has a part in it.
    Known { constant: Constant, foldable: bool, public: bool, node: Cell<Option<ValueId>>, room: Room },
}

/// The room that a computed value takes, given back with it unless it has got into the graph.
#[derive(Default)]
struct Room {
    bytes: Cell<usize>,
    held_bytes: Rc<Cell<usize>>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held_bytes.set(self.held_bytes.get() - self.bytes.get());
    }
}

/// What the elements of a value of type `ty` take.
fn bytes_of(ty: &TensorType) -> usize {
    let element_bytes = match ty.dtype {
        DType::F32 => size_of::<f32>(),
        DType::I64 => size_of::<i64>(),
        DType::Bool => size_of::<bool>(),
    };
    ty.len().saturating_mul(element_bytes)
}

/// A shared handle on a value; a known value is freed with its last handle.
pub(super) type Operand = Rc<Value>;

impl Value {
    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    pub fn rank(&self) -> usize {
        self.ty.shape.len()
    }

    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// Number of elements; types in the graph have at most 2^40.
    pub fn elements(&self) -> usize {
        self.ty.shape.iter().product()
    }

    /// The elements, if they are known and few enough to compute with.
    pub fn known(&self) -> Option<Tensor> {
        match &self.kind {
            Kind::Known { constant, foldable: true, .. } => constant.load().ok(),
            _ => None,
        }
    }

    /// The node of a value that is computed when the program runs.
    pub fn computed(&self) -> Option<ValueId> {
        match self.kind {
            Kind::Computed(id) => Some(id),
            Kind::Known { .. } => None,
        }
    }

    fn is_foldable(&self) -> bool {
        matches!(self.kind, Kind::Known { foldable: true, .. })
    }

    /// Whether it is made of positions, truth values, shapes and single numbers alone: configuration, not a weight.
    fn is_public(&self) -> bool {
        matches!(self.kind, Kind::Known { public: true, .. })
    }
}

/// The graph under construction.
#[derive(Default)]
pub(super) struct Context {
    pub graph: Graph,
    /// Name for the values that the current node makes.
    pub label: String,
    /// How much of [`MAX_FOLDING`] is used.
    work: usize,
    /// How much of [`MAX_HELD_BYTES`] is used.
    held_bytes: Rc<Cell<usize>>,
    /// How much of [`MAX_LOOKS`] is used.
    looks: Cell<usize>,
}

impl Context {
    /// A graph input.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Operand {
        let id = self.graph.add_input(name, ty.clone());
        Rc::new(Value { name: name.into(), ty, kind: Kind::Computed(id) })
    }

    /// A tensor that the file holds.
    pub fn stored(&self, name: &str, constant: Constant) -> Operand {
        let ty = constant.ty().clone();
        let limit = if ty.dtype == DType::F32 { MAX_FOLDED_WEIGHTS } else { MAX_FOLDED_ELEMENTS };
        let foldable = constant.elements() <= limit;
        // Narrow integers may be weights, quantised, and a float with axes a layer's of width one.
        let public = ty.shape.is_empty() || matches!(constant.element(), Element::I64 | Element::Bool);
        let kind = Kind::Known { constant, foldable, public, node: Cell::new(None), room: Room::default() };
        Rc::new(Value { name: name.into(), ty, kind })
    }

    /// A tensor that shapes, attributes and single numbers decide.
    pub fn known(&self, tensor: Tensor) -> Operand {
        self.derived(tensor, &[])
    }

    /// A tensor that was computed of the elements of `operands`, public only if they are.
    pub fn derived(&self, tensor: Tensor, operands: &[&Operand]) -> Operand {
        let constant = Constant::inline(tensor);
        let ty = constant.ty().clone();
        let public = operands.iter().all(|operand| operand.is_public());
        let bytes = bytes_of(&ty);
        self.held_bytes.set(self.held_bytes.get() + bytes);
        let room = Room { bytes: Cell::new(bytes), held_bytes: self.held_bytes.clone() };
        let kind = Kind::Known { constant, foldable: true, public, node: Cell::new(None), room };
        Rc::new(Value { name: self.label.clone(), ty, kind })
    }

    /// A known scalar.
    pub fn scalar(&self, value: f32) -> Operand {
        self.known(Tensor::scalar_f32(value))
    }

    /// A known vector of integers.
    pub fn vector(&self, values: Vec<i64>) -> Result<Operand, Diagnostic> {
        self.check(Tensor::i64(vec![values.len()], values)).map(|tensor| self.known(tensor))
    }

    /// The value's node, added to the graph on first use. Tables of floats are owned here, where it is known what they
    /// were computed of; whose anything else is, its uses say.
    pub fn materialise(&mut self, operand: &Operand) -> ValueId {
        match &operand.kind {
            Kind::Computed(id) => *id,
            Kind::Known { constant, node, public, room, .. } => {
                let id = node.get().unwrap_or_else(|| {
                    room.bytes.set(0);
                    let id = self.graph.add_constant(operand.name.clone(), constant.clone());
                    let is_table = operand.dtype() == DType::F32 && operand.elements() != 1;
                    self.graph.node_mut(id).facts.owner = (*public && is_table).then_some(Owner::Public);
                    id
                });
                node.set(Some(id));
                id
            }
        }
    }

    /// The result of `op`: computed now if all operands are known and the result is small, else a node. Operations
    /// that change nothing give their operand back.
    pub fn apply(&mut self, op: Op, args: &[&Operand]) -> Result<Operand, Diagnostic> {
        let types: Vec<TensorType> = args.iter().map(|arg| arg.ty.clone()).collect();
        let ty = self.check(infer(&op, &types))?;
        if is_identity(&op, &types) {
            return Ok(args[0].clone());
        }
        let small =
            ty.shape.iter().product::<usize>() <= MAX_FOLDED_ELEMENTS && !matches!(op, Op::Conv { .. });
        if small && args.iter().all(|arg| arg.is_foldable()) && self.affords(&op, &types, &ty) {
            let tensors: Option<Vec<Tensor>> = args.iter().map(|arg| arg.known()).collect();
            if let Some(tensors) = tensors {
                let references: Vec<&Tensor> = tensors.iter().collect();
                let tensor = self.check(evaluate(&op, &references))?;
                return Ok(self.derived(tensor, args));
            }
        }
        let ids: Vec<ValueId> = args.iter().map(|arg| self.materialise(arg)).collect();
        let result = self.graph.apply(op, &ids, self.label.clone());
        let id = self.check(result)?;
        Ok(Rc::new(Value { name: self.label.clone(), ty, kind: Kind::Computed(id) }))
    }

    /// Whether one more value may be computed now; counts it if so.
    fn affords(&mut self, op: &Op, types: &[TensorType], result: &TensorType) -> bool {
        let elements = |ty: &TensorType| ty.shape.iter().product::<usize>();
        let read = types.iter().map(elements).fold(0, usize::saturating_add);
        let depth = match op {
            Op::MatMul => types[0].shape.last().copied().unwrap_or(1),
            _ => 1,
        };
        let slow = match op {
            Op::Pow | Op::Exp | Op::Log | Op::Sin | Op::Cos | Op::Erf | Op::Tanh | Op::Sigmoid => SLOW_WORK,
            Op::Softmax { .. } | Op::Gelu { .. } | Op::Silu => SLOW_WORK,
            Op::CumSum { .. } | Op::ArgMax { .. } | Op::ReduceMax { .. } => SLOW_WORK,
            _ => 1,
        };
        let work = elements(result).saturating_mul(depth).saturating_add(read);
        self.spends(work.saturating_mul(slow), result)
    }

    /// Whether there is time for so much work, and room for its result; counts the work if so.
    pub fn spends(&mut self, work: usize, result: &TensorType) -> bool {
        let affords = self.work.saturating_add(work) <= MAX_FOLDING
            && self.held_bytes.get().saturating_add(bytes_of(result)) <= MAX_HELD_BYTES;
        self.work += if affords { work } else { 0 };
        affords
    }

    /// Names the values that the current node makes.
    pub fn set_label(&mut self, label: String) {
        self.label = label;
        if self.label.len() > MAX_LABEL_BYTES {
            self.label.truncate(self.label.floor_char_boundary(MAX_LABEL_BYTES));
            self.label.push('…');
        }
    }

    pub fn reshape(&mut self, x: &Operand, shape: Vec<usize>) -> Result<Operand, Diagnostic> {
        self.apply(Op::Reshape { shape }, &[x])
    }

    pub fn cast(&mut self, x: &Operand, to: DType) -> Result<Operand, Diagnostic> {
        self.apply(Op::Cast { to }, &[x])
    }

    /// `tensor` filled with `value`, broadcast to `shape` and known if small.
    pub fn filled(&mut self, value: Tensor, shape: Vec<usize>) -> Result<Operand, Diagnostic> {
        let scalar = self.known(value);
        self.apply(Op::Expand { shape }, &[&scalar])
    }

    /// An operation's error, at the current node.
    pub fn check<T>(&self, result: Result<T, OpError>) -> Result<T, Diagnostic> {
        result.map_err(|error| Diagnostic::new(self.label.clone(), error))
    }

    /// Elements of an operand that must be known, as integers, flattened. `role` is ONNX's name of the operand.
    pub fn integers(
        &self,
        node: &OnnxNode,
        operand: &Operand,
        role: &'static str,
    ) -> Result<Vec<i64>, Diagnostic> {
        match operand.known() {
            Some(tensor) => self.check(tensor.to_i64_vec()),
            None => Err(self.dynamic(node, operand, role)),
        }
    }

    /// As [`Context::integers`], for operand `index`, or `None` if it is absent.
    pub fn integers_at(
        &self,
        node: &OnnxNode,
        index: usize,
        role: &'static str,
    ) -> Result<Option<Vec<i64>>, Diagnostic> {
        node.input(index).map(|operand| self.integers(node, operand, role)).transpose()
    }

    /// That `operand` would have to be known.
    pub fn dynamic(&self, node: &OnnxNode, operand: &Operand, role: &'static str) -> Diagnostic {
        let problem = ImportProblem::Dynamic {
            op_type: node.op_type.clone(),
            operand: role,
            inputs: self.sources(operand),
        };
        Diagnostic::new(node.label.clone(), Problem::Import(problem))
    }

    /// The graph inputs that a value is computed from; some of them where it would take long to find all.
    pub fn sources(&self, operand: &Operand) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut pending = match operand.kind {
            Kind::Computed(id) => vec![id],
            Kind::Known { .. } => Vec::new(),
        };
        while let Some(id) = pending.pop() {
            if seen.insert(id) && self.looks.get() < MAX_LOOKS {
                self.looks.set(self.looks.get() + 1);
                pending.extend(self.graph.args(id));
            }
        }
        let inputs = seen.into_iter().map(|id| self.graph.node(id));
        inputs.filter(|node| matches!(node.kind, NodeKind::Input)).map(|node| node.name.clone()).collect()
    }
}

fn is_identity(op: &Op, types: &[TensorType]) -> bool {
    let shape = &types[0].shape;
    match op {
        Op::Reshape { shape: to } | Op::Expand { shape: to } => to == shape,
        Op::Transpose { perm } => perm.iter().copied().eq(0..perm.len()),
        Op::Concat { .. } => types.len() == 1,
        Op::Slice { axis, start: 0, end, step: 1 } => *end as usize == shape[*axis],
        Op::Tile { repeats } => repeats.iter().all(|&count| count == 1),
        Op::Cast { to } => *to == types[0].dtype,
        _ => false,
    }
}
