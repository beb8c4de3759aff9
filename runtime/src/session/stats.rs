//! What a run took, phase by phase.

use std::time::{Duration, Instant};

use marill_program::cost::Bytes;
use serde::Serialize;

use crate::error::Role;
use crate::transport::{Channel, Counts, LabelCounts, Phase};

/// One link in one phase, from this party's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    /// The other end.
    pub peer: Role,
    /// What was carried.
    pub counts: Counts,
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PhaseStats {
    /// Wall-clock time, waiting for the peers included.
    pub seconds: f64,
    /// Every link of this party.
    pub links: Vec<LinkStats>,
}

/// One party's account of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// Whose account this is.
    pub role: Role,
    /// Once per pair of parties and model.
    pub setup: PhaseStats,
    /// Once per run, independent of the inputs.
    pub preprocess: PhaseStats,
    /// Once per run, with the inputs.
    pub online: PhaseStats,
    /// What went to and from the first peer by phase and instruction; a message of several instructions counts for
    /// the first.
    pub instructions: Vec<LabelCounts>,
    /// The process's largest resident set so far, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// What instructions on clear values took, at setup and online; the dealer has none.
    pub plaintext_seconds: Option<f64>,
}

impl Stats {
    /// One phase.
    pub fn phase(&self, phase: Phase) -> &PhaseStats {
        match phase {
            Phase::Setup => &self.setup,
            Phase::Preprocess => &self.preprocess,
            Phase::Online => &self.online,
        }
    }

    /// What this party sent in a phase, on the links of the program's cost table.
    pub fn sent(&self, phase: Phase) -> Bytes {
        let mut bytes = Bytes::default();
        for link in &self.phase(phase).links {
            let place = match (self.role, link.peer) {
                (Role::Client, Role::Server) => &mut bytes.client_to_server,
                (Role::Client, _) => &mut bytes.client_to_dealer,
                (Role::Server, Role::Client) => &mut bytes.server_to_client,
                (Role::Server, _) => &mut bytes.server_to_dealer,
                (Role::Dealer, Role::Client) => &mut bytes.dealer_to_client,
                (Role::Dealer, _) => &mut bytes.dealer_to_server,
            };
            *place += link.counts.bytes_sent;
        }
        bytes
    }

    /// Rounds with a peer in a phase.
    pub fn rounds(&self, phase: Phase, peer: Role) -> u64 {
        self.phase(phase).links.iter().filter(|link| link.peer == peer).map(|link| link.counts.rounds).sum()
    }
}

/// Measures the phases.
pub(super) struct Clock {
    role: Role,
    since: Instant,
    seconds: [f64; 3],
    /// What instructions on clear values took.
    pub(super) plaintext: Option<Duration>,
}

impl Clock {
    pub(super) fn start(role: Role) -> Clock {
        Clock { role, since: Instant::now(), seconds: [0.0; 3], plaintext: None }
    }

    /// Ends `phase`: the next one begins now.
    pub(super) fn end(&mut self, phase: Phase) {
        self.end_at(phase, Instant::now());
    }

    /// The same at a moment that has passed.
    pub(super) fn end_at(&mut self, phase: Phase, moment: Instant) {
        self.seconds[phase as usize] += moment.saturating_duration_since(self.since).as_secs_f64();
        self.since = moment;
    }

    pub(super) fn stats(&self, channels: &[&Channel]) -> Stats {
        let snapshots: Vec<_> = channels.iter().map(|c| (c.peer(), c.meter().snapshot())).collect();
        let phase = |phase: Phase| PhaseStats {
            seconds: self.seconds[phase as usize],
            links: snapshots
                .iter()
                .map(|(peer, s)| LinkStats { peer: *peer, counts: s.phase(phase) })
                .collect(),
        };
        Stats {
            role: self.role,
            setup: phase(Phase::Setup),
            preprocess: phase(Phase::Preprocess),
            online: phase(Phase::Online),
            instructions: snapshots.first().map(|(_, s)| s.labels.clone()).unwrap_or_default(),
            peak_rss_bytes: peak_rss_bytes(),
            plaintext_seconds: self.plaintext.map(|taken| taken.as_secs_f64()),
        }
    }
}

/// `VmHWM` of this process.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
