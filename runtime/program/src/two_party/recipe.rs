//! From the demand of some instructions to gates, and from their results to fields.

use super::gates::{And, Engine, Side};
use super::matrix;
use super::planes::{Plane, numbers_of, planes_of};
use super::positions::{self, Moments, Waves};
use super::segment::{Growth, Segment};
use super::sums::{Lanes, Sums, To, reduced};
use crate::correlation::{Factor, Field, Kind, Sharing, digit_bits, digit_count, fields, first_carry};
use crate::fixed::mask;
use crate::ring::Ring;
use crate::schema::{Digits, Instruction};
use crate::validate::ValidProgram;

/// This party's own numbers: its part of a mask, its part of the mask of opened bits, the server's weight. Nothing where
/// it has none, or where only costs are counted.
pub type Parts<'a> = &'a dyn Fn(u32) -> Vec<u64>;

/// This party's shares of every field of `instructions`, in order, handed to `take` instruction by instruction. All of them are
/// made in the same rounds.
///
/// # Errors
/// Of the engine, and what `take` returns.
pub fn make<E: Engine>(
    engine: &mut E,
    program: &ValidProgram,
    instructions: &[u32],
    parts: Parts<'_>,
    take: &mut dyn FnMut(u32, Vec<Vec<u64>>) -> Result<(), E::Error>,
) -> Result<(), E::Error> {
    let recipe = Recipe { program, parts, side: engine.side() };
    let mut segment = Segment::new(recipe.side);
    for &at in instructions {
        recipe.need(at, &mut segment);
    }
    segment.add_parts(engine)?;
    for &at in instructions {
        recipe.grow(at, &mut segment);
    }
    segment.grow_all(engine)?;
    let gates = instructions.iter().flat_map(|&at| recipe.last_products(at, &segment)).collect();
    segment.multiply(engine, gates)?;

    let mut sums = Sums::new(engine, program.link());
    let mut begun = Vec::new();
    for &at in instructions {
        let mut of_instruction = Vec::new();
        for (number, field) in fields(program, at as usize).into_iter().enumerate() {
            let key = (at, number as u32);
            of_instruction.push((recipe.begin(key, &field, &segment, &mut sums)?, field));
        }
        begun.push(of_instruction);
    }
    drop(segment);
    sums.make()?;
    for wave in [Waves::Second, Waves::Third] {
        for (made, _) in begun.iter().flatten() {
            if let Made::Moments(moments) = made {
                moments.go_on(wave, &mut sums)?;
            }
        }
        sums.make()?;
    }
    let mut finish = |(made, field): (Made, Field)| match made {
        Made::Sum(sum) => reduced(sums.take(sum), field.width),
        Made::Words(words) => words,
        Made::Waves(waves) => waves.finish(&mut sums),
        Made::Moments(moments) => moments.finish(&mut sums),
    };
    let mut each = instructions.iter().zip(begun);
    each.try_for_each(|(&at, begun)| take(at, begun.into_iter().map(&mut finish).collect()))
}

/// What becomes of a field.
enum Made {
    Sum(usize),
    Words(Vec<u64>),
    Waves(positions::Trigonometric),
    Moments(Moments),
}

/// A shared bit of which products are made.
struct Bit<'a> {
    plane: Plane,
    shape: &'a [usize],
}

struct Recipe<'a> {
    program: &'a ValidProgram,
    parts: Parts<'a>,
    side: Side,
}

impl<'a> Recipe<'a> {
    fn width(&self, value: u32) -> u32 {
        self.program.ty(value).width().unwrap_or(64)
    }

    fn lanes(&self, value: u32) -> usize {
        self.program.ty(value).len()
    }

    fn shape(&self, value: u32) -> &'a [usize] {
        &self.program.ty(value).shape
    }

    fn need_carry(&self, segment: &mut Segment, value: u32, step: u32) {
        self.need_carry_from(segment, value, 0, step);
    }

    fn need_carry_from(&self, segment: &mut Segment, value: u32, start: u32, step: u32) {
        let (size, bits) = ((self.lanes(value), self.width(value)), (start, step));
        segment.need(value, size, bits, || (self.parts)(value));
    }

    /// The bits of masks that an instruction's fields are made of.
    fn need(&self, at: u32, segment: &mut Segment) {
        match self.program.instruction(at as usize) {
            Instruction::Table(t) => self.need_carry(segment, t.arg, t.low_bits + t.index_bits - 1),
            Instruction::BitTable(t) => self.need_carry(segment, t.arg, t.low_bits + t.index_bits - 1),
            Instruction::Lines(l) => {
                let (start, last) = (first_carry(l.low_bits), l.low_bits + l.index_bits - 1);
                self.need_carry_from(segment, l.arg, start, last);
            }
            Instruction::Digits(d) => {
                let (start, last) = (first_carry(d.low_bits), d.low_bits + d.width - 1);
                self.need_carry_from(segment, d.arg, start, last);
            }
            Instruction::OneHot(o) => self.need_carry(segment, o.arg, self.width(o.arg) - 1),
            _ => {}
        }
        for field in fields(self.program, at as usize) {
            for factor in field.kind.factors() {
                match factor {
                    Factor::Mask(v) if field.width > self.width(v) => {
                        self.need_carry(segment, v, self.width(v));
                    }
                    Factor::Msb(v) => self.need_carry(segment, v, self.width(v) - 1),
                    _ => {}
                }
            }
        }
    }

    /// Bits `first .. first + count` of a mask.
    fn bits(&self, segment: &Segment, value: u32, first: u32, count: u32) -> Vec<Plane> {
        let bit = |i| segment.mask(value).map(|m| m.bit(i)).unwrap_or_default();
        (first..first + count).map(bit).collect()
    }

    fn grow(&self, at: u32, segment: &mut Segment) {
        let mut unit = |arg: u32, first, count| {
            let bits = self.bits(segment, arg, first, count);
            segment.grow(unit_key(arg, first, count), Growth::Unit, self.lanes(arg), bits);
        };
        match self.program.instruction(at as usize) {
            Instruction::Table(t) => unit(t.arg, t.low_bits, t.index_bits),
            Instruction::BitTable(t) => unit(t.arg, t.low_bits, t.index_bits),
            Instruction::Lines(l) => unit(l.arg, l.low_bits, l.index_bits),
            Instruction::OneHot(o) => unit(o.arg, 0, self.width(o.arg)),
            Instruction::Digits(d) => {
                for digit in 0..digit_count(d) {
                    let (first, count) = digit_place(d, digit);
                    unit(d.arg, first, count);
                }
            }
            Instruction::Compare(c) => {
                let count = self.width(c.digits) as usize / 2;
                let lanes = self.lanes(c.opened);
                let bits = planes_of(&(self.parts)(c.opened), count as u32, count - 1);
                segment.grow((at, 0), Growth::Products, lanes, bits);
            }
            _ => {}
        }
    }

    /// A shared bit that a factor stands for.
    fn bit(&self, factor: Factor, segment: &Segment) -> Option<Bit<'a>> {
        match factor {
            Factor::Msb(v) => {
                let plane = segment.mask(v).map(|m| m.bit(self.width(v) - 1)).unwrap_or_default();
                Some(Bit { plane, shape: self.shape(v) })
            }
            Factor::Bit { bits, bit } => {
                let plane = planes_of(&(self.parts)(bits), bit, 1).pop().unwrap_or_default();
                Some(Bit { plane, shape: self.shape(bits) })
            }
            _ => None,
        }
    }

    /// The bit that says that the parts of a mask add up to more than its ring holds.
    fn overflow(&self, value: u32, segment: &Segment) -> Bit<'a> {
        let plane = segment.mask(value).map(|m| m.carry(self.width(value))).unwrap_or_default();
        Bit { plane, shape: self.shape(value) }
    }

    /// Products of two shared bits that sums need, and the "less" parts of comparisons.
    fn last_products(&self, at: u32, segment: &Segment) -> Vec<((u32, u32), And)> {
        let out = self.shape(at);
        let mut gates = Vec::new();
        let mut product = |number: usize, a: Bit<'a>, b: Bit<'a>| {
            let gate = And {
                lanes: out.iter().product(),
                bit: spread(&a.plane, a.shape, out),
                by: vec![spread(&b.plane, b.shape, out)],
            };
            gates.push(((at, number as u32), gate));
        };
        for (number, field) in fields(self.program, at as usize).iter().enumerate() {
            let Kind::Product(a, b) = field.kind else { continue };
            match (self.bit(a, segment), self.bit(b, segment), a, b) {
                (Some(x), Some(y), ..) => product(number, x, y),
                (Some(bit), None, _, Factor::Mask(v)) | (None, Some(bit), Factor::Mask(v), _)
                    if field.width > self.width(v) =>
                {
                    product(number, bit, self.overflow(v, segment));
                }
                (None, None, Factor::Mask(x), Factor::Mask(y))
                    if x != y && field.width > self.width(x) + self.width(y) =>
                {
                    product(number, self.overflow(x, segment), self.overflow(y, segment));
                }
                _ => {}
            }
        }
        if let Instruction::Compare(c) = self.program.instruction(at as usize) {
            let count = self.width(c.digits) as usize / 2;
            let less = planes_of(&(self.parts)(c.opened), 0, count);
            let subsets = segment.entries((at, 0));
            for (j, bit) in less.into_iter().enumerate() {
                let above = above_digit(subsets, j);
                gates.push((
                    (at, j as u32),
                    And { lanes: self.lanes(c.opened), bit, by: above[1..].to_vec() },
                ));
            }
        }
        gates
    }

    fn begin<E: Engine>(
        &self,
        key: (u32, u32),
        field: &Field,
        segment: &Segment,
        sums: &mut Sums<'_, E>,
    ) -> Result<Made, E::Error> {
        let at = key.0;
        let unit = |arg, first, count| segment.entries(unit_key(arg, first, count));
        let lanes = |arg: u32| self.lanes(arg);
        Ok(match (&field.kind, self.program.instruction(at as usize)) {
            (Kind::Factor(a), _) => Made::Sum(self.factor(*a, field, segment, sums)?),
            (Kind::Product(a, b), _) => Made::Sum(self.product(key, [*a, *b], field, segment, sums)?),
            (Kind::MatrixProduct(a, b), _) => {
                let sum = sums.begin(Vec::new());
                let to = To { sum, factor: 1, width: field.width };
                let parts = [*a, *b].map(|factor| match factor {
                    Factor::Mask(v) | Factor::WeightMask(v) => (v, (self.parts)(v)),
                    _ => (at, Vec::new()),
                });
                matrix::product(self.program, at, &parts, to, sums)?;
                Made::Sum(sum)
            }
            (Kind::SquareSum(Factor::Mask(v)), _) => {
                let (part, length) = ((self.parts)(*v), row_length(self.shape(*v)));
                let sum = sums.begin(square_sums(&part, length));
                let to = To { sum, factor: 2, width: field.width.saturating_sub(1) };
                let (lanes, bits) = (Lanes::single(self.lanes(*v)), self.width(*v));
                if lanes.count > 0 {
                    sums.private_terms(to, lanes, length, Side::Server, bits, &part)?;
                }
                Made::Sum(sum)
            }
            (Kind::TableEntries, Instruction::Table(t)) => {
                let overflow = segment.mask(t.arg).map(|m| m.carry(t.low_bits)).unwrap_or_default();
                let part = (self.parts)(t.arg);
                let unit = unit(t.arg, t.low_bits, t.index_bits);
                Made::Moments(Moments::begin(t, lanes(t.arg), unit, overflow, &part, sums)?)
            }
            (Kind::Trigonometric, Instruction::Fourier(f)) => {
                let part = (self.parts)(f.arg);
                Made::Waves(positions::Trigonometric::begin(f, lanes(f.arg), &part, sums)?)
            }
            (Kind::OneHotEntries, Instruction::OneHot(o)) => {
                let unit = unit(o.arg, 0, self.width(o.arg));
                let (count, entries) = (lanes(o.arg), unit.len());
                let sum = sums.begin(Vec::new());
                let to = To { sum, factor: 1, width: field.width };
                // Entry j is 1 where j = -r: the unit vector of r backwards.
                let order: Vec<Plane> = (0..entries).map(|j| unit[(entries - j) % entries].clone()).collect();
                let flat = positions::in_lanes(&order, count);
                sums.bit(to, count * entries, &flat)?;
                Made::Sum(sum)
            }
            (Kind::UnitVector, Instruction::BitTable(t)) => {
                Made::Words(unit_words(unit(t.arg, t.low_bits, t.index_bits), lanes(t.arg)))
            }
            (Kind::UnitVector, Instruction::Lines(l)) => {
                Made::Words(unit_words(unit(l.arg, l.low_bits, l.index_bits), lanes(l.arg)))
            }
            (Kind::UnitVector, Instruction::Digits(d)) => {
                let (first, count) = digit_place(d, 0);
                Made::Words(unit_words(unit(d.arg, first, count), lanes(d.arg)))
            }
            (Kind::DigitTable { digit }, Instruction::Digits(d)) => {
                let (first, count) = digit_place(d, *digit);
                Made::Words(digit_words(d, unit(d.arg, first, count), lanes(d.arg)))
            }
            (Kind::SignBit, Instruction::Digits(d)) => {
                let top = self.bits(segment, d.arg, d.low_bits + d.width - 1, 1);
                Made::Words(numbers_of(&top, lanes(d.arg)))
            }
            (
                Kind::EqualProducts | Kind::LessProductsLow | Kind::LessProductsHigh,
                Instruction::Compare(c),
            ) => {
                let less = planes_of(&(self.parts)(c.opened), 0, self.width(c.digits) as usize / 2);
                let with_less = |j: usize| {
                    let above = above_digit(segment.entries((at, 0)), j).len();
                    let products = (1..above).map(move |s| segment.product((at, j as u32), s as u32 - 1));
                    std::iter::once(less[j].clone()).chain(products)
                };
                let subsets = segment.entries((at, 0));
                let planes: Vec<Plane> = match field.kind {
                    Kind::EqualProducts => subsets.to_vec(),
                    Kind::LessProductsLow => with_less(0).collect(),
                    _ => (1..less.len()).flat_map(with_less).collect(),
                };
                Made::Words(numbers_of(&planes, lanes(c.opened)))
            }
            _ => {
                debug_assert!(field.sharing == Sharing::Additive);
                Made::Words(Vec::new())
            }
        })
    }

    fn factor<E: Engine>(
        &self,
        factor: Factor,
        field: &Field,
        segment: &Segment,
        sums: &mut Sums<'_, E>,
    ) -> Result<usize, E::Error> {
        let width = field.width;
        if let Some(bit) = self.bit(factor, segment) {
            let sum = sums.begin(Vec::new());
            sums.bit(To { sum, factor: 1, width }, field.len, &bit.plane)?;
            return Ok(sum);
        }
        let (Factor::Mask(v) | Factor::WeightMask(v)) = factor else { return Ok(sums.begin(Vec::new())) };
        let sum = sums.begin((self.parts)(v));
        let own = self.width(v);
        if width > own {
            let overflow = self.overflow(v, segment);
            let to = To { sum, factor: (1u64 << own).wrapping_neg(), width: width - own };
            sums.bit(to, field.len, &overflow.plane)?;
        }
        Ok(sum)
    }

    fn product<E: Engine>(
        &self,
        key: (u32, u32),
        factors: [Factor; 2],
        field: &Field,
        segment: &Segment,
        sums: &mut Sums<'_, E>,
    ) -> Result<usize, E::Error> {
        let (out, width, count) = (self.shape(key.0), field.width, field.len);
        let sum = sums.begin(Vec::new());
        let to = |factor: u64, shift: u32| To { sum, factor, width: width.saturating_sub(shift) };
        let both = segment.product(key, 0);
        match (factors.map(|f| self.bit(f, segment)), factors) {
            ([Some(_), Some(_)], _) => sums.bit(to(1, 0), count, &both)?,
            ([Some(bit), None], [_, Factor::Mask(v)]) | ([None, Some(bit)], [Factor::Mask(v), _]) => {
                self.bit_by_part(to(1, 0), &bit, v, out, sums)?;
                let k = self.width(v);
                if width > k {
                    sums.bit(to(minus_power(k), k), count, &both)?;
                }
            }
            (_, [Factor::Mask(x), Factor::Mask(y)]) if x == y => {
                let (part, k) = ((self.parts)(x), self.width(x));
                sums.add(sum, 1, &part.iter().map(|p| p.wrapping_mul(*p)).collect::<Vec<_>>());
                sums.private(to(2, 1), Lanes::single(count), Side::Server, k, &part)?;
                if width > k {
                    let overflow = self.overflow(x, segment);
                    if width > k + 1 {
                        let to = to(minus_power(k + 1), k + 1);
                        sums.bit_times(to, Lanes::single(count), &overflow.plane, &part)?;
                    }
                    if width > 2 * k {
                        sums.bit(to(1 << (2 * k), 2 * k), count, &overflow.plane)?;
                    }
                }
            }
            (_, [Factor::Mask(x), Factor::Mask(y)]) => {
                self.masks_product([x, y], out, to(1, 0), &both, segment, sums)?;
            }
            (_, [Factor::Mask(x), Factor::WeightMask(w)]) => {
                let own = match self.side {
                    Side::Client => self.expanded(x, out),
                    Side::Server => self.expanded(w, out),
                };
                let bits = self.width(x).min(width);
                sums.private(to(1, 0), Lanes::single(count), Side::Client, bits, &own)?;
            }
            _ => {}
        }
        Ok(sum)
    }

    /// `r s` of two masks, with their parts' overflows.
    fn masks_product<E: Engine>(
        &self,
        values: [u32; 2],
        out: &[usize],
        to: To,
        both: &Plane,
        segment: &Segment,
        sums: &mut Sums<'_, E>,
    ) -> Result<(), E::Error> {
        let count: usize = out.iter().product();
        let [a, b] = values;
        // The one whose every element serves several of the result chooses, else the narrower.
        let (large, small, per) = match (rows(self.shape(a), out), rows(self.shape(b), out)) {
            (Some(1), Some(per)) => (a, b, per),
            (Some(per), Some(1)) => (b, a, per),
            _ => (a, b, 0),
        };
        let (large, small) = match per {
            0 | 1 if self.width(a) < self.width(b) => (b, a),
            _ => (large, small),
        };
        let large_part = self.expanded(large, out);
        let expanded = self.expanded(small, out);
        let (lanes, small_part) = match per {
            0 => (Lanes::single(count), expanded.clone()),
            _ => (Lanes { count: count / per.max(1), per }, (self.parts)(small)),
        };
        let local: Vec<u64> = large_part.iter().zip(&expanded).map(|(x, y)| x.wrapping_mul(*y)).collect();
        sums.add(to.sum, 1, &local);
        let (large_bits, small_bits) = (self.width(large), self.width(small));
        for chooser in [Side::Client, Side::Server] {
            let own = if self.side == chooser { &small_part } else { &large_part };
            sums.private(to, lanes, chooser, small_bits, own)?;
        }
        let scaled = |bits: u32| To { factor: minus_power(bits), width: to.width.saturating_sub(bits), ..to };
        if to.width > large_bits {
            let overflow = self.overflow(large, segment);
            let plane = spread(&overflow.plane, overflow.shape, out);
            sums.bit_times(scaled(large_bits), Lanes::single(count), &plane, &expanded)?;
        }
        if to.width > small_bits {
            let overflow = self.overflow(small, segment);
            let plane = if per == 0 { spread(&overflow.plane, overflow.shape, out) } else { overflow.plane };
            sums.bit_times(scaled(small_bits), lanes, &plane, &large_part)?;
        }
        let sum_bits = large_bits + small_bits;
        if to.width > sum_bits {
            let to = To { factor: 1u64 << sum_bits, width: to.width - sum_bits, ..to };
            sums.bit(to, count, both)?;
        }
        Ok(())
    }

    /// A shared bit times the parts of a mask.
    fn bit_by_part<E: Engine>(
        &self,
        to: To,
        bit: &Bit<'_>,
        value: u32,
        out: &[usize],
        sums: &mut Sums<'_, E>,
    ) -> Result<(), E::Error> {
        let count: usize = out.iter().product();
        match rows(bit.shape, out) {
            Some(per) if per > 1 && self.shape(value) == out => {
                sums.bit_times(to, Lanes { count: count / per, per }, &bit.plane, &(self.parts)(value))
            }
            _ => {
                let plane = spread(&bit.plane, bit.shape, out);
                sums.bit_times(to, Lanes::single(count), &plane, &self.expanded(value, out))
            }
        }
    }

    /// This party's part of a mask, repeated to a shape.
    fn expanded(&self, value: u32, out: &[usize]) -> Vec<u64> {
        let part = (self.parts)(value);
        if part.is_empty() || self.shape(value) == out {
            return part;
        }
        Ring::new(self.shape(value), part).broadcast(out).data
    }
}

/// By which a unit vector of bits `first .. first + count` of a mask is found: whoever needs the same shares it.
fn unit_key(arg: u32, first: u32, count: u32) -> (u32, u32) {
    (arg, first << 8 | count)
}

/// Which bits of the operand's mask a digit is, those that there are.
fn digit_place(d: &Digits, digit: usize) -> (u32, u32) {
    let (first, count) = digit_bits(d, digit);
    (d.low_bits + first, count.min(d.width - 1 - first))
}

/// Elements of a value's last axis.
pub fn row_length(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

/// The sum of the squares of each row of one party's part.
pub fn square_sums(part: &[u64], length: usize) -> Vec<u64> {
    let sum = |row: &[u64]| row.iter().fold(0u64, |sum, v| sum.wrapping_add(v.wrapping_mul(*v)));
    part.chunks(length).map(sum).collect()
}

fn minus_power(bits: u32) -> u64 {
    1u64.checked_shl(bits).unwrap_or(0).wrapping_neg()
}

/// To how many consecutive elements of the result each element belongs; `None` where they are not consecutive.
fn rows(shape: &[usize], out: &[usize]) -> Option<usize> {
    let padding = out.len().checked_sub(shape.len())?;
    let dim = |i: usize| if i < padding { 1 } else { shape[i - padding] };
    let leading = (0..out.len()).take_while(|&i| dim(i) == out[i]).count();
    (leading..out.len()).all(|i| dim(i) == 1).then(|| out[leading..].iter().product())
}

/// A plane repeated to a shape.
fn spread(plane: &Plane, shape: &[usize], out: &[usize]) -> Plane {
    if shape == out || plane.words().is_empty() {
        return plane.clone();
    }
    let indices = Ring::new(shape, (0..shape.iter().product::<usize>() as u64).collect()).broadcast(out);
    plane.gather(&indices.data)
}

/// Subsets of the "equal" digits above digit `j`.
fn above_digit(subsets: &[Plane], j: usize) -> Vec<Plane> {
    subsets.iter().step_by(1 << j).cloned().collect()
}

/// A unit vector's bits in words, lane after lane.
fn unit_words(unit: &[Plane], lanes: usize) -> Vec<u64> {
    let columns: Vec<Vec<u64>> = unit.chunks(64).map(|planes| numbers_of(planes, lanes)).collect();
    if columns.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let word = |lane: usize, column: &Vec<u64>| column.get(lane).copied().unwrap_or(0);
    (0..lanes).flat_map(|lane| columns.iter().map(move |column| word(lane, column))).collect()
}

/// A digit's words: "c less than the digit" for every c, then "c equal to it".
fn digit_words(d: &Digits, unit: &[Plane], lanes: usize) -> Vec<u64> {
    let size = 1usize << d.digit_bits;
    let mut planes = vec![Plane::default(); 2 * size];
    let mut greater = Plane::default();
    for c in (0..unit.len()).rev() {
        planes[c] = greater.clone();
        planes[size + c] = unit[c].clone();
        greater.xor_in(&unit[c]);
    }
    let words = numbers_of(&planes, lanes);
    debug_assert!(words.iter().all(|word| word & !mask(2 << d.digit_bits) == 0));
    words
}
