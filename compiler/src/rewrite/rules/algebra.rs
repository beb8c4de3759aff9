//! Element-wise arithmetic with constants.

use super::{Expr, Site, apply, product, scale, scale_constant};
use egg::Id;
use marill_plaintext::Op;

pub(super) fn mul_one(site: &Site<'_>) -> Vec<Expr> {
    site.scaled().filter(|&(_, a)| a == 1.0).map(|(x, _)| x.into()).into_iter().collect()
}

pub(super) fn add_zero(site: &Site<'_>) -> Vec<Expr> {
    let is_zero = |id: Id| site.scalar(id) == Some(0.0);
    let operand = match (site.op, site.args) {
        (Op::Add, &[x, c]) if is_zero(c) => Some(x),
        (Op::Add, &[c, x]) if is_zero(c) => Some(x),
        (Op::Sub, &[x, c]) if is_zero(c) => Some(x),
        _ => None,
    };
    operand.filter(|&x| site.ty(x) == site.ty(site.id)).map(Expr::from).into_iter().collect()
}

pub(super) fn merge_scales(site: &Site<'_>) -> Vec<Expr> {
    let Some((scaled, b)) = site.scaled() else { return Vec::new() };
    let inner = site.forms(scaled).filter_map(|form| form.scaled());
    inner.filter_map(|(x, a)| scale(x.into(), product(a, b))).collect()
}

pub(super) fn merge_gains(site: &Site<'_>) -> Vec<Expr> {
    merge_constants(site, Op::Mul)
}

pub(super) fn merge_biases(site: &Site<'_>) -> Vec<Expr> {
    merge_constants(site, Op::Add)
}

/// `op(op(x, c), d)` to `op(x, op(c, d))`; not for two scales, which have a rule of their own.
fn merge_constants(site: &Site<'_>, op: Op) -> Vec<Expr> {
    let mut forms = Vec::new();
    for [inner, d] in site.with_constant(&op) {
        for [x, c] in site.forms(inner).flat_map(|form| form.with_constant(&op)) {
            if op == Op::Mul && site.scalar(c).is_some() && site.scalar(d).is_some() {
                continue;
            }
            let merged = apply(op.clone(), [c.into(), d.into()]);
            forms.push(apply(op.clone(), [x.into(), merged]));
        }
    }
    forms
}

pub(super) fn neg_neg(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Neg, &[negated]) = (site.op, site.args) else { return Vec::new() };
    let inner = site.forms(negated).filter(|form| form.op == &Op::Neg);
    inner.map(|form| form.args[0].into()).collect()
}

pub(super) fn neg_scale(site: &Site<'_>) -> Vec<Expr> {
    if let (Op::Neg, &[scaled]) = (site.op, site.args) {
        let inner = site.forms(scaled).filter_map(|form| form.scaled());
        return inner.filter_map(|(x, a)| scale(x.into(), -a)).collect();
    }
    let Some((negated, a)) = site.scaled() else { return Vec::new() };
    let inner = site.forms(negated).filter(|form| form.op == &Op::Neg);
    inner.filter_map(|form| scale(form.args[0].into(), -a)).collect()
}

pub(super) fn sub_constant(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.args) {
        (Op::Sub, &[x, c]) if site.is_constant(c) && !site.is_constant(x) => {
            let negated = match site.scalar(c) {
                Some(0.0) => return Vec::new(),
                Some(a) if site.ty(x) == site.ty(site.id) => Expr::Scalar(-a),
                _ => apply(Op::Neg, [c.into()]),
            };
            vec![apply(Op::Add, [x.into(), negated])]
        }
        _ => Vec::new(),
    }
}

pub(super) fn div_scalar(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.args) {
        (Op::Div, &[x, a]) if !site.is_constant(x) && site.ty(x) == site.ty(site.id) => {
            let factor = site.scalar(a).map(|a| (1.0 / f64::from(a)) as f32);
            factor.and_then(|factor| scale(x.into(), factor)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn div_constant(site: &Site<'_>) -> Vec<Expr> {
    match (site.op, site.args) {
        (Op::Div, &[x, c]) if !site.is_constant(x) && site.is_constant(c) && site.scalar(c).is_none() => {
            vec![apply(Op::Mul, [x.into(), apply(Op::Reciprocal, [c.into()])])]
        }
        _ => Vec::new(),
    }
}

pub(super) fn scale_sum(site: &Site<'_>) -> Vec<Expr> {
    let Some((sum, a)) = site.scaled() else { return Vec::new() };
    let sums = site.forms(sum).flat_map(|form| form.with_constant(&Op::Add));
    sums.filter_map(|[x, c]| Some(apply(Op::Add, [scale(x.into(), a)?, scale_constant(site, c, a)?])))
        .collect()
}

pub(super) fn gain_sum(site: &Site<'_>) -> Vec<Expr> {
    let mut forms = Vec::new();
    for [sum, d] in site.with_constant(&Op::Mul) {
        if site.scalar(d).is_some() {
            continue;
        }
        for [x, c] in site.forms(sum).flat_map(|form| form.with_constant(&Op::Add)) {
            let gained = |value: Id| apply(Op::Mul, [value.into(), d.into()]);
            forms.push(apply(Op::Add, [gained(x), gained(c)]));
        }
    }
    forms
}
