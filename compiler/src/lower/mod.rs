//! From the owned graph to a program: every operation on shared values becomes the instructions of its protocol.
//!
//! Precondition: owners assigned. Postcondition: a scheduled draft with all ring widths chosen, as a [`Program`], and
//! the list of constants that the parties' bundles must hold. Operations whose operands one party knows stay tensor
//! operations at that party.

mod activation;
mod attention;
mod compare;
pub mod draft;
mod elementwise;
mod embedding;
pub mod fit;
mod linear;
mod maximum;
mod norm;
mod pieced;
mod positive;
mod reduce;
mod under_mask;
pub mod width;

use std::collections::{BTreeMap, BTreeSet};

use marill_plaintext::{DType, Op, OpError, Receiver, Tensor, TensorType};
use marill_program::flow::is_hidden;
use marill_program::schema::{Output, Program, Step, VERSION};
use marill_program::{Owner as Party, Target, ValidProgram};

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Constant, Encoding, Graph, NodeKind, Owner, ValueId};
use crate::ownership::is_constant;
use crate::precision::Precision;
use crate::rewrite::cost::CostModel;
use crate::schedule::schedule;
use draft::{Builder, Id, Kind};

/// Where a bundle's constant comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A value of the graph that depends on constants alone.
    Graph(ValueId),
    /// Made by the lowering: indices, scalars. Always public.
    Made(Constant),
}

/// A constant that the program names.
#[derive(Clone, Debug)]
pub struct BundleConstant {
    pub name: String,
    pub owner: Party,
    pub source: Source,
}

/// A lowered program and the constants it names.
#[derive(Debug)]
pub struct Lowered {
    pub program: Program,
    pub constants: Vec<BundleConstant>,
    /// Which program value holds which shared value of the graph.
    pub held: Vec<(ValueId, Id)>,
}

impl Lowered {
    /// The ring and fraction bits in which each shared value of the graph is held.
    pub fn encodings(&self, program: &ValidProgram) -> Vec<(ValueId, Encoding)> {
        let encoding = |&(id, value): &(ValueId, Id)| {
            let ty = program.ty(value);
            Some((id, Encoding { width_bits: ty.width()?, frac_bits: ty.frac()? }))
        };
        self.held.iter().filter_map(encoding).collect()
    }
}

/// A graph value in the program.
#[derive(Clone, Copy, Debug)]
enum Value {
    /// A clear tensor.
    Plain(Id),
    /// Additive shares.
    Shared(Id),
}

/// What a step of lowering may report.
pub type Result<T> = std::result::Result<T, Diagnostic>;

struct Lowering<'g> {
    graph: &'g Graph,
    builder: Builder,
    precision: Precision,
    cost: CostModel,
    /// Values that are opened for public linear work under their masks.
    mask_sources: BTreeSet<ValueId>,
    values: BTreeMap<ValueId, Value>,
    constants: Vec<BundleConstant>,
    names: BTreeSet<String>,
    made: BTreeMap<String, Id>,
}

/// Lowers `graph`, choosing by `cost` where there is a choice; `name` is what the program is called.
///
/// # Errors
/// An operation that cannot be computed on shared values, at its node.
pub fn lower(
    graph: &Graph,
    precision: Precision,
    cost: CostModel,
    name: &str,
    dims: &BTreeMap<String, usize>,
) -> Result<Lowered> {
    let mut lowering = Lowering {
        graph,
        builder: Builder::default(),
        precision,
        cost,
        mask_sources: under_mask::sources(graph, &cost),
        values: BTreeMap::new(),
        constants: Vec::new(),
        names: BTreeSet::new(),
        made: BTreeMap::new(),
    };
    lowering.run()?;
    let Lowering { mut builder, constants, .. } = lowering;
    if let Err(id) = width::solve(&mut builder, cost.network, cost.suite) {
        let node = builder.groups.get(builder.get(id).group as usize).cloned().unwrap_or_default();
        return Err(Diagnostic::new(node, Problem::RingTooNarrow));
    }
    schedule(&mut builder);
    let used: BTreeSet<&str> = builder
        .drafts
        .iter()
        .filter_map(|d| match &d.instruction {
            marill_program::Instruction::Constant(c) => Some(c.name.as_str()),
            _ => None,
        })
        .collect();
    let constants = constants.into_iter().filter(|c| used.contains(c.name.as_str())).collect();
    let dims = dims
        .iter()
        .map(|(name, &size)| marill_program::schema::Dim { name: name.clone(), size: size as u64 });
    let step = |d: draft::Draft| Step { instruction: Some(d.instruction), group: d.group };
    let program = Program {
        version: VERSION,
        name: name.to_owned(),
        dims: dims.collect(),
        outputs: builder.outputs,
        groups: builder.groups,
        kbits_per_second: cost.network.kbits_per_second(),
        instructions: builder.drafts.into_iter().map(step).collect(),
    };
    Ok(Lowered { program, constants, held: builder.held })
}

/// A party that knows a value in the clear.
fn party(owner: Owner) -> Option<Party> {
    match owner {
        Owner::Public => Some(Party::Public),
        Owner::Client => Some(Party::Client),
        Owner::Server => Some(Party::Server),
        Owner::Shared => None,
    }
}

/// A constant's name as programs may have it: of printed characters.
fn printed(name: &str) -> String {
    let shown: String = name.chars().map(|c| if is_hidden(c) { '?' } else { c }).collect();
    let trimmed = shown.trim();
    if trimmed.is_empty() { "constant".to_owned() } else { trimmed.to_owned() }
}

impl Lowering<'_> {
    fn run(&mut self) -> Result<()> {
        self.builder.start_group("inputs");
        for &id in &self.graph.inputs {
            let node = self.graph.node(id);
            let owner = node.facts.owner.and_then(party).unwrap_or(Party::Client);
            let value = self.builder.input(&node.name, owner, &node.facts.ty);
            self.values.insert(id, Value::Plain(value));
        }
        for id in self.graph.topological() {
            if let NodeKind::Apply(op) = &self.graph.node(id).kind
                && !is_constant(self.graph, id)
            {
                let value = self.apply(id, op)?;
                if let Value::Shared(shared) = value {
                    self.builder.held.push((id, shared));
                }
                self.values.insert(id, value);
            }
        }
        let outputs = self.graph.outputs.clone();
        for output in &outputs {
            self.builder.node = output.name.clone();
            self.builder.start_group(&output.name);
            let to = match output.reveal_to {
                Owner::Client => Target::Client,
                Owner::Server => Target::Server,
                _ => Target::Both,
            };
            let value = self.disclose(output.value, to, self.precision.output_frac)?;
            self.builder.outputs.push(Output { name: output.name.clone(), value, to: to as i32 });
        }
        Ok(())
    }

    fn apply(&mut self, id: ValueId, op: &Op) -> Result<Value> {
        let node = self.graph.node(id);
        self.builder.node = if node.name.is_empty() { op.name().to_owned() } else { node.name.clone() };
        let title = format!("{} {}", op.name(), node.name);
        self.builder.start_group(title.trim_end());
        let args = self.graph.args(id);
        if let Op::Reveal { to } = op {
            return self.reveal(id, args[0], *to);
        }
        // What has no elements is nobody's secret, and nothing is computed of it.
        if node.facts.ty.is_empty() {
            return self.empty(&node.facts.ty).map(Value::Plain);
        }
        if node.facts.owner != Some(Owner::Shared) {
            let args = args.iter().map(|&a| self.plain(a)).collect::<Result<Vec<Id>>>()?;
            return self.builder.plain(op, &args).map(Value::Plain);
        }
        self.shared_op(id, op, &args).map(Value::Shared)
    }

    fn shared_op(&mut self, id: ValueId, op: &Op, args: &[ValueId]) -> Result<Id> {
        match op {
            Op::Add => self.sum(args[0], args[1], false),
            Op::Sub => self.sum(args[0], args[1], true),
            Op::Mul => self.multiply(args[0], args[1]),
            Op::Div => self.divide(args[0], args[1]),
            Op::Neg => {
                let x = self.shares(args[0])?;
                Ok(self.builder.scale(x, -1, 0))
            }
            Op::Pow => self.power(args[0], args[1]),
            Op::Cast { to: DType::F32 } => self.shares(args[0]),
            Op::Where => self.choose(args[0], args[1], args[2]),
            Op::MatMul => self.matrix_product(args[0], args[1]),
            Op::LayerNorm { epsilon } => self.layer_norm(args, *epsilon),
            Op::RmsNorm { epsilon } => self.rms_norm(args, *epsilon),
            Op::Gelu { .. } | Op::Silu | Op::Tanh | Op::Sigmoid | Op::Erf => self.activation(op, args[0]),
            Op::Relu | Op::Abs | Op::Clip { .. } => self.piecewise_linear(op, args[0]),
            Op::Max => self.extremum(args[0], args[1], false),
            Op::Min => self.extremum(args[0], args[1], true),
            Op::Exp => self.exponential(args[0]),
            Op::Sqrt | Op::Rsqrt | Op::Reciprocal => self.root(op, args[0]),
            Op::Softmax { axis } => self.softmax(args[0], *axis),
            Op::AttentionSoftmax => self.attention_softmax(args),
            Op::ReduceSum { axes, keepdims } => self.reduce(args[0], axes, *keepdims, false),
            Op::ReduceMean { axes, keepdims } => self.reduce(args[0], axes, *keepdims, true),
            Op::ReduceMax { axes, keepdims } => self.reduce_max(args[0], axes, *keepdims),
            Op::ArgMax { axis, keepdims } => self.arg_max(args[0], *axis, *keepdims),
            Op::Gather { axis } => self.gather(id, args[0], args[1], *axis),
            Op::Rotary => self.rotary(args[0], args[1], args[2]),
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Concat { .. } | Op::Slice { .. } => {
                self.rearrange(op, args)
            }
            Op::Expand { .. } | Op::Tile { .. } => self.rearrange(op, args),
            _ => Err(self.unsupported(op)),
        }
    }

    fn unsupported(&self, op: &Op) -> Diagnostic {
        Diagnostic::new(
            &self.builder.node,
            Problem::NotOnShares { op: op.name(), reason: "no protocol computes it" },
        )
    }

    fn refuse(&self, op: &'static str, reason: &'static str) -> Diagnostic {
        Diagnostic::new(&self.builder.node, Problem::NotOnShares { op, reason })
    }

    /// An operation error as a diagnostic at the current node.
    fn ok<T>(&self, result: std::result::Result<T, OpError>) -> Result<T> {
        result.map_err(|e| Diagnostic::new(&self.builder.node, e))
    }

    /// A graph value in the program; constants enter on first use.
    fn value(&mut self, id: ValueId) -> Result<Value> {
        if let Some(&value) = self.values.get(&id) {
            return Ok(value);
        }
        let node = self.graph.node(id);
        let owner = node.facts.owner.and_then(party).unwrap_or(Party::Server);
        let name = self.unique(&printed(&node.name));
        let value = Value::Plain(self.builder.constant(&name, owner, &node.facts.ty));
        self.constants.push(BundleConstant { name, owner, source: Source::Graph(id) });
        self.values.insert(id, value);
        Ok(value)
    }

    fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut suffix = 1;
        while !self.names.insert(candidate.clone()) {
            suffix += 1;
            candidate = format!("{name}#{suffix}");
        }
        candidate
    }

    /// A clear operand.
    fn plain(&mut self, id: ValueId) -> Result<Id> {
        match self.value(id)? {
            Value::Plain(value) => Ok(value),
            Value::Shared(_) => Err(self.refuse("clear operation", "an operand is shared")),
        }
    }

    /// Shares of any value: those it has, or a known value's own.
    fn shares(&mut self, id: ValueId) -> Result<Id> {
        match self.value(id)? {
            Value::Shared(value) => Ok(value),
            Value::Plain(_) if self.graph.ty(id).dtype == DType::Bool => {
                Err(self
                    .refuse("sharing", "truth values are not shared, a cast to numbers before would work"))
            }
            Value::Plain(value) => Ok(self.share_plain(value, self.precision.hidden_frac)),
        }
    }

    fn share_plain(&mut self, value: Id, frac: u32) -> Id {
        let integer = matches!(self.builder.get(value).kind, Kind::Plain { dtype: DType::I64, .. });
        let known = self.builder.encode(value, if integer { 0 } else { frac }, self.precision.hidden_bound);
        self.builder.share(known)
    }

    /// A public constant made by the lowering, under `name`, merged by name.
    fn made(&mut self, name: &str, tensor: Tensor) -> Id {
        if let Some(&id) = self.made.get(name) {
            return id;
        }
        let unique = self.unique(name);
        let id = self.builder.constant(&unique, Party::Public, &tensor.ty());
        let source = Source::Made(Constant::inline(tensor));
        self.constants.push(BundleConstant { name: unique, owner: Party::Public, source });
        self.made.insert(name.to_owned(), id);
        id
    }

    /// A public tensor without elements.
    fn empty(&mut self, ty: &TensorType) -> Result<Id> {
        let shape = ty.shape.clone();
        let tensor = self.ok(match ty.dtype {
            DType::F32 => Tensor::f32(shape, vec![]),
            DType::I64 => Tensor::i64(shape, vec![]),
            DType::Bool => Tensor::bool(shape, vec![]),
        })?;
        Ok(self.made(&format!("empty.{ty}"), tensor))
    }

    /// Public i64 indices.
    fn indices(&mut self, values: &[usize]) -> Result<Id> {
        let data: Vec<i64> = values.iter().map(|&v| v as i64).collect();
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        let name = format!("indices.{}", &blake3::hash(&bytes).to_hex()[..16]);
        let tensor = self.ok(Tensor::i64([data.len()], data))?;
        Ok(self.made(&name, tensor))
    }

    /// A public scalar as ring elements with `frac` fraction bits.
    fn scalar(&mut self, value: f32, frac: u32) -> Id {
        let id = self.made(&format!("scalar.{value}"), Tensor::scalar_f32(value));
        self.builder.encode(id, frac, f64::from(value.abs()) + 1.0)
    }

    /// The value of a public scalar constant of the graph.
    fn public_scalar(&self, id: ValueId) -> Option<f64> {
        let node = self.graph.node(id);
        if node.facts.owner != Some(Owner::Public) || node.facts.ty.len() != 1 {
            return None;
        }
        let tensor = crate::bundle::constant_value(self.graph, id).ok()?;
        let value = tensor.cast(DType::F32).to_f32_vec().ok()?;
        value.first().map(|&v| f64::from(v))
    }

    /// A value on its way to an output: declared as one itself, unless the graph's output is this very value.
    fn reveal(&mut self, id: ValueId, arg: ValueId, to: Receiver) -> Result<Value> {
        let to = match to {
            Receiver::Client => Target::Client,
            Receiver::Server => Target::Server,
            Receiver::Both => Target::Both,
        };
        let is_output = self.graph.is_output(id);
        let frac = if is_output { self.precision.output_frac } else { self.precision.hidden_frac };
        let value = self.disclose(arg, to, frac)?;
        if !is_output {
            let name = self.hidden_name(id);
            self.builder.outputs.push(Output { name, value, to: to as i32 });
        }
        Ok(Value::Plain(value))
    }

    /// After the first output that depends on the value.
    fn hidden_name(&self, id: ValueId) -> String {
        let mut reached = BTreeSet::from([id]);
        for user in self.graph.topological() {
            if self.graph.args(user).iter().any(|arg| reached.contains(arg)) {
                reached.insert(user);
            }
        }
        let output = self.graph.outputs.iter().find(|output| reached.contains(&output.value));
        let base = format!("{}.hidden", output.map_or("output", |output| output.name.as_str()));
        let taken = |name: &str| {
            self.graph.outputs.iter().any(|o| o.name == name)
                || self.builder.outputs.iter().any(|o| o.name == name)
        };
        let mut name = base.clone();
        let mut suffix = 1;
        while taken(&name) {
            suffix += 1;
            name = format!("{base}{suffix}");
        }
        name
    }

    /// A value as its receiver knows it, with at most `frac` fraction bits if it must be revealed for that.
    fn disclose(&mut self, id: ValueId, to: Target, frac: u32) -> Result<Id> {
        let value = self.value(id)?;
        if let Value::Plain(plain) = value
            && let Kind::Plain { owner, .. } = self.builder.get(plain).kind
        {
            let knows = match to {
                Target::Both => owner == Party::Public,
                Target::Client => owner != Party::Server,
                Target::Server => owner != Party::Client,
            };
            if knows {
                return Ok(plain);
            }
        }
        if self.graph.ty(id).dtype == DType::Bool {
            return Err(self
                .refuse("revealing", "truth values are not revealed, a cast to numbers before would work"));
        }
        let integer = self.graph.ty(id).dtype == DType::I64;
        let known = match value {
            Value::Shared(shared) if integer => shared,
            Value::Shared(shared) => self.builder.at_frac(shared, frac.min(self.builder.frac(shared))),
            Value::Plain(plain) => {
                let frac = if integer { 0 } else { frac };
                self.builder.encode(plain, frac, self.precision.hidden_bound)
            }
        };
        if !integer {
            self.builder.set_bound(known, self.precision.hidden_bound);
        }
        Ok(self.builder.reveal(known, to, integer))
    }
}
