//! Openings and reveals: all of a round in one message each way.
//!
//! A message is the packed payloads of its instructions, in order, each from a whole byte on. A direction in which
//! nothing travels has no message. A long message is on its way while its later parts are made, and its parts are used
//! as they come.

use std::borrow::Cow;

use marill_kernels::pack::{pack, packed_len, unpack};
use marill_program::cost::message_bytes;
use marill_program::fixed::mask;
use marill_program::{Form, Instruction, Ring, Target};

use super::value::Value;
use super::{Executor, failed, not_held};
use crate::error::{Misbehaviour, Role, RunError};
use crate::protocol::open;
use crate::sharing::reveal::{Reading, reveal};
use crate::sharing::{BitShare, Masked, MaskedBits, Party, Share};
use crate::transport::Channel;

/// Rounds of fewer bytes are one call each way: they are gone before another thread would have begun.
const FLOWS_FROM_BYTES: usize = 1 << 18;

/// One instruction of a round, between sending and receiving.
struct Pending {
    at: u32,
    /// What this party contributes.
    own: Vec<u64>,
    /// This party's mask, for openings to which it adds one.
    own_mask: Option<Vec<u64>>,
    /// Bits of each number that travels.
    width: u32,
    sends_bytes: usize,
    receives_bytes: usize,
}

impl Pending {
    /// This party's part of the message.
    fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.sends_bytes);
        if self.sends_bytes > 0 {
            pack(&self.own, self.width, &mut payload);
        }
        payload
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
        if sends > 0 && receives > 0 && sends + receives >= FLOWS_FROM_BYTES {
            let name = peer.peer();
            peer.flow(sends, receives, |flow| {
                let mut pending = Vec::with_capacity(opens.len());
                for &at in opens {
                    let one = self.contribute(at)?;
                    flow.send(one.payload());
                    pending.push(one);
                }
                pending.into_iter().try_for_each(|one| {
                    let bytes = flow.receive(one.receives_bytes)?;
                    self.conclude(one, &bytes, name)
                })
            })?;
            peer.end_round();
            return Ok(());
        }
        let mut pending = Vec::with_capacity(opens.len());
        for &at in opens {
            pending.push(self.contribute(at)?);
        }
        let payload = pending.iter().map(Pending::payload).collect::<Vec<_>>().concat();
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
        for one in pending {
            let (bytes, later) = rest.split_at(one.receives_bytes);
            rest = later;
            self.conclude(one, bytes, peer.peer())?;
        }
        Ok(())
    }

    /// What this party sends and receives of an instruction.
    fn message_bytes(&self, at: u32) -> (usize, usize) {
        let (to_server, to_client) = message_bytes(self.program, at as usize);
        match self.party {
            Party::Client => (to_server as usize, to_client as usize),
            Party::Server => (to_client as usize, to_server as usize),
        }
    }

    /// Takes the peer's part of an instruction's message.
    fn conclude(&mut self, p: Pending, bytes: &[u8], peer: Role) -> Result<(), RunError> {
        let peers = match p.receives_bytes {
            0 => None,
            _ => Some(unpack(bytes, p.width, p.own.len()).ok_or_else(|| RunError::PeerMisbehaved {
                peer,
                reason: Misbehaviour::Malformed {
                    what: "opening",
                    found: format!("set padding bits at instruction {}", p.at),
                },
            })?),
        };
        let at = p.at as usize;
        let value = self.finish(p, peers)?;
        self.values[at] = Some(value);
        Ok(())
    }

    fn contribute(&mut self, at: u32) -> Result<Pending, RunError> {
        let (program, party) = (self.program, self.party);
        let (len, to) = (program.ty(at).len(), self.target(at));
        let (sends_bytes, receives_bytes) = self.message_bytes(at);
        let peer_receives = match party {
            Party::Client => to.includes_server(),
            Party::Server => to.includes_client(),
        };
        let (own, own_mask, width) = match program.instruction(at as usize) {
            Instruction::Open(o) => {
                let own_mask = peer_receives.then(|| self.correlations.mask(at, len, o.width));
                let share = self.share(at, o.arg)?;
                (open::contribution(&share, own_mask.as_deref(), o.width), own_mask, o.width)
            }
            Instruction::OpenBits(o) => {
                let own_mask = self.correlations.mask(at, len, o.width);
                let own = open::bits_contribution(self.bit_share(at, o.arg)?, &own_mask, o.width);
                (own, Some(own_mask), o.width)
            }
            Instruction::Reveal(r) => {
                let width = self.width(r.arg);
                let own = self.revealed(at, r.arg)?.ring().data.iter().map(|v| v & mask(width)).collect();
                (own, None, width)
            }
            _ => return Err(not_held(at, "an opening")),
        };
        debug_assert!([0, packed_len(len, width)].contains(&sends_bytes));
        Ok(Pending { at, own, own_mask, width, sends_bytes, receives_bytes })
    }

    /// Who receives the result of an opening or reveal.
    fn target(&self, at: u32) -> Target {
        match (self.program.ty(at).form, self.program.instruction(at as usize)) {
            (Form::Masked { to, .. }, _) => to,
            (_, Instruction::Reveal(r)) => Target::try_from(r.to).unwrap_or(Target::Both),
            _ => Target::Both,
        }
    }

    /// This party's share of what is revealed; a value that it knows counts whole.
    fn revealed(&self, at: u32, value: u32) -> Result<Cow<'_, Share>, RunError> {
        match self.known(value)? {
            Some(known) => Ok(Cow::Owned(Share::new(known.into_owned()))),
            None => self.share(at, value),
        }
    }

    fn finish(&self, p: Pending, peers: Option<Vec<u64>>) -> Result<Value, RunError> {
        let (at, shape) = (p.at, &self.program.ty(p.at).shape);
        let to = self.target(at);
        let mine = match self.party {
            Party::Client => to.includes_client(),
            Party::Server => to.includes_server(),
        };
        let nothing = Vec::new();
        match self.program.instruction(at as usize) {
            Instruction::Open(_) => Ok(Value::Masked(Masked {
                opened: mine.then(|| open::open(shape, &p.own, peers.as_ref().unwrap_or(&nothing), p.width)),
                mask: p.own_mask.map(|data| Share::new(Ring::new(shape.clone(), data))),
            })),
            Instruction::OpenBits(_) => Ok(Value::MaskedBits(MaskedBits {
                opened: open::open_bits(shape, &p.own, peers.as_ref().unwrap_or(&nothing)),
                mask: BitShare::new(Ring::new(shape.clone(), p.own_mask.unwrap_or_default())),
            })),
            Instruction::Reveal(r) if mine => {
                let frac = self.program.ty(r.arg).frac().unwrap_or(0);
                let reading = Reading { width: p.width, frac, integer: r.integer };
                let own = Share::new(Ring::new(shape.clone(), p.own));
                reveal(&own, peers.as_deref(), reading).map(Value::Plain).map_err(failed(at))
            }
            _ => Ok(Value::Absent),
        }
    }
}
