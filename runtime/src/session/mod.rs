//! A run from connection to outputs: agree, preprocess, run, reveal. One function for each role. Before it says a
//! word, a party makes sure that it wants to run this program ([`admit`]).
//!
//! Correlations come from a dealer ([`dealt`]) or from the two parties between them ([`alone`]); then come the rounds of
//! the program between client and server, the same in both cases. What the two parties make may wait in a store for a
//! run that comes later ([`stored`]), and their setup in a file for many.

mod admit;
mod agree;
mod alone;
mod dealt;
mod stats;
mod stored;

use std::collections::BTreeMap;
use std::time::Duration;

use marill_plaintext::Tensor;
use marill_program::plan::Plan;

use crate::bundle::Bundle;
use crate::correlation::Source;
use crate::correlation::derived::Derived;
use crate::correlation::prepared::Prepared;
use crate::correlation::store::{SetupFile, Store};
use crate::error::RunError;
use crate::executor::constants::Constants;
use crate::executor::{Executor, Rehearsed};
use crate::sharing::Party;
use crate::transport::{Channel, Phase};

pub use admit::{Admitted, admit, consents, trace};
pub use agree::{Hello, Keeping, MAGIC, Purpose};
pub use dealt::run_dealer;
pub use stats::{LinkStats, PhaseStats, Stats};
pub use stored::{Stored, prepare};

use stats::Clock;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A phase begins.
    Phase(Phase),
    /// `done` of `total`: bytes of corrections or instructions while preprocessing, rounds online.
    Step {
        /// How many are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
}

/// Hears how a run comes along.
pub type Listener<'a> = &'a mut dyn FnMut(Progress);

/// The outputs that a party learns, by name, and what the run took.
pub type Outcome = (BTreeMap<String, Tensor>, Stats);

/// Runs the client: holds the prompt, learns the outputs declared for it. Without a dealer the two parties make the
/// correlations themselves.
///
/// # Errors
/// Those of [`admit`] before anything is sent; `PeerIncompatible` where the three do not run the same program;
/// whatever the phases meet.
pub fn run_client(
    bundle: &Bundle,
    inputs: BTreeMap<String, Tensor>,
    server: Channel,
    dealer: Option<Channel>,
    progress: Listener<'_>,
) -> Result<Outcome, RunError> {
    admit(bundle, Party::Client, inputs)?.run(server, dealer.into(), progress)
}

/// Runs the server: holds the private weights, learns the outputs declared for it.
///
/// # Errors
/// As [`run_client`], and `BadInput` for a weight that does not fit its ring.
pub fn run_server(
    bundle: &Bundle,
    inputs: BTreeMap<String, Tensor>,
    client: Channel,
    dealer: Option<Channel>,
    progress: Listener<'_>,
) -> Result<Outcome, RunError> {
    admit(bundle, Party::Server, inputs)?.run(client, dealer.into(), progress)
}

impl Admitted<'_> {
    /// As the client or the server that was admitted, with the other of the two as `peer`.
    ///
    /// # Errors
    /// Those of [`run_client`] and [`run_server`], but for what admission has excluded. `Store` where a file of the
    /// origin is not this party's for this program, or was used; `PeerIncompatible` where the peer's correlations have
    /// another origin. Up to and with this last one a store stays unused.
    pub fn run(self, mut peer: Channel, origin: Origin, progress: Listener<'_>) -> Result<Outcome, RunError> {
        let party = self.party;
        let Admitted { bundle, plan, constants, inputs, rehearsed, .. } = self;
        let mut clock = Clock::start(party.role());
        let own = Own { bundle, constants: &constants };
        let mut dealer = None;
        let ready = match (origin, party) {
            (Origin::Dealer(channel), Party::Client) => {
                dealt::client(&own, &mut peer, dealer.insert(channel), &mut clock, progress)?
            }
            (Origin::Dealer(channel), Party::Server) => {
                dealt::server(&own, &mut peer, dealer.insert(channel), &mut clock, progress)?
            }
            (Origin::Peer(keep), _) => {
                let keep = keep.map(|keep| *keep);
                alone::prepare(&own, party, Purpose::Run, keep, &mut peer, &mut clock, progress)?.ready()
            }
            (Origin::Store(store), _) => stored::take(&own, party, &mut peer, *store, &mut clock, progress)?,
        };
        enter(Phase::Online, std::iter::once(&mut peer).chain(&mut dealer), progress);
        let outcome = online(party, &plan, &constants, ready, (inputs, rehearsed), &mut peer, progress)?;
        clock.end(Phase::Online);
        let (outputs, plaintext) = outcome;
        clock.plaintext = Some(constants.plaintext() + plaintext);
        let links: Vec<&Channel> = std::iter::once(&peer).chain(&dealer).collect();
        Ok((outputs, clock.stats(&links)))
    }
}

/// Where a run's correlations come from.
pub enum Origin {
    /// The two parties make them; where there is a file for setup, it is used or made, at both parties.
    Peer(Option<Box<SetupFile>>),
    /// A dealer.
    Dealer(Channel),
    /// What [`prepare`] has kept.
    Store(Box<Store>),
}

impl From<Option<Channel>> for Origin {
    fn from(dealer: Option<Channel>) -> Origin {
        dealer.map_or(Origin::Peer(None), Origin::Dealer)
    }
}

/// The rounds of the program.
fn online(
    party: Party,
    plan: &Plan,
    constants: &Constants<'_>,
    mut ready: Ready<'_>,
    (inputs, rehearsed): (BTreeMap<String, Tensor>, Rehearsed),
    peer: &mut Channel,
    progress: Listener<'_>,
) -> Result<(BTreeMap<String, Tensor>, Duration), RunError> {
    let executor = Executor::new(
        party,
        plan,
        constants,
        ready.source.as_mut(),
        Some(&mut ready.derived),
        ready.prepared.as_mut(),
        inputs,
        rehearsed,
    );
    let total = plan.rounds() as u64;
    executor.run(peer, &mut |done| progress(Progress::Step { done, total }))
}

/// What a party has of its own.
struct Own<'a> {
    bundle: &'a Bundle,
    constants: &'a Constants<'a>,
}

/// What preprocessing leaves for the rounds.
struct Ready<'a> {
    source: Box<dyn Source + 'a>,
    derived: Derived,
    /// The client's part of products with weights.
    prepared: Option<Prepared>,
}

fn enter<'c>(phase: Phase, channels: impl IntoIterator<Item = &'c mut Channel>, progress: Listener<'_>) {
    for channel in channels {
        channel.meter_mut().set_phase(phase);
        channel.meter_mut().set_label(0);
    }
    progress(Progress::Phase(phase));
}
