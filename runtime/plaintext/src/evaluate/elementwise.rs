//! Element-wise arithmetic and logic.

use super::parallel::{Loop, split, vectorised};
use super::walk::{Walk, broadcast_strides, runs};
use super::{Element, elements, foreign, real, zeros};
use crate::shape::element_count;
use crate::tensor::reserve;
use crate::{DType, GeluForm, Op, OpError, Tensor};

/// Nanoseconds for an element, roughly.
const NS: usize = 1;

struct Map<'a, S, T, F> {
    x: &'a [S],
    out: &'a mut [T],
    f: F,
}

impl<S: Copy, T, F: Fn(S) -> T> Loop for Map<'_, S, T, F> {
    #[inline(always)]
    fn run(self) {
        for (y, x) in self.out.iter_mut().zip(self.x) {
            *y = (self.f)(*x);
        }
    }
}

/// Maps every element.
pub fn map<S: Element, T: Element>(x: &Tensor, f: impl Fn(S) -> T + Copy + Sync) -> Result<Tensor, OpError> {
    let data = elements::<S>(x)?;
    let mut out = zeros::<T>(data.len())?;
    split(&mut out, 1, NS, |first, out| vectorised(Map { x: &data[first..first + out.len()], out, f }));
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
        (Op::Exp, _) => map(x, real::exp_f32),
        (Op::Log, _) => map(x, real::ln),
        (Op::Sin, _) => map(x, real::sin),
        (Op::Cos, _) => map(x, real::cos),
        (Op::Erf, _) => map(x, real::erf_f32),
        (Op::Tanh, _) => map(x, real::tanh),
        (Op::Sigmoid, _) => map(x, real::sigmoid),
        (Op::Relu, _) => map(x, |x: f32| if x < 0.0 { 0.0 } else { x }),
        (&Op::Clip { min, max }, _) => map(x, |x: f32| {
            let raised = if x < min { min } else { x };
            if raised > max { max } else { raised }
        }),
        (Op::Not, _) => map(x, |x: bool| !x),
        (Op::IsNan, _) => map(x, f32::is_nan),
        (Op::Gelu { form: GeluForm::Erf }, _) => map(x, real::gelu_erf),
        (Op::Gelu { form: GeluForm::Tanh }, _) => map(x, real::gelu_tanh),
        (Op::Silu, _) => map(x, real::silu),
        _ => Err(foreign(op, 0, x.dtype())),
    }
}

pub fn binary(op: &Op, x: &Tensor, y: &Tensor, shape: Vec<usize>) -> Result<Tensor, OpError> {
    match (x.dtype(), y.dtype()) {
        (DType::F32, DType::F32) => binary_f32(op, x, y, shape),
        (DType::I64, DType::I64) => binary_i64(op, x, y, shape),
        (DType::F32, DType::I64) => zip(x, y, shape, |x: f32, y: i64| real::power(x, y as f64)),
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
        Op::Pow if y.len() == 1 && elements::<f32>(y)?[0] == 2.0 => zip(x, y, shape, |x: f32, _: f32| x * x),
        Op::Pow => zip(x, y, shape, |x: f32, y: f32| real::power(x, f64::from(y))),
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
            let infinite = zip(x, y, shape.clone(), |x: i64, y: i64| x == 0 && y < 0)?;
            if elements::<bool>(&infinite)?.contains(&true) {
                return Err(OpError::DivisionByZero { op: op.name() });
            }
            zip(x, y, shape, power)
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

/// Elements from `first` on of `f` over two tensors walked in step.
struct Zip<'a, A, B, R, F> {
    walk: &'a Walk<2>,
    first: usize,
    x: &'a [A],
    y: &'a [B],
    out: &'a mut [R],
    f: F,
}

impl<A: Copy, B: Copy, R, F: Fn(A, B) -> R> Loop for Zip<'_, A, B, R, F> {
    #[inline(always)]
    fn run(self) {
        let Zip { walk, first, x, y, out, f } = self;
        let mut rest = &mut out[..];
        let elements = first..first + rest.len();
        walk.visit(elements, |[i, j], length| {
            let (line, after) = std::mem::take(&mut rest).split_at_mut(length);
            rest = after;
            let (i, j) = (i as usize, j as usize);
            match walk.steps {
                [1, 1] => {
                    let pairs = x[i..i + length].iter().zip(&y[j..j + length]);
                    line.iter_mut().zip(pairs).for_each(|(z, (&x, &y))| *z = f(x, y));
                }
                [1, 0] => {
                    let y = y[j];
                    line.iter_mut().zip(&x[i..i + length]).for_each(|(z, &x)| *z = f(x, y));
                }
                [0, 1] => {
                    let x = x[i];
                    line.iter_mut().zip(&y[j..j + length]).for_each(|(z, &y)| *z = f(x, y));
                }
                [s, t] => {
                    for (n, z) in line.iter_mut().enumerate() {
                        *z = f(x[i + n * s as usize], y[j + n * t as usize]);
                    }
                }
            }
        });
    }
}

fn zip<A: Element, B: Element, R: Element>(
    x: &Tensor,
    y: &Tensor,
    shape: Vec<usize>,
    f: impl Fn(A, B) -> R + Copy + Sync,
) -> Result<Tensor, OpError> {
    let (a, b) = (elements::<A>(x)?, elements::<B>(y)?);
    let mut out = zeros::<R>(element_count(&shape)?)?;
    let strides = [broadcast_strides(x.shape(), &shape), broadcast_strides(y.shape(), &shape)];
    let walk = Walk::new(&shape, [&strides[0], &strides[1]], [0, 0]);
    split(&mut out, 1, NS, |first, out| vectorised(Zip { walk: &walk, first, x: &a, y: &b, out, f }));
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
