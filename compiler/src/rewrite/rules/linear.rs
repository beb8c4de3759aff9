//! Matrix products: what folds into a constant matrix.

use super::{Expr, Site, apply, scale, scale_constant};
use egg::Id;
use marill_plaintext::Op;

/// `[x, W]` if this is `x W` with a constant matrix `W` of two axes and `x` of at least two, not constant.
pub(super) fn linear_layer(site: &Site<'_>) -> Option<[Id; 2]> {
    match (site.op, site.args) {
        (Op::MatMul, &[x, w]) => {
            let fits = site.shape(x).len() >= 2 && site.shape(w).len() == 2;
            (fits && site.is_constant(w) && !site.is_constant(x)).then_some([x, w])
        }
        _ => None,
    }
}

/// Whether the value has one element per column: its last axis is `width`, its others 1.
fn is_row(site: &Site<'_>, id: Id, width: usize) -> bool {
    site.shape(id).last() == Some(&width) && site.ty(id).len() == width
}

fn reshaped(id: Id, shape: Vec<usize>) -> Expr {
    apply(Op::Reshape { shape }, [id.into()])
}

fn last_slice(site: &Site<'_>) -> Option<(Id, Op)> {
    match (site.op, site.args) {
        (Op::Slice { axis, .. }, &[x]) if axis + 1 == site.shape(x).len() => Some((x, site.op.clone())),
        _ => None,
    }
}

/// The same slice along another axis.
fn along(slice: &Op, axis: usize) -> Op {
    match *slice {
        Op::Slice { start, end, step, .. } => Op::Slice { axis, start, end, step },
        ref op => op.clone(),
    }
}

/// A factor goes into the constant if there is one, else to the left: in attention scores that is the query.
pub(super) fn scale_product(site: &Site<'_>) -> Vec<Expr> {
    let Some((product, a)) = site.scaled() else { return Vec::new() };
    let products = site.forms(product).filter(|form| form.op == &Op::MatMul);
    let forms = products.filter_map(|form| {
        let &[left, right] = form.args else { return None };
        if site.is_constant(right) {
            Some(apply(Op::MatMul, [left.into(), scale_constant(site, right, a)?]))
        } else {
            Some(apply(Op::MatMul, [scale(left.into(), a)?, right.into()]))
        }
    });
    forms.collect()
}

pub(super) fn scaled_operand(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul, &[left, right]) = (site.op, site.args) else { return Vec::new() };
    let scalings = |id: Id| site.forms(id).filter_map(|form| form.scaled());
    let lefts = scalings(left).filter_map(|(x, a)| scale(apply(Op::MatMul, [x.into(), right.into()]), a));
    let rights = scalings(right).filter_map(|(y, a)| scale(apply(Op::MatMul, [left.into(), y.into()]), a));
    lefts.chain(rights).collect()
}

pub(super) fn gain_into_product(site: &Site<'_>) -> Vec<Expr> {
    let Some([gained, w]) = linear_layer(site) else { return Vec::new() };
    let depth = site.shape(w)[0];
    let gains = site.forms(gained).flat_map(|form| form.with_constant(&Op::Mul));
    let forms = gains.filter_map(|[x, c]| {
        if !is_row(site, c, depth) || site.ty(x) != site.ty(gained) {
            return None;
        }
        let folded = apply(Op::Mul, [reshaped(c, vec![depth, 1]), w.into()]);
        Some(apply(Op::MatMul, [x.into(), folded]))
    });
    forms.collect()
}

pub(super) fn gain_after_product(site: &Site<'_>) -> Vec<Expr> {
    let mut forms = Vec::new();
    for [product, c] in site.with_constant(&Op::Mul) {
        for [x, w] in site.forms(product).filter_map(|form| linear_layer(&form)) {
            let width = site.shape(w)[1];
            if site.scalar(c).is_none() && is_row(site, c, width) && site.ty(product) == site.ty(site.id) {
                let folded = apply(Op::Mul, [w.into(), reshaped(c, vec![width])]);
                forms.push(apply(Op::MatMul, [x.into(), folded]));
            }
        }
    }
    forms
}

pub(super) fn bias_through_product(site: &Site<'_>) -> Vec<Expr> {
    let Some([sum, w]) = linear_layer(site) else { return Vec::new() };
    let depth = site.shape(w)[0];
    let sums = site.forms(sum).flat_map(|form| form.with_constant(&Op::Add));
    let forms = sums.filter_map(|[x, c]| {
        if !is_row(site, c, depth) || site.ty(x) != site.ty(sum) {
            return None;
        }
        let bias = apply(Op::MatMul, [reshaped(c, vec![depth]), w.into()]);
        Some(apply(Op::Add, [apply(Op::MatMul, [x.into(), w.into()]), bias]))
    });
    forms.collect()
}

pub(super) fn slice_sum(site: &Site<'_>) -> Vec<Expr> {
    let Some((sum, slice)) = last_slice(site) else { return Vec::new() };
    let Some(&width) = site.shape(sum).last() else { return Vec::new() };
    let sums = site.forms(sum).flat_map(|form| form.with_constant(&Op::Add));
    let forms = sums.filter_map(|[x, c]| {
        if !is_row(site, c, width) || site.ty(x) != site.ty(sum) {
            return None;
        }
        let part = apply(along(&slice, 0), [reshaped(c, vec![width])]);
        Some(apply(Op::Add, [apply(slice.clone(), [x.into()]), part]))
    });
    forms.collect()
}

pub(super) fn slice_product(site: &Site<'_>) -> Vec<Expr> {
    let Some((product, slice)) = last_slice(site) else { return Vec::new() };
    let layers = site.forms(product).filter_map(|form| linear_layer(&form));
    layers.map(|[x, w]| apply(Op::MatMul, [x.into(), apply(along(&slice, 1), [w.into()])])).collect()
}

pub(super) fn associate(site: &Site<'_>) -> Vec<Expr> {
    let Some([product, v]) = linear_layer(site) else { return Vec::new() };
    let layers = site.forms(product).filter_map(|form| linear_layer(&form));
    layers.map(|[x, w]| apply(Op::MatMul, [x.into(), apply(Op::MatMul, [w.into(), v.into()])])).collect()
}

pub(super) fn dissociate(site: &Site<'_>) -> Vec<Expr> {
    let Some([x, product]) = linear_layer(site) else { return Vec::new() };
    let factors = site.forms(product).filter(|form| form.op == &Op::MatMul);
    let fits = |form: &Site<'_>| form.args.iter().all(|&id| site.shape(id).len() == 2);
    let forms = factors.filter(fits).map(|form| {
        let inner = apply(Op::MatMul, [x.into(), form.args[0].into()]);
        apply(Op::MatMul, [inner, form.args[1].into()])
    });
    forms.collect()
}

/// Where the terms have different owners: the product with the published one needs no opening.
pub(super) fn split_sum(site: &Site<'_>) -> Vec<Expr> {
    let Some([x, sum]) = linear_layer(site) else { return Vec::new() };
    let sums = site.forms(sum).filter(|form| form.op == &Op::Add);
    let forms = sums.filter_map(|form| {
        let &[w, v] = form.args else { return None };
        let same_type = site.ty(w) == site.ty(sum) && site.ty(v) == site.ty(sum);
        if !same_type || site.fact(w).owner == site.fact(v).owner {
            return None;
        }
        let product = |w: Id| apply(Op::MatMul, [x.into(), w.into()]);
        Some(apply(Op::Add, [product(w), product(v)]))
    });
    forms.collect()
}

pub(super) fn merge_products(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Add, &[left, right]) = (site.op, site.args) else { return Vec::new() };
    let layers = |id: Id| site.forms(id).filter_map(|form| linear_layer(&form));
    let mut forms = Vec::new();
    for [x, w] in layers(left) {
        for [y, v] in layers(right) {
            if x == y && site.ty(w) == site.ty(v) {
                let merged = apply(Op::Add, [w.into(), v.into()]);
                forms.push(apply(Op::MatMul, [x.into(), merged]));
            }
        }
    }
    forms
}
