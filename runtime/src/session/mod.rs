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

use crate::bundle::Bundle;
use crate::correlation::Correlations;
use crate::correlation::store::{SetupFile, Store};
use crate::error::RunError;
use crate::executor::Executor;
use crate::executor::constants::Constants;
use crate::sharing::Party;
use crate::transport::{Channel, Phase};

pub use admit::{Admitted, admit, consents, trace};
pub use agree::{Hello, Keeping, MAGIC, Purpose};
pub use dealt::run_dealer;
pub use stats::{LinkStats, PhaseStats, Stats};
pub use stored::{Stored, prepare};

use alone::Make;
use dealt::Deal;
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
pub type Listener<'a> = &'a mut (dyn FnMut(Progress) + Send);

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
        let rounds = |peer: &mut Channel, correlations: &dyn Correlations, told: Listener<'_>| {
            let executor = Executor::new(party, &plan, &constants, correlations, inputs, rehearsed);
            let total = plan.rounds() as u64;
            executor.run(peer, &mut |done| told(Progress::Step { done, total }))
        };
        let ready: Box<dyn Correlations + '_> = match origin {
            Origin::Dealer(channel, order) => {
                let (deal, dealer) = (Deal { own: &own, order }, dealer.insert(channel));
                if order == Order::Streamed {
                    let (_, outcome) = deal.with(party, &mut peer, dealer, &mut clock, progress, rounds)?;
                    return Ok(finished(clock, &constants, outcome, &[&peer, dealer]));
                }
                deal.with(party, &mut peer, dealer, &mut clock, progress, |_, _, _| Ok(()))?.0
            }
            Origin::Peer { keep, order } => {
                let make =
                    Make { own: &own, party, purpose: Purpose::Run(order), keep: keep.map(|keep| *keep) };
                if order == Order::Streamed {
                    // How far preprocessing is says it all: the rounds end with it.
                    let beside = |peer: &mut Channel, correlations: &dyn Correlations| {
                        rounds(peer, correlations, &mut |_| {})
                    };
                    let (_, outcome) = make.with(&mut peer, &mut clock, progress, beside)?;
                    return Ok(finished(clock, &constants, outcome, &[&peer]));
                }
                Box::new(make.with(&mut peer, &mut clock, progress, |_, _| Ok(()))?.0)
            }
            Origin::Store(store) => {
                Box::new(stored::take(&own, party, &mut peer, *store, &mut clock, progress)?)
            }
        };
        enter(Phase::Online, std::iter::once(&mut peer).chain(&mut dealer), progress);
        let outcome = rounds(&mut peer, ready.as_ref(), progress)?;
        let links: Vec<&Channel> = std::iter::once(&peer).chain(&dealer).collect();
        Ok(finished(clock, &constants, outcome, &links))
    }
}
/// Where a run's correlations come from.
pub enum Origin {
    /// The two parties make them.
    Peer {
        /// Where there is a file for setup, it is used or made, at both parties.
        keep: Option<Box<SetupFile>>,
        /// The same at both parties.
        order: Order,
    },
    /// A dealer; the order is the same at both parties.
    Dealer(Channel, Order),
    /// What [`prepare`] has kept.
    Store(Box<Store>),
}

/// When the rounds begin, where correlations are made in the same run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// At once: each round waits for the correlations that it takes. What a phase takes in seconds is what it takes longer
    /// than those before it.
    #[default]
    Streamed,
    /// When all correlations are there.
    InTurn,
}

impl From<Option<Channel>> for Origin {
    fn from(dealer: Option<Channel>) -> Origin {
        let order = Order::default();
        dealer.map_or(Origin::Peer { keep: None, order }, |dealer| Origin::Dealer(dealer, order))
    }
}

/// A party's outputs and account.
fn finished(
    mut clock: Clock,
    constants: &Constants<'_>,
    (outputs, plaintext): (BTreeMap<String, Tensor>, Duration),
    links: &[&Channel],
) -> Outcome {
    clock.end(Phase::Online);
    clock.plaintext = Some(constants.plaintext() + plaintext);
    (outputs, clock.stats(links))
}

/// What a party has of its own.
struct Own<'a> {
    bundle: &'a Bundle,
    constants: &'a Constants<'a>,
}

fn enter<'c>(phase: Phase, channels: impl IntoIterator<Item = &'c mut Channel>, progress: Listener<'_>) {
    for channel in channels {
        channel.meter_mut().set_phase(phase);
        channel.meter_mut().set_label(0);
    }
    progress(Progress::Phase(phase));
}
