//! A run in which the two parties make the correlations between them.
//!
//! Setup: greetings; base transfers in both directions; the server sends its weights encrypted, the client a key. Where
//! both parties keep that, and have kept the same, 16 fresh bytes of each take its place: the name of this run's session.
//! Preprocess: each party draws the seed of its own masks; both make the fields of all instructions together; both say
//! when they are ready. What stands for a weight's mask in the fields is the weight itself.
//!
//! From the base transfers on the connection has lanes: keys and encrypted weights, gates, encrypted products and, where
//! the parties agree so, the rounds go on side by side ([`crate::correlation::two_party::make`]).

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use marill_kernels::memory;
use marill_program::correlation::fields;
use marill_program::two_party::count::whole_demand;
use marill_program::two_party::gates::Side;
use marill_program::two_party::limits;
use marill_program::{Instruction, ValidProgram};

use super::agree::{self, Hello, Keeping, Purpose};
use super::stats::Clock;
use super::{Listener, Order, Own, Progress, enter};
use crate::correlation::store::{SetupFile, StoreId};
use crate::correlation::two_party::TwoPartySource;
use crate::correlation::two_party::keys::Transfers;
use crate::correlation::two_party::make::{self, Making, MakingLanes, Weights};
use crate::correlation::two_party::ot::Session;
use crate::correlation::two_party::setup::{Setup, weights_digest};
use crate::correlation::{Correlations, Suite};
use crate::error::RunError;
use crate::sharing::Party;
use crate::transport::{Channel, Lanes, Phase};

/// Numbers of all fields beyond which memory counts for more than the time that new pages take.
const LARGE_NUMBERS: usize = 1 << 24;

/// What a party makes, with what, and for what.
pub(super) struct Make<'m, 'a> {
    pub own: &'m Own<'a>,
    pub party: Party,
    pub purpose: Purpose,
    /// Where setup is kept.
    pub keep: Option<SetupFile>,
}

impl<'a> Make<'_, 'a> {
    /// Makes all correlations with the peer, and does `rounds` meanwhile on the first lane, with those that are there.
    pub(super) fn with<T>(
        self,
        peer: &mut Channel,
        clock: &mut Clock,
        progress: Listener<'_>,
        rounds: impl FnOnce(&mut Channel, &dyn Correlations) -> Result<T, RunError>,
    ) -> Result<(TwoPartySource<'a>, T), RunError> {
        let Make { own, party, purpose, keep } = self;
        let (program, constants) = (own.bundle.program(), own.constants);
        let side = side(party);
        limits::check(program).map_err(|error| RunError::BadProgram { reason: Box::new(error) })?;
        let weights = |at: u32, range| match program.instruction(at as usize) {
            Instruction::Weight(_) => constants.weight(at, range),
            _ => Ok(Vec::new()),
        };
        enter(Phase::Setup, [&mut *peer], progress);
        let hello = Hello::new(party.role(), Suite::TwoParty, program.digest()).to(purpose);
        let Begun { setup, session, keep, fresh } = match keep {
            Some(keep) => kept(keep, party, program, peer, hello, &weights)?,
            None => {
                agree::party(peer, &hello)?;
                Begun { setup: Setup::begin(peer, side)?, session: FIRST_SESSION, keep: None, fresh: true }
            }
        };
        let transfers = Transfers::new(&setup, &session, side, &whole_demand(program), program.link())?;
        let indices = constants.mask_indices()?;
        let source = TwoPartySource::new(program)?;

        let (lanes, mut channels) = Lanes::open(peer, make::windows(program.link()))?;
        let [online, gates, products, keys] = &mut channels;
        let phases = [Phase::Online, Phase::Preprocess, Phase::Preprocess, Phase::Setup];
        for (lane, phase) in [&mut *online, gates, products, keys].into_iter().zip(phases) {
            lane.meter_mut().set_phase(phase);
        }
        progress(Progress::Phase(Phase::Preprocess));
        let total = make::count(program) as u64;
        let progress = Mutex::new(progress);
        let tell = |done| {
            progress.lock().unwrap_or_else(PoisonError::into_inner)(Progress::Step { done, total });
        };
        let set_up = Mutex::new(Instant::now());
        let exchange = |lane: &mut Channel| {
            if fresh {
                setup.exchange_keys(lane, side, program, &weights)?;
                if let Some((keep, id, digest)) = &keep {
                    keep.write(id, digest, &setup)?;
                }
                *set_up.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            Ok(())
        };
        let making = Making {
            program,
            side,
            setup: &setup,
            indices: &indices,
            matrices: constants,
            weights: &weights,
        };
        let stop = lanes.stopper();
        let numbers = (0..program.len()).flat_map(|at| fields(program, at)).map(|field| field.len);
        let is_large = numbers.sum::<usize>() > LARGE_NUMBERS;
        if is_large {
            memory::give_back();
        }
        let done = making.run(
            &source,
            MakingLanes { gates: (gates, transfers), products, keys: (keys, exchange) },
            &tell,
            &stop,
            || rounds(online, &source),
        );
        if is_large {
            memory::keep();
        }
        let done = done.map_err(|error| lanes.misbehaviour().unwrap_or(error))?;
        let closed = lanes.close(peer, channels);
        let set_up = set_up.into_inner().unwrap_or_else(PoisonError::into_inner);
        clock.end_at(Phase::Setup, set_up);
        if purpose == Purpose::Run(Order::Streamed) {
            clock.end_at(
                Phase::Preprocess,
                source.complete_since().map_or(set_up, |moment| moment.max(set_up)),
            );
            // Who has its outputs does not lose them because the peer has gone.
            if matches!(closed, Err(RunError::Transport { .. })) {
                return Ok((source, done));
            }
        } else {
            clock.end(Phase::Preprocess);
        }
        closed?;
        Ok((source, done))
    }
}

/// The session of the run that made a setup. Later ones have names that both parties draw.
const FIRST_SESSION: Session = [0; 32];

fn side(party: Party) -> Side {
    match party {
        Party::Client => Side::Client,
        Party::Server => Side::Server,
    }
}

/// A setup as far as base transfers.
struct Begun {
    setup: Setup,
    session: Session,
    /// Where it is to be kept once it is complete, under which name, for which weights.
    keep: Option<(SetupFile, StoreId, [u8; 32])>,
    /// Keys have still to be exchanged.
    fresh: bool,
}

/// The setup that both have kept, and a session of it; or a new one, which will be kept.
fn kept(
    mut keep: SetupFile,
    party: Party,
    program: &ValidProgram,
    peer: &mut Channel,
    hello: Hello,
    weights: Weights<'_>,
) -> Result<Begun, RunError> {
    let digest = match party {
        Party::Client => [0; 32],
        Party::Server => weights_digest(program, weights)?,
    };
    keep.check(party, program, &digest)?;
    let same = agree::party(peer, &hello.keeping(Keeping::Kept(keep.id())))?;
    if let (true, Some(setup)) = (same, keep.take()) {
        return Ok(Begun { setup, session: agree::draw(peer, party)?, keep: None, fresh: false });
    }
    let setup = Setup::begin(peer, side(party))?;
    let id = StoreId::new(agree::draw(peer, party)?);
    Ok(Begun { setup, session: FIRST_SESSION, keep: Some((keep, id, digest)), fresh: true })
}
