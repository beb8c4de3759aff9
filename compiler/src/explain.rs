//! Where every operation of a program runs, and why.
//!
//! A group of instructions comes from one graph node. Who owns its values decides where it runs.

use std::collections::{BTreeMap, BTreeSet};

use marill_program::plan::arguments;
use marill_program::{Form, Instruction, Owner, ValidProgram};
use serde::Serialize;

use crate::report::OperatorRow;

/// Where an operation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the clear at both parties, each for itself.
    Both,
    /// In the clear at the client.
    Client,
    /// In the clear at the client, from what was revealed to it.
    ClientAfterReveal,
    /// In the clear at the server.
    Server,
    /// In the clear at the server, from what was revealed to it.
    ServerAfterReveal,
    /// On shares, between the parties.
    Shared,
}

impl Place {
    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Place::Both => "both, in the clear",
            Place::Client => "client, in the clear",
            Place::ClientAfterReveal => "client, in the clear, after a reveal",
            Place::Server => "server, in the clear",
            Place::ServerAfterReveal => "server, in the clear, after a reveal",
            Place::Shared => "between the parties",
        }
    }

    /// Why an operation runs there.
    pub fn reason(self) -> &'static str {
        match self {
            Place::Both => "depends on public values alone",
            Place::Client => "depends on the client's inputs and public values alone",
            Place::ClientAfterReveal => "is a public function of what the client learns anyway",
            Place::Server => "depends on what the server has and public values alone",
            Place::ServerAfterReveal => "is a public function of what the server learns anyway",
            Place::Shared => "depends on what only the client has and on what only the server has",
        }
    }
}

/// One graph node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlacedOperation {
    /// The operation and the node's name.
    pub group: String,
    /// Where it runs.
    pub place: Place,
    /// Multiply-adds of its matrix products in the clear.
    pub clear_products: u64,
}

/// Every operation of `program` that computes something, in order.
pub fn placements(program: &ValidProgram) -> Vec<PlacedOperation> {
    let mut after_reveal: BTreeSet<u32> = BTreeSet::new();
    let mut groups: BTreeMap<u32, PlacedOperation> = BTreeMap::new();
    for at in 0..program.len() as u32 {
        let instruction = program.instruction(at as usize);
        let follows = arguments(instruction).iter().any(|a| after_reveal.contains(a));
        if follows || matches!(instruction, Instruction::Reveal(_)) {
            after_reveal.insert(at);
        }
        let place = match (instruction, program.ty(at).form) {
            (Instruction::Input(_) | Instruction::Constant(_) | Instruction::Encode(_), _) => continue,
            (Instruction::Plain(_), Form::Plain { owner, .. }) => match owner {
                Owner::Public => Place::Both,
                Owner::Client if follows => Place::ClientAfterReveal,
                Owner::Client => Place::Client,
                Owner::Server if follows => Place::ServerAfterReveal,
                Owner::Server => Place::Server,
            },
            _ => Place::Shared,
        };
        let group = program.program().instructions[at as usize].group;
        let name = program.program().groups.get(group as usize).cloned().unwrap_or_default();
        let entry = groups.entry(group).or_insert(PlacedOperation { group: name, place, clear_products: 0 });
        entry.place = entry.place.max(place);
        entry.clear_products += clear_products(program, at);
    }
    groups.into_values().collect()
}

/// Multiply-adds of a matrix product in the clear.
fn clear_products(program: &ValidProgram, at: u32) -> u64 {
    match (program.instruction(at as usize), program.op(at as usize)) {
        (Instruction::Plain(p), Some(marill_plaintext::Op::MatMul)) => {
            let inner = p.args.first().and_then(|&a| program.ty(a).shape.last().copied()).unwrap_or(1);
            (program.ty(at).len() * inner) as u64
        }
        _ => 0,
    }
}

/// Operations of one kind at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindRow {
    /// Where they run.
    pub place: Place,
    /// What they are.
    pub operation: String,
    /// How many.
    pub count: usize,
    /// Bytes online, both ways.
    pub online_bytes: u64,
    /// Rounds that they add.
    pub rounds: u64,
    /// Bytes of correlations.
    pub preprocess_bytes: u64,
    /// Bytes that pass at setup.
    pub setup_bytes: u64,
    /// Multiply-adds: in the ring between the parties, in f32 elsewhere.
    pub products: u64,
}

/// The operations by place and kind, dearest first within a place.
pub fn by_kind(placed: &[PlacedOperation], costs: &[OperatorRow]) -> Vec<KindRow> {
    let costs: BTreeMap<&str, &OperatorRow> = costs.iter().map(|row| (row.group.as_str(), row)).collect();
    let mut rows: BTreeMap<(Place, &str), KindRow> = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for operation in placed {
        let kind = operation.group.split(' ').next().unwrap_or_default();
        let row = rows.entry((operation.place, kind)).or_insert_with(|| KindRow {
            place: operation.place,
            operation: kind.to_owned(),
            count: 0,
            online_bytes: 0,
            rounds: 0,
            preprocess_bytes: 0,
            setup_bytes: 0,
            products: 0,
        });
        row.count += 1;
        row.products += operation.clear_products;
        if let Some(cost) = costs.get(operation.group.as_str())
            && counted.insert(operation.group.as_str())
        {
            row.online_bytes += cost.online_bytes;
            row.rounds += cost.rounds;
            row.preprocess_bytes += cost.preprocess_bytes;
            row.setup_bytes += cost.setup_bytes;
            row.products += cost.ring_products;
        }
    }
    let mut rows: Vec<KindRow> = rows.into_values().collect();
    rows.sort_by_key(|row| {
        (row.place, std::cmp::Reverse(row.online_bytes + row.preprocess_bytes), std::cmp::Reverse(row.count))
    });
    rows
}
