//! Making all correlations of a program with the other party: gates, encrypted products and what setup has left open,
//! side by side, each on a lane and a thread of its own.
//!
//! Another thread walks the program on masks alone and hands this party's numbers out. The work on one lane depends on
//! that on another only in that products wait for keys. Both walks hand out the same work in the same order, and wait
//! only for a lane that has not done an earlier part of it, so two parties cannot wait for each other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use marill_plaintext::Tensor;
use marill_program::correlation::{fields, mask_matrix, masked_operands, own_mask_needed};
use marill_program::fixed::mask;
use marill_program::two_party::count::segments;
use marill_program::two_party::effort::Link;
use marill_program::two_party::gates::Side;
use marill_program::two_party::products::{Method, method};
use marill_program::two_party::recipe;
use marill_program::{Form, Instruction, Ring, Target, ValidProgram};

use super::TwoPartySource;
use super::gates::Gates;
use super::keys::{ProductKeys, Transfers};
use super::setup::Setup;
use crate::correlation::masks::{Masks, Matrices};
use crate::correlation::shares::Shares;
use crate::correlation::shelf::Shelf;
use crate::correlation::watch::Watch;
use crate::error::RunError;
use crate::transport::Channel;

/// Some of a weight's elements in its ring, where they are the server's; the client has none.
pub type Weights<'a> = &'a (dyn Fn(u32, Range<usize>) -> Result<Vec<u64>, RunError> + Sync);

/// Keeps this party's shares of the fields of an instruction.
type Store<'a> = &'a (dyn Fn(u32, Vec<Vec<u64>>) -> Result<(), RunError> + Sync);

/// How much of a lane with long messages may be under way: what the link carries in this time, so that the short
/// messages of the others are not long in coming.
const AHEAD_MILLISECONDS: u64 = 50;
const SHORTEST_WINDOW: u64 = 1 << 18;
const LONGEST_WINDOW: u64 = 1 << 23;

/// Products that the walk may be ahead of.
const PRODUCTS_AHEAD: usize = 64;

/// A segment that waits for its turn: its instructions, and this party's numbers by value. These, like those of products, lie in
/// files: the walk is far ahead while gates are made and keys are on their way.
type Waiting = (Vec<u32>, Shelf);

/// The windows of a run's lanes, in the order of their urgency: rounds, gates, products, keys.
pub fn windows(link: Link) -> [usize; 4] {
    let long = link.bytes_within(AHEAD_MILLISECONDS).clamp(SHORTEST_WINDOW, LONGEST_WINDOW);
    [LONGEST_WINDOW, LONGEST_WINDOW, long, long].map(|bytes| bytes as usize)
}

/// Instructions with fields, for which something is made.
pub fn count(program: &ValidProgram) -> usize {
    let has_fields = |&at: &usize| fields(program, at).iter().any(|field| field.len > 0);
    (0..program.len()).filter(has_fields).count()
}

/// What one party brings.
pub struct Making<'a> {
    /// What runs.
    pub program: &'a ValidProgram,
    /// Who this is.
    pub side: Side,
    /// Keys, which may still have to come.
    pub setup: &'a Setup,
    /// The public tensors by which masks move.
    pub indices: &'a BTreeMap<u32, Tensor>,
    /// Those by which masks are multiplied.
    pub matrices: &'a (dyn Matrices + Sync),
    /// The server's weights.
    pub weights: Weights<'a>,
}

/// The lanes that preprocessing takes, and what setup has left open.
pub struct MakingLanes<'c, K> {
    /// Of gates, and the transfers of this run's session.
    pub gates: (&'c mut Channel, Transfers),
    /// Of encrypted products.
    pub products: &'c mut Channel,
    /// Of keys and encrypted weights, and what goes over it.
    pub keys: (&'c mut Channel, K),
}

impl Making<'_> {
    /// Puts into `source` everything that a run of the program takes, and does `rounds` meanwhile on the calling
    /// thread. `heard` is told how many instructions have their fields; `stop` ends everything on the connection where
    /// something fails.
    ///
    /// # Errors
    /// Of the channel, temporary files and the bundle, and those of `rounds` and of the keys' exchange: of several the
    /// one that led to the others.
    pub fn run<T>(
        &self,
        source: &TwoPartySource<'_>,
        lanes: MakingLanes<'_, impl FnOnce(&mut Channel) -> Result<(), RunError> + Send>,
        heard: &(dyn Fn(u64) + Sync),
        stop: &(dyn Fn() + Sync),
        rounds: impl FnOnce() -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let MakingLanes { gates: (gate_lane, transfers), products: product_lane, keys: (key_lane, exchange) } =
            lanes;
        let made = AtomicU64::new(0);
        let store = |at, made_fields| {
            source.store(at, made_fields)?;
            heard(made.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        };
        let give_up = || {
            stop();
            source.end();
            self.setup.theirs.end();
        };
        let watch = Watch::new(&give_up);
        let makers = AtomicU64::new(3);
        let ended = || {
            if makers.fetch_sub(1, Ordering::Relaxed) == 1 {
                source.end();
            }
        };
        let of_products = Mutex::new(Shelf::new()?);
        let (to_gates, segments) = sync_channel(0);
        let (to_products, products) = sync_channel(PRODUCTS_AHEAD);
        let done = thread::scope(|scope| {
            scope.spawn(|| watch.run(|| exchange(key_lane)));
            scope.spawn(|| {
                watch.run(|| self.walk(source, to_gates, to_products, &of_products));
                ended();
            });
            scope.spawn(|| {
                watch.run(|| self.products(product_lane, products, &of_products, &store));
                ended();
            });
            scope.spawn(|| {
                let mut gates = Gates::new(gate_lane, self.side, transfers);
                watch.run(|| self.segments(&mut gates, segments, &store));
                ended();
            });
            watch.run(rounds)
        });
        watch.outcome(done)
    }

    /// Walks the program, and hands out segments and products with this party's numbers. Where a lane takes nothing any
    /// more, its own error tells why.
    fn walk(
        &self,
        source: &TwoPartySource<'_>,
        to_gates: SyncSender<Waiting>,
        to_products: SyncSender<u32>,
        of_products: &Mutex<Shelf>,
    ) -> Result<(), RunError> {
        let program = self.program;
        let mut masks = Masks::new(program, self.indices, Some(self.matrices));
        let needed = own_mask_needed(program);
        let mut next = 0;
        let mut segments = segments(program);
        // What comes behind the last gates has a segment without any.
        segments.push(Vec::new());
        for segment in segments {
            let mut parts = Shelf::new()?;
            let end = segment.last().map_or(program.len() as u32, |last| last + 1);
            while next < end {
                if segment.contains(&next) {
                    self.gather(next, &masks, &mut parts)?;
                } else if matches!(method(program, next), Some(Method::Wide { .. } | Method::Pairs(_))) {
                    let mut parts = of_products.lock().unwrap_or_else(PoisonError::into_inner);
                    self.gather(next, &masks, &mut parts)?;
                    drop(parts);
                    if to_products.send(next).is_err() {
                        return Ok(());
                    }
                }
                self.pass(source, &mut masks, next)?;
                let both = matches!(program.ty(next).form, Form::Masked { to: Target::Both, .. });
                let derived = mask_matrix(program, next as usize).is_some() && both && needed[next as usize];
                let mask = if derived { masks.get(next) } else { None };
                source.store_derived(next, mask.map(|mask| &mask.data[..]))?;
                next += 1;
            }
            if !segment.is_empty() && to_gates.send((segment, parts)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn pass(&self, source: &TwoPartySource<'_>, masks: &mut Masks<'_>, at: u32) -> Result<(), RunError> {
        let ty = self.program.ty(at);
        let mine = match ty.form {
            Form::Masked { to: Target::Server, .. } => self.side == Side::Client,
            Form::Masked { to: Target::Client, .. } => self.side == Side::Server,
            _ => true,
        };
        masks.pass(at, || {
            let draw = || source.own_mask(at, ty.len(), ty.width().unwrap_or(64));
            mine.then(|| Ring::new(ty.shape.clone(), draw().into_values()))
        })
    }

    /// Adds this party's numbers that the fields of an instruction are made of to `parts`.
    fn gather(&self, at: u32, masks: &Masks<'_>, parts: &mut Shelf) -> Result<(), RunError> {
        for value in masked_operands(self.program, at as usize) {
            if let (true, Some(ring)) = (parts.lacks(value), masks.get(value)) {
                let reduce = mask(self.program.ty(value).width().unwrap_or(64));
                parts.put(value, ring.data.iter().map(|v| v & reduce))?;
            }
        }
        let weight = match self.program.instruction(at as usize) {
            Instruction::Mul(p) | Instruction::MatMul(p) => Some(p.b),
            _ => None,
        };
        let weight = weight.filter(|&v| matches!(self.program.ty(v).form, Form::Weight { .. }));
        let encrypted = matches!(method(self.program, at), Some(Method::Wide { .. }));
        if let (Some(weight), Side::Server, false) = (weight, self.side, encrypted)
            && parts.lacks(weight)
        {
            parts.put(weight, (self.weights)(weight, 0..self.program.ty(weight).len())?)?;
        }
        Ok(())
    }

    /// Of what was gathered the numbers of a value, if this party has any.
    fn part(&self, parts: &Shelf, value: u32) -> Result<Option<Shares>, RunError> {
        if parts.lacks(value) {
            return Ok(None);
        }
        parts.numbers(value, self.program.ty(value).len()).map(Some)
    }

    /// Makes the fields of segments by gates; then both parties say that they are ready.
    fn segments(
        &self,
        gates: &mut Gates<'_>,
        segments: Receiver<Waiting>,
        store: Store<'_>,
    ) -> Result<(), RunError> {
        for (segment, parts) in segments {
            gates.channel().meter_mut().set_label(segment.first().copied().unwrap_or(0));
            let failed = Cell::new(None);
            let part = |value: u32| match self.part(&parts, value) {
                Ok(part) => part.map(Shares::into_values).unwrap_or_default(),
                Err(error) => {
                    failed.set(Some(error));
                    Vec::new()
                }
            };
            recipe::make(gates, self.program, &segment, &part, &mut |at, made| {
                failed.take().map_or(Ok(()), Err)?;
                parts.check()?;
                store(at, made)
            })?;
        }
        gates.channel().exchange_into(&[], &mut [])?;
        gates.channel().end_round();
        Ok(())
    }

    /// Makes the fields of products by encryption.
    fn products(
        &self,
        lane: &mut Channel,
        products: Receiver<u32>,
        parts: &Mutex<Shelf>,
        store: Store<'_>,
    ) -> Result<(), RunError> {
        let keys = ProductKeys::new(self.setup, self.side, self.program)?;
        let parts = || parts.lock().unwrap_or_else(PoisonError::into_inner);
        for at in products {
            lane.meter_mut().set_label(at);
            let made = keys.product(lane, self.program, at, &|value| self.part(&parts(), value))?;
            parts().check()?;
            store(at, made.into_iter().collect())?;
        }
        Ok(())
    }
}
