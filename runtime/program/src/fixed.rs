//! Fixed point, and the few real functions that both parties must round alike.
//!
//! A public factor that multiplies a share has to be the same integer at both parties, so nothing here calls the
//! platform's mathematics library: only IEEE additions and multiplications, which are exact everywhere.

use std::sync::OnceLock;

use marill_kernels::functions::{SHIFT, SHIFTED};
pub use marill_kernels::functions::{exp, exp_power};

/// `2^width - 1`, for widths up to 64.
pub fn mask(width: u32) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// The low `width` bits of `value` as a signed integer.
pub fn signed(value: u64, width: u32) -> i64 {
    let shift = 64 - width.clamp(1, 64);
    ((value << shift) as i64) >> shift
}

/// `2^exponent`, exactly.
#[inline]
pub fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent.clamp(-1022, 1023)) as u64) << 52)
}

/// The nearest integer, ties to even. The addition is inlined where the library's rounding would be a call.
#[inline]
fn nearest(value: f64) -> f64 {
    if value.abs() < SHIFTED { (value + SHIFT) - SHIFT } else { value.round_ties_even() }
}

/// `round(value * 2^frac)` modulo 2^64; `None` where it does not fit a signed ring of `width` bits.
#[inline]
pub fn encode(value: f64, width: u32, frac: u32) -> Option<u64> {
    let scaled = nearest(value * power_of_two(frac as i32));
    let limit = power_of_two(width as i32 - 1);
    (scaled >= -limit && scaled < limit).then_some(scaled as i64 as u64)
}

/// The real number that the low `width` bits of `value` stand for.
pub fn decode(value: u64, width: u32, frac: u32) -> f64 {
    signed(value, width) as f64 * power_of_two(-(frac as i32))
}

/// `round(value * 2^frac)` modulo 2^64, for values far below the ring's bounds.
#[inline]
pub fn round_to(value: f64, frac: u32) -> u64 {
    nearest(value * power_of_two(frac as i32)) as i64 as u64
}

/// `(cos, sin)` of `2 pi * numerator / 2^bits`, `bits` at most 32.
pub fn cos_sin(numerator: u64, bits: u32) -> (f64, f64) {
    let turn = numerator & mask(bits);
    let quarters = (turn << 2) >> bits;
    let rest = (turn << 2) & mask(bits);
    let angle = rest as f64 * power_of_two(-(bits as i32)) * std::f64::consts::FRAC_PI_2;
    let (c, s) = series(angle);
    match quarters {
        0 => (c, s),
        1 => (-s, c),
        2 => (-c, -s),
        _ => (s, -c),
    }
}

/// Periods up to 2^32 have tables, made once.
const TABLE_BITS: u32 = 32;

/// [`cos_sin`] of many angles of one period: of an angle's high and low bits from two tables that fit the first-level
/// cache, and by addition of their sum.
#[derive(Clone, Copy)]
pub struct Circle {
    bits: u32,
    tables: Option<&'static Tables>,
}

/// Cosine and sine of the multiples of the high bits' unit, and of the low bits' one.
struct Tables {
    high: Vec<(f64, f64)>,
    low: Vec<(f64, f64)>,
}

impl Circle {
    /// Angles that are multiples of `2 pi / 2^bits`.
    pub fn new(bits: u32) -> Circle {
        static TABLES: [OnceLock<Tables>; TABLE_BITS as usize + 1] =
            [const { OnceLock::new() }; TABLE_BITS as usize + 1];
        let low_bits = bits / 2;
        let make = || Tables {
            high: (0..1u64 << (bits - low_bits)).map(|n| cos_sin(n << low_bits, bits)).collect(),
            low: (0..1u64 << low_bits).map(|n| cos_sin(n, bits)).collect(),
        };
        let tables = TABLES.get(bits as usize).map(|tables| tables.get_or_init(make));
        Circle { bits, tables }
    }

    /// `(cos, sin)` of `2 pi * numerator / 2^bits`.
    #[inline]
    pub fn at(&self, numerator: u64) -> (f64, f64) {
        let Some(Tables { high, low }) = self.tables else { return cos_sin(numerator, self.bits) };
        let low_bits = self.bits / 2;
        let turn = numerator & mask(self.bits);
        let ((c, s), (small_c, small_s)) =
            (high[(turn >> low_bits) as usize], low[(turn & mask(low_bits)) as usize]);
        (c * small_c - s * small_s, s * small_c + c * small_s)
    }
}

/// Taylor series on [0, pi / 2), through the half angle.
fn series(angle: f64) -> (f64, f64) {
    let half = angle * 0.5;
    let square = half * half;
    let (mut c, mut s) = (1.0, 1.0);
    for n in (1..=9).rev() {
        let even = f64::from(2 * n - 1) * f64::from(2 * n);
        let odd = f64::from(2 * n) * f64::from(2 * n + 1);
        c = 1.0 - c * square / even;
        s = 1.0 - s * square / odd;
    }
    let s = s * half;
    (1.0 - 2.0 * s * s, 2.0 * s * c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigonometry_and_exponential_match_the_library() {
        for bits in [1, 4, 13, 24] {
            for n in 0..1000u64 {
                let numerator = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(bits);
                let angle = std::f64::consts::TAU * numerator as f64 / power_of_two(bits as i32);
                let (c, s) = cos_sin(numerator, bits);
                assert!(
                    (c - angle.cos()).abs() < 1e-14 && (s - angle.sin()).abs() < 1e-14,
                    "{numerator}/{bits}"
                );
                let (tc, ts) = Circle::new(bits).at(numerator);
                assert!((c - tc).abs() < 1e-14 && (s - ts).abs() < 1e-14, "{numerator}/{bits}");
            }
        }
        for n in -100..=100 {
            let t = f64::from(n) / 100.0;
            assert!((exp(t) - t.exp()).abs() < 1e-15 * 4.0);
            for log2 in 0..=4 {
                let expected = (t * f64::from(1 << log2)).exp();
                assert!((exp_power(t, log2) / expected - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn encoding_rounds_and_refuses_what_does_not_fit() {
        assert_eq!(encode(1.5, 16, 4), Some(24));
        assert_eq!(encode(-1.0, 16, 4), Some((-16i64) as u64));
        assert_eq!(encode(128.0, 8, 0), None);
        assert_eq!(encode(-128.0, 8, 0), Some((-128i64) as u64));
        assert_eq!(encode(f64::NAN, 8, 0), None);
        assert_eq!(decode(0xff, 8, 4), -1.0 / 16.0);
    }
}
