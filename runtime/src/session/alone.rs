//! A run in which the two parties make the correlations between them.
//!
//! Setup: greetings, base transfers in both directions. Preprocess: each party draws the seed of its own masks; both
//! make the fields of all instructions together, segment by segment; both say when they are ready. Nobody sends the
//! client anything of the weights: their masks are the weights themselves, as far as the fields go.

use marill_program::Instruction;
use marill_program::two_party::count::whole_demand;
use marill_program::two_party::gates::Side;

use super::agree::{self, Hello};
use super::stats::Clock;
use super::{Listener, Own, Progress, Ready, enter};
use crate::correlation::derived::Derived;
use crate::correlation::prepared::Prepared;
use crate::correlation::two_party::TwoPartySource;
use crate::correlation::two_party::gates::Gates;
use crate::correlation::two_party::ot::{Receiver, Sender};
use crate::correlation::{Suite, fresh_seed};
use crate::error::RunError;
use crate::sharing::Party;
use crate::transport::{Channel, Phase};

/// A party until the rounds begin.
pub(super) fn prepare<'a>(
    own: &Own<'a>,
    party: Party,
    peer: &mut Channel,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<Ready<'a>, RunError> {
    let (program, constants) = (own.bundle.program(), own.constants);
    let side = match party {
        Party::Client => Side::Client,
        Party::Server => Side::Server,
    };
    enter(Phase::Setup, [&mut *peer], progress);
    agree::party(peer, &Hello::new(party.role(), Suite::TwoParty, program.digest()))?;
    let demand = whole_demand(program);
    let [server_chooses, client_chooses] =
        [demand.server_chooses, demand.client_chooses].map(|count| count as usize);
    let (sender, receiver) = match side {
        Side::Client => {
            let sender = Sender::setup(peer, server_chooses)?;
            (sender, Receiver::setup(peer, client_chooses)?)
        }
        Side::Server => {
            let receiver = Receiver::setup(peer, server_chooses)?;
            (Sender::setup(peer, client_chooses)?, receiver)
        }
    };
    let indices = constants.mask_indices()?;
    clock.end(Phase::Setup);

    enter(Phase::Preprocess, [&mut *peer], progress);
    let total = program.len() as u64;
    let mut heard = |done: u32| progress(Progress::Step { done: done.into(), total });
    let mut gates = Gates::new(peer, side, sender, receiver);
    let weights = |at: u32| match program.instruction(at as usize) {
        Instruction::Weight(_) => constants.weight(at),
        _ => Ok(Vec::new()),
    };
    let mut source = TwoPartySource::make(
        program,
        fresh_seed()?,
        &indices,
        constants,
        &weights,
        &mut gates,
        side,
        &mut heard,
    )?;
    let derived = Derived::new(program, &indices, constants, &source)?;
    let prepared = match party {
        Party::Client => Some(Prepared::new(program, &indices, &mut source, None)?),
        Party::Server => None,
    };
    peer.exchange_into(&[], &mut [])?;
    clock.end(Phase::Preprocess);
    Ok(Ready { source: Box::new(source), derived, prepared })
}
