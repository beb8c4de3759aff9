//! What the processors have to do for preprocessing between the two parties.

use super::count::{Demand, whole_demand};
use super::products::Encrypted;
use crate::validate::ValidProgram;

/// Coefficients of a ciphertext.
const DEGREE: u64 = 8192;
/// Multiply-adds of one limb that a transform takes for each coefficient, about.
const TRANSFORM: u64 = 40;

/// Work of both parties together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Oblivious transfers.
    pub transfers: u64,
    /// Numbers that they carry.
    pub numbers: u64,
    /// Numbers that the leaves of digits' trees are expanded to.
    pub leaves: u64,
    /// Multiply-adds of one limb of encrypted products, transforms counted as such.
    pub multiply_adds: u64,
}

impl Work {
    /// Of a run of `program`.
    pub fn new(program: &ValidProgram) -> Work {
        let Demand { server_chooses, client_chooses, numbers, leaves, .. } = whole_demand(program);
        let encrypted = Encrypted::new(program);
        let wide = encrypted.wide.iter().map(|wide| {
            let (limbs, shape) = (wide.shape.plan().modulus.limbs as u64, wide.shape);
            (wide.rows * shape.k) as u64 * (DEGREE + shape.m as u64) * limbs
        });
        let halves = encrypted.pairs.iter().flat_map(|(_, shape)| shape.halves());
        let pairs = halves.map(|half| {
            let plan = half.plan();
            let (terms, columns) = (half.terms(&plan), half.columns.div_ceil(plan.columns));
            let rows = half.rows.div_ceil(plan.rows.max(1));
            let transforms = half.requests(&plan) + half.batch * terms * columns + 8 * half.results(&plan);
            let products = 2 * half.batch * terms * columns * rows;
            (transforms as u64 * TRANSFORM + products as u64) * DEGREE * plan.modulus.limbs as u64
        });
        Work {
            transfers: server_chooses + client_chooses,
            numbers,
            leaves: 2 * leaves,
            multiply_adds: wide.sum::<u64>() + pairs.sum::<u64>(),
        }
    }
}
