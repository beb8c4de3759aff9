//! What setup leaves one party: seeds of transfers in both directions, the seed of its own key, and what the other
//! party sent under its own. It is for one pair of parties and one model, and serves any number of runs.
//!
//! Bytes: base transfers both ways; the server's key and its weights encrypted, where the program multiplies by such;
//! the client's key, where it multiplies masks ([`marill_program::two_party::products::Encrypted`]).
//! Rounds: two for the transfers, one for the rest, which may go on while preprocessing begins.
//! Leakage: none beyond that of [`super::ot`] and [`super::he`]; a key is used for many runs, each with fresh noise.

use std::sync::Arc;

use marill_kernels::Seed;
use marill_program::ValidProgram;
use marill_program::two_party::gates::Side;
use marill_program::two_party::products::Encrypted;
use zeroize::Zeroizing;

use super::he::{pairs, wide};
use super::make::Weights;
use super::ot::{ReceiverSeeds, SenderSeeds};
use crate::correlation::arrivals::Arrivals;
use crate::correlation::fresh_seed;
use crate::correlation::spool::Spool;
use crate::error::RunError;
use crate::transport::Channel;

/// One party's part.
pub struct Setup {
    /// Of transfers in which the peer chooses.
    pub sending: SenderSeeds,
    /// Of transfers in which this party chooses.
    pub receiving: ReceiverSeeds,
    /// Of this party's key for products.
    pub key: Seed,
    /// The peer's key, and at the client the server's weights; empty where the program needs neither.
    pub theirs: Arc<Arrivals>,
}

impl Setup {
    /// Bytes of the secrets that are kept: everything but what the peer sent.
    pub const SECRET_BYTES: usize = SenderSeeds::BYTES + ReceiverSeeds::BYTES + 16;

    /// Makes base transfers with the peer and draws this party's key.
    ///
    /// # Errors
    /// Of the channel and the temporary file.
    pub fn begin(channel: &mut Channel, side: Side) -> Result<Setup, RunError> {
        let (sending, receiving) = match side {
            Side::Client => {
                let sending = SenderSeeds::setup(channel)?;
                channel.end_round();
                (sending, ReceiverSeeds::setup(channel)?)
            }
            Side::Server => {
                let receiving = ReceiverSeeds::setup(channel)?;
                channel.end_round();
                (SenderSeeds::setup(channel)?, receiving)
            }
        };
        channel.end_round();
        Ok(Setup { sending, receiving, key: fresh_seed()?, theirs: Arc::new(Arrivals::new()?) })
    }

    /// Exchanges with the peer what products are made with, the rest of setup.
    ///
    /// # Errors
    /// Of the channel, the temporary file and `weights`.
    pub fn exchange_keys(
        &self,
        channel: &mut Channel,
        side: Side,
        program: &ValidProgram,
        weights: Weights<'_>,
    ) -> Result<(), RunError> {
        let plan = Encrypted::new(program);
        let (wide_shapes, pair_shapes) = (plan.wide_shapes(), plan.pair_shapes());
        let Setup { key, theirs, .. } = self;
        // The client's key is short and goes first: behind all the server's weights, it would be long in coming.
        match side {
            Side::Client => {
                if !pair_shapes.is_empty() {
                    pairs::send(channel, &pair_shapes, key)?;
                }
                if !wide_shapes.is_empty() {
                    wide::receive(channel, &wide_shapes, theirs)?;
                }
            }
            Side::Server => {
                if !pair_shapes.is_empty() {
                    pairs::receive(channel, &pair_shapes, theirs)?;
                }
                if !wide_shapes.is_empty() {
                    wide::send(channel, &wide_shapes, key, |job, range| {
                        weights(plan.wide[job].weight, range)
                    })?;
                }
            }
        }
        if !wide_shapes.is_empty() || !pair_shapes.is_empty() {
            channel.end_round();
        }
        Ok(())
    }

    /// The secrets, in [`Setup::SECRET_BYTES`] bytes.
    pub fn secrets(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(Setup::SECRET_BYTES));
        self.sending.write(&mut out);
        self.receiving.write(&mut out);
        out.extend_from_slice(self.key.expose());
        out
    }

    /// From what [`Setup::secrets`] told, and what the peer sent.
    pub fn of(secrets: &[u8; Setup::SECRET_BYTES], theirs: Spool) -> Setup {
        let mut rest = &secrets[..];
        let sending = SenderSeeds::read(&take::<{ SenderSeeds::BYTES }>(&mut rest));
        let receiving = ReceiverSeeds::read(&take::<{ ReceiverSeeds::BYTES }>(&mut rest));
        Setup { sending, receiving, key: Seed::new(*take(&mut rest)), theirs: Arc::new(Arrivals::of(theirs)) }
    }
}

/// Splits off the first `N` bytes, of which there must be so many.
fn take<const N: usize>(bytes: &mut &[u8]) -> Zeroizing<[u8; N]> {
    let mut first = Zeroizing::new([0; N]);
    let (taken, rest) = bytes.split_at(N);
    first.copy_from_slice(taken);
    *bytes = rest;
    first
}

/// Elements that are digested at once.
const DIGESTED: usize = 1 << 16;

/// What tells weights from others: a digest of all that the server sends encrypted.
///
/// # Errors
/// Of `weights`.
pub fn weights_digest(program: &ValidProgram, weights: Weights<'_>) -> Result<[u8; 32], RunError> {
    let mut hasher = blake3::Hasher::new_derive_key("marill 2026 weights of a setup");
    for wide in Encrypted::new(program).wide {
        let len = program.ty(wide.weight).len();
        for first in (0..len).step_by(DIGESTED) {
            let part = weights(wide.weight, first..len.min(first + DIGESTED))?;
            let bytes: Vec<u8> = part.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
