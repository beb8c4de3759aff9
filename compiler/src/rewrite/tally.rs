//! What a choice of forms costs, kept while single choices change: only what a change touches is priced anew, so that
//! trying one takes no longer in a deep model than in a shallow one.

use std::collections::BTreeSet;

use super::extract::{Choice, Form, Forms, Scratch};

/// Smallest relative gain that counts; below it is rounding.
pub(super) const MIN_GAIN: f64 = 1e-12;

pub(super) struct Tally<'f> {
    forms: &'f Forms,
    roots: &'f [u32],
    choice: Choice,
    cost_s: f64,
    scratch: Scratch,
    /// Needed classes, operands first, and where in it each one is.
    needed: Vec<u32>,
    order: Vec<u32>,
    /// How often each class is an operand of a needed one, or a root.
    uses: Vec<u32>,
    /// For each class, what the needed forms that open it ask for.
    openings: Vec<Vec<f64>>,
    /// The class whose opening serves for an opened one's, the classes that each serves, and what it costs.
    source: Vec<Option<u32>>,
    served: Vec<BTreeSet<u32>>,
    source_s: Vec<f64>,
}

impl<'f> Tally<'f> {
    /// Of what the roots need; nothing if a choice is missing or cyclic.
    pub fn new(forms: &'f Forms, choice: Choice, roots: &'f [u32]) -> Option<Tally<'f>> {
        let classes = choice.len();
        let mut tally = Tally {
            forms,
            roots,
            choice,
            cost_s: 0.0,
            scratch: Scratch::new(classes),
            needed: Vec::new(),
            order: vec![0; classes],
            uses: vec![0; classes],
            openings: vec![Vec::new(); classes],
            source: vec![None; classes],
            served: vec![BTreeSet::new(); classes],
            source_s: vec![0.0; classes],
        };
        if !tally.arrange() {
            return None;
        }
        let mut touched = BTreeSet::new();
        let own_s = tally.add(roots.to_vec(), &mut touched);
        tally.cost_s = own_s + tally.reopen(touched);
        Some(tally)
    }

    /// Classes that the roots need, operands first.
    pub fn needed(&self) -> &[u32] {
        &self.needed
    }

    pub fn cost_s(&self) -> f64 {
        self.cost_s
    }

    /// The choice as it has become.
    pub fn into_choice(self) -> Choice {
        self.choice
    }

    /// Changes the form of a class if the whole becomes cheaper.
    pub fn improve(&mut self, place: u32, form: u32) {
        let Some(old) = self.choice[place as usize] else { return };
        if old == form || self.uses[place as usize] == 0 || !self.can_become(place, form) {
            return;
        }
        let gained_s = self.exchange(place, form);
        if self.cost_s + gained_s < self.cost_s * (1.0 - MIN_GAIN) {
            self.cost_s += gained_s;
            self.arrange();
        } else {
            self.exchange(place, old);
        }
    }

    fn form(&self, place: u32, form: u32) -> &'f Form {
        &self.forms.forms[place as usize][form as usize]
    }

    /// Puts what is needed in order; whether the choice is complete and without cycles.
    fn arrange(&mut self) -> bool {
        let mut needed = std::mem::take(&mut self.needed);
        needed.clear();
        let complete =
            self.scratch
                .walk(self.forms, &self.choice, self.roots, &|_| false, &mut |place, _| needed.push(place));
        for (at, &place) in needed.iter().enumerate() {
            self.order[place as usize] = at as u32;
        }
        self.needed = needed;
        complete
    }

    /// Whether a form is complete and does not depend on its own class.
    fn can_become(&mut self, place: u32, form: u32) -> bool {
        let old = self.choice[place as usize].replace(form);
        let (uses, order) = (&self.uses, &self.order);
        let is_before =
            |other: u32| uses[other as usize] > 0 && order[other as usize] < order[place as usize];
        let complete = self.scratch.walk(self.forms, &self.choice, &[place], &is_before, &mut |_, _| {});
        self.choice[place as usize] = old;
        complete
    }

    /// Changes the form of a needed class; what the whole costs more.
    fn exchange(&mut self, place: u32, form: u32) -> f64 {
        let Some(old) = self.choice[place as usize] else { return 0.0 };
        let (old, new) = (self.form(place, old), self.form(place, form));
        let mut touched = BTreeSet::new();
        if old.under_mask != new.under_mask {
            touched.clone_from(&self.served[self.mask_source(place) as usize]);
        }
        self.choice[place as usize] = Some(form);
        // What both need stays needed throughout.
        let mut own_s = self.pay(new, &mut touched) + self.add(new.operands.clone(), &mut touched);
        own_s -= self.refund(old, &mut touched) + self.remove(old.operands.clone(), &mut touched);
        own_s + self.reopen(touched)
    }

    fn mask_source(&self, place: u32) -> u32 {
        self.forms.mask_source(place, &|place| self.choice[place as usize])
    }

    /// Counts uses; the own cost of what has become needed. Classes whose openings change are `touched`.
    fn add(&mut self, mut used: Vec<u32>, touched: &mut BTreeSet<u32>) -> f64 {
        let mut own_s = 0.0;
        while let Some(place) = used.pop() {
            self.uses[place as usize] += 1;
            if self.uses[place as usize] == 1
                && let Some(form) = self.choice[place as usize]
            {
                let form = self.form(place, form);
                own_s += self.pay(form, touched);
                used.extend(&form.operands);
            }
        }
        own_s
    }

    /// As [`Self::add`], of what is needed no more.
    fn remove(&mut self, mut used: Vec<u32>, touched: &mut BTreeSet<u32>) -> f64 {
        let mut own_s = 0.0;
        while let Some(place) = used.pop() {
            self.uses[place as usize] -= 1;
            if self.uses[place as usize] == 0
                && let Some(form) = self.choice[place as usize]
            {
                let form = self.form(place, form);
                own_s += self.refund(form, touched);
                used.extend(&form.operands);
            }
        }
        own_s
    }

    fn pay(&mut self, form: &Form, touched: &mut BTreeSet<u32>) -> f64 {
        for &(place, cost_s) in &form.openings {
            self.openings[place as usize].push(cost_s);
            touched.insert(place);
        }
        form.own_s
    }

    fn refund(&mut self, form: &Form, touched: &mut BTreeSet<u32>) -> f64 {
        for &(place, cost_s) in &form.openings {
            let paid = &mut self.openings[place as usize];
            if let Some(at) = paid.iter().position(|paid_s| *paid_s == cost_s) {
                paid.swap_remove(at);
            }
            touched.insert(place);
        }
        form.own_s
    }

    /// Prices the openings of classes anew; what they cost more.
    fn reopen(&mut self, touched: BTreeSet<u32>) -> f64 {
        let mut sources = BTreeSet::new();
        for place in touched {
            let is_open = !self.openings[place as usize].is_empty();
            let source = is_open.then(|| self.mask_source(place));
            let before = std::mem::replace(&mut self.source[place as usize], source);
            if let Some(before) = before {
                self.served[before as usize].remove(&place);
            }
            if let Some(source) = source {
                self.served[source as usize].insert(place);
            }
            sources.extend(before.into_iter().chain(source));
        }
        let mut more_s = 0.0;
        for source in sources {
            // One opening of the source, wide, or one of each result.
            let one_s = |&place: &u32| self.openings[place as usize].iter().copied().fold(0.0, f64::max);
            let sum_s: f64 = self.served[source as usize].iter().map(one_s).sum();
            let cost_s = sum_s.min(self.forms.wide_s[source as usize]);
            more_s += cost_s - std::mem::replace(&mut self.source_s[source as usize], cost_s);
        }
        more_s
    }
}
