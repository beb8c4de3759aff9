//! Field values to the server as corrections: made in blocks on all cores, sent in order.

use std::ops::Range;

use marill_kernels::pack::pack;
use marill_kernels::{Prg, Seed};
use marill_program::correlation::Sharing;

use crate::correlation::spool::Chunks;
use crate::error::RunError;

/// Values per block, about.
const BLOCK: usize = 1 << 15;

/// Appends the values of some elements to a buffer.
pub type Fill<'a> = Box<dyn Fn(Range<usize>, &mut Vec<u64>) + Sync + 'a>;

/// The values of one field.
pub enum Values<'a> {
    /// All of them.
    Whole(Vec<u64>),
    /// `per` values for each of `elements` elements, appended to a buffer.
    Each {
        /// Number of elements.
        elements: usize,
        /// Values of each.
        per: usize,
        /// Appends the values of some elements.
        fill: Fill<'a>,
    },
}

/// How a field is shared and sent.
pub struct Shape {
    /// How the shares combine.
    pub sharing: Sharing,
    /// Bits of each value.
    pub width: u32,
    /// Stream of the client's seed that is the client's share.
    pub stream: u64,
}

/// Subtracts the client's share from all values and writes what is left, packed.
///
/// # Errors
/// Of the channel.
pub fn send(out: &mut Chunks<'_>, values: &Values<'_>, shape: &Shape, client: &Seed) -> Result<(), RunError> {
    let (elements, per) = match values {
        Values::Whole(all) => (all.len(), 1),
        Values::Each { elements, per, .. } => (*elements, *per),
    };
    let step = (BLOCK / per.max(1)).next_multiple_of(8).max(8);
    let count = elements.div_ceil(step);
    let block = |i: usize| {
        let range = i * step..elements.min((i + 1) * step);
        let mut buffer = Vec::with_capacity(range.len() * per);
        match values {
            Values::Whole(all) => buffer.extend_from_slice(&all[range.clone()]),
            Values::Each { fill, .. } => fill(range.clone(), &mut buffer),
        }
        correct(&mut buffer, range.start * per, shape, client)
    };
    if elements * per < 2 * BLOCK {
        return (0..count).try_for_each(|i| out.write(&block(i)));
    }
    out.write_blocks(count, |i| Ok(block(i)))
}

fn correct(values: &mut [u64], first: usize, shape: &Shape, client: &Seed) -> Vec<u8> {
    let mut prg = Prg::new(client.clone(), shape.stream);
    prg.seek_number(first as u64, shape.width);
    let mut bytes = Vec::new();
    let mut shares = [0; 2048];
    for part in values.chunks_mut(shares.len()) {
        let shares = &mut shares[..part.len()];
        prg.fill_ring(shares, shape.width);
        match shape.sharing {
            Sharing::Additive => part.iter_mut().zip(shares).for_each(|(v, s)| *v = v.wrapping_sub(*s)),
            Sharing::Xor => part.iter_mut().zip(shares).for_each(|(v, s)| *v ^= *s),
        }
    }
    pack(values, shape.width, &mut bytes);
    bytes
}
