//! Selecting rows (a classifier's first token, a generator's last) before work that is done row by row.

use super::linear::linear_layer;
use super::{Expr, Site, apply};
use egg::Id;
use marill_plaintext::Op;

/// The axis and operand of a selection of rows: along an axis that is not the last, by constant indices. What is left
/// has two axes or more, as the operand of a linear layer has.
fn selection(site: &Site<'_>) -> Option<(usize, Id)> {
    let (axis, x) = match (site.op, site.args) {
        (Op::Gather { axis }, &[x, indices]) if site.is_constant(indices) => (*axis, x),
        (Op::Slice { axis, .. }, &[x]) => (*axis, x),
        _ => return None,
    };
    let keeps_rows = axis + 1 < site.shape(x).len() && site.shape(site.id).len() >= 2;
    (keeps_rows && !site.is_constant(x)).then_some((axis, x))
}

pub(super) fn select_first(site: &Site<'_>) -> Vec<Expr> {
    let Some((axis, whole)) = selection(site) else { return Vec::new() };
    let selected = |x: Id| {
        let mut args = vec![Expr::from(x)];
        args.extend(site.args[1..].iter().map(|&id| Expr::from(id)));
        Expr::Apply(site.op.clone(), args)
    };
    let rank = site.shape(whole).len();
    let operand = |id: Id| {
        let has_axis = site.shape(id).len() + axis >= rank;
        match site.ty(id) == site.ty(whole) {
            true => Some(selected(id)),
            false if !has_axis => Some(id.into()),
            false => None,
        }
    };
    let forms = site.forms(whole).filter_map(|form| match (form.op, form.args) {
        (Op::MatMul, _) => {
            let [x, w] = linear_layer(&form)?;
            Some(apply(Op::MatMul, [selected(x), w.into()]))
        }
        (
            Op::LayerNorm { .. }
            | Op::RmsNorm { .. }
            | Op::Gelu { .. }
            | Op::Silu
            | Op::Relu
            | Op::Tanh
            | Op::Neg,
            [x, affine @ ..],
        ) => {
            let mut args = vec![selected(*x)];
            args.extend(affine.iter().map(|&id| Expr::from(id)));
            Some(Expr::Apply(form.op.clone(), args))
        }
        (Op::Add | Op::Sub | Op::Mul | Op::Div, &[a, b]) => {
            Some(apply(form.op.clone(), [operand(a)?, operand(b)?]))
        }
        _ => None,
    });
    forms.collect()
}
