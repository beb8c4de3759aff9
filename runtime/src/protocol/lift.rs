//! Functionality: masked x mod 2^k -> `[x] mod 2^w`, w >= k; no error.
//! Requires: |x| < 2^(k - 2) where w > k.
//! Consumes: where w > k, shares of the mask r mod 2^w and of its top bit m mod 2^(w - k); else nothing.
//! Online: 0 bytes, 0 rounds. Preprocessing: `ceil(n w / 8) + ceil(n (w - k) / 8)` bytes where w > k.
//! Fails: never.
//! Reference: `x + 2^(k-2)` is below 2^(k-1), so adding r wraps exactly where r's top bit is set and the sum's is
//! not; `x = u - r + 2^k n m` with `marill_program::correlation`'s notation.

use marill_kernels::elements::{self, by_blocks};
use marill_program::Ring;
use marill_program::fixed::{mask, signed};

use crate::sharing::{Masked, Party, Share};

/// A masked value opened to both as `x = public + secret` in the result's ring: `public` is known to both, `secret` is
/// this party's share of `wrap * m - r`.
pub struct Operand {
    /// The opened value, in lifted form `u` where the ring grows.
    pub public: Ring,
    /// This party's share of `x - public`.
    pub secret: Ring,
    /// `2^k n`; zero everywhere where nothing is lifted.
    pub wrap: Ring,
    /// This party's share of `m`, where the ring grows.
    pub top: Option<Vec<u64>>,
}

impl Operand {
    /// Whether the ring grows.
    pub fn lifted(&self) -> bool {
        self.top.is_some()
    }
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

/// Splits a masked value of `from` bits for use in a ring of `to` bits, taking its fields where it must be lifted.
/// `None` if the value was not opened to this party or fields are missing.
pub fn operand(x: &Masked, from: u32, to: u32, fields: &mut std::vec::IntoIter<Vec<u64>>) -> Option<Operand> {
    let (opened, own_mask) = (x.opened.as_ref()?, x.mask.as_ref()?);
    if from >= to {
        return Some(Operand {
            public: opened.map(|v| signed(v, from) as u64),
            secret: own_mask.ring().map(u64::wrapping_neg),
            wrap: Ring::zeros(&opened.shape),
            top: None,
        });
    }
    let (r, m) = (fields.next()?, fields.next()?);
    let wrap = opened.map(|v| wrapped(v, from));
    let secret = by_blocks(
        r.len(),
        3,
        || (),
        |(), range, out| {
            let parts = r[range.clone()].iter().zip(&m[range.clone()]).zip(&wrap.data[range]);
            out.iter_mut()
                .zip(parts)
                .for_each(|(out, ((r, m), p))| *out = p.wrapping_mul(*m).wrapping_sub(*r));
        },
    );
    Some(Operand {
        public: opened.map(|v| centred(v, from)),
        secret: Ring::new(opened.shape.clone(), secret),
        wrap,
        top: Some(m),
    })
}

/// This party's share of an operand: the client's includes the public part.
pub fn lift(party: Party, x: &Operand) -> Share {
    let sum = elements::zip(&x.public.data, &x.secret.data, |p, s| party.public(p).wrapping_add(s));
    Share::new(Ring::new(x.public.shape.clone(), sum))
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
