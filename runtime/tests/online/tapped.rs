//! A program whose messages are listened to, and how uniform bytes look.

use marill_plaintext::Tensor;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};

use crate::build::Builder;
use crate::run::Data;

const ELEMENTS: usize = 64;

/// Opens arithmetic values to both and to one, and bits.
pub fn program() -> ValidProgram {
    let mut b = Builder::new();
    let x = b.input("x", Owner::Client, &format!("i64[{ELEMENTS}]"));
    let w = b.constant("w", Owner::Server, &format!("f32[{ELEMENTS},{ELEMENTS}]"));
    let weight = b.weight(w, 24, 4);
    let known = b.encode(x, 24, 0);
    let sent = b.open(known, Target::Server, 24);
    let product = b.matmul(sent, weight, 24);
    let opened = b.open(product, Target::Both, 24);
    let digits = b.push(Instruction::Digits(Digits {
        arg: opened,
        digit_bits: 4,
        lowest_bits: 0,
        thresholds: vec![3],
        low_bits: 0,
        width: 24,
    }));
    let bits = b.open_bits(digits, 11);
    let bit = b.push(Instruction::Compare(Compare { digits, opened: bits }));
    let bit = b.open_bits(bit, 1);
    let bit = b.bit(bit, 0, 16);
    b.reveal("out", bit, Target::Client, true);
    b.finish()
}

/// The client's input and the server's weight, constant each.
pub fn data(x: i64, w: f32) -> Data {
    Data::default()
        .client("x", Tensor::i64([ELEMENTS], vec![x; ELEMENTS]).unwrap())
        .private("w", Tensor::f32([ELEMENTS, ELEMENTS], vec![w; ELEMENTS * ELEMENTS]).unwrap())
}

/// Pearson's statistic of byte values against uniform: 255 degrees of freedom, standard deviation 22.6.
pub fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    let expected = bytes.len() as f64 / 256.0;
    counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum()
}
