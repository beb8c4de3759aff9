//! What preprocessing makes, and who makes it.
//!
//! The demand of a program is [`marill_program::correlation::fields`] of each instruction. A [`Source`] hands a party
//! its masks and its shares of those fields, whoever made them; [`dealer`] is one maker.

pub mod dealer;
pub mod derived;
pub mod masks;
pub mod prepared;
pub mod shares;
pub mod spool;
pub mod two_party;

use marill_kernels::Seed;

use crate::error::RunError;
use shares::Shares;

/// Who makes the correlations. Part of the greeting: all must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// A third process that sees no data.
    Dealer,
    /// The two parties between them.
    TwoParty,
}

impl Suite {
    /// The suite's number in the greeting.
    pub fn code(self) -> u8 {
        match self {
            Suite::Dealer => 1,
            Suite::TwoParty => 2,
        }
    }

    /// The suite's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Dealer => "dealer",
            Suite::TwoParty => "two-party",
        }
    }

    /// The suite of a number in a greeting.
    pub fn from_code(code: u8) -> Option<Suite> {
        [Suite::Dealer, Suite::TwoParty].into_iter().find(|suite| suite.code() == code)
    }
}

/// One party's correlations of one run.
pub trait Source: Send {
    /// This party's mask of the `len` values of `width` bits that instruction `at` opens. The same every time.
    fn mask(&self, at: u32, len: usize, width: u32) -> Vec<u64>;

    /// This party's shares of the fields of instruction `at`, in the demand's order.
    ///
    /// # Errors
    /// Of the store that holds them.
    fn fields(&mut self, at: u32) -> Result<Vec<Shares>, RunError>;
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
