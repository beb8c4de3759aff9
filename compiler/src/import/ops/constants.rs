//! Values that the file or the shapes alone decide.

use marill_plaintext::{DType, Tensor, TensorType};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use super::super::tensors;
use crate::diagnostic::Diagnostic;
use crate::ir::Constant;

type Results = Result<Vec<Operand>, Diagnostic>;

/// Most elements of a `Range`.
const MAX_RANGE: usize = 1 << 20;

pub(super) fn constant(context: &mut Context, node: &OnnxNode) -> Results {
    let tensor = if let Some(constant) = &node.value {
        return Ok(vec![context.stored(&context.label, constant.clone())]);
    } else if node.has("value_float") {
        Tensor::scalar_f32(node.float("value_float", 0.0))
    } else if node.has("value_int") {
        Tensor::scalar_i64(node.int("value_int", 0))
    } else if let Some(values) = node.floats("value_floats") {
        let tensor = context.check(Tensor::f32(vec![values.len()], values.to_vec()))?;
        return Ok(vec![context.stored(&context.label, Constant::inline(tensor))]);
    } else if let Some(values) = node.ints("value_ints") {
        context.check(Tensor::i64(vec![values.len()], values.to_vec()))?
    } else {
        return Err(node.form("no number or dense tensor", "value, value_float(s) or value_int(s)"));
    };
    Ok(vec![context.known(tensor)])
}

pub(super) fn constant_of_shape(context: &mut Context, node: &OnnxNode) -> Results {
    let shape = context.integers(node, node.need(0)?, "input")?;
    let shape = shape.iter().map(|&length| node.length(length, "length")).collect::<Result<Vec<_>, _>>()?;
    let value = match &node.value {
        None => context.scalar(0.0),
        Some(constant) if constant.elements() == 1 => {
            let number = constant.load().map_err(|problem| Diagnostic::new(node.label.clone(), problem))?;
            context.reshape(&context.known(number), Vec::new())?
        }
        Some(constant) => {
            return Err(node.invalid(format!("a value of {} elements", constant.elements()), "one element"));
        }
    };
    Ok(vec![context.apply(marill_plaintext::Op::Expand { shape }, &[&value])?])
}

pub(super) fn shape(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let rank = x.rank() as i64;
    let bound = |bound: i64| {
        let from_front = if bound < 0 { bound.saturating_add(rank) } else { bound };
        from_front.clamp(0, rank) as usize
    };
    let (start, end) = (bound(node.int("start", 0)), bound(node.int("end", rank)));
    let lengths = x.shape().get(start..end).unwrap_or_default();
    Ok(vec![context.vector(lengths.iter().map(|&length| length as i64).collect())?])
}

/// Ones on a diagonal of a matrix shaped like the operand.
pub(super) fn eye_like(context: &mut Context, node: &OnnxNode) -> Results {
    let like = node.need(0)?;
    let &[rows, columns] = like.shape() else {
        return Err(node.invalid(format!("operand {:?}", like.shape()), "a matrix"));
    };
    let diagonal = i128::from(node.int("k", 0));
    let is_one = |at: usize| (at % columns) as i128 == (at / columns) as i128 + diagonal;
    if rows.saturating_mul(columns) > MAX_RANGE {
        return Err(
            node.form(format!("a matrix of {rows} by {columns}"), "matrices of at most 2^20 elements")
        );
    }
    let count = room(context, node, DType::Bool, rows * columns)?;
    let ones = Tensor::bool([rows, columns], (0..count).map(is_one).collect());
    let ones = context.known(context.check(ones)?);
    let dtype = match i32::try_from(node.int("dtype", 0)).ok().and_then(tensors::element) {
        Some(element) => element.dtype(),
        None => like.dtype(),
    };
    Ok(vec![context.cast(&ones, dtype)?])
}

pub(super) fn size(context: &mut Context, node: &OnnxNode) -> Results {
    let elements = node.need(0)?.elements() as i64;
    Ok(vec![context.known(Tensor::scalar_i64(elements))])
}

/// `count`, if so many elements can be made beside those of other nodes.
fn room(context: &mut Context, node: &OnnxNode, dtype: DType, count: usize) -> Result<usize, Diagnostic> {
    if context.spends(count, &TensorType::new(dtype, [count])) {
        return Ok(count);
    }
    Err(node
        .form(format!("{count} elements, too many beside those of other nodes"), "fewer or shorter ranges"))
}

pub(super) fn range(context: &mut Context, node: &OnnxNode) -> Results {
    let operands = [node.need(0)?, node.need(1)?, node.need(2)?];
    let mut bounds = Vec::with_capacity(3);
    for (operand, role) in operands.into_iter().zip(["start", "limit", "delta"]) {
        let tensor = operand.known().ok_or_else(|| context.dynamic(node, operand, role))?;
        if tensor.len() != 1 {
            return Err(node.invalid(format!("{role} of {} elements", tensor.len()), "scalars"));
        }
        bounds.push(tensor);
    }
    let too_long = || node.form("bounds that give more than 2^20 elements", "shorter ranges");
    let tensor = if bounds.iter().all(|bound| bound.dtype() == DType::I64) {
        let number =
            |index: usize| context.check(bounds[index].to_i64_vec()).map(|values: Vec<i64>| values[0]);
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        if delta == 0 {
            return Err(node.invalid("delta 0", "another delta"));
        }
        let span = i128::from(limit) - i128::from(start);
        let step = i128::from(delta);
        let count = if (span > 0) == (step > 0) { (span.abs() + step.abs() - 1) / step.abs() } else { 0 };
        let count = usize::try_from(count).ok().filter(|&count| count <= MAX_RANGE).ok_or_else(too_long)?;
        let count = room(context, node, DType::I64, count)?;
        // Below the limit, which fits: wrapping on the way does no harm.
        let values = (0..count as i64).map(|index| start.wrapping_add(index.wrapping_mul(delta))).collect();
        Tensor::i64(vec![count], values)
    } else {
        let number =
            |index: usize| context.check(bounds[index].to_f32_vec()).map(|values: Vec<f32>| values[0]);
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        let count = ((f64::from(limit) - f64::from(start)) / f64::from(delta)).ceil();
        if count.is_nan() || delta == 0.0 {
            return Err(
                node.invalid(format!("bounds {start}, {limit} and delta {delta}"), "numbers, delta not 0")
            );
        }
        let count = count.max(0.0);
        if count > MAX_RANGE as f64 {
            return Err(too_long());
        }
        let count = room(context, node, DType::F32, count as usize)?;
        Tensor::f32(vec![count], (0..count).map(|i| start + i as f32 * delta).collect())
    };
    Ok(vec![context.derived(context.check(tensor)?, &operands)])
}
