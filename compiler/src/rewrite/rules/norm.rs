//! Norms: gain and bias as operations of their own, so that they can move into what follows.

use super::{Expr, Site, apply};
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
