//! How every tensor of a program is held: by whom, in which ring, with how many fraction bits.

use std::collections::{BTreeMap, BTreeSet};

use marill_program::plan::arguments;
use marill_program::{Form, Owner, ValidProgram};
use serde::Serialize;

/// Who has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Both parties, in the clear.
    Both,
    /// The client, in the clear.
    Client,
    /// The server, in the clear.
    Server,
    /// Nobody: each party has a share.
    Shared,
}

impl Holder {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Holder::Both => "both",
            Holder::Client => "client",
            Holder::Server => "server",
            Holder::Shared => "shared",
        }
    }

    fn of(form: Form) -> Holder {
        match form {
            Form::Plain { owner, .. } | Form::Known { owner, .. } => match owner {
                Owner::Public => Holder::Both,
                Owner::Client => Holder::Client,
                Owner::Server => Holder::Server,
            },
            _ => Holder::Shared,
        }
    }
}

/// Fixed-point numbers: integers of a ring, over a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FixedPoint {
    /// Ring bits.
    pub width_bits: u32,
    /// Fraction bits.
    pub frac_bits: u32,
    /// Magnitudes that the ring holds are below this.
    pub below: f64,
}

/// The result of one graph node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorRow {
    /// The node's operation and name.
    pub group: String,
    /// Who has it.
    pub holder: Holder,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its own encoding; none in the clear.
    pub encoding: Option<FixedPoint>,
    /// The widest ring in which the node opened something under a mask.
    pub opened: Option<FixedPoint>,
}

/// One row for each graph node whose result something else uses, in program order.
pub fn tensor_rows(program: &ValidProgram) -> Vec<TensorRow> {
    let group_of = |at: usize| program.program().instructions[at].group;
    let mut used: BTreeSet<u32> = program.program().outputs.iter().map(|output| output.value).collect();
    for at in 0..program.len() {
        let others = arguments(program.instruction(at)).into_iter();
        used.extend(others.filter(|&arg| group_of(arg as usize) != group_of(at)));
    }
    let mut results: BTreeMap<u32, usize> = BTreeMap::new();
    let mut opened: BTreeMap<u32, FixedPoint> = BTreeMap::new();
    for at in 0..program.len() {
        let ty = program.ty(at as u32);
        if let (Form::Masked { .. }, Some(found)) = (ty.form, fixed_point(ty.form)) {
            let entry = opened.entry(group_of(at)).or_insert(found);
            if found.width_bits > entry.width_bits {
                *entry = found;
            }
        }
        if used.contains(&(at as u32)) {
            results.insert(group_of(at), at);
        }
    }
    let mut results: Vec<(u32, usize)> = results.into_iter().collect();
    results.sort_by_key(|&(_, at)| at);
    let row = |(group, at): (u32, usize)| {
        let ty = program.ty(at as u32);
        TensorRow {
            group: program.program().groups.get(group as usize).cloned().unwrap_or_default(),
            holder: Holder::of(ty.form),
            shape: ty.shape.clone(),
            encoding: fixed_point(ty.form),
            opened: opened.get(&group).copied(),
        }
    };
    results.into_iter().map(row).collect()
}

fn fixed_point(form: Form) -> Option<FixedPoint> {
    let (width_bits, frac_bits) = (form.width()?, form.frac()?);
    let below = (f64::from(width_bits) - 1.0 - f64::from(frac_bits)).exp2();
    Some(FixedPoint { width_bits, frac_bits, below })
}
