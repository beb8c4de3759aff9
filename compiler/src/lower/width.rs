//! Chooses every ring width: the smallest that all users of a value can work with.
//!
//! Needs flow from users to operands: truncation adds its shift, an opening for a product needs the product's ring, a
//! masked function needs its own few bits. Where a need would pass 64 bits, and where it is cheaper, the value is
//! opened in its own narrow ring and lifted.

use std::collections::BTreeSet;

use marill_program::schema::{self, Instruction};
use marill_program::two_party::digits::digit_count;
use marill_program::two_party::effort::Link;
use marill_program::{Network, Suite, Target, plan};

use super::draft::{Builder, Draft, Id, Kind, Operand, signed_bits};

/// Widest ring.
pub const MAX_WIDTH: u32 = 64;

/// Bits, each way, that a lift between two parties takes for each bit of its ring: its opening, and adding the mask's
/// parts.
const LIFT_BITS: f64 = 3.5;

/// Removes what no output needs, lifts where needs grow too wide, and writes the widths into the instructions.
///
/// # Errors
/// The value whose ring would have to be wider than 64 bits.
pub fn solve(builder: &mut Builder, network: Network, suite: Suite) -> Result<(), Id> {
    remove_dead(builder);
    let mut lifted = vec![false; builder.drafts.len()];
    let mut needs = loop {
        match needs(builder, &mut lifted) {
            Ok(needs) => break needs,
            Err(Overflow::Masked(id, needs)) => {
                let behind = lift_behind(builder, &needs, id).ok_or(id)? as usize;
                // What comes back is wider by itself: once lifted, lifting does not help.
                if std::mem::replace(&mut lifted[behind], true) {
                    return Err(id);
                }
            }
            Err(Overflow::Hopeless(id)) => return Err(id),
        }
    };
    lift_where_worthwhile(builder, &mut needs, &mut lifted, network, suite);
    insert_lifts(builder, &mut needs, &lifted);
    patch(builder, &needs);
    Ok(())
}

/// Bits that are needed of a value, and of what comes back where it is lifted.
#[derive(Clone, Copy)]
struct Need {
    own: u32,
    lifted: u32,
}

enum Overflow {
    /// This masked value cannot be lifted, but what is made of it may; the needs of all values behind it.
    Masked(Id, Vec<Need>),
    /// Nothing can be lifted here.
    Hopeless(Id),
}

fn remove_dead(builder: &mut Builder) {
    let mut live = vec![false; builder.drafts.len()];
    builder.outputs.iter().for_each(|o| live[o.value as usize] = true);
    for at in (0..live.len()).rev() {
        // An input stays: the program's inputs are the model's.
        live[at] |= matches!(builder.drafts[at].instruction, Instruction::Input(_));
        if live[at] {
            plan::arguments(&builder.drafts[at].instruction).iter().for_each(|&a| live[a as usize] = true);
        }
    }
    let order: Vec<Id> = (0..live.len() as Id).filter(|&i| live[i as usize]).collect();
    reorder(builder, &order);
}

/// Keeps the drafts of `order`, in that order, renumbering all uses.
pub fn reorder(builder: &mut Builder, order: &[Id]) {
    let mut renamed = vec![Id::MAX; builder.drafts.len()];
    for (new, &old) in order.iter().enumerate() {
        renamed[old as usize] = new as Id;
    }
    let mut drafts = Vec::with_capacity(order.len());
    for &old in order {
        let mut draft = builder.drafts[old as usize].clone();
        for_each_argument(&mut draft.instruction, |a| *a = renamed[*a as usize]);
        drafts.push(draft);
    }
    builder.drafts = drafts;
    builder.outputs.iter_mut().for_each(|o| o.value = renamed[o.value as usize]);
    builder.held.iter_mut().for_each(|(_, id)| *id = renamed[*id as usize]);
    builder.held.retain(|&(_, id)| id != Id::MAX);
}

/// Width needed of every value, users before operands; truncated values that could not be had otherwise become lifted.
fn needs(builder: &Builder, lifted: &mut [bool]) -> Result<Vec<Need>, Overflow> {
    let drafts = &builder.drafts;
    let mut asked = vec![0; drafts.len()];
    let mut needs = vec![Need { own: 0, lifted: 0 }; drafts.len()];
    for at in (0..drafts.len()).rev() {
        let draft = &drafts[at];
        let mut need = need(draft, asked[at], lifted[at]);
        if need.own.max(need.lifted) > MAX_WIDTH {
            return Err(Overflow::Hopeless(at as Id));
        }
        if let Instruction::Truncate(t) = &draft.instruction
            && need.own + t.shift > MAX_WIDTH
        {
            if draft.kind != Kind::Arithmetic {
                needs[at] = need;
                return Err(Overflow::Masked(at as Id, needs));
            }
            lifted[at] = true;
            need = self::need(draft, asked[at], true);
            if need.own + t.shift > MAX_WIDTH {
                return Err(Overflow::Hopeless(at as Id));
            }
        }
        needs[at] = need;
        demands(builder, at as Id, need.own, &mut |value, bits| {
            let asked = &mut asked[value as usize];
            *asked = bits.max(*asked);
        });
    }
    Ok(needs)
}

/// What is needed of a value of which its users ask for `asked` bits.
fn need(draft: &Draft, asked: u32, is_lifted: bool) -> Need {
    if !is_lifted {
        return Need { own: asked.max(draft.least_width), lifted: 0 };
    }
    let lifted = asked.max(1);
    Need { own: signed_bits(draft.bound, draft.frac).min(lifted).max(draft.least_width), lifted }
}

/// Calls `demand` with every value, and the bits of it, that `w` bits of value `at` take.
fn demands(builder: &Builder, at: Id, w: u32, demand: &mut dyn FnMut(Id, u32)) {
    let draft = builder.get(at);
    let operand = |which: usize| match draft.operands[which] {
        Operand::Wide => w,
        Operand::Narrow(bits) => bits.min(w),
    };
    match &draft.instruction {
        Instruction::Truncate(t) => demand(t.arg, w + t.shift),
        Instruction::Mul(p) | Instruction::MatMul(p) => {
            demand(p.a, operand(0));
            demand(p.b, operand(1));
        }
        Instruction::Square(s) => demand(s.arg, operand(0)),
        Instruction::SquareSum(s) => demand(s.arg, w),
        Instruction::BitProduct(b) => demand(b.arg, operand(0)),
        Instruction::Lift(l) => demand(l.arg, operand(0)),
        Instruction::Table(t) => demand(t.arg, t.low_bits + t.index_bits),
        Instruction::BitTable(t) => demand(t.arg, t.low_bits + t.index_bits),
        Instruction::Lines(l) => {
            let value = w.saturating_sub(l.slope_bits) + l.shift;
            let value = if let Operand::Narrow(bits) = draft.operands[0] { bits.min(value) } else { value };
            demand(l.arg, value.max(l.low_bits + l.index_bits));
        }
        Instruction::MaskProduct(p) => {
            demand(p.bits, p.bit + p.count);
            demand(p.arg, operand(0));
        }
        Instruction::BitToArithmetic(b) => demand(b.bits, b.bit + if b.count == 0 { w } else { b.count }),
        Instruction::OpenBits(o) => demand(o.arg, w),
        Instruction::Fourier(f) => demand(f.arg, f.period_bits),
        Instruction::Digits(d) => demand(d.arg, d.low_bits + d.width),
        Instruction::Reveal(r) => {
            let source = builder.get(r.arg);
            demand(r.arg, signed_bits(source.bound, source.frac));
        }
        Instruction::Add(b) | Instruction::Sub(b) => {
            demand(b.a, w);
            demand(b.b, w);
        }
        Instruction::Scale(s) if draft.kind == Kind::Arithmetic => {
            demand(s.arg, w.saturating_sub(s.spared_bits()).max(1));
        }
        Instruction::Scale(s) => demand(s.arg, w),
        Instruction::Sum(s) => demand(s.arg, w),
        Instruction::Place(p) => demand(p.arg, w),
        Instruction::Share(s) => demand(s.arg, w),
        Instruction::Open(o) => demand(o.arg, w),
        Instruction::Move(m) => {
            for &arg in &m.args {
                if !matches!(builder.get(arg).kind, Kind::Plain { .. }) {
                    demand(arg, w);
                }
            }
        }
        _ => {}
    }
}

/// Lifts values from the last on, and lets what it takes of those before it shrink.
fn lift_where_worthwhile(
    builder: &Builder,
    needs: &mut [Need],
    lifted: &mut [bool],
    network: Network,
    suite: Suite,
) {
    let mut users: Vec<Vec<Id>> = vec![Vec::new(); builder.drafts.len()];
    for at in 0..builder.drafts.len() as Id {
        demands(builder, at, 1, &mut |value, _| users[value as usize].push(at));
    }
    // Narrower operands make no later lift worthwhile that was not: each value is looked at once.
    for at in (0..builder.drafts.len() as Id).rev() {
        if lifted[at as usize] || !is_worthwhile_lift(builder, needs, at, network, suite) {
            continue;
        }
        lifted[at as usize] = true;
        let mut changed = BTreeSet::from([at]);
        while let Some(id) = changed.pop_last() {
            let mut asked = 0;
            for &user in &users[id as usize] {
                demands(builder, user, needs[user as usize].own, &mut |value, bits| {
                    asked = if value == id { bits.max(asked) } else { asked };
                });
            }
            let new = need(builder.get(id), asked, lifted[id as usize]);
            let old = std::mem::replace(&mut needs[id as usize], new);
            if new.own != old.own {
                demands(builder, id, new.own, &mut |value, _| {
                    changed.insert(value);
                });
            }
        }
    }
}

/// Whether a value costs more in the wide ring than a lift and its round: a truncated product of masked values, of matrices,
/// whose openings do, or, for two parties alone, of elements, whose correlations do; between them also what bits select.
fn is_worthwhile_lift(builder: &Builder, needs: &[Need], at: Id, network: Network, suite: Suite) -> bool {
    let draft = builder.get(at);
    let narrow = signed_bits(draft.bound, draft.frac);
    let spared = f64::from(needs[at as usize].own.saturating_sub(narrow));
    let (length, narrow) = (draft.len() as f64, f64::from(narrow));
    let both = |id: Id| builder.get(id).kind == Kind::Masked { to: Target::Both };
    let width = |id: Id| f64::from(needs[id as usize].own);
    let product = match &draft.instruction {
        Instruction::Truncate(t) => before_moves(builder, t.arg),
        Instruction::Add(_) if suite == Suite::TwoParty => at,
        _ => return false,
    };
    let lift = length * (LIFT_BITS * narrow + spared);
    let (saved, spent) = match &builder.get(product).instruction {
        Instruction::MatMul(p) if both(p.a) && both(p.b) => {
            let opened = (builder.get(p.a).len() + builder.get(p.b).len()) as f64;
            // Two parties alone send each part of the masks under encryption as well, whose modulus is as much wider.
            let sent = if suite == Suite::TwoParty { 2.0 } else { 1.0 };
            (sent * opened * spared, length * narrow)
        }
        // Each digit of the part that serves several elements, or each bit of the narrower, chooses among numbers of the
        // ring, and so does the carry of the other, in both directions.
        Instruction::Mul(p) if both(p.a) && both(p.b) && suite == Suite::TwoParty => {
            let all = builder.get(product).len().max(draft.len());
            let few = if builder.get(p.a).len() < builder.get(p.b).len() { p.a } else { p.b };
            let link = Link::new(network.kbits_per_second());
            let per = all / builder.get(few).len().max(1);
            let choices = match per {
                0 | 1 => width(p.a).min(width(p.b)),
                _ => f64::from(1 + digit_count(link, needs[few as usize].own, per, needs[at as usize].own)),
            };
            (all as f64 * choices * spared, lift)
        }
        Instruction::Square(q) if suite == Suite::TwoParty => (length * width(q.arg) * spared / 2.0, lift),
        // Each is lifted itself where it is wider than what it selects from, and its bit chooses numbers of the ring.
        Instruction::Add(_) => {
            let Some(saved) = selected_bits(builder, needs, at, spared) else { return false };
            (length * saved, lift)
        }
        _ => return false,
    };
    // A lift takes a round, in which so many bits could have passed.
    saved > spent + network.rtt_seconds / 2.0 * network.bandwidth_bits_per_second
}

/// Bits, each way, that an element of a sum of what bits select takes for `spared` bits of its ring; `None` of other sums.
fn selected_bits(builder: &Builder, needs: &[Need], id: Id, spared: f64) -> Option<f64> {
    let draft = builder.get(id);
    let of = |id: Id| selected_bits(builder, needs, id, spared);
    match &draft.instruction {
        Instruction::Add(b) => Some(of(b.a)? + of(b.b)?),
        Instruction::Scale(s) => of(s.arg),
        Instruction::BitProduct(b) => {
            let width = needs[b.arg as usize].own;
            let lift = if width < needs[id as usize].own { LIFT_BITS * f64::from(width) } else { 0.0 };
            Some(lift + 1.5 * spared)
        }
        Instruction::BitToArithmetic(_) => Some(spared / 2.0),
        _ if matches!(draft.kind, Kind::Known { .. }) => Some(0.0),
        _ => None,
    }
}

/// The first truncated value that is made of a masked one and would be narrower if it was lifted.
fn lift_behind(builder: &Builder, needs: &[Need], id: Id) -> Option<Id> {
    let mut is_behind = vec![false; builder.drafts.len()];
    is_behind[id as usize] = true;
    (id as usize + 1..builder.drafts.len()).map(|at| at as Id).find(|&at| {
        let draft = builder.get(at);
        let made = plan::arguments(&draft.instruction).iter().any(|&arg| is_behind[arg as usize]);
        is_behind[at as usize] = made;
        let is_truncated =
            draft.kind == Kind::Arithmetic && matches!(draft.instruction, Instruction::Truncate(_));
        made && is_truncated && signed_bits(draft.bound, draft.frac) < needs[at as usize].own
    })
}

/// What a value, or the first part of it, was before it was only moved.
fn before_moves(builder: &Builder, mut id: Id) -> Id {
    while let Instruction::Move(m) = &builder.get(id).instruction
        && let Some(arg) = m.args.first()
    {
        id = *arg;
    }
    id
}

/// Puts an opening and a lift behind each lifted value; its users get what comes back.
fn insert_lifts(builder: &mut Builder, needs: &mut Vec<Need>, lifted: &[bool]) {
    let (mut own, mut back) = (Vec::with_capacity(lifted.len()), Vec::with_capacity(lifted.len()));
    let mut next = 0;
    for &is_lifted in lifted {
        own.push(next);
        back.push(if is_lifted { next + 2 } else { next });
        next += if is_lifted { 3 } else { 1 };
    }
    let drafts = std::mem::take(&mut builder.drafts);
    let old_needs = std::mem::take(needs);
    for (at, (mut draft, need)) in drafts.into_iter().zip(old_needs).enumerate() {
        for_each_argument(&mut draft.instruction, |a| *a = back[*a as usize]);
        if !lifted[at] {
            builder.drafts.push(draft);
            needs.push(need);
            continue;
        }
        let bits = signed_bits(draft.bound, draft.frac);
        let added = |instruction, kind, operand| Draft {
            instruction,
            kind,
            operands: [operand; 2],
            least_width: 1,
            ..draft.clone()
        };
        let place = own[at];
        let open = Instruction::Open(schema::Open { arg: place, to: Target::Both as i32, width: 0 });
        let opened = added(open, Kind::Masked { to: Target::Both }, Operand::Wide);
        let lift = Instruction::Lift(schema::Lift { arg: place + 1, width: 0 });
        let lift = added(lift, Kind::Arithmetic, Operand::Narrow(bits));
        builder.drafts.extend([draft, opened, lift]);
        let of_added = [bits.min(need.lifted), need.lifted].map(|own| Need { own, lifted: 0 });
        needs.extend([need].into_iter().chain(of_added));
    }
    builder.outputs.iter_mut().for_each(|o| o.value = back[o.value as usize]);
    builder.held.iter_mut().for_each(|(_, held)| *held = own[*held as usize]);
}

/// The ring of a masked value: what is made under a mask can have a wider one than it needs.
fn masked_width(builder: &Builder, needs: &[Need], id: Id) -> u32 {
    let (need, draft) = (needs[id as usize].own, builder.get(id));
    let of = |arg: Id| masked_width(builder, needs, arg);
    if !matches!(draft.kind, Kind::Masked { .. }) {
        return need;
    }
    match &draft.instruction {
        Instruction::Truncate(t) => of(t.arg).saturating_sub(t.shift),
        Instruction::Scale(s) => of(s.arg),
        Instruction::Place(p) => of(p.arg),
        Instruction::Add(b) | Instruction::Sub(b) => of(b.a).min(of(b.b)),
        Instruction::Move(m) => m.args.first().map_or(need, |&arg| of(arg)),
        _ => need,
    }
}

fn patch(builder: &mut Builder, needs: &[Need]) {
    for at in 0..builder.drafts.len() {
        let need = needs[at].own;
        let lifted = match builder.drafts[at].instruction {
            Instruction::Lift(ref lift) => masked_width(builder, needs, lift.arg),
            _ => 0,
        };
        match &mut builder.drafts[at].instruction {
            Instruction::Encode(e) => e.width = need,
            Instruction::Weight(w) => w.width = need,
            Instruction::Mul(p) | Instruction::MatMul(p) => p.width = need,
            Instruction::Square(s) => s.width = need,
            Instruction::SquareSum(s) => s.width = need,
            Instruction::Open(o) => o.width = need,
            Instruction::Lift(l) => l.width = need.max(lifted),
            Instruction::Table(t) => t.width = need,
            Instruction::Fourier(f) => f.width = need,
            Instruction::BitProduct(b) => b.width = need,
            Instruction::BitToArithmetic(b) => {
                b.width = need;
                b.count = if b.count == 0 { need } else { b.count };
            }
            Instruction::OpenBits(o) if o.width == 0 => o.width = need,
            Instruction::Lines(l) => l.value_bits = need.saturating_sub(l.slope_bits),
            Instruction::MaskProduct(p) => p.width = need,
            Instruction::OneHot(o) => o.width = need,
            _ => {}
        }
    }
}

/// Calls `f` on every value that an instruction uses.
fn for_each_argument(instruction: &mut Instruction, mut f: impl FnMut(&mut Id)) {
    match instruction {
        Instruction::Input(_) | Instruction::Constant(_) => {}
        Instruction::Plain(p) => p.args.iter_mut().for_each(f),
        Instruction::Move(m) => m.args.iter_mut().for_each(f),
        Instruction::Encode(e) => f(&mut e.arg),
        Instruction::Weight(w) => f(&mut w.arg),
        Instruction::Share(s) => f(&mut s.arg),
        Instruction::Add(b) | Instruction::Sub(b) => {
            f(&mut b.a);
            f(&mut b.b);
        }
        Instruction::Scale(s) => f(&mut s.arg),
        Instruction::Mul(p) | Instruction::MatMul(p) => {
            f(&mut p.a);
            f(&mut p.b);
        }
        Instruction::Square(s) => f(&mut s.arg),
        Instruction::SquareSum(s) => f(&mut s.arg),
        Instruction::Sum(s) => f(&mut s.arg),
        Instruction::Place(p) => {
            f(&mut p.arg);
            f(&mut p.indices);
        }
        Instruction::Truncate(t) => f(&mut t.arg),
        Instruction::Open(o) => f(&mut o.arg),
        Instruction::Lift(l) => f(&mut l.arg),
        Instruction::Table(t) => f(&mut t.arg),
        Instruction::Fourier(t) => f(&mut t.arg),
        Instruction::BitTable(t) => f(&mut t.arg),
        Instruction::Lines(l) => f(&mut l.arg),
        Instruction::MaskProduct(p) => {
            f(&mut p.bits);
            f(&mut p.arg);
        }
        Instruction::Digits(d) => f(&mut d.arg),
        Instruction::OpenBits(o) => f(&mut o.arg),
        Instruction::Compare(c) => {
            f(&mut c.digits);
            f(&mut c.opened);
        }
        Instruction::BitProduct(b) => {
            f(&mut b.bits);
            f(&mut b.arg);
        }
        Instruction::BitToArithmetic(b) => f(&mut b.bits),
        Instruction::OneHot(o) => f(&mut o.arg),
        Instruction::Reveal(r) => f(&mut r.arg),
    }
}
