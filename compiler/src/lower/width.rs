//! Chooses every ring width: the smallest that all users of a value can work with.
//!
//! Needs flow from users to operands: truncation adds its shift, an opening for a product needs the product's ring, a
//! masked function needs its own few bits. Where a need would pass 64 bits, and where it is cheaper, the value is
//! opened in its own narrow ring and lifted.

use marill_program::schema::{self, Instruction};
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
    // A lift takes a round, in which so many bits could have passed.
    let round_bits = network.rtt_seconds / 2.0 * network.bandwidth_bits_per_second;
    remove_dead(builder);
    // Each value is lifted at most once: what comes back is wider by itself.
    let mut left = builder.drafts.len();
    loop {
        let (id, reason) = match needs(builder) {
            Ok(needs) => match worthwhile_lift(builder, &needs, round_bits, suite) {
                Some(id) => (id, id),
                None => {
                    patch(builder, &needs);
                    return Ok(());
                }
            },
            Err(Overflow::At(id)) => (id, id),
            Err(Overflow::Masked(id, needs)) => (lift_behind(builder, &needs, id).ok_or(id)?, id),
            Err(Overflow::Hopeless(id)) => return Err(id),
        };
        left = left.checked_sub(1).ok_or(reason)?;
        insert_lift(builder, id);
    }
}

enum Overflow {
    /// This truncated value must be lifted.
    At(Id),
    /// This masked value cannot be lifted, but what is made of it may; the needs of all values behind it.
    Masked(Id, Vec<u32>),
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

/// Width needed of every value.
fn needs(builder: &Builder) -> Result<Vec<u32>, Overflow> {
    let drafts = &builder.drafts;
    let mut needs: Vec<u32> = drafts.iter().map(|d| d.least_width).collect();
    for at in (0..drafts.len()).rev() {
        let draft = &drafts[at];
        let w = needs[at];
        if w > MAX_WIDTH {
            return Err(Overflow::Hopeless(at as Id));
        }
        let mut demand = |value: Id, bits: u32| {
            let need = &mut needs[value as usize];
            *need = (*need).max(bits);
        };
        let operand = |which: usize| match draft.operands[which] {
            Operand::Wide => w,
            Operand::Narrow(bits) => bits.min(w),
        };
        match &draft.instruction {
            Instruction::Truncate(t) => {
                if w + t.shift > MAX_WIDTH {
                    let is_shared = draft.kind == Kind::Arithmetic;
                    return Err(if is_shared {
                        Overflow::At(at as Id)
                    } else {
                        Overflow::Masked(at as Id, needs)
                    });
                }
                demand(t.arg, w + t.shift);
            }
            Instruction::Mul(p) | Instruction::MatMul(p) => {
                demand(p.a, operand(0));
                demand(p.b, operand(1));
            }
            Instruction::Square(s) => demand(s.arg, operand(0)),
            Instruction::BitProduct(b) => demand(b.arg, operand(0)),
            Instruction::Lift(l) => demand(l.arg, operand(0)),
            Instruction::Table(t) => demand(t.arg, t.low_bits + t.index_bits),
            Instruction::BitTable(t) => demand(t.arg, t.low_bits + t.index_bits),
            Instruction::Fourier(f) => demand(f.arg, f.period_bits),
            Instruction::Digits(d) => demand(d.arg, d.low_bits + d.width),
            Instruction::Reveal(r) => {
                let source = &drafts[r.arg as usize];
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
                    if !matches!(drafts[arg as usize].kind, Kind::Plain { .. }) {
                        demand(arg, w);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(needs)
}

/// A truncated product of masked values that costs more in the wide ring than a lift and its round: of matrices, whose
/// openings do; for two parties alone, of elements, whose correlations do.
fn worthwhile_lift(builder: &Builder, needs: &[u32], round_bits: f64, suite: Suite) -> Option<Id> {
    (0..builder.drafts.len() as Id).rev().find(|&at| {
        let draft = builder.get(at);
        let Instruction::Truncate(t) = &draft.instruction else { return false };
        let narrow = signed_bits(draft.bound, draft.frac);
        let spared = f64::from(needs[at as usize].saturating_sub(narrow));
        let (length, narrow) = (draft.len() as f64, f64::from(narrow));
        let both = |id: Id| builder.get(id).kind == Kind::Masked { to: Target::Both };
        let width = |id: Id| f64::from(needs[id as usize]);
        let (saved, spent) = match &builder.get(before_moves(builder, t.arg)).instruction {
            Instruction::MatMul(p) if both(p.a) && both(p.b) => {
                let opened = (builder.get(p.a).len() + builder.get(p.b).len()) as f64;
                (opened * spared, length * narrow)
            }
            // Each bit of the narrower part chooses among numbers of the ring, in both directions.
            Instruction::Mul(p) if both(p.a) && both(p.b) && suite == Suite::TwoParty => {
                let chosen = length * width(p.a).min(width(p.b)) * spared;
                (chosen, length * (LIFT_BITS * narrow + spared))
            }
            Instruction::Square(q) if suite == Suite::TwoParty => {
                (length * width(q.arg) * spared / 2.0, length * (LIFT_BITS * narrow + spared))
            }
            _ => return false,
        };
        saved > spent + round_bits
    })
}

/// The first truncated value that is made of a masked one and would be narrower if it was lifted.
fn lift_behind(builder: &Builder, needs: &[u32], id: Id) -> Option<Id> {
    let mut is_behind = vec![false; builder.drafts.len()];
    is_behind[id as usize] = true;
    (id as usize + 1..builder.drafts.len()).map(|at| at as Id).find(|&at| {
        let draft = builder.get(at);
        let made = plan::arguments(&draft.instruction).iter().any(|&arg| is_behind[arg as usize]);
        is_behind[at as usize] = made;
        let is_truncated =
            draft.kind == Kind::Arithmetic && matches!(draft.instruction, Instruction::Truncate(_));
        made && is_truncated && signed_bits(draft.bound, draft.frac) < needs[at as usize]
    })
}

/// What a value was before it was only moved.
fn before_moves(builder: &Builder, mut id: Id) -> Id {
    while let Instruction::Move(m) = &builder.get(id).instruction
        && let [arg] = m.args[..]
    {
        id = arg;
    }
    id
}

/// Puts an opening and a lift behind `id`; its users get the lifted value.
fn insert_lift(builder: &mut Builder, id: Id) {
    let source = builder.get(id).clone();
    let bits = signed_bits(source.bound, source.frac);
    let open = Instruction::Open(schema::Open { arg: id, to: Target::Both as i32, width: 0 });
    let lift = Instruction::Lift(schema::Lift { arg: id + 1, width: 0 });
    let added = |instruction, kind, operand| Draft {
        instruction,
        kind,
        operands: [operand; 2],
        least_width: 1,
        ..source.clone()
    };
    let masked = added(open, Kind::Masked { to: Target::Both }, Operand::Wide);
    let lifted = added(lift, Kind::Arithmetic, Operand::Narrow(bits));
    let (first, second) = (id as usize + 1, id as usize + 2);
    for draft in &mut builder.drafts[first..] {
        for_each_argument(&mut draft.instruction, |a| {
            if *a >= id {
                *a += 2;
            }
        });
    }
    builder.outputs.iter_mut().filter(|o| o.value >= id).for_each(|o| o.value += 2);
    builder.held.iter_mut().filter(|(_, held)| *held > id).for_each(|(_, held)| *held += 2);
    builder.drafts.insert(first, masked);
    builder.drafts.insert(second, lifted);
}

/// The ring of a masked value: what is made under a mask can have a wider one than it needs.
fn masked_width(builder: &Builder, needs: &[u32], id: Id) -> u32 {
    let (need, draft) = (needs[id as usize], builder.get(id));
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

fn patch(builder: &mut Builder, needs: &[u32]) {
    for at in 0..builder.drafts.len() {
        let lifted = match builder.drafts[at].instruction {
            Instruction::Lift(ref lift) => masked_width(builder, needs, lift.arg),
            _ => 0,
        };
        match &mut builder.drafts[at].instruction {
            Instruction::Encode(e) => e.width = needs[at],
            Instruction::Weight(w) => w.width = needs[at],
            Instruction::Mul(p) | Instruction::MatMul(p) => p.width = needs[at],
            Instruction::Square(s) => s.width = needs[at],
            Instruction::Open(o) => o.width = needs[at],
            Instruction::Lift(l) => l.width = needs[at].max(lifted),
            Instruction::Table(t) => t.width = needs[at],
            Instruction::Fourier(f) => f.width = needs[at],
            Instruction::BitProduct(b) => b.width = needs[at],
            Instruction::BitToArithmetic(b) => b.width = needs[at],
            Instruction::OneHot(o) => o.width = needs[at],
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
