//! Functions that models are fine-tuned with in the place of others. These rules change what is computed, so they
//! apply only where the request asks for them.

use super::{Expr, Site, apply};
use marill_plaintext::Op;

/// `x^2 / 8 + x / 4 + 1 / 2` for GELU (MPCFormer, arXiv 2211.01452).
pub(super) fn quad_gelu(site: &Site<'_>) -> Vec<Expr> {
    let (Op::Gelu { .. }, &[x]) = (site.op, site.args) else { return Vec::new() };
    // The square stays within the bound of hidden values.
    let small = || apply(Op::Mul, [x.into(), Expr::Scalar(0.125f32.sqrt())]);
    let square = apply(Op::Mul, [small(), small()]);
    let line = apply(Op::Mul, [x.into(), Expr::Scalar(0.25)]);
    vec![apply(Op::Add, [apply(Op::Add, [square, line]), Expr::Scalar(0.5)])]
}
