//! Preprocessing ahead of the inputs.
//!
//! [`prepare`]: setup and preprocessing as in [`super::alone`]; then each party draws half of the pair's name, and both
//! write their stores. A run from them: greetings with that name; each party writes down that its store is used and
//! deletes it; then come the rounds.

use marill_program::plan::Plan;

use super::agree::{self, Hello, Purpose};
use super::alone::Make;
use super::stats::{Clock, Stats};
use super::{Listener, Own, consents, enter};
use crate::bundle::Bundle;
use crate::correlation::Suite;
use crate::correlation::store::{Keep, NewStore, SetupFile, Store, StoreId};
use crate::correlation::two_party::TwoPartySource;
use crate::error::RunError;
use crate::executor::constants::Constants;
use crate::sharing::Party;
use crate::transport::{Channel, Phase};

/// A store that was made.
pub struct Stored {
    /// Its name, the same at both parties.
    pub id: StoreId,
    /// The file's length.
    pub file_bytes: u64,
    /// What it took.
    pub stats: Stats,
}

/// Makes the correlations of one run with the peer, and keeps this party's part in `place`; setup too where there is a
/// file for it, `keep`, which must then hold for both parties. Needs no inputs.
///
/// # Errors
/// Those of [`consents`] before anything is sent; `PeerIncompatible` where the peer runs another program or does not
/// prepare; whatever the phases and the file meet.
pub fn prepare(
    bundle: &Bundle,
    party: Party,
    mut peer: Channel,
    place: NewStore,
    keep: Option<SetupFile>,
    progress: Listener<'_>,
) -> Result<Stored, RunError> {
    consents(bundle, party)?;
    let plan = Plan::new(bundle.program());
    let constants = Constants::new(bundle, &plan, party)?;
    let mut clock = Clock::start(party.role());
    let own = Own { bundle, constants: &constants };
    let make = Make { own: &own, party, purpose: Purpose::Prepare, keep };
    let (source, ()) = make.with(&mut peer, &mut clock, progress, |_, _| Ok(()))?;
    enter(Phase::Preprocess, [&mut peer], progress);
    let id = StoreId::new(agree::draw(&mut peer, party)?);
    let (seed, [mut fields, mut derived]) = source.into_parts();
    let keep = Keep { seed: &seed, shelves: [&mut fields, &mut derived] };
    let file_bytes = place.write(party, bundle.program(), &id, keep)?;
    clock.end(Phase::Preprocess);
    clock.plaintext = Some(constants.plaintext());
    Ok(Stored { id, file_bytes, stats: clock.stats(&[&peer]) })
}

/// A party with a store until the rounds begin.
pub(super) fn take<'a>(
    own: &Own<'a>,
    party: Party,
    peer: &mut Channel,
    store: Store,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<TwoPartySource<'a>, RunError> {
    let program = own.bundle.program();
    store.check(party, program)?;
    enter(Phase::Setup, [&mut *peer], progress);
    let purpose = Purpose::Stored(*store.id());
    agree::party(peer, &Hello::new(party.role(), Suite::TwoParty, program.digest()).to(purpose))?;
    clock.end(Phase::Setup);

    enter(Phase::Preprocess, [&mut *peer], progress);
    let kept = store.consume()?;
    clock.end(Phase::Preprocess);
    Ok(TwoPartySource::of(program, kept.seed, kept.shelves))
}
