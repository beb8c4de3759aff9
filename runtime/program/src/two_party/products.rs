//! Which matrix products of masks are made by homomorphic encryption, and which by gates.

use super::digits::private_bytes;
use super::effort::{Link, MULTIPLY_ADD_PS, NUMBER_PS, TRANSFER_PS, TRANSFORM_PS};
use super::matrix::batch;
use super::recipe::row_length;
use super::rlwe::{Cross, PairShape, WideShape, pair_key, wide_setup_bytes};
use crate::correlation::fields;
use crate::schema::{Instruction, SquareSum};
use crate::validate::ValidProgram;
use crate::value::Form;

/// Products below so many bytes of gates are not worth a key.
const GATES_BYTES: u64 = 1 << 19;
/// Coefficients of a ciphertext.
const DEGREE: u64 = 8192;

/// How the field of a matrix product is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Bit by bit, by oblivious transfer.
    Gates,
    /// The client's mask times a weight that it has encrypted since setup, `rows` of them.
    Wide { shape: WideShape, rows: usize },
    /// Both parties' masks, or a weight that is too thin for anything else.
    Pairs(PairShape),
}

/// How the field of instruction `at` is made, if it is a matrix product's or a sum of squares.
pub fn method(program: &ValidProgram, at: u32) -> Option<Method> {
    let p = match program.instruction(at as usize) {
        Instruction::MatMul(p) => p,
        Instruction::SquareSum(s) => return Some(square_sum(program, s)),
        _ => return None,
    };
    if fields(program, at as usize).is_empty() {
        return None;
    }
    let weighted = matches!(program.ty(p.b).form, Form::Weight { .. });
    let batch = batch(program, at, p.a, p.b);
    let (shape, count, width) = (batch.shape, batch.count, p.width);
    let work = (count * shape.n * shape.k * shape.m) as u64;
    let link = program.link();
    let sides = if weighted { 1 } else { 2 };
    let gates_bytes = sides * (count * shape.n * shape.k) as u64 * private_bytes(link, width, shape.m, width);
    if gates_bytes <= GATES_BYTES || shape.n == 0 {
        return Some(Method::Gates);
    }
    let cross = if weighted { Cross::Left } else { Cross::Both };
    let pair = PairShape::new(count, [shape.n, shape.k, shape.m], [width; 2], cross, link);
    if !weighted || count != 1 {
        return Some(Method::Pairs(pair));
    }
    let wide = WideShape { k: shape.k, m: shape.m, width };
    let limbs = wide.plan().modulus.limbs as u64;
    let wide_ps = link
        .bytes_ps(wide.message_bytes(shape.n) as u64)
        .saturating_add(work / shape.m.max(1) as u64 * (DEGREE + shape.m as u64) * limbs * MULTIPLY_ADD_PS);
    let half = pair.halves().next().map(|half| (half, half.plan()));
    let pair_ps = half.map_or(u64::MAX, |(half, plan)| {
        // Each request is multiplied by a transformed block of the plain side for each of its columns' blocks.
        let transforms = (half.k as u64).div_ceil(1 << plan.log_terms)
            * (half.columns as u64).div_ceil(plan.columns as u64)
            + half.results(&plan) as u64;
        link.bytes_ps(pair.request_bytes() + pair.reply_bytes())
            .saturating_add(limbs * (2 * work * MULTIPLY_ADD_PS + transforms * TRANSFORM_PS))
    });
    if pair_ps < wide_ps {
        return Some(Method::Pairs(pair));
    }
    Some(Method::Wide { shape: wide, rows: shape.n })
}

fn square_sum(program: &ValidProgram, s: &SquareSum) -> Method {
    let length = row_length(&program.ty(s.arg).shape);
    let rows = program.ty(s.arg).len() / length;
    encrypted_squares(program.link(), [rows, length], s.width).map_or(Method::Gates, Method::Pairs)
}

/// Rows of one party's mask times rows of the other's, few numbers that are encrypted densely, where that takes less time than
/// bit by bit.
pub fn encrypted_squares(link: Link, [rows, length]: [usize; 2], width: u32) -> Option<PairShape> {
    let elements = (rows * length) as u64;
    let gates_bytes = elements * private_bytes(link, width, 1, width);
    if gates_bytes <= GATES_BYTES {
        return None;
    }
    let transfers = elements * u64::from(width);
    let gates_ps =
        link.bytes_ps(gates_bytes).saturating_add(transfers.saturating_mul(TRANSFER_PS + NUMBER_PS));
    let pair = PairShape::new(rows, [1, length, 1], [width; 2], Cross::Left, link);
    let pair_ps = pair.halves().map(|half| half.cost(&half.plan())).fold(0, u64::saturating_add);
    // Few replies keep few cores busy, gates all of them.
    (gates_ps > pair_ps.saturating_mul(2)).then_some(pair)
}

/// Whether instruction `at` needs gates.
pub fn by_gates(program: &ValidProgram, at: u32) -> bool {
    matches!(method(program, at), None | Some(Method::Gates))
}

/// A product with a weight that the client has encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideProduct {
    /// The instruction.
    pub at: u32,
    /// The value that is the weight.
    pub weight: u32,
    pub shape: WideShape,
    pub rows: usize,
}

/// What a program's products by homomorphic encryption are, in order.
#[derive(Clone, Debug, Default)]
pub struct Encrypted {
    pub wide: Vec<WideProduct>,
    /// Instructions and their shapes.
    pub pairs: Vec<(u32, PairShape)>,
}

impl Encrypted {
    /// Of `program`.
    pub fn new(program: &ValidProgram) -> Encrypted {
        let mut all = Encrypted::default();
        for at in 0..program.len() as u32 {
            match (method(program, at), program.instruction(at as usize)) {
                (Some(Method::Wide { shape, rows }), Instruction::MatMul(p)) => {
                    all.wide.push(WideProduct { at, weight: p.b, shape, rows });
                }
                (Some(Method::Pairs(shape)), _) => all.pairs.push((at, shape)),
                _ => {}
            }
        }
        all
    }

    /// The shapes of the weights that the client gets encrypted.
    pub fn wide_shapes(&self) -> Vec<WideShape> {
        self.wide.iter().map(|wide| wide.shape).collect()
    }

    /// The shapes that the client's key serves.
    pub fn pair_shapes(&self) -> Vec<PairShape> {
        self.pairs.iter().map(|(_, shape)| *shape).collect()
    }

    /// Payload of setup from the server: its key and the encrypted weights.
    pub fn server_setup_bytes(&self) -> u64 {
        if self.wide.is_empty() { 0 } else { wide_setup_bytes(&self.wide_shapes()) }
    }

    /// Payload of setup from the client: its key.
    pub fn client_setup_bytes(&self) -> u64 {
        if self.pairs.is_empty() {
            return 0;
        }
        let (limbs, levels) = pair_key(&self.pair_shapes());
        super::rlwe::key_bytes(limbs, levels)
    }
}
