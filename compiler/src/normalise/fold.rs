//! Computes what depends on constants alone.

use super::pattern::{applied, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::{Constant, Graph, ValueId};
use marill_plaintext::{Op, OpError, evaluate};

/// Larger results stay operations, unless they only rearrange one constant, of which nothing need be read.
const MAX_FOLDED_ELEMENTS: usize = 4 << 20;

pub(super) fn fold_constants(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        if let Some((name, constant)) = rearranged(graph, id) {
            let new = graph.add_constant(name, constant);
            changed |= substitute(graph, id, new);
        } else if let Some(constant) =
            folded(graph, id).map_err(|error| Diagnostic::new(graph.node(id).name.clone(), error))?
        {
            let new = graph.add_constant(graph.node(id).name.clone(), constant);
            changed |= substitute(graph, id, new);
        }
    }
    Ok(changed)
}

/// One constant in another shape or order, left where it is, under its own name: it is the same weight.
fn rearranged(graph: &Graph, id: ValueId) -> Option<(String, Constant)> {
    let from = graph.arg(id, 0)?;
    let constant = graph.constant(from)?;
    let rearranged = match graph.op(id)? {
        Op::Reshape { shape } => constant.reshaped(shape.clone()),
        Op::Transpose { perm } => constant.transposed(perm),
        _ => None,
    };
    Some((graph.node(from).name.clone(), rearranged?))
}

fn folded(graph: &Graph, id: ValueId) -> Result<Option<Constant>, OpError> {
    let (Some(op), args) = (graph.op(id), graph.args(id)) else { return Ok(None) };
    let constants: Vec<&Constant> = args.iter().filter_map(|&arg| graph.constant(arg)).collect();
    if constants.len() != args.len() || !constants.iter().all(|constant| constant.is_present()) {
        return Ok(None);
    }
    if graph.ty(id).len() > MAX_FOLDED_ELEMENTS {
        return Ok(None);
    }
    let loaded: Option<Vec<_>> = constants.iter().map(|constant| constant.load().ok()).collect();
    let Some(loaded) = loaded else { return Ok(None) };
    let operands: Vec<_> = loaded.iter().collect();
    evaluate(op, &operands).map(|tensor| Some(Constant::inline(tensor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::parse;

    #[test]
    fn a_rearranged_weight_keeps_its_name() {
        let text = r#"
            %0 = input "x" : f32[2,3]
            %1 = constant "h.0.weight" : f32[6] [1, 2, 3, 4, 5, 6]
            %2 = reshape{shape=[2,3]}(%1) : f32[2,3]
            %3 = transpose{perm=[1,0]}(%2) : f32[3,2]
            %4 = mat_mul(%0, %3) : f32[2,2]
            output "y" = %4 reveal=client
        "#;
        let mut graph = parse(text).unwrap();
        while fold_constants(&mut graph).unwrap() {
            graph.remove_dead();
        }
        let product = graph.outputs[0].value;
        let weight = graph.arg(product, 1).unwrap();
        assert_eq!(graph.node(weight).name, "h.0.weight");
        assert_eq!(
            graph.constant(weight).unwrap().load().unwrap().to_f32_vec().unwrap(),
            [1., 4., 2., 5., 3., 6.]
        );
    }
}
