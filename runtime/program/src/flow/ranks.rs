//! Private weight matrices that are thin: a product through few columns tells everybody its rank.

use super::statement::Rank;
use crate::schema::{Instruction, Product};
use crate::validate::ValidProgram;
use crate::value::Form;

/// Products `x [d, r] [r, k]` of two private weights with `r` below `d` and `k`, with local work between them.
pub(super) fn ranks(program: &ValidProgram) -> Vec<Rank> {
    let mut found: Vec<Rank> = Vec::new();
    for at in 0..program.len() {
        let Some(second) = weighted(program, at) else { continue };
        let Some(first) = before(program, second.a) else { continue };
        let (left, right) = (&program.ty(first.1.b).shape, &program.ty(second.b).shape);
        let (&[d, r], &[rows, k]) = (left.as_slice(), right.as_slice()) else { continue };
        if r != rows || r >= d || r >= k {
            continue;
        }
        let layer = |at: usize| super::statement::layer(program, at);
        let rank = Rank {
            first: layer(first.0),
            second: layer(at),
            rows: d as u64,
            rank: r as u64,
            columns: k as u64,
            count: 1,
        };
        let same = |other: &&mut Rank| {
            (&other.first, &other.second) == (&rank.first, &rank.second)
                && (other.rows, other.rank, other.columns) == (rank.rows, rank.rank, rank.columns)
        };
        match found.iter_mut().find(same) {
            Some(other) => other.count += 1,
            None => found.push(rank),
        }
    }
    found
}

fn weighted(program: &ValidProgram, at: usize) -> Option<&Product> {
    match program.instruction(at) {
        Instruction::MatMul(p) if matches!(program.ty(p.b).form, Form::Weight { .. }) => Some(p),
        _ => None,
    }
}

/// The product with a weight whose result `value` is, but for its ring and place.
fn before(program: &ValidProgram, mut value: u32) -> Option<(usize, &Product)> {
    loop {
        value = match program.instruction(value as usize) {
            Instruction::Open(o) => o.arg,
            Instruction::Lift(l) => l.arg,
            Instruction::Truncate(t) => t.arg,
            Instruction::Scale(s) => s.arg,
            Instruction::Move(m) if m.args.len() == 1 => m.args[0],
            _ => return weighted(program, value as usize).map(|product| (value as usize, product)),
        };
    }
}
