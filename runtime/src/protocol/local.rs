//! Functionality: sums, public multiples, sums along an axis and movements of `[x]`, and `x` known to one -> `[x]`;
//! no error.
//! Requires: results within the ring.
//! Consumes: nothing. Online: 0 bytes, 0 rounds. Preprocessing: 0 bytes. Fails: never.
//! Reference: linearity of additive sharing.

use std::borrow::Cow;

use marill_plaintext::{Op, OpError, Tensor};
use marill_program::Ring;
use marill_program::ring::movement;

use crate::sharing::{BitShare, Masked, MaskedBits, Share};

/// A known value as shares: the whole of it at the party that holds it, `None` at the other.
pub fn share(held: Option<Cow<'_, Ring>>, shape: &[usize]) -> Share {
    Share::new(held.map_or_else(|| Ring::zeros(shape), Cow::into_owned))
}

/// `x + y`, broadcast to `shape`.
pub fn add(x: Cow<'_, Share>, y: Cow<'_, Share>, shape: &[usize]) -> Share {
    zip(x, y, shape, u64::wrapping_add)
}

/// `x - y`, broadcast to `shape`.
pub fn sub(x: Cow<'_, Share>, y: Cow<'_, Share>, shape: &[usize]) -> Share {
    zip(x, y, shape, u64::wrapping_sub)
}

/// In place of one that is owned and has the whole shape.
fn zip(x: Cow<'_, Share>, y: Cow<'_, Share>, shape: &[usize], f: impl Fn(u64, u64) -> u64 + Sync) -> Share {
    let is_whole = [&x, &y].map(|operand| operand.ring().shape == shape);
    match (x, y) {
        (Cow::Owned(mut x), y) if is_whole[0] => {
            x.ring_mut().zip_in_place(y.ring(), f);
            x
        }
        (x, Cow::Owned(mut y)) if is_whole[1] => {
            y.ring_mut().zip_in_place(x.ring(), |y, x| f(x, y));
            y
        }
        (x, y) => Share::new(x.ring().zip(y.ring(), shape, f)),
    }
}

/// `f` of this party's part of every element, in place of one that is owned.
pub(super) fn map(x: Cow<'_, Share>, f: impl Fn(u64) -> u64 + Sync) -> Share {
    match x {
        Cow::Owned(mut x) => {
            x.ring_mut().map_in_place(f);
            x
        }
        Cow::Borrowed(x) => Share::new(x.ring().map(f)),
    }
}

/// Words of `x` and `y`, combined by exclusive or.
pub fn exclusive_or(x: &BitShare, y: &BitShare) -> BitShare {
    BitShare::new(x.words().zip(y.words(), &x.words().shape, |x, y| x ^ y))
}

/// `x * factor`.
pub fn scale(x: Cow<'_, Share>, factor: i64) -> Share {
    map(x, |v| v.wrapping_mul(factor as u64))
}

/// The sum along `axis`, which stays with length 1.
pub fn sum(x: &Share, axis: usize) -> Share {
    Share::new(x.ring().sum(axis))
}

/// A form whose elements can be moved about.
pub trait Movable: Sized {
    /// Applies `op` to every part of the operands.
    ///
    /// # Errors
    /// An index out of range.
    fn moved(op: &Op, operands: &[&Self], indices: Option<&Tensor>) -> Result<Self, OpError>;
}

impl Movable for Ring {
    fn moved(op: &Op, operands: &[&Ring], indices: Option<&Tensor>) -> Result<Ring, OpError> {
        movement(op, operands, indices)
    }
}

impl Movable for Share {
    fn moved(op: &Op, operands: &[&Share], indices: Option<&Tensor>) -> Result<Share, OpError> {
        let rings: Vec<&Ring> = operands.iter().map(|x| x.ring()).collect();
        movement(op, &rings, indices).map(Share::new)
    }
}

impl Movable for BitShare {
    fn moved(op: &Op, operands: &[&BitShare], indices: Option<&Tensor>) -> Result<BitShare, OpError> {
        let words: Vec<&Ring> = operands.iter().map(|x| x.words()).collect();
        movement(op, &words, indices).map(BitShare::new)
    }
}

impl Movable for Masked {
    fn moved(op: &Op, operands: &[&Masked], indices: Option<&Tensor>) -> Result<Masked, OpError> {
        let opened: Option<Vec<&Ring>> = operands.iter().map(|x| x.opened.as_ref()).collect();
        let masks: Option<Vec<&Share>> = operands.iter().map(|x| x.mask.as_ref()).collect();
        Ok(Masked {
            opened: opened.map(|rings| movement(op, &rings, indices)).transpose()?,
            mask: masks.map(|shares| Share::moved(op, &shares, indices)).transpose()?,
        })
    }
}

impl Movable for MaskedBits {
    fn moved(op: &Op, operands: &[&MaskedBits], indices: Option<&Tensor>) -> Result<MaskedBits, OpError> {
        let opened: Vec<&Ring> = operands.iter().map(|x| &x.opened).collect();
        movement(op, &opened, indices).map(|opened| MaskedBits { opened })
    }
}

/// Slices of `x` at public positions of a zero tensor.
///
/// # Errors
/// A position that is not below `size`.
pub fn place(x: &Share, indices: &[i64], axis: usize, size: usize) -> Result<Share, OpError> {
    x.ring().place(indices, axis, size).map(Share::new)
}

/// As [`place`], for a masked value: elsewhere the value, its mask and the opened sum are zero.
///
/// # Errors
/// A position that is not below `size`.
pub fn place_masked(x: &Masked, indices: &[i64], axis: usize, size: usize) -> Result<Masked, OpError> {
    Ok(Masked {
        opened: x.opened.as_ref().map(|ring| ring.place(indices, axis, size)).transpose()?,
        mask: x.mask.as_ref().map(|share| place(share, indices, axis, size)).transpose()?,
    })
}
