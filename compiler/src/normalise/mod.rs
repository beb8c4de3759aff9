//! Stage 2: one preferred form for what exporters spell in many ways.
//!
//! Precondition: a verified graph, no owners of computed values yet. Postcondition: the same function of the inputs
//! (up to f32 rounding; rows of attention that are masked entirely may differ), in which
//! - values known when compiling are constants, no value is computed twice, nothing is unused;
//! - layer norm, RMS norm, GELU, SiLU, rotary embedding and masked softmax are single operations;
//! - of a commutative operation's operands a constant is the second;
//! - attention scores are scaled by one factor, on the query's side.

mod activation;
mod attention;
mod duplicate;
mod fold;
mod identity;
mod interval;
mod linear;
mod mask;
mod movement;
mod norm;
mod pattern;
mod rotary;
mod scale;

use crate::diagnostic::Diagnostic;
use crate::ir::Graph;

/// Changes the graph for the better; whether it found anything to do.
type Pass = fn(&mut Graph) -> Result<bool, Diagnostic>;

const PASSES: &[Pass] = &[
    fold::fold_constants,
    identity::remove_identities,
    movement::merge_movements,
    duplicate::merge_duplicates,
    linear::normalise_linear,
    norm::recognise_norms,
    activation::recognise_activations,
    rotary::recognise_rotary,
    scale::merge_score_scales,
    attention::recognise_masked_softmax,
    attention::drop_nan_guards,
];

/// Far more than any pattern nests; a graph that still changes then is left as it is, which is correct.
const MAX_ITERATIONS: usize = 64;

/// Brings the graph into the preferred form. Shapes: those of the inputs and outputs do not change.
///
/// # Errors
/// If an operation on constants fails, such as a look-up beyond its table.
pub fn normalise(mut graph: Graph) -> Result<Graph, Diagnostic> {
    graph.remove_dead();
    for _ in 0..MAX_ITERATIONS {
        let mut changed = false;
        for pass in PASSES {
            changed |= pass(&mut graph)?;
            graph.remove_dead();
        }
        if !changed {
            break;
        }
    }
    graph.compact();
    Ok(graph)
}
