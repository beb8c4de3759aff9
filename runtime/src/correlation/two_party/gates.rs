//! Functionality: [`And`], shared bits times shared strings of bits; [`Choose`], one party's bits or digits times the
//! other's numbers, as additive shares; both exactly. Digits of more than a bit are in [`super::digits`].
//! Consumes: for each lane of an [`And`] one random correlated transfer each way, for each bit of each lane of a
//! [`Choose`] one in which the chooser receives.
//! Bytes, for n lanes: [`And`] with strings of L bits: `(1 + L) ceil(n / 8)` each way, in one round. [`Choose`] of a
//! bit and `per` numbers of w bits: `ceil(n / 8)` from the chooser, then `ceil(n per w / 8)` from the other party. Gates of one
//! call share two rounds.
//! Simulator: a party receives bits under a random bit of a triple that the other party holds, or choices under the
//! random choice of a transfer, or numbers under the hash of the key that it does not have. Each is uniform to it, and
//! a simulator draws it.
//! Fails: never.
//! Reference: Beaver (STOC 1995), random transfers; Beaver (CRYPTO 1991), triples; Gilboa (CRYPTO 1999), products;
//! Asharov, Lindell, Schneider, Zohner (CCS 2013), correlated transfers with additive offsets.

use marill_kernels::blocks::{Block, expand_many};
use marill_kernels::pack::{pack, packed_len, unpack};
use marill_program::cost::CHUNK_BYTES;
use marill_program::fixed::mask;
use marill_program::two_party::count;
use marill_program::two_party::gates::{And, Choose, Engine, Side};
use marill_program::two_party::planes::{Plane, planes_of};

use super::digits;
use super::keys::Transfers;
use super::ot::{Receiver, Sender};
use crate::error::{Misbehaviour, RunError};
use crate::transport::Channel;

/// One party's end of all gates of a run.
pub struct Gates<'c> {
    channel: &'c mut Channel,
    side: Side,
    sender: Sender,
    receiver: Receiver,
    /// Transfers used so far in either role: every hash has a number of its own.
    sent: u64,
    received: u64,
}

impl<'c> Gates<'c> {
    /// Over a channel on which the transfers were set up.
    pub fn new(channel: &'c mut Channel, side: Side, transfers: Transfers) -> Gates<'c> {
        let Transfers { sender, receiver } = transfers;
        Gates { channel, side, sender, receiver, sent: 0, received: 0 }
    }

    /// The channel, between calls.
    pub fn channel(&mut self) -> &mut Channel {
        self.channel
    }

    /// Keys of `count` transfers in which the peer chooses, and tags of as many in which this party does.
    fn transfers(&mut self, count: usize) -> Result<(Vec<Block>, Vec<Block>), RunError> {
        Ok(match self.side {
            Side::Client => {
                let keys = self.sender.extend(self.channel, count)?;
                (keys, self.receiver.extend(self.channel, count)?)
            }
            Side::Server => {
                let tags = self.receiver.extend(self.channel, count)?;
                (self.sender.extend(self.channel, count)?, tags)
            }
        })
    }

    /// Numbers of the next `count` hashes of either role.
    fn numbered(counter: &mut u64, count: usize) -> u64 {
        let first = *counter;
        *counter += count as u64;
        first
    }

    /// Sends bytes while the peer sends its own, both in as many frames as the longer takes.
    fn exchange(&mut self, own: &[u8], peers: usize) -> Result<Vec<u8>, RunError> {
        let limit = CHUNK_BYTES as usize;
        let mut received = vec![0; peers];
        for frame in 0..count::frames(own.len() as u64, peers as u64) as usize {
            let part = |length: usize| (frame * limit).min(length)..((frame + 1) * limit).min(length);
            self.channel.exchange_into(&own[part(own.len())], &mut received[part(peers)])?;
        }
        self.channel.end_round();
        Ok(received)
    }

    fn malformed(&self, what: &'static str) -> RunError {
        let reason = Misbehaviour::Malformed { what, found: "padding bits that are set".into() };
        RunError::PeerMisbehaved { peer: self.channel.peer(), reason }
    }
}

/// A plane as bytes: lane `i` is bit `i % 8` of byte `i / 8`.
fn write_plane(plane: &Plane, lanes: usize, out: &mut Vec<u8>) {
    let bytes = lanes.div_ceil(8);
    (0..bytes.div_ceil(8)).for_each(|w| {
        out.extend_from_slice(&plane.word(w).to_le_bytes()[..(bytes - 8 * w).min(8)]);
    });
}

/// The next plane of some bytes; `None` where padding is set or bytes are missing.
fn read_plane(bytes: &mut &[u8], lanes: usize) -> Option<Plane> {
    let (own, rest) = bytes.split_at_checked(lanes.div_ceil(8))?;
    *bytes = rest;
    let (whole, last) = own.as_chunks::<8>();
    let mut words: Vec<u64> = whole.iter().map(|part| u64::from_le_bytes(*part)).collect();
    if !last.is_empty() {
        words.push(last.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    let last = words.last().copied();
    let plane = Plane::new(words, lanes);
    (plane.words().last().copied() == last).then_some(plane)
}

fn choices(tags: &[Block]) -> Plane {
    let low: Vec<u64> = tags.iter().map(|tag| *tag as u64).collect();
    planes_of(&low, 0, 1).pop().unwrap_or_default()
}

/// Strings of `bits` bits, `words` for each lane, as planes.
fn string_planes(strings: &[u64], words: usize, bits: usize) -> Vec<Plane> {
    let column = |w: usize| strings.iter().skip(w).step_by(words).copied().collect::<Vec<u64>>();
    (0..words).flat_map(|w| planes_of(&column(w), 0, (bits - 64 * w).min(64))).collect()
}

fn and_planes(a: &Plane, b: &Plane, lanes: usize) -> Plane {
    Plane::new((0..lanes.div_ceil(64)).map(|w| a.word(w) & b.word(w)).collect(), lanes)
}

/// A random shared bit times a random shared string, of one gate.
struct Triple {
    bit: Plane,
    string: Vec<Plane>,
    product: Vec<Plane>,
}

impl Engine for Gates<'_> {
    type Error = RunError;

    fn side(&self) -> Side {
        self.side
    }

    fn and(&mut self, gates: &[And]) -> Result<Vec<Vec<Plane>>, RunError> {
        let total = count::and_transfers(gates) as usize;
        let (keys, tags) = self.transfers(total)?;
        let delta = self.sender.delta();
        let (mut triples, mut at) = (Vec::with_capacity(gates.len()), 0);
        let mut own = Vec::with_capacity(count::and_bytes(gates) as usize);
        for gate in gates {
            let (lanes, bits) = (gate.lanes, gate.by.len());
            let words = bits.div_ceil(64);
            let range = at..at + lanes;
            at += lanes;
            let other: Vec<Block> = keys[range.clone()].iter().map(|key| key ^ delta).collect();
            let [mut zero, mut one, mut chosen] = [0; 3].map(|_| vec![0; lanes * words]);
            let number = Self::numbered(&mut self.sent, lanes);
            expand_many(number, &keys[range.clone()], words, &mut zero);
            expand_many(number, &other, words, &mut one);
            let number = Self::numbered(&mut self.received, lanes);
            expand_many(number, &tags[range.clone()], words, &mut chosen);
            one.iter_mut().zip(&zero).for_each(|(one, zero)| *one ^= zero);
            chosen.iter_mut().zip(&zero).for_each(|(chosen, zero)| *chosen ^= zero);
            let bit = choices(&tags[range]);
            let string = string_planes(&one, words, bits);
            let mut product = string_planes(&chosen, words, bits);
            for (product, string) in product.iter_mut().zip(&string) {
                product.xor_in(&and_planes(&bit, string, lanes));
            }
            write_plane(&gate.bit.xor(&bit), lanes, &mut own);
            gate.by
                .iter()
                .zip(&string)
                .for_each(|(by, string)| write_plane(&by.xor(string), lanes, &mut own));
            triples.push(Triple { bit, string, product });
        }
        let peers = self.exchange(&own, count::and_bytes(gates) as usize)?;
        let (mut own, mut peers) = (&own[..], &peers[..]);
        let mut results = Vec::with_capacity(gates.len());
        for (gate, triple) in gates.iter().zip(triples) {
            let lanes = gate.lanes;
            let mut opened = || -> Option<Plane> {
                Some(read_plane(&mut own, lanes)?.xor(&read_plane(&mut peers, lanes)?))
            };
            let bit = opened().ok_or_else(|| self.malformed("opening of bits"))?;
            let mut result = Vec::with_capacity(gate.by.len());
            for (string, mut product) in triple.string.iter().zip(triple.product) {
                // (d + a)(e + b) = d e + d b + e a + a b, with d and e opened and the triple a, b, a b.
                let e = opened().ok_or_else(|| self.malformed("opening of bits"))?;
                product.xor_in(&and_planes(&bit, string, lanes));
                product.xor_in(&and_planes(&e, &triple.bit, lanes));
                if self.side == Side::Client {
                    product.xor_in(&and_planes(&bit, &e, lanes));
                }
                result.push(product);
            }
            results.push(result);
        }
        Ok(results)
    }

    fn choose(&mut self, gates: &[Choose]) -> Result<Vec<Vec<u64>>, RunError> {
        let (me, peer) = (self.side, self.side.other());
        let (mut offers, mut chosen) = (Vec::new(), Vec::new());
        let mut corrections = Vec::with_capacity(count::choice_bytes(gates, me) as usize);
        // The client's keys come before its tags, as the server's tags before its keys.
        if me == Side::Client {
            offers = self.keys(gates)?;
        }
        for gate in gates.iter().filter(|gate| gate.chooser == me) {
            chosen.push(self.begin_choosing(gate, &mut corrections)?);
        }
        if me == Side::Server {
            offers = self.keys(gates)?;
        }
        let corrected = self.exchange(&corrections, count::choice_bytes(gates, peer) as usize)?;
        drop(corrections);

        let (mut corrected, mut offers) = (&corrected[..], offers.into_iter());
        let mut message = Vec::with_capacity(count::number_bytes(gates, peer) as usize);
        let mut results = vec![Vec::new(); gates.len()];
        for (gate, result) in gates.iter().zip(&mut results).filter(|(gate, _)| gate.chooser == peer) {
            let flips: Option<Vec<Plane>> =
                (0..gate.digit_bits).map(|_| read_plane(&mut corrected, gate.lanes)).collect();
            let mut flips = flips.ok_or_else(|| self.malformed("choices"))?;
            flips.reverse();
            let keys = offers.next().unwrap_or_default();
            *result = match &flips[..] {
                [flips] => self.offer_bits(gate, keys, flips, &mut message),
                _ => self.offer_digits(gate, &keys, &flips, &mut message),
            };
        }
        let received = self.exchange(&message, count::number_bytes(gates, me) as usize)?;
        drop(message);
        let (mut received, mut chosen) = (&received[..], chosen.into_iter());
        for (gate, result) in gates.iter().zip(&mut results).filter(|(gate, _)| gate.chooser == me) {
            let (own, others) = received.split_at((gate.number_bytes() as usize).min(received.len()));
            received = others;
            let numbers = packed_len(gate.lanes * gate.per, gate.width);
            let (trees, offsets) = own.split_at(own.len().saturating_sub(numbers));
            let offsets = unpack(offsets, gate.width, gate.lanes * gate.per)
                .ok_or_else(|| self.malformed("numbers"))?;
            *result = match chosen.next() {
                Some(Chosen::Bits(values)) => choose_bits(gate, values, &offsets),
                Some(Chosen::Digits { number, tags }) => {
                    let trees =
                        trees.as_chunks().0.iter().map(|bytes| Block::from_le_bytes(*bytes)).collect();
                    digits::choose(gate, number, &tags, trees, &offsets)
                }
                None => Vec::new(),
            };
        }
        Ok(results)
    }
}

/// What the chooser keeps of a gate until the other party's numbers come.
enum Chosen {
    /// The hashes of its tags.
    Bits(Vec<u64>),
    /// Its tags, and the first one's hash's number.
    Digits { number: u64, tags: Vec<Block> },
}

/// One end of a gate [`Choose`].
impl Gates<'_> {
    /// The other party's keys, by gate: each gate's are let go as it is made.
    fn keys(&mut self, gates: &[Choose]) -> Result<Vec<Vec<Block>>, RunError> {
        let gates = gates.iter().filter(|gate| gate.chooser != self.side);
        gates.map(|gate| self.sender.extend(self.channel, gate.transfers() as usize)).collect()
    }

    /// The chooser's first step: appends its corrections.
    fn begin_choosing(&mut self, gate: &Choose, corrections: &mut Vec<u8>) -> Result<Chosen, RunError> {
        let tags = self.receiver.extend(self.channel, gate.transfers() as usize)?;
        // A tree's first level is the digit's highest bit.
        for (level, bit) in (0..gate.digit_bits as usize).rev().enumerate() {
            let mut choice = choices(&tags[level * gate.lanes..][..gate.lanes]);
            choice.xor_in(gate.choices.get(bit).unwrap_or(&Plane::default()));
            write_plane(&choice, gate.lanes, corrections);
        }
        if gate.digit_bits > 1 {
            let number = Self::numbered(&mut self.received, gate.lanes << gate.digit_bits);
            return Ok(Chosen::Digits { number, tags });
        }
        let number = Self::numbered(&mut self.received, gate.lanes);
        let mut values = vec![0; gate.lanes * gate.per];
        expand_many(number, &tags, gate.per, &mut values);
        Ok(Chosen::Bits(values))
    }

    /// The other party's end of bits: appends its offsets and returns its shares.
    fn offer_bits(
        &mut self,
        gate: &Choose,
        mut keys: Vec<Block>,
        flips: &Plane,
        message: &mut Vec<u8>,
    ) -> Vec<u64> {
        let delta = self.sender.delta();
        let flip = |lane| delta & Block::from(flips.bit(lane)).wrapping_neg();
        keys.iter_mut().enumerate().for_each(|(lane, key)| *key ^= flip(lane));
        let number = Self::numbered(&mut self.sent, gate.lanes);
        let [mut zero, mut one] = [0; 2].map(|_| vec![0; gate.lanes * gate.per]);
        expand_many(number, &keys, gate.per, &mut zero);
        keys.iter_mut().for_each(|key| *key ^= delta);
        expand_many(number, &keys, gate.per, &mut one);
        drop(keys);
        let offsets = one.iter_mut().zip(&zero).zip(known(gate));
        offsets.for_each(|((one, zero), v)| *one = zero.wrapping_add(v).wrapping_sub(*one));
        pack(&one, gate.width, message);
        zero.iter_mut().for_each(|zero| *zero = zero.wrapping_neg());
        zero
    }

    /// The other party's end of digits.
    fn offer_digits(
        &mut self,
        gate: &Choose,
        keys: &[Block],
        flips: &[Plane],
        message: &mut Vec<u8>,
    ) -> Vec<u64> {
        let number = Self::numbered(&mut self.sent, gate.lanes << gate.digit_bits);
        let digits::Offer { trees, mut hiding, shares } =
            digits::offer(gate, number, self.sender.delta(), keys, flips);
        trees.iter().for_each(|tree| message.extend_from_slice(&tree.to_le_bytes()));
        hiding.iter_mut().zip(known(gate)).for_each(|(u, v)| *u = v.wrapping_sub(*u));
        pack(&hiding, gate.width, message);
        shares
    }
}

/// The chooser's end of bits: its shares, of the hashes of its tags.
fn choose_bits(gate: &Choose, mut values: Vec<u64>, offsets: &[u64]) -> Vec<u64> {
    let choices = gate.choices.first().cloned().unwrap_or_default();
    for (lane, offsets) in offsets.chunks(gate.per.max(1)).enumerate() {
        let chosen = choices.bit(lane).wrapping_neg() & mask(gate.width);
        let values = &mut values[lane * gate.per..][..offsets.len()];
        values.iter_mut().zip(offsets).for_each(|(v, o)| *v = v.wrapping_add(o & chosen));
    }
    values
}

/// The other party's numbers; zeros where it has none.
fn known(gate: &Choose) -> impl Iterator<Item = u64> {
    gate.numbers.iter().copied().chain(std::iter::repeat(0))
}
