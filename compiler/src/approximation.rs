//! MPC-friendly forms of activations, each with its error and what it costs: the cheapest that a request allows.
//!
//! A series of cosines costs correlations for each term. Over a window around 0 it takes few terms and, outside, two
//! tests and an opening more; over all of the bound it takes more terms and nothing else.

use std::fmt;

use marill_plaintext::Op;
use marill_program::Network;
use serde::Serialize;

/// How far activations may be from what the model says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Approximate {
    /// To within 2e-4, which fixed point hides.
    #[default]
    Exact,
    /// To within 4e-3, below what others in the field call exact.
    Balanced,
    /// GELU is `x^2 / 8 + x / 4 + 1 / 2` (MPCFormer's Quad): for models that were fine-tuned so. The rest is balanced.
    Quad,
}

impl Approximate {
    /// Largest error of a series.
    pub fn series_error(self) -> f64 {
        match self {
            Approximate::Exact => 2e-4,
            Approximate::Balanced | Approximate::Quad => 4e-3,
        }
    }

    /// Largest error of straight pieces, but for what few bits of slopes add.
    pub fn pieces_error(self) -> f64 {
        match self {
            Approximate::Exact => 2.8e-4,
            Approximate::Balanced | Approximate::Quad => 4.4e-3,
        }
    }
}

impl fmt::Display for Approximate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Approximate::Exact => "exact",
            Approximate::Balanced => "balanced",
            Approximate::Quad => "quad",
        })
    }
}

/// Where a series stands for the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Around 0; tests tell what lies outside.
    Window,
    /// Wherever the argument can be.
    Bound,
}

/// A series of cosines for half of GELU or SiLU, the other half being `x / 2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series {
    /// Where it holds.
    pub span: Span,
    /// Harmonics.
    pub terms: usize,
    /// Largest error there.
    pub error: f64,
}

/// Largest bound of an argument that a series spans.
pub const SPANNED_BOUND: f64 = 16.0;

const GELU: [Series; 6] = [
    Series { span: Span::Window, terms: 8, error: 2e-5 },
    Series { span: Span::Window, terms: 6, error: 4e-4 },
    Series { span: Span::Window, terms: 5, error: 3e-3 },
    Series { span: Span::Bound, terms: 20, error: 1.3e-4 },
    Series { span: Span::Bound, terms: 16, error: 1.5e-3 },
    Series { span: Span::Bound, terms: 14, error: 4e-3 },
];

const SILU: [Series; 6] = [
    Series { span: Span::Window, terms: 16, error: 1e-4 },
    Series { span: Span::Window, terms: 12, error: 1e-3 },
    Series { span: Span::Window, terms: 10, error: 4e-3 },
    Series { span: Span::Bound, terms: 16, error: 2e-4 },
    Series { span: Span::Bound, terms: 12, error: 1.6e-3 },
    Series { span: Span::Bound, terms: 11, error: 3e-3 },
];

/// Every series for `op`; none if it is no activation of two halves.
pub fn series(op: &Op) -> &'static [Series] {
    match op {
        Op::Gelu { .. } => &GELU,
        Op::Silu => &SILU,
        _ => &[],
    }
}

impl Series {
    /// Bits opened for an element in each direction, beside its argument.
    fn online_bits(&self) -> f64 {
        if self.span == Span::Window { 22.0 } else { 0.0 }
    }

    /// Bits of correlations for an element.
    fn preprocess_bits(&self) -> f64 {
        let terms = 2.0 * self.terms as f64;
        match self.span {
            // A unit vector for two truth tables, and two products of bits.
            Span::Window => 36.0 * terms + 256.0 + 260.0,
            // What comes out is not opened, so its ring is as wide as the next product needs.
            Span::Bound => 56.0 * terms,
        }
    }

    /// Seconds for `elements` elements, beside the argument's opening.
    pub fn seconds(&self, elements: usize, network: Network) -> f64 {
        let bits = elements as f64 * (self.online_bits() + self.preprocess_bits());
        let rounds = if self.span == Span::Window { 1.0 } else { 0.0 };
        bits / network.bandwidth_bits_per_second + rounds * network.rtt_seconds / 2.0
    }
}

/// The series for `elements` elements of `op`, arguments below `bound`, that takes the least time on `network`.
pub fn cheapest(
    op: &Op,
    elements: usize,
    bound: f64,
    network: Network,
    approximate: Approximate,
) -> Option<Series> {
    let fits = |series: &&Series| {
        series.error <= approximate.series_error() && (series.span == Span::Window || bound <= SPANNED_BOUND)
    };
    let seconds = |series: &Series| series.seconds(elements, network);
    series(op).iter().filter(fits).min_by(|a, b| seconds(a).total_cmp(&seconds(b))).copied()
}
