//! Norms: gain and bias as operations of their own, so that they can move into what follows; and centring, which can
//! move into what comes before, down to the weights: then a layer norm is an RMS norm, which needs narrower rings.

use super::linear::linear_layer;
use super::{Expr, Site, apply};
use egg::Id;
use marill_plaintext::Op;

pub(super) fn split_affine(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.args) {
        (Op::LayerNorm { .. }, &[x, gain, bias]) if !site.is_constant(x) => {
            let plain = apply(site.op.clone(), [x.into()]);
            vec![apply(Op::Add, [apply(Op::Mul, [plain, gain.into()]), bias.into()])]
        }
        (Op::RmsNorm { .. }, &[x, gain]) if !site.is_constant(x) => {
            let plain = apply(site.op.clone(), [x.into()]);
            vec![apply(Op::Mul, [plain, gain.into()])]
        }
        _ => Vec::new(),
    }
}

pub(super) fn centre_first(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.args) {
        (&Op::LayerNorm { epsilon }, &[x]) if !site.is_constant(x) => {
            vec![apply(Op::RmsNorm { epsilon }, [centred(site, x)])]
        }
        _ => Vec::new(),
    }
}

/// `x - mean(x)` along the last axis.
fn centred(site: &Site<'_>, x: Id) -> Expr {
    let axes = vec![site.shape(x).len() - 1];
    apply(Op::Sub, [x.into(), apply(Op::ReduceMean { axes, keepdims: true }, [x.into()])])
}

/// `x` if this is `x - mean(x)` along the last axis, and x is not constant.
fn centred_operand(site: &Site<'_>) -> Option<Id> {
    let (Op::Sub, &[x, mean]) = (site.op, site.args) else { return None };
    let is_mean = |form: Site<'_>| match (form.op, form.args) {
        (Op::ReduceMean { axes, keepdims: true }, &[y]) => {
            y == x && matches!(axes[..], [axis] if axis + 1 == site.shape(x).len())
        }
        _ => false,
    };
    (!site.is_constant(x) && site.forms(mean).any(is_mean)).then_some(x)
}

pub(super) fn centre_sum(site: &Site<'_>) -> Vec<Expr> {
    let Some(sum) = centred_operand(site) else { return Vec::new() };
    let spans = |id: Id| site.shape(id).last() == site.shape(sum).last();
    let sums = site.forms(sum).filter(|form| form.op == &Op::Add && form.args.iter().all(|&id| spans(id)));
    sums.map(|form| apply(Op::Add, [centred(site, form.args[0]), centred(site, form.args[1])])).collect()
}

pub(super) fn centre_product(site: &Site<'_>) -> Vec<Expr> {
    let Some(product) = centred_operand(site) else { return Vec::new() };
    let layers = site.forms(product).filter_map(|form| linear_layer(&form));
    layers.map(|[x, w]| apply(Op::MatMul, [x.into(), centred(site, w)])).collect()
}

pub(super) fn centre_rows(site: &Site<'_>) -> Vec<Expr> {
    let Some(rows) = centred_operand(site) else { return Vec::new() };
    let forms = site.forms(rows).filter_map(|form| match (form.op, form.args) {
        (Op::Gather { axis: 0 }, &[table, at]) if site.is_constant(table) && site.shape(table).len() == 2 => {
            Some(apply(form.op.clone(), [centred(site, table), at.into()]))
        }
        (Op::Reshape { .. }, &[x]) if site.shape(x).last() == site.shape(rows).last() => {
            Some(apply(form.op.clone(), [centred(site, x)]))
        }
        _ => None,
    });
    forms.collect()
}
