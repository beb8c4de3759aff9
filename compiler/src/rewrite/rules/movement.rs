//! Data movement: what cancels, and what a scale may pass.

use super::{Expr, Site, apply, scale};
use egg::Id;
use marill_plaintext::Op;

pub(super) fn identity(site: &Site<'_>) -> Vec<Expr> {
    let Some(&x) = site.args.first() else { return Vec::new() };
    let is_identity = site.ty(x) == site.ty(site.id)
        && match site.op {
            Op::Reshape { .. } | Op::Expand { .. } => true,
            Op::Transpose { perm } => perm.is_sorted(),
            Op::Slice { step, .. } => *step == 1,
            Op::Concat { .. } => site.args.len() == 1,
            _ => false,
        };
    if is_identity { vec![x.into()] } else { Vec::new() }
}

pub(super) fn reshape_reshape(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Reshape { .. }, &[inner]) = (site.op, site.args) else { return Vec::new() };
    let reshapes = site.forms(inner).filter(|form| matches!(form.op, Op::Reshape { .. }));
    reshapes.map(|form| apply(site.op.clone(), [form.args[0].into()])).collect()
}

pub(super) fn transpose_transpose(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Transpose { perm: outer }, &[inner]) = (site.op, site.args) else { return Vec::new() };
    let merged = site.forms(inner).filter_map(|form| match form.op {
        Op::Transpose { perm } => {
            let perm = outer.iter().map(|&axis| perm[axis]).collect();
            Some(apply(Op::Transpose { perm }, [form.args[0].into()]))
        }
        _ => None,
    });
    merged.collect()
}

/// Axis, first and one past the last index of a slice without gaps.
fn dense_slice(op: &Op) -> Option<(usize, i64, i64)> {
    match op {
        Op::Slice { axis, start, end, step: 1 } if start <= end => Some((*axis, *start, *end)),
        _ => None,
    }
}

pub(super) fn slice_slice(site: &Site<'_>) -> Vec<Expr> {
    let (Some((axis, start, end)), &[inner]) = (dense_slice(site.op), site.args) else { return Vec::new() };
    let merged = site.forms(inner).filter_map(|form| {
        let (_, offset, _) = dense_slice(form.op).filter(|&(inner_axis, ..)| inner_axis == axis)?;
        let op = Op::Slice { axis, start: offset + start, end: offset + end, step: 1 };
        Some(apply(op, [form.args[0].into()]))
    });
    merged.collect()
}

pub(super) fn slice_concat(site: &Site<'_>) -> Vec<Expr> {
    let (Some((axis, start, end)), &[joined]) = (dense_slice(site.op), site.args) else { return Vec::new() };
    let mut forms = Vec::new();
    for concat in site.forms(joined).filter(|form| form.op == &(Op::Concat { axis })) {
        let mut offset = 0;
        for &part in concat.args {
            let length = site.shape(part)[axis] as i64;
            if offset <= start && end <= offset + length && start < end {
                let op = Op::Slice { axis, start: start - offset, end: end - offset, step: 1 };
                forms.push(apply(op, [part.into()]));
                break;
            }
            offset += length;
        }
    }
    forms
}

/// The operands through which a factor passes: all must have it.
fn linear_operands<'a>(op: &Op, args: &'a [Id]) -> Option<&'a [Id]> {
    match op {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Expand { .. } => Some(args),
        Op::Tile { .. } | Op::Trilu { .. } | Op::Concat { .. } => Some(args),
        Op::Gather { .. } | Op::GatherNd { .. } | Op::Rotary => Some(&args[..1]),
        _ => None,
    }
}

pub(super) fn scale_below(site: &Site<'_>) -> Vec<Expr> {
    let Some((moved, a)) = site.scaled() else { return Vec::new() };
    let forms = site.forms(moved).filter_map(|form| {
        let linear = linear_operands(form.op, form.args)?.len();
        let args = form.args.iter().enumerate();
        let scaled =
            args.map(|(position, &x)| if position < linear { scale(x.into(), a) } else { Some(x.into()) });
        Some(Expr::Apply(form.op.clone(), scaled.collect::<Option<_>>()?))
    });
    forms.collect()
}

pub(super) fn scale_above(site: &Site<'_>) -> Vec<Expr> {
    let Some(linear) = linear_operands(site.op, site.args) else { return Vec::new() };
    let scalings = |id: Id| site.forms(id).filter_map(|form| form.scaled());
    let Some(&first) = linear.first() else { return Vec::new() };
    let mut forms = Vec::new();
    for (x, a) in scalings(first) {
        let mut args = vec![x];
        args.extend(linear[1..].iter().map_while(|&id| scalings(id).find(|&(_, b)| a == b).map(|(y, _)| y)));
        if args.len() == linear.len() {
            args.extend(&site.args[linear.len()..]);
            let moved = Expr::Apply(site.op.clone(), args.into_iter().map(Expr::from).collect());
            forms.extend(scale(moved, a));
        }
    }
    forms
}
