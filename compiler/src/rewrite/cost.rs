//! What each operation is expected to cost in seconds, from bytes, rounds and ring operations, by who knows what.
//!
//! An estimate to choose between forms of one program; what a program does cost is counted by `marill-program`.
//! A masked value is opened once however many operations use it, so openings are costs of the value, not of its uses.

use super::analysis::Fact;
use crate::approximation::{self, Approximate, Series};
use crate::ir::Owner;
use marill_plaintext::{Op, Receiver, TensorType};
use marill_program::Suite;
use marill_program::network::Network;

/// Bits of an element opened towards a party that knows the other operand.
const ONE_WAY_BITS: f64 = 50.0;
/// Bits of an element of a matrix product's operand that is opened both ways, in each direction.
const MATRIX_OPEN_BITS: f64 = 36.0;
/// Bits of an element of an element-wise product's operand that is opened both ways, in each direction.
const ELEMENT_OPEN_BITS: f64 = 22.0;
/// Bits of an element that is opened both ways so that public linear work can be done under its mask, in each direction.
const WIDE_OPEN_BITS: f64 = 56.0;
/// Bits of an element of an output.
const REVEAL_BITS: f64 = 26.0;
/// Bits of preprocessing for each element of a product's result.
const PRODUCT_BITS: f64 = 50.0;
/// How much of a round trip an opening takes; many share one.
const OPENING_ROUNDS: f64 = 0.5;
/// Bits that the server sends at setup for each element of a private matrix; a session is one run.
const SETUP_BITS: f64 = 50.0;
/// One multiplication and addition in the ring.
const RING_PRODUCT_S: f64 = crate::machine::PRODUCT_S;
/// One addition or copy of an element.
const RING_MOVE_S: f64 = 2e-10;
/// Bytes per element of rescaling after a product with a public number: some of these are followed by an extension.
const RESCALE_BYTES: f64 = 0.1;
/// Bytes per element of the operand that a mean takes: its ring must hold the sum, and the quotient's fraction.
const MEAN_BYTES: f64 = 12.0;
/// Starting any operation on shares.
const SHARED_OP_S: f64 = 1e-6;
/// An operation in the clear, on constants or by one party: next to nothing, but fewer are better.
const CLEAR_OP_S: f64 = 1e-9;
/// Bytes per result element and row of the table for a private look-up.
const LOOKUP_BITS: f64 = 40.0;

/// Bytes per element, both ways, and rounds of the operations that need interaction of their own.
fn interactive(op: &Op) -> Option<(f64, f64)> {
    Some(match op {
        // Centring in the ring takes ten bits of every hidden state, and with them openings that would not be needed.
        Op::LayerNorm { .. } => (18.0, 7.0),
        Op::RmsNorm { .. } => (10.0, 5.0),
        Op::Softmax { .. } | Op::AttentionSoftmax => (14.0, 15.0),
        Op::Relu | Op::Abs | Op::Clip { .. } | Op::Max | Op::Min => (6.0, 3.0),
        Op::Equal | Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => (4.0, 2.0),
        Op::And | Op::Or => (1.0, 1.0),
        Op::Where => (4.0, 1.0),
        Op::Sin | Op::Cos => (4.0, 1.0),
        Op::Div | Op::Pow | Op::Log => (24.0, 8.0),
        Op::Sqrt | Op::Reciprocal | Op::Rsqrt => (20.0, 6.0),
        Op::Exp | Op::Erf | Op::Tanh | Op::Sigmoid | Op::Floor | Op::Cast { .. } => (12.0, 3.0),
        Op::ReduceMax { .. } | Op::ArgMax { .. } => (12.0, 8.0),
        _ => return None,
    })
}

/// What costs depend on beside the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostModel {
    /// The network between the parties.
    pub network: Network,
    /// Who makes the correlations.
    pub suite: Suite,
    /// What activations may become.
    pub approximate: Approximate,
    /// Largest magnitude of their arguments.
    pub activation_bound: f64,
}

impl Default for CostModel {
    /// That of [`crate::Request::default`].
    fn default() -> CostModel {
        crate::Request::default().cost_model()
    }
}

/// How a masked value is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Opening {
    /// To the party that knows the other operand.
    OneWay,
    /// To both, as an operand of element-wise products.
    Elements,
    /// To both, as an operand of matrix products.
    Matrix,
}

/// Cost of one operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpCost {
    /// Time of the operation itself.
    pub own_s: f64,
    /// Operands that must be opened.
    pub openings: Vec<(usize, Opening)>,
}

impl CostModel {
    fn bytes_s(&self, bytes: f64) -> f64 {
        8.0 * bytes / self.network.bandwidth_bits_per_second
    }

    /// Time of opening a value.
    pub fn opening_s(&self, ty: &TensorType, opening: Opening) -> f64 {
        let bits = match opening {
            Opening::OneWay => ONE_WAY_BITS,
            Opening::Elements => 2.0 * ELEMENT_OPEN_BITS,
            Opening::Matrix => 2.0 * MATRIX_OPEN_BITS,
        };
        self.bytes_s(ty.len() as f64 * bits / 8.0) + OPENING_ROUNDS * self.network.rtt_seconds
    }

    /// The cheapest series for `elements` elements of an activation.
    pub fn series(&self, op: &Op, elements: usize) -> Option<Series> {
        approximation::cheapest(op, elements, self.activation_bound, self.network, self.approximate)
    }

    /// Time of opening a value for work under its mask, however many results of that are used.
    pub fn wide_opening_s(&self, ty: &TensorType) -> f64 {
        self.bytes_s(ty.len() as f64 * 2.0 * WIDE_OPEN_BITS / 8.0) + OPENING_ROUNDS * self.network.rtt_seconds
    }

    /// Time of `op` on operands of which `operands` is known, with a result of type `result`; openings apart.
    pub fn of(&self, op: &Op, operands: &[&Fact], result: &TensorType) -> OpCost {
        let owner = operands.iter().map(|fact| fact.owner).fold(Owner::Public, Owner::join);
        if let Op::Reveal { to } = op {
            let receivers = if *to == Receiver::Both { 2.0 } else { 1.0 };
            let bytes = result.len() as f64 * REVEAL_BITS / 8.0 * receivers;
            return OpCost { own_s: SHARED_OP_S + self.bytes_s(bytes), openings: Vec::new() };
        }
        if owner != Owner::Shared {
            return OpCost { own_s: CLEAR_OP_S, openings: Vec::new() };
        }
        let elements = result.len() as f64;
        let moved_s = SHARED_OP_S + elements * RING_MOVE_S;
        match op {
            Op::ReduceMean { .. } => {
                let bytes = operands[0].ty.len() as f64 * MEAN_BYTES;
                OpCost {
                    own_s: moved_s + self.bytes_s(bytes) + self.network.rtt_seconds,
                    openings: Vec::new(),
                }
            }
            Op::MatMul | Op::Conv { .. } => self.product(op, operands, elements),
            Op::Mul => self.product(op, operands, elements),
            Op::LayerNorm { .. } | Op::RmsNorm { .. } if operands.len() > 1 => {
                // The gain is one more product, on a value that nothing else can use.
                let plain = self.interaction_s(op, elements);
                let gain =
                    self.opening_s(result, Opening::OneWay) + self.bytes_s(elements * PRODUCT_BITS / 8.0);
                OpCost { own_s: plain + gain + 2.0 * moved_s, openings: Vec::new() }
            }
            Op::Div if is_known(operands[1]) => self.product(op, operands, elements),
            Op::Gather { .. } | Op::GatherNd { .. } if operands[1].owner != Owner::Public => {
                let rows = operands[0].ty.shape.first().copied().unwrap_or(1) as f64;
                let looked_up = operands[1].ty.len() as f64;
                let own_s = self.bytes_s(looked_up * rows * LOOKUP_BITS / 8.0) + self.network.rtt_seconds;
                OpCost { own_s, openings: Vec::new() }
            }
            Op::Rotary => {
                OpCost { own_s: 2.0 * moved_s + self.bytes_s(elements * RESCALE_BYTES), openings: Vec::new() }
            }
            Op::Gelu { .. } | Op::Silu => {
                let series = self.series(op, result.len());
                let series_s = series.map_or(0.0, |series| series.seconds(result.len(), self.network));
                OpCost { own_s: moved_s + series_s, openings: vec![(0, Opening::Elements)] }
            }
            op if interactive(op).is_some() => {
                OpCost { own_s: self.interaction_s(op, elements), openings: Vec::new() }
            }
            _ => OpCost { own_s: moved_s, openings: Vec::new() },
        }
    }

    fn interaction_s(&self, op: &Op, elements: f64) -> f64 {
        let (bytes, rounds) = interactive(op).unwrap_or_default();
        SHARED_OP_S + self.bytes_s(elements * bytes) + rounds * self.network.rtt_seconds
    }

    /// `MatMul`, `Conv`, `Mul`, or `Div` by a value that one party knows.
    fn product(&self, op: &Op, operands: &[&Fact], elements: f64) -> OpCost {
        let is_elementwise = matches!(op, Op::Mul | Op::Div);
        let depth = match (op, operands[1].ty.shape.as_slice()) {
            (Op::MatMul, [.., k, _] | [k]) => *k as f64,
            (Op::Conv { .. }, [_, window @ ..]) => window.iter().product::<usize>() as f64,
            _ => 1.0,
        };
        let mut own_s = SHARED_OP_S + elements * depth * RING_PRODUCT_S;
        let [left, right] = [operands[0], operands[1]];
        if left.owner == Owner::Public || right.owner == Owner::Public {
            own_s += elements * RING_MOVE_S + self.bytes_s(elements * RESCALE_BYTES);
            return OpCost { own_s, openings: Vec::new() };
        }
        own_s += self.bytes_s(elements * PRODUCT_BITS / 8.0);
        // The party that knows an operand needs the other one opened; a constant of the server's is opened at setup.
        let known = [is_known(left), is_known(right)];
        // A private factor that is no matrix on the right is opened under a mask like what it multiplies.
        let is_batched =
            !is_elementwise && (left.is_constant || right.is_constant && right.ty.shape.len() != 2);
        let openings = match known {
            [true, true] | [false, true] if !is_batched && (right.owner == Owner::Server || !known[0]) => {
                vec![(0, Opening::OneWay)]
            }
            [true, _] if !is_batched => vec![(1, Opening::OneWay)],
            _ if is_batched => vec![(0, Opening::Matrix), (1, Opening::Matrix)],
            _ => {
                let opening = if is_elementwise { Opening::Elements } else { Opening::Matrix };
                vec![(0, opening), (1, opening)]
            }
        };
        if let [(opened, Opening::OneWay)] = openings[..]
            && operands[1 - opened].is_constant
            && !is_elementwise
        {
            own_s += self.bytes_s(operands[1 - opened].ty.len() as f64 * SETUP_BITS / 8.0);
        }
        OpCost { own_s, openings }
    }
}

/// The operand whose opening serves for the result's: public linear work can be done under a mask.
pub fn under_mask(op: &Op, operands: &[&Fact], result: &Fact) -> Option<usize> {
    if result.owner != Owner::Shared {
        return None;
    }
    let is_public = |fact: &Fact| fact.is_constant && fact.owner == Owner::Public;
    let keeps_type = |fact: &Fact| fact.ty == result.ty;
    match (op, operands) {
        (Op::MatMul, [_, w]) if is_public(w) && w.ty.shape.len() == 2 => Some(0),
        (Op::Add | Op::Sub, [x, c]) if is_public(c) && keeps_type(x) => Some(0),
        (Op::Add, [c, x]) if is_public(c) && keeps_type(x) => Some(1),
        (Op::Mul, [x, a]) if a.scalar.is_some() && keeps_type(x) => Some(0),
        (Op::Mul, [a, x]) if a.scalar.is_some() && keeps_type(x) => Some(1),
        (Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. }, [_]) => Some(0),
        _ => None,
    }
}

/// Whether a party knows the value in the clear.
fn is_known(fact: &Fact) -> bool {
    fact.owner != Owner::Shared
}
