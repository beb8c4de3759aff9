//! The one door from shares to a value: a declared output, for the party that the program names.

use marill_plaintext::{OpError, Tensor};
use marill_program::fixed::{decode, signed};

/// How a revealed ring element reads as a number.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Bits of the ring.
    pub width: u32,
    /// Fraction bits.
    pub frac: u32,
    /// Whether the result is i64; otherwise it is f32.
    pub integer: bool,
}

/// The clear value of a declared output, added up from its beginning on.
pub struct Revealed {
    reading: Reading,
    values: Values,
}

enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Revealed {
    /// Room for `len` elements.
    pub fn new(reading: Reading, len: usize) -> Revealed {
        let values = if reading.integer {
            Values::Integers(Vec::with_capacity(len))
        } else {
            Values::Floats(Vec::with_capacity(len))
        };
        Revealed { reading, values }
    }

    /// Adds the next elements, from this party's shares and as many of the peer's, which are `None` for a value that this
    /// party knows whole.
    pub fn extend(&mut self, own: &[u64], peers: Option<&[u64]>) {
        let Reading { width, frac, .. } = self.reading;
        let sum = |i: usize| own[i].wrapping_add(peers.map_or(0, |p| p[i]));
        let elements = 0..own.len();
        match &mut self.values {
            Values::Floats(values) => values.extend(elements.map(|i| decode(sum(i), width, frac) as f32)),
            Values::Integers(values) => values.extend(elements.map(|i| signed(sum(i), width))),
        }
    }

    /// All elements as a tensor.
    ///
    /// # Errors
    /// Another number of elements than the shape says.
    pub fn tensor(self, shape: &[usize]) -> Result<Tensor, OpError> {
        match self.values {
            Values::Floats(values) => Tensor::f32(shape.to_vec(), values),
            Values::Integers(values) => Tensor::i64(shape.to_vec(), values),
        }
    }
}
