//! Element-wise arithmetic and logic.

use super::walk::{broadcast_strides, runs};
use super::{Element, elements, foreign};
use crate::shape::element_count;
use crate::tensor::reserve;
use crate::{DType, GeluForm, Op, OpError, Tensor};

/// Maps every element.
pub fn map<S: Element, T: Element>(x: &Tensor, f: impl Fn(S) -> T) -> Result<Tensor, OpError> {
    let data = elements::<S>(x)?;
    let mut out = reserve(data.len())?;
    out.extend(data.iter().map(|&x| f(x)));
    T::tensor(x.shape().to_vec(), out)
}

pub fn unary(op: &Op, x: &Tensor) -> Result<Tensor, OpError> {
    match (op, x.dtype()) {
        (Op::Neg, DType::I64) => map(x, i64::wrapping_neg),
        (Op::Abs, DType::I64) => map(x, i64::wrapping_abs),
        (Op::Neg, _) => map(x, |x: f32| -x),
        (Op::Abs, _) => map(x, f32::abs),
        (Op::Floor, _) => map(x, f32::floor),
        (Op::Sqrt, _) => map(x, f32::sqrt),
        (Op::Reciprocal, _) => map(x, |x: f32| 1.0 / x),
        (Op::Rsqrt, _) => map(x, |x: f32| (1.0 / f64::from(x).sqrt()) as f32),
        (Op::Exp, _) => map(x, f32::exp),
        (Op::Log, _) => map(x, f32::ln),
        (Op::Sin, _) => map(x, f32::sin),
        (Op::Cos, _) => map(x, f32::cos),
        (Op::Erf, _) => map(x, |x: f32| erf(f64::from(x)) as f32),
        (Op::Tanh, _) => map(x, f32::tanh),
        (Op::Sigmoid, _) => map(x, sigmoid),
        (Op::Relu, _) => map(x, |x: f32| if x < 0.0 { 0.0 } else { x }),
        (Op::Clip { min, max }, _) => map(x, |x: f32| {
            let raised = if x < *min { *min } else { x };
            if raised > *max { *max } else { raised }
        }),
        (Op::Not, _) => map(x, |x: bool| !x),
        (Op::IsNan, _) => map(x, f32::is_nan),
        (Op::Gelu { form: GeluForm::Erf }, _) => map(x, |x: f32| {
            let x = f64::from(x);
            (x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) / 2.0) as f32
        }),
        (Op::Gelu { form: GeluForm::Tanh }, _) => map(x, gelu_tanh),
        (Op::Silu, _) => map(x, |x: f32| x * sigmoid(x)),
        _ => Err(foreign(op, 0, x.dtype())),
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f32) -> f32 {
    let x = f64::from(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    (x * (1.0 + inner.tanh()) / 2.0) as f32
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
pub fn erf(x: f64) -> f64 {
    if x.abs() >= 4.0 {
        return x.signum();
    }
    let t = x * x / 8.0 - 1.0;
    x * ERF.iter().rev().fold(0.0, |sum, c| sum * t + c)
}

pub fn binary(op: &Op, x: &Tensor, y: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match (x.dtype(), y.dtype()) {
        (DType::F32, DType::F32) => binary_f32(op, x, y, shape),
        (DType::I64, DType::I64) => binary_i64(op, x, y, shape),
        (DType::F32, DType::I64) => zip(x, y, shape, |x: f32, y: i64| f64::from(x).powf(y as f64) as f32),
        (DType::Bool, _) => match op {
            Op::And => zip(x, y, shape, |x: bool, y: bool| x && y),
            Op::Or => zip(x, y, shape, |x: bool, y: bool| x || y),
            Op::Equal => zip(x, y, shape, |x: bool, y: bool| x == y),
            _ => Err(foreign(op, 0, DType::Bool)),
        },
        (_, found) => Err(foreign(op, 1, found)),
    }
}

fn binary_f32(op: &Op, x: &Tensor, y: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match op {
        Op::Add => zip(x, y, shape, |x: f32, y: f32| x + y),
        Op::Sub => zip(x, y, shape, |x: f32, y: f32| x - y),
        Op::Mul => zip(x, y, shape, |x: f32, y: f32| x * y),
        Op::Div => zip(x, y, shape, |x: f32, y: f32| x / y),
        Op::Pow => zip(x, y, shape, |x: f32, y: f32| if y == 2.0 { x * x } else { x.powf(y) }),
        Op::Max => zip(x, y, shape, |x: f32, y: f32| if x.is_nan() || x > y { x } else { y }),
        Op::Min => zip(x, y, shape, |x: f32, y: f32| if x.is_nan() || x < y { x } else { y }),
        Op::Equal => zip(x, y, shape, |x: f32, y: f32| x == y),
        Op::Less => zip(x, y, shape, |x: f32, y: f32| x < y),
        Op::LessOrEqual => zip(x, y, shape, |x: f32, y: f32| x <= y),
        Op::Greater => zip(x, y, shape, |x: f32, y: f32| x > y),
        Op::GreaterOrEqual => zip(x, y, shape, |x: f32, y: f32| x >= y),
        _ => Err(foreign(op, 0, DType::F32)),
    }
}

fn binary_i64(op: &Op, x: &Tensor, y: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match op {
        Op::Add => zip(x, y, shape, i64::wrapping_add),
        Op::Sub => zip(x, y, shape, i64::wrapping_sub),
        Op::Mul => zip(x, y, shape, i64::wrapping_mul),
        Op::Div => {
            if !shape.contains(&0) && elements::<i64>(y)?.contains(&0) {
                return Err(OpError::DivisionByZero { op: op.name() });
            }
            zip(x, y, shape, i64::wrapping_div)
        }
        Op::Pow => {
            let mut infinite = false;
            let powers = zip(x, y, shape, |x: i64, y: i64| {
                infinite |= x == 0 && y < 0;
                power(x, y)
            });
            if infinite { Err(OpError::DivisionByZero { op: op.name() }) } else { powers }
        }
        Op::Max => zip(x, y, shape, i64::max),
        Op::Min => zip(x, y, shape, i64::min),
        Op::Equal => zip(x, y, shape, |x: i64, y: i64| x == y),
        Op::Less => zip(x, y, shape, |x: i64, y: i64| x < y),
        Op::LessOrEqual => zip(x, y, shape, |x: i64, y: i64| x <= y),
        Op::Greater => zip(x, y, shape, |x: i64, y: i64| x > y),
        Op::GreaterOrEqual => zip(x, y, shape, |x: i64, y: i64| x >= y),
        _ => Err(foreign(op, 0, DType::I64)),
    }
}

/// `base ^ exponent`, wrapping; with a negative exponent the reciprocal, truncated toward zero.
fn power(base: i64, exponent: i64) -> i64 {
    if exponent < 0 {
        return match (base, exponent % 2 == 0) {
            (1, _) | (-1, true) => 1,
            (-1, false) => -1,
            _ => 0,
        };
    }
    let (mut result, mut square, mut rest) = (1i64, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        rest >>= 1;
    }
    result
}

fn zip<A: Element, B: Element, R: Element>(
    x: &Tensor,
    y: &Tensor,
    shape: Vec<usize>,
    mut f: impl FnMut(A, B) -> R,
) -> Result<Tensor, OpError> {
    let (a, b) = (elements::<A>(x)?, elements::<B>(y)?);
    let mut out: Vec<R> = reserve(element_count(&shape)?)?;
    let strides = [broadcast_strides(x.shape(), &shape), broadcast_strides(y.shape(), &shape)];
    runs(&shape, [&strides[0], &strides[1]], [0, 0], |[i, j], length, steps| {
        let (i, j) = (i as usize, j as usize);
        match steps {
            [1, 1] => {
                out.extend(a[i..i + length].iter().zip(&b[j..j + length]).map(|(&x, &y)| f(x, y)));
            }
            [1, 0] => {
                let y = b[j];
                out.extend(a[i..i + length].iter().map(|&x| f(x, y)));
            }
            [0, 1] => {
                let x = a[i];
                out.extend(b[j..j + length].iter().map(|&y| f(x, y)));
            }
            [s, t] => out.extend((0..length).map(|n| f(a[i + n * s as usize], b[j + n * t as usize]))),
        }
    });
    R::tensor(shape, out)
}

/// `x` where `condition` holds, else `y`.
pub fn select<T: Element>(
    condition: &Tensor,
    x: &Tensor,
    y: &Tensor,
    shape: Vec<usize>,
) -> Result<Tensor, OpError> {
    let (c, a, b) = (elements::<bool>(condition)?, elements::<T>(x)?, elements::<T>(y)?);
    let mut out: Vec<T> = reserve(element_count(&shape)?)?;
    let strides = [condition, x, y].map(|operand| broadcast_strides(operand.shape(), &shape));
    runs(&shape, [&strides[0], &strides[1], &strides[2]], [0; 3], |offsets, length, steps| {
        out.extend((0..length as isize).map(|n| {
            let [i, j, k] = [0, 1, 2].map(|operand| (offsets[operand] + n * steps[operand]) as usize);
            if c[i] { a[j] } else { b[k] }
        }));
    });
    T::tensor(shape, out)
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

    #[test]
    fn integer_powers() {
        let table =
            [(2, 10, 1024), (-3, 3, -27), (7, 0, 1), (0, 0, 1), (2, -1, 0), (-1, -3, -1), (-1, i64::MIN, 1)];
        for (base, exponent, result) in table {
            assert_eq!(power(base, exponent), result, "{base}^{exponent}");
        }
        assert_eq!(power(2, 64), 0);
    }
}
