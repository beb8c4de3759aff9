//! Openings and reveals: all of a round in one message each way.
//!
//! A message is the packed payloads of its instructions, in order, each from a whole byte on. A direction in which
//! nothing travels has no message. A long message is on its way while its later parts are made, and its parts are used
//! as they come.

use std::borrow::Cow;
use std::ops::Range;

use marill_kernels::pack::{pack, packed_len, unpack_to};
use marill_program::cost::message_bytes;
use marill_program::{Form, Instruction, Ring, Target};

use super::value::Value;
use super::{Executor, failed, not_held};
use crate::correlation::shares::Numbers;
use crate::error::{Misbehaviour, Role, RunError};
use crate::protocol::open;
use crate::sharing::reveal::{Reading, Revealed};
use crate::sharing::{Masked, MaskedBits, Party, Share};
use crate::transport::{Channel, FromPeer};

/// Rounds of fewer bytes are one call each way: they are gone before another thread would have begun.
const FLOWS_FROM_BYTES: usize = 1 << 18;

/// Numbers of a long message that are sent and taken at once: as many of any width are whole bytes.
const PIECE: usize = 1 << 16;

fn pieces(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(PIECE).map(move |start| start..len.min(start + PIECE))
}

/// One instruction of a round, between sending and receiving.
struct Pending {
    at: u32,
    /// What this party contributes to an opening of which it learns the result; empty where that is zeros.
    own: Vec<u64>,
    /// This party's mask of numbers, where later instructions need it.
    own_mask: Option<Vec<u64>>,
    /// Bits of each number that travels.
    width: u32,
    receives: bool,
}

/// Takes parts of this party's message.
type ToPeer<'a> = &'a mut dyn FnMut(Vec<u8>);

fn send_pieces(numbers: &[u64], width: u32, send: ToPeer<'_>) {
    for numbers in numbers.chunks(PIECE) {
        send_numbers(numbers, width, send);
    }
}

fn send_numbers(numbers: &[u64], width: u32, send: ToPeer<'_>) {
    let mut part = Vec::with_capacity(packed_len(numbers.len(), width));
    pack(numbers, width, &mut part);
    send(part);
}

/// The peer's numbers of one instruction.
struct Peers<'a> {
    at: u32,
    peer: Role,
    width: u32,
    receive: FromPeer<'a>,
    bytes: Vec<u8>,
    numbers: Vec<u64>,
}

impl Peers<'_> {
    /// The next `count` of them.
    fn next(&mut self, count: usize) -> Result<&[u64], RunError> {
        self.bytes.resize(packed_len(count, self.width), 0);
        (self.receive)(&mut self.bytes)?;
        unpack_to(&self.bytes, self.width, count, &mut self.numbers).ok_or_else(|| {
            RunError::PeerMisbehaved {
                peer: self.peer,
                reason: Misbehaviour::Malformed {
                    what: "opening",
                    found: format!("set padding bits at instruction {}", self.at),
                },
            }
        })?;
        Ok(&self.numbers)
    }
}

impl Executor<'_> {
    /// Runs the instructions `opens` together.
    pub(super) fn round(&mut self, opens: &[u32], peer: &mut Channel) -> Result<(), RunError> {
        peer.meter_mut().set_label(opens.first().copied().unwrap_or(0));
        let (sends, receives) = opens.iter().fold((0, 0), |(sends, receives), &at| {
            let (more, others) = self.message_bytes(at);
            (sends + more, receives + others)
        });
        let name = peer.peer();
        if sends + receives >= FLOWS_FROM_BYTES {
            peer.flow(sends, receives, |flow| {
                let pending = self.contribute_all(opens, &mut |part| flow.send(part))?;
                self.conclude_all(pending, name, &mut |part| flow.receive(part))
            })?;
            peer.end_round();
            return Ok(());
        }
        let mut payload = Vec::with_capacity(sends);
        let pending = self.contribute_all(opens, &mut |part| payload.extend(part))?;
        debug_assert_eq!(payload.len(), sends);
        let received = match (payload.is_empty(), receives) {
            (true, 0) => Vec::new(),
            (true, _) => peer.recv(receives)?,
            (false, 0) => {
                peer.send(&payload)?;
                Vec::new()
            }
            (false, _) => peer.exchange(&payload, receives)?,
        };
        peer.end_round();
        let mut rest = received.as_slice();
        self.conclude_all(pending, name, &mut |part| {
            let (taken, later) = rest.split_at(part.len());
            part.copy_from_slice(taken);
            rest = later;
            Ok(())
        })
    }

    /// What this party sends and receives of an instruction.
    fn message_bytes(&self, at: u32) -> (usize, usize) {
        let (to_server, to_client) = message_bytes(self.program, at as usize);
        match self.party {
            Party::Client => (to_server as usize, to_client as usize),
            Party::Server => (to_client as usize, to_server as usize),
        }
    }

    fn contribute_all(&mut self, opens: &[u32], send: ToPeer<'_>) -> Result<Vec<Pending>, RunError> {
        opens.iter().map(|&at| self.contribute(at, send)).collect()
    }

    /// Sends this party's part of an instruction's message.
    fn contribute(&mut self, at: u32, send: ToPeer<'_>) -> Result<Pending, RunError> {
        let (program, len) = (self.program, self.program.ty(at).len());
        let (sends_bytes, receives_bytes) = self.message_bytes(at);
        let (learns, teaches) = (self.learns(self.party, at), self.learns(self.party.peer(), at));
        let is_mask_needed = self.own_mask_needed[at as usize];
        let (mut own, mut own_mask, width) = (Vec::new(), None, self.message_width(at));
        match program.instruction(at as usize) {
            Instruction::Open(o) => {
                let share = self.summand(at, o.arg)?;
                let share = share.as_ref().map(|ring| ring.data.as_slice());
                let mask = teaches.then(|| self.correlations.mask(at, len, width));
                match (mask, share) {
                    // Only the peer learns the result, so nothing of it is kept.
                    (Some(mask), share) if !learns => {
                        let mut numbers = Numbers::default();
                        for range in pieces(len) {
                            mask.read(range.clone(), &mut numbers);
                            if let Some(share) = share {
                                open::add(&mut numbers, &share[range], width);
                            }
                            send_numbers(&numbers, width, send);
                        }
                        own_mask = is_mask_needed.then(|| mask.into_values());
                    }
                    (Some(mask), share) => {
                        own = mask.into_values();
                        own_mask = is_mask_needed.then(|| own.clone());
                        if let Some(share) = share {
                            open::add(&mut own, share, width);
                        }
                        send_pieces(&own, width, send);
                    }
                    (None, Some(share)) => own = share.to_vec(),
                    (None, None) => {}
                }
            }
            Instruction::OpenBits(o) => {
                own = self.correlations.mask(at, len, width).into_values();
                open::add_bits(&mut own, &self.bit_share(at, o.arg)?.words().data, width);
                send_pieces(&own, width, send);
            }
            Instruction::Reveal(r) => {
                if sends_bytes > 0 {
                    send_pieces(&self.revealed(at, r.arg)?.data, width, send);
                }
            }
            _ => return Err(not_held(at, "an opening")),
        }
        Ok(Pending { at, own, own_mask, width, receives: receives_bytes > 0 })
    }

    /// Bits of each number of an opening that travels.
    fn message_width(&self, at: u32) -> u32 {
        match self.program.instruction(at as usize) {
            Instruction::Open(o) => o.width,
            Instruction::OpenBits(o) => o.width,
            Instruction::Reveal(r) => self.width(r.arg),
            _ => 64,
        }
    }

    fn conclude_all(
        &mut self,
        pending: Vec<Pending>,
        peer: Role,
        receive: FromPeer<'_>,
    ) -> Result<(), RunError> {
        for one in pending {
            let at = one.at as usize;
            self.values[at] = Some(self.conclude(one, peer, receive)?);
        }
        Ok(())
    }

    /// Takes the peer's part of an instruction's message.
    fn conclude(&self, p: Pending, peer: Role, receive: FromPeer<'_>) -> Result<Value, RunError> {
        let Pending { at, own: mut sum, own_mask, width, receives } = p;
        let (shape, len) = (&self.program.ty(at).shape, self.program.ty(at).len());
        let learns = self.learns(self.party, at);
        let mut peers = Peers { at, peer, width, receive, bytes: Vec::new(), numbers: Vec::new() };
        match self.program.instruction(at as usize) {
            Instruction::Open(_) => {
                if receives && sum.is_empty() {
                    sum.reserve_exact(len);
                    for range in pieces(len) {
                        sum.extend_from_slice(peers.next(range.len())?);
                    }
                } else if receives {
                    for range in pieces(len) {
                        open::add(&mut sum[range.clone()], peers.next(range.len())?, width);
                    }
                }
                Ok(Value::Masked(Masked {
                    opened: learns.then(|| Ring::new(shape.clone(), sum)),
                    mask: own_mask.map(|data| Share::new(Ring::new(shape.clone(), data))),
                }))
            }
            Instruction::OpenBits(_) => {
                for range in pieces(len) {
                    open::add_bits(&mut sum[range.clone()], peers.next(range.len())?, width);
                }
                Ok(Value::MaskedBits(MaskedBits { opened: Ring::new(shape.clone(), sum) }))
            }
            Instruction::Reveal(r) if learns => {
                let frac = self.program.ty(r.arg).frac().unwrap_or(0);
                let mut revealed = Revealed::new(Reading { width, frac, integer: r.integer }, len);
                let own = self.revealed(at, r.arg)?;
                for range in pieces(len) {
                    let peers = if receives { Some(peers.next(range.len())?) } else { None };
                    revealed.extend(&own.data[range], peers);
                }
                revealed.tensor(shape).map(Value::Plain).map_err(failed(at))
            }
            _ => Ok(Value::Absent),
        }
    }

    /// Whether a party receives the result of an opening or reveal.
    fn learns(&self, party: Party, at: u32) -> bool {
        let to = match (self.program.ty(at).form, self.program.instruction(at as usize)) {
            (Form::Masked { to, .. }, _) => to,
            (_, Instruction::Reveal(r)) => Target::try_from(r.to).unwrap_or(Target::Both),
            _ => Target::Both,
        };
        match party {
            Party::Client => to.includes_client(),
            Party::Server => to.includes_server(),
        }
    }

    /// This party's share of what is revealed; a value that it knows counts whole.
    fn revealed(&self, at: u32, value: u32) -> Result<Cow<'_, Ring>, RunError> {
        match self.known(value)? {
            Some(known) => Ok(known),
            None => {
                let zeros = || Cow::Owned(Ring::zeros(&self.program.ty(value).shape));
                Ok(self.summand(at, value)?.unwrap_or_else(zeros))
            }
        }
    }
}
