//! Arithmetic on single elements, broadcast as numpy does.

use marill_plaintext::{DType, Op, Tensor};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use super::super::tensors;
use crate::diagnostic::{Diagnostic, Problem};

type Results = Result<Vec<Operand>, Diagnostic>;

macro_rules! direct {
    ($($name:ident: $op:ident / $operands:literal;)*) => {
        $(pub(super) fn $name(context: &mut Context, node: &OnnxNode) -> Results {
            let operands = (0..$operands).map(|index| node.need(index)).collect::<Result<Vec<_>, _>>()?;
            Ok(vec![context.apply(Op::$op, &operands)?])
        })*
    };
}

direct! {
    add: Add / 2;
    sub: Sub / 2;
    mul: Mul / 2;
    div: Div / 2;
    neg: Neg / 1;
    abs: Abs / 1;
    floor: Floor / 1;
    sqrt: Sqrt / 1;
    reciprocal: Reciprocal / 1;
    exp: Exp / 1;
    log: Log / 1;
    sin: Sin / 1;
    cos: Cos / 1;
    erf: Erf / 1;
    tanh: Tanh / 1;
    sigmoid: Sigmoid / 1;
}

/// 1, 0 or -1.
pub(super) fn sign(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let zero = context.scalar(0.0);
    let zero = context.cast(&zero, x.dtype())?;
    let (above, below) = (context.apply(Op::Greater, &[x, &zero])?, context.apply(Op::Less, &[x, &zero])?);
    let (above, below) = (context.cast(&above, x.dtype())?, context.cast(&below, x.dtype())?);
    Ok(vec![context.apply(Op::Sub, &[&above, &below])?])
}

pub(super) fn ceil(context: &mut Context, node: &OnnxNode) -> Results {
    let negative = context.apply(Op::Neg, &[node.need(0)?])?;
    let floor = context.apply(Op::Floor, &[&negative])?;
    Ok(vec![context.apply(Op::Neg, &[&floor])?])
}

pub(super) fn relu(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    if x.dtype() == DType::I64 {
        let zero = context.known(Tensor::scalar_i64(0));
        return Ok(vec![context.apply(Op::Max, &[x, &zero])?]);
    }
    Ok(vec![context.apply(Op::Relu, &[x])?])
}

pub(super) fn pow(context: &mut Context, node: &OnnxNode) -> Results {
    let (base, exponent) = (node.need(0)?, node.need(1)?);
    if base.dtype() == DType::I64 && exponent.dtype() == DType::F32 {
        // ONNX gives the base's type.
        let wide = context.cast(base, DType::F32)?;
        let power = context.apply(Op::Pow, &[&wide, exponent])?;
        return Ok(vec![context.cast(&power, DType::I64)?]);
    }
    Ok(vec![context.apply(Op::Pow, &[base, exponent])?])
}

/// `a - b * floor(a / b)`, whose sign is the divisor's; with `fmod` the dividend's.
pub(super) fn modulo(context: &mut Context, node: &OnnxNode) -> Results {
    let (a, b) = (node.need(0)?, node.need(1)?);
    if a.dtype() != DType::I64 {
        return Err(node.form("floats", "Mod of integers"));
    }
    let mut remainder = |a: &Operand| {
        let quotient = context.apply(Op::Div, &[a, b])?;
        let multiple = context.apply(Op::Mul, &[&quotient, b])?;
        context.apply(Op::Sub, &[a, &multiple])
    };
    let truncated = remainder(a)?;
    if node.flag("fmod", false) {
        return Ok(vec![truncated]);
    }
    // `Div` truncates: shifting by the divisor brings the remainder to the divisor's side of zero.
    let quotient_shifted = context.apply(Op::Add, &[&truncated, b])?;
    let quotient = context.apply(Op::Div, &[&quotient_shifted, b])?;
    let multiple = context.apply(Op::Mul, &[&quotient, b])?;
    Ok(vec![context.apply(Op::Sub, &[&quotient_shifted, &multiple])?])
}

fn fold(context: &mut Context, node: &OnnxNode, op: &Op) -> Result<Operand, Diagnostic> {
    let operands = node.all()?;
    let mut result = operands[0].clone();
    for operand in &operands[1..] {
        result = context.apply(op.clone(), &[&result, operand])?;
    }
    Ok(result)
}

pub(super) fn max(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![fold(context, node, &Op::Max)?])
}

pub(super) fn min(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![fold(context, node, &Op::Min)?])
}

pub(super) fn sum(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![fold(context, node, &Op::Add)?])
}

pub(super) fn mean(context: &mut Context, node: &OnnxNode) -> Results {
    let sum = fold(context, node, &Op::Add)?;
    let count = context.scalar(1.0 / node.all()?.len() as f32);
    Ok(vec![context.apply(Op::Mul, &[&sum, &count])?])
}

pub(super) fn clip(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?.clone();
    let bound = |index: usize, default: f32| match node.input(index) {
        None => Some(default),
        Some(bound) => {
            bound.known().and_then(|tensor| tensor.to_f32_vec().ok()).and_then(|v| v.first().copied())
        }
    };
    if x.dtype() == DType::F32
        && let (Some(min), Some(max)) = (bound(1, f32::MIN), bound(2, f32::MAX))
    {
        return Ok(vec![context.apply(Op::Clip { min, max }, &[&x])?]);
    }
    let mut result = x;
    for (index, op) in [(1, Op::Max), (2, Op::Min)] {
        if let Some(bound) = node.input(index) {
            result = context.apply(op, &[&result, bound])?;
        }
    }
    Ok(vec![result])
}

pub(super) fn cast(context: &mut Context, node: &OnnxNode) -> Results {
    let to = node.int("to", 0);
    let element = i32::try_from(to).ok().and_then(tensors::element);
    let Some(element) = element else {
        let problem = Problem::ElementType { found: format!("TensorProto.DataType {to}") };
        return Err(Diagnostic::new(node.label.clone(), problem));
    };
    Ok(vec![context.cast(node.need(0)?, element.dtype())?])
}

pub(super) fn cast_like(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![context.cast(node.need(0)?, node.need(1)?.dtype())?])
}
