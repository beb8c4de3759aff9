//! The two gates of which everything is made, and who runs them.

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

/// In every lane, a bit that one party knows times numbers that the other knows; the products are additive shares
/// modulo 2^width.
pub struct Choose {
    /// Who knows the bits.
    pub chooser: Side,
    pub lanes: usize,
    /// Numbers per lane.
    pub per: usize,
    pub width: u32,
    /// The bits, at the chooser.
    pub choices: Plane,
    /// The numbers, at the other party: `per` for each lane.
    pub numbers: Vec<u64>,
}

impl Choose {
    /// Bits that the other party sends for a lane.
    pub fn bits(&self) -> usize {
        self.per * self.width as usize
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
