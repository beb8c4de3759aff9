//! What depends on constants alone: evaluated once, at setup.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use marill_plaintext::{DType, Tensor, evaluate};
use marill_program::correlation::mask_indices;
use marill_program::plan::{Plan, arguments};
use marill_program::{Form, Instruction, Ring, ValidProgram};

use super::encode::{Layout, encode_slice, encode_tensor, origin};
use super::value::Value;
use super::{failed, not_held};
use crate::bundle::{Bundle, Floats};
use crate::error::RunError;
use crate::sharing::Party;

/// Encoded constants with more elements are encoded at each use instead of kept.
const KEPT_ELEMENTS: usize = 1 << 18;

/// What the constants that online instructions read may take, where the system does not tell its free memory.
const RESIDENT_BYTES: u64 = 4 << 30;

/// One party's values that depend on constants alone.
pub struct Constants<'a> {
    bundle: &'a Bundle,
    party: Party,
    values: BTreeMap<u32, Value>,
    plaintext: Duration,
}

impl<'a> Constants<'a> {
    /// Evaluates what this party knows of `plan.setup`. Every number is checked to fit its ring. Constants that online
    /// instructions read as tensors are loaded, once, up to half of the memory that is free; what is beyond, and
    /// weights, stay in their file until they are used.
    ///
    /// # Errors
    /// Of the bundle; `BadInput` naming the constant that does not fit; `BadProgram` for an operation that fails.
    pub fn new(bundle: &'a Bundle, plan: &Plan, party: Party) -> Result<Constants<'a>, RunError> {
        let program = bundle.program();
        let mut constants = Constants { bundle, party, values: BTreeMap::new(), plaintext: Duration::ZERO };
        let mut room = free_bytes().map_or(RESIDENT_BYTES, |free| free / 2);
        let mut kept: BTreeSet<u32> =
            plan.setup.iter().copied().filter(|&v| plan.last_use[v as usize] != v).collect();
        let mut last_use = BTreeMap::new();
        for &at in &plan.setup {
            let instruction = program.instruction(at as usize);
            last_use.extend(arguments(instruction).into_iter().map(|a| (a, at)));
            if matches!(instruction, Instruction::Weight(_) | Instruction::Encode(_)) {
                kept.extend(arguments(instruction));
            }
        }
        for &at in &plan.setup {
            let mut value = constants.value(at)?;
            let ty = program.ty(at);
            let size = 8 * ty.len() as u64;
            if matches!(value, Value::Stored) && plan.last_use[at as usize] != at && size <= room {
                room -= size;
                value = Value::Plain(bundle.constant(at)?);
            }
            constants.values.insert(at, value);
            for argument in arguments(program.instruction(at as usize)) {
                if last_use.get(&argument) == Some(&at) && !kept.contains(&argument) {
                    constants.values.remove(&argument);
                }
            }
        }
        Ok(constants)
    }

    /// The program.
    pub fn program(&self) -> &'a ValidProgram {
        self.bundle.program()
    }

    /// The time that `Plain` instructions took.
    pub fn plaintext(&self) -> Duration {
        self.plaintext
    }

    fn value(&mut self, at: u32) -> Result<Value, RunError> {
        let program = self.program();
        Ok(match (program.ty(at).form, program.instruction(at as usize)) {
            (Form::Weight { .. }, _) => Value::Weight,
            (Form::Plain { owner, .. } | Form::Known { owner, .. }, _) if !self.party.knows(owner) => {
                Value::Absent
            }
            (_, Instruction::Constant(_)) => Value::Stored,
            (_, Instruction::Plain(p)) => {
                let start = Instant::now();
                let tensors: Result<Vec<Tensor>, RunError> =
                    p.args.iter().map(|&a| self.tensor(at, a)).collect();
                let tensors = tensors?;
                let operands: Vec<&Tensor> = tensors.iter().collect();
                let op = program.op(at as usize).ok_or_else(|| not_held(at, "an operation"))?;
                let tensor = evaluate(op, &operands).map_err(failed(at))?.in_order();
                self.plaintext += start.elapsed();
                Value::Plain(tensor)
            }
            (_, Instruction::Encode(_)) => {
                let ring = self.encoded(at)?;
                if ring.len() > KEPT_ELEMENTS { Value::Recoded } else { Value::Known(ring) }
            }
            _ => return Err(not_held(at, "a constant")),
        })
    }

    pub(super) fn get(&self, at: u32) -> Option<&Value> {
        self.values.get(&at)
    }

    /// The clear tensor of a constant value; `None` if this party does not know it.
    ///
    /// # Errors
    /// Of the bundle.
    pub fn plain(&self, value: u32) -> Result<Option<Tensor>, RunError> {
        match self.values.get(&value) {
            Some(Value::Plain(tensor)) => Ok(Some(tensor.clone())),
            Some(Value::Stored) => self.bundle.constant(value).map(Some),
            _ => Ok(None),
        }
    }

    /// The tensor of constant `at`.
    ///
    /// # Errors
    /// Of the bundle, and where this party does not know it.
    pub fn constant(&self, at: u32) -> Result<Tensor, RunError> {
        self.tensor(at, at)
    }

    /// The elements of the clear tensor of a constant value, which are f32, to be read in parts.
    pub(super) fn floats(&self, value: u32) -> Result<Floats<'_>, RunError> {
        match self.values.get(&value) {
            Some(Value::Plain(tensor)) => Ok(Floats::of(tensor.clone())),
            Some(Value::Stored) => self.bundle.floats(value),
            _ => Err(not_held(value, "a clear tensor")),
        }
    }

    pub(super) fn tensor(&self, at: u32, value: u32) -> Result<Tensor, RunError> {
        self.plain(value)?.ok_or_else(|| not_held(at, "a clear tensor"))
    }

    /// The elements of `Encode` instruction `at`.
    pub(super) fn encoded(&self, at: u32) -> Result<Ring, RunError> {
        let Instruction::Encode(e) = self.program().instruction(at as usize) else {
            return Err(not_held(at, "an encoding"));
        };
        let layout = Layout { width: e.width, frac: e.frac };
        encode_tensor(self.program(), at, &self.tensor(at, e.arg)?, layout)
    }

    /// Elements `range` of `Weight` instruction `at`, which this party must know.
    ///
    /// # Errors
    /// Of the bundle; `BadInput` for an element that does not fit the ring.
    pub fn weight(&self, at: u32, range: Range<usize>) -> Result<Vec<u64>, RunError> {
        let Instruction::Weight(w) = self.program().instruction(at as usize) else {
            return Err(not_held(at, "a weight"));
        };
        let layout = Layout { width: w.width, frac: w.frac };
        if !matches!(self.program().ty(w.arg).form, Form::Plain { dtype: DType::F32, .. }) {
            let all = encode_tensor(self.program(), at, &self.tensor(at, w.arg)?, layout)?.data;
            return all.get(range).map(<[u64]>::to_vec).ok_or_else(|| not_held(at, "so many elements"));
        }
        let (mut floats, mut elements) = (Vec::new(), Vec::new());
        self.floats(w.arg)?.read(range.clone(), &mut floats)?;
        encode_slice(&floats, layout, &|| origin(self.program(), at), range.start, &mut elements)?;
        Ok(elements)
    }

    /// The public index tensors by which masks move.
    ///
    /// # Errors
    /// Of the bundle.
    pub fn mask_indices(&self) -> Result<BTreeMap<u32, Tensor>, RunError> {
        let all = mask_indices(self.program());
        all.into_iter().map(|value| Ok((value, self.tensor(value, value)?))).collect()
    }
}

/// `MemAvailable` of this system.
fn free_bytes() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
