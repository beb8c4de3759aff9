//! Functionality: [`Sender`] `delta`, `K_i`; [`Receiver`] `T_i = K_i ^ b_i delta` with random bits `b_i`: random
//! correlated oblivious transfers (COTs) of 128-bit blocks. `b_i` is the lowest bit of `T_i`; that of `K_i` is 0.
//! Requires: both set up seeds and begin the same session with the same total, then `extend` with the same counts; one
//! protocol at a time.
//! Consumes: nothing; base transfers by public-key operations, [`base`].
//! Bytes, messages and flows: [`marill_program::two_party::ot::traffic`]; 3.9 bytes for each COT of a short run, about
//! 0.1 for each of a long one. Rounds: setup one each way; then none, one message run from the receiver, or that and
//! one from the sender, by the plan.
//! Sessions: seeds serve any number; each expands its own, derived by BLAKE3 from the kept ones and the session's name,
//! which never comes twice. All sessions share `delta`; their keys are independent of each other.
//! Mechanisms: up to 2^17 COTs by SoftSpoken ([`soft_spoken`]); more by silent expansion ([`silent`]) of some that
//! SoftSpoken made, each iteration keeping what the next one consumes.
//! Fails: never. Security: semi-honest, computational, 127 bits of `delta`; see the mechanisms' headers.
//! Reference: the mechanisms'.

mod base;
mod silent;
mod soft_spoken;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use marill_kernels::vole::FIELD;
use marill_kernels::{Prg, blocks};
use marill_program::two_party::effort::Link;
use marill_program::two_party::ot::{self as parameters, Step};
use zeroize::{Zeroize, Zeroizing};

use super::super::fresh_seed;
use crate::error::RunError;
use crate::transport::Channel;

/// A key, or the difference of two.
pub type Block = blocks::Block;

/// The name of a session.
pub type Session = [u8; 32];

const SESSION_CONTEXT: &str = "marill 2026 seeds of a session of transfers";

/// What base transfers leave to a sender. Wiped on drop.
pub struct SenderSeeds {
    delta: Zeroizing<Block>,
    seeds: Seeds,
}

/// What base transfers leave to a receiver. Wiped on drop.
pub struct ReceiverSeeds {
    seeds: Seeds,
}

/// Of all fields of SoftSpoken's punctured functions.
type Seeds = Zeroizing<Vec<Block>>;

/// Bytes of the seeds of all fields.
const SEEDS_BYTES: usize = soft_spoken::SEEDS * size_of::<Block>();

impl SenderSeeds {
    /// Bytes that it is kept in.
    pub const BYTES: usize = size_of::<Block>() + SEEDS_BYTES;

    /// Base transfers with a fresh `delta`.
    ///
    /// # Errors
    /// `Transport`; `PeerMisbehaved`; `File` if the system has no randomness.
    pub fn setup(channel: &mut Channel) -> Result<SenderSeeds, RunError> {
        let mut prg = Prg::new(fresh_seed()?, 0);
        let delta = Zeroizing::new(random_block(&mut prg) | 1);
        let seeds = soft_spoken::punctured(channel, *delta, &mut prg)?;
        Ok(SenderSeeds { delta, seeds })
    }

    /// Appends [`SenderSeeds::BYTES`] bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        put(&[*self.delta], out);
        put(&self.seeds, out);
    }

    /// What [`SenderSeeds::write`] wrote.
    pub fn read(bytes: &[u8; SenderSeeds::BYTES]) -> SenderSeeds {
        let mut seeds = read_blocks(bytes);
        SenderSeeds { delta: Zeroizing::new(seeds.remove(0) | 1), seeds }
    }
}

impl ReceiverSeeds {
    /// Bytes that it is kept in.
    pub const BYTES: usize = SEEDS_BYTES;

    /// Base transfers.
    ///
    /// # Errors
    /// As [`SenderSeeds::setup`].
    pub fn setup(channel: &mut Channel) -> Result<ReceiverSeeds, RunError> {
        let seeds = soft_spoken::whole(channel, &mut Prg::new(fresh_seed()?, 0))?;
        Ok(ReceiverSeeds { seeds })
    }

    /// Appends [`ReceiverSeeds::BYTES`] bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        put(&self.seeds, out);
    }

    /// What [`ReceiverSeeds::write`] wrote.
    pub fn read(bytes: &[u8; ReceiverSeeds::BYTES]) -> ReceiverSeeds {
        ReceiverSeeds { seeds: read_blocks(bytes) }
    }
}

fn read_blocks(bytes: &[u8]) -> Seeds {
    Zeroizing::new(blocks_of(bytes).collect())
}

/// The seeds that `session` expands. Those that a sender lacks, one of each field, stay 0.
fn session_seeds(seeds: &[Block], session: &Session) -> Seeds {
    let derive = |(place, seed): (usize, &Block)| {
        let mut hasher = blake3::Hasher::new_derive_key(SESSION_CONTEXT);
        hasher.update(&*Zeroizing::new(seed.to_le_bytes())).update(session);
        let mut bytes = Zeroizing::new([0; 16]);
        hasher.finalize_xof().fill(&mut *bytes);
        if place.is_multiple_of(FIELD) && *seed == 0 { 0 } else { Block::from_le_bytes(*bytes) }
    };
    Zeroizing::new(seeds.iter().enumerate().map(derive).collect())
}

/// The party that holds both keys of each COT: `K_i` and `K_i ^ delta`. Its secrets are wiped on drop.
pub struct Sender {
    delta: Zeroizing<Block>,
    prg: Prg,
    soft_spoken: soft_spoken::Sender,
    stock: Stock,
}

/// The party that holds one key of each COT, `T_i`, and its choice `b_i`, the key's lowest bit. Its secrets are wiped
/// on drop.
pub struct Receiver {
    soft_spoken: soft_spoken::Receiver,
    stock: Stock,
}

impl Sender {
    /// Begins a session in which `total` COTs can be drawn, planned for `link`.
    ///
    /// # Errors
    /// `File` if the system has no randomness.
    pub fn new(kept: &SenderSeeds, session: &Session, total: usize, link: Link) -> Result<Sender, RunError> {
        let delta = kept.delta.clone();
        let soft_spoken = soft_spoken::Sender::new(*delta, &session_seeds(&kept.seeds, session));
        Ok(Sender { delta, prg: Prg::new(fresh_seed()?, 0), soft_spoken, stock: Stock::new(total, link) })
    }

    /// The difference of the two keys of every COT. Its lowest bit is 1.
    pub fn delta(&self) -> Block {
        *self.delta
    }

    /// `count` fresh keys `K_i`. Beyond the session's total, SoftSpoken makes them.
    ///
    /// # Errors
    /// As [`SenderSeeds::setup`].
    pub fn extend(&mut self, channel: &mut Channel, count: usize) -> Result<Vec<Block>, RunError> {
        let Sender { delta, prg, soft_spoken, stock } = self;
        stock.draw(count, |step, consumed, keys| match step {
            Step::SoftSpoken(count) => soft_spoken.extend(channel, count, keys),
            Step::Silent(set) => silent::send(channel, **delta, prg, &set, consumed, keys),
        })
    }
}

impl Receiver {
    /// As [`Sender::new`].
    pub fn new(kept: &ReceiverSeeds, session: &Session, total: usize, link: Link) -> Receiver {
        let soft_spoken = soft_spoken::Receiver::new(&session_seeds(&kept.seeds, session));
        Receiver { soft_spoken, stock: Stock::new(total, link) }
    }

    /// `count` fresh keys `T_i`.
    ///
    /// # Errors
    /// As [`Sender::extend`].
    pub fn extend(&mut self, channel: &mut Channel, count: usize) -> Result<Vec<Block>, RunError> {
        let Receiver { soft_spoken, stock } = self;
        stock.draw(count, |step, consumed, keys| match step {
            Step::SoftSpoken(count) => soft_spoken.extend(channel, count, keys),
            Step::Silent(set) => silent::receive(channel, &set, consumed, keys),
        })
    }
}

/// COTs that were made and not yet handed out, and the steps that will make more. All of the memory is wiped on drop,
/// where some was handed out too.
struct Stock {
    blocks: Vec<Block>,
    steps: VecDeque<Step>,
}

impl Stock {
    fn new(total: usize, link: Link) -> Stock {
        let steps = parameters::plan(total, link);
        let most = steps.iter().map(Step::outputs).max().unwrap_or(0);
        Stock { blocks: Vec::with_capacity(most), steps: steps.into() }
    }

    /// What the next step consumes.
    fn reserved(&self) -> usize {
        match self.steps.front() {
            Some(Step::Silent(set)) => set.consumes(),
            Some(Step::SoftSpoken(_)) | None => 0,
        }
    }

    /// Hands out `count` blocks. `make` runs one step on the blocks that it consumes and appends what it makes.
    fn draw(
        &mut self,
        count: usize,
        mut make: impl FnMut(Step, &[Block], &mut Vec<Block>) -> Result<(), RunError>,
    ) -> Result<Vec<Block>, RunError> {
        let mut drawn = Vec::with_capacity(count);
        loop {
            let spare = self.blocks.len().saturating_sub(self.reserved());
            let kept = self.blocks.len() - spare.min(count - drawn.len());
            drawn.extend_from_slice(&self.blocks[kept..]);
            self.blocks.truncate(kept);
            if drawn.len() == count {
                return Ok(drawn);
            }
            // What is left now is what the step consumes, or nothing.
            let consumed = Zeroizing::new(self.blocks.clone());
            self.blocks.clear();
            let step = self.steps.pop_front().unwrap_or(Step::SoftSpoken(count - drawn.len()));
            make(step, &consumed, &mut self.blocks)?;
        }
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.blocks.zeroize();
    }
}

/// The next 16 bytes of `prg`.
fn random_block(prg: &mut Prg) -> Block {
    let mut bytes = Zeroizing::new([0; 16]);
    prg.fill(&mut *bytes);
    Block::from_le_bytes(*bytes)
}

/// Appends `blocks` in their order of bytes on the wire.
fn put(blocks: &[Block], message: &mut Vec<u8>) {
    blocks.iter().for_each(|block| message.extend_from_slice(&block.to_le_bytes()));
}

/// The whole blocks of `message`.
fn blocks_of(message: &[u8]) -> impl Iterator<Item = Block> {
    message.as_chunks().0.iter().map(|bytes| Block::from_le_bytes(*bytes))
}
