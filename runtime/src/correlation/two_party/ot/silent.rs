//! Functionality: COTs of [`Set::consumes`] -> COTs of [`Set::outputs`] under the same `delta`, one iteration.
//! Consumes: the secrets and `trees * depth` more COTs.
//! Bytes: `16 trees depth` from the sender, in messages of 128 trees; none from the receiver. One flow, and iterations
//! that follow each other wait for no answer.
//! How: each tree of [`marill_kernels::ggm`] makes one bin of COTs whose choice bits are all 0 but for one at a place
//! that only the receiver knows: the complements of its choices in the COTs that carry the tree's sums. To every sample
//! the public code of [`marill_kernels::lpn`] adds 10 of the secret COTs.
//! Fails: never. Security: semi-honest, in the ideal-permutation model, if the choice bits, which are the samples of
//! learning parity with regular noise over the code, look random: estimates in `marill_program::two_party::ot`. To the
//! receiver, the sums hide `delta` by circular correlation robustness of the trees.
//! The receiver's noise places steer no branch and no address. Its secrets and samples are only summed.
//! Reference: Yang, Weng, Lan, Zhang, Wang, "Ferret", CCS 2020, figures 7 and 9, without checks; trees by Guo et al.,
//! "Half-tree", EUROCRYPT 2023, figure 7.

use std::sync::{Mutex, PoisonError};
use std::thread;

use marill_kernels::lpn::{Code, LOCALITY};
use marill_kernels::threads::threads;
use marill_kernels::{Prg, ggm};
use marill_program::two_party::ot::{self as parameters, MESSAGE_TREES, Set, Step, messages};
use zeroize::Zeroizing;

use super::{Block, blocks_of, put, random_block};
use crate::error::RunError;
use crate::transport::Channel;

const _: () = assert!(LOCALITY == parameters::LOCALITY);

/// Names the public code, the same in every iteration.
const CODE_KEY: [u8; 16] = *b"marill lpn code.";

/// One iteration of the sender: appends its keys, made of those that it consumes.
pub(super) fn send(
    channel: &mut Channel,
    delta: Block,
    prg: &mut Prg,
    set: &Set,
    consumed: &[Block],
    keys: &mut Vec<Block>,
) -> Result<(), RunError> {
    let (secrets, tree_keys) = consumed.split_at(set.secrets);
    let mut samples = Samples::new(set, secrets, keys);
    for tree_keys in tree_keys.chunks(MESSAGE_TREES * samples.depth) {
        let mut sums = Zeroizing::new(vec![0; tree_keys.len()]);
        // The place of each tree's first sum holds its first node until the tree is grown.
        sums.iter_mut().step_by(samples.depth).for_each(|place| *place = random_block(prg));
        samples.bins(&mut sums, |_, sums, leaves| ggm::grow(sums[0], delta, sums, leaves));
        sums.iter_mut().zip(tree_keys).for_each(|(sum, key)| *sum ^= key);
        let mut message = Vec::with_capacity(size_of_val(tree_keys));
        put(&sums, &mut message);
        channel.send(&message)?;
    }
    Ok(())
}

/// One iteration of the receiver.
pub(super) fn receive(
    channel: &mut Channel,
    set: &Set,
    consumed: &[Block],
    keys: &mut Vec<Block>,
) -> Result<(), RunError> {
    let (secrets, tree_keys) = consumed.split_at(set.secrets);
    let mut samples = Samples::new(set, secrets, keys);
    let depth = samples.depth;
    let batches = tree_keys.chunks(MESSAGE_TREES * depth).zip(messages(&Step::Silent(*set)));
    for (tree_keys, bytes) in batches {
        let message = channel.recv(bytes as usize)?;
        let known = tree_keys.iter().zip(blocks_of(&message)).map(|(key, correction)| key ^ correction);
        let mut known = Zeroizing::new(known.collect::<Vec<_>>());
        samples.bins(&mut known, |tree, known, leaves| {
            let choices = &tree_keys[tree * depth..][..depth];
            let point = choices.iter().fold(0, |point, key| point << 1 | (!key & 1) as u32);
            ggm::grow_punctured(point, known, leaves);
        });
    }
    Ok(())
}

/// The samples of one iteration, appended bin by bin.
struct Samples<'a> {
    code: Code,
    secrets: &'a [Block],
    depth: usize,
    next: u64,
    keys: &'a mut Vec<Block>,
}

impl<'a> Samples<'a> {
    fn new(set: &Set, secrets: &'a [Block], keys: &'a mut Vec<Block>) -> Samples<'a> {
        keys.reserve(set.outputs());
        Samples { code: Code::new(CODE_KEY, set.secrets), secrets, depth: set.depth as usize, next: 0, keys }
    }

    /// Appends the leaves that `grow` makes with each tree's number and place in `sums`, and adds to each its secrets
    /// while they are in the cache. On as many threads as the machine offers.
    fn bins(&mut self, sums: &mut [Block], grow: impl Fn(usize, &mut [Block], &mut [Block]) + Sync) {
        let depth = self.depth;
        let Samples { code, secrets, next, keys, .. } = self;
        let trees = sums.len() / depth;
        let start = keys.len();
        keys.resize(start + (trees << depth), 0);
        let all = sums.chunks_exact_mut(depth).zip(keys[start..].chunks_exact_mut(1 << depth)).enumerate();
        let queue = Mutex::new(all);
        let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let first = *next;
        let work = || {
            while let Some((tree, (sums, leaves))) = take() {
                grow(tree, sums, leaves);
                code.add(first + ((tree as u64) << depth), secrets, leaves);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads().min(trees) {
                scope.spawn(work);
            }
            work();
        });
        *next += (trees as u64) << depth;
    }
}
