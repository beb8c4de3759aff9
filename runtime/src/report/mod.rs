//! What a run took, for files and for people: one party's view, or all of them merged.

mod accuracy;
mod outline;

use std::collections::BTreeMap;

use marill_program::{Suite, ValidProgram};
use serde::{Deserialize, Serialize};

use crate::error::Role;
use crate::session::Stats;
use crate::transport::Phase;

pub use accuracy::{Accuracy, Mismatch, check_reference, compare};
pub use outline::{InputOutline, Outline, RevealOutline};

/// A number of each process; `None` where this report's author does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerRole {
    /// Of the client.
    pub client: Option<u64>,
    /// Of the server.
    pub server: Option<u64>,
    /// Of the dealer.
    pub dealer: Option<u64>,
}

impl PerRole {
    /// One role's number.
    pub fn of(&self, role: Role) -> Option<u64> {
        match role {
            Role::Client => self.client,
            Role::Server => self.server,
            Role::Dealer => self.dealer,
        }
    }

    fn one(role: Role, number: Option<u64>) -> PerRole {
        let mut all = PerRole::default();
        match role {
            Role::Client => all.client = number,
            Role::Server => all.server = number,
            Role::Dealer => all.dealer = number,
        }
        all
    }

    fn or(self, other: PerRole) -> PerRole {
        PerRole {
            client: self.client.or(other.client),
            server: self.server.or(other.server),
            dealer: self.dealer.or(other.dealer),
        }
    }
}

/// A time of each party; `None` where this report's author does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartySeconds {
    /// Of the client.
    pub client: Option<f64>,
    /// Of the server.
    pub server: Option<f64>,
}

impl PartySeconds {
    fn one(role: Role, seconds: Option<f64>) -> PartySeconds {
        match role {
            Role::Client => PartySeconds { client: seconds, server: None },
            Role::Server => PartySeconds { client: None, server: seconds },
            Role::Dealer => PartySeconds::default(),
        }
    }

    fn or(self, other: PartySeconds) -> PartySeconds {
        PartySeconds { client: self.client.or(other.client), server: self.server.or(other.server) }
    }
}

/// One phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// What each process sent on all its links, frame headers included.
    pub bytes_sent: PerRole,
    /// What each process received on all its links, frame headers included.
    pub bytes_received: PerRole,
    /// Rounds between client and server; the dealer does not see them.
    pub rounds: Option<u64>,
    /// Wall-clock time at the author of the report, at the client where reports are merged.
    pub seconds: f64,
}

/// A run's account: in the file of `--stats`, and in what is printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Who made the correlations.
    pub suite: String,
    /// The program's name; the dealer's report has none.
    pub program: Option<String>,
    /// The program's digest in hexadecimal; the dealer's report has none.
    pub digest: Option<String>,
    /// Sizes bound to symbolic dimensions.
    pub dims: BTreeMap<String, u64>,
    /// Once per pair of parties and model.
    pub setup: PhaseReport,
    /// Once per run, independent of the inputs.
    pub preprocess: PhaseReport,
    /// Once per run, with the inputs.
    pub online: PhaseReport,
    /// The largest resident set of each process, where the system tells.
    pub peak_rss_bytes: PerRole,
    /// What each party's instructions on clear values took, at setup and online.
    pub plaintext_seconds: PartySeconds,
    /// The outputs' distance from a reference, if one was given.
    #[serde(flatten)]
    pub accuracy: Option<Accuracy>,
}

/// A digest in hexadecimal.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Report {
    /// One party's report, on its own numbers only.
    pub fn new(program: Option<&ValidProgram>, stats: &Stats) -> Report {
        let phase = |phase: Phase| {
            let taken = stats.phase(phase);
            let sum = |count: fn(&crate::transport::Counts) -> u64| {
                Some(taken.links.iter().map(|link| count(&link.counts)).sum())
            };
            PhaseReport {
                bytes_sent: PerRole::one(stats.role, sum(|counts| counts.bytes_sent)),
                bytes_received: PerRole::one(stats.role, sum(|counts| counts.bytes_received)),
                rounds: match stats.role {
                    Role::Client => Some(stats.rounds(phase, Role::Server)),
                    Role::Server => Some(stats.rounds(phase, Role::Client)),
                    Role::Dealer => None,
                },
                seconds: taken.seconds,
            }
        };
        let dims = program.map(|program| &program.program().dims);
        let dealt = stats.role == Role::Dealer || stats.setup.links.iter().any(|l| l.peer == Role::Dealer);
        let suite = if dealt { Suite::Dealer } else { Suite::TwoParty };
        Report {
            suite: suite.name().to_owned(),
            program: program.map(|program| program.program().name.clone()),
            digest: program.map(|program| hex(&program.digest())),
            dims: dims.into_iter().flatten().map(|dim| (dim.name.clone(), dim.size)).collect(),
            setup: phase(Phase::Setup),
            preprocess: phase(Phase::Preprocess),
            online: phase(Phase::Online),
            peak_rss_bytes: PerRole::one(stats.role, stats.peak_rss_bytes),
            plaintext_seconds: PartySeconds::one(stats.role, stats.plaintext_seconds),
            accuracy: None,
        }
    }

    /// One phase.
    pub fn phase(&self, phase: Phase) -> &PhaseReport {
        match phase {
            Phase::Setup => &self.setup,
            Phase::Preprocess => &self.preprocess,
            Phase::Online => &self.online,
        }
    }

    /// This report with the columns that it lacks from another party's; rounds and seconds stay this one's.
    pub fn merged(mut self, other: &Report) -> Report {
        let phases = [
            (&mut self.setup, &other.setup),
            (&mut self.preprocess, &other.preprocess),
            (&mut self.online, &other.online),
        ];
        for (own, theirs) in phases {
            own.bytes_sent = own.bytes_sent.or(theirs.bytes_sent);
            own.bytes_received = own.bytes_received.or(theirs.bytes_received);
            own.rounds = own.rounds.or(theirs.rounds);
        }
        self.peak_rss_bytes = self.peak_rss_bytes.or(other.peak_rss_bytes);
        self.plaintext_seconds = self.plaintext_seconds.or(other.plaintext_seconds);
        self
    }
}
