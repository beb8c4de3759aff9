//! Functionality: masked x mod 2^k -> `[x] mod 2^w`, w >= k; no error.
//! Requires: |x| < 2^(k - 2) where w > k.
//! Consumes: where w > k, shares of the mask r mod 2^w and of its top bit m mod 2^(w - k); else nothing.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(n w / 8) + ceil(n (w - k) / 8)` bytes where w > k.
//! Fails: never.
//! Reference: `x + 2^(k-2)` is below 2^(k-1), so adding r wraps exactly where r's top bit is set and the sum's is
//! not; `x = u - r + 2^k n m` with `marill_program::correlation`'s notation.

use std::ops::Range;

use marill_kernels::elements::by_blocks;
use marill_program::Ring;
use marill_program::fixed::{mask, signed};

use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{Masked, Party, Share};

/// The shares that an instruction has not taken yet.
pub type Fields = std::vec::IntoIter<Shares>;

/// Numbers that the work on one element reads, about: as few as make blocks long enough to be read at once.
pub(super) const READS: usize = 4;

/// A masked value opened to both as `x = public + secret` in the result's ring: `public` is known to both, `secret` is
/// this party's share of `wrap * m - r`.
pub struct Operand<'a> {
    opened: &'a Ring,
    /// Bits of the masked value's ring.
    from: u32,
    mask: OperandMask<'a>,
}

enum OperandMask<'a> {
    /// This party's mask, where nothing is lifted.
    Own(&'a Ring),
    /// This party's shares of the mask and of its top bit in the result's ring.
    Lifted { mask: Shares, top: Shares },
}

/// Some elements of an operand, in memory that is used again.
#[derive(Default)]
pub struct Terms {
    /// The opened value, in lifted form `u` where the ring grows.
    pub public: Vec<u64>,
    /// This party's share of `x - public`.
    pub secret: Vec<u64>,
    /// `2^k n`; zero everywhere where nothing is lifted.
    pub wrap: Vec<u64>,
    /// This party's share of `m`, where the ring grows.
    pub top: Numbers,
    mask: Numbers,
}

/// `u` of an opened value.
pub fn centred(opened: u64, width: u32) -> u64 {
    let quarter = if width >= 2 { 1u64 << (width - 2) } else { 0 };
    (opened.wrapping_add(quarter) & mask(width)).wrapping_sub(quarter)
}

/// `2^k n` of an opened value: what a set top bit of the mask adds.
fn wrapped(opened: u64, width: u32) -> u64 {
    let quarter = if width >= 2 { 1u64 << (width - 2) } else { 0 };
    let top = (opened.wrapping_add(quarter) >> (width - 1)) & 1;
    (1 - top) << width
}

impl<'a> Operand<'a> {
    /// Splits a masked value of `from` bits for use in a ring of `to` bits, taking its fields where it must be lifted.
    /// `None` if the value was not opened to this party or fields are missing.
    pub fn new(x: &'a Masked, from: u32, to: u32, fields: &mut Fields) -> Option<Operand<'a>> {
        let opened = x.opened.as_ref()?;
        let mask = if from < to {
            OperandMask::Lifted { mask: fields.next()?, top: fields.next()? }
        } else {
            OperandMask::Own(x.mask.as_ref()?.ring())
        };
        Some(Operand { opened, from, mask })
    }

    /// Whether the ring grows.
    pub fn lifted(&self) -> bool {
        matches!(self.mask, OperandMask::Lifted { .. })
    }

    /// The value's shape.
    pub fn shape(&self) -> &[usize] {
        &self.opened.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.opened.len()
    }

    /// Replaces what `terms` has by the elements in `range`, which starts at a multiple of 8 and ends at one or at the end.
    pub fn read(&self, range: Range<usize>, terms: &mut Terms) {
        let Terms { public, secret, wrap, top, mask } = terms;
        let (opened, from) = (&self.opened.data[range.clone()], self.from);
        public.clear();
        secret.clear();
        wrap.clear();
        match &self.mask {
            OperandMask::Own(mask) => {
                public.extend(opened.iter().map(|v| signed(*v, from) as u64));
                secret.extend(mask.data[range].iter().map(|r| r.wrapping_neg()));
                wrap.resize(opened.len(), 0);
            }
            OperandMask::Lifted { mask: of_mask, top: of_top } => {
                of_mask.read(range.clone(), mask);
                of_top.read(range, top);
                public.extend(opened.iter().map(|v| centred(*v, from)));
                wrap.extend(opened.iter().map(|v| wrapped(*v, from)));
                let parts = mask.iter().zip(top.iter()).zip(&*wrap);
                secret.extend(parts.map(|((r, m), p)| p.wrapping_mul(*m).wrapping_sub(*r)));
            }
        }
    }

    /// All elements.
    pub fn whole(&self) -> Terms {
        let mut terms = Terms::default();
        self.read(0..self.elements(), &mut terms);
        terms
    }
}

/// This party's share of an operand: the client's includes the public part.
pub fn lift(party: Party, x: &Operand<'_>) -> Share {
    let data = by_blocks(x.elements(), READS, Terms::default, |terms, range, out| {
        x.read(range, terms);
        let parts = terms.public.iter().zip(&terms.secret);
        out.iter_mut().zip(parts).for_each(|(out, (p, s))| *out = party.public(*p).wrapping_add(*s));
    });
    Share::new(Ring::new(x.shape(), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_and_mask_of_a_small_ring_lifts_exactly() {
        let k = 6;
        for x in -(1i64 << (k - 2)) + 1..1 << (k - 2) {
            for r in 0..1u64 << k {
                let opened = (x as u64).wrapping_add(r) & mask(k);
                let m = r >> (k - 1);
                let lifted = centred(opened, k).wrapping_sub(r).wrapping_add(wrapped(opened, k) * m);
                assert_eq!(lifted as i64, x, "mask {r}");
            }
        }
    }
}
