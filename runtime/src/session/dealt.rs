//! A run in which a dealer makes the correlations: setup and preprocessing of all three.
//!
//! Setup: greetings on all links; the server sends the dealer the program, the public indices by which masks move and
//! a digest of the public matrices that multiply them, which the dealer has; the dealer sends the server the weights'
//! seed; the server sends the client every weight masked. Preprocess: the dealer seeds both parties and streams
//! corrections to the server, which takes them while it still sends masked weights; the client multiplies its masks with
//! the masked weights, and both theirs with the public matrices; the server sends the client empty messages as the stream
//! comes, so that neither is silent for long, and both say when they are ready.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use marill_kernels::Seed;
use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use marill_program::correlation::mask_indices;
use marill_program::cost::{
    DIGEST_BYTES, HEARTBEAT_BYTES, SEED_BYTES, correction_bytes, heartbeats, index_bytes,
};

use super::agree::{self, Hello};
use super::stats::{Clock, Stats};
use super::{Listener, Own, Progress, enter, trace};
use crate::bundle::{Bundle, PROGRAM_LIMIT_BYTES, decode_program};
use crate::correlation::dealer::make::Seeds;
use crate::correlation::dealer::{ClientSource, Dealt, ServerSource, make};
use crate::correlation::derived::Derived;
use crate::correlation::prepared::{MaskedWeights, Prepared};
use crate::correlation::spool::{Chunks, Spool};
use crate::correlation::{Correlations, Suite, fresh_seed};
use crate::error::{Action, Misbehaviour, Role, RunError, TransportFault};
use crate::executor::published::{self, HeldMatrices};
use crate::executor::weights;
use crate::transport::{Channel, Phase};

/// Most bytes of public indices that the dealer takes.
const INDEX_LIMIT_BYTES: u64 = 1 << 30;

/// The client until the rounds begin.
pub(super) fn client<'a>(
    own: &Own<'a>,
    server: &mut Channel,
    dealer: &mut Channel,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<Box<dyn Correlations + 'a>, RunError> {
    let (program, constants) = (own.bundle.program(), own.constants);
    enter(Phase::Setup, [&mut *server, &mut *dealer], progress);
    let hello = Hello::new(Role::Client, Suite::Dealer, program.digest());
    agree::party(server, &hello)?;
    agree::party(dealer, &hello)?;
    let indices = constants.mask_indices()?;
    let weights = MaskedWeights::receive(program, server)?;
    if !weights.is_empty() {
        server.end_round();
    }
    clock.end(Phase::Setup);

    enter(Phase::Preprocess, [&mut *server, &mut *dealer], progress);
    let mut source = ClientSource::new(program, receive_seed(dealer)?);
    let prepared = Prepared::new(program, &indices, &mut source, &weights)?;
    let derived = Derived::new(program, &indices, constants, &source)?;
    server.send(&[])?;
    (0..heartbeats(program)).try_for_each(|_| server.recv_into(&mut []))?;
    clock.end(Phase::Preprocess);
    Ok(Box::new(Dealt { source, derived, prepared: Some(prepared) }))
}

/// The server until the rounds begin.
pub(super) fn server<'a>(
    own: &Own<'a>,
    client: &mut Channel,
    dealer: &mut Channel,
    clock: &mut Clock,
    progress: Listener<'_>,
) -> Result<Box<dyn Correlations + 'a>, RunError> {
    let (bundle, constants) = (own.bundle, own.constants);
    let program = bundle.program();
    enter(Phase::Setup, [&mut *client, &mut *dealer], progress);
    let hello = Hello::new(Role::Server, Suite::Dealer, program.digest());
    agree::party(client, &hello)?;
    agree::party(dealer, &hello)?;
    dealer.send(bundle.program_bytes())?;
    let indices = constants.mask_indices()?;
    send_indices(&indices, dealer)?;
    if let Some(digest) = published::digest(program, &|at| constants.constant(at))? {
        dealer.send(&digest)?;
    }
    let weight_seed = receive_seed(dealer)?;
    dealer.meter_mut().set_phase(Phase::Preprocess);
    let total = (0..program.len()).map(|at| correction_bytes(program, at)).sum();
    let mut beats = 0;
    let (told, arrived) = mpsc::channel();
    let link = &mut *dealer;
    let source = thread::scope(|scope| {
        let corrections = scope.spawn(move || {
            let seed = receive_seed(link)?;
            ServerSource::receive(program, seed, link, &mut |done| told.send(done).map_err(|_| unwanted()))
        });
        let beside = || {
            // Dropped where something fails here: then nobody wants more corrections.
            let arrived = arrived;
            if weights::send_masked(constants, &weight_seed, client)? {
                client.end_round();
            }
            clock.end(Phase::Setup);
            enter(Phase::Preprocess, [&mut *client], progress);
            for done in arrived {
                progress(Progress::Step { done, total });
                while beats < done / HEARTBEAT_BYTES {
                    client.send(&[])?;
                    beats += 1;
                }
            }
            Ok(())
        };
        let sent = beside();
        let source = corrections.join().unwrap_or_else(|panic| resume_unwind(panic));
        sent.and(source)
    })?;
    let derived = Derived::new(program, &indices, constants, &source)?;
    (beats..heartbeats(program)).try_for_each(|_| client.send(&[]))?;
    client.recv_into(&mut [])?;
    dealer.end_round();
    clock.end(Phase::Preprocess);
    Ok(Box::new(Dealt { source, derived, prepared: None }))
}

/// Why corrections are taken no longer: the client cannot be reached, as its own error tells.
fn unwanted() -> RunError {
    RunError::Transport {
        me: Role::Server,
        peer: Role::Client,
        action: Action::Send { bytes: 0, phase: Phase::Preprocess, round: 0 },
        source: TransportFault::AlreadyFailed,
    }
}

/// Runs the dealer, which sees the program and no data. `public` has the program's published weights, which it needs
/// where masks are multiplied by them.
///
/// # Errors
/// `PeerIncompatible` where client and server do not run the program that the server sends, or the published weights
/// are not the server's; `BadProgram` where the program is not valid; `BadInput` without weights that it needs;
/// whatever the phases meet.
pub fn run_dealer(
    public: Option<&Bundle>,
    mut client: Channel,
    mut server: Channel,
    progress: Listener<'_>,
) -> Result<Stats, RunError> {
    let mut clock = Clock::start(Role::Dealer);
    enter(Phase::Setup, [&mut client, &mut server], progress);
    let hello = Hello::new(Role::Dealer, Suite::Dealer, [0; 32]);
    let digests = [agree::dealer(&mut client, &hello)?, agree::dealer(&mut server, &hello)?];
    let program = decode_program(&server.recv_at_most(PROGRAM_LIMIT_BYTES as usize)?)?;
    trace(&program)?;
    for (role, digest) in [Role::Client, Role::Server].into_iter().zip(digests) {
        agree::same_program(role, &program.digest(), &digest)?;
    }
    let indices = receive_indices(&program, &mut server)?;
    let matrices = held_matrices(&program, public, &mut server)?;
    let weight = fresh_seed()?;
    server.send(weight.expose())?;
    clock.end(Phase::Setup);

    enter(Phase::Preprocess, [&mut client, &mut server], progress);
    let seeds = Seeds { client: fresh_seed()?, server: fresh_seed()?, weight };
    client.send(seeds.client.expose())?;
    server.send(seeds.server.expose())?;
    let total = program.len() as u64;
    let mut heard = |done: u32| progress(Progress::Step { done: done.into(), total });
    make(&program, &indices, &matrices, &seeds, &mut server, &mut heard)?;
    server.end_round();
    clock.end(Phase::Preprocess);
    Ok(clock.stats(&[&client, &server]))
}

/// The published weights that multiply masks, which must be those that the server has.
fn held_matrices<'a>(
    program: &'a ValidProgram,
    public: Option<&'a Bundle>,
    server: &mut Channel,
) -> Result<HeldMatrices<'a>, RunError> {
    if let Some(public) = public {
        agree::same_program(Role::Dealer, &program.digest(), &public.program().digest())?;
    }
    let held = HeldMatrices::new(program, public);
    if let Some(ours) = published::digest(program, &|at| held.tensor(at))? {
        let mut theirs = [0; DIGEST_BYTES as usize];
        server.recv_into(&mut theirs)?;
        agree::same("digest of published weights", Role::Server, &ours, &theirs)?;
    }
    Ok(held)
}

fn receive_seed(dealer: &mut Channel) -> Result<Seed, RunError> {
    let mut bytes = zeroize::Zeroizing::new([0; SEED_BYTES as usize]);
    dealer.recv_into(&mut *bytes)?;
    Ok(Seed::new(*bytes))
}

fn send_indices(indices: &BTreeMap<u32, Tensor>, dealer: &mut Channel) -> Result<(), RunError> {
    let mut out = Chunks::new(dealer);
    for tensor in indices.values() {
        let positions =
            tensor.to_i64_vec().map_err(|error| RunError::BadProgram { reason: Box::new(error) })?;
        positions.iter().try_for_each(|position| out.write(&position.to_le_bytes()))?;
    }
    out.finish()
}

fn receive_indices(program: &ValidProgram, server: &mut Channel) -> Result<BTreeMap<u32, Tensor>, RunError> {
    let needed_bytes = index_bytes(program);
    if needed_bytes > INDEX_LIMIT_BYTES {
        let limit_bytes = INDEX_LIMIT_BYTES;
        return Err(RunError::Exhausted { what: "public indices", needed_bytes, limit_bytes });
    }
    let mut spool = Spool::new()?;
    spool.receive(server, needed_bytes, &mut |_| Ok(()))?;
    let (mut indices, mut offset) = (BTreeMap::new(), 0);
    for value in mask_indices(program) {
        let ty = program.ty(value);
        let bytes = spool.read(offset, 8 * ty.len())?;
        offset += bytes.len() as u64;
        let positions = bytes.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect();
        let malformed = |error: marill_plaintext::OpError| RunError::PeerMisbehaved {
            peer: Role::Server,
            reason: Misbehaviour::Malformed { what: "public indices", found: error.to_string() },
        };
        indices.insert(value, Tensor::i64(ty.shape.clone(), positions).map_err(malformed)?);
    }
    Ok(indices)
}
