//! Sums of products, gathered so that those which do not depend on each other are made together.

use std::sync::Arc;

use super::digits::{digit_bits, digits};
use super::effort::Link;
use super::gates::{Choose, Engine, Side};
use super::planes::{Plane, planes_of};
use crate::fixed::mask;

/// Numbers of products that wait, at most, before they are made.
const WAITING_NUMBERS: usize = 1 << 23;

/// Where a product goes.
struct Sink {
    sum: usize,
    factor: u64,
    /// Terms that are added up to one of the sum: with `per` numbers to each of them.
    terms: usize,
    per: usize,
}

/// How many elements a product has.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub count: usize,
    /// Numbers of each.
    pub per: usize,
}

impl Lanes {
    pub fn single(count: usize) -> Lanes {
        Lanes { count, per: 1 }
    }
}

/// Where a product is added, times a public factor, and modulo which power of two the product is made.
#[derive(Clone, Copy)]
pub(super) struct To {
    pub sum: usize,
    pub factor: u64,
    pub width: u32,
}

/// This party's shares of sums; nothing where only costs are counted.
pub(super) struct Sums<'e, E: Engine> {
    engine: &'e mut E,
    link: Link,
    sums: Vec<Vec<u64>>,
    waiting: Vec<Choose>,
    sinks: Vec<Sink>,
    numbers: usize,
    /// Who chooses next where either may.
    turn: Side,
}

impl<'e, E: Engine> Sums<'e, E> {
    pub fn new(engine: &'e mut E, link: Link) -> Sums<'e, E> {
        Sums {
            engine,
            link,
            sums: Vec::new(),
            waiting: Vec::new(),
            sinks: Vec::new(),
            numbers: 0,
            turn: Side::Client,
        }
    }

    pub fn side(&self) -> Side {
        self.engine.side()
    }

    /// A sum that begins with what this party knows.
    pub fn begin(&mut self, own: Vec<u64>) -> usize {
        self.sums.push(own);
        self.sums.len() - 1
    }

    /// Adds `factor` times this party's own numbers.
    pub fn add(&mut self, sum: usize, factor: u64, own: &[u64]) {
        add(&mut self.sums[sum], own, factor);
    }

    /// The sum so far: its waiting products are made by [`Self::make`].
    pub fn get(&self, sum: usize) -> &[u64] {
        &self.sums[sum]
    }

    /// Takes a sum away.
    pub fn take(&mut self, sum: usize) -> Vec<u64> {
        std::mem::take(&mut self.sums[sum])
    }

    fn push(&mut self, gate: Choose, sink: Sink) -> Result<(), E::Error> {
        self.numbers += gate.lanes * gate.per;
        self.waiting.push(gate);
        self.sinks.push(sink);
        if self.numbers > WAITING_NUMBERS { self.make() } else { Ok(()) }
    }

    /// Makes all products that wait.
    pub fn make(&mut self) -> Result<(), E::Error> {
        self.numbers = 0;
        let (gates, sinks) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.sinks));
        if gates.is_empty() {
            return Ok(());
        }
        let products = self.engine.choose(&gates)?;
        for (product, sink) in products.into_iter().zip(sinks) {
            let sum = &mut self.sums[sink.sum];
            if sink.terms == 1 {
                add(sum, &product, sink.factor);
                continue;
            }
            if !product.is_empty() && sum.is_empty() {
                sum.resize(product.len() / sink.terms, 0);
            }
            for (group, products) in product.chunks_exact(sink.terms * sink.per).enumerate() {
                let sum = &mut sum[group * sink.per..][..sink.per];
                products.chunks_exact(sink.per).for_each(|p| add_to(sum, p, sink.factor));
            }
        }
        Ok(())
    }

    /// A shared bit as an integer.
    pub fn bit(&mut self, to: To, lanes: usize, bit: &Plane) -> Result<(), E::Error> {
        let own: Vec<u64> = numbers(bit, lanes);
        self.add(to.sum, to.factor, &own);
        if to.width < 2 {
            return Ok(());
        }
        // b0 + b1 - 2 b0 b1: the product matters modulo 2^(width - 1) only.
        let chooser = self.turn;
        self.turn = chooser.other();
        let gate = self.bit_gate(chooser, Lanes::single(lanes), to.width - 1, bit, || own.into());
        self.push(
            gate,
            Sink { sum: to.sum, factor: to.factor.wrapping_mul(2).wrapping_neg(), terms: 1, per: 1 },
        )
    }

    /// A shared bit times `per` numbers shared by addition, of which `own` are this party's shares.
    pub fn bit_times(&mut self, to: To, lanes: Lanes, bit: &Plane, own: &[u64]) -> Result<(), E::Error> {
        let Lanes { count, per } = lanes;
        if to.width == 0 {
            return Ok(());
        }
        let bits = numbers(bit, count);
        let times = |f: fn(u64) -> u64| -> Vec<u64> {
            let groups = own.chunks_exact(per).zip(&bits);
            groups.flat_map(|(group, b)| group.iter().map(move |v| f(*b).wrapping_mul(*v))).collect()
        };
        // b y0 = b0 y0 + b1 (1 - 2 b0) y0, and the same with the parties exchanged.
        let zero = if bits.is_empty() { Vec::new() } else { times(|b| b) };
        self.add(to.sum, to.factor, &zero);
        let flipped = if bits.is_empty() { own.to_vec() } else { times(|b| 1u64.wrapping_sub(2 * b)) };
        let flipped = Arc::new(flipped);
        for chooser in [Side::Client, Side::Server] {
            let gate = self.bit_gate(chooser, lanes, to.width, bit, || flipped.clone());
            self.push(gate, Sink { sum: to.sum, factor: to.factor, terms: 1, per })?;
        }
        Ok(())
    }

    /// A number of `bits` bits that the chooser knows times numbers that the other party knows; `own` is whichever
    /// this party has, one per lane or `per`.
    pub fn private(
        &mut self,
        to: To,
        lanes: Lanes,
        chooser: Side,
        bits: u32,
        own: &[u64],
    ) -> Result<(), E::Error> {
        self.private_terms(to, lanes, 1, chooser, bits, own)
    }

    /// As [`Self::private`], the products of `terms` consecutive lanes added up.
    pub fn private_terms(
        &mut self,
        to: To,
        lanes: Lanes,
        terms: usize,
        chooser: Side,
        bits: u32,
        own: &[u64],
    ) -> Result<(), E::Error> {
        let bits = bits.min(to.width);
        let (planes, own) = match self.side() == chooser {
            true => (planes_of(own, 0, bits as usize), Vec::new()),
            false => (Vec::new(), own.to_vec()),
        };
        let own = Arc::new(own);
        for (low, count) in digits(bits, digit_bits(self.link, bits, lanes.per, to.width)) {
            let digit = planes.get(low as usize..(low + count) as usize).unwrap_or_default();
            let gate = self.gate(chooser, lanes, to.width - low, count, digit, || own.clone());
            let factor = to.factor.wrapping_mul(1 << low);
            self.push(gate, Sink { sum: to.sum, factor, terms, per: lanes.per })?;
        }
        Ok(())
    }

    /// As [`Self::private`] with the server choosing, where the client's numbers for bit `i` are its own to round: they
    /// stand for `2^i` times something with more fraction bits than the ring has room for.
    pub fn rounded(
        &mut self,
        to: To,
        lanes: Lanes,
        bits: u32,
        chosen: &[u64],
        numbers: impl Fn(u32) -> Vec<u64>,
    ) -> Result<(), E::Error> {
        for i in 0..bits {
            let plane = planes_of(chosen, i, 1).pop().unwrap_or_default();
            let gate = self.bit_gate(Side::Server, lanes, to.width, &plane, || numbers(i).into());
            self.push(gate, Sink { sum: to.sum, factor: to.factor, terms: 1, per: lanes.per })?;
        }
        Ok(())
    }

    fn bit_gate(
        &self,
        chooser: Side,
        lanes: Lanes,
        width: u32,
        choices: &Plane,
        numbers: impl FnOnce() -> Arc<Vec<u64>>,
    ) -> Choose {
        self.gate(chooser, lanes, width, 1, std::slice::from_ref(choices), numbers)
    }

    fn gate(
        &self,
        chooser: Side,
        lanes: Lanes,
        width: u32,
        digit_bits: u32,
        choices: &[Plane],
        numbers: impl FnOnce() -> Arc<Vec<u64>>,
    ) -> Choose {
        let chooses = self.side() == chooser;
        Choose {
            chooser,
            lanes: lanes.count,
            per: lanes.per,
            width,
            digit_bits,
            choices: if chooses { choices.to_vec() } else { Vec::new() },
            numbers: if chooses { Arc::default() } else { numbers() },
        }
    }
}

/// A plane's bits as numbers; nothing for a plane without words.
pub(super) fn numbers(bit: &Plane, lanes: usize) -> Vec<u64> {
    if bit.words().is_empty() { Vec::new() } else { (0..lanes).map(|lane| bit.bit(lane)).collect() }
}

fn add(sum: &mut Vec<u64>, terms: &[u64], factor: u64) {
    if sum.is_empty() {
        sum.resize(terms.len(), 0);
    }
    add_to(sum, terms, factor);
}

fn add_to(sum: &mut [u64], terms: &[u64], factor: u64) {
    sum.iter_mut().zip(terms).for_each(|(s, t)| *s = s.wrapping_add(t.wrapping_mul(factor)));
}

/// Numbers with the bits above a ring dropped.
pub(super) fn reduced(mut numbers: Vec<u64>, width: u32) -> Vec<u64> {
    numbers.iter_mut().for_each(|v| *v &= mask(width));
    numbers
}
