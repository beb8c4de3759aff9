//! What gates cost, without running them.

use std::convert::Infallible;

use super::gates::{And, Choose, Engine, Side};
use super::planes::Plane;
use super::products::by_gates;
use super::recipe::make;
use crate::correlation::fields;
use crate::cost::CHUNK_BYTES;
use crate::validate::ValidProgram;

/// Numbers of the fields that are made together, at most: each instruction's count whole. Fewer take less memory, and more
/// rounds.
const SEGMENT_NUMBERS: usize = 25 << 20;

/// What gates take. Each direction of an exchange is cut into the same number of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Oblivious transfers in which the server chooses, and in which the client does.
    pub server_chooses: u64,
    pub client_chooses: u64,
    /// Numbers and strings' bits, by the word, that they carry.
    pub numbers: u64,
    /// Numbers that the leaves of digits' trees are expanded to, at each party.
    pub leaves: u64,
    /// Payload of all exchanges.
    pub client_to_server: u64,
    pub server_to_client: u64,
    /// Frames, each way.
    pub frames: u64,
    pub rounds: u64,
}

/// Bytes of the bits that both parties open for gates [`And`], each way.
pub fn and_bytes(gates: &[And]) -> u64 {
    let bits = |gate: &And| (1 + gate.by.len()) as u64 * gate.lanes.div_ceil(8) as u64;
    gates.iter().map(bits).sum()
}

/// Bytes that correct the random choices of gates [`Choose`] in which `chooser` chooses.
pub fn choice_bytes(gates: &[Choose], chooser: Side) -> u64 {
    gates.iter().filter(|g| g.chooser == chooser).map(Choose::choice_bytes).sum()
}

/// Bytes that the other party sends for them.
pub fn number_bytes(gates: &[Choose], chooser: Side) -> u64 {
    gates.iter().filter(|g| g.chooser == chooser).map(Choose::number_bytes).sum()
}

/// Transfers of gates [`And`] each way.
pub fn and_transfers(gates: &[And]) -> u64 {
    gates.iter().map(|gate| gate.lanes as u64).sum()
}

/// Transfers of gates [`Choose`].
pub fn choose_transfers(gates: &[Choose], chooser: Side) -> u64 {
    gates.iter().filter(|g| g.chooser == chooser).map(Choose::transfers).sum()
}

/// Frames of an exchange of so many bytes.
pub fn frames(to_server: u64, to_client: u64) -> u64 {
    to_server.max(to_client).div_ceil(CHUNK_BYTES)
}

impl Demand {
    fn exchange(&mut self, to_server: u64, to_client: u64) {
        self.client_to_server += to_server;
        self.server_to_client += to_client;
        self.frames += frames(to_server, to_client);
        self.rounds += 1;
    }

    fn add(&mut self, other: &Demand) {
        self.server_chooses += other.server_chooses;
        self.client_chooses += other.client_chooses;
        self.numbers += other.numbers;
        self.leaves += other.leaves;
        self.client_to_server += other.client_to_server;
        self.server_to_client += other.server_to_client;
        self.frames += other.frames;
        self.rounds += other.rounds;
    }
}

/// Counts.
#[derive(Default)]
struct Counter(Demand);

impl Engine for Counter {
    type Error = Infallible;

    fn side(&self) -> Side {
        Side::Server
    }

    fn and(&mut self, gates: &[And]) -> Result<Vec<Vec<Plane>>, Infallible> {
        let (bytes, transfers) = (and_bytes(gates), and_transfers(gates));
        self.0.exchange(bytes, bytes);
        self.0.server_chooses += transfers;
        self.0.client_chooses += transfers;
        let words = |gate: &And| 2 * (gate.lanes * gate.by.len().div_ceil(64)) as u64;
        self.0.numbers += gates.iter().map(words).sum::<u64>();
        Ok(gates.iter().map(|gate| vec![Plane::default(); gate.by.len()]).collect())
    }

    fn choose(&mut self, gates: &[Choose]) -> Result<Vec<Vec<u64>>, Infallible> {
        let of = |chooser| (choice_bytes(gates, chooser), number_bytes(gates, chooser));
        let ((client_choices, from_server), (server_choices, from_client)) =
            (of(Side::Client), of(Side::Server));
        self.0.exchange(client_choices, server_choices);
        self.0.exchange(from_client, from_server);
        self.0.server_chooses += choose_transfers(gates, Side::Server);
        self.0.client_chooses += choose_transfers(gates, Side::Client);
        for gate in gates {
            let numbers = (gate.lanes * gate.per) as u64;
            self.0.numbers += numbers;
            self.0.leaves += if gate.digit_bits > 1 { numbers << gate.digit_bits } else { 0 };
        }
        Ok(vec![Vec::new(); gates.len()])
    }
}

/// Instructions with fields that gates make, in groups that are made together.
pub fn segments(program: &ValidProgram) -> Vec<Vec<u32>> {
    let (mut all, mut segment, mut numbers) = (Vec::new(), Vec::new(), 0);
    for at in 0..program.len() {
        let size: usize = fields(program, at).iter().map(|field| field.len).sum();
        if size == 0 || !by_gates(program, at as u32) {
            continue;
        }
        if numbers + size > SEGMENT_NUMBERS && !segment.is_empty() {
            all.push(std::mem::take(&mut segment));
            numbers = 0;
        }
        segment.push(at as u32);
        numbers += size;
    }
    if !segment.is_empty() {
        all.push(segment);
    }
    all
}

/// What the fields of some instructions take.
pub fn demand(program: &ValidProgram, instructions: &[u32]) -> Demand {
    let mut counter = Counter::default();
    let Ok(()) = make(&mut counter, program, instructions, &|_| Vec::new(), &mut |_, _| Ok(()));
    counter.0
}

/// What all fields of a program take.
pub fn whole_demand(program: &ValidProgram) -> Demand {
    segments(program).iter().fold(Demand::default(), |mut sum, segment| {
        sum.add(&demand(program, segment));
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_has_as_many_frames_as_its_longer_half() {
        assert_eq!([frames(0, 0), frames(0, 1), frames(CHUNK_BYTES + 1, CHUNK_BYTES)], [0, 1, 2]);
    }
}
