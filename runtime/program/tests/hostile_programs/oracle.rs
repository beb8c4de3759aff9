//! Who receives what, message by message: an interpreter of programs in which every number is the set of secrets and
//! masks that went into it.

use std::collections::BTreeSet;

use marill_plaintext::Op;
use marill_program::schema::{Instruction as I, Program};
use marill_program::{Owner, Target};

/// Something that a number may carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Atom {
    Client,
    Server,
    Public,
    /// The mask of an opening, drawn by the client or the server.
    Mask(usize, bool),
}

type Atoms = BTreeSet<Atom>;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Tensor,
    Ring,
    Weight,
    Shares,
    Bits,
    Masked,
    MaskedBits,
}

/// A value: what each party holds of it, and what it is in truth.
#[derive(Clone, Debug)]
struct Value {
    kind: Kind,
    client: Option<Atoms>,
    server: Option<Atoms>,
    truth: Atoms,
}

/// What a party was told without a mask.
#[derive(Clone, Debug)]
pub struct Told {
    pub at: usize,
    pub to_client: bool,
    pub truth: Atoms,
}

/// Interprets `program`. `Err` where a party lacks what an instruction needs, or a message goes out unmasked that is no
/// reveal; otherwise what was told.
pub fn interpret(program: &Program) -> Result<Vec<Told>, String> {
    let (mut values, mut told) = (Vec::<Value>::new(), Vec::new());
    let mut used = BTreeSet::new();
    for (at, step) in program.instructions.iter().enumerate() {
        let instruction = step.instruction.as_ref().ok_or("no instruction")?;
        let get = |v: u32| values.get(v as usize).cloned().ok_or(format!("{at}: no value {v}"));
        let want = |v: u32, kinds: &[Kind]| {
            let value = get(v)?;
            if kinds.contains(&value.kind) {
                Ok(value)
            } else {
                Err(format!("{at}: {v} is {:?}", value.kind))
            }
        };
        // Made of correlations that are fresh: neither share tells anything.
        let correlated =
            |kind, truth| Value { kind, client: Some(Atoms::new()), server: Some(Atoms::new()), truth };
        let merged = |kind, a: &Value, b: &Value| {
            let both = |x: &Option<Atoms>, y: &Option<Atoms>| {
                Some(x.as_ref()?.union(y.as_ref()?).copied().collect())
            };
            Value {
                kind,
                client: both(&a.client, &b.client),
                server: both(&a.server, &b.server),
                truth: a.truth.union(&b.truth).copied().collect(),
            }
        };
        // A party without a number counts it as zero.
        let as_shares = |v: u32| {
            let value = want(v, &[Kind::Shares, Kind::Ring])?;
            let or_zero = |part: Option<Atoms>| Some(part.unwrap_or_default());
            let (client, server) = (or_zero(value.client), or_zero(value.server));
            Ok::<Value, String>(Value { kind: Kind::Shares, client, server, truth: value.truth })
        };
        let at_both = |v: u32, kind: Kind| {
            let value = want(v, &[kind])?;
            if value.client.is_some() && value.server.is_some() {
                Ok(value)
            } else {
                Err(format!("{at}: not at both"))
            }
        };
        let constant_positions = |v: u32| {
            let value = at_both(v, Kind::Tensor)?;
            if value.truth.is_empty() { Ok(()) } else { Err(format!("{at}: positions tell")) }
        };
        let constant_ring = |v: u32| {
            let value = at_both(v, Kind::Ring)?;
            if value.truth.is_empty() { Ok(()) } else { Err(format!("{at}: a factor tells")) }
        };
        let value = match instruction {
            I::Input(i) => secret(Owner::try_from(i.owner).map_err(|e| e.to_string())?),
            I::Constant(c) => match Owner::try_from(c.owner).map_err(|e| e.to_string())? {
                Owner::Public => correlated(Kind::Tensor, Atoms::new()),
                Owner::Server => secret(Owner::Server),
                Owner::Client => return Err("a constant of the client".to_owned()),
            },
            I::Plain(p) => {
                let mut all = correlated(Kind::Tensor, Atoms::new());
                for &v in &p.args {
                    all = merged(Kind::Tensor, &all, &want(v, &[Kind::Tensor])?);
                }
                if all.client.is_none() && all.server.is_none() {
                    return Err(format!("{at}: nobody can compute it"));
                }
                all
            }
            I::Encode(e) => Value { kind: Kind::Ring, ..want(e.arg, &[Kind::Tensor])? },
            I::Weight(w) => {
                let value = want(w.arg, &[Kind::Tensor])?;
                if value.client.is_some() || value.truth.contains(&Atom::Client) {
                    return Err(format!("{at}: no weight of the server"));
                }
                Value { kind: Kind::Weight, client: Some(Atoms::new()), ..value }
            }
            I::Share(s) => {
                want(s.arg, &[Kind::Ring])?;
                as_shares(s.arg)?
            }
            I::Add(b) | I::Sub(b) => {
                let (x, y) = (get(b.a)?, get(b.b)?);
                let is_sum = matches!(instruction, I::Add(_));
                if x.kind == Kind::Masked {
                    constant_ring(b.b)?;
                    at_both(b.a, Kind::Masked)?
                } else if y.kind == Kind::Masked && is_sum {
                    constant_ring(b.a)?;
                    at_both(b.b, Kind::Masked)?
                } else if x.kind == Kind::Bits && y.kind == Kind::Bits && is_sum {
                    merged(Kind::Bits, &x, &y)
                } else if x.kind != Kind::Shares && y.kind != Kind::Shares {
                    return Err(format!("{at}: no shares"));
                } else {
                    merged(Kind::Shares, &as_shares(b.a)?, &as_shares(b.b)?)
                }
            }
            I::Scale(_) | I::Sum(_) | I::Truncate(_) => {
                let v = match instruction {
                    I::Scale(s) => s.arg,
                    I::Sum(s) => s.arg,
                    I::Truncate(t) => t.arg,
                    _ => unreachable!(),
                };
                if get(v)?.kind == Kind::Masked && !matches!(instruction, I::Sum(_)) {
                    at_both(v, Kind::Masked)?
                } else {
                    want(v, &[Kind::Shares])?
                }
            }
            I::Mul(p) | I::MatMul(p) => {
                let (x, y) = (get(p.a)?, get(p.b)?);
                match (x.kind, y.kind) {
                    (Kind::Shares, Kind::Ring) => merged(Kind::Shares, &x, &at_both(p.b, Kind::Ring)?),
                    (Kind::Ring, Kind::Shares) => merged(Kind::Shares, &y, &at_both(p.a, Kind::Ring)?),
                    (Kind::Masked, Kind::Weight) if x.server.is_some() && x.client.is_none() => {
                        correlated(Kind::Shares, merged(Kind::Shares, &x, &y).truth)
                    }
                    (Kind::Masked, Kind::Ring) if matches!(instruction, I::MatMul(_)) => {
                        constant_ring(p.b)?;
                        at_both(p.a, Kind::Masked)?
                    }
                    (Kind::Masked, Kind::Masked) => {
                        let (x, y) = (at_both(p.a, Kind::Masked)?, at_both(p.b, Kind::Masked)?);
                        correlated(Kind::Shares, merged(Kind::Shares, &x, &y).truth)
                    }
                    other => return Err(format!("{at}: {other:?}")),
                }
            }
            I::Square(_)
            | I::SquareSum(_)
            | I::Lift(_)
            | I::Table(_)
            | I::Fourier(_)
            | I::OneHot(_)
            | I::BitTable(_)
            | I::Lines(_)
            | I::Digits(_) => {
                let v = marill_program::plan::arguments(instruction)[0];
                let bits = matches!(instruction, I::BitTable(_) | I::Lines(_) | I::Digits(_));
                correlated(if bits { Kind::Bits } else { Kind::Shares }, at_both(v, Kind::Masked)?.truth)
            }
            I::Move(m) => {
                let first = get(*m.args.first().ok_or("moves nothing")?)?;
                if matches!(first.kind, Kind::Tensor | Kind::Weight) {
                    return Err(format!("{at}: moves {:?}", first.kind));
                }
                let gather = matches!(m.op.parse(), Ok(Op::Gather { .. }));
                let mut all = first;
                for &v in &m.args[1..] {
                    if gather {
                        constant_positions(v)?;
                        continue;
                    }
                    let other = want(v, &[all.kind])?;
                    let same = (other.client.is_some(), other.server.is_some())
                        == (all.client.is_some(), all.server.is_some());
                    if !same {
                        return Err(format!("{at}: parts at different parties"));
                    }
                    let (client, server) = (all.client.is_some(), all.server.is_some());
                    all = merged(all.kind, &all, &other);
                    assert_eq!((client, server), (all.client.is_some(), all.server.is_some()));
                }
                all
            }
            I::Place(p) => {
                constant_positions(p.indices)?;
                want(p.arg, &[Kind::Shares, Kind::Masked])?
            }
            I::Open(_) | I::OpenBits(_) => {
                let (shares, to, kind) = match instruction {
                    I::Open(o) => (as_shares(o.arg)?, target(o.to)?, Kind::Masked),
                    I::OpenBits(o) => (want(o.arg, &[Kind::Bits])?, Target::Both, Kind::MaskedBits),
                    _ => unreachable!(),
                };
                for (receives, by_client) in [(to.includes_server(), true), (to.includes_client(), false)] {
                    if receives {
                        let mask = Atom::Mask(at, by_client);
                        assert!(used.insert(mask), "{mask:?} masks twice");
                    }
                }
                let opened = |receives: bool| receives.then(Atoms::new);
                let (client, server) = (opened(to.includes_client()), opened(to.includes_server()));
                Value { kind, client, server, truth: shares.truth }
            }
            I::Compare(c) => {
                let (bits, opened) = (want(c.digits, &[Kind::Bits])?, at_both(c.opened, Kind::MaskedBits)?);
                correlated(Kind::Bits, bits.truth.union(&opened.truth).copied().collect())
            }
            I::BitProduct(b) => {
                let (bits, x) = (at_both(b.bits, Kind::MaskedBits)?, at_both(b.arg, Kind::Masked)?);
                correlated(Kind::Shares, bits.truth.union(&x.truth).copied().collect())
            }
            I::MaskProduct(p) => {
                let (bits, x) = (at_both(p.bits, Kind::MaskedBits)?, at_both(p.arg, Kind::Masked)?);
                correlated(Kind::Shares, bits.truth.union(&x.truth).copied().collect())
            }
            I::BitToArithmetic(b) => correlated(Kind::Shares, at_both(b.bits, Kind::MaskedBits)?.truth),
            I::Reveal(r) => {
                let (shares, to) = (as_shares(r.arg)?, target(r.to)?);
                for (receives, to_client) in [(to.includes_client(), true), (to.includes_server(), false)] {
                    if receives {
                        told.push(Told { at, to_client, truth: shares.truth.clone() });
                    }
                }
                let learns = |receives: bool| receives.then(|| shares.truth.clone());
                let (client, server) = (learns(to.includes_client()), learns(to.includes_server()));
                Value { kind: Kind::Tensor, client, server, truth: shares.truth }
            }
        };
        values.push(value);
    }
    Ok(told)
}

fn secret(owner: Owner) -> Value {
    let atom = match owner {
        Owner::Public => Atom::Public,
        Owner::Client => Atom::Client,
        Owner::Server => Atom::Server,
    };
    let truth = Atoms::from([atom]);
    let (client, server) = (owner != Owner::Server, owner != Owner::Client);
    Value {
        kind: Kind::Tensor,
        client: client.then(|| truth.clone()),
        server: server.then(|| truth.clone()),
        truth,
    }
}

fn target(to: i32) -> Result<Target, String> {
    Target::try_from(to).map_err(|error| error.to_string())
}
