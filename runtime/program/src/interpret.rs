//! The program's exact ring arithmetic in the clear: every mask is zero, no cryptography.
//!
//! A run differs from this only by the carries of truncation (at most one unit in the last place each) and by which
//! of two adjoining pieces a masked function used. Shares are not reduced to their rings here, so that a value that
//! would have wrapped is seen at its true size: see [`Headroom`].

use std::collections::BTreeMap;

use marill_kernels::elements::by_blocks;
use marill_kernels::matmul::{MatShape, Way, matmul_with};
use marill_kernels::threads::threads;
use marill_plaintext::{Op, OpError, Tensor, evaluate};

use crate::correlation::first_carry;
use crate::fixed::{decode, encode, signed};
use crate::plan::{Plan, arguments};
use crate::ring::{Ring, movement};
use crate::schema::{self, Instruction};
use crate::tables;
use crate::validate::ValidProgram;
use crate::value::Form;

/// Why an interpretation stopped.
#[derive(Debug, thiserror::Error)]
pub enum InterpretError {
    /// No value for an input.
    #[error("input '{name}' ({expected}) is missing")]
    MissingInput { name: String, expected: String },
    /// An input or constant of another type.
    #[error("'{name}' is {found}, the program needs {expected}")]
    WrongType { name: String, found: String, expected: String },
    /// A constant that could not be read.
    #[error("constant '{name}' could not be read: {reason}")]
    Constant { name: String, reason: String },
    /// A clear value outside its ring.
    #[error("value {at} has an element {value}, outside the ring of {width} bits with {frac} fraction bits")]
    OutOfRing { at: usize, value: f64, width: u32, frac: u32 },
    /// A clear-text operation failed.
    #[error("instruction {at}: {source}")]
    Op { at: usize, source: OpError },
}

/// How much of its ring an opened value used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headroom {
    /// The opening instruction.
    pub at: u32,
    /// Ring bits.
    pub width: u32,
    /// Largest magnitude seen, in the value's own units.
    pub max_abs: f64,
    /// Bits between the largest magnitude and what the value's users allow (a quarter of the ring where one of them
    /// lifts it, else half, or the domain of an exponential); negative when it did not fit.
    pub spare_bits: f64,
}

/// What an interpretation yields.
#[derive(Debug)]
pub struct Interpretation {
    /// The declared outputs, by name.
    pub outputs: BTreeMap<String, Tensor>,
    /// The use of its ring by everything that is opened or revealed, in order.
    pub headroom: Vec<Headroom>,
}

enum Value {
    Plain(Tensor),
    Ring(Ring),
    /// A weight, encoded panel by panel where it is used: it may be the largest thing there is.
    Weight(Weight),
}

struct Weight {
    tensor: Tensor,
    at: usize,
    width: u32,
    frac: u32,
}

impl Weight {
    /// Elements of one panel of a matrix.
    const PANEL: usize = 1 << 20;

    fn encode(&self) -> Result<Ring, InterpretError> {
        encode_tensor(&self.tensor, self.at, self.width, self.frac)
    }

    /// `x W` for a matrix W. Rows of W that meet nothing but zeros, as most do in a look-up, are left out.
    fn product(&self, x: &Ring, shape: &[usize]) -> Result<Ring, InterpretError> {
        let (inner, columns) = (self.tensor.shape()[0], self.tensor.shape()[1]);
        let mut used = vec![false; inner];
        for row in x.data.chunks_exact(inner.max(1)) {
            used.iter_mut().zip(row).for_each(|(used, &v)| *used |= v != 0);
        }
        let used: Vec<i64> = (0..inner as i64).filter(|&i| used[i as usize]).collect();
        let step = (Weight::PANEL / columns.max(1)).max(1);
        let mut result = Ring::zeros(shape);
        for panels in used.chunks(step * threads()) {
            let parts = std::thread::scope(|scope| {
                let spawn = |rows| scope.spawn(move || self.panel(x, inner, rows));
                let workers: Vec<_> = panels.chunks(step).map(spawn).collect();
                workers
                    .into_iter()
                    .map(|worker| worker.join().expect("it does not panic"))
                    .collect::<Vec<_>>()
            });
            for part in parts {
                result.data.iter_mut().zip(part?).for_each(|(sum, v)| *sum = sum.wrapping_add(v));
            }
        }
        Ok(result)
    }

    /// The share of some rows of W in the product, on this thread.
    fn panel(&self, x: &Ring, inner: usize, rows: &[i64]) -> Result<Vec<u64>, InterpretError> {
        let op = |source| InterpretError::Op { at: self.at, source };
        let indices = Tensor::i64([rows.len()], rows.to_vec()).map_err(op)?;
        let panel = evaluate(&Op::Gather { axis: 0 }, &[&self.tensor, &indices]).map_err(op)?;
        let panel = encode_tensor(&panel, self.at, self.width, self.frac)?;
        let part: Vec<u64> =
            x.data.chunks_exact(inner).flat_map(|row| rows.iter().map(|&i| row[i as usize])).collect();
        let shape = MatShape { n: x.len() / inner, k: rows.len(), m: self.tensor.shape()[1] };
        let mut product = vec![0; shape.n * shape.m];
        matmul_with(Way { threads: 1, ..Way::fastest(64) }, &part, &panel.data, &mut product, shape);
        Ok(product)
    }
}

/// Runs `program` on `inputs` with constants from `constant`.
///
/// # Errors
/// A missing or ill-typed input or constant, or an input outside its ring.
pub fn interpret(
    program: &ValidProgram,
    inputs: &BTreeMap<String, Tensor>,
    constant: &mut dyn FnMut(&str) -> Result<Tensor, String>,
) -> Result<Interpretation, InterpretError> {
    let last_use = lifetimes(program);
    let (limits, measured) = (limits(program), measured(program));
    let mut deferred = vec![false; program.len()];
    Plan::new(program).setup.into_iter().for_each(|at| deferred[at as usize] = true);
    let mut values: Vec<Option<Value>> = (0..program.len()).map(|_| None).collect();
    let depths = depths(program);
    let mut headroom = Vec::new();
    for at in 0..program.len() {
        if deferred[at] && last_use[at] != u32::MAX {
            continue;
        }
        // What depends on constants alone is computed when it is first needed, so that few weights are alive at once.
        let mut needed = vec![at];
        while let Some(&next) = needed.last() {
            let missing = arguments(program.instruction(next)).into_iter().map(|a| a as usize);
            let missing: Vec<usize> = missing.filter(|&a| values[a].is_none()).collect();
            if !missing.is_empty() {
                needed.extend(missing);
                continue;
            }
            needed.pop();
            if values[next].is_some() {
                continue;
            }
            let value = step(program, next, &values, inputs, constant)?;
            if let (true, Some(limit), Value::Ring(ring)) = (measured[next], limits[next], &value) {
                match depths.get(&(next as u32)) {
                    // An index may fill its ring.
                    Some(&depth) => headroom.extend(beyond(program, next, ring, depth)),
                    None => headroom.push(measure(program, next, ring, limit)),
                }
            }
            headroom.extend(selected_headroom(program, next, &values));
            values[next] = Some(value);
            for argument in arguments(program.instruction(next)) {
                if last_use[argument as usize] == next as u32 {
                    values[argument as usize] = None;
                }
            }
        }
    }
    let mut outputs = BTreeMap::new();
    for output in &program.program().outputs {
        if let Some(Some(Value::Plain(tensor))) = values.get(output.value as usize) {
            outputs.insert(output.name.clone(), tensor.clone());
        }
    }
    Ok(Interpretation { outputs, headroom })
}

/// For each value the last instruction that uses it; outputs are kept.
fn lifetimes(program: &ValidProgram) -> Vec<u32> {
    let mut last = Plan::new(program).last_use;
    for at in 0..program.len() {
        for argument in arguments(program.instruction(at)) {
            let entry = &mut last[argument as usize];
            *entry = (*entry).max(at as u32);
        }
    }
    last
}

/// For each masked value, the base-2 logarithm of the magnitude that its users allow, in units of the last place:
/// every lift must fit; of several tables the widest counts, since they are pieces of one function. `None` where bits
/// select the value: what is discarded may be anything, and what is selected is looked at then, or within one ring shows
/// where it goes.
fn limits(program: &ValidProgram) -> Vec<Option<f64>> {
    let mut selected = vec![false; program.len()];
    let mut used = vec![false; program.len()];
    let mut lifts = vec![f64::INFINITY; program.len()];
    let mut tables = vec![f64::NEG_INFINITY; program.len()];
    for at in (0..program.len()).rev() {
        let width = program.types()[at].width().unwrap_or(64);
        let mut lift = |value: u32| {
            let k = program.ty(value).width().unwrap_or(64);
            let limit = &mut lifts[value as usize];
            *limit = limit.min(f64::from(k) - if k < width { 2.0 } else { 1.0 });
        };
        let mut table = |value: u32, log2: f64| {
            let limit = &mut tables[value as usize];
            *limit = limit.max(log2);
        };
        let instruction = program.instruction(at);
        let selects = |value: u32| matches!(instruction, Instruction::BitProduct(b) if b.arg == value);
        for value in arguments(instruction) {
            let only_moved = matches!(instruction, Instruction::Move(_)) && !used[at];
            let seen = if selects(value) || (only_moved && selected[at]) { &mut selected } else { &mut used };
            seen[value as usize] = true;
        }
        match instruction {
            Instruction::Lift(l) => lift(l.arg),
            Instruction::Square(s) => lift(s.arg),
            Instruction::SquareSum(s) => lift(s.arg),
            Instruction::Truncate(t) => {
                let shift = f64::from(t.shift);
                let (lift, table) = (lifts[at] + shift, tables[at] + shift);
                lifts[t.arg as usize] = lifts[t.arg as usize].min(lift);
                tables[t.arg as usize] = tables[t.arg as usize].max(table);
            }
            Instruction::Mul(p) => {
                lift(p.a);
                lift(p.b);
            }
            Instruction::Table(t) if t.basis == schema::Basis::Exponential as i32 => {
                table(t.arg, (f64::from(t.index_bits).exp2() - 2.0).log2() + f64::from(t.low_bits));
            }
            Instruction::Table(t) => table(t.arg, f64::from(t.low_bits + t.index_bits - 1)),
            Instruction::Fourier(f) if f.window > 0.0 => {
                let frac = program.ty(f.arg).frac().unwrap_or(0);
                table(f.arg, f.window.log2() + f64::from(frac));
            }
            Instruction::BitTable(t) => table(t.arg, f64::from(t.low_bits + t.index_bits - 1)),
            Instruction::MaskProduct(p) => lift(p.arg),
            Instruction::Lines(l) => table(l.arg, f64::from(l.low_bits + l.index_bits - 1)),
            Instruction::Digits(d) => table(d.arg, f64::from(d.low_bits + d.width - 1)),
            Instruction::OneHot(o) => table(o.arg, f64::from(program.ty(o.arg).width().unwrap_or(64))),
            Instruction::Move(m) => {
                for &arg in &m.args {
                    lifts[arg as usize] = lifts[arg as usize].min(lifts[at]);
                    tables[arg as usize] = tables[arg as usize].max(tables[at]);
                }
            }
            Instruction::Place(p) => {
                lifts[p.arg as usize] = lifts[p.arg as usize].min(lifts[at]);
                tables[p.arg as usize] = tables[p.arg as usize].max(tables[at]);
            }
            _ => {}
        }
    }
    let limit = |at: usize| match tables[at] {
        _ if selected[at] && !used[at] => None,
        f64::NEG_INFINITY => Some(lifts[at]),
        table => Some(lifts[at].min(table)),
    };
    (0..program.len()).map(limit).collect()
}

/// What is opened and what is revealed.
fn measured(program: &ValidProgram) -> Vec<bool> {
    let mut measured: Vec<bool> = (0..program.len()).map(|at| is_measured(program, at)).collect();
    for at in 0..program.len() {
        if let Instruction::Reveal(reveal) = program.instruction(at) {
            measured[reveal.arg as usize] = true;
        }
    }
    measured
}

/// Openings, and what is truncated under a mask of which no part was opened itself.
fn is_measured(program: &ValidProgram, at: usize) -> bool {
    match program.instruction(at) {
        Instruction::Open(_) => true,
        Instruction::Truncate(t) => {
            matches!(program.types()[at].form, Form::Masked { .. }) && !is_opened(program, t.arg)
        }
        _ => false,
    }
}

/// Whether a masked value is an opening, at most moved or truncated.
fn is_opened(program: &ValidProgram, value: u32) -> bool {
    match program.instruction(value as usize) {
        Instruction::Open(_) => true,
        Instruction::Truncate(t) => is_opened(program, t.arg),
        Instruction::Move(m) => m.args.first().is_some_and(|&arg| is_opened(program, arg)),
        _ => false,
    }
}

fn measure(program: &ValidProgram, at: usize, ring: &Ring, limit: f64) -> Headroom {
    let width = program.types()[at].width().unwrap_or(64);
    let frac = program.types()[at].frac().unwrap_or(0);
    let largest = ring.data.iter().map(|&v| signed(v, 64).unsigned_abs()).max().unwrap_or(0);
    let max_abs = decode(largest.min(i64::MAX as u64), 64, frac);
    let used = if largest == 0 { 0.0 } else { (largest as f64).log2() };
    let allowed = if limit.is_finite() { limit } else { f64::from(width) - 1.0 };
    Headroom { at: at as u32, width, max_abs, spare_bits: allowed - used }
}

/// Masked values that are indices, and how many there are to choose from.
fn depths(program: &ValidProgram) -> BTreeMap<u32, u64> {
    let depth = |at| match program.instruction(at) {
        Instruction::OneHot(o) => Some((o.arg, o.depth)),
        _ => None,
    };
    (0..program.len()).filter_map(depth).collect()
}

/// The headroom of what bits select and lift, where instruction `at` does that.
fn selected_headroom(program: &ValidProgram, at: usize, values: &[Option<Value>]) -> Option<Headroom> {
    let Instruction::BitProduct(b) = program.instruction(at) else { return None };
    let width = program.ty(b.arg).width().filter(|&k| Some(k) < program.types()[at].width())?;
    let (Some(Value::Ring(bits)), Some(Value::Ring(x))) = (&values[b.bits as usize], &values[b.arg as usize])
    else {
        return None;
    };
    let shape = &program.types()[at].shape;
    let selected = bits.zip(x, shape, |bits, v| ((bits >> b.bit) & 1).wrapping_mul(v));
    Some(measure(program, b.arg as usize, &selected, f64::from(width) - 2.0))
}

/// The headroom of indices of which one, read as a natural number, is not below `depth`.
fn beyond(program: &ValidProgram, at: usize, ring: &Ring, depth: u64) -> Option<Headroom> {
    let is_beyond = ring.data.iter().any(|&v| v >= depth);
    let limit = (depth as f64).log2();
    let found = is_beyond.then(|| measure(program, at, ring, limit))?;
    // A negative one can be small.
    Some(Headroom { spare_bits: found.spare_bits.min(0.0), ..found })
}

fn check(name: &str, tensor: &Tensor, expected: &crate::ValueType) -> Result<(), InterpretError> {
    let fits = matches!(expected.form, Form::Plain { dtype, .. } if dtype == tensor.dtype());
    if fits && expected.shape == tensor.shape() {
        return Ok(());
    }
    let (found, expected) = (tensor.ty().to_string(), expected.to_string());
    Err(InterpretError::WrongType { name: name.to_owned(), found, expected })
}

fn encode_tensor(tensor: &Tensor, at: usize, width: u32, frac: u32) -> Result<Ring, InterpretError> {
    let to =
        |value: f64| encode(value, width, frac).ok_or(InterpretError::OutOfRing { at, value, width, frac });
    let op = |source| InterpretError::Op { at, source };
    let data = match tensor {
        Tensor::I64(_) => tensor.to_i64_vec().map_err(op)?.into_iter().map(|v| to(v as f64)).collect(),
        _ => tensor
            .to_f32_vec()
            .map_err(op)?
            .into_iter()
            .map(|v| to(f64::from(v)))
            .collect::<Result<Vec<_>, _>>(),
    };
    Ok(Ring::new(tensor.shape(), data?))
}

fn step(
    program: &ValidProgram,
    at: usize,
    values: &[Option<Value>],
    inputs: &BTreeMap<String, Tensor>,
    constant: &mut dyn FnMut(&str) -> Result<Tensor, String>,
) -> Result<Value, InterpretError> {
    let plain = |v: u32| match &values[v as usize] {
        Some(Value::Plain(tensor)) => tensor,
        _ => unreachable!("validation orders and types the values"),
    };
    let ring = |v: u32| match &values[v as usize] {
        Some(Value::Ring(ring)) => ring,
        _ => unreachable!("validation orders and types the values"),
    };
    let weight = |v: u32| match &values[v as usize] {
        Some(Value::Weight(weight)) => Some(weight),
        _ => None,
    };
    let width_of = |v: u32| program.ty(v).width().unwrap_or(64);
    let op_error = |source| InterpretError::Op { at, source };
    let ty = &program.types()[at];
    let value = match program.instruction(at) {
        Instruction::Input(i) => {
            let missing = || InterpretError::MissingInput { name: i.name.clone(), expected: i.ty.clone() };
            let tensor = inputs.get(&i.name).ok_or_else(missing)?;
            check(&i.name, tensor, ty)?;
            return Ok(Value::Plain(tensor.clone()));
        }
        Instruction::Constant(c) => {
            let tensor = constant(&c.name)
                .map_err(|reason| InterpretError::Constant { name: c.name.clone(), reason })?;
            check(&c.name, &tensor, ty)?;
            return Ok(Value::Plain(tensor));
        }
        Instruction::Plain(p) => {
            let args: Vec<&Tensor> = p.args.iter().map(|&a| plain(a)).collect();
            let op = program.op(at).expect("validation parsed it");
            return Ok(Value::Plain(evaluate(op, &args).map_err(op_error)?));
        }
        Instruction::Encode(e) => encode_tensor(plain(e.arg), at, e.width, e.frac)?,
        Instruction::Weight(w) => {
            let tensor = plain(w.arg).clone();
            return Ok(Value::Weight(Weight { tensor, at, width: w.width, frac: w.frac }));
        }
        Instruction::Share(s) => ring(s.arg).clone(),
        Instruction::Add(b) if matches!(ty.form, Form::Boolean { .. }) => {
            ring(b.a).zip(ring(b.b), &ty.shape, |x, y| x ^ y)
        }
        Instruction::Add(b) => ring(b.a).add(ring(b.b), &ty.shape),
        Instruction::Sub(b) => ring(b.a).sub(ring(b.b), &ty.shape),
        Instruction::Scale(s) => ring(s.arg).map(|v| v.wrapping_mul(s.factor as u64)),
        Instruction::Mul(p) => match weight(p.b) {
            Some(weight) => ring(p.a).mul(&weight.encode()?, &ty.shape),
            None => ring(p.a).mul(ring(p.b), &ty.shape),
        },
        Instruction::MatMul(p) => match weight(p.b) {
            Some(weight) => weight.product(ring(p.a), &ty.shape)?,
            None => ring(p.a).matmul(ring(p.b), &ty.shape, 64),
        },
        Instruction::Square(s) => ring(s.arg).map(|v| v.wrapping_mul(v)),
        Instruction::SquareSum(s) => {
            let x = ring(s.arg);
            x.map(|v| v.wrapping_mul(v)).sum(x.shape.len() - 1)
        }
        Instruction::Sum(s) => ring(s.arg).sum(s.axis as usize),
        Instruction::Move(m) => {
            let op = program.op(at).expect("validation parsed it");
            let gather = matches!(op, marill_plaintext::Op::Gather { .. });
            let (data, indices) =
                if gather { (&m.args[..1], Some(plain(m.args[1]))) } else { (&m.args[..], None) };
            let args: Vec<&Ring> = data.iter().map(|&a| ring(a)).collect();
            movement(op, &args, indices).map_err(op_error)?
        }
        Instruction::Place(p) => {
            let indices = plain(p.indices).to_i64_vec().map_err(op_error)?;
            ring(p.arg).place(&indices, p.axis as usize, p.size as usize).map_err(op_error)?
        }
        Instruction::Truncate(t) => {
            let half = if t.shift == 0 { 0 } else { 1i64 << (t.shift - 1) };
            ring(t.arg).map(|v| ((v as i64).wrapping_add(half) >> t.shift) as u64)
        }
        Instruction::Open(o) => ring(o.arg).clone(),
        Instruction::Lift(l) => ring(l.arg).clone(),
        Instruction::Table(t) => table(t, ring(t.arg)),
        Instruction::Fourier(f) => fourier(f, ring(f.arg)),
        Instruction::BitTable(t) => bit_table(t, ring(t.arg), width_of(t.arg)),
        Instruction::Lines(l) => lines(l, ring(l.arg), width_of(l.arg)),
        Instruction::Digits(d) => {
            // The sign's part alone carries the result: the mask, which is known here, is taken away before.
            let sign = ty.width().unwrap_or(2) - 1;
            let mut data = Vec::with_capacity(ty.len());
            for &threshold in &d.thresholds {
                data.extend(ring(d.arg).data.iter().enumerate().map(|(i, &v)| {
                    let (opened, mask) = masked(i, v, width_of(d.arg), d.low_bits);
                    let z = tables::shifted(d, opened, threshold).wrapping_sub(tables::shifted(d, mask, 0));
                    u64::from((z >> (d.width - 1)) & 1 == 0) << sign
                }));
            }
            Ring::new(ty.shape.clone(), data)
        }
        Instruction::OpenBits(o) => ring(o.arg).map(|v| v & crate::fixed::mask(o.width)),
        Instruction::Compare(c) => {
            let sign = width_of(c.digits) - 1;
            ring(c.digits).map(|v| (v >> sign) & 1)
        }
        Instruction::BitProduct(b) => {
            ring(b.bits).zip(ring(b.arg), &ty.shape, |bits, v| ((bits >> b.bit) & 1).wrapping_mul(v))
        }
        Instruction::BitToArithmetic(b) => {
            // A number of all bits of its ring wraps there, and is seen with its sign.
            let wraps = b.count > 1 && b.count >= b.width;
            ring(b.bits).map(|v| {
                let number = (v >> b.bit) & crate::fixed::mask(b.count);
                if wraps { signed(number, b.width) as u64 } else { number }
            })
        }
        Instruction::MaskProduct(_) => Ring::zeros(&ty.shape),
        Instruction::OneHot(o) => {
            let depth = o.depth as usize;
            let mask = crate::fixed::mask(width_of(o.arg));
            let data = ring(o.arg).data.iter();
            let hot = data.flat_map(|&v| (0..depth as u64).map(move |c| u64::from(c == v & mask)));
            Ring::new(ty.shape.clone(), hot.collect())
        }
        Instruction::Reveal(r) => {
            let (width, frac) = (width_of(r.arg), program.ty(r.arg).frac().unwrap_or(0));
            let source = ring(r.arg);
            let tensor = if r.integer {
                Tensor::i64(source.shape.clone(), source.data.iter().map(|&v| signed(v, width)).collect())
            } else {
                let data = source.data.iter().map(|&v| decode(v, width, frac) as f32).collect();
                Tensor::f32(source.shape.clone(), data)
            };
            return Ok(Value::Plain(tensor.map_err(op_error)?));
        }
    };
    Ok(Value::Ring(value))
}

fn table(t: &schema::Table, x: &Ring) -> Ring {
    let mut entries = Vec::new();
    tables::table_entries(t, 0, &mut entries);
    // A mask of 0 leaves the first group.
    entries.truncate(t.degree as usize + 1);
    let (factors, per) = (tables::TableFactors::new(t), entries.len());
    let data = by_blocks(x.len(), per, Vec::new, |numbers: &mut Vec<u64>, range, out| {
        numbers.clear();
        range.clone().for_each(|_| numbers.extend_from_slice(&entries));
        factors.add(&x.data[range], numbers, out);
    });
    Ring::new(x.shape.clone(), data)
}

fn fourier(f: &schema::Fourier, x: &Ring) -> Ring {
    let mut entries = Vec::new();
    tables::fourier_entries(f, 0, &mut entries);
    let (factors, row) = (tables::FourierFactors::new(f), entries.len());
    let data = by_blocks(x.len(), row, Vec::new, |numbers: &mut Vec<u64>, range, out| {
        numbers.clear();
        range.clone().for_each(|_| numbers.extend_from_slice(&entries));
        out.fill(factors.constant());
        factors.add(&x.data[range], numbers, out);
    });
    Ring::new(x.shape.clone(), data)
}

fn bit_table(t: &schema::BitTable, x: &Ring, width: u32) -> Ring {
    let words = (1usize << t.index_bits).div_ceil(64);
    let look_up = |(i, &v): (usize, &u64)| {
        let (piece, _) = piece(i, v, width, (t.low_bits, t.index_bits));
        let tables = t.tables.chunks_exact(words).enumerate();
        tables.fold(0, |bits, (i, table)| bits | ((table[piece / 64] >> (piece % 64)) & 1) << i)
    };
    Ring::new(x.shape.clone(), x.data.iter().enumerate().map(look_up).collect())
}

/// The piece is taken under a mask, the line's value without one.
fn lines(l: &schema::Lines, x: &Ring, width: u32) -> Ring {
    let line = |(i, &v): (usize, &u64)| {
        let (piece, opened) = piece(i, v, width, (l.low_bits, l.index_bits));
        tables::line_word(l, tables::line_at(l, opened, piece), v)
    };
    Ring::new(x.shape.clone(), x.data.iter().enumerate().map(line).collect())
}

/// The piece that element `i` is taken to be in, and the element as opened.
fn piece(i: usize, v: u64, width: u32, (low_bits, index_bits): (u32, u32)) -> (usize, u64) {
    let (opened, mask) = masked(i, v, width, low_bits);
    let [(high, _), (low, _)] = [opened, mask].map(|v| tables::split(v, low_bits, index_bits));
    (high.wrapping_sub(low) & ((1 << index_bits) - 1), opened)
}

/// Element `i` as opened under a mask, and the mask, of which pieces of `2^low_bits` arguments see no more than they must.
/// Which piece's neighbour is taken depends on its low bits, so they are spread evenly.
fn masked(i: usize, v: u64, width: u32, low_bits: u32) -> (u64, u64) {
    let spread = |by: u64| (i as u64).wrapping_mul(by) & crate::fixed::mask(width);
    let parts = [spread(0x9e37_79b9_7f4a_7c15), spread(0xd1b5_4a32_d192_ed03)];
    let seen = !crate::fixed::mask(first_carry(low_bits));
    let sum = |parts: [u64; 2]| parts[0].wrapping_add(parts[1]) & crate::fixed::mask(width);
    (v.wrapping_add(sum(parts)) & crate::fixed::mask(width), sum(parts.map(|part| part & seen)))
}
