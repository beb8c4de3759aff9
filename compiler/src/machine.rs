//! The machine that estimates and predictions assume: two cores of a first-generation EPYC at 2 GHz, with AVX2, as
//! measured (docs/marill.md has the figures).

use marill_program::two_party::work::Work;
use marill_program::work::Products;

/// Seconds of a ring multiplication and addition in a matrix product.
pub const PRODUCT_S: f64 = 3.8e-10;
/// Seconds of a byte of masked weights.
pub const SETUP_BYTE_S: f64 = 2.4e-9;
/// Seconds of a byte of encrypted weights, which one party makes.
pub const ENCRYPTED_BYTE_S: f64 = 1.9e-8;
/// Seconds of a byte of correlations, half of them the dealer's.
pub const PREPROCESS_BYTE_S: f64 = 3.5e-9;
/// Seconds of a byte that is opened, with all that is done element by element, half of them each party's.
pub const ONLINE_BYTE_S: f64 = 3e-8;

/// Seconds of an oblivious transfer, at both parties together, with its share of a gate.
pub const TRANSFER_S: f64 = 2.5e-7;
/// Seconds of a number that one of them carries, at both parties together.
pub const TRANSFERRED_NUMBER_S: f64 = 4e-8;
/// Seconds of a number that a leaf of a digit's tree is expanded to, at one party.
pub const LEAF_NUMBER_S: f64 = 1.8e-9;
/// Seconds of a multiply-add of one limb of encrypted products, at both parties together.
pub const ENCRYPTED_PRODUCT_S: f64 = 3e-10;

/// Where the processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// Each on its own.
    Own,
    /// All on one, as `marill demo` runs them.
    One,
}

impl Machines {
    /// Seconds of matrix products.
    pub fn products_s(self, products: &Products) -> f64 {
        PRODUCT_S
            * match self {
                Machines::Own => products.most(),
                Machines::One => products.total(),
            } as f64
    }

    /// What part of both parties' work counts.
    pub fn share(self) -> f64 {
        if self == Machines::One { 1.0 } else { 0.5 }
    }

    /// Seconds of preprocessing between the two parties, of which each has half, also on the two cores of one machine.
    pub fn gates_s(work: &Work) -> f64 {
        Machines::Own.share()
            * (work.transfers as f64 * TRANSFER_S
                + work.numbers as f64 * TRANSFERRED_NUMBER_S
                + work.leaves as f64 * LEAF_NUMBER_S
                + work.multiply_adds as f64 * ENCRYPTED_PRODUCT_S)
    }

    /// Seconds of what is done for each byte, of which two processes have half each.
    pub fn bytes_s(self, bytes: u64, byte_s: f64) -> f64 {
        self.share() * bytes as f64 * byte_s
    }
}
