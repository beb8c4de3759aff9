//! A run in which a dealer makes the correlations: setup and preprocessing of all three.
//!
//! Setup: greetings on all links; the server sends the dealer the program, the public indices by which masks move and
//! a digest of the public matrices that multiply them, which the dealer has; the dealer sends the server the weights'
//! seed; the server sends the client every weight masked. Preprocess: the dealer seeds both parties and streams
//! corrections to the server, which takes them while it still sends masked weights; the client multiplies its masks with
//! the masked weights, and both theirs with the public matrices; the server sends the client empty messages as the stream
//! comes, so that neither is silent for long, and the client says when it is ready.
//!
//! From the greetings on the connection of client and server has two lanes, of which one is for the rounds: they go on as soon as
//! what they take is there, or follow when all is.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use marill_kernels::Seed;
use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use marill_program::correlation::mask_indices;
use marill_program::cost::{
    DIGEST_BYTES, HEARTBEAT_BYTES, SEED_BYTES, correction_bytes, heartbeats, index_bytes,
};

use super::agree::{self, Hello, Purpose};
use super::stats::{Clock, Stats};
use super::{Listener, Order, Own, Progress, enter, trace};
use crate::bundle::{Bundle, PROGRAM_LIMIT_BYTES, decode_program};
use crate::correlation::dealer::make::Seeds;
use crate::correlation::dealer::{self, ClientSource, Dealt, ServerSource};
use crate::correlation::derived::Derived;
use crate::correlation::filling::Filling;
use crate::correlation::prepared::{MaskedWeights, Prepared};
use crate::correlation::spool::{Chunks, Spool};
use crate::correlation::two_party::make;
use crate::correlation::watch::Watch;
use crate::correlation::{Correlations, Suite, fresh_seed};
use crate::error::{Action, Misbehaviour, Role, RunError, TransportFault};
use crate::executor::published::{self, HeldMatrices};
use crate::executor::weights;
use crate::sharing::Party;
use crate::transport::{Channel, Lanes, Phase};

/// Most bytes of public indices that the dealer takes.
const INDEX_LIMIT_BYTES: u64 = 1 << 30;

/// The windows of the lanes of rounds and of weights.
fn windows(program: &ValidProgram) -> [usize; 2] {
    let [rounds, _, long, _] = make::windows(program.link());
    [rounds, long]
}

/// The lanes of a run: of rounds; of weights, and of what shows after these that the server is there.
type RunLanes = (Lanes, [Channel; 2]);

/// What a party's rounds take.
type Ready<'a> = Box<dyn Correlations + 'a>;

/// A party's run with a dealer.
pub(super) struct Deal<'m, 'a> {
    pub own: &'m Own<'a>,
    pub order: Order,
}

impl<'a> Deal<'_, 'a> {
    /// Takes all correlations, and does `rounds` meanwhile with those that are there.
    pub(super) fn with<T>(
        self,
        party: Party,
        peer: &mut Channel,
        dealer: &mut Channel,
        clock: &mut Clock,
        progress: Listener<'_>,
        rounds: impl FnOnce(&mut Channel, &dyn Correlations, Listener<'_>) -> Result<T, RunError>,
    ) -> Result<(Ready<'a>, T), RunError> {
        match party {
            Party::Client => self.client(peer, dealer, clock, progress, rounds),
            Party::Server => self.server(peer, dealer, clock, progress, rounds),
        }
    }

    /// Of the two parties' orders both must be the same; the dealer knows of none.
    fn greet(
        &self,
        peer: &mut Channel,
        dealer: &mut Channel,
        progress: Listener<'_>,
    ) -> Result<(), RunError> {
        enter(Phase::Setup, [&mut *peer, &mut *dealer], progress);
        let hello = || Hello::new(peer.me(), Suite::Dealer, self.own.bundle.program().digest());
        let (to_peer, to_dealer) = (hello().to(Purpose::Run(self.order)), hello());
        agree::party(peer, &to_peer)?;
        agree::party(dealer, &to_dealer)?;
        Ok(())
    }

    fn client<T>(
        self,
        server: &mut Channel,
        dealer: &mut Channel,
        clock: &mut Clock,
        progress: Listener<'_>,
        rounds: impl FnOnce(&mut Channel, &dyn Correlations, Listener<'_>) -> Result<T, RunError>,
    ) -> Result<(Ready<'a>, T), RunError> {
        let (program, constants) = (self.own.bundle.program(), self.own.constants);
        self.greet(server, dealer, progress)?;
        let indices = constants.mask_indices()?;
        let lanes = Lanes::open(server, windows(program))?;
        dealer.meter_mut().set_phase(Phase::Preprocess);
        let source = ClientSource::new(program, receive_seed(dealer)?);
        let dealt = Dealt { source, derived: Derived::new()?, prepared: Some(Prepared::new()?) };
        let weights = MaskedWeights::new()?;
        let mut fillings = dealt.fillings();
        fillings.push(weights.came());
        let beside = Beside::new(self.order, fillings, lanes.0.stopper(), progress);
        let give_up = || beside.give_up();
        let watch = Watch::new(&give_up);
        let prepare = |prepared: &Prepared| prepared.make(program, &indices, &dealt.source, &weights);
        let done = thread::scope(|scope| {
            scope.spawn(|| watch.run(|| dealt.prepared.iter().try_for_each(prepare)));
            scope.spawn(|| watch.run(|| dealt.derived.make(program, &indices, constants, &dealt.source)));
            let take = |lane: &mut Channel| {
                if weights.receive(program, lane)? {
                    lane.end_round();
                }
                beside.set_up(lane);
                (0..heartbeats(program)).try_for_each(|_| lane.recv_into(&mut []))
            };
            let ready = |lane: &mut Channel| lane.send(&[]);
            watch.run(|| {
                beside.run(&watch, server, lanes, (take, ready), |lane, told| rounds(lane, &dealt, told))
            })
        });
        let done = watch.outcome(done)?;
        beside.end(clock);
        Ok((Box::new(dealt), done))
    }

    fn server<T>(
        self,
        client: &mut Channel,
        dealer: &mut Channel,
        clock: &mut Clock,
        progress: Listener<'_>,
        rounds: impl FnOnce(&mut Channel, &dyn Correlations, Listener<'_>) -> Result<T, RunError>,
    ) -> Result<(Ready<'a>, T), RunError> {
        let (bundle, constants) = (self.own.bundle, self.own.constants);
        let program = bundle.program();
        self.greet(client, dealer, progress)?;
        dealer.send(bundle.program_bytes())?;
        let indices = constants.mask_indices()?;
        send_indices(&indices, dealer)?;
        if let Some(digest) = published::digest(program, &|at| constants.constant(at))? {
            dealer.send(&digest)?;
        }
        let lanes = Lanes::open(client, windows(program))?;
        let weight_seed = receive_seed(dealer)?;
        dealer.meter_mut().set_phase(Phase::Preprocess);
        let source = ServerSource::new(program, receive_seed(dealer)?)?;
        let dealt = Dealt { source, derived: Derived::new()?, prepared: None };
        let beside = Beside::new(self.order, dealt.fillings(), lanes.0.stopper(), progress);
        let give_up = || beside.give_up();
        let watch = Watch::new(&give_up);
        let total = (0..program.len()).map(|at| correction_bytes(program, at)).sum();
        let done = thread::scope(|scope| {
            let (watch, dealt) = (&watch, &dealt);
            let (told, arrived) = mpsc::channel();
            let correct = move || {
                dealt.source.receive(dealer, &mut |done| {
                    if watch.has_failed() { Err(unwanted()) } else { told.send(done).map_err(|_| unwanted()) }
                })?;
                dealer.end_round();
                Ok(())
            };
            scope.spawn(move || watch.run(correct));
            scope.spawn(|| watch.run(|| dealt.derived.make(program, &indices, constants, &dealt.source)));
            let give = |lane: &mut Channel| {
                if weights::send_masked(constants, &weight_seed, lane)? {
                    lane.end_round();
                }
                beside.set_up(lane);
                let mut beats = 0;
                for done in arrived {
                    beside.tell(Progress::Step { done, total });
                    while beats < done / HEARTBEAT_BYTES {
                        lane.send(&[])?;
                        beats += 1;
                    }
                }
                (beats..heartbeats(program)).try_for_each(|_| lane.send(&[]))
            };
            let ready = |lane: &mut Channel| lane.recv_into(&mut []);
            watch.run(|| {
                beside.run(watch, client, lanes, (give, ready), |lane, told| rounds(lane, dealt, told))
            })
        });
        let done = watch.outcome(done)?;
        beside.end(clock);
        Ok((Box::new(dealt), done))
    }
}

/// What goes on at a party while its correlations come.
struct Beside<'b> {
    order: Order,
    fillings: Vec<&'b Filling>,
    stop: Box<dyn Fn() + Send + Sync>,
    progress: Mutex<Listener<'b>>,
    set_up: Mutex<Instant>,
}

impl<'b> Beside<'b> {
    /// Whose correlations come as `fillings`; `stop` ends the lanes.
    fn new(
        order: Order,
        fillings: Vec<&'b Filling>,
        stop: impl Fn() + Send + Sync + 'static,
        progress: Listener<'b>,
    ) -> Beside<'b> {
        let (progress, set_up) = (Mutex::new(progress), Mutex::new(Instant::now()));
        Beside { order, fillings, stop: Box::new(stop), progress, set_up }
    }

    fn tell(&self, progress: Progress) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)(progress);
    }

    /// Ends all that waits.
    fn give_up(&self) {
        (self.stop)();
        self.fillings.iter().for_each(|filling| filling.end());
    }

    /// The last weight is under way or there, and the lane free.
    fn set_up(&self, lane: &mut Channel) {
        *self.set_up.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        lane.meter_mut().set_phase(Phase::Preprocess);
        lane.meter_mut().set_label(0);
        self.tell(Progress::Phase(Phase::Preprocess));
    }

    /// Does `rounds` on one lane while `give` sends or takes weights on the other; when all has come, this party is `ready`.
    fn run<T>(
        &self,
        watch: &Watch<'_>,
        peer: &mut Channel,
        (lanes, [mut online, mut other]): RunLanes,
        (give, ready): (
            impl FnOnce(&mut Channel) -> Result<(), RunError> + Send,
            impl FnOnce(&mut Channel) -> Result<(), RunError>,
        ),
        rounds: impl FnOnce(&mut Channel, Listener<'_>) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        online.meter_mut().set_phase(Phase::Online);
        other.meter_mut().set_phase(Phase::Setup);
        // Rounds are told of once nothing else is.
        let only_rounds = AtomicBool::new(false);
        let mut told = |progress| {
            if only_rounds.load(Ordering::Acquire) {
                self.tell(progress);
            }
        };
        let done = thread::scope(|scope| {
            let given = scope.spawn(|| {
                watch.run(|| {
                    give(&mut other)?;
                    if self.order == Order::Streamed {
                        self.tell(Progress::Phase(Phase::Online));
                        only_rounds.store(true, Ordering::Release);
                    }
                    Ok(())
                })
            });
            let done = watch.run(|| rounds(&mut online, &mut told));
            given.join().unwrap_or_else(|panic| resume_unwind(panic)).and(done)
        });
        self.all_over();
        let Some(done) = done.filter(|_| !watch.has_failed()) else {
            return Err(lanes.misbehaviour().unwrap_or_else(unwanted));
        };
        match ready(&mut other).and_then(|()| lanes.close(peer, [online, other])) {
            // Who has its outputs does not lose them because the peer has gone.
            Err(RunError::Transport { .. }) if self.order == Order::Streamed => Ok(done),
            closed => closed.map(|()| done),
        }
    }

    /// Waits until nothing more comes, and tells since when.
    fn all_over(&self) -> Instant {
        self.fillings.iter().map(|filling| filling.until_over()).max().unwrap_or_else(Instant::now)
    }

    /// Ends setup and preprocessing, when the last of it came.
    fn end(&self, clock: &mut Clock) {
        clock.end_at(Phase::Setup, *self.set_up.lock().unwrap_or_else(PoisonError::into_inner));
        match self.order {
            Order::Streamed => clock.end_at(Phase::Preprocess, self.all_over()),
            Order::InTurn => clock.end(Phase::Preprocess),
        }
    }
}

/// Why something goes on no longer: what has failed before tells.
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
    dealer::make(&program, &indices, &matrices, &seeds, &mut server, &mut heard)?;
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
