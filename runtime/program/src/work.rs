//! What the processors have to do: ring multiply-adds of matrix products, by process and phase. Everything else grows
//! with the bytes that [`crate::cost`] counts.

use serde::Serialize;

use crate::schema::Instruction;
use crate::validate::ValidProgram;
use crate::value::{Form, Owner};

/// Multiply-adds of each process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Products {
    pub client: u64,
    pub server: u64,
    pub dealer: u64,
}

impl Products {
    /// Of all three.
    pub fn total(&self) -> u64 {
        self.client + self.server + self.dealer
    }

    /// Of the one that has most.
    pub fn most(&self) -> u64 {
        self.client.max(self.server).max(self.dealer)
    }

    fn add(&mut self, other: &Products) {
        self.client += other.client;
        self.server += other.server;
        self.dealer += other.dealer;
    }
}

/// Matrix products of a run with the dealer suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    pub preprocess: Products,
    pub online: Products,
}

/// The work of a run of `program`.
pub fn work(program: &ValidProgram) -> Work {
    (0..program.len()).map(|at| instruction_work(program, at)).fold(Work::default(), |mut sum, work| {
        sum.preprocess.add(&work.preprocess);
        sum.online.add(&work.online);
        sum
    })
}

/// The work of one instruction.
pub fn instruction_work(program: &ValidProgram, at: usize) -> Work {
    let Instruction::MatMul(p) = program.instruction(at) else { return Work::default() };
    let inner = program.ty(p.a).shape.last().copied().unwrap_or(1);
    let products = (program.types()[at].len() * inner) as u64;
    let (before, during) = match (program.ty(p.a).form, program.ty(p.b).form) {
        // The client and the dealer multiply the client's mask, the server the masked value.
        (Form::Masked { .. }, Form::Weight { .. }) => ([1, 0, 1], [0, 1, 0]),
        // Each opened value times the mask of the other; the masks at the dealer.
        (Form::Masked { .. }, Form::Masked { .. }) => ([0, 0, 1], [2, 2, 0]),
        // Everybody multiplies its own mask, the dealer those of both.
        (Form::Masked { .. }, Form::Known { owner: Owner::Public, .. }) => ([1, 1, 2], [1, 1, 0]),
        _ => ([0, 0, 0], [1, 1, 0]),
    };
    let times = |[client, server, dealer]: [u64; 3]| Products {
        client: client * products,
        server: server * products,
        dealer: dealer * products,
    };
    Work { preprocess: times(before), online: times(during) }
}
