//! Functions of a mask's position: its powers and exponential within a piece, and its waves.
//!
//! Each party knows its part, so a function of the sum is made of products of one party's numbers with the other's. The
//! server chooses by the bits of its number; what the client offers for a bit is its own number times that bit's value,
//! rounded to the result's fraction bits, so that the ring needs no room for a truncation. Each bit adds at most half a
//! unit in the last place, as likely up as down.

use std::cell::Cell;

use super::gates::{Engine, Side};
use super::planes::Plane;
use super::sums::{Lanes, Sums, To, reduced};
use crate::fixed::{Circle, exp_power, power_of_two, round_to};
use crate::schema::{Basis, Fourier, Table};
use crate::tables::split;

/// Fraction bits of the numbers by which the server chooses, beyond the result's.
const GUARD_BITS: u32 = 2;
/// The most that a number has of them.
const MOST_BITS: u32 = 62;

/// Later waves of products.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waves {
    Second,
    Third,
}

/// The fields of a piecewise function: the mask's unit vector times the powers of its position, or its exponential.
pub(super) struct Moments {
    lanes: usize,
    pieces: usize,
    degree: usize,
    width: u32,
    frac: u32,
    /// The unit vectors, lane after lane.
    unit: Plane,
    /// Whether the parts' positions add up to more than a piece.
    overflow: Plane,
    /// The unit vectors as integers.
    ones: Option<usize>,
    /// Powers of the sum of both parts' positions, from the first on; or its exponential, then that of a piece less 1
    /// times that.
    sums: Vec<usize>,
    /// The same of the position itself.
    powers: Cell<Vec<usize>>,
    products: Cell<Option<usize>>,
}

impl Moments {
    /// The products that need nothing but the parts and shared bits.
    pub fn begin<E: Engine>(
        t: &Table,
        lanes: usize,
        unit: &[Plane],
        overflow: Plane,
        part: &[u64],
        sums: &mut Sums<'_, E>,
    ) -> Result<Moments, E::Error> {
        let pieces = 1usize << t.index_bits;
        let mut moments = Moments {
            lanes,
            pieces,
            degree: t.degree as usize,
            width: t.width,
            frac: t.entry_frac,
            unit: in_lanes(unit, lanes),
            overflow,
            ones: None,
            sums: Vec::new(),
            powers: Cell::default(),
            products: Cell::default(),
        };
        let scale = power_of_two(-(t.low_bits as i32));
        let positions: Vec<f64> =
            part.iter().map(|v| split(*v, t.low_bits, t.index_bits).1 as f64 * scale).collect();
        if t.basis == Basis::Exponential as i32 {
            let values: Vec<f64> = positions.iter().map(|u| exp_power(-u, t.exponent_log2)).collect();
            let piece = exp_power(1.0, t.exponent_log2);
            // What is far too large where there is no overflow must still be good where there is one.
            let more = if t.exponent_log2 == 0 { 0 } else { piece.log2().ceil() as u32 };
            for (factor, more) in [(1.0, 0), (piece - 1.0, more)] {
                let sum = sums.begin(Vec::new());
                moments.cross(sum, &values, more, |v| factor * v, sums)?;
                moments.sums.push(sum);
            }
            return Ok(moments);
        }
        let ones = sums.begin(Vec::new());
        let to = To { sum: ones, factor: 1, width: t.width };
        sums.bit(to, lanes * pieces, &moments.unit)?;
        moments.ones = Some(ones);
        let square = |u: f64| u * u;
        for power in 1..=t.degree as i32 {
            let own = positions.iter().map(|u| round_to(u.powi(power), t.entry_frac)).collect();
            let sum = sums.begin(own);
            let squares: Vec<f64> = positions.iter().map(|u| square(*u)).collect();
            match power {
                // (a + b)^2 and (a + b)^3 without the parties' own powers.
                2 => moments.cross(sum, &positions, 0, |a| 2.0 * a, sums)?,
                3 => {
                    moments.cross(sum, &positions, 0, |a| 3.0 * square(a), sums)?;
                    let roots: Vec<f64> = match sums.side() {
                        Side::Client => positions.clone(),
                        Side::Server => squares,
                    };
                    moments.cross(sum, &roots, 0, |a| 3.0 * a, sums)?;
                }
                _ => {}
            }
            moments.sums.push(sum);
        }
        Ok(moments)
    }

    /// `f(a) b` for the client's numbers a and the server's numbers b, both between 0 and 1; b has `more` fraction bits
    /// than `f` of small numbers needs.
    fn cross<E: Engine>(
        &self,
        sum: usize,
        own: &[f64],
        more: u32,
        f: impl Fn(f64) -> f64,
        sums: &mut Sums<'_, E>,
    ) -> Result<(), E::Error> {
        let bits = (self.frac + GUARD_BITS + more).min(MOST_BITS);
        let to = To { sum, factor: 1, width: self.width };
        let (chosen, own) = match sums.side() {
            Side::Client => (Vec::new(), own),
            Side::Server => (own.iter().map(|b| round_to(*b, bits)).collect(), &[][..]),
        };
        sums.rounded(to, Lanes::single(self.lanes), bits + 1, &chosen, |i| {
            let unit = power_of_two(i as i32 - bits as i32);
            own.iter().map(|a| round_to(f(*a) * unit, self.frac)).collect()
        })
    }

    /// The products that need earlier ones.
    pub fn go_on<E: Engine>(&self, wave: Waves, sums: &mut Sums<'_, E>) -> Result<(), E::Error> {
        if self.sums.is_empty() {
            return Ok(());
        }
        match wave {
            Waves::Second => self.powers.set(self.positions(sums)?),
            Waves::Third => {
                let numbers = self.powers.take();
                let powers: Vec<&[u64]> = numbers.iter().map(|sum| sums.get(*sum)).collect();
                let known = powers.iter().all(|power| !power.is_empty());
                let lanes = if known { self.lanes } else { 0 };
                let own: Vec<u64> = (0..lanes)
                    .flat_map(|lane| (0..self.pieces).map(move |_| lane))
                    .flat_map(|lane| powers.iter().map(move |power| power[lane]))
                    .collect();
                let per = powers.len();
                let sum = sums.begin(Vec::new());
                let to = To { sum, factor: 1, width: self.width };
                sums.bit_times(to, Lanes { count: self.lanes * self.pieces, per }, &self.unit, &own)?;
                self.products.set(Some(sum));
            }
        }
        Ok(())
    }

    /// From functions of the sum `s` of the parts' positions to those of the position `s - c`, c being the overflow.
    fn positions<E: Engine>(&self, sums: &mut Sums<'_, E>) -> Result<Vec<usize>, E::Error> {
        let lanes = Lanes::single(self.lanes);
        let to = |sum: usize, factor: u64| To { sum, factor, width: self.width };
        let one = 1u64 << self.frac;
        let minus = 1u64.wrapping_neg();
        let mut results = Vec::new();
        if self.ones.is_none() {
            // e^-(s - c) = e^-s + c (e - 1) e^-s, and so with any base.
            let [value, step] = [0, 1].map(|i| sums.get(self.sums[i]).to_vec());
            let sum = sums.begin(value);
            sums.bit_times(to(sum, 1), lanes, &self.overflow, &step)?;
            return Ok(vec![sum]);
        }
        for power in 0..self.sums.len() {
            let of = |i: usize, sums: &Sums<'_, E>| sums.get(self.sums[i]).to_vec();
            let sum = sums.begin(of(power, sums));
            let client = sums.side() == Side::Client;
            let unit = if client { one } else { 0 };
            match power {
                0 => {
                    if self.width > self.frac {
                        let to = To { sum, factor: one.wrapping_neg(), width: self.width - self.frac };
                        sums.bit(to, self.lanes, &self.overflow)?;
                    }
                }
                // (s - c)^2 = s^2 - c (2 s - 1).
                1 => {
                    let own: Vec<u64> =
                        of(0, sums).iter().map(|s| s.wrapping_mul(2).wrapping_sub(unit)).collect();
                    sums.bit_times(to(sum, minus), lanes, &self.overflow, &own)?;
                }
                // (s - c)^3 = s^3 - c (3 s^2 - 3 s + 1).
                _ => {
                    let (first, second) = (of(0, sums), of(1, sums));
                    let both = second.iter().zip(&first);
                    let own: Vec<u64> =
                        both.map(|(b, a)| b.wrapping_sub(*a).wrapping_mul(3).wrapping_add(unit)).collect();
                    sums.bit_times(to(sum, minus), lanes, &self.overflow, &own)?;
                }
            }
            results.push(sum);
        }
        Ok(results)
    }

    /// The fields in their order.
    pub fn finish<E: Engine>(self, sums: &mut Sums<'_, E>) -> Vec<u64> {
        let ones = self.ones.map(|sum| sums.take(sum));
        let products = self.products.get().map(|sum| sums.take(sum));
        let all = match (ones, products) {
            (Some(ones), Some(products)) => {
                let groups = products.chunks_exact(self.degree);
                ones.iter()
                    .zip(groups)
                    .flat_map(|(one, group)| std::iter::once(one).chain(group))
                    .copied()
                    .collect()
            }
            (ones, products) => ones.or(products).unwrap_or_default(),
        };
        reduced(all, self.width)
    }
}

/// The fields of a series: cosines and sines of the mask's multiples.
pub(super) struct Trigonometric {
    terms: usize,
    sum: usize,
    width: u32,
}

impl Trigonometric {
    /// Angle addition: `cos(a + b) = cos a cos b - sin a sin b`, and so on.
    pub fn begin<E: Engine>(
        f: &Fourier,
        lanes: usize,
        part: &[u64],
        sums: &mut Sums<'_, E>,
    ) -> Result<Trigonometric, E::Error> {
        let (terms, width, frac) = (f.cos.len(), f.width, f.entry_frac);
        let bits = frac + GUARD_BITS;
        let circle = Circle::new(f.period_bits);
        let waves: Vec<[f64; 2]> = part
            .iter()
            .flat_map(|&r| (1..=terms as u64).map(move |j| r.wrapping_mul(j)))
            .map(|angle| circle.at(angle).into())
            .collect();
        let sum = sums.begin(Vec::new());
        let to = To { sum, factor: 1, width };
        let lanes = Lanes { count: lanes * terms, per: 2 };
        for turned in [false, true] {
            let pair = |[cos, sin]: &[f64; 2]| if turned { [-sin, *cos] } else { [*cos, *sin] };
            // The server's numbers are made positive by adding one, which the client takes away again.
            let (chosen, own) = match sums.side() {
                Side::Server => {
                    let one = 1u64 << bits;
                    let value = |[cos, sin]: &[f64; 2]| round_to(if turned { *sin } else { *cos }, bits);
                    (waves.iter().map(|wave| one.wrapping_add(value(wave))).collect(), &[][..])
                }
                Side::Client => {
                    let own: Vec<u64> = waves.iter().flat_map(pair).map(|v| round_to(v, frac)).collect();
                    sums.add(sum, 1u64.wrapping_neg(), &own);
                    (Vec::new(), &waves[..])
                }
            };
            sums.rounded(to, lanes, bits + 2, &chosen, |i| {
                let unit = power_of_two(i as i32 - bits as i32);
                own.iter().flat_map(pair).map(|v| round_to(v * unit, frac)).collect()
            })?;
        }
        Ok(Trigonometric { terms, sum, width })
    }

    /// The fields in their order: an element's cosines, then its sines.
    pub fn finish<E: Engine>(self, sums: &mut Sums<'_, E>) -> Vec<u64> {
        let pairs = sums.take(self.sum);
        let ordered = pairs.chunks_exact(2 * self.terms).flat_map(|element| {
            [0, 1].into_iter().flat_map(move |part| element.iter().skip(part).step_by(2).copied())
        });
        reduced(ordered.collect(), self.width)
    }
}

/// Plane `e` of lane `i` at lane `i * planes + e`.
pub(super) fn in_lanes(planes: &[Plane], lanes: usize) -> Plane {
    if planes.iter().all(|plane| plane.words().is_empty()) {
        return Plane::default();
    }
    let total = lanes * planes.len();
    let mut words = vec![0; total.div_ceil(64)];
    for (e, plane) in planes.iter().enumerate() {
        for lane in 0..lanes {
            let at = lane * planes.len() + e;
            words[at / 64] |= plane.bit(lane) << (at % 64);
        }
    }
    Plane::new(words, total)
}
