//! Chooses one form for every value that the outputs need, so that the whole costs little.
//!
//! Values are shared, so a tree's cost would count them often. First a greedy choice bottom-up: every class keeps the
//! set of costs below its best form, and sets unite instead of adding up (extraction-gym's "greedy DAG"). Then
//! single choices change as long as the true cost of the whole falls (`tally`). Ties keep the first form in the e-graph's
//! order, so the choice is a function of the e-graph.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use egg::Id;

use super::analysis::{Classes, Fact};
use super::cost::{CostModel, Opening, under_mask};
use super::language::Term;
use super::tally::{MIN_GAIN, Tally};

/// Passes over all choices in the second step.
const MAX_PASSES: usize = 4;
/// Forms of constants cost next to nothing; they are counted as a tree.
const CONSTANT_S: f64 = 1e-9;

/// A form of a class with its cost.
pub(super) struct Form {
    term: Term,
    pub(super) operands: Vec<u32>,
    pub(super) own_s: f64,
    /// Classes that must be opened, and what that costs.
    pub(super) openings: Vec<(u32, f64)>,
    /// The operand whose opening serves for the result's.
    pub(super) under_mask: Option<u32>,
}

/// The e-graph in dense numbers, costs worked out.
pub struct Forms {
    /// Classes in the e-graph's order of ids.
    ids: Vec<Id>,
    places: BTreeMap<Id, u32>,
    is_constant: Vec<bool>,
    pub(super) forms: Vec<Vec<Form>>,
    /// What it costs to open a class for work under its mask.
    pub(super) wide_s: Vec<f64>,
}

/// The form chosen for each class, where there is one.
pub type Choice = Vec<Option<u32>>;

/// Costs below a form: sorted by place; openings come after all classes.
type CostSet = Rc<Vec<(u32, f64)>>;

#[derive(Clone)]
struct Best {
    form: u32,
    total_s: f64,
    /// Cost of a constant, as a tree.
    constant_s: f64,
    below: CostSet,
}

impl Forms {
    /// Works out what every form costs.
    pub fn new(classes: &Classes, model: &CostModel) -> Forms {
        let mut ids: Vec<Id> = classes.classes().map(|class| class.id).collect();
        ids.sort_unstable();
        let places: BTreeMap<Id, u32> =
            ids.iter().enumerate().map(|(place, &id)| (id, place as u32)).collect();
        let form = |id: Id, term: &Term| {
            let facts: Vec<&Fact> = term.operands.iter().map(|&id| &classes[id].data).collect();
            let cost = match term.op() {
                Some(op) => model.of(op, &facts, &classes[id].data.ty),
                None => Default::default(),
            };
            let operands: Vec<u32> = term.operands.iter().map(|&id| places[&classes.find(id)]).collect();
            let opening = |&(operand, opening): &(usize, Opening)| {
                (operands[operand], model.opening_s(&facts[operand].ty, opening))
            };
            let openings = cost.openings.iter().map(opening).collect();
            let under_mask = term.op().and_then(|op| under_mask(op, &facts, &classes[id].data));
            let under_mask = under_mask.map(|operand| operands[operand]);
            Form { term: term.clone(), operands, own_s: cost.own_s, openings, under_mask }
        };
        let forms =
            ids.iter().map(|&id| classes[id].nodes.iter().map(|term| form(id, term)).collect()).collect();
        let is_constant = ids.iter().map(|&id| classes[id].data.is_constant).collect();
        let wide_s = ids.iter().map(|&id| model.wide_opening_s(&classes[id].data.ty)).collect();
        Forms { ids, places, is_constant, forms, wide_s }
    }

    /// Number of a class.
    pub fn place(&self, classes: &Classes, id: Id) -> u32 {
        self.places[&classes.find(id)]
    }

    /// The id of a class.
    pub fn id(&self, place: u32) -> Id {
        self.ids[place as usize]
    }

    /// The form chosen for a class, and its operands' numbers.
    pub fn chosen(&self, choice: &Choice, place: u32) -> Option<(&Term, &[u32])> {
        let form = &self.forms[place as usize][choice[place as usize]? as usize];
        Some((&form.term, &form.operands))
    }

    /// Chooses the given forms, and nothing for other classes.
    pub fn choose(&self, wanted: &BTreeMap<u32, Term>) -> Choice {
        let find = |(place, forms): (usize, &Vec<Form>)| {
            let term = wanted.get(&(place as u32))?;
            forms.iter().position(|form| &form.term == term).map(|form| form as u32)
        };
        self.forms.iter().enumerate().map(find).collect()
    }

    /// True cost of what the roots need: every value and opening once. Nothing if a choice is missing or cyclic.
    pub fn cost_s(&self, choice: &Choice, roots: &[u32]) -> Option<f64> {
        Scratch::new(self.ids.len()).cost_s(self, choice, roots)
    }

    /// A cheap choice for the roots.
    pub fn extract(&self, roots: &[u32]) -> Choice {
        self.improved(self.greedy(), roots)
    }

    fn greedy(&self) -> Choice {
        let ranks = self.ranks();
        let mut users: Vec<Vec<u32>> = vec![Vec::new(); self.ids.len()];
        for (place, forms) in self.forms.iter().enumerate() {
            for operand in forms.iter().flat_map(|form| &form.operands) {
                users[*operand as usize].push(place as u32);
            }
        }
        let mut best: Vec<Option<Best>> = vec![None; self.ids.len()];
        let mut queue: BTreeSet<(u32, u32)> =
            (0..self.ids.len() as u32).map(|p| (ranks[p as usize], p)).collect();
        while let Some((_, place)) = queue.pop_first() {
            let found = (0..self.forms[place as usize].len() as u32)
                .filter_map(|form| self.evaluate(place, form, &best));
            let cheapest = found.reduce(|a, b| if b.cost() < a.cost() * (1.0 - MIN_GAIN) { b } else { a });
            let Some(cheapest) = cheapest else { continue };
            let is_better = match &best[place as usize] {
                Some(old) => cheapest.cost() < old.cost() * (1.0 - MIN_GAIN),
                None => true,
            };
            if is_better {
                best[place as usize] = Some(cheapest);
                queue.extend(users[place as usize].iter().map(|&user| (ranks[user as usize], user)));
            }
        }
        best.into_iter().map(|best| best.map(|best| best.form)).collect()
    }

    /// How deep each class's shallowest form is, so that operands are settled before users.
    fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![u32::MAX; self.ids.len()];
        loop {
            let mut changed = false;
            for place in 0..self.ids.len() {
                let rank = |form: &Form| {
                    form.operands.iter().map(|&o| ranks[o as usize].saturating_add(1)).max().unwrap_or(0)
                };
                let found = self.forms[place].iter().map(rank).min().unwrap_or(u32::MAX);
                if found < ranks[place] {
                    ranks[place] = found;
                    changed = true;
                }
            }
            if !changed {
                return ranks;
            }
        }
    }

    fn evaluate(&self, place: u32, form: u32, best: &[Option<Best>]) -> Option<Best> {
        let Form { operands, own_s, openings, .. } = &self.forms[place as usize][form as usize];
        let below: Vec<&Best> =
            operands.iter().map(|&operand| best[operand as usize].as_ref()).collect::<Option<_>>()?;
        let constant_s: f64 = below.iter().map(|best| best.constant_s).sum();
        if self.is_constant[place as usize] {
            let constant_s = constant_s + CONSTANT_S;
            return Some(Best { form, total_s: 0.0, constant_s, below: Rc::default() });
        }
        let mut items: Vec<(u32, f64)> = vec![(place, own_s + CONSTANT_S + constant_s)];
        let form_of = |place: u32| best[place as usize].as_ref().map(|best| best.form);
        for &(opened, cost_s) in openings {
            let key = self.ids.len() as u32 + self.mask_source(opened, &form_of);
            match items.iter_mut().find(|item| item.0 == key) {
                Some(item) => item.1 = cost_s.max(item.1),
                None => items.push((key, cost_s)),
            }
        }
        items.sort_unstable_by_key(|item| item.0);
        let mut united = items;
        for best in below {
            if best.below.binary_search_by_key(&place, |item| item.0).is_ok() {
                return None;
            }
            united = unite(&united, &best.below);
        }
        let total_s = united.iter().map(|item| item.1).sum();
        Some(Best { form, total_s, constant_s: 0.0, below: Rc::new(united) })
    }

    /// The class whose opening serves for that of `place`: itself, or what public linear work made it of.
    pub(super) fn mask_source(&self, mut place: u32, form_of: &dyn Fn(u32) -> Option<u32>) -> u32 {
        // A cyclic choice has no cost, but is asked for it.
        for _ in 0..self.ids.len() {
            let Some(form) = form_of(place) else { break };
            let Some(source) = self.forms[place as usize][form as usize].under_mask else { break };
            place = source;
        }
        place
    }

    fn improved(&self, choice: Choice, roots: &[u32]) -> Choice {
        let Some(mut tally) = Tally::new(self, choice.clone(), roots) else { return choice };
        for _ in 0..MAX_PASSES {
            let before_s = tally.cost_s();
            for place in tally.needed().to_vec() {
                if self.is_constant[place as usize] {
                    continue;
                }
                for form in 0..self.forms[place as usize].len() as u32 {
                    tally.improve(place, form);
                }
            }
            if tally.cost_s() >= before_s {
                break;
            }
        }
        let (kept_s, choice) = (tally.cost_s(), tally.into_choice());
        debug_assert!(
            self.cost_s(&choice, roots).is_some_and(|cost_s| (cost_s - kept_s).abs() <= 1e-6 * cost_s + 1e-9),
            "{kept_s} s were kept for {:?} s",
            self.cost_s(&choice, roots)
        );
        choice
    }
}

impl Best {
    fn cost(&self) -> f64 {
        self.total_s + self.constant_s
    }
}

/// The union of two sorted sets; of two costs of one thing the larger.
fn unite(a: &[(u32, f64)], b: &[(u32, f64)]) -> Vec<(u32, f64)> {
    let mut united = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (left, right) = (a[i], b[j]);
        united.push(match left.0.cmp(&right.0) {
            std::cmp::Ordering::Less => left,
            std::cmp::Ordering::Greater => right,
            std::cmp::Ordering::Equal => (left.0, left.1.max(right.1)),
        });
        i += usize::from(left.0 <= right.0);
        j += usize::from(right.0 <= left.0);
    }
    united.extend_from_slice(&a[i..]);
    united.extend_from_slice(&b[j..]);
    united
}

/// Reusable marks for walks over a choice.
pub(super) struct Scratch {
    /// 0 not seen, 1 on the path, 2 done; relative to `epoch`.
    marks: Vec<u64>,
    /// What was paid for opening a class, and for the openings that one of it could serve for.
    opened: Vec<(u64, f64)>,
    sources: Vec<(u64, f64)>,
    epoch: u64,
}

impl Scratch {
    pub(super) fn new(classes: usize) -> Scratch {
        let nothing = vec![(0, 0.0); classes];
        Scratch { marks: vec![0; classes], opened: nothing.clone(), sources: nothing, epoch: 0 }
    }

    fn cost_s(&mut self, forms: &Forms, choice: &Choice, roots: &[u32]) -> Option<f64> {
        let mut total_s = 0.0;
        let mut opened = std::mem::take(&mut self.opened);
        let mut sources = std::mem::take(&mut self.sources);
        let epoch = self.epoch + 3;
        let complete = self.walk(forms, choice, roots, &|_| false, &mut |_, form| {
            total_s += form.own_s;
            for &(place, cost_s) in &form.openings {
                let slot = &mut opened[place as usize];
                let paid_s = if slot.0 == epoch { slot.1 } else { 0.0 };
                *slot = (epoch, cost_s.max(paid_s));
                // One opening of the source, wide, or one of each result.
                let source = forms.mask_source(place, &|place| choice[place as usize]);
                let slot = &mut sources[source as usize];
                let before_s = if slot.0 == epoch { slot.1 } else { 0.0 };
                let sum_s = before_s + (cost_s - paid_s).max(0.0);
                *slot = (epoch, sum_s);
                let wide_s = forms.wide_s[source as usize];
                total_s += sum_s.min(wide_s) - before_s.min(wide_s);
            }
        });
        self.opened = opened;
        self.sources = sources;
        complete.then_some(total_s)
    }

    /// Visits what the roots need, operands first, except what is `settled`; whether the choice is complete and without
    /// cycles.
    pub(super) fn walk(
        &mut self,
        forms: &Forms,
        choice: &Choice,
        roots: &[u32],
        settled: &dyn Fn(u32) -> bool,
        visit: &mut dyn FnMut(u32, &Form),
    ) -> bool {
        self.epoch += 3;
        let (on_path, done) = (self.epoch + 1, self.epoch + 2);
        let mut path: Vec<(u32, &Form, usize)> = Vec::new();
        for &root in roots {
            let mut next = Some(root);
            loop {
                if let Some(place) = next.take() {
                    let mark = &mut self.marks[place as usize];
                    if *mark == on_path {
                        return false;
                    }
                    if *mark != done {
                        *mark = on_path;
                        let Some(form) = choice[place as usize] else { return false };
                        path.push((place, &forms.forms[place as usize][form as usize], 0));
                    }
                }
                let Some((place, form, position)) = path.last_mut() else { break };
                match form.operands.get(*position) {
                    Some(&operand) => {
                        *position += 1;
                        next = (!settled(operand)).then_some(operand);
                    }
                    None => {
                        self.marks[*place as usize] = done;
                        visit(*place, form);
                        path.pop();
                    }
                }
            }
        }
        true
    }
}
