//! What a program costs, exactly: bytes on every link, rounds and products, by phase and by instruction.
//!
//! Bytes are payload plus frame headers, as the transport meters them.

use serde::Serialize;

use crate::correlation;
use crate::plan::{Batch, Plan};
use crate::schema::Instruction;
use crate::suite::Suite;
use crate::two_party;
use crate::validate::ValidProgram;
use crate::value::{Form, Owner, Target};
use crate::work::instruction_work;

/// Bytes of a message's header.
pub const FRAME_HEADER_BYTES: u64 = 4;
/// Largest message of the streams of setup and preprocessing.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// After so much of the dealer's stream the server tells the client that it is alive, with an empty message.
pub const HEARTBEAT_BYTES: u64 = 1 << 24;
/// The greeting that opens every connection, each way.
pub const HELLO_BYTES: u64 = 64;
/// A digest of published weights.
pub const DIGEST_BYTES: u64 = 32;
/// One seed of the pseudo-random streams.
pub const SEED_BYTES: u64 = 16;

/// Bytes that travelled on each link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    pub client_to_server: u64,
    pub server_to_client: u64,
    pub client_to_dealer: u64,
    pub server_to_dealer: u64,
    pub dealer_to_client: u64,
    pub dealer_to_server: u64,
}

impl Bytes {
    /// Everything that the client sends.
    pub fn client_sent(&self) -> u64 {
        self.client_to_server + self.client_to_dealer
    }

    /// Everything that the server sends.
    pub fn server_sent(&self) -> u64 {
        self.server_to_client + self.server_to_dealer
    }

    /// Everything that the dealer sends.
    pub fn dealer_sent(&self) -> u64 {
        self.dealer_to_client + self.dealer_to_server
    }

    /// Everything on all links.
    pub fn total(&self) -> u64 {
        self.client_sent() + self.server_sent() + self.dealer_sent()
    }

    fn add(&mut self, other: &Bytes) {
        self.client_to_server += other.client_to_server;
        self.server_to_client += other.server_to_client;
        self.client_to_dealer += other.client_to_dealer;
        self.server_to_dealer += other.server_to_dealer;
        self.dealer_to_client += other.dealer_to_client;
        self.dealer_to_server += other.dealer_to_server;
    }
}

/// One phase's cost. `rounds` are exchanges between client and server, and for preprocessing the dealer's stream; what
/// oblivious transfers send one way, many thousands at a time, is not counted among the two parties' rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PhaseCost {
    pub bytes: Bytes,
    pub rounds: u64,
}

/// One instruction's cost. Headers are not included: they belong to rounds and streams. Nor are oblivious transfers,
/// which are made for all together; bits of a mask that several instructions share count for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InstructionCost {
    pub setup: Bytes,
    pub preprocess: Bytes,
    pub online: Bytes,
    /// Ring multiply-adds of each party's online work, at most.
    pub ring_products: u64,
}

/// A program's cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    pub setup: PhaseCost,
    pub preprocess: PhaseCost,
    pub online: PhaseCost,
    /// By instruction, in order.
    pub instructions: Vec<InstructionCost>,
}

/// Bytes of `len` packed values of `width` bits.
pub fn packed_bytes(len: usize, width: u32) -> u64 {
    (len as u64 * u64::from(width)).div_ceil(8)
}

/// Bytes of a stream of `payload` bytes cut into chunks, headers included.
pub fn streamed_bytes(payload: u64) -> u64 {
    payload + FRAME_HEADER_BYTES * payload.div_ceil(CHUNK_BYTES)
}

/// Bytes of preprocessing that one instruction needs at the party that gets corrections.
pub fn correction_bytes(program: &ValidProgram, at: usize) -> u64 {
    correlation::fields(program, at).iter().map(|f| packed_bytes(f.len, f.width)).sum()
}

/// Empty messages from the server to the client while preprocessing; the last one says that the server is ready.
pub fn heartbeats(program: &ValidProgram) -> u64 {
    let bytes: u64 = (0..program.len()).map(|at| correction_bytes(program, at)).sum();
    bytes.div_ceil(HEARTBEAT_BYTES).max(1)
}

/// Bytes of the public indices by which masks move, which the dealer has from the server.
pub fn index_bytes(program: &ValidProgram) -> u64 {
    correlation::mask_indices(program).iter().map(|&v| 8 * program.ty(v).len() as u64).sum()
}

/// Bytes of a digest of the public matrices that multiply masks, if there are any: the dealer has them.
pub fn digest_bytes(program: &ValidProgram) -> u64 {
    if correlation::mask_matrices(program).is_empty() { 0 } else { DIGEST_BYTES }
}

/// The cost of one instruction.
pub fn instruction_cost(program: &ValidProgram, at: usize, suite: Suite) -> InstructionCost {
    let mut cost = InstructionCost::default();
    let ty = &program.types()[at];
    match suite {
        Suite::Dealer => {
            cost.preprocess.dealer_to_server = correction_bytes(program, at);
            if let Instruction::Weight(w) = program.instruction(at) {
                cost.setup.server_to_client = packed_bytes(ty.len(), w.width);
            }
        }
        Suite::TwoParty => two_party::cost::instruction(program, at as u32, &mut cost),
    }
    match program.instruction(at) {
        Instruction::Open(_) | Instruction::OpenBits(_) | Instruction::Reveal(_) => {
            (cost.online.client_to_server, cost.online.server_to_client) = message_bytes(program, at);
        }
        Instruction::MatMul(_) => cost.ring_products = instruction_work(program, at).online.most(),
        _ => {}
    }
    cost
}

/// Payload bytes of a communicating instruction: client to server, server to client.
pub fn message_bytes(program: &ValidProgram, at: usize) -> (u64, u64) {
    let ty = &program.types()[at];
    match program.instruction(at) {
        Instruction::Open(o) => {
            let bytes = packed_bytes(ty.len(), o.width);
            let to = ty.form;
            let (server, client) = match to {
                Form::Masked { to, .. } => (to.includes_server(), to.includes_client()),
                _ => (false, false),
            };
            (if server { bytes } else { 0 }, if client { bytes } else { 0 })
        }
        Instruction::OpenBits(o) => {
            let bytes = packed_bytes(ty.len(), o.width);
            (bytes, bytes)
        }
        Instruction::Reveal(r) => {
            let source = program.ty(r.arg);
            let bytes = packed_bytes(source.len(), source.width().unwrap_or(64));
            let owner = match source.form {
                Form::Known { owner, .. } => Some(owner),
                _ => None,
            };
            let to = match ty.form {
                Form::Plain { owner: Owner::Client, .. } => Target::Client,
                Form::Plain { owner: Owner::Server, .. } => Target::Server,
                _ => Target::Both,
            };
            let to_server = to.includes_server() && matches!(owner, None | Some(Owner::Client));
            let to_client = to.includes_client() && matches!(owner, None | Some(Owner::Server));
            (if to_server { bytes } else { 0 }, if to_client { bytes } else { 0 })
        }
        _ => (0, 0),
    }
}

/// The exact cost of a run of `program`; `program_bytes` is the program file's length.
pub fn cost(program: &ValidProgram, program_bytes: u64, suite: Suite) -> Cost {
    let instructions: Vec<InstructionCost> =
        (0..program.len()).map(|at| instruction_cost(program, at, suite)).collect();
    let mut total = Cost { instructions, ..Cost::default() };
    match suite {
        Suite::Dealer => dealt(program, program_bytes, &mut total),
        Suite::TwoParty => two_party::cost::phases(program, &mut total),
    }
    for batch in Plan::new(program).online {
        let Batch::Round(opens) = batch else { continue };
        let mut round = Bytes::default();
        opens.iter().for_each(|&at| round.add(&total.instructions[at as usize].online));
        for bytes in [&mut round.client_to_server, &mut round.server_to_client] {
            if *bytes > 0 {
                *bytes += FRAME_HEADER_BYTES;
            }
        }
        total.online.bytes.add(&round);
        total.online.rounds += 1;
    }
    total
}

/// Setup and preprocessing with a dealer.
fn dealt(program: &ValidProgram, program_bytes: u64, total: &mut Cost) {
    let hello = HELLO_BYTES + FRAME_HEADER_BYTES;
    let seed = SEED_BYTES + FRAME_HEADER_BYTES;
    total.setup.bytes = Bytes {
        client_to_server: hello,
        server_to_client: hello,
        client_to_dealer: hello,
        server_to_dealer: hello
            + program_bytes
            + FRAME_HEADER_BYTES
            + streamed_bytes(index_bytes(program))
            + streamed_bytes(digest_bytes(program)),
        dealer_to_client: hello,
        dealer_to_server: hello + seed,
    };
    total.setup.rounds = 1;
    total.preprocess.bytes = Bytes {
        client_to_server: FRAME_HEADER_BYTES,
        server_to_client: FRAME_HEADER_BYTES * heartbeats(program),
        dealer_to_client: seed,
        dealer_to_server: seed,
        ..Bytes::default()
    };
    total.preprocess.rounds = 1;
    for i in &total.instructions {
        total.setup.bytes.server_to_client += streamed_bytes(i.setup.server_to_client);
        total.preprocess.bytes.dealer_to_server += streamed_bytes(i.preprocess.dealer_to_server);
    }
    if total.instructions.iter().any(|i| i.setup.server_to_client > 0) {
        total.setup.rounds += 1;
    }
}
