//! The value of every kind of field, from the masks.

use std::ops::Range;

use marill_kernels::matmul::MatShape;
use marill_kernels::{Prg, Seed};
use marill_program::correlation::{Factor, Field, Kind, unit_words};
use marill_program::schema::{Compare, Digits};
use marill_program::two_party::recipe::{row_length, square_sums};
use marill_program::{Form, Instruction, Ring, ValidProgram};
use marill_program::{fixed, tables};

use super::stream::Values;
use crate::correlation::mask_stream;
use crate::correlation::masks::Masks;
use crate::error::RunError;
use crate::protocol::tiles;

/// What the dealer knows when it comes to an instruction.
pub struct Known<'a> {
    /// The program.
    pub program: &'a ValidProgram,
    /// The masks that are alive.
    pub masks: &'a Masks<'a>,
    /// The seed of the weights' masks.
    pub weight_seed: &'a Seed,
}

/// The mask of a value that the instruction uses has not been made, which validation rules out.
#[derive(Debug, thiserror::Error)]
#[error("instruction {at} uses the mask of value {value}, which there is not")]
struct NoMask {
    at: u32,
    value: u32,
}

impl<'a> Known<'a> {
    fn mask(&self, at: u32, value: u32) -> Result<&'a Ring, RunError> {
        self.masks.get(value).ok_or_else(|| RunError::BadProgram { reason: Box::new(NoMask { at, value }) })
    }

    fn width(&self, value: u32) -> u32 {
        self.program.ty(value).width().unwrap_or(64)
    }

    fn factor(&self, at: u32, factor: Factor) -> Result<Ring, RunError> {
        Ok(match factor {
            Factor::Mask(v) => self.mask(at, v)?.clone(),
            Factor::Msb(v) => {
                let top = self.width(v) - 1;
                self.mask(at, v)?.map(|r| (r >> top) & 1)
            }
            Factor::Bit { bits, bit } => self.mask(at, bits)?.map(|beta| (beta >> bit) & 1),
            Factor::WeightMask(w) => {
                let ty = self.program.ty(w);
                let mut prg = Prg::new(self.weight_seed.clone(), mask_stream(w));
                Ring::new(ty.shape.clone(), prg.ring(ty.len(), self.width(w)))
            }
        })
    }

    fn matrix_product(
        &self,
        at: u32,
        (a, b): (Factor, Factor),
        result_width: u32,
    ) -> Result<Vec<u64>, RunError> {
        let left = self.factor(at, a)?;
        let Factor::WeightMask(w) = b else {
            return Ok(left.matmul(&self.factor(at, b)?, &self.program.ty(at).shape, result_width).data);
        };
        let (shape, width) = (&self.program.ty(w).shape, self.width(w));
        let (k, m) = (shape[0], shape[1]);
        let shape = MatShape { n: self.program.ty(at).len() / m.max(1), k, m };
        let stream = || Prg::new(self.weight_seed.clone(), mask_stream(w));
        tiles::product(&left.data, shape, result_width, stream, |prg, tile, out| {
            out.resize(tile.elements(), 0);
            let mut rest = out.as_mut_slice();
            for span in tile.spans() {
                let (now, later) = rest.split_at_mut(span.len());
                prg.seek_number(span.start as u64, width);
                prg.fill_ring(now, width);
                rest = later;
            }
            Ok(())
        })
    }

    /// The values of a field of instruction `at`.
    ///
    /// # Errors
    /// `BadProgram` where a mask is not there.
    pub fn values(&self, at: u32, field: &Field) -> Result<Values<'a>, RunError> {
        let instruction = self.program.instruction(at as usize);
        Ok(match (&field.kind, instruction) {
            (Kind::Factor(factor), _) => Values::Whole(self.factor(at, *factor)?.data),
            (Kind::Product(a, b), _) => {
                let (a, b) = (self.factor(at, *a)?, self.factor(at, *b)?);
                Values::Whole(a.mul(&b, &self.program.ty(at).shape).data)
            }
            (Kind::MatrixProduct(a, b), _) => {
                Values::Whole(self.matrix_product(at, (*a, *b), field.width)?)
            }
            (Kind::SquareSum(factor), _) => {
                let r = self.factor(at, *factor)?;
                Values::Whole(square_sums(&r.data, row_length(&r.shape)))
            }
            (Kind::TableEntries, Instruction::Table(t)) => {
                let per = (1usize << t.index_bits) * (t.degree as usize + 1);
                each(self.mask(at, t.arg)?, per, |r, out| tables::table_entries(t, r, out))
            }
            (Kind::Trigonometric, Instruction::Fourier(f)) => {
                each(self.mask(at, f.arg)?, 2 * f.cos.len(), |r, out| tables::fourier_entries(f, r, out))
            }
            (Kind::UnitVector, Instruction::BitTable(t)) => {
                self.unit_vector(at, t.arg, (t.low_bits, t.index_bits))?
            }
            (Kind::UnitVector, Instruction::Lines(l)) => {
                self.unit_vector(at, l.arg, (l.low_bits, l.index_bits))?
            }
            (Kind::UnitVector, Instruction::Digits(d)) => {
                self.unit_vector(at, d.arg, (d.low_bits, d.lowest_bits))?
            }
            (Kind::DigitTable { digit }, Instruction::Digits(d)) => {
                let digit = *digit;
                each(self.mask(at, d.arg)?, 1, move |r, out| out.push(digit_word(d, digit, r)))
            }
            (Kind::SignBit, Instruction::Digits(d)) => each(self.mask(at, d.arg)?, 1, |r, out| {
                out.push(tables::shifted(d, r, 0) >> (d.width - 1));
            }),
            (
                Kind::EqualProducts | Kind::LessProductsLow | Kind::LessProductsHigh,
                Instruction::Compare(c),
            ) => {
                let (kind, beta, count) = (field.kind.clone(), self.mask(at, c.opened)?, self.digits(c));
                each(beta, 1, move |beta, out| {
                    out.push(match kind {
                        Kind::EqualProducts => equal_products(beta, count),
                        Kind::LessProductsLow => less_products_low(beta, count),
                        _ => less_products_high(beta, count),
                    });
                })
            }
            (Kind::OneHotEntries, Instruction::OneHot(o)) => {
                let width = self.width(o.arg);
                each(self.mask(at, o.arg)?, 1 << width, move |r, out| {
                    let hot = r.wrapping_neg() & fixed::mask(width);
                    out.extend((0..1u64 << width).map(|j| u64::from(j == hot)));
                })
            }
            _ => Values::Whole(vec![0; field.len]),
        })
    }

    fn unit_vector(&self, at: u32, arg: u32, bits: (u32, u32)) -> Result<Values<'a>, RunError> {
        let (words, _) = unit_words(bits.1);
        Ok(each(self.mask(at, arg)?, words, move |r, out| tables::unit_vector(bits, r, out)))
    }

    fn digits(&self, c: &Compare) -> usize {
        match self.program.ty(c.digits).form {
            Form::Boolean { width } => width as usize / 2,
            _ => 1,
        }
    }
}

fn each<'a>(r: &'a Ring, per: usize, fill: impl Fn(u64, &mut Vec<u64>) + Sync + 'a) -> Values<'a> {
    let fill =
        move |range: Range<usize>, out: &mut Vec<u64>| r.data[range].iter().for_each(|&r| fill(r, out));
    Values::Each { elements: r.len(), per, fill: Box::new(fill) }
}

fn digit_word(d: &Digits, digit: usize, r: u64) -> u64 {
    tables::digit_word(d.digit_bits, tables::digit(d, tables::shifted(d, r, 0), digit))
}

/// All ones where `bit` is 1.
fn spread(bit: u64) -> u64 {
    0u64.wrapping_sub(bit & 1)
}

/// Bit S: the product over S of the bits of `bits`, of which there are `count`.
fn subset_products(bits: u64, count: usize) -> u64 {
    (0..count).fold(1, |word, i| word | (word & spread(bits >> i)) << (1 << i))
}

fn equal_products(beta: u64, count: usize) -> u64 {
    subset_products(beta >> count, count - 1)
}

fn less_products_low(beta: u64, count: usize) -> u64 {
    equal_products(beta, count) & spread(beta)
}

fn less_products_high(beta: u64, count: usize) -> u64 {
    let (mut word, mut offset) = (0, 0);
    for j in 1..count {
        let above = count - 1 - j;
        let products = subset_products(beta >> (count + j), above) & spread(beta >> j);
        word |= products << offset;
        offset += 1 << above;
    }
    word
}
