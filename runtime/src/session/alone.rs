//! A run in which the two parties make the correlations between them.
//!
//! Setup: greetings; base transfers in both directions; the server sends its weights encrypted, the client a key. Where
//! both parties keep that, and have kept the same, 16 fresh bytes of each take its place: the name of this run's session.
//! Preprocess: each party draws the seed of its own masks; both make the fields of all instructions together, segment by
//! segment; both say when they are ready. What stands for a weight's mask in the fields is the weight itself.

use marill_program::two_party::count::whole_demand;
use marill_program::two_party::gates::Side;
use marill_program::two_party::limits;
use marill_program::{Instruction, ValidProgram};

use super::agree::{self, Hello, Keeping, Purpose};
use super::stats::Clock;
use super::{Listener, Own, Progress, Ready, enter};
use crate::correlation::Suite;
use crate::correlation::derived::Derived;
use crate::correlation::prepared::Prepared;
use crate::correlation::store::{SetupFile, StoreId};
use crate::correlation::two_party::TwoPartySource;
use crate::correlation::two_party::gates::Gates;
use crate::correlation::two_party::keys::{ProductKeys, Transfers};
use crate::correlation::two_party::ot::Session;
use crate::correlation::two_party::setup::{Setup, weights_digest};
use crate::correlation::two_party::source::Weights;
use crate::error::RunError;
use crate::sharing::Party;
use crate::transport::{Channel, Phase};

/// What the two parties have made, one's part.
pub(super) struct Made<'a> {
    pub source: TwoPartySource<'a>,
    pub derived: Derived,
    /// The client's.
    pub prepared: Option<Prepared>,
}

impl<'a> Made<'a> {
    pub(super) fn ready(self) -> Ready<'a> {
        Ready { source: Box::new(self.source), derived: self.derived, prepared: self.prepared }
    }
}

/// A party until the rounds begin.
pub(super) fn prepare<'a>(
    own: &Own<'a>,
    party: Party,
    purpose: Purpose,
    keep: Option<SetupFile>,
    peer: &mut Channel,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<Made<'a>, RunError> {
    let (program, constants) = (own.bundle.program(), own.constants);
    let side = side(party);
    limits::check(program).map_err(|error| RunError::BadProgram { reason: Box::new(error) })?;
    let weights = |at: u32| match program.instruction(at as usize) {
        Instruction::Weight(_) => constants.weight(at),
        _ => Ok(Vec::new()),
    };
    enter(Phase::Setup, [&mut *peer], progress);
    let hello = Hello::new(party.role(), Suite::TwoParty, program.digest()).to(purpose);
    let (setup, session) = match keep {
        Some(keep) => kept(keep, party, program, peer, hello, &weights)?,
        None => {
            agree::party(peer, &hello)?;
            (Setup::make(peer, side, program, &weights)?, FIRST_SESSION)
        }
    };
    let transfers = Transfers::new(&setup, &session, side, &whole_demand(program), program.link())?;
    let keys = ProductKeys::new(setup, side, program)?;
    let indices = constants.mask_indices()?;
    clock.end(Phase::Setup);

    enter(Phase::Preprocess, [&mut *peer], progress);
    let total = program.len() as u64;
    let mut heard = |done: u32| progress(Progress::Step { done: done.into(), total });
    let mut gates = Gates::new(peer, side, transfers);
    let mut source =
        TwoPartySource::make(program, &indices, constants, &weights, &mut gates, &keys, &mut heard)?;
    let derived = Derived::new(program, &indices, constants, &source)?;
    let prepared = match party {
        Party::Client => Some(Prepared::new(program, &indices, &mut source, None)?),
        Party::Server => None,
    };
    peer.exchange_into(&[], &mut [])?;
    peer.end_round();
    clock.end(Phase::Preprocess);
    Ok(Made { source, derived, prepared })
}

/// The session of the run that made a setup. Later ones have names that both parties draw.
const FIRST_SESSION: Session = [0; 32];

fn side(party: Party) -> Side {
    match party {
        Party::Client => Side::Client,
        Party::Server => Side::Server,
    }
}

/// The setup that both have kept, and a session of it; or a new one, which is kept.
fn kept(
    mut keep: SetupFile,
    party: Party,
    program: &ValidProgram,
    peer: &mut Channel,
    hello: Hello,
    weights: Weights<'_>,
) -> Result<(Setup, Session), RunError> {
    let digest = match party {
        Party::Client => [0; 32],
        Party::Server => weights_digest(program, weights)?,
    };
    keep.check(party, program, &digest)?;
    let same = agree::party(peer, &hello.keeping(Keeping::Kept(keep.id())))?;
    if let (true, Some(setup)) = (same, keep.take()) {
        return Ok((setup, agree::draw(peer, party)?));
    }
    let mut setup = Setup::make(peer, side(party), program, weights)?;
    keep.write(&StoreId::new(agree::draw(peer, party)?), &digest, &mut setup)?;
    Ok((setup, FIRST_SESSION))
}
