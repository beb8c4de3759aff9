//! What preprocessing makes, and who makes it.
//!
//! The demand of a program is [`marill_program::correlation::fields`] of each instruction. A [`Source`] hands a party
//! its masks and its shares of those fields, whoever made them: the [`dealer`], or the two parties between them
//! ([`two_party`]).

pub mod arrivals;
pub mod dealer;
pub mod derived;
pub mod filling;
pub mod masks;
pub mod prepared;
pub mod shares;
pub mod shelf;
pub mod spool;
pub mod store;
pub mod two_party;
pub(crate) mod watch;

use marill_kernels::Seed;
pub use marill_program::Suite;

use crate::error::RunError;
use shares::Shares;

/// One party's correlations of one run.
pub trait Source: Sync {
    /// This party's mask of the `len` values of `width` bits that instruction `at` opens. The same every time.
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares;

    /// This party's shares of the fields of instruction `at`, in the demand's order.
    ///
    /// # Errors
    /// Of the store that holds them.
    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError>;

    /// Whether all shares that were handed out, and have been used since, could be read.
    ///
    /// # Errors
    /// Of the store that holds them.
    fn check(&self) -> Result<(), RunError>;
}

/// What one party's rounds take of its correlations, be they still being made.
pub trait Correlations: Sync {
    /// As [`Source::mask`].
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares;

    /// As [`Source::fields`].
    ///
    /// # Errors
    /// Of the store that holds them.
    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError>;

    /// This party's mask of the `len` values that instruction `at` makes of masked ones, if it is needed.
    ///
    /// # Errors
    /// Of the store that holds it.
    fn derived(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError>;

    /// The client's share of the `len` values of the product with a weight that instruction `at` is; the server has
    /// none.
    ///
    /// # Errors
    /// Of the store that holds it.
    fn prepared(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError>;

    /// As [`Source::check`]; asked before anything that was made of them is sent or shown.
    ///
    /// # Errors
    /// Of the store that holds them.
    fn check(&self) -> Result<(), RunError>;
}

/// The stream of a seed that masks what instruction `at` opens.
pub(crate) fn mask_stream(at: u32) -> u64 {
    u64::from(at) << 8
}

/// The stream of the client's seed that holds its shares of field `field` of instruction `at`.
pub(crate) fn field_stream(at: u32, field: usize) -> u64 {
    (u64::from(at) << 8) + 1 + field as u64
}

/// A seed from the operating system, never used before.
///
/// # Errors
/// The system has no randomness to give.
pub fn fresh_seed() -> Result<Seed, RunError> {
    let mut bytes = zeroize::Zeroizing::new([0; 16]);
    getrandom::fill(&mut *bytes).map_err(|error| RunError::File {
        path: "the system's random generator".into(),
        action: "read",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(Seed::new(*bytes))
}
