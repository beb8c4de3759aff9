//! Inner loops of masked functions: public factors at opened values times shares, with the widest vectors of the machine.
//!
//! Both parties must make the same factors: the real numbers here are sums and products that IEEE fixes, in a fixed order and
//! never fused, so vectors of any width give the same.

/// Opened values whose factors are made side by side.
const LANES: usize = 8;

/// Magnitudes below which [`nearest`] is exact: `2^50`.
pub const SHIFTED: f64 = 1_125_899_906_842_624.0;

/// `1.5 * 2^52`: adding it leaves a number's nearest integer, ties to even, in the significand.
pub const SHIFT: f64 = 6_755_399_441_055_744.0;

/// The nearest integer modulo `2^64` of a number below [`SHIFTED`], ties to even.
#[inline(always)]
pub fn nearest(value: f64) -> u64 {
    (value + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits())
}

/// `e^t` for |t| <= 1.
#[inline(always)]
pub fn exp(t: f64) -> f64 {
    EXPONENTIAL.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient)
}

/// `1 / n!`.
const EXPONENTIAL: [f64; 21] = {
    let mut coefficients = [1.0; 21];
    let mut n = 1;
    while n < coefficients.len() {
        coefficients[n] = coefficients[n - 1] / n as f64;
        n += 1;
    }
    coefficients
};

/// `e^(2^power_log2 t)` for |t| <= 1.
#[inline(always)]
pub fn exp_power(t: f64, power_log2: u32) -> f64 {
    (0..power_log2).fold(exp(t), |power, _| power * power)
}

/// Defines a function that runs its body with the widest vectors of this machine.
macro_rules! with_widest_vectors {
    ($(#[$doc:meta])* pub fn $name:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty = $body:ident) => {
        $(#[$doc])*
        pub fn $name($($argument: $kind),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
                fn avx512($($argument: $kind),*) -> $result {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) -> $result {
                    $body($($argument),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the machine has the features.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has the feature.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}

with_widest_vectors! {
    /// Overwrites `out` with the [`nearest`] integers to `values` times `scale`. Returns whether all of these products are at least
    /// `-limit` and below `limit`, at most [`SHIFTED`], once rounded; if not, `out` is arbitrary.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn encode(values: &[f32], scale: f64, limit: f64, out: &mut [u64]) -> bool = encode_body
}

#[inline(always)]
fn encode_body(values: &[f32], scale: f64, limit: f64, out: &mut [u64]) -> bool {
    assert_eq!(values.len(), out.len());
    let mut misfits = 0;
    for (out, value) in out.iter_mut().zip(values) {
        let shifted = f64::from(*value) * scale + SHIFT;
        let rounded = shifted - SHIFT;
        misfits |= u64::from(!(rounded >= -limit && rounded < limit));
        *out = shifted.to_bits().wrapping_sub(SHIFT.to_bits());
    }
    misfits == 0
}

with_widest_vectors! {
    /// The sum of `factors` times `numbers`, modulo `2^64`.
    pub fn weighted_sum(factors: &[u64], numbers: &[u64]) -> u64 = weighted_sum_body
}

#[inline(always)]
fn weighted_sum_body(factors: &[u64], numbers: &[u64]) -> u64 {
    factors.iter().zip(numbers).fold(0, |sum: u64, (f, n)| sum.wrapping_add(f.wrapping_mul(*n)))
}

with_widest_vectors! {
    /// The sum of the [`nearest`] integers to `coefficients` times `scale`, each times one of `numbers`, modulo `2^64`.
    pub fn scaled_sum(coefficients: &[f64], scale: f64, numbers: &[u64]) -> u64 = scaled_sum_body
}

#[inline(always)]
fn scaled_sum_body(coefficients: &[f64], scale: f64, numbers: &[u64]) -> u64 {
    let terms = coefficients.iter().zip(numbers);
    terms.fold(0, |sum: u64, (c, n)| sum.wrapping_add(nearest(c * scale).wrapping_mul(*n)))
}

with_widest_vectors! {
    /// Replaces every number `t` by [`exp_power`] of it.
    pub fn exp_powers(numbers: &mut [f64], power_log2: u32) -> () = exp_powers_body
}

#[inline(always)]
fn exp_powers_body(numbers: &mut [f64], power_log2: u32) {
    // Several vectors side by side, since each step of one waits for the step before.
    const SIDE_BY_SIDE: usize = 4 * LANES;
    let (whole, rest) = numbers.as_chunks_mut::<SIDE_BY_SIDE>();
    for numbers in whole {
        let mut sums = [0.0; SIDE_BY_SIDE];
        for coefficient in EXPONENTIAL.iter().rev() {
            for i in 0..SIDE_BY_SIDE {
                sums[i] = sums[i] * numbers[i] + coefficient;
            }
        }
        for _ in 0..power_log2 {
            sums.iter_mut().for_each(|sum| *sum *= *sum);
        }
        *numbers = sums;
    }
    rest.iter_mut().for_each(|t| *t = exp_power(*t, power_log2));
}

/// Cubic polynomials in one variable, each with coefficients of its own: `a + k u (b + l u (c + u d))`.
#[derive(Clone, Copy)]
pub struct Cubics<'a> {
    /// Of each polynomial.
    pub a: &'a [f64],
    /// Of each polynomial.
    pub b: &'a [f64],
    /// Of each polynomial.
    pub c: &'a [f64],
    /// Of each polynomial.
    pub d: &'a [f64],
    /// Of each polynomial.
    pub k: &'a [f64],
    /// Of each polynomial.
    pub l: &'a [f64],
}

/// Magnitudes below which values of [`Cubics`] are rounded right: `2^62`.
pub const CUBICS_BELOW: f64 = 4_611_686_018_427_387_904.0;

with_widest_vectors! {
    /// The sum of the nearest integers to the values of `cubics` at `u`, ties to even, each times one of `numbers`, modulo
    /// `2^64`. The values are below [`CUBICS_BELOW`].
    pub fn cubic_sum(cubics: Cubics<'_>, u: f64, numbers: &[u64]) -> u64 = cubic_sum_body
}

#[inline(always)]
fn cubic_sum_body(cubics: Cubics<'_>, u: f64, numbers: &[u64]) -> u64 {
    let Cubics { a, b, c, d, k, l } = cubics;
    let len = numbers.len().min(a.len());
    let [a, b, c, d, k, l] = [a, b, c, d, k, l].map(|all| &all[..len]);
    let mut sum = 0_u64;
    for i in 0..len {
        let value = a[i] + (u * k[i]) * (b[i] + (u * l[i]) * (c[i] + u * d[i]));
        // The high half is exact, and even, so the low half rounds as the whole would.
        let shifted = value * LOW_HALF_UNIT + SHIFT;
        let low = value - (shifted - SHIFT) * LOW_HALF;
        let rounded = (shifted.to_bits().wrapping_sub(SHIFT.to_bits()) << 32).wrapping_add(nearest(low));
        sum = sum.wrapping_add(rounded.wrapping_mul(numbers[i]));
    }
    sum
}

/// `2^32`, and what it takes to divide by it.
const LOW_HALF: f64 = 4_294_967_296.0;
const LOW_HALF_UNIT: f64 = 1.0 / LOW_HALF;

with_widest_vectors! {
    /// The sum of `factors` times `numbers`, modulo `2^8`.
    pub fn byte_sum(factors: &[u8], numbers: &[u8]) -> u8 = byte_sum_body
}

#[inline(always)]
fn byte_sum_body(factors: &[u8], numbers: &[u8]) -> u8 {
    let products = factors.iter().zip(numbers).map(|(f, n)| u16::from(*f).wrapping_mul(u16::from(*n)));
    products.fold(0, u16::wrapping_add) as u8
}

with_widest_vectors! {
    /// Adds to each of `sums` a series at its angle, given as cosine and sine, times its entries. Pair j = 1, 2, ... of
    /// `series`, (p, q), has the factors `p cos(j x) + q sin(j x)` and `p sin(j x) - q cos(j x)`, as [`nearest`] integers; an
    /// angle has as many entries for the former, then for the latter.
    pub fn add_waves(
        series: &[(f64, f64)],
        angles: &[(f64, f64)],
        entries: &[u64],
        sums: &mut [u64],
    ) -> () = add_waves_body
}

#[inline(always)]
fn add_waves_body(series: &[(f64, f64)], angles: &[(f64, f64)], entries: &[u64], sums: &mut [u64]) {
    let (terms, row) = (series.len(), 2 * series.len());
    if terms == 0 {
        return;
    }
    for ((angles, entries), sums) in
        angles.chunks(LANES).zip(entries.chunks(LANES * row)).zip(sums.chunks_mut(LANES))
    {
        let (mut c1, mut s1) = ([1.0; LANES], [0.0; LANES]);
        for (i, (cos, sin)) in angles.iter().enumerate() {
            (c1[i], s1[i]) = (*cos, *sin);
        }
        let (mut c, mut s) = ([1.0; LANES], [0.0; LANES]);
        let mut totals = [0_u64; LANES];
        for (j, (p, q)) in series.iter().enumerate() {
            let (mut of_cos, mut of_sin) = ([0; LANES], [0; LANES]);
            for i in 0..LANES {
                // The next multiple of the angle, by addition.
                (c[i], s[i]) = (c[i] * c1[i] - s[i] * s1[i], s[i] * c1[i] + c[i] * s1[i]);
                of_cos[i] = nearest(p * c[i] + q * s[i]);
                of_sin[i] = nearest(p * s[i] - q * c[i]);
            }
            let (mut cosines, mut sines) = ([0; LANES], [0; LANES]);
            for (i, entries) in entries.chunks_exact(row).enumerate() {
                (cosines[i], sines[i]) = (entries[j], entries[terms + j]);
            }
            for i in 0..LANES {
                let product =
                    of_cos[i].wrapping_mul(cosines[i]).wrapping_add(of_sin[i].wrapping_mul(sines[i]));
                totals[i] = totals[i].wrapping_add(product);
            }
        }
        sums.iter_mut().zip(totals).for_each(|(sum, total)| *sum = sum.wrapping_add(total));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Prg, Seed};

    fn random(len: usize, stream: u64) -> Vec<u64> {
        Prg::new(Seed::new([4; 16]), stream).ring(len, 64)
    }

    fn reals(len: usize, stream: u64) -> Vec<f64> {
        random(len, stream)
            .into_iter()
            .map(|v| (v >> 11) as f64 / (1_u64 << 53) as f64 * 20.0 - 10.0)
            .collect()
    }

    /// The parties of a run may be on different machines.
    #[test]
    fn vectors_of_any_width_give_the_same() {
        for len in [0, 1, 7, 8, 31, 64, 130] {
            let (factors, numbers) = (random(len, 1), random(len, 2));
            assert_eq!(weighted_sum(&factors, &numbers), weighted_sum_body(&factors, &numbers));
            let coefficients: Vec<f64> = reals(len, 3).into_iter().map(|c| c * 1e6).collect();
            assert_eq!(
                scaled_sum(&coefficients, 1.37, &numbers),
                scaled_sum_body(&coefficients, 1.37, &numbers)
            );
            let mut exponents: Vec<f64> = reals(len, 9).into_iter().map(|t| t / 10.0).collect();
            let expected: Vec<f64> = exponents.iter().map(|t| exp_power(*t, 2)).collect();
            exp_powers(&mut exponents, 2);
            assert_eq!(exponents, expected);
            let [a, b, c, d, k, l] = [10, 11, 12, 13, 14, 15].map(|stream| reals(len, stream));
            let cubics = Cubics { a: &a, b: &b, c: &c, d: &d, k: &k, l: &l };
            assert_eq!(cubic_sum(cubics, 0.7, &numbers), cubic_sum_body(cubics, 0.7, &numbers));
            let [x, y] = [&factors, &numbers].map(|all| all.iter().map(|v| *v as u8).collect::<Vec<u8>>());
            assert_eq!(byte_sum(&x, &y), weighted_sum(&factors, &numbers) as u8);
            let series: Vec<(f64, f64)> = reals(9, 4)
                .into_iter()
                .map(|c| c * 1e4)
                .zip(reals(9, 5).into_iter().map(|c| c * 1e4))
                .collect();
            let angles: Vec<(f64, f64)> = reals(len, 6).into_iter().map(|x| (x.cos(), x.sin())).collect();
            let entries = random(18 * len, 7);
            let [mut wide, mut narrow] = [0; 2].map(|_| random(len, 8));
            add_waves(&series, &angles, &entries, &mut wide);
            add_waves_body(&series, &angles, &entries, &mut narrow);
            assert_eq!(wide, narrow);
        }
    }

    #[test]
    fn waves_are_those_of_the_multiples_of_each_angle() {
        let series: Vec<(f64, f64)> =
            reals(6, 1).into_iter().zip(reals(6, 2)).map(|(p, q)| (p * 1e3, q * 1e3)).collect();
        let angles = reals(11, 3);
        let points: Vec<(f64, f64)> = angles.iter().map(|x| (x.cos(), x.sin())).collect();
        // With a single entry of one, a factor stands alone.
        for place in 0..12 {
            let mut entries = vec![0; 12 * 11];
            entries.iter_mut().skip(place).step_by(12).for_each(|entry| *entry = 1);
            let mut sums = vec![5; 11];
            add_waves(&series, &points, &entries, &mut sums);
            for (x, sum) in angles.iter().zip(sums) {
                let ((p, q), j) = (series[place % 6], (place % 6 + 1) as f64);
                let (c, s) = ((j * x).cos(), (j * x).sin());
                let expected = if place < 6 { p * c + q * s } else { p * s - q * c };
                assert!(((sum.wrapping_sub(5) as i64) as f64 - expected).abs() < 0.5001, "{place}");
            }
        }
    }

    #[test]
    fn encoded_numbers_are_nearest_and_within_the_limit() {
        let values: Vec<f32> = (-40..41).map(|i| i as f32 / 8.0).collect();
        let mut out = vec![0; values.len()];
        assert!(encode(&values, 4.0, 21.0, &mut out));
        for (value, found) in values.iter().zip(&out) {
            assert_eq!(*found as i64, f64::from(value * 4.0).round_ties_even() as i64, "{value}");
        }
        // From 39 eighths on, four times as much rounds to 20.
        assert!(!encode(&values, 4.0, 20.0, &mut out));
        assert!(encode(&values[..79], 4.0, 20.0, &mut out[..79]));
        for misfit in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 5.25] {
            assert!(!encode(&[0.0, misfit, 1.0], 4.0, 21.0, &mut out[..3]), "{misfit}");
        }
        let most = [(SHIFTED / 2.0) as f32, -SHIFTED as f32];
        assert!(encode(&most, 1.0, SHIFTED, &mut out[..2]));
        assert_eq!([out[0] as i64, out[1] as i64], [1 << 49, -1 << 50]);
        assert!(!encode(&[SHIFTED as f32], 1.0, SHIFTED, &mut out[..1]));
    }

    #[test]
    fn cubics_are_rounded_as_the_library_does() {
        let numbers = [1];
        for (a, b, c, d) in [
            (0.5, 0.0, 0.0, 0.0),
            (1e18, -3.5e17, 2e16, 7e15),
            (-4e18, 0.25, -0.5, 1.0),
            (2e9, 2.5, 0.0, 0.0),
        ] {
            for u in [0.0, 0.125, 0.5, 0.75, 0.9999] {
                let value: f64 = a + (u * 3.0) * (b + (u * 1.0) * (c + u * d));
                let cubics = Cubics { a: &[a], b: &[b], c: &[c], d: &[d], k: &[3.0], l: &[1.0] };
                assert_eq!(cubic_sum(cubics, u, &numbers) as i64, value.round_ties_even() as i64, "{value}");
            }
        }
    }

    #[test]
    fn nearest_integers_tie_to_even() {
        for (value, expected) in
            [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (1e15 - 0.25, 1_000_000_000_000_000)]
        {
            assert_eq!(nearest(value) as i64, expected, "{value}");
        }
    }
}
