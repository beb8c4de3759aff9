//! Stage 5: the cheapest of many equal graphs, found in an e-graph.
//!
//! Precondition: a normalised graph whose values have owners. Postcondition: a graph of the same inputs, outputs and
//! function over the reals, every value with its owner, that is not estimated to cost more. What folds into the
//! server's constants stays as operations on constants. The result depends on the graph, its types, owners and public
//! scalars, never on the elements of other constants, nor on time.

pub mod analysis;
pub mod certificate;
pub mod cost;
pub mod extract;
pub mod language;
mod rebuild;
pub mod rules;
mod tally;

use std::collections::BTreeMap;

use egg::Id;

use crate::approximation::Approximate;
use crate::diagnostic::Diagnostic;
use crate::ir::{Graph, NodeKind, Owner, ValueId};
use analysis::{Classes, Fact, Known};
use certificate::{Certificate, Certificates};
use cost::CostModel;
use extract::Forms;
use language::{Head, Symbol, Term};
use marill_plaintext::{DType, Op, Receiver, Tensor, TensorType};
use rules::{Expr, QUAD_RULES, RULES, Rule, Site};

/// Limits and the network to choose for.
#[derive(Clone, Debug, PartialEq)]
pub struct RewriteOptions {
    /// What the extraction minimises.
    pub cost: CostModel,
    /// The e-graph stops growing beyond this many terms.
    pub max_terms: usize,
    /// Times that all rules are tried.
    pub max_iterations: usize,
}

impl Default for RewriteOptions {
    fn default() -> RewriteOptions {
        RewriteOptions { cost: CostModel::default(), max_terms: 200_000, max_iterations: 16 }
    }
}

/// Times that all rules are tried to tell what one saves: nearly all is found by then.
const COMPARED_ITERATIONS: usize = 8;

/// A rule that found new forms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fired {
    /// The rule.
    pub name: &'static str,
    /// How many forms.
    pub count: usize,
    /// Estimated seconds of a run that would be lost without the rule.
    pub saves_s: f64,
}

/// What the stage did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewriteReport {
    /// Rules that found new forms, in the order of the table.
    pub fired: Vec<Fired>,
    /// Estimated time of a run before and after, in seconds.
    pub cost_before_s: f64,
    /// See `cost_before_s`.
    pub cost_after_s: f64,
    /// Values in the e-graph.
    pub classes: usize,
    /// Terms in the e-graph.
    pub terms: usize,
    /// Of the public constants that stand between a value and an output, what was shown.
    pub certificates: Vec<Certificate>,
    /// Whether no rule had anything new to say, rather than a limit being met.
    pub is_saturated: bool,
}

/// Rewrites the graph.
///
/// # Errors
/// If an operation of the chosen graph does not accept its operands, which no graph from `normalise` causes.
pub fn rewrite(graph: Graph, options: &RewriteOptions) -> Result<(Graph, RewriteReport), Diagnostic> {
    let certificates = certificate::certify(&graph)?;
    let mut space = Space::new(&graph, &certificates);
    let mut report = RewriteReport::default();
    let rules = rules_for(options.cost.approximate);
    space.saturate(&rules, options, &mut report);
    let classes = &space.classes;
    let forms = Forms::new(classes, &options.cost);
    let roots: Vec<u32> = space.roots.iter().map(|&root| forms.place(classes, root)).collect();

    let mut original: BTreeMap<u32, Term> = BTreeMap::new();
    for (id, term) in &space.originals {
        let term = term.clone().map_to(classes);
        original.entry(forms.place(classes, *id)).or_insert(term);
    }
    let before = forms.choose(&original);
    let before_s = forms.cost_s(&before, &roots);
    let after = forms.extract(&roots);
    let after_s = forms.cost_s(&after, &roots);
    let (choice, after_s) = match (before_s, after_s) {
        (Some(before_s), Some(after_s)) if after_s > before_s => (before, before_s),
        (Some(before_s), None) => (before, before_s),
        (_, after_s) => (after, after_s.unwrap_or_default()),
    };
    report.cost_before_s = before_s.unwrap_or(after_s);
    report.cost_after_s = after_s;
    report.classes = classes.number_of_classes();
    report.terms = classes.total_number_of_nodes();
    let compared =
        RewriteOptions { max_iterations: options.max_iterations.min(COMPARED_ITERATIONS), ..options.clone() };
    let with_all = cost_with(&rules, &graph, &certificates, &compared);
    let costs_s = costs_without(&report.fired, &graph, &certificates, &compared);
    for (fired, cost_s) in report.fired.iter_mut().zip(costs_s) {
        fired.saves_s = cost_s.zip(with_all).map_or(0.0, |(without, with_all)| (without - with_all).max(0.0));
    }
    report.certificates = certificates.into_values().collect();
    let graph = rebuild::rebuild(&graph, &space, &forms, &choice)?;
    Ok((graph, report))
}

/// The rules for requests that allow so much.
fn rules_for(approximate: Approximate) -> Vec<Rule> {
    let changing = if approximate == Approximate::Quad { QUAD_RULES } else { &[] };
    RULES.iter().chain(changing).copied().collect()
}

/// For each rule the estimated cost of the cheapest graph that all others find.
fn costs_without(
    fired: &[Fired],
    graph: &Graph,
    certificates: &Certificates,
    options: &RewriteOptions,
) -> Vec<Option<f64>> {
    let without = |fired: &Fired| {
        let rules: Vec<Rule> =
            rules_for(options.cost.approximate).into_iter().filter(|rule| rule.name != fired.name).collect();
        cost_with(&rules, graph, certificates, options)
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = fired.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let mut handles = Vec::new();
        for part in fired.chunks(share) {
            handles.push(scope.spawn(|| part.iter().map(without).collect::<Vec<_>>()));
        }
        let costs_s = |handle: std::thread::ScopedJoinHandle<'_, Vec<_>>| match handle.join() {
            Ok(costs_s) => costs_s,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().flat_map(costs_s).collect()
    })
}

/// The estimated cost of the cheapest graph that `rules` find.
fn cost_with(
    rules: &[Rule],
    graph: &Graph,
    certificates: &Certificates,
    options: &RewriteOptions,
) -> Option<f64> {
    let mut space = Space::new(graph, certificates);
    space.saturate(rules, options, &mut RewriteReport::default());
    let forms = Forms::new(&space.classes, &options.cost);
    let roots: Vec<u32> = space.roots.iter().map(|&root| forms.place(&space.classes, root)).collect();
    forms.cost_s(&forms.extract(&roots), &roots)
}

/// The e-graph of one graph.
struct Space {
    classes: Classes,
    /// The class of every value of the graph.
    values: BTreeMap<ValueId, Id>,
    /// The terms of the graph's values, and of the outputs' reveals.
    originals: Vec<(Id, Term)>,
    /// Classes of the outputs as their receivers know them.
    roots: Vec<Id>,
    /// Values behind the leaves.
    leaves: Vec<ValueId>,
}

impl Space {
    fn new(graph: &Graph, certificates: &Certificates) -> Space {
        let mut space = Space {
            classes: Classes::new(Known::default()),
            values: BTreeMap::new(),
            originals: Vec::new(),
            roots: Vec::new(),
            leaves: Vec::new(),
        };
        for value in graph.topological() {
            let term = match &graph.node(value).kind {
                NodeKind::Apply(op) => Term {
                    head: Head::Apply(Symbol::from(op.clone())),
                    operands: graph.args(value).iter().map(|arg| space.values[arg]).collect(),
                },
                _ => space.leaf(graph, value, certificates),
            };
            let id = space.add(term);
            space.values.insert(value, id);
        }
        for output in &graph.outputs {
            let value = space.values[&output.value];
            let is_known = space.classes[value].data.owner.is_known_to(output.reveal_to);
            let root = match receiver(output.reveal_to) {
                Some(to) if !is_known => {
                    let head = Head::Apply(Symbol::from(Op::Reveal { to }));
                    space.add(Term { head, operands: vec![value] })
                }
                _ => value,
            };
            space.roots.push(root);
        }
        space.classes.rebuild();
        space
    }

    fn add(&mut self, term: Term) -> Id {
        let id = self.classes.add(term.clone());
        self.originals.push((id, term));
        id
    }

    fn leaf(&mut self, graph: &Graph, value: ValueId, certificates: &Certificates) -> Term {
        let facts = &graph.node(value).facts;
        let owner = facts.owner.unwrap_or(Owner::Shared);
        let scalar = if owner == Owner::Public { public_scalar(graph, value) } else { None };
        let head = match scalar {
            Some(scalar) if facts.ty.shape.is_empty() => Head::Scalar(scalar.to_bits()),
            _ => {
                let is_constant = matches!(graph.node(value).kind, NodeKind::Constant(_));
                let is_injective = certificates.get(&value).is_some_and(|c| c.is_injective);
                let ty = facts.ty.clone();
                self.classes.analysis.leaves.push(Fact { ty, owner, is_constant, scalar, is_injective });
                self.leaves.push(value);
                Head::Leaf(self.leaves.len() as u32 - 1)
            }
        };
        Term { head, operands: Vec::new() }
    }

    /// Applies rules until nothing is new or a limit is met. All sites are found before any form is added.
    fn saturate(&mut self, rules: &[Rule], options: &RewriteOptions, report: &mut RewriteReport) {
        let mut fired = vec![0usize; rules.len()];
        for _ in 0..options.max_iterations {
            let matches = self.matches(rules);
            let (mut changed, mut is_full) = (false, false);
            for (rule, id, expr) in matches {
                is_full = self.classes.total_size() >= options.max_terms;
                if is_full {
                    break;
                }
                let Some(form) = rules::insert(&mut self.classes, &expr) else { continue };
                if self.classes[form].data.ty == self.classes[id].data.ty && self.classes.union(id, form) {
                    fired[rule] += 1;
                    changed = true;
                }
            }
            self.classes.rebuild();
            report.is_saturated = !changed && !is_full;
            if !changed || is_full {
                break;
            }
        }
        let named = rules.iter().zip(fired).filter(|(_, count)| *count > 0);
        report.fired = named.map(|(rule, count)| Fired { name: rule.name, count, saves_s: 0.0 }).collect();
    }

    /// Every form that a rule names, by class, then term, then rule.
    fn matches(&self, rules: &[Rule]) -> Vec<(usize, Id, Expr)> {
        let mut ids: Vec<Id> = self.classes.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let mut found = Vec::new();
        for id in ids {
            if !rules::is_real(&self.classes[id].data) {
                continue;
            }
            for term in &self.classes[id].nodes {
                let Some(op) = term.op() else { continue };
                if term.operands.contains(&id) {
                    continue;
                }
                let site = Site { classes: &self.classes, id, op, args: &term.operands };
                for (number, rule) in rules.iter().enumerate() {
                    found.extend((rule.forms)(&site).into_iter().map(|expr| (number, id, expr)));
                }
            }
        }
        found
    }
}

fn receiver(owner: Owner) -> Option<Receiver> {
    match owner {
        Owner::Client => Some(Receiver::Client),
        Owner::Server => Some(Receiver::Server),
        Owner::Public => Some(Receiver::Both),
        Owner::Shared => None,
    }
}

impl Term {
    /// The same term with every operand's class as it is now.
    fn map_to(self, classes: &Classes) -> Term {
        let operands = self.operands.iter().map(|&id| classes.find(id)).collect();
        Term { head: self.head, operands }
    }
}

fn public_scalar(graph: &Graph, value: ValueId) -> Option<f32> {
    let TensorType { dtype, .. } = graph.ty(value);
    if *dtype != DType::F32 || graph.ty(value).len() != 1 {
        return None;
    }
    match graph.constant(value)?.load().ok()? {
        Tensor::F32(array) => array.first().copied(),
        _ => None,
    }
}
