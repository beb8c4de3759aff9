//! Real functions, of IEEE additions, multiplications, divisions and comparisons alone.
//!
//! They are alike on every machine, which the platform's mathematics library is not, and loops over them become
//! vectors. All compute in f64, so that a result rounded to f32 is the nearest but for near ties. The less frequent
//! ones come from `libm`, which is portable code of the same kind.

const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// The upper bits of `ln 2`: a product with an integer below 2^20 is exact.
const LN_2_UPPER: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOWER: f64 = 1.908_214_929_270_587_7e-10;
/// Adding 1.5 * 2^52 leaves the nearest integer in the low bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;

/// Of `e^x` by powers of `x`.
const EXP: [f64; 14] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
    1.0 / 479_001_600.0,
    1.0 / 6_227_020_800.0,
];

/// `e^x` to a few units of the last place of f64; below -708 it is `e^-708`, above 709.4 infinite.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -708.0 { -708.0 } else { x };
    let shifted = x * LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let rest = (x - n * LN_2_UPPER) - n * LN_2_LOWER;
    let mut sum = EXP[EXP.len() - 1];
    for c in EXP[..EXP.len() - 1].iter().rev() {
        sum = sum * rest + c;
    }
    sum * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    exp(f64::from(x)) as f32
}

#[inline(always)]
fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    logistic(f64::from(x)) as f32
}

#[inline(always)]
pub fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x * logistic(x)) as f32
}

#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let small = x - x * x * x / 3.0;
    let large = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    (if x.abs() < 1.0 / 4096.0 { small } else { large }) as f32
}

/// `x (1 + tanh u) / 2` is `x / (1 + e^-2u)`.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    const TWO_ROOT_TWO_OVER_PI: f64 = 2.0 * 0.797_884_560_802_865_4;
    let x = f64::from(x);
    (x * logistic(TWO_ROOT_TWO_OVER_PI * (x + 0.044715 * x * x * x))) as f32
}

#[inline(always)]
pub fn gelu_erf(x: f32) -> f32 {
    let x = f64::from(x);
    (x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) / 2.0) as f32
}

#[inline(always)]
pub fn erf_f32(x: f32) -> f32 {
    erf(f64::from(x)) as f32
}

/// Coefficients of `erf(x) / x` by powers of `x^2 / 8 - 1`: its interpolation at the Chebyshev points of 0 <= x <= 4.
const ERF: [f64; 23] = [
    0.35353099564340495,
    -0.17657623330392602,
    0.13167511689547207,
    -0.10771044230403215,
    0.09020899404424358,
    -0.07472787156784315,
    0.05988690674393009,
    -0.04576504084136504,
    0.033060611596419896,
    -0.02247402944863727,
    0.01434973873577006,
    -0.008604359881842768,
    0.004852986669306072,
    -0.0025830290325423205,
    0.0012940700205056187,
    -0.0006048631720031436,
    0.0002730868781407246,
    -0.00012649419013464726,
    5.0516480984461565e-05,
    -1.2635295810882527e-05,
    5.069598611100321e-06,
    -4.586436654384096e-06,
    1.4883137738024427e-06,
];

/// The error function, within 1e-12 for `|x| < 4` and 2e-8 beyond, where it is taken as 1: rounded to f32 it is exact
/// but for near ties.
#[inline(always)]
pub fn erf(x: f64) -> f64 {
    let t = x * x / 8.0 - 1.0;
    let mut sum = 0.0;
    for c in ERF.iter().rev() {
        sum = sum * t + c;
    }
    if x.abs() >= 4.0 { 1f64.copysign(x) } else { x * sum }
}

pub fn power(x: f32, y: f64) -> f32 {
    libm::pow(f64::from(x), y) as f32
}

pub fn ln(x: f32) -> f32 {
    libm::log(f64::from(x)) as f32
}

pub fn sin(x: f32) -> f32 {
    libm::sin(f64::from(x)) as f32
}

pub fn cos(x: f32) -> f32 {
    libm::cos(f64::from(x)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Maclaurin series of erf times `e^(x^2)`, all terms of one sign, to the last bit of f64.
    fn series(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > sum.abs() * 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn erf_follows_its_series() {
        for i in -4500..=4500 {
            let x = f64::from(i) / 1000.0;
            let bound = if x.abs() < 4.0 { 1e-12 } else { 2e-8 };
            assert!((erf(x) - series(x)).abs() < bound, "erf({x})");
            let x = x as f32;
            let exact = series(f64::from(x));
            assert!((f64::from(erf(f64::from(x)) as f32) - exact).abs() <= 6e-8 * exact.abs(), "erf({x})");
        }
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
        assert!(erf(f64::NAN).is_nan());
        assert_eq!(erf(-0.0).to_bits(), (-0.0f64).to_bits());
    }

    /// The function by its rounded definition in f64, from the platform's library.
    #[track_caller]
    fn follows(name: &str, found: impl Fn(f32) -> f32, expected: impl Fn(f64) -> f64) {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let (found, expected) = (found(x), expected(f64::from(x)) as f32);
            let close = found == expected
                || found.is_nan() && expected.is_nan()
                || (found - expected).abs() <= 1.2e-7 * expected.abs().max(f32::MIN_POSITIVE);
            assert!(close, "{name}({x:e}) is {found:e}, not {expected:e}");
        }
    }

    #[test]
    fn functions_are_right_to_the_last_bit_of_f32() {
        follows("exp", exp_f32, f64::exp);
        follows("tanh", tanh, f64::tanh);
        follows("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        follows("silu", silu, |x| x * (1.0 / (1.0 + (-x).exp())));
        follows("erf", erf_f32, erf);
        follows("gelu_tanh", gelu_tanh, |x| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x * (1.0 / (1.0 + (-2.0 * u).exp()))
        });
        follows("ln", ln, f64::ln);
        follows("sin", |x| sin(x % 1000.0), |x| (x % 1000.0).sin());
        follows("cos", |x| cos(x % 1000.0), |x| (x % 1000.0).cos());
        follows("power", |x| power(x, 1.5), |x| x.powf(1.5));
    }
}
