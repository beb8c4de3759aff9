//! Masked softmax: what is added to or put in place of scores becomes the positions to keep, known when compiling,
//! and a bias that depends on the inputs.
//!
//! A position is dropped if, whatever the inputs are, some term added to its score is at most -1e4 or its score is
//! replaced by such a value. Each term counts alone, as no mask takes back another. Rows whose positions are all
//! masked become 0, as after the exporter's guard against NaN.

use std::collections::BTreeMap;

use super::interval::Intervals;
use super::mask::{Keep, MASKED, is_mask};
use super::pattern::{applied, apply, either_way, scalar, scaled, substitute, unary};
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, ValueId};
use marill_plaintext::{Op, Tensor};

/// What stands between the raw scores and their softmax.
struct Spelling {
    scores: ValueId,
    /// Added to the scores.
    terms: Vec<ValueId>,
    /// Truth values, and which of the two keeps a score.
    conditions: Vec<(ValueId, bool)>,
}

pub(super) fn recognise_masked_softmax(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    let mut intervals = Intervals::default();
    let mut biases = BTreeMap::new();
    for id in applied(graph) {
        let (Some(op), Some(input)) = (graph.op(id).cloned(), graph.arg(id, 0)) else { continue };
        if let (Op::AttentionSoftmax, Some(keep)) = (&op, graph.arg(id, 1))
            && graph.constant(keep).is_none()
            && is_mask(graph, keep)
        {
            let spelling = computed_mask(graph, id, keep)?;
            let new = put_together(graph, &mut intervals, &mut biases, id, &spelling)?;
            changed |= new.is_some_and(|new| substitute(graph, id, new));
            continue;
        }
        let Op::Softmax { axis } = op else { continue };
        if axis + 1 != graph.shape(input).len() {
            continue;
        }
        if let Some(inner) = reshaped_rows(graph, input) {
            let shape = graph.shape(id).to_vec();
            let axis = graph.shape(inner).len() - 1;
            let softmax = apply(graph, Op::Softmax { axis }, &[inner], id)?;
            let new = apply(graph, Op::Reshape { shape }, &[softmax], id)?;
            changed |= substitute(graph, id, new);
            continue;
        }
        if let Some(inner) = scaled_after_mask(graph, input)? {
            let new = apply(graph, Op::Softmax { axis }, &[inner], id)?;
            changed |= substitute(graph, id, new);
            continue;
        }
        let spelling = take_apart(graph, &mut intervals, input)?;
        if spelling.scores != input && !is_mask(graph, spelling.scores) {
            let new = put_together(graph, &mut intervals, &mut biases, id, &spelling)?;
            changed |= new.is_some_and(|new| substitute(graph, id, new));
        }
    }
    Ok(changed)
}

/// A softmax whose positions to keep are computed of the inputs.
fn computed_mask(graph: &mut Graph, id: ValueId, keep: ValueId) -> Result<Spelling, Diagnostic> {
    let args = graph.args(id);
    let mut spelling = Spelling { scores: args[0], terms: Vec::new(), conditions: vec![(keep, true)] };
    match args.get(2) {
        Some(&bias) if is_mask(graph, bias) => flatten(graph, bias, &mut spelling.terms),
        Some(&bias) => spelling.scores = apply(graph, Op::Add, &[args[0], bias], id)?,
        None => {}
    }
    Ok(spelling)
}

/// `scores * c + mask * c` where `(scores + mask) * c` is given, for a positive c, so that the mask is seen.
fn scaled_after_mask(graph: &mut Graph, id: ValueId) -> Result<Option<ValueId>, Diagnostic> {
    let Some((sum, factor)) = scaled(graph, id).filter(|&(_, factor)| factor > 0.0) else { return Ok(None) };
    let Some([scores, mask]) = either_way(graph, sum, &Op::Add)
        .find(|&[x, term]| graph.ty(x) == graph.ty(id) && is_mask(graph, term))
    else {
        return Ok(None);
    };
    let factor = graph.add_constant("scale", Tensor::scalar_f32(factor as f32));
    let scores = apply(graph, Op::Mul, &[scores, factor], id)?;
    let mask = apply(graph, Op::Mul, &[mask, factor], id)?;
    apply(graph, Op::Add, &[scores, mask], id).map(Some)
}

/// What is reshaped, if masked scores are reshaped with their rows intact.
fn reshaped_rows(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let Op::Reshape { .. } = graph.op(id)? else { return None };
    let x = graph.arg(id, 0)?;
    let masked = matches!(graph.op(x)?, Op::Add | Op::Where | Op::Max);
    (masked && graph.shape(x).last() == graph.shape(id).last()).then_some(x)
}

fn take_apart(graph: &Graph, intervals: &mut Intervals, input: ValueId) -> Result<Spelling, Diagnostic> {
    let mut spelling = Spelling { scores: input, terms: Vec::new(), conditions: Vec::new() };
    let fits = |id: ValueId| graph.ty(id) == graph.ty(input);
    loop {
        let id = spelling.scores;
        match graph.op(id) {
            Some(Op::Add) => {
                let found =
                    either_way(graph, id, &Op::Add).find(|&[x, term]| fits(x) && is_mask(graph, term));
                let Some([x, term]) = found else { break };
                flatten(graph, term, &mut spelling.terms);
                spelling.scores = x;
            }
            Some(Op::Max) => {
                let found = either_way(graph, id, &Op::Max).find(|&[x, floor]| {
                    fits(x) && scalar(graph, floor).is_some_and(|floor| floor <= f64::from(MASKED))
                });
                let Some([x, _]) = found else { break };
                spelling.scores = x;
            }
            Some(Op::Where) => {
                let args = graph.args(id);
                let &[condition, a, b] = args.as_slice() else { break };
                if !is_mask(graph, condition) {
                    break;
                }
                if fits(a) && is_surely_masked(graph, intervals, b)? {
                    spelling.conditions.push((condition, true));
                    spelling.scores = a;
                } else if fits(b) && is_surely_masked(graph, intervals, a)? {
                    spelling.conditions.push((condition, false));
                    spelling.scores = b;
                } else {
                    break;
                }
            }
            _ => break,
        }
    }
    Ok(spelling)
}

fn flatten(graph: &Graph, id: ValueId, terms: &mut Vec<ValueId>) {
    match (graph.op(id), graph.args(id).as_slice()) {
        (Some(Op::Add), &[a, b]) => {
            flatten(graph, a, terms);
            flatten(graph, b, terms);
        }
        _ => terms.push(id),
    }
}

fn is_surely_masked(graph: &Graph, intervals: &mut Intervals, id: ValueId) -> Result<bool, Diagnostic> {
    Ok(is_mask(graph, id) && intervals.of(graph, id)?.high.iter().all(|&x| x <= MASKED))
}

/// The softmax in place of `id`. `biases` holds what stands for a term that layers share, so that it is made once.
fn put_together(
    graph: &mut Graph,
    intervals: &mut Intervals,
    biases: &mut BTreeMap<ValueId, ValueId>,
    id: ValueId,
    spelling: &Spelling,
) -> Result<Option<ValueId>, Diagnostic> {
    let rank = graph.shape(id).len();
    let mut keep = Keep::everything(rank);
    for &term in &spelling.terms {
        keep.drop_where(&intervals.of(graph, term)?.high, |high| high <= MASKED);
    }
    for &(condition, keeps) in &spelling.conditions {
        let interval = intervals.of(graph, condition)?;
        if keeps {
            keep.drop_where(&interval.high, |high| high == 0.0);
        } else {
            keep.drop_where(&interval.low, |low| low == 1.0);
        }
    }
    let keep = keep.compressed();

    let mut real: Option<ValueId> = None;
    let mut bias: Vec<ValueId> = Vec::new();
    for &term in &spelling.terms {
        let interval = intervals.of(graph, term)?;
        if keep.all(&interval.low, |low| low == 0.0) && keep.all(&interval.high, |high| high == 0.0) {
            continue;
        }
        if graph.constant(term).is_none() {
            bias.push(keep.restrict(graph, term)?);
            continue;
        }
        let at_kept = *biases.entry(term).or_insert_with(|| {
            let at_kept = interval.low.mapv(|x| if x <= MASKED { 0.0 } else { x }).into_shared();
            graph.add_constant(graph.node(term).name.clone(), Tensor::F32(at_kept))
        });
        real = Some(match real {
            None => at_kept,
            Some(sum) => apply(graph, Op::Add, &[sum, at_kept], term)?,
        });
    }
    for &(condition, keeps) in &spelling.conditions {
        let interval = intervals.of(graph, condition)?;
        let decided = if keeps {
            keep.all(&interval.low, |low| low == 1.0)
        } else {
            keep.all(&interval.high, |high| high == 0.0)
        };
        if decided {
            continue;
        }
        let condition = keep.restrict(graph, condition)?;
        let zero = graph.add_constant("zero", Tensor::scalar_f32(0.0));
        let masked = graph.add_constant("masked", Tensor::scalar_f32(f32::MIN));
        let choices = if keeps { [condition, zero, masked] } else { [condition, masked, zero] };
        bias.push(apply(graph, Op::Where, &choices, condition)?);
    }

    let mut total = None;
    for term in bias {
        total = Some(match total {
            None => term,
            Some(sum) => apply(graph, Op::Add, &[sum, term], term)?,
        });
    }
    let scores = match real {
        Some(real) => apply(graph, Op::Add, &[spelling.scores, real], id)?,
        None => spelling.scores,
    };
    if total.is_some() || !keep.is_everything() {
        let keep = graph.add_constant("keep", keep.tensor());
        let args: Vec<ValueId> = [scores, keep].into_iter().chain(total).collect();
        return apply(graph, Op::AttentionSoftmax, &args, id).map(Some);
    }
    let only_a_real_bias = graph.arg(id, 0).and_then(|input| graph.arg(input, 0)) == Some(spelling.scores)
        && real.is_some()
        && spelling.terms.len() == 1
        && spelling.conditions.is_empty();
    if only_a_real_bias {
        return Ok(None);
    }
    apply(graph, Op::Softmax { axis: rank - 1 }, &[scores], id).map(Some)
}

/// Removes `where(isnan(p), 0, p)` on the result of a softmax of finite scores or of one that defines masked rows.
pub(super) fn drop_nan_guards(graph: &mut Graph) -> Result<bool, Diagnostic> {
    let mut changed = false;
    for id in applied(graph) {
        let args = graph.args(id);
        let (Some(Op::Where), &[condition, zero, p]) = (graph.op(id), args.as_slice()) else { continue };
        let is_softmax = matches!(graph.op(p), Some(Op::Softmax { .. } | Op::AttentionSoftmax));
        let is_guard = unary(graph, condition, &Op::IsNan) == Some(p) && scalar(graph, zero) == Some(0.0);
        if is_softmax && is_guard {
            changed |= substitute(graph, id, p);
        }
    }
    Ok(changed)
}
