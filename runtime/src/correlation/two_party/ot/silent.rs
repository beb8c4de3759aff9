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

use marill_kernels::lpn::{Code, LOCALITY};
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
    let depth = set.depth as usize;
    let (secrets, tree_keys) = consumed.split_at(set.secrets);
    let mut samples = Samples::new(set, secrets, keys);
    let mut sums = Zeroizing::new(vec![0; depth]);
    for tree_keys in tree_keys.chunks(MESSAGE_TREES * depth) {
        let mut message = Vec::with_capacity(size_of_val(tree_keys));
        for tree_keys in tree_keys.chunks_exact(depth) {
            samples.bin(|leaves| ggm::grow(random_block(prg), delta, &mut sums, leaves));
            sums.iter_mut().zip(tree_keys).for_each(|(sum, key)| *sum ^= key);
            put(&sums, &mut message);
        }
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
    let depth = set.depth as usize;
    let (secrets, tree_keys) = consumed.split_at(set.secrets);
    let mut samples = Samples::new(set, secrets, keys);
    let mut sums = Zeroizing::new(vec![0; depth]);
    let batches = tree_keys.chunks(MESSAGE_TREES * depth).zip(messages(&Step::Silent(*set)));
    for (tree_keys, bytes) in batches {
        let message = channel.recv(bytes as usize)?;
        let mut corrections = blocks_of(&message);
        for tree_keys in tree_keys.chunks_exact(depth) {
            let mut point = 0;
            for ((sum, key), correction) in sums.iter_mut().zip(tree_keys).zip(&mut corrections) {
                *sum = key ^ correction;
                point = point << 1 | (!key & 1) as u32;
            }
            samples.bin(|leaves| ggm::grow_punctured(point, &sums, leaves));
        }
    }
    Ok(())
}

/// The samples of one iteration, appended bin by bin while a bin is in the cache.
struct Samples<'a> {
    code: Code,
    secrets: &'a [Block],
    bin: usize,
    next: u64,
    keys: &'a mut Vec<Block>,
}

impl<'a> Samples<'a> {
    fn new(set: &Set, secrets: &'a [Block], keys: &'a mut Vec<Block>) -> Samples<'a> {
        keys.reserve(set.outputs());
        Samples { code: Code::new(CODE_KEY, set.secrets), secrets, bin: 1 << set.depth, next: 0, keys }
    }

    /// Appends the leaves that `grow` makes, the secrets of each sample added.
    fn bin(&mut self, grow: impl FnOnce(&mut [Block])) {
        let start = self.keys.len();
        self.keys.resize(start + self.bin, 0);
        let leaves = &mut self.keys[start..];
        grow(leaves);
        self.code.add(self.next, self.secrets, leaves);
        self.next += self.bin as u64;
    }
}
