//! Stage 3: what is published of the model's weights.
//!
//! Precondition: a normalised graph, and the base model's where the request names one. Postcondition: every constant
//! whose elements the base model has is owned by everybody; a matrix that differs from its counterpart there by a
//! product of thin matrices has become `base + a b`, with only `a` and `b` private. Names that the request gives
//! decide before the base model does. Which weights are published, and the ranks, become part of the program, so
//! everybody learns them; nothing else about a private weight decides anything here.

mod content;
mod low_rank;
mod position;

use std::collections::{BTreeMap, BTreeSet};

use marill_plaintext::{DType, Op, Tensor};
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Problem};
use crate::ir::{Constant, Graph, NodeKind, Owner, ValueId};
use crate::ownership::{constant_owner, is_constant};
use crate::request::Weights;

pub use low_rank::{Factors, factors};

/// What is known of one weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// The base model has its elements, in the tensors named.
    Published { in_base: Vec<String> },
    /// The request says that it is public.
    Declared,
    /// Its difference from a tensor of the base model has this rank.
    LowRank { in_base: String, rank: usize },
    /// Private.
    Private,
}

/// One weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightRow {
    /// The initializer's name.
    pub name: String,
    /// Number of elements.
    pub elements: usize,
    /// What is known of it.
    #[serde(flatten)]
    pub status: Status,
}

/// Compares `graph` with the base model's graph as `weights` asks; what is known of every weight, in the graph's order.
/// Of names, only those of `initializers` can make a weight public: other constants were computed, maybe of several
/// initializers, not all of them public.
///
/// # Errors
/// A pattern that names no weight, or a constant that cannot be read.
pub fn publish(
    mut graph: Graph,
    base: Option<&Graph>,
    weights: &Weights,
    initializers: &BTreeSet<String>,
) -> Result<(Graph, Vec<WeightRow>), Diagnostic> {
    let private: Vec<ValueId> = weights_of(&graph);
    let named = Named::new(&graph, &private, weights, initializers)?;
    let mut found: BTreeMap<ValueId, Status> = BTreeMap::new();
    let mut open: Vec<ValueId> = Vec::new();
    for &id in &private {
        match named.of(&graph, id, weights) {
            Some(Owner::Public) => {
                found.insert(id, Status::Declared);
            }
            Some(_) => {}
            None => open.push(id),
        }
    }
    if let Some(base) = base {
        found.extend(content::published(&graph, &open, base)?);
        let differing: BTreeSet<ValueId> = open.into_iter().filter(|id| !found.contains_key(id)).collect();
        for (weight, counterpart) in position::counterparts(&graph, base, &found, &differing) {
            let Some(split) = difference(&graph, weight, base, counterpart, weights.rank_tolerance)? else {
                continue;
            };
            let status = Status::LowRank { in_base: base.node(counterpart).name.clone(), rank: split.rank };
            if let Some(constant) = base.constant(counterpart) {
                install(&mut graph, weight, constant.clone(), split)?;
                found.insert(weight, status);
            }
        }
    }
    let row = |&id: &ValueId| WeightRow {
        name: graph.node(id).name.clone(),
        elements: graph.ty(id).len(),
        status: found.get(&id).cloned().unwrap_or(Status::Private),
    };
    let rows = private.iter().map(row).collect();
    for (&id, status) in &found {
        if matches!(status, Status::Published { .. } | Status::Declared) {
            graph.node_mut(id).facts.owner = Some(Owner::Public);
        }
    }
    graph.remove_dead();
    graph.compact();
    Ok((graph, rows))
}

/// Constants that are the server's unless they are published, in the graph's order.
fn weights_of(graph: &Graph) -> Vec<ValueId> {
    let is_weight = |&id: &ValueId| {
        matches!(graph.node(id).kind, NodeKind::Constant(_)) && constant_owner(graph, id) == Owner::Server
    };
    graph.topological().into_iter().filter(is_weight).collect()
}

/// What the request's patterns say of names.
struct Named<'n> {
    private: BTreeSet<ValueId>,
    public: BTreeSet<ValueId>,
    initializers: &'n BTreeSet<String>,
}

impl<'n> Named<'n> {
    fn new(
        graph: &Graph,
        ids: &[ValueId],
        weights: &Weights,
        initializers: &'n BTreeSet<String>,
    ) -> Result<Named<'n>, Diagnostic> {
        let matching = |patterns: &[String], option: &'static str| {
            let mut found = BTreeSet::new();
            for pattern in patterns {
                let matcher = wildmatch::WildMatch::new(pattern);
                let before = found.len();
                found.extend(ids.iter().copied().filter(|&id| matcher.matches(&graph.node(id).name)));
                if found.len() == before && !ids.iter().any(|&id| matcher.matches(&graph.node(id).name)) {
                    let names = ids.iter().map(|&id| graph.node(id).name.clone()).collect();
                    return Err(Diagnostic::new(pattern.clone(), Problem::NoSuchWeight { option, names }));
                }
            }
            Ok(found)
        };
        let private = matching(&weights.private, "--private")?;
        let mut public = matching(&weights.public, "--public-weights")?;
        public.retain(|&id| initializers.contains(&graph.node(id).name));
        if let Some(&both) = private.intersection(&public).next() {
            return Err(Diagnostic::new(graph.node(both).name.clone(), Problem::BothOwners));
        }
        Ok(Named { private, public, initializers })
    }

    /// The owner that the names decide; `None` leaves it to the base model.
    fn of(&self, graph: &Graph, id: ValueId, weights: &Weights) -> Option<Owner> {
        if self.private.contains(&id) {
            return Some(Owner::Server);
        }
        let rest_is_public =
            !weights.private.is_empty() && weights.public.is_empty() && weights.base.is_none();
        // The exporter's numbers tell nobody whose weight it is: publishing needs a name.
        let name = &graph.node(id).name;
        let is_named = self.initializers.contains(name) && !is_anonymous(name);
        let is_public = self.public.contains(&id) || rest_is_public && is_named;
        is_public.then_some(Owner::Public)
    }
}

/// Names that exporters make up: a pattern written for layers cannot mean them.
pub fn is_anonymous(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.is_empty()
        || name.starts_with("onnx::")
        || name.starts_with('/')
        || name.strip_prefix("val_").is_some_and(is_number)
        || is_number(name)
}

/// A matrix as another and a thin product.
struct Split {
    a: Tensor,
    b: Tensor,
    rank: usize,
}

/// The factors of `weight - counterpart`, if it has low rank.
fn difference(
    graph: &Graph,
    weight: ValueId,
    base: &Graph,
    counterpart: ValueId,
    tolerance: f64,
) -> Result<Option<Split>, Diagnostic> {
    let &[rows, columns] = graph.shape(weight) else { return Ok(None) };
    if tolerance <= 0.0 || rows.min(columns) < 2 {
        return Ok(None);
    }
    if !may_be_thin(graph, weight, base, counterpart, tolerance)? {
        return Ok(None);
    }
    let mut difference = elements(graph, weight)?;
    difference.iter_mut().zip(elements(base, counterpart)?).for_each(|(w, w0)| *w -= w0);
    let Some(Factors { a, b, rank }) = factors(&difference, rows, columns, tolerance) else {
        return Ok(None);
    };
    let made = |error| Diagnostic::new(graph.node(weight).name.clone(), Problem::Op(error));
    let a = Tensor::f32([rows, rank], a).map_err(made)?;
    let b = Tensor::f32([rank, columns], b).map_err(made)?;
    Ok(Some(Split { a, b, rank }))
}

/// Whether an evenly spread piece of `weight - counterpart` has low rank, without which the whole has not: few of the
/// elements are read.
fn may_be_thin(
    graph: &Graph,
    weight: ValueId,
    base: &Graph,
    counterpart: ValueId,
    tolerance: f64,
) -> Result<bool, Diagnostic> {
    let (&[rows, columns], Some(tuned), Some(published)) =
        (graph.shape(weight), graph.constant(weight), base.constant(counterpart))
    else {
        return Ok(false);
    };
    let places = low_rank::sample(rows, columns);
    let at = |error| Diagnostic::new(graph.node(weight).name.clone(), Problem::from(error));
    let (tuned, published) =
        (tuned.elements_at(&places).map_err(at)?, published.elements_at(&places).map_err(at)?);
    let difference: Vec<f32> = tuned.iter().zip(&published).map(|(w, w0)| w - w0).collect();
    Ok(low_rank::sample_rank(&difference, rows, columns, tolerance).is_some())
}

fn elements(graph: &Graph, id: ValueId) -> Result<Vec<f32>, Diagnostic> {
    let at = |problem: Problem| Diagnostic::new(graph.node(id).name.clone(), problem);
    match crate::bundle::constant_value(graph, id)? {
        Tensor::F32(array) if array.is_standard_layout() => {
            Ok(array.into_owned().into_raw_vec_and_offset().0)
        }
        tensor => tensor.cast(DType::F32).to_f32_vec().map_err(|error| at(error.into())),
    }
}

/// Puts `base + a b` in the place of `weight`.
fn install(graph: &mut Graph, weight: ValueId, base: Constant, split: Split) -> Result<(), Diagnostic> {
    let name = graph.node(weight).name.clone();
    let base = graph.add_constant(format!("{name}.base"), base);
    graph.node_mut(base).facts.owner = Some(Owner::Public);
    let a = graph.add_constant(format!("{name}.a"), split.a);
    let b = graph.add_constant(format!("{name}.b"), split.b);
    let made = |error| Diagnostic::new(name.clone(), Problem::Op(error));
    let product = graph.apply(Op::MatMul, &[a, b], name.as_str()).map_err(made)?;
    let sum = graph.apply(Op::Add, &[base, product], name.as_str()).map_err(made)?;
    graph.replace_uses(weight, sum);
    debug_assert!(is_constant(graph, sum));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir;

    /// Names of weights that are declared public.
    fn declared(weights: &Weights) -> Vec<String> {
        let text = r#"
            %0 = input "x" : f32[2,2]
            %1 = constant "h.0.weight" : f32[2,2] [1, 2, 3, 4]
            %2 = mat_mul(%0, %1) : f32[2,2]
            %3 = constant "h.6.weight" : f32[2,2] [1, 2, 3, 4]
            %4 = mat_mul(%2, %3) : f32[2,2]
            %5 = constant "permute_4" : f32[2,2] [5, 6, 7, 8]
            %6 = mat_mul(%4, %5) : f32[2,2]
            %7 = constant "onnx::MatMul_9" : f32[2,2] [5, 6, 7, 8]
            %8 = mat_mul(%6, %7) : f32[2,2]
            output "y" = %8 reveal=client
        "#;
        let initializers = ["h.0.weight", "h.6.weight", "onnx::MatMul_9"].map(str::to_owned).into();
        let (_, rows) = publish(ir::parse(text).unwrap(), None, weights, &initializers).unwrap();
        let public = rows.into_iter().filter(|row| row.status == Status::Declared);
        public.map(|row| row.name).collect()
    }

    #[test]
    fn what_was_computed_or_has_a_made_up_name_is_not_published_by_others_names() {
        let private = Weights { private: vec!["h.6.*".into()], ..Weights::default() };
        assert_eq!(declared(&private), ["h.0.weight"]);
        // `permute_4` may be made of anything.
        let public = Weights { public: vec!["*_*".into(), "h.6.*".into()], ..Weights::default() };
        assert_eq!(declared(&public), ["h.6.weight", "onnx::MatMul_9"]);
        assert_eq!(declared(&Weights::default()), [""; 0]);
    }
}
