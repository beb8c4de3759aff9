//! Functions of a mask's position: its powers and exponential within a piece, and its waves.
//!
//! Each party knows its part, so a function of the sum is made of products of one party's numbers with the other's, in
//! a ring with room for more fraction bits, which truncation then drops: within two units in the last place.

use super::gates::{Engine, Side};
use super::planes::Plane;
use super::sums::{Lanes, Sums, To, reduced};
use crate::fixed::{Circle, exp, mask, power_of_two, round_to};
use crate::schema::{Basis, Fourier, Table};
use crate::tables::split;

/// Fraction bits of the factors of products beyond the result's, at most.
const GUARD_BITS: u32 = 6;

/// Later waves of products.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waves {
    Second,
    Third,
}

/// A sum in a ring that is to be made smaller.
#[derive(Clone, Copy)]
struct Fine {
    sum: usize,
    width: u32,
    shift: u32,
}

impl Fine {
    /// Drops the low bits.
    fn truncated<E: Engine>(&self, sums: &Sums<'_, E>) -> Vec<u64> {
        let (ring, shift) = (mask(self.width), self.shift);
        let unit = u64::from(sums.side() == Side::Client && shift > 0);
        sums.get(self.sum).iter().map(|v| ((v & ring) >> shift) + unit).collect()
    }
}

/// Powers of the position, or its exponential.
enum Base {
    /// `t`, and for higher degrees `t^2` and this party's part of t at fewer bits.
    Monomials { first: usize, second: Option<(Fine, Vec<u64>, u32)> },
    /// `e^-(p0 + p1)`, then `e - 1` times that.
    Exponential(Fine),
}

/// The fields of a piecewise function: the mask's unit vector times the powers of its position.
pub(super) struct Moments {
    lanes: usize,
    pieces: usize,
    degree: usize,
    width: u32,
    /// The unit vectors, lane after lane.
    unit: Plane,
    /// Whether the parts' positions add up to more than a piece.
    overflow: Plane,
    ones: Option<usize>,
    base: Option<Base>,
    third: std::cell::Cell<Option<Fine>>,
    exponential: std::cell::Cell<Option<usize>>,
    products: std::cell::Cell<Option<usize>>,
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
        let (width, frac, pieces) = (t.width, t.entry_frac, 1usize << t.index_bits);
        let mut moments = Moments {
            lanes,
            pieces,
            degree: t.degree as usize,
            width,
            unit: in_lanes(unit, lanes),
            overflow,
            ones: None,
            base: None,
            third: Default::default(),
            exponential: Default::default(),
            products: Default::default(),
        };
        let position = |v: &u64| split(*v, t.low_bits, t.index_bits).1;
        if t.basis == Basis::Exponential as i32 {
            moments.base = Some(Base::Exponential(moments.exponents(t, part, sums)?));
            return Ok(moments);
        }
        let ones = sums.begin(Vec::new());
        sums.bit(To { sum: ones, factor: 1, width }, lanes * pieces, &moments.unit)?;
        moments.ones = Some(ones);
        if t.degree == 0 {
            return Ok(moments);
        }
        let unit_of_last_place = u64::from(sums.side() == Side::Client && t.low_bits > frac);
        let own: Vec<u64> = part
            .iter()
            .map(|v| match t.low_bits {
                low if low > frac => (position(v) >> (low - frac)) + unit_of_last_place,
                low => position(v) << (frac - low),
            })
            .collect();
        let first = sums.begin(own.clone());
        if width > frac {
            let to = To { sum: first, factor: (1u64 << frac).wrapping_neg(), width: width - frac };
            sums.bit(to, lanes, &moments.overflow)?;
        }
        let second = if t.degree < 2 { None } else { Some(moments.square(t, own, sums)?) };
        moments.base = Some(Base::Monomials { first, second });
        Ok(moments)
    }

    /// `t^2` in a ring that leaves room for the next power, if there is one.
    fn square<E: Engine>(
        &self,
        t: &Table,
        own: Vec<u64>,
        sums: &mut Sums<'_, E>,
    ) -> Result<(Fine, Vec<u64>, u32), E::Error> {
        let (width, frac, lanes) = (t.width, t.entry_frac, Lanes::single(self.lanes));
        let room = 64 - width + frac;
        let bits = (if t.degree == 3 { room / 3 } else { room / 2 }).min(frac);
        let own: Vec<u64> = own.iter().map(|v| v >> (frac - bits)).collect();
        let above = if t.degree == 3 { bits } else { 0 };
        let shift = (2 * bits).saturating_sub(frac);
        let ring = width + above + shift;
        let sum = sums.begin(own.iter().map(|v| v.wrapping_mul(*v)).collect());
        sums.private(To { sum, factor: 2, width: ring - 1 }, lanes, Side::Server, bits + 1, &own)?;
        let carried = To { sum, factor: minus_power(bits + 1), width: ring.saturating_sub(bits + 1) };
        sums.bit_times(carried, lanes, &self.overflow, &own)?;
        if ring > 2 * bits {
            let to = To { sum, factor: 1 << (2 * bits), width: ring - 2 * bits };
            sums.bit(to, self.lanes, &self.overflow)?;
        }
        Ok((Fine { sum, width: ring, shift }, own, bits))
    }

    fn exponents<E: Engine>(
        &self,
        t: &Table,
        part: &[u64],
        sums: &mut Sums<'_, E>,
    ) -> Result<Fine, E::Error> {
        let (width, frac) = (t.width, t.entry_frac);
        let bits = factor_bits(width, frac);
        let shift = (2 * bits).saturating_sub(frac);
        let ring = width + shift;
        let steps = exp(1.0) - 1.0;
        let own: Vec<u64> = part
            .iter()
            .flat_map(|v| {
                let (_, low) = split(*v, t.low_bits, t.index_bits);
                let value = exp(-(low as f64 * power_of_two(-(t.low_bits as i32))));
                [value, value * steps].map(|value| round_to(value, bits))
            })
            .collect();
        let own = match sums.side() {
            Side::Client => own,
            Side::Server => own.into_iter().step_by(2).collect(),
        };
        let sum = sums.begin(Vec::new());
        let lanes = Lanes { count: self.lanes, per: 2 };
        sums.private(To { sum, factor: 1, width: ring }, lanes, Side::Server, bits + 1, &own)?;
        Ok(Fine { sum, width: ring, shift })
    }

    /// The products that need earlier ones.
    pub fn go_on<E: Engine>(&self, wave: Waves, sums: &mut Sums<'_, E>) -> Result<(), E::Error> {
        let single = Lanes::single(self.lanes);
        match (wave, &self.base) {
            (Waves::Second, Some(Base::Exponential(fine))) => {
                let both = fine.truncated(sums);
                let [value, step] =
                    [0, 1].map(|i| both.iter().skip(i).step_by(2).copied().collect::<Vec<u64>>());
                let sum = sums.begin(value);
                sums.bit_times(To { sum, factor: 1, width: self.width }, single, &self.overflow, &step)?;
                self.exponential.set(Some(sum));
            }
            (Waves::Second, Some(Base::Monomials { second: Some((fine, own, bits)), .. }))
                if self.degree == 3 =>
            {
                let square = fine.truncated(sums);
                let ring = self.width + bits;
                let local: Vec<u64> = square.iter().zip(own).map(|(a, b)| a.wrapping_mul(*b)).collect();
                let sum = sums.begin(local);
                let to = To { sum, factor: 1, width: ring };
                for chooser in [Side::Client, Side::Server] {
                    let own = if sums.side() == chooser { own } else { &square };
                    sums.private(to, single, chooser, bits + 1, own)?;
                }
                let to = To { sum, factor: minus_power(*bits), width: self.width };
                sums.bit_times(to, single, &self.overflow, &square)?;
                self.third.set(Some(Fine { sum, width: ring, shift: *bits }));
            }
            (Waves::Third, Some(base)) => {
                let powers: Vec<Vec<u64>> = match base {
                    Base::Exponential(_) => {
                        self.exponential.get().map(|sum| sums.get(sum).to_vec()).into_iter().collect()
                    }
                    Base::Monomials { first, second } => {
                        let mut powers = vec![sums.get(*first).to_vec()];
                        powers.extend(second.as_ref().map(|(fine, ..)| fine.truncated(sums)));
                        powers.extend(self.third.get().map(|fine| fine.truncated(sums)));
                        powers
                    }
                };
                let per = powers.len();
                let known = powers.iter().all(|power| !power.is_empty());
                let lanes = if known { self.lanes } else { 0 };
                let own: Vec<u64> = (0..lanes)
                    .flat_map(|lane| (0..self.pieces).map(move |_| lane))
                    .flat_map(|lane| powers.iter().map(move |power| power[lane]))
                    .collect();
                let sum = sums.begin(Vec::new());
                let to = To { sum, factor: 1, width: self.width };
                sums.bit_times(to, Lanes { count: self.lanes * self.pieces, per }, &self.unit, &own)?;
                self.products.set(Some(sum));
            }
            _ => {}
        }
        Ok(())
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
    fine: Fine,
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
        let bits = factor_bits(width, frac);
        let shift = (2 * bits).saturating_sub(frac);
        let circle = Circle::new(f.period_bits);
        let waves: Vec<[u64; 2]> = part
            .iter()
            .flat_map(|&r| (1..=terms as u64).map(move |j| r.wrapping_mul(j)))
            .map(|angle| {
                let (cos, sin) = circle.at(angle);
                [cos, sin].map(|v| round_to(v, bits))
            })
            .collect();
        let sum = sums.begin(Vec::new());
        let to = To { sum, factor: 1, width: width + shift };
        let lanes = Lanes { count: lanes * terms, per: 2 };
        // The chooser's numbers are made positive by adding one, which the other party takes away again.
        let one = 1u64 << bits;
        for turned in [false, true] {
            let own: Vec<u64> = match sums.side() {
                Side::Server => waves
                    .iter()
                    .map(|[cos, sin]| one.wrapping_add(if turned { *sin } else { *cos }))
                    .collect(),
                Side::Client if turned => {
                    waves.iter().flat_map(|[cos, sin]| [sin.wrapping_neg(), *cos]).collect()
                }
                Side::Client => waves.iter().flatten().copied().collect(),
            };
            if sums.side() == Side::Client {
                sums.add(sum, one.wrapping_neg(), &own);
            }
            sums.private(to, lanes, Side::Server, bits + 2, &own)?;
        }
        Ok(Trigonometric { terms, fine: Fine { sum, width: width + shift, shift } })
    }

    /// The fields in their order: an element's cosines, then its sines.
    pub fn finish<E: Engine>(self, sums: &mut Sums<'_, E>) -> Vec<u64> {
        let pairs = self.fine.truncated(sums);
        let ordered = pairs.chunks_exact(2 * self.terms).flat_map(|element| {
            [0, 1].into_iter().flat_map(move |part| element.iter().skip(part).step_by(2).copied())
        });
        reduced(ordered.collect(), self.fine.width - self.fine.shift)
    }
}

/// Fraction bits of two factors whose product is truncated to `frac` in a ring of `width`.
fn factor_bits(width: u32, frac: u32) -> u32 {
    ((64 - width + frac) / 2).min(frac + GUARD_BITS)
}

fn minus_power(bits: u32) -> u64 {
    1u64.checked_shl(bits).unwrap_or(0).wrapping_neg()
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
