//! Counts what a channel carries: payload bytes and frame headers, not what TLS or TCP add.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// The part of a run in which bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Once per pair of parties and model.
    Setup,
    /// Once per run, independent of the inputs.
    Preprocess,
    /// Once per run, with the inputs.
    Online,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Setup => "setup",
            Phase::Preprocess => "preprocess",
            Phase::Online => "online",
        })
    }
}

/// What one channel carried, seen from one end. Bytes include the frame headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Rounds ended.
    pub rounds: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.messages_sent += other.messages_sent;
        self.rounds += other.rounds;
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(mut self, other: Counts) -> Counts {
        self += other;
        self
    }
}

/// The counts of one label in one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCounts {
    /// The phase.
    pub phase: Phase,
    /// The label that the caller had set.
    pub label: u32,
    /// What was carried under both.
    pub counts: Counts,
}

/// All counts of a meter at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeterSnapshot {
    /// Sum over the setup phase.
    pub setup: Counts,
    /// Sum over the preprocess phase.
    pub preprocess: Counts,
    /// Sum over the online phase.
    pub online: Counts,
    /// Every label of every phase that carried something, by phase and label.
    pub labels: Vec<LabelCounts>,
}

impl MeterSnapshot {
    /// The sum over one phase.
    pub fn phase(&self, phase: Phase) -> Counts {
        match phase {
            Phase::Setup => self.setup,
            Phase::Preprocess => self.preprocess,
            Phase::Online => self.online,
        }
    }

    /// The sum over all phases.
    pub fn total(&self) -> Counts {
        self.setup + self.preprocess + self.online
    }
}

/// Counts by phase and by a label of the caller's choice, for example an instruction group. Starts in the setup
/// phase under label 0.
#[derive(Clone, Debug)]
pub struct Meter {
    phase: Phase,
    label: u32,
    counts: BTreeMap<(Phase, u32), Counts>,
    ended_rounds: [u64; 3],
}

impl Default for Meter {
    fn default() -> Self {
        Meter { phase: Phase::Setup, label: 0, counts: BTreeMap::new(), ended_rounds: [0; 3] }
    }
}

impl Meter {
    /// Counts what follows under `phase`.
    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Counts what follows under `label`.
    pub fn set_label(&mut self, label: u32) {
        self.label = label;
    }

    /// The phase that is being counted.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The round that is under way, counted from 1 in each phase.
    pub fn round(&self) -> u64 {
        self.ended_rounds[self.phase as usize] + 1
    }

    /// Adds what another meter of the same link has counted.
    pub(super) fn absorb(&mut self, other: &Meter) {
        for (key, counts) in &other.counts {
            *self.counts.entry(*key).or_default() += *counts;
        }
        self.ended_rounds.iter_mut().zip(other.ended_rounds).for_each(|(own, more)| *own += more);
    }

    /// All counts so far.
    pub fn snapshot(&self) -> MeterSnapshot {
        let mut snapshot = MeterSnapshot::default();
        for (&(phase, label), &counts) in &self.counts {
            match phase {
                Phase::Setup => snapshot.setup += counts,
                Phase::Preprocess => snapshot.preprocess += counts,
                Phase::Online => snapshot.online += counts,
            }
            snapshot.labels.push(LabelCounts { phase, label, counts });
        }
        snapshot
    }

    pub(super) fn sent(&mut self, frame_bytes: u64) {
        let counts = self.current();
        counts.bytes_sent += frame_bytes;
        counts.messages_sent += 1;
    }

    pub(super) fn received(&mut self, frame_bytes: u64) {
        self.current().bytes_received += frame_bytes;
    }

    pub(super) fn end_round(&mut self) {
        self.current().rounds += 1;
        self.ended_rounds[self.phase as usize] += 1;
    }

    fn current(&mut self) -> &mut Counts {
        self.counts.entry((self.phase, self.label)).or_default()
    }
}
