//! Merges chains of data movement.

use super::pattern::{applied, apply, substitute};
use crate::diagnostic::Diagnostic;
use crate::ir::Graph;
use marill_plaintext::Op;

/// Merges reshapes of reshapes, transposes of transposes, and the two reshapes around a transpose where the second
/// only splits axes. Axes of length 1 take no part in transposes of reshaped values; casts come after reshapes.
pub(super) fn merge_movements(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let (Some(op), Some(inner)) = (graph.op(id).cloned(), graph.arg(id, 0)) else { continue };
        let (Some(inner_op), Some(x)) = (graph.op(inner).cloned(), graph.arg(inner, 0)) else { continue };
        let merged = match (&op, &inner_op) {
            (Op::Reshape { shape }, Op::Reshape { .. }) => Some((Op::Reshape { shape: shape.clone() }, x)),
            (Op::Reshape { shape }, Op::Cast { .. }) => {
                let reshaped = apply(graph, Op::Reshape { shape: shape.clone() }, &[x], inner)?;
                Some((inner_op.clone(), reshaped))
            }
            (Op::Transpose { perm }, Op::Reshape { shape: before }) => {
                let (shape, perm) = with_units_in_place(before, perm);
                if shape == *before {
                    continue;
                }
                let reshaped = apply(graph, Op::Reshape { shape }, &[x], inner)?;
                Some((Op::Transpose { perm }, reshaped))
            }
            (Op::Transpose { perm: outer }, Op::Transpose { perm }) => {
                Some((Op::Transpose { perm: outer.iter().map(|&axis| perm[axis]).collect() }, x))
            }
            _ => None,
        };
        if let Some((op, x)) = merged {
            let new = apply(graph, op, &[x], id)?;
            changed |= substitute(graph, id, new);
        } else if let (Op::Reshape { shape: result }, Op::Transpose { perm }, Some(Op::Reshape { .. })) =
            (&op, &inner_op, graph.op(x))
            && !adds_inner_units(graph.shape(inner), result)
            && let Some((split, perm)) = split_first(graph.shape(x), perm, result)
        {
            let split = apply(graph, Op::Reshape { shape: split }, &[x], x)?;
            let new = apply(graph, Op::Transpose { perm }, &[split], id)?;
            changed |= substitute(graph, id, new);
        }
    }
    Ok(changed)
}

/// Whether a reshape only puts axes of length 1 between others, as before repeating heads.
fn adds_inner_units(from: &[usize], to: &[usize]) -> bool {
    let without_leading =
        |shape: &[usize]| shape.iter().copied().skip_while(|&dim| dim == 1).collect::<Vec<_>>();
    let without_all = |shape: &[usize]| shape.iter().copied().filter(|&dim| dim != 1).collect::<Vec<_>>();
    without_all(from) == without_all(to) && without_leading(from) != without_leading(to)
}

/// Moves axes of length 1 to where the transpose puts them, which leaves the result as it is.
fn with_units_in_place(shape: &[usize], perm: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut others = (0..shape.len()).filter(|&axis| shape[axis] != 1);
    let sources: Vec<usize> = perm
        .iter()
        .map(|&axis| if shape[axis] == 1 { axis } else { others.next().unwrap_or(axis) })
        .collect();
    let new_shape = sources.iter().map(|&axis| shape[axis]).collect();
    let new_perm =
        perm.iter().map(|axis| sources.iter().position(|source| source == axis).unwrap_or(*axis)).collect();
    (new_shape, new_perm)
}

/// Splits axes before instead of after a transpose: the shape to split `merged` into and the permutation that then
/// gives `result`, if `result` only splits the axes of the transposed.
fn split_first(merged: &[usize], perm: &[usize], result: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut runs = vec![Vec::new(); merged.len()];
    let mut next = 0;
    for &axis in perm {
        let mut product = 1;
        while next < result.len()
            && (product < merged[axis] || (product == merged[axis] && result[next] == 1))
        {
            product *= result[next];
            runs[axis].push(next);
            next += 1;
        }
        if product != merged[axis] {
            return None;
        }
    }
    let places: Vec<usize> = runs.concat();
    if next != result.len() {
        return None;
    }
    let split = places.iter().map(|&place| result[place]).collect();
    let mut inverse = vec![0; places.len()];
    for (axis, &place) in places.iter().enumerate() {
        inverse[place] = axis;
    }
    Some((split, inverse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_length_1_stay_where_they_end_up() {
        for (shape, perm, expected) in [
            (vec![16, 1, 4, 8], vec![1, 2, 3, 0], (vec![1, 16, 4, 8], vec![0, 2, 3, 1])),
            (vec![1, 16, 4, 8], vec![0, 2, 1, 3], (vec![1, 16, 4, 8], vec![0, 2, 1, 3])),
            (vec![2, 3], vec![1, 0], (vec![2, 3], vec![1, 0])),
        ] {
            assert_eq!(with_units_in_place(&shape, &perm), expected, "{shape:?} {perm:?}");
        }
    }

    #[test]
    fn splitting_before_a_transpose() {
        for (merged, perm, result, expected) in [
            (vec![4, 16, 8], vec![0, 2, 1], vec![1, 4, 8, 16], Some((vec![1, 4, 16, 8], vec![0, 1, 3, 2]))),
            (vec![8, 16, 8], vec![0, 2, 1], vec![2, 4, 8, 16], Some((vec![2, 4, 16, 8], vec![0, 1, 3, 2]))),
            (vec![3, 4], vec![1, 0], vec![2, 2, 3], Some((vec![3, 2, 2], vec![1, 2, 0]))),
            (vec![3, 4], vec![1, 0], vec![12], None),
            (vec![3, 4], vec![1, 0], vec![6, 2], None),
        ] {
            assert_eq!(split_first(&merged, &perm, &result), expected, "{merged:?} {perm:?} {result:?}");
        }
    }
}
