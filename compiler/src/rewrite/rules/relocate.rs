//! What leaves the protocol.

use super::{Expr, Site, apply};
use egg::Id;
use marill_plaintext::Op;

use crate::ir::Owner;

/// The receiver can compute a public function itself. It learns the function's argument, which must be nothing more
/// than the result tells: the function is injective, by its form or by a certificate for its constant.
pub(super) fn reveal_earlier(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Reveal { .. }, &[revealed]) = (site.op, site.args) else { return Vec::new() };
    let reveal = |x: Id| apply(site.op.clone(), [x.into()]);
    let is_public = |c: Id| site.is_constant(c) && site.fact(c).owner == Owner::Public;
    let mut forms = Vec::new();
    for form in site.forms(revealed) {
        let keeps_type = |x: Id| site.ty(x) == site.ty(revealed) && !site.is_constant(x);
        match (form.op, form.args) {
            (Op::MatMul, &[x, w]) if !site.is_constant(x) && is_public(w) && site.fact(w).is_injective => {
                forms.push(apply(Op::MatMul, [reveal(x), w.into()]));
            }
            (Op::Add | Op::Sub, &[x, c]) if keeps_type(x) && is_public(c) => {
                forms.push(apply(form.op.clone(), [reveal(x), c.into()]));
            }
            (Op::Add, &[c, x]) if keeps_type(x) && is_public(c) => {
                forms.push(apply(Op::Add, [reveal(x), c.into()]));
            }
            (Op::Mul, &[a, b]) => {
                for [x, c] in [[a, b], [b, a]] {
                    let is_factor = site.fact(c).is_injective || site.scalar(c).is_some_and(f32::is_normal);
                    if keeps_type(x) && is_public(c) && is_factor {
                        forms.push(apply(Op::Mul, [reveal(x), c.into()]));
                    }
                }
            }
            (Op::Neg | Op::Reshape { .. } | Op::Transpose { .. }, &[x]) => {
                forms.push(apply(form.op.clone(), [reveal(x)]));
            }
            _ => {}
        }
    }
    forms
}
