//! GELU and SiLU from their parts.
//!
//! A GELU is found by its `erf` or `tanh`: the argument must be the right polynomial of some `x`, and a value
//! computed from both must be `x/2 + x/2 * erf`, whatever the order of sums and products between.

use std::collections::BTreeSet;

use super::pattern::{applied, apply, binary, close, either_way, scalar, substitute, unary};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::{GeluForm, Op};

const CUBIC_COEFFICIENT: f64 = 0.044_715;
/// More operations than any spelling has between `x` and the transcendental function, or after it.
const MAX_DEPTH: usize = 6;

pub(super) fn recognise_activations(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let found = match graph.op(id) {
            Some(Op::Erf) => gelu(graph, id, GeluForm::Erf),
            Some(Op::Tanh) => gelu(graph, id, GeluForm::Tanh),
            Some(Op::Mul) => silu(graph, id),
            _ => None,
        };
        if let Some((root, x, op)) = found {
            let new = apply(graph, op, &[x], root)?;
            changed |= substitute(graph, root, new);
        }
    }
    Ok(changed)
}

fn silu(graph: &Graph, id: ValueId) -> Option<(ValueId, ValueId, Op)> {
    either_way(graph, id, &Op::Mul)
        .find(|&[x, gate]| unary(graph, gate, &Op::Sigmoid) == Some(x))
        .map(|[x, _]| (id, x, Op::Silu))
}

fn gelu(graph: &Graph, bell: ValueId, form: GeluForm) -> Option<(ValueId, ValueId, Op)> {
    let argument = graph.arg(bell, 0)?;
    let (linear, cubic) = match form {
        GeluForm::Erf => (std::f64::consts::FRAC_1_SQRT_2, 0.0),
        GeluForm::Tanh => {
            let linear = (2.0 / std::f64::consts::PI).sqrt();
            (linear, linear * CUBIC_COEFFICIENT)
        }
    };
    let x = below(graph, argument).into_iter().find(|&x| {
        polynomial(graph, argument, x, None, MAX_DEPTH).is_some_and(|p| {
            let [c0, c1, c2, c3] = p.plain;
            c0 == 0.0 && close(c1, linear) && c2 == 0.0 && close(c3, cubic)
        })
    })?;
    let root = above(graph, bell).into_iter().find(|&root| {
        graph.ty(root) == graph.ty(x)
            && polynomial(graph, root, x, Some(bell), MAX_DEPTH).is_some_and(|p| {
                [p.plain, p.times_bell]
                    .iter()
                    .all(|&[c0, c1, c2, c3]| c0 == 0.0 && close(c1, 0.5) && c2 == 0.0 && c3 == 0.0)
            })
    })?;
    Some((root, x, Op::Gelu { form }))
}

/// Values from which `id` is computed by sums, products and powers, nearest first.
fn below(graph: &Graph, id: ValueId) -> Vec<ValueId> {
    spread(id, |id| match graph.op(id) {
        Some(Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow | Op::Neg) => graph.args(id),
        _ => Vec::new(),
    })
    .into_iter()
    .filter(|&id| graph.constant(id).is_none())
    .collect()
}

/// Values computed from `id` by sums and products, nearest first.
fn above(graph: &Graph, id: ValueId) -> Vec<ValueId> {
    let is_sum_or_product =
        |user: &ValueId| matches!(graph.op(*user), Some(Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Neg));
    spread(id, |id| graph.users(id).into_iter().filter(is_sum_or_product).collect())
}

fn spread(from: ValueId, next: impl Fn(ValueId) -> Vec<ValueId>) -> Vec<ValueId> {
    let mut seen = BTreeSet::from([from]);
    let mut found = vec![from];
    let mut layer = vec![from];
    for _ in 0..MAX_DEPTH {
        layer = layer.into_iter().flat_map(&next).filter(|&id| seen.insert(id)).collect();
        found.extend(&layer);
    }
    found
}

/// `plain(x) + times_bell(x) * bell`, coefficients by rising power of `x`.
#[derive(Clone, Copy, Default)]
struct Polynomial {
    plain: [f64; 4],
    times_bell: [f64; 4],
}

impl Polynomial {
    fn constant(value: f64) -> Polynomial {
        Polynomial { plain: [value, 0.0, 0.0, 0.0], ..Polynomial::default() }
    }

    fn plus(self, other: Polynomial, factor: f64) -> Polynomial {
        let sum = |a: [f64; 4], b: [f64; 4]| std::array::from_fn(|i| a[i] + factor * b[i]);
        Polynomial { plain: sum(self.plain, other.plain), times_bell: sum(self.times_bell, other.times_bell) }
    }

    /// The product, if it is of degree 3 in `x` and 1 in the bell at most.
    fn times(self, other: Polynomial) -> Option<Polynomial> {
        let product = |a: [f64; 4], b: [f64; 4]| {
            let mut sum = [0.0; 4];
            for (i, x) in a.iter().enumerate() {
                for (j, y) in b.iter().enumerate() {
                    let term = x * y;
                    match sum.get_mut(i + j) {
                        Some(place) => *place += term,
                        None if term == 0.0 => {}
                        None => return None,
                    }
                }
            }
            Some(sum)
        };
        if product(self.times_bell, other.times_bell)? != [0.0; 4] {
            return None;
        }
        let (left, right) = (product(self.plain, other.times_bell)?, product(self.times_bell, other.plain)?);
        Some(Polynomial {
            plain: product(self.plain, other.plain)?,
            times_bell: std::array::from_fn(|i| left[i] + right[i]),
        })
    }
}

fn polynomial(
    graph: &Graph,
    id: ValueId,
    x: ValueId,
    bell: Option<ValueId>,
    depth: usize,
) -> Option<Polynomial> {
    if id == x {
        return Some(Polynomial { plain: [0.0, 1.0, 0.0, 0.0], ..Polynomial::default() });
    }
    if Some(id) == bell {
        return Some(Polynomial { times_bell: [1.0, 0.0, 0.0, 0.0], ..Polynomial::default() });
    }
    if graph.constant(id).is_some() {
        return scalar(graph, id).map(Polynomial::constant);
    }
    let depth = depth.checked_sub(1)?;
    let of = |id: ValueId| polynomial(graph, id, x, bell, depth);
    match graph.op(id)? {
        Op::Neg => Some(Polynomial::default().plus(of(graph.arg(id, 0)?)?, -1.0)),
        Op::Add => binary(graph, id, &Op::Add).and_then(|[a, b]| Some(of(a)?.plus(of(b)?, 1.0))),
        Op::Sub => binary(graph, id, &Op::Sub).and_then(|[a, b]| Some(of(a)?.plus(of(b)?, -1.0))),
        Op::Mul => binary(graph, id, &Op::Mul).and_then(|[a, b]| of(a)?.times(of(b)?)),
        Op::Div => {
            let [a, divisor] = binary(graph, id, &Op::Div)?;
            of(a)?.times(Polynomial::constant(1.0 / scalar(graph, divisor)?))
        }
        Op::Pow => {
            let [base, exponent] = binary(graph, id, &Op::Pow)?;
            let base = of(base)?;
            match scalar(graph, exponent)? {
                2.0 => base.times(base),
                3.0 => base.times(base)?.times(base),
                _ => None,
            }
        }
        _ => None,
    }
}
