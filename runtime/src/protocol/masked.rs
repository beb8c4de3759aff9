//! Functionality: `X = x + r` with shares of r -> the same for `x C`, `x + c`, `x * n` and `x / 2^s`, with public
//! constants C, c and n. Products, sums and multiples are exact; truncation errs by less than 1.5 units in the last
//! place, without bias.
//! Requires: nothing; results are modulo the ring.
//! Consumes: nothing. Every party computes its own part of `r C` before the inputs are known.
//! Online: 0 bytes, 0 rounds. Preprocessing: 0 bytes. Fails: never.
//! Reference: linearity. Of a truncation, the new mask is the sum of the parts `r_i >> s`: with the fractions f of
//! `x + r`, r_0 and r_1, the result is `x / 2^s + f(r_0) + f(r_1) - f(x + r)`, on average half a unit too much, which
//! half a unit less before the shift makes up for. All that is opened is X, before.

use marill_program::Ring;
use marill_program::fixed::mask;

use crate::sharing::{Masked, Share};

/// `x C`, from `product`, the opened value's product with C, and the mask's.
pub fn product(product: Ring, mask_product: Option<Share>, width: u32) -> Masked {
    Masked { opened: Some(product.map(|v| v & mask(width))), mask: mask_product }
}

/// `x + c` or `x - c`.
pub fn shift(x: &Masked, c: &Ring, subtract: bool, width: u32) -> Masked {
    let shifted = |opened: &Ring| {
        let shape = opened.shape.clone();
        let sum = if subtract { opened.sub(c, &shape) } else { opened.add(c, &shape) };
        sum.map(|v| v & mask(width))
    };
    let reduce = |r: &Share| Share::new(r.ring().map(|v| v & mask(width)));
    Masked { opened: x.opened.as_ref().map(shifted), mask: x.mask.as_ref().map(reduce) }
}

/// `x * factor`.
pub fn scale(x: &Masked, factor: i64, width: u32) -> Masked {
    let times = |ring: &Ring| ring.map(|v| v.wrapping_mul(factor as u64) & mask(width));
    Masked {
        opened: x.opened.as_ref().map(times),
        mask: x.mask.as_ref().map(|r| Share::new(times(r.ring()))),
    }
}

/// `x / 2^shift` of a value of `width` bits.
pub fn truncate(x: &Masked, width: u32, shift: u32) -> Masked {
    let half = if shift == 0 { 0 } else { 1u64 << (shift - 1) };
    let down = |ring: &Ring, less: u64| ring.map(|v| (v.wrapping_sub(less) & mask(width)) >> shift);
    Masked {
        opened: x.opened.as_ref().map(|opened| down(opened, half)),
        mask: x.mask.as_ref().map(|r| Share::new(down(r.ring(), 0))),
    }
}
