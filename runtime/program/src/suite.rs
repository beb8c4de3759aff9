//! Who makes the correlations.

use serde::{Deserialize, Serialize};

/// Who makes the correlations of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// A third process that sees no data.
    Dealer,
    /// The two parties between them.
    #[default]
    TwoParty,
}

impl Suite {
    /// Both.
    pub const ALL: [Suite; 2] = [Suite::Dealer, Suite::TwoParty];

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
        Suite::ALL.into_iter().find(|suite| suite.code() == code)
    }
}
