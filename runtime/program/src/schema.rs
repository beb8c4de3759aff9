//! The program's wire schema. The messages are the in-memory form as well; [`crate::validate`] gives them meaning.
//!
//! Every instruction makes one value. Fields named `arg`, `a`, `b`, `bits`... are indices of earlier values.

use crate::value::{Owner, Target};

/// Version of the format and of the instructions' meaning. A runtime accepts exactly its own.
pub const VERSION: u32 = 9;

/// A two-party program.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Program {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// What the program computes, for people: the model's file name.
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "3")]
    pub instructions: Vec<Step>,
    #[prost(message, repeated, tag = "4")]
    pub outputs: Vec<Output>,
    /// Regions of instructions, for reports: `groups[g]` names the graph node that instructions of group `g` came from.
    #[prost(string, repeated, tag = "5")]
    pub groups: Vec<String>,
    /// Sizes bound to symbolic dimensions, for reports.
    #[prost(message, repeated, tag = "6")]
    pub dims: Vec<Dim>,
    /// Rate of the network that the program is compiled for, in kbit/s: two parties plan their preprocessing for it. 0 if
    /// nobody said.
    #[prost(uint64, tag = "7")]
    pub kbits_per_second: u64,
}

/// A symbolic dimension's size.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Dim {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

/// An instruction and the group it belongs to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Step {
    #[prost(
        oneof = "Instruction",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31"
    )]
    pub instruction: Option<Instruction>,
    #[prost(uint32, tag = "100")]
    pub group: u32,
}

/// A declared output: the only values that anyone learns.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Output {
    #[prost(string, tag = "1")]
    pub name: String,
    /// A `Plain` value.
    #[prost(uint32, tag = "2")]
    pub value: u32,
    #[prost(enumeration = "Target", tag = "3")]
    pub to: i32,
}

/// One instruction. `x`, `y` stand for the values behind shares and masks; widths are bits of the ring, results are
/// modulo 2^width. Local unless marked as communicating.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Instruction {
    #[prost(message, tag = "1")]
    Input(Input),
    #[prost(message, tag = "2")]
    Constant(Constant),
    #[prost(message, tag = "3")]
    Plain(Plain),
    #[prost(message, tag = "4")]
    Encode(Encode),
    #[prost(message, tag = "5")]
    Weight(Weight),
    #[prost(message, tag = "6")]
    Share(Share),
    #[prost(message, tag = "7")]
    /// Also the exclusive or of `Boolean` words.
    Add(Binary),
    #[prost(message, tag = "8")]
    Sub(Binary),
    #[prost(message, tag = "9")]
    Scale(Scale),
    #[prost(message, tag = "10")]
    Mul(Product),
    #[prost(message, tag = "11")]
    MatMul(Product),
    #[prost(message, tag = "12")]
    Square(Square),
    #[prost(message, tag = "13")]
    Sum(Sum),
    #[prost(message, tag = "14")]
    Move(Move),
    #[prost(message, tag = "15")]
    Place(Place),
    #[prost(message, tag = "16")]
    Truncate(Truncate),
    #[prost(message, tag = "17")]
    Open(Open),
    #[prost(message, tag = "18")]
    Lift(Lift),
    #[prost(message, tag = "19")]
    Table(Table),
    #[prost(message, tag = "20")]
    Fourier(Fourier),
    #[prost(message, tag = "21")]
    BitTable(BitTable),
    #[prost(message, tag = "22")]
    Digits(Digits),
    #[prost(message, tag = "23")]
    OpenBits(OpenBits),
    #[prost(message, tag = "24")]
    Compare(Compare),
    #[prost(message, tag = "25")]
    BitProduct(BitProduct),
    #[prost(message, tag = "26")]
    BitToArithmetic(BitToArithmetic),
    #[prost(message, tag = "27")]
    OneHot(OneHot),
    #[prost(message, tag = "28")]
    Reveal(Reveal),
    #[prost(message, tag = "29")]
    Lines(Lines),
    #[prost(message, tag = "30")]
    MaskProduct(MaskProduct),
    #[prost(message, tag = "31")]
    SquareSum(SquareSum),
}

/// A run-time input of `owner` -> `Plain`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Input {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "Owner", tag = "2")]
    pub owner: i32,
    /// Type text such as `i64[1,16]`.
    #[prost(string, tag = "3")]
    pub ty: String,
}

/// A tensor from the bundle's safetensors: public ones in both parties', the server's in its own -> `Plain`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Constant {
    #[prost(string, tag = "1")]
    pub name: String,
    /// `Public` or `Server`.
    #[prost(enumeration = "Owner", tag = "2")]
    pub owner: i32,
    #[prost(string, tag = "3")]
    pub ty: String,
}

/// A tensor operation in the clear at whoever knows all operands (`Plain` of one owner, or public) -> `Plain`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Plain {
    /// Text of a [`marill_plaintext::Op`].
    #[prost(string, tag = "1")]
    pub op: String,
    #[prost(uint32, repeated, tag = "2")]
    pub args: Vec<u32>,
}

/// `round(x * 2^frac) mod 2^width` of a `Plain` f32 or i64 value -> `Known`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Encode {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub frac: u32,
}

/// Encodes a `Plain` f32 value of the server that depends on constants only; at setup the server sends `W - B`
/// -> `Weight`. Communicates, at setup.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Weight {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
    #[prost(uint32, tag = "3")]
    pub frac: u32,
}

/// A `Known` value as shares: its owner (the client for a public one) holds it, the other party zero -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Share {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
}

/// `x + y` or `x - y`, broadcast; operands `Arithmetic` or `Known` of equal `frac`, at least one `Arithmetic`
/// -> `Arithmetic` of the smaller width. `Masked` (opened to both, of the result's shape) plus or minus a public
/// constant `Known` -> `Masked` under the same mask.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Binary {
    #[prost(uint32, tag = "1")]
    pub a: u32,
    #[prost(uint32, tag = "2")]
    pub b: u32,
}

/// `x * factor / 2^frac`: an `Arithmetic` value, or a `Masked` one opened to both with its mask, times a public integer;
/// fraction bits grow by `frac`. Where the factor is a multiple of `2^t`, an `Arithmetic` result's ring is `t` bits wider
/// than the operand's, at most 64.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scale {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(sint64, tag = "2")]
    pub factor: i64,
    #[prost(uint32, tag = "3")]
    pub frac: u32,
}

impl Scale {
    /// Bits that the operand's ring may lack: the result's lowest, which are zero.
    pub fn spared_bits(&self) -> u32 {
        self.factor.trailing_zeros()
    }
}

/// Element-wise (`Mul`, broadcast) or matrix (`MatMul`, numpy batching) product -> `Arithmetic`, fraction bits add.
///
/// Operands: `Arithmetic` x public `Known` (either side); `Masked` x `Masked`, both opened to both; `Masked` opened
/// to the server x `Weight`. A masked operand of `Mul` narrower than `width` is lifted and needs |x| < 2^(k-2).
/// `MatMul` of a `Masked` value opened to both with a public constant `Known` matrix -> `Masked`: the mask is the
/// operand's mask times the matrix.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Product {
    #[prost(uint32, tag = "1")]
    pub a: u32,
    #[prost(uint32, tag = "2")]
    pub b: u32,
    #[prost(uint32, tag = "3")]
    pub width: u32,
}

/// `x^2` of a `Masked` value opened to both, lifted where narrower than `width` -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Square {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
}

/// Sum of `x^2` along the last axis, which stays with length 1, of a `Masked` value opened to both in a ring of at least
/// `width` bits -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SquareSum {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
}

/// Sum of an `Arithmetic` value along `axis`, which stays with length 1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sum {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub axis: u32,
}

/// A data movement operation on values of one form and `frac`; shares of different widths take the smallest, other
/// forms have one width. For `Gather` the second operand is public `Plain` i64.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Move {
    #[prost(string, tag = "1")]
    pub op: String,
    #[prost(uint32, repeated, tag = "2")]
    pub args: Vec<u32>,
}

/// Zero tensor whose positions `indices` (public `Plain` i64, one axis, distinct) along `axis` (of length `size`)
/// hold the operand; `Arithmetic` or `Masked`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Place {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub indices: u32,
    #[prost(uint32, tag = "3")]
    pub axis: u32,
    #[prost(uint64, tag = "4")]
    pub size: u64,
}

/// Drops the `shift` low bits of an `Arithmetic` value: width and fraction bits shrink by `shift`. The result is
/// within one unit in the last place of `x / 2^shift`, without bias. A `Masked` value opened to both stays masked: the
/// new mask is the sum of both parties' masks without their low bits, and the result is within 1.5 units.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Truncate {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub shift: u32,
}

/// Opens `x + r mod 2^width` of an `Arithmetic` or `Known` value -> `Masked`. Communicates.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Open {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(enumeration = "Target", tag = "2")]
    pub to: i32,
    #[prost(uint32, tag = "3")]
    pub width: u32,
}

/// A `Masked` value with |x| < 2^(k-2), opened to both, in a ring of `width` >= k bits -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lift {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
}

/// The functions of the public low part that a [`Table`]'s entries multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Basis {
    /// `1, t, t^2, ..., t^degree`, `t` in [0, 1) across one piece.
    Monomials = 0,
    /// `e^t` alone, or a power of it.
    Exponential = 1,
}

/// A piecewise function of a `Masked` value opened to both -> `Arithmetic` with `entry_frac + power_frac` fraction bits.
///
/// The low `low_bits + index_bits` bits of `x` choose the piece `p = floor(x / 2^low_bits) mod 2^index_bits` or the
/// next one, with `d = x / 2^low_bits - p` in (-1, 1). With [`Basis::Monomials`], the result is
/// `sum_j coefficients[p * (degree + 1) + j] * d^j`; with [`Basis::Exponential`],
/// `coefficients[p] * e^(2^exponent_log2 d)`. Each piece must therefore be good on (-1, 1). Preprocessing makes one table of 2^index_bits entries for every element.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Table {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub low_bits: u32,
    #[prost(uint32, tag = "3")]
    pub index_bits: u32,
    #[prost(enumeration = "Basis", tag = "4")]
    pub basis: i32,
    #[prost(uint32, tag = "5")]
    pub degree: u32,
    #[prost(double, repeated, tag = "6")]
    pub coefficients: Vec<f64>,
    #[prost(uint32, tag = "7")]
    pub entry_frac: u32,
    #[prost(uint32, tag = "8")]
    pub power_frac: u32,
    #[prost(uint32, tag = "9")]
    pub width: u32,
    #[prost(uint32, tag = "10")]
    pub exponent_log2: u32,
}

/// A trigonometric polynomial of a `Masked` value opened to both -> `Arithmetic` with `entry_frac + power_frac`
/// fraction bits: `constant + sum_j cos[j-1] cos(j w) + sin[j-1] sin(j w)` with `w = 2 pi x / 2^period_bits`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Fourier {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub period_bits: u32,
    #[prost(double, tag = "3")]
    pub constant: f64,
    #[prost(double, repeated, tag = "4")]
    pub cos: Vec<f64>,
    #[prost(double, repeated, tag = "5")]
    pub sin: Vec<f64>,
    #[prost(uint32, tag = "6")]
    pub entry_frac: u32,
    #[prost(uint32, tag = "7")]
    pub power_frac: u32,
    #[prost(uint32, tag = "8")]
    pub width: u32,
    /// Largest magnitude of x for which the series stands for something; 0 for any. Only checks on samples look at it.
    #[prost(double, tag = "9")]
    pub window: f64,
}

/// Truth tables over the high bits of a `Masked` value opened to both -> `Boolean`, one bit per table.
///
/// Piece `p = floor(x / 2^low_bits) mod 2^index_bits` or the next one: soft at the pieces' borders. Bit `p` of
/// table `t` is bit `p % 64` of `tables[t * words + p / 64]`, `words = max(1, 2^index_bits / 64)`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BitTable {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub low_bits: u32,
    #[prost(uint32, tag = "3")]
    pub index_bits: u32,
    #[prost(fixed64, repeated, tag = "4")]
    pub tables: Vec<u64>,
}

/// A straight line for every piece of a `Masked` value opened to both -> `Boolean`: the line's slope, and what is public
/// of its value.
///
/// Piece `p = floor(x / 2^low_bits) mod 2^index_bits` or the next one. How far into a piece the opened value is, in steps
/// of `2^-step_bits` of one, is public and chooses among versions: where version `v` says piece `p`, x is above
/// `p + v / 2^step_bits - 1 - 1/16` and below `p + (v + 1) / 2^step_bits` pieces. With `at = v * 2^index_bits + p`, the word's
/// low `slope_bits` bits are `s = slopes[at]`, and the `value_bits` above them
/// `floor((intercepts[at] + s u) / 2^shift) mod 2^value_bits`, u being the opened value, lifted where it is narrower than
/// `value_bits + shift`, for which |x| < 2^(k-2). [`MaskProduct`] makes `s (u - x)`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Lines {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub low_bits: u32,
    #[prost(uint32, tag = "3")]
    pub index_bits: u32,
    /// At most `low_bits` and 8.
    #[prost(uint32, tag = "4")]
    pub step_bits: u32,
    #[prost(uint64, repeated, tag = "5")]
    pub slopes: Vec<u64>,
    #[prost(sint64, repeated, tag = "6")]
    pub intercepts: Vec<i64>,
    #[prost(uint32, tag = "7")]
    pub slope_bits: u32,
    #[prost(uint32, tag = "8")]
    pub value_bits: u32,
    #[prost(uint32, tag = "9")]
    pub shift: u32,
}

/// The digits' part of `floor(x / 2^low_bits) >= threshold` for a `Masked` value opened to both with
/// |x / 2^low_bits - threshold| < 2^(k-1) -> `Boolean` of shape `[thresholds, ...shape]`. Exact for `low_bits` 0;
/// otherwise x may count as up to `1/16 2^low_bits` more, and the floor may come out one higher, for which the bound
/// must have room.
///
/// With k = `width` (at most the operand's less `low_bits`) and m digits (at most 7) of `digit_bits` (at most 5) bits, but for
/// the lowest of `lowest_bits` (at most 14) where that is not 0, words have 2m bits: bit j the "less" of digit j (0 is
/// lowest), bit m + j - 1 the "equal" of digit j >= 1, bit 2m - 1 the sign's part. A lowest digit that is the index of
/// [`Lines`] of the same operand shares their unit vector.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Digits {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub digit_bits: u32,
    #[prost(sint64, repeated, tag = "3")]
    pub thresholds: Vec<i64>,
    #[prost(uint32, tag = "4")]
    pub low_bits: u32,
    /// Bits of the operand that are compared, counted from bit `low_bits`; higher ones are dropped.
    #[prost(uint32, tag = "5")]
    pub width: u32,
    #[prost(uint32, tag = "6")]
    pub lowest_bits: u32,
}

/// Opens the low `width` bits of `Boolean` words under fresh masks -> `MaskedBits`. Communicates.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenBits {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint32, tag = "2")]
    pub width: u32,
}

/// Combines a [`Digits`] value and its opened low 2m - 1 bits -> `Boolean` of one bit: 1 where `x >= threshold`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    #[prost(uint32, tag = "1")]
    pub digits: u32,
    #[prost(uint32, tag = "2")]
    pub opened: u32,
}

/// `b * x` for bit number `bit` of `MaskedBits` and a `Masked` value opened to both of the same shape, lifted where
/// narrower than `width` -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BitProduct {
    #[prost(uint32, tag = "1")]
    pub bits: u32,
    #[prost(uint32, tag = "2")]
    pub bit: u32,
    #[prost(uint32, tag = "3")]
    pub arg: u32,
    #[prost(uint32, tag = "4")]
    pub width: u32,
}

/// `s (u - x)` for the number s that `count` bits of `MaskedBits`, from `bit` on, write, and a `Masked` value opened to both
/// of the same shape: u is the opened value, lifted where it is narrower than `width` -> `Arithmetic`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MaskProduct {
    #[prost(uint32, tag = "1")]
    pub bits: u32,
    #[prost(uint32, tag = "2")]
    pub bit: u32,
    #[prost(uint32, tag = "3")]
    pub count: u32,
    #[prost(uint32, tag = "4")]
    pub arg: u32,
    #[prost(uint32, tag = "5")]
    pub width: u32,
}

/// The number that `count` bits of `MaskedBits`, from `bit` on, write -> `Arithmetic` with `frac` 0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BitToArithmetic {
    #[prost(uint32, tag = "1")]
    pub bits: u32,
    #[prost(uint32, tag = "2")]
    pub bit: u32,
    #[prost(uint32, tag = "3")]
    pub width: u32,
    #[prost(uint32, tag = "4")]
    pub count: u32,
}

/// One-hot vectors of a `Masked` index (its width n bits, 0 <= x < 2^n, `frac` 0) -> `Arithmetic` of shape
/// `[...shape, depth]`, `depth` <= 2^n.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OneHot {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(uint64, tag = "2")]
    pub depth: u64,
    #[prost(uint32, tag = "3")]
    pub width: u32,
}

/// Discloses an `Arithmetic` or `Known` value, decoded to f32 (or i64 when `integer`) -> `Plain` of `to` (public
/// when both). Communicates. Each reveal must be a declared output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reveal {
    #[prost(uint32, tag = "1")]
    pub arg: u32,
    #[prost(enumeration = "Target", tag = "2")]
    pub to: i32,
    #[prost(bool, tag = "3")]
    pub integer: bool,
}
