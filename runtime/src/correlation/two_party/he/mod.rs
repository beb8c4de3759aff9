//! Private matrix products by homomorphic encryption, as shares: [`wide`] for matrices that the server fixes at setup,
//! [`pairs`] for matrices that are fresh on both sides.
//!
//! Semi-honest parties. Messages are plain bytes, whose exact lengths [`marill_program::two_party::rlwe`] gives; what a
//! peer sends can only cause an error or a wrong share, never a panic. Seeds must be fresh for every call: a seed used
//! twice would use noise twice.

pub mod pairs;
pub mod wide;

#[cfg(test)]
mod tests;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use marill_kernels::rlwe::keys::{self, PublicKey, SecretKey};
use marill_kernels::threads::threads;
use marill_kernels::{Prg, Seed};
use marill_program::cost::SEED_BYTES;
use marill_program::two_party::rlwe::key_bytes;

use super::super::arrivals::Arrivals;
use super::super::spool::Chunks;
use crate::error::{Misbehaviour, Role, RunError};

/// Streams of a key holder's seed beyond those of [`keys`].
const PUBLIC_STREAM: u64 = 1 << 61;
const WEIGHT_STREAM: u64 = 1 << 60;

/// The public seed that belongs to a secret one.
fn public_seed(secret: &Seed, stream: u64) -> Seed {
    let mut bytes = [0; 16];
    Prg::new(secret.clone(), stream).fill(&mut bytes);
    Seed::new(bytes)
}

/// Sends the public key of `key`: its seed, then its other half.
fn send_key(
    chunks: &mut Chunks<'_>,
    key: &SecretKey,
    seed: &Seed,
    (limbs, levels): (usize, u32),
) -> Result<Seed, RunError> {
    let public = public_seed(seed, PUBLIC_STREAM);
    chunks.write(public.expose())?;
    chunks.write(&keys::publish(key, seed, &public, limbs, levels))?;
    Ok(public)
}

/// Reads what [`send_key`] sent from the beginning of a stream.
fn read_key(
    stream: &Arrivals,
    peer: Role,
    (limbs, levels): (usize, u32),
) -> Result<(Seed, PublicKey), RunError> {
    let mut seed = [0; SEED_BYTES as usize];
    seed.copy_from_slice(&stream.read(0, SEED_BYTES as usize)?);
    let seed = Seed::new(seed);
    let bytes = stream.read(SEED_BYTES, (key_bytes(limbs, levels) - SEED_BYTES) as usize)?;
    let key = PublicKey::read(&seed, limbs, levels, &bytes)
        .ok_or_else(|| malformed(peer, "public key", "a residue that is not below its prime"))?;
    Ok((seed, key))
}

fn malformed(peer: Role, what: &'static str, found: impl Into<String>) -> RunError {
    RunError::PeerMisbehaved { peer, reason: Misbehaviour::Malformed { what, found: found.into() } }
}

fn check_length(peer: Role, what: &'static str, found: usize, expected: u64) -> Result<(), RunError> {
    if found as u64 == expected {
        return Ok(());
    }
    Err(malformed(peer, what, format!("{found} bytes where {expected} belong")))
}

/// `work(0)`, `work(1)`, ... on all cores, in order. The result does not depend on the number of cores.
fn parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let workers = threads().min(count);
    if workers < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return done;
            }
            done.push((at, work(at)));
        }
    };
    let mut results: Vec<(usize, T)> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(take)).collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
