//! The rules: equalities over the reals, each with a name and its side conditions.
//!
//! A rule looks at one operation and the forms that its operands are known to have, and names other forms of the same
//! value. It may look at types and owners of constants, and at the values of public scalars; never at the elements
//! of a constant, so that the program does not depend on them.

mod algebra;
mod linear;
mod movement;
mod norm;
mod quad;
mod relocate;
mod rows;
#[cfg(test)]
mod tests;
mod thin;

use egg::Id;
use marill_plaintext::{DType, Op, TensorType, infer};

use super::analysis::{Classes, Fact};
use super::language::{Head, Symbol, Term};

/// A form of a value, made of classes that are there and operations that may be new.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A value of the e-graph.
    Class(Id),
    /// A public scalar of shape `[]`.
    Scalar(f32),
    /// An operation.
    Apply(Op, Vec<Expr>),
}

/// A named equality: other forms of the value at a site.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Stable name for reports and tests.
    pub name: &'static str,
    /// The forms; none where the rule does not apply.
    pub forms: fn(&Site<'_>) -> Vec<Expr>,
}

const fn rule(name: &'static str, forms: fn(&Site<'_>) -> Vec<Expr>) -> Rule {
    Rule { name, forms }
}

/// Every rule. `x`, `y`: any value that is not constant; `c`, `d`, `W`, `V`: constants; `a`, `b`: public scalars.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    rule("mul-one",             algebra::mul_one),              // x * 1                    = x
    rule("add-zero",            algebra::add_zero),             // x + 0, x - 0             = x
    rule("merge-scales",        algebra::merge_scales),         // (x * a) * b              = x * (a b)
    rule("merge-gains",         algebra::merge_gains),          // (x * c) * d              = x * (c * d)
    rule("merge-biases",        algebra::merge_biases),         // (x + c) + d              = x + (c + d)
    rule("neg-neg",             algebra::neg_neg),              // -(-x)                    = x
    rule("neg-scale",           algebra::neg_scale),            // (-x) * a, -(x * a)       = x * (-a)
    rule("sub-constant",        algebra::sub_constant),         // x - c                    = x + (-c)
    rule("div-scalar",          algebra::div_scalar),           // x / a                    = x * (1 / a)
    rule("div-constant",        algebra::div_constant),         // x / c                    = x * (1 / c)
    rule("scale-sum",           algebra::scale_sum),            // (x + c) * a              = x * a + c * a
    rule("gain-sum",            algebra::gain_sum),             // (x + c) * d              = x * d + c * d
    rule("identity-movement",   movement::identity),            // reshape, transpose, ... that change nothing
    rule("reshape-reshape",     movement::reshape_reshape),     // reshape(reshape(x))      = reshape(x)
    rule("transpose-transpose", movement::transpose_transpose), // transpose(transpose(x))  = transpose(x)
    rule("slice-slice",         movement::slice_slice),         // slice(slice(x))          = slice(x)
    rule("slice-concat",        movement::slice_concat),        // slice(concat(.., x, ..)) = slice(x)
    rule("scale-down-movement", movement::scale_below),         // move(x) * a              = move(x * a)
    rule("scale-up-movement",   movement::scale_above),         // move(x * a)              = move(x) * a
    rule("norm-affine",         norm::split_affine),            // norm(x, c, d)            = norm(x) * c + d
    rule("norm-centre",         norm::centre_first),            // layer_norm(x)            = rms_norm(x - mean(x))
    rule("centre-sum",          norm::centre_sum),              // (x + y) - mean           = (x - mean) + (y - mean)
    rule("centre-product",      norm::centre_product),          // x W - mean               = x (W - mean), by rows
    rule("centre-rows",         norm::centre_rows),             // W[i] - mean, reshape(x) - mean = (W - mean)[i], reshape(x - mean)
    rule("scale-product",       linear::scale_product),         // (x y) * a                = (x * a) y, x W * a = x (W * a)
    rule("scaled-operand",      linear::scaled_operand),        // (x * a) W, x (y * a)     = (x W) * a, (x y) * a
    rule("gain-into-product",   linear::gain_into_product),     // (x * c) W                = x (c[:, None] * W)
    rule("gain-after-product",  linear::gain_after_product),    // (x W) * c                = x (W * c)
    rule("bias-through-product", linear::bias_through_product), // (x + c) W                = x W + c W
    rule("slice-sum",           linear::slice_sum),             // (x + c)[.., i..j]        = x[.., i..j] + c[i..j]
    rule("slice-product",       linear::slice_product),         // (x W)[.., i..j]          = x W[:, i..j]
    rule("product-of-products", linear::associate),             // (x W) V                  = x (W V)
    rule("split-product",       linear::dissociate),            // x (W V)                  = (x W) V
    rule("split-sum",           linear::split_sum),             // x (W + V)                = x W + x V, of different owners
    rule("move-thin-sum",       thin::move_thin_sum),           // move(x + z B)            = move(x) + move(z B), B thin, private
    rule("heads-of-thin",       thin::heads_of_thin),           // heads(z B)               = z heads(B)
    rule("product-of-thin-sum", thin::product_of_thin_sum),     // (x + z C) y              = x y + (z C) y
    rule("thin-last",           thin::thin_last),               // (z C) y, x (C z)         = z (C y), (x C) z
    rule("select-rows-first",   rows::select_first),            // f(x)[i, ..]              = f(x[i, ..]), f by rows
    rule("reveal-earlier",      relocate::reveal_earlier),      // reveal(f(x))             = f(reveal(x)), f public, injective
    rule("merge-products",      linear::merge_products),        // x W + x V                = x (W + V)
];

/// What is not equal, for requests that ask for it.
pub const QUAD_RULES: &[Rule] = &[
    rule("quad-gelu", quad::quad_gelu), // gelu(x) becomes x^2 / 8 + x / 4 + 1 / 2
];

/// One operation of a class, and the e-graph around it.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The e-graph, rebuilt.
    pub classes: &'a Classes,
    /// The class that the operation is a form of.
    pub id: Id,
    /// The operation.
    pub op: &'a Op,
    /// Classes of its operands.
    pub args: &'a [Id],
}

impl<'a> Site<'a> {
    /// What is known of a value.
    fn fact(&self, id: Id) -> &'a Fact {
        &self.classes[id].data
    }

    fn ty(&self, id: Id) -> &'a TensorType {
        &self.fact(id).ty
    }

    fn shape(&self, id: Id) -> &'a [usize] {
        &self.fact(id).ty.shape
    }

    fn is_constant(&self, id: Id) -> bool {
        self.fact(id).is_constant
    }

    /// The value of a public f32 of one element, if it can be computed with.
    fn scalar(&self, id: Id) -> Option<f32> {
        self.fact(id).scalar.filter(|value| value.is_finite())
    }

    /// The operations that a value is known to be the result of, but for those on the value itself (`x * 1`): they
    /// would let constants grow without end.
    fn forms(&self, id: Id) -> impl Iterator<Item = Site<'a>> {
        let (classes, id) = (self.classes, self.classes.find(id));
        classes[id]
            .nodes
            .iter()
            .filter(move |term| !term.operands.contains(&id))
            .filter_map(move |term| Some(Site { classes, id, op: term.op()?, args: &term.operands }))
    }

    /// The operands at this site in both orders, if it is the commutative operation `op`.
    fn either_way(&self, op: &Op) -> impl Iterator<Item = [Id; 2]> + use<'a> {
        let pair = match self.args {
            [a, b] if self.op == op => Some([*a, *b]),
            _ => None,
        };
        pair.into_iter().flat_map(|[a, b]| [[a, b], [b, a]])
    }

    /// `[x, c]` for `op(x, c)` with `c` constant and `x` not, in either order.
    fn with_constant(&self, op: &Op) -> impl Iterator<Item = [Id; 2]> + use<'a> {
        let site = *self;
        self.either_way(op).filter(move |&[x, c]| !site.is_constant(x) && site.is_constant(c))
    }

    /// `(x, a)` if this is `x * a` with a public scalar, of the type of `x`.
    fn scaled(&self) -> Option<(Id, f32)> {
        self.either_way(&Op::Mul).find_map(|[x, a]| {
            (self.ty(x) == self.ty(self.id) && !self.is_constant(x)).then_some((x, self.scalar(a)?))
        })
    }
}

/// `x * a`, nothing if `a` is not a normal number.
fn scale(x: Expr, a: f32) -> Option<Expr> {
    match a {
        1.0 => Some(x),
        _ => a.is_normal().then(|| Expr::Apply(Op::Mul, vec![x, Expr::Scalar(a)])),
    }
}

/// `c * a` for a constant, its factors merged: in a cycle of factors (`x * 2 * 0.5 = x`) it would otherwise grow
/// without end.
fn scale_constant(site: &Site<'_>, c: Id, a: f32) -> Option<Expr> {
    let factor = |form: Site<'_>| {
        let mut pairs = form.either_way(&Op::Mul);
        pairs.find_map(|[d, b]| if site.ty(d) == site.ty(c) { Some((d, site.scalar(b)?)) } else { None })
    };
    match site.forms(c).find_map(factor) {
        Some((d, b)) => scale(d.into(), product(a, b)),
        None => scale(c.into(), a),
    }
}

fn product(a: f32, b: f32) -> f32 {
    (f64::from(a) * f64::from(b)) as f32
}

fn apply<const N: usize>(op: Op, args: [Expr; N]) -> Expr {
    Expr::Apply(op, args.into())
}

impl From<Id> for Expr {
    fn from(id: Id) -> Expr {
        Expr::Class(id)
    }
}

/// Adds a form to the e-graph; nothing if an operation does not accept its operands.
pub fn insert(classes: &mut Classes, expr: &Expr) -> Option<Id> {
    match expr {
        Expr::Class(id) => Some(classes.find(*id)),
        Expr::Scalar(value) => {
            Some(classes.add(Term { head: Head::Scalar(value.to_bits()), operands: Vec::new() }))
        }
        Expr::Apply(op, args) => {
            let operands = args.iter().map(|arg| insert(classes, arg)).collect::<Option<Vec<Id>>>()?;
            let types: Vec<TensorType> = operands.iter().map(|&id| classes[id].data.ty.clone()).collect();
            infer(op, &types).ok()?;
            Some(classes.add(Term { head: Head::Apply(Symbol::from(op.clone())), operands }))
        }
    }
}

/// Whether the rule may treat the class's numbers as reals: integer arithmetic truncates and wraps.
pub fn is_real(fact: &Fact) -> bool {
    fact.ty.dtype == DType::F32
}
