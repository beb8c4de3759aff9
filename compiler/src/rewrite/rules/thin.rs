//! Thin private products beside published ones, as adapters are: `x W + z B` with few columns in z. A product of such a
//! sum with another secret would open all of it. By itself, what is published can be had under a mask of x, and the
//! thin product can be taken last, on values as thin as z.

use super::linear::linear_layer;
use super::{Expr, Site, apply};
use egg::Id;
use marill_plaintext::Op;

use crate::ir::Owner;

/// How many times fewer columns z has than the product, at least.
const THIN: usize = 4;
/// Movements that are looked through.
const MAX_DEPTH: usize = 4;

/// `z B` with a thin private B.
fn thin_layer(site: &Site<'_>) -> Option<[Id; 2]> {
    let [z, b] = linear_layer(site)?;
    let &[depth, width] = site.shape(b) else { return None };
    (THIN * depth <= width && site.fact(b).owner == Owner::Server).then_some([z, b])
}

/// `z C` or `C z` with a private constant C of three axes or more, a thin layer for each head.
fn thin_heads(site: &Site<'_>) -> Option<[Id; 2]> {
    let (Op::MatMul, &[left, right]) = (site.op, site.args) else { return None };
    let is_heads =
        |c: Id| site.is_constant(c) && site.shape(c).len() >= 3 && site.fact(c).owner == Owner::Server;
    (is_heads(left) != is_heads(right)).then_some([left, right])
}

fn is_thin(site: &Site<'_>, id: Id, depth: usize) -> bool {
    !site.is_constant(id)
        && site.forms(id).any(|form| {
            let moved = match (form.op, form.args) {
                (Op::Slice { .. } | Op::Reshape { .. } | Op::Transpose { .. }, &[x]) => Some(x),
                _ => form.scaled().map(|(x, _)| x),
            };
            thin_layer(&form).is_some()
                || thin_heads(&form).is_some()
                || moved.is_some_and(|x| depth > 0 && is_thin(site, x, depth - 1))
        })
}

/// A constant for all heads at once, as an ordinary layer has.
fn is_matrix(site: &Site<'_>, id: Id) -> bool {
    site.is_constant(id) && site.shape(id).len() < 3
}

/// Sums of which one term is thin, and both are of the sum's type and not constant.
fn thin_sums(site: &Site<'_>, id: Id) -> Vec<[Id; 2]> {
    let sums = site.forms(id).filter_map(|form| match (form.op, form.args) {
        (Op::Add, &[a, b]) => Some([a, b]),
        _ => None,
    });
    let fits = |&[a, b]: &[Id; 2]| {
        let is_term = |x: Id| site.ty(x) == site.ty(id) && !site.is_constant(x);
        is_term(a) && is_term(b) && (is_thin(site, a, MAX_DEPTH) || is_thin(site, b, MAX_DEPTH))
    };
    sums.filter(fits).collect()
}

pub(super) fn move_thin_sum(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Slice { .. } | Op::Reshape { .. } | Op::Transpose { .. }, &[sum]) = (site.op, site.args) else {
        return Vec::new();
    };
    let moved = |x: Id| apply(site.op.clone(), [x.into()]);
    let sums = thin_sums(site, sum).into_iter();
    sums.map(|[a, b]| apply(Op::Add, [moved(a), moved(b)])).collect()
}

/// What splits a thin layer's columns into heads splits its matrix.
pub(super) fn heads_of_thin(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Transpose { perm }, &[split]) = (site.op, site.args) else { return Vec::new() };
    let is_keys = match perm[..] {
        [0, 2, 1, 3] => false,
        [0, 2, 3, 1] => true,
        _ => return Vec::new(),
    };
    let &[_, _, heads, size] = site.shape(split) else { return Vec::new() };
    let mut forms = Vec::new();
    for reshape in site.forms(split).filter(|form| matches!(form.op, Op::Reshape { .. })) {
        for [z, b] in reshape.forms(reshape.args[0]).filter_map(|form| thin_layer(&form)) {
            let &[batch, rows, depth] = site.shape(z) else { continue };
            if site.shape(split) != [batch, rows, heads, size] {
                continue;
            }
            let by_head = apply(Op::Reshape { shape: vec![depth, heads, size] }, [b.into()]);
            let z = apply(Op::Reshape { shape: vec![batch, 1, rows, depth] }, [z.into()]);
            forms.push(if is_keys {
                let c = apply(Op::Transpose { perm: vec![1, 2, 0] }, [by_head]);
                apply(Op::MatMul, [c, apply(Op::Transpose { perm: vec![0, 1, 3, 2] }, [z])])
            } else {
                apply(Op::MatMul, [z, apply(Op::Transpose { perm: vec![1, 0, 2] }, [by_head])])
            });
        }
    }
    forms
}

pub(super) fn product_of_thin_sum(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul, &[left, right]) = (site.op, site.args) else { return Vec::new() };
    if is_matrix(site, left) || is_matrix(site, right) {
        return Vec::new();
    }
    let product = |a: Id, b: Id| apply(Op::MatMul, [a.into(), b.into()]);
    let lefts = thin_sums(site, left).into_iter();
    let rights = thin_sums(site, right).into_iter();
    lefts
        .map(|[a, b]| apply(Op::Add, [product(a, right), product(b, right)]))
        .chain(rights.map(|[a, b]| apply(Op::Add, [product(left, a), product(left, b)])))
        .collect()
}

pub(super) fn thin_last(site: &Site<'_>) -> Vec<Expr> {
    let (Op::MatMul, &[left, right]) = (site.op, site.args) else { return Vec::new() };
    if is_matrix(site, left) || is_matrix(site, right) {
        return Vec::new();
    }
    let product = |a: Expr, b: Expr| apply(Op::MatMul, [a, b]);
    let lefts = site.forms(left).filter_map(|form| thin_heads(&form));
    let rights = site.forms(right).filter_map(|form| thin_heads(&form));
    lefts
        .map(|[z, c]| product(z.into(), product(c.into(), right.into())))
        .chain(rights.map(|[c, z]| product(product(left.into(), c.into()), z.into())))
        .collect()
}
