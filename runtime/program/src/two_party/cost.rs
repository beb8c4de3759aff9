//! What setup and preprocessing between the two parties cost, exactly.

use super::count::{demand, whole_demand};
use super::ot::{SETUP_RECEIVER_BYTES, SETUP_SENDER_BYTES, Traffic, traffic};
use super::products::{Encrypted, Method, method};
use crate::correlation::fields;
use crate::cost::{Bytes, Cost, FRAME_HEADER_BYTES, HELLO_BYTES, InstructionCost, streamed_bytes};
use crate::validate::ValidProgram;

/// Rounds of base transfers: one for each direction of transfers.
pub const TRANSFER_ROUNDS: u64 = 2;

/// Adds what instruction `at` sends at setup and in preprocessing.
pub fn instruction(program: &ValidProgram, at: u32, cost: &mut InstructionCost) {
    match method(program, at) {
        Some(Method::Wide { shape, rows }) => {
            cost.setup.server_to_client = shape.setup_bytes();
            cost.preprocess.client_to_server = shape.message_bytes(rows) as u64;
        }
        Some(Method::Pairs(shape)) => {
            cost.preprocess.client_to_server = shape.request_bytes();
            cost.preprocess.server_to_client = shape.reply_bytes();
        }
        _ if fields(program, at as usize).is_empty() => {}
        _ => {
            let demand = demand(program, &[at]);
            cost.preprocess.client_to_server = demand.client_to_server;
            cost.preprocess.server_to_client = demand.server_to_client;
        }
    }
}

/// Setup and preprocessing.
pub fn phases(program: &ValidProgram, total: &mut Cost) {
    let (demand, encrypted) = (whole_demand(program), Encrypted::new(program));
    let greeting = HELLO_BYTES + FRAME_HEADER_BYTES;
    let base = SETUP_SENDER_BYTES + SETUP_RECEIVER_BYTES + 2 * FRAME_HEADER_BYTES;
    total.setup.bytes = Bytes {
        client_to_server: greeting + base + streamed_bytes(encrypted.client_setup_bytes()),
        server_to_client: greeting + base + streamed_bytes(encrypted.server_setup_bytes()),
        ..Bytes::default()
    };
    let has_keys = !encrypted.wide.is_empty() || !encrypted.pairs.is_empty();
    total.setup.rounds = 1 + TRANSFER_ROUNDS + u64::from(has_keys);

    let extension = |total: u64| {
        let traffic = traffic(total as usize, program.link());
        Traffic {
            sender_bytes: traffic.sender_bytes - SETUP_SENDER_BYTES - FRAME_HEADER_BYTES,
            receiver_bytes: traffic.receiver_bytes - SETUP_RECEIVER_BYTES - FRAME_HEADER_BYTES,
            ..traffic
        }
    };
    let (to_server, to_client) = (extension(demand.server_chooses), extension(demand.client_chooses));
    // The last frame each way says that a party is ready.
    let headers = FRAME_HEADER_BYTES * (demand.frames + 1);
    let bytes = &mut total.preprocess.bytes;
    bytes.client_to_server =
        demand.client_to_server + headers + to_server.sender_bytes + to_client.receiver_bytes;
    bytes.server_to_client =
        demand.server_to_client + headers + to_server.receiver_bytes + to_client.sender_bytes;
    for wide in &encrypted.wide {
        bytes.client_to_server += wide.shape.message_bytes(wide.rows) as u64 + FRAME_HEADER_BYTES;
    }
    for (_, shape) in &encrypted.pairs {
        bytes.client_to_server += shape.request_bytes() + FRAME_HEADER_BYTES;
        bytes.server_to_client += shape.reply_bytes() + FRAME_HEADER_BYTES;
    }
    let products = (encrypted.wide.len() + encrypted.pairs.len()) as u64;
    total.preprocess.rounds = demand.rounds + products + 1;
}
