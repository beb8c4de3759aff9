//! How many fraction bits each kind of value gets, and how large it may become.
//!
//! Both are functions of the request and of shapes alone. The client holds the program, so a ring width that followed
//! a private weight's range would leak it; instead every role has a public bound, and the compiler checks the bounds
//! on sample inputs (see [`headroom`]), where the weights are at hand.

pub mod headroom;
pub mod tensors;

use marill_program::Suite;

use crate::request::Numerics;

/// Fraction bits and bounds by role.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// Weights.
    pub weight_frac: u32,
    /// What enters a product with a weight.
    pub linear_frac: u32,
    /// Hidden states between layers and what norms work on.
    pub hidden_frac: u32,
    /// Queries, keys, values, and scores as the exponential sees them.
    pub attention_frac: u32,
    /// Arguments of activations, and factors of element-wise products.
    pub activation_frac: u32,
    /// Probabilities and their unnormalised forms.
    pub probability_frac: u32,
    /// Outputs.
    pub output_frac: u32,
    /// Magnitudes of hidden states, outputs and whatever has no tighter bound.
    pub hidden_bound: f64,
    /// Magnitudes of activations' arguments.
    pub activation_bound: f64,
    /// Magnitudes of attention's values and of gates.
    pub value_bound: f64,
    /// Bits of the ring in which attention finds its rows' maxima, to within 1.
    pub score_bits: u32,
    /// Smallest variance that a norm tells from zero, as a power of two.
    pub least_variance_log2: i32,
}

impl Precision {
    /// The bits and bounds that `numerics` stands for. Two parties alone pay for every bit of what attention and
    /// activations work on, and for what is a little finer than their straight pieces are good, they do without.
    pub fn new(numerics: Numerics, suite: Suite) -> Precision {
        let Numerics { frac_bits: f, range_bits: r, hidden_bits } = numerics;
        let h = hidden_bits.max(r);
        let bound = |bits: u32| 2f64.powi(bits as i32);
        let spared = u32::from(suite == Suite::TwoParty);
        Precision {
            weight_frac: f,
            linear_frac: f,
            hidden_frac: (f + 2).saturating_sub(h.saturating_sub(7)),
            attention_frac: f.saturating_sub(2 + spared),
            activation_frac: f.saturating_sub(2 + spared),
            probability_frac: f.saturating_sub(2 * spared),
            output_frac: f,
            hidden_bound: bound(h),
            activation_bound: bound(r.saturating_sub(3)),
            value_bound: bound(r.saturating_sub(2)),
            score_bits: r + 1,
            least_variance_log2: -12,
        }
    }

    /// Largest magnitude of an attention score: what the maxima's ring holds, differences included.
    pub fn score_bound(&self) -> f64 {
        2f64.powi(self.score_bits as i32 - 2) - 4.0
    }

    /// Largest magnitude of a score where positions can be masked by a value that is not public: masked ones take
    /// the negative score bound, 16 below everything else.
    pub fn masked_score_bound(&self) -> f64 {
        self.score_bound() - 16.0
    }
}
