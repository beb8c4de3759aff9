//! A run in which the two parties make the correlations between them.
//!
//! Setup: greetings; base transfers in both directions; the server sends its weights encrypted, the client a key.
//! Preprocess: each party draws the seed of its own masks; both make the fields of all instructions together, segment by
//! segment; both say when they are ready. What stands for a weight's mask in the fields is the weight itself.

use marill_program::Instruction;
use marill_program::two_party::count::whole_demand;
use marill_program::two_party::gates::Side;
use marill_program::two_party::limits;

use super::agree::{self, Hello, Purpose};
use super::stats::Clock;
use super::{Listener, Own, Progress, Ready, enter};
use crate::correlation::Suite;
use crate::correlation::derived::Derived;
use crate::correlation::prepared::Prepared;
use crate::correlation::two_party::TwoPartySource;
use crate::correlation::two_party::gates::Gates;
use crate::correlation::two_party::keys::{ProductKeys, Transfers};
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
    peer: &mut Channel,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<Made<'a>, RunError> {
    let (program, constants) = (own.bundle.program(), own.constants);
    let side = match party {
        Party::Client => Side::Client,
        Party::Server => Side::Server,
    };
    limits::check(program).map_err(|error| RunError::BadProgram { reason: Box::new(error) })?;
    enter(Phase::Setup, [&mut *peer], progress);
    agree::party(peer, &Hello::new(party.role(), Suite::TwoParty, program.digest()).to(purpose))?;
    let weights = |at: u32| match program.instruction(at as usize) {
        Instruction::Weight(_) => constants.weight(at),
        _ => Ok(Vec::new()),
    };
    let transfers = Transfers::setup(peer, side, &whole_demand(program))?;
    let keys = ProductKeys::setup(peer, side, program, &weights)?;
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
