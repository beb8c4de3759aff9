//! Functionality: masked x, masked y -> `[x y]` mod 2^w (element-wise, broadcast, or matrix), `[x^2]`; masked x at the
//! server, W known to the server -> `[x W]`; `[x]`, public y -> `[x y]`; no error.
//! Requires: |x| < 2^(k - 2) of operands with k < w (element-wise only); matrix operands have k >= w.
//! Consumes: the product of the two masks at w bits; with lifts each operand's lift fields and the products with top
//! bits, at w less the powers of two that multiply them. With a weight: `r B`.
//! Online: 0 bytes, 0 rounds beyond the openings. Preprocessing: `ceil(n w / 8)` bytes and, for each lifted operand of
//! k bits, its lift's and `ceil(n (w - k) / 8)`; where both are, `ceil(n (w - ka - kb) / 8)` more.
//! Fails: never.
//! Reference: `(X - r)(Y - s) = XY - X s - r Y + r s` with r s from function-dependent preprocessing (ABY2.0, section
//! 3.1.3); weights as in Mohassel and Zhang, SecureML (S&P 2017), section 4.1, with `W - B` opened once at setup.

use marill_kernels::elements::{self, by_blocks};
use marill_plaintext::Op;
use marill_program::Ring;

use super::lift::{Fields, Operand, READS, Terms};
use crate::correlation::shares::{Numbers, Shares};
use crate::sharing::{Masked, Party, Share};

/// Element-wise product of two operands, of `from` = (ka, kb) bits, in a ring of `width` bits. `None` if a field is
/// missing.
pub fn multiply(
    party: Party,
    x: &Operand<'_>,
    y: &Operand<'_>,
    from: (u32, u32),
    width: u32,
    shape: &[usize],
    fields: &mut Fields,
) -> Option<Share> {
    let mut next = || fields.next().map(|field| Ring::new(shape, field.into_values()));
    let rings = |x: &Operand<'_>| {
        let Terms { public, secret, wrap, .. } = x.whole();
        [public, secret, wrap].map(|data| Ring::new(x.shape(), data))
    };
    let ([x_public, x_secret, x_wrap], [y_public, y_secret, y_wrap]) = (rings(x), rings(y));
    let mut y_share = y_secret;
    if party == Party::Client {
        y_share.accumulate(&y_public);
    }
    let mut sum = x_public.mul(&y_share, shape);
    sum.accumulate(&x_secret.mul(&y_public, shape));
    sum.accumulate(&next()?);
    if x.lifted() {
        sum.zip_in_place(&next()?.mul(&x_wrap, shape), u64::wrapping_sub);
    }
    if y.lifted() {
        sum.zip_in_place(&next()?.mul(&y_wrap, shape), u64::wrapping_sub);
    }
    if x.lifted() && y.lifted() && from.0 + from.1 < width {
        sum.accumulate(&next()?.mul(&x_wrap.mul(&y_wrap, shape), shape));
    }
    Some(Share::new(sum))
}

/// The square of an operand. `None` if a field is missing.
pub fn square(party: Party, x: &Operand<'_>, fields: &mut Fields) -> Option<Share> {
    let mask_square = fields.next()?;
    let mask_top = if x.lifted() { Some(fields.next()?) } else { None };
    let scratch = || (Terms::default(), Numbers::default());
    let data = by_blocks(x.elements(), READS, scratch, |(terms, numbers), range, out| {
        x.read(range.clone(), terms);
        mask_square.read(range.clone(), numbers);
        // x^2 = u^2 + 2 u s + s^2 with s = P m - r, and s^2 = r^2 - 2 P r m + P^2 m.
        let parts = terms.public.iter().zip(&terms.secret).zip(numbers.iter());
        for (out, ((u, s), square)) in out.iter_mut().zip(parts) {
            let cross = u.wrapping_mul(*s).wrapping_mul(2);
            *out = square.wrapping_add(party.public(u.wrapping_mul(*u))).wrapping_add(cross);
        }
        if let Some(mask_top) = &mask_top {
            mask_top.read(range, numbers);
            for (out, ((p, m), rm)) in
                out.iter_mut().zip(terms.wrap.iter().zip(terms.top.iter()).zip(numbers.iter()))
            {
                let square = p.wrapping_mul(*p).wrapping_mul(*m);
                *out = out.wrapping_add(square).wrapping_sub(p.wrapping_mul(*rm).wrapping_mul(2));
            }
        }
    });
    Some(Share::new(Ring::new(x.shape(), data)))
}

/// The sum of squares of each row of a value masked in a ring at least as wide as the result's. `None` if a field is
/// missing.
pub fn square_sum(party: Party, x: &Operand<'_>, shape: &[usize], fields: &mut Fields) -> Option<Share> {
    let mut data = fields.next()?.into_values();
    let length = x.elements() / data.len().max(1);
    let Terms { public, secret, .. } = x.whole();
    let rows = public.chunks(length.max(1)).zip(secret.chunks(length.max(1)));
    for (sum, (public, secret)) in data.iter_mut().zip(rows) {
        for (u, s) in public.iter().zip(secret) {
            *sum = sum
                .wrapping_add(party.public(u.wrapping_mul(*u)))
                .wrapping_add(u.wrapping_mul(*s).wrapping_mul(2));
        }
    }
    Some(Share::new(Ring::new(shape, data)))
}

/// Matrix product of two values masked in rings at least as wide as the result's of `width` bits. `None` if either is not opened to
/// this party or the field is missing.
pub fn matrix(
    party: Party,
    x: &Masked,
    y: &Masked,
    (shape, width): (&[usize], u32),
    fields: &mut Fields,
) -> Option<Share> {
    let (x_opened, y_opened) = (x.opened.as_ref()?, y.opened.as_ref()?);
    let (r, s) = (x.mask.as_ref()?.ring(), y.mask.as_ref()?.ring());
    let y_part = match party {
        Party::Client => y_opened.sub(s, &y_opened.shape),
        Party::Server => s.map(u64::wrapping_neg),
    };
    let mut sum = x_opened.matmul(&y_part, shape, width);
    let cross = r.matmul(y_opened, shape, width);
    let products = fields.next()?;
    elements::update(&mut sum.data, READS, Numbers::default, |numbers, range, out| {
        products.read(range.clone(), numbers);
        let parts = cross.data[range].iter().zip(numbers.iter());
        out.iter_mut()
            .zip(parts)
            .for_each(|(sum, (cross, rs))| *sum = sum.wrapping_sub(*cross).wrapping_add(*rs));
    });
    Some(Share::new(sum))
}

/// The server's share of `x W`, from `X W` and its share of `r B`.
pub fn weighted_at_server(mut product: Ring, correction: &Shares) -> Share {
    elements::update(&mut product.data, 1, Numbers::default, |numbers, range, out| {
        correction.read(range, numbers);
        out.iter_mut().zip(numbers.iter()).for_each(|(out, c)| *out = out.wrapping_sub(*c));
    });
    Share::new(product)
}

/// The client's share of `x W`, from `r (W - B)` plus its share of `r B`.
pub fn weighted_at_client(prepared: &Shares, shape: &[usize]) -> Share {
    let data = by_blocks(prepared.len(), 1, Numbers::default, |numbers, range, out| {
        prepared.read(range, numbers);
        out.iter_mut().zip(numbers.iter()).for_each(|(out, p)| *out = p.wrapping_neg());
    });
    Share::new(Ring::new(shape, data))
}

/// A share times a public factor on its right (`factor_first` false) or left, by `Mul` or `MatMul`, into a shape and a
/// ring of so many bits.
pub fn by_public(
    op: &Op,
    x: &Share,
    factor: &Ring,
    factor_first: bool,
    (shape, width): (&[usize], u32),
) -> Share {
    let (a, b) = if factor_first { (factor, x.ring()) } else { (x.ring(), factor) };
    Share::new(if *op == Op::MatMul { a.matmul(b, shape, width) } else { a.mul(b, shape) })
}
