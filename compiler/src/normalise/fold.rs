//! Computes what depends on constants alone.

use super::pattern::{applied, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Constant, Graph, ValueId};
use marill_plaintext::{Op, OpError, evaluate};

/// Larger results stay operations, unless they only rearrange one constant.
const MAX_FOLDED_ELEMENTS: usize = 4 << 20;

pub(super) fn fold_constants(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        if let Some(constant) =
            folded(graph, id).map_err(|error| Diagnostic::new(graph.node(id).name.clone(), error))?
        {
            let new = graph.add_constant(graph.node(id).name.clone(), constant);
            changed |= substitute(graph, id, new);
        }
    }
    Ok(changed)
}

fn folded(graph: &Graph, id: ValueId) -> Result<Option<Constant>, OpError> {
    let (Some(op), args) = (graph.op(id), graph.args(id)) else { return Ok(None) };
    let constants: Vec<&Constant> = args.iter().filter_map(|&arg| graph.constant(arg)).collect();
    if constants.len() != args.len() || !constants.iter().all(|constant| constant.is_present()) {
        return Ok(None);
    }
    if let (Op::Reshape { shape }, [constant]) = (op, constants.as_slice()) {
        return Ok(constant.reshaped(shape.clone()));
    }
    if graph.ty(id).len() > MAX_FOLDED_ELEMENTS && !matches!(op, Op::Transpose { .. }) {
        return Ok(None);
    }
    let loaded: Option<Vec<_>> = constants.iter().map(|constant| constant.load().ok()).collect();
    let Some(loaded) = loaded else { return Ok(None) };
    let operands: Vec<_> = loaded.iter().collect();
    evaluate(op, &operands).map(|tensor| Some(Constant::inline(tensor)))
}
