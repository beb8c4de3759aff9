//! The two gates of which everything is made, and who runs them.

use std::sync::Arc;

use super::ot::BLOCK_BYTES;
use super::planes::Plane;

/// One of the two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// In every lane, a bit times a string of bits; all shared by exclusive or, and so is the product.
pub struct And {
    pub lanes: usize,
    /// This party's shares of the bit.
    pub bit: Plane,
    /// This party's shares of the string's bits.
    pub by: Vec<Plane>,
}

/// In every lane, a digit of a few bits that one party knows times numbers that the other knows; the products are additive
/// shares modulo 2^width.
pub struct Choose {
    /// Who knows the digits.
    pub chooser: Side,
    pub lanes: usize,
    /// Numbers per lane.
    pub per: usize,
    pub width: u32,
    /// Bits of a digit, at least 1.
    pub digit_bits: u32,
    /// The digits' bits from the lowest, at the chooser.
    pub choices: Vec<Plane>,
    /// The numbers, at the other party: `per` for each lane.
    pub numbers: Arc<Vec<u64>>,
}

impl Choose {
    /// Bytes that correct the chooser's random bits.
    pub fn choice_bytes(&self) -> u64 {
        u64::from(self.digit_bits) * self.lanes.div_ceil(8) as u64
    }

    /// Bytes that the other party sends: for a digit of more than a bit the sums of a tree, and an offset for each number.
    pub fn number_bytes(&self) -> u64 {
        let trees = self.lanes as u64 * u64::from(self.digit_bits - 1) * BLOCK_BYTES;
        trees + ((self.lanes * self.per) as u64 * u64::from(self.width)).div_ceil(8)
    }

    /// Oblivious transfers that it takes.
    pub fn transfers(&self) -> u64 {
        self.lanes as u64 * u64::from(self.digit_bits)
    }
}

/// Runs gates. Gates of one call do not depend on each other.
pub trait Engine {
    /// What can go wrong.
    type Error;

    /// Which party this is.
    fn side(&self) -> Side;

    /// The strings of products, in order.
    ///
    /// # Errors
    /// Of the connection.
    fn and(&mut self, gates: &[And]) -> Result<Vec<Vec<Plane>>, Self::Error>;

    /// The products, in order: `lanes * per` numbers each, with arbitrary bits above the width. Nothing where only
    /// costs are counted.
    ///
    /// # Errors
    /// Of the connection.
    fn choose(&mut self, gates: &[Choose]) -> Result<Vec<Vec<u64>>, Self::Error>;
}
