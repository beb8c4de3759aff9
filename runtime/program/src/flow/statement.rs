//! The leakage statement: what each party holds, sees and computes, and what the program itself tells everybody.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::origins::{ancestors, inputs_among, revealed_bits};
use super::ranks::ranks;
use super::{Consent, Flow, Held};
use crate::correlation::mask_indices;
use crate::schema::Instruction;
use crate::validate::ValidProgram;
use crate::value::{Form, Owner, Target};

/// A number of tensors and of their elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tensors {
    pub count: u64,
    pub elements: u64,
}

impl Tensors {
    fn add(&mut self, elements: usize) {
        self.count += 1;
        self.elements += elements as u64;
    }
}

/// An input that a party gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldInput {
    pub name: String,
    /// Type text such as `i64[1,16]`.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether the other party gives it as well.
    pub public: bool,
}

/// An output that a party learns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenOutput {
    pub name: String,
    /// Type text.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether both learn it.
    pub both: bool,
    /// Bits that are revealed for it, the most that it can tell; 0 for what the receiver computes from its own.
    pub bits: u64,
    /// Names of the inputs that it may depend on.
    pub inputs: Vec<String>,
    /// Whether it may depend on private constants.
    pub private_constants: bool,
}

/// Values opened to a party under masks: uniform numbers that tell nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Openings {
    pub count: u64,
    pub elements: u64,
    pub bits: u64,
}

/// What a party computes in the clear for one kind of layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClearWork {
    /// Name of the graph's nodes, numbers in it written as `*`.
    pub layer: String,
    /// How many times each tensor operation.
    pub operations: BTreeMap<String, u64>,
}

/// One party's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartyStatement {
    /// Inputs that it gives.
    pub inputs: Vec<HeldInput>,
    /// Constants that both hold.
    pub public_constants: Tensors,
    /// Constants that it alone holds.
    pub private_constants: Tensors,
    /// Private constants of the other party that it holds under masks that it does not know.
    pub masked_weights: Tensors,
    /// Outputs that it learns. Nothing else reaches it unmasked.
    pub sees: Vec<SeenOutput>,
    /// What it receives under masks.
    pub openings: Openings,
    /// What it computes on clear values that vary from run to run.
    pub clear: Vec<ClearWork>,
    /// Inputs of the other party, which stay hidden but for what the outputs tell.
    pub hidden_inputs: Vec<String>,
    /// Constants of the other party, likewise.
    pub hidden_constants: Tensors,
    /// What it must allow by name before it runs this.
    pub must_allow: Consent,
}

/// A kind of layer that private constants go into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Name of the graph's nodes, numbers in it written as `*`.
    pub name: String,
    /// How many layers have such a name.
    pub count: u64,
    /// Their private constants.
    pub constants: Tensors,
}

/// A private matrix `[rows, rank]` that is multiplied with a private `[rank, columns]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rank {
    pub first: String,
    pub second: String,
    pub rows: u64,
    pub rank: u64,
    pub columns: u64,
    /// How many such pairs.
    pub count: u64,
}

/// What everybody who has the program knows, the dealer included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicFacts {
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, u64>,
    pub instructions: u64,
    pub layers: u64,
    /// Distinct fraction bits of encoded weights, inputs and intermediate values.
    pub frac_bits: Vec<u32>,
    /// Distinct ring widths.
    pub ring_bits: Vec<u32>,
    /// Positions that the dealer is told, public constants all.
    pub positions: Tensors,
    /// Names that are readable in the program: of inputs, outputs, constants and layers.
    pub names: u64,
}

/// Who learns what from a program, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statement {
    /// The program's name.
    pub program: String,
    /// Its digest in hexadecimal.
    pub digest: String,
    pub client: PartyStatement,
    pub server: PartyStatement,
    /// Layers that private constants go into.
    pub private_layers: Vec<Layer>,
    /// Ranks that shapes of private matrices tell.
    pub ranks: Vec<Rank>,
    pub everybody: PublicFacts,
}

impl Statement {
    /// Of a program and what [`super::check`] found.
    pub fn new(program: &ValidProgram, flow: &Flow) -> Statement {
        Statement {
            program: program.program().name.clone(),
            digest: program.digest().iter().map(|byte| format!("{byte:02x}")).collect(),
            client: party(program, flow, Owner::Client),
            server: party(program, flow, Owner::Server),
            private_layers: private_layers(program, flow),
            ranks: ranks(program),
            everybody: public_facts(program),
        }
    }
}

/// Numbers of a name as `*`: layers that are repeated have one name then.
fn pattern(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if text.ends_with('*') => {}
            '0'..='9' => text.push('*'),
            c => text.extend(c.escape_debug()),
        }
    }
    text
}

/// The kind of layer that an instruction belongs to.
pub(super) fn layer(program: &ValidProgram, at: usize) -> String {
    let group = program.program().instructions[at].group as usize;
    program.program().groups.get(group).map_or_else(|| "unnamed".to_owned(), |name| pattern(name))
}

fn party(program: &ValidProgram, flow: &Flow, me: Owner) -> PartyStatement {
    let mut all = PartyStatement::default();
    let mut work: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (at, fact) in flow.facts().iter().enumerate().take(program.len()) {
        let ty = &program.types()[at];
        let (len, owner) = (ty.len(), fact.known_to.unwrap_or(Owner::Public));
        let mine = owner == me || owner == Owner::Public;
        match program.instruction(at) {
            Instruction::Input(i) if mine => {
                let (name, public) = (i.name.clone(), owner == Owner::Public);
                all.inputs.push(HeldInput { name, ty: i.ty.clone(), public });
            }
            Instruction::Input(i) => all.hidden_inputs.push(i.name.clone()),
            Instruction::Constant(_) if owner == Owner::Public => all.public_constants.add(len),
            Instruction::Constant(_) if mine => all.private_constants.add(len),
            Instruction::Constant(_) => all.hidden_constants.add(len),
            Instruction::Weight(_) if me == Owner::Client => all.masked_weights.add(len),
            Instruction::Plain(_) if mine && fact.sources.changing().is_some() => {
                let op = program.op(at).map_or("unknown", |op| op.name()).to_owned();
                *work.entry(layer(program, at)).or_default().entry(op).or_default() += 1;
            }
            _ => {}
        }
        let received = match fact.held {
            Held::Masked(Target::Both) | Held::MaskedBits => true,
            Held::Masked(to) => to == receiver(me),
            _ => false,
        };
        let opens = matches!(program.instruction(at), Instruction::Open(_) | Instruction::OpenBits(_));
        if received && opens {
            all.openings.count += 1;
            all.openings.elements += len as u64;
            all.openings.bits += len as u64 * u64::from(ty.width().unwrap_or(64));
        }
    }
    all.clear = work.into_iter().map(|(layer, operations)| ClearWork { layer, operations }).collect();
    for (output, &to) in program.program().outputs.iter().zip(flow.receivers()) {
        if to != Target::Both && to != receiver(me) {
            continue;
        }
        let made_from = ancestors(program, output.value);
        let ty = program.ty(output.value);
        let dtype = match ty.form {
            Form::Plain { dtype, .. } => dtype.name(),
            _ => "f32",
        };
        let shape: Vec<String> = ty.shape.iter().map(usize::to_string).collect();
        all.sees.push(SeenOutput {
            name: output.name.clone(),
            ty: format!("{dtype}[{}]", shape.join(",")),
            both: to == Target::Both,
            bits: revealed_bits(program, &made_from),
            inputs: inputs_among(program, &made_from),
            private_constants: flow.facts()[output.value as usize].sources.private_constants,
        });
    }
    all.must_allow = match me {
        Owner::Server => Consent::needed_by_server(program, flow),
        _ => Consent::needed_by_client(program, flow),
    };
    all
}

fn receiver(owner: Owner) -> Target {
    match owner {
        Owner::Client => Target::Client,
        Owner::Server => Target::Server,
        Owner::Public => Target::Both,
    }
}

/// Layers in which something that is nobody's is made with a private constant.
fn private_layers(program: &ValidProgram, flow: &Flow) -> Vec<Layer> {
    let mut layers: BTreeMap<String, (BTreeSet<u32>, BTreeSet<u32>)> = BTreeMap::new();
    for (at, fact) in flow.facts().iter().enumerate().take(program.len()) {
        if fact.known_to.is_some() {
            continue;
        }
        for argument in crate::plan::arguments(program.instruction(at)) {
            let entered = flow.facts()[argument as usize];
            if entered.known_to != Some(Owner::Server) || !entered.sources.private_constants {
                continue;
            }
            let (groups, constants) = layers.entry(layer(program, at)).or_default();
            groups.insert(program.program().instructions[at].group);
            let made_from = ancestors(program, argument).into_iter();
            constants.extend(made_from.filter(|&value| {
                let source = flow.facts()[value as usize].sources.private_constants;
                source && matches!(program.instruction(value as usize), Instruction::Constant(_))
            }));
        }
    }
    let layer = |(name, (groups, constants)): (String, (BTreeSet<u32>, BTreeSet<u32>))| {
        let mut tensors = Tensors::default();
        constants.iter().for_each(|&value| tensors.add(program.ty(value).len()));
        Layer { name, count: groups.len() as u64, constants: tensors }
    };
    layers.into_iter().map(layer).collect()
}

fn public_facts(program: &ValidProgram) -> PublicFacts {
    let whole = program.program();
    let distinct = |of: fn(&crate::ValueType) -> Option<u32>| {
        let all: BTreeSet<u32> = program.types().iter().filter_map(of).collect();
        all.into_iter().collect()
    };
    let mut positions = Tensors::default();
    mask_indices(program).into_iter().for_each(|value| positions.add(program.ty(value).len()));
    let named =
        |at: &usize| matches!(program.instruction(*at), Instruction::Input(_) | Instruction::Constant(_));
    let names = (0..program.len()).filter(named).count() + whole.outputs.len() + whole.groups.len();
    PublicFacts {
        dims: whole.dims.iter().map(|dim| (dim.name.clone(), dim.size)).collect(),
        instructions: program.len() as u64,
        layers: whole.groups.len() as u64,
        frac_bits: distinct(crate::ValueType::frac),
        ring_bits: distinct(crate::ValueType::width),
        positions,
        names: names as u64,
    }
}
