//! What the user asks for.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use marill_plaintext::Op;
use marill_program::Suite;
use marill_program::network::Network;
use serde::Serialize;

use crate::approximation::Approximate;
use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Graph, Owner};
use crate::precision::Precision;
use crate::rewrite::cost::CostModel;

/// How values become integers. All of it is public: the client's program depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Numerics {
    /// Fraction bits of activations that enter products with weights, and of the weights.
    pub frac_bits: u32,
    /// What is computed of normed values, scores and outputs among it, is below 2^range_bits in magnitude; the other
    /// bounds follow.
    pub range_bits: u32,
    /// Hidden states are below 2^hidden_bits in magnitude, and below 2^range_bits if that is more.
    pub hidden_bits: u32,
}

impl Numerics {
    /// Fraction bits for which all rings fit and approximations hold.
    pub const FRAC_BITS: RangeInclusive<u32> = 8..=18;
    /// Range bits for which all rings fit.
    pub const RANGE_BITS: RangeInclusive<u32> = 4..=9;
    /// Hidden bits for which all rings fit.
    pub const HIDDEN_BITS: RangeInclusive<u32> = 4..=13;

    /// Checks all numbers.
    ///
    /// # Errors
    /// The one that is out of its range.
    pub fn validate(&self) -> Result<(), Diagnostic> {
        for (what, found, allowed) in [
            ("frac-bits", self.frac_bits, Numerics::FRAC_BITS),
            ("range-bits", self.range_bits, Numerics::RANGE_BITS),
            ("hidden-bits", self.hidden_bits, Numerics::HIDDEN_BITS),
        ] {
            if !allowed.contains(&found) {
                return Err(Diagnostic::new("", Problem::Numerics { what, found, allowed }));
            }
        }
        Ok(())
    }
}

impl Default for Numerics {
    fn default() -> Numerics {
        Numerics { frac_bits: 16, range_bits: 7, hidden_bits: 7 }
    }
}

/// Who learns an output, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reveal {
    /// The receiver; `Public` for both.
    pub to: Owner,
    /// Only the index of the largest element along the last axis is revealed, as output `NAME.argmax`.
    pub argmax: bool,
}

impl Default for Reveal {
    fn default() -> Reveal {
        Reveal { to: Owner::Client, argmax: false }
    }
}

/// Which weights everybody may know.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// The published model that this one was fine-tuned from.
    pub base: Option<PathBuf>,
    /// Patterns of names of weights that are private whatever the base model has. Without a base model and without
    /// `public`, all others that have a name of their own are public.
    pub private: Vec<String>,
    /// Patterns of names of weights that are public.
    pub public: Vec<String>,
    /// Largest relative error (Frobenius) of a difference's thin factors; 0 looks for none.
    pub rank_tolerance: f64,
}

impl Weights {
    /// What merging an adapter into f32 weights leaves is far below this.
    pub const RANK_TOLERANCE: f64 = 1e-4;
}

impl Default for Weights {
    fn default() -> Weights {
        Weights {
            base: None,
            private: Vec::new(),
            public: Vec::new(),
            rank_tolerance: Weights::RANK_TOLERANCE,
        }
    }
}

/// A compilation request, beside the model.
#[derive(Clone, Debug)]
pub struct Request {
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, usize>,
    /// Owners of inputs; an input that is not named is the client's.
    pub owners: BTreeMap<String, Owner>,
    /// Who learns each output; one that is not named goes to the client.
    pub reveals: BTreeMap<String, Reveal>,
    /// Which weights are published.
    pub weights: Weights,
    /// How values become integers.
    pub numerics: Numerics,
    /// The network that the e-graph chooses for.
    pub network: Network,
    /// Who makes the correlations that the program is chosen for. It runs with either suite.
    pub suite: Suite,
    /// How far activations may be from what the model says.
    pub approximate: Approximate,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            dims: BTreeMap::new(),
            owners: BTreeMap::new(),
            reveals: BTreeMap::new(),
            weights: Weights::default(),
            numerics: Numerics::default(),
            network: Network::LAN,
            suite: Suite::default(),
            approximate: Approximate::default(),
        }
    }
}

impl Request {
    /// What costs depend on beside the graph.
    pub fn cost_model(&self) -> CostModel {
        CostModel {
            network: self.network,
            suite: self.suite,
            approximate: self.approximate,
            activation_bound: Precision::new(self.numerics, self.suite).activation_bound,
        }
    }

    /// `graph` with each output's receiver as requested.
    ///
    /// # Errors
    /// If an output is named that the graph does not have, or the largest element of one is asked for that has no
    /// last axis of numbers.
    pub fn with_reveals(&self, mut graph: Graph) -> Result<Graph, Diagnostic> {
        for name in self.reveals.keys() {
            if !graph.outputs.iter().any(|o| o.name == *name) {
                let outputs = graph.outputs.iter().map(|o| o.name.clone()).collect();
                return Err(Diagnostic::new(name, Problem::UnknownOutput { outputs }));
            }
        }
        for at in 0..graph.outputs.len() {
            let name = graph.outputs[at].name.clone();
            let reveal = self.reveals.get(&name).copied().unwrap_or_default();
            graph.outputs[at].reveal_to = reveal.to;
            if reveal.argmax {
                let value = graph.outputs[at].value;
                let axis = graph.shape(value).len().saturating_sub(1);
                let name = format!("{name}.argmax");
                let index = graph.apply(Op::ArgMax { axis, keepdims: false }, &[value], name.as_str());
                graph.outputs[at].value = index.map_err(|error| Diagnostic::new(&name, error))?;
                graph.outputs[at].name = name;
            }
        }
        Ok(graph)
    }
}
