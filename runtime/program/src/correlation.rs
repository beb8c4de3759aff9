//! What preprocessing must make for each instruction, as functions of the masks alone.
//!
//! Masks are sampled by the parties themselves and cost nothing. A [`Field`] is a tensor of shares, additive or
//! XOR, of a product of masks or of a table that the masks shift. The demand of a program is the list of fields of
//! its instructions, in order; any maker of fields (a dealer, or the two parties between them) serves the same
//! online engine.
//!
//! Notation: for a masked value of width k, `r` is its mask as an integer in [0, 2^k) and `m` its top bit, so that
//! `x = u - r + 2^k * n * m` with the public `u = ((X + 2^(k-2)) mod 2^k) - 2^(k-2)` and `n = 1` where the top bit
//! of `(X + 2^(k-2)) mod 2^k` is 0.

use std::collections::BTreeSet;

use marill_plaintext::Op;

use crate::plan;
use crate::schema::{self, Instruction};
use crate::validate::ValidProgram;
use crate::value::{Form, Target};

/// How shares of a field combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Sum modulo 2^width.
    Additive,
    /// Exclusive or of words of `width` bits.
    Xor,
}

/// A secret that preprocessing knows: a function of one value's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factor {
    /// `r` of a masked value.
    Mask(u32),
    /// `m`, the top bit of `r`.
    Msb(u32),
    /// Bit `bit` of the mask of opened bits.
    Bit { bits: u32, bit: u32 },
    /// `B` of a weight.
    WeightMask(u32),
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The factor itself.
    Factor(Factor),
    /// The element-wise product, broadcast.
    Product(Factor, Factor),
    /// The matrix product.
    MatrixProduct(Factor, Factor),
    /// The sum of `r^2` along the last axis.
    SquareSum(Factor),
    /// Per element, per piece `j`, per power `e` up to the degree: with `r' = r mod 2^(low_bits + index_bits)` and
    /// `t = (r' mod 2^low_bits) / 2^low_bits`, `round(2^entry_frac t^e)` (1 for `e` = 0) where `j = r' >> low_bits`, else 0;
    /// with the exponential basis `round(2^entry_frac e^-(2^exponent_log2 t))`. The functions' coefficients are not in it.
    TableEntries,
    /// Per element: `round(2^entry_frac * cos(j w r))` for j = 1 ..= terms, then `sin`.
    Trigonometric,
    /// Per element, `2^index_bits` bits in words: bit `j` is 1 where `j = (r >> low_bits) mod 2^index_bits`. Truth tables
    /// are linear in it, however many there are.
    UnitVector,
    /// Per element, one word: bit `c` is 1 where `c < d`, bit `2^digit_bits + c` where `c = d`, `d` being digit
    /// `digit` of `(r >> low_bits) mod 2^(width - 1)`, with the `Digits`' own `width`.
    DigitTable { digit: usize },
    /// Per element: bit `width - 1` of `r >> low_bits`.
    SignBit,
    /// Per element, bit S: the product over the digits i in S (bit i - 1 of S) of the masks of "equal i".
    EqualProducts,
    /// Per element, bit S: the mask of "less 0" times the product of the masks of "equal i" over S as above.
    LessProductsLow,
    /// Per element, for j = 1, 2, ... one after the other: bit S (over the digits above j, bit i - j - 1): the mask
    /// of "less j" times the product of the masks of "equal i" over S.
    LessProductsHigh,
    /// Per element, `2^n` entries: 1 at `r`'s negative, that is entry `j` is 1 where `j = -r mod 2^n`.
    OneHotEntries,
}

impl Kind {
    /// The factors of which it is the product.
    pub fn factors(&self) -> impl Iterator<Item = Factor> + use<> {
        let [a, b] = match *self {
            Kind::Factor(a) | Kind::SquareSum(a) => [Some(a), None],
            Kind::Product(a, b) | Kind::MatrixProduct(a, b) => [Some(a), Some(b)],
            _ => [None, None],
        };
        a.into_iter().chain(b)
    }
}

/// One tensor of correlated randomness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    pub kind: Kind,
    pub sharing: Sharing,
    pub len: usize,
    pub width: u32,
}

fn additive(kind: Kind, len: usize, width: u32) -> Field {
    Field { kind, sharing: Sharing::Additive, len, width }
}

fn xor(kind: Kind, len: usize, width: u32) -> Field {
    Field { kind, sharing: Sharing::Xor, len, width }
}

/// The fields that instruction `at` consumes, in order.
pub fn fields(program: &ValidProgram, at: usize) -> Vec<Field> {
    let len = |v: u32| program.ty(v).len();
    let width_of = |v: u32| program.ty(v).width().unwrap_or(64);
    let out = program.types()[at].len();
    match program.instruction(at) {
        Instruction::Lift(l) => lift_fields(l.arg, len(l.arg), width_of(l.arg), l.width),
        Instruction::Mul(p) => product_fields(program, p, out),
        Instruction::MatMul(p) => match (program.ty(p.a).form, program.ty(p.b).form) {
            (Form::Masked { .. }, Form::Masked { .. }) => {
                vec![additive(Kind::MatrixProduct(Factor::Mask(p.a), Factor::Mask(p.b)), out, p.width)]
            }
            (Form::Masked { .. }, Form::Weight { .. }) => {
                vec![additive(Kind::MatrixProduct(Factor::Mask(p.a), Factor::WeightMask(p.b)), out, p.width)]
            }
            _ => Vec::new(),
        },
        Instruction::Square(s) => {
            let (n, k) = (len(s.arg), width_of(s.arg));
            let mut all = lift_fields(s.arg, n, k, s.width);
            let mask = Factor::Mask(s.arg);
            all.push(additive(Kind::Product(mask, mask), n, s.width));
            if k < s.width {
                all.push(additive(Kind::Product(mask, Factor::Msb(s.arg)), n, s.width - k));
            }
            all
        }
        Instruction::SquareSum(s) => vec![additive(Kind::SquareSum(Factor::Mask(s.arg)), out, s.width)],
        Instruction::Table(t) => {
            let entries = len(t.arg) * (1usize << t.index_bits) * (t.degree as usize + 1);
            vec![additive(Kind::TableEntries, entries, t.width)]
        }
        Instruction::Fourier(f) => {
            vec![additive(Kind::Trigonometric, len(f.arg) * 2 * f.cos.len(), f.width)]
        }
        Instruction::BitTable(t) => {
            let (words, width) = unit_words(t.index_bits);
            vec![xor(Kind::UnitVector, len(t.arg) * words, width)]
        }
        Instruction::Lines(l) => {
            let (words, width) = unit_words(l.index_bits);
            vec![xor(Kind::UnitVector, len(l.arg) * words, width)]
        }
        Instruction::Digits(d) => {
            let digits = digit_count(d);
            let word = 2u32 << d.digit_bits;
            let mut tables: Vec<Field> =
                (0..digits).map(|digit| xor(Kind::DigitTable { digit }, len(d.arg), word)).collect();
            if d.lowest_bits != 0 {
                let (words, width) = unit_words(d.lowest_bits);
                tables[0] = xor(Kind::UnitVector, len(d.arg) * words, width);
            }
            tables.push(xor(Kind::SignBit, len(d.arg), 1));
            tables
        }
        Instruction::Compare(c) => {
            let subsets = 1u32 << (width_of(c.digits) / 2 - 1);
            let mut all =
                vec![xor(Kind::EqualProducts, out, subsets), xor(Kind::LessProductsLow, out, subsets)];
            if subsets > 1 {
                all.push(xor(Kind::LessProductsHigh, out, subsets - 1));
            }
            all
        }
        Instruction::BitProduct(b) => {
            let (n, k) = (len(b.arg), width_of(b.arg));
            let bit = Factor::Bit { bits: b.bits, bit: b.bit };
            let mut all = lift_fields(b.arg, n, k, b.width);
            all.push(additive(Kind::Factor(bit), n, b.width));
            all.push(additive(Kind::Product(bit, Factor::Mask(b.arg)), n, b.width));
            if k < b.width {
                all.push(additive(Kind::Product(bit, Factor::Msb(b.arg)), n, b.width - k));
            }
            all
        }
        Instruction::BitToArithmetic(b) => {
            let bit = |i| Factor::Bit { bits: b.bits, bit: b.bit + i };
            let count = b.count.min(b.width);
            (0..count).map(|i| additive(Kind::Factor(bit(i)), out, b.width - i)).collect()
        }
        Instruction::MaskProduct(p) => {
            let (n, k) = (len(p.arg), width_of(p.arg));
            let mut all = lift_fields(p.arg, n, k, p.width);
            for i in 0..p.count.min(p.width) {
                let (bit, width) = (Factor::Bit { bits: p.bits, bit: p.bit + i }, p.width - i);
                all.push(additive(Kind::Product(bit, Factor::Mask(p.arg)), n, width));
                if k < width {
                    all.push(additive(Kind::Product(bit, Factor::Msb(p.arg)), n, width - k));
                }
            }
            all
        }
        Instruction::OneHot(o) => {
            vec![additive(Kind::OneHotEntries, len(o.arg) << width_of(o.arg), o.width)]
        }
        _ => Vec::new(),
    }
}

/// The values of whose masks the fields of instruction `at` are functions, weights left out.
pub fn masked_operands(program: &ValidProgram, at: usize) -> BTreeSet<u32> {
    let factors = fields(program, at).into_iter().flat_map(|field| field.kind.factors());
    let mut values: BTreeSet<u32> = factors
        .filter_map(|factor| match factor {
            Factor::Mask(v) | Factor::Msb(v) | Factor::Bit { bits: v, .. } => Some(v),
            Factor::WeightMask(_) => None,
        })
        .collect();
    values.extend(match program.instruction(at) {
        Instruction::Table(t) => Some(t.arg),
        Instruction::Fourier(f) => Some(f.arg),
        Instruction::BitTable(t) => Some(t.arg),
        Instruction::Lines(l) => Some(l.arg),
        Instruction::Digits(d) => Some(d.arg),
        Instruction::OneHot(o) => Some(o.arg),
        Instruction::Compare(c) => Some(c.opened),
        _ => None,
    });
    values
}

/// The public index tensor by which instruction `at` moves masks, if it does: a maker of fields must know it.
pub fn mask_movement(program: &ValidProgram, at: usize) -> Option<u32> {
    let masked = |v: u32| matches!(program.ty(v).form, Form::Masked { .. } | Form::MaskedBits { .. });
    match program.instruction(at) {
        Instruction::Move(m) if masked(at as u32) && matches!(program.op(at), Some(Op::Gather { .. })) => {
            m.args.get(1).copied()
        }
        Instruction::Place(p) if masked(at as u32) => Some(p.indices),
        _ => None,
    }
}

/// All index tensors of [`mask_movement`], in order, each once.
pub fn mask_indices(program: &ValidProgram) -> Vec<u32> {
    let all: BTreeSet<u32> = (0..program.len()).filter_map(|at| mask_movement(program, at)).collect();
    all.into_iter().collect()
}

/// The public matrix that instruction `at` multiplies a masked value by, if it does: a maker of fields must know it, as
/// it multiplies the mask.
pub fn mask_matrix(program: &ValidProgram, at: usize) -> Option<u32> {
    match program.instruction(at) {
        Instruction::MatMul(p) if matches!(program.types()[at].form, Form::Masked { .. }) => Some(p.b),
        _ => None,
    }
}

/// All matrices of [`mask_matrix`], in order, each once.
pub fn mask_matrices(program: &ValidProgram) -> Vec<u32> {
    let all: BTreeSet<u32> = (0..program.len()).filter_map(|at| mask_matrix(program, at)).collect();
    all.into_iter().collect()
}

/// For each masked value whether what follows needs a party's own part of its mask; others need correlations alone.
pub fn own_mask_needed(program: &ValidProgram) -> Vec<bool> {
    let mut needed = vec![false; program.len()];
    for at in (0..program.len()).rev() {
        let is_masked = matches!(program.types()[at].form, Form::Masked { .. } | Form::MaskedBits { .. });
        let instruction = program.instruction(at);
        let uses = match instruction {
            Instruction::Table(_)
            | Instruction::Fourier(_)
            | Instruction::BitTable(_)
            | Instruction::Lines(_)
            | Instruction::Digits(_)
            | Instruction::OneHot(_) => false,
            Instruction::Mul(p) | Instruction::MatMul(p)
                if matches!(program.types()[p.b as usize].form, Form::Weight { .. }) =>
            {
                false
            }
            _ if is_masked => needed[at],
            _ => true,
        };
        if uses {
            plan::arguments(instruction).into_iter().for_each(|a| needed[a as usize] = true);
        }
    }
    needed
}

/// An argument counts as up to this part of a piece more where two parties spare the carries of a mask's lowest bits, as a
/// negative power of two.
pub const UNSEEN_LOG2: u32 = 4;

/// The lowest bit of a mask whose carry counts for a piece of `2^low_bits` arguments: two parts without those below add up
/// to less than the mask, by less than `2^-UNSEEN_LOG2` of a piece.
pub fn first_carry(low_bits: u32) -> u32 {
    low_bits.saturating_sub(UNSEEN_LOG2 + 1)
}

/// Words of a unit vector of `2^index_bits` entries, or of a truth table, and the bits of each.
pub fn unit_words(index_bits: u32) -> (usize, u32) {
    let entries = 1usize << index_bits;
    (entries.div_ceil(64), entries.min(64) as u32)
}

/// Digits of a comparison.
pub fn digit_count(d: &schema::Digits) -> usize {
    let rest = (d.width - 1).saturating_sub(lowest_digit_bits(d));
    1 + rest.div_ceil(d.digit_bits) as usize
}

/// The first bit of a digit, and how many it has at most.
pub fn digit_bits(d: &schema::Digits, digit: usize) -> (u32, u32) {
    match digit {
        0 => (0, lowest_digit_bits(d)),
        _ => (lowest_digit_bits(d) + (digit as u32 - 1) * d.digit_bits, d.digit_bits),
    }
}

fn lowest_digit_bits(d: &schema::Digits) -> u32 {
    if d.lowest_bits == 0 { d.digit_bits } else { d.lowest_bits }
}

/// `r` at `width` bits and `m` at the bits above the operand's, where the operand must be lifted.
fn lift_fields(arg: u32, len: usize, from: u32, width: u32) -> Vec<Field> {
    if from >= width {
        return Vec::new();
    }
    vec![
        additive(Kind::Factor(Factor::Mask(arg)), len, width),
        additive(Kind::Factor(Factor::Msb(arg)), len, width - from),
    ]
}

fn product_fields(program: &ValidProgram, p: &schema::Product, out: usize) -> Vec<Field> {
    let (a, b) = (program.ty(p.a), program.ty(p.b));
    let w = p.width;
    match (a.form, b.form) {
        (Form::Masked { to: Target::Server, .. }, Form::Weight { .. }) => {
            vec![additive(Kind::Product(Factor::Mask(p.a), Factor::WeightMask(p.b)), out, w)]
        }
        (Form::Masked { width: ka, .. }, Form::Masked { width: kb, .. }) => {
            let (ra, rb) = (Factor::Mask(p.a), Factor::Mask(p.b));
            let (ma, mb) = (Factor::Msb(p.a), Factor::Msb(p.b));
            let mut all = lift_fields(p.a, a.len(), ka, w);
            all.extend(lift_fields(p.b, b.len(), kb, w));
            all.push(additive(Kind::Product(ra, rb), out, w));
            if ka < w {
                all.push(additive(Kind::Product(ma, rb), out, w - ka));
            }
            if kb < w {
                all.push(additive(Kind::Product(ra, mb), out, w - kb));
            }
            if ka + kb < w {
                all.push(additive(Kind::Product(ma, mb), out, w - ka - kb));
            }
            all
        }
        _ => Vec::new(),
    }
}
