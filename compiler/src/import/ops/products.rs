//! Matrix products and what amounts to them.

use marill_plaintext::Op;

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

type Results = Result<Vec<Operand>, Diagnostic>;

pub(super) fn mat_mul(context: &mut Context, node: &OnnxNode) -> Results {
    Ok(vec![context.apply(Op::MatMul, &[node.need(0)?, node.need(1)?])?])
}

/// `alpha * A' B' + beta * C`, each factor transposed or not.
pub(super) fn gemm(context: &mut Context, node: &OnnxNode) -> Results {
    let mut factors = Vec::with_capacity(2);
    for (index, flag) in ["transA", "transB"].into_iter().enumerate() {
        let factor = node.need(index)?;
        if factor.rank() != 2 {
            return Err(node.invalid(format!("a factor of {} axes", factor.rank()), "matrices"));
        }
        factors.push(match node.flag(flag, false) {
            true => context.apply(Op::Transpose { perm: vec![1, 0] }, &[factor])?,
            false => factor.clone(),
        });
    }
    let mut result = context.apply(Op::MatMul, &[&factors[0], &factors[1]])?;
    result = scaled(context, &result, node.float("alpha", 1.0))?;
    if let Some(addend) = node.input(2) {
        let addend = scaled(context, addend, node.float("beta", 1.0))?;
        result = context.apply(Op::Add, &[&result, &addend])?;
    }
    Ok(vec![result])
}

pub(super) fn scaled(context: &mut Context, x: &Operand, factor: f32) -> Result<Operand, Diagnostic> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    let factor = context.scalar(factor);
    context.apply(Op::Mul, &[x, &factor])
}

/// `x + bias` along the last axis, or `x`.
pub(super) fn biased(
    context: &mut Context,
    node: &OnnxNode,
    x: &Operand,
    bias: Option<&Operand>,
) -> Result<Operand, Diagnostic> {
    let Some(bias) = bias else { return Ok(x.clone()) };
    if bias.rank() != 1 || bias.shape().last() != x.shape().last() {
        let found = format!("a bias {:?} for {:?}", bias.shape(), x.shape());
        return Err(node.invalid(found, "a bias as long as the last axis"));
    }
    context.apply(Op::Add, &[x, bias])
}

/// Two operands whose labels are each a batch axis, a summed axis or a free axis of one operand.
pub(super) fn einsum(context: &mut Context, node: &OnnxNode) -> Results {
    let equation: String = node.text("equation").unwrap_or_default().split_whitespace().collect();
    let refuse =
        || node.form(format!("equation \"{equation}\""), "\"ab,bc->ac\" and such, every label given");
    let (operands, target) = equation.split_once("->").ok_or_else(refuse)?;
    let (left, right) = operands.split_once(',').ok_or_else(refuse)?;
    let labels = |part: &str| -> Result<Vec<char>, Diagnostic> {
        let labels: Vec<char> = part.chars().collect();
        let plain = labels.iter().all(char::is_ascii_alphabetic);
        if plain && (1..labels.len()).all(|index| !labels[..index].contains(&labels[index])) {
            Ok(labels)
        } else {
            Err(refuse())
        }
    };
    let (left, right, target) = (labels(left)?, labels(right)?, labels(target)?);
    let (a, b) = (node.need(0)?, node.need(1)?);
    if left.len() != a.rank() || right.len() != b.rank() || node.input(2).is_some() {
        return Err(refuse());
    }
    let pick = |labels: &[char], shared: bool, kept: bool, other: &[char]| -> Vec<char> {
        let picked =
            labels.iter().filter(|label| other.contains(label) == shared && target.contains(label) == kept);
        picked.copied().collect()
    };
    let (batch, summed) = (pick(&left, true, true, &right), pick(&left, true, false, &right));
    let (free_left, free_right) = (pick(&left, false, true, &right), pick(&right, false, true, &left));
    let order: Vec<char> = batch.iter().chain(&free_left).chain(&free_right).copied().collect();
    let lone = !pick(&left, false, false, &right).is_empty() || !pick(&right, false, false, &left).is_empty();
    if lone || order.len() != target.len() {
        return Err(refuse());
    }
    let length = |label: &char| match left.iter().position(|l| l == label) {
        Some(axis) => a.shape()[axis],
        None => right.iter().position(|l| l == label).map_or(1, |axis| b.shape()[axis]),
    };
    let mut arranged = |x: &Operand, labels: &[char], groups: [&[char]; 3]| {
        let wanted: Vec<char> = groups.concat();
        let perm = wanted.iter().filter_map(|label| labels.iter().position(|l| l == label)).collect();
        let moved = context.apply(Op::Transpose { perm }, &[x])?;
        let mut axes = moved.shape();
        let shape = groups.map(|group| {
            let (own, rest) = axes.split_at(group.len());
            axes = rest;
            own.iter().product::<usize>()
        });
        context.reshape(&moved, shape.to_vec())
    };
    let a3 = arranged(a, &left, [&batch, &free_left, &summed])?;
    let b3 = arranged(b, &right, [&batch, &summed, &free_right])?;
    let product = context.apply(Op::MatMul, &[&a3, &b3])?;
    let unfolded = context.reshape(&product, order.iter().map(length).collect())?;
    let perm = target.iter().filter_map(|label| order.iter().position(|l| l == label)).collect();
    Ok(vec![context.apply(Op::Transpose { perm }, &[&unfolded])?])
}

/// Convolution over one or two spatial axes; a bias becomes an addition.
pub(super) fn conv(context: &mut Context, node: &OnnxNode) -> Results {
    let (mut x, mut weight) = (node.need(0)?.clone(), node.need(1)?.clone());
    let spatial = x.rank().saturating_sub(2);
    if !(1..=2).contains(&spatial) || weight.rank() != x.rank() {
        let found = format!("operands {:?} and {:?}", x.shape(), weight.shape());
        return Err(node.form(found, "one or two spatial axes"));
    }
    let flat = spatial == 1;
    if flat {
        let insert = |shape: &[usize]| vec![shape[0], shape[1], 1, shape[2]];
        x = context.reshape(&x, insert(x.shape()))?;
        weight = context.reshape(&weight, insert(weight.shape()))?;
    }
    // The second spatial axis's figures serve the only one; the axis inserted before it is neutral.
    let pair = |name: &str| -> Result<[usize; 2], Diagnostic> {
        let values = node.ints(name).unwrap_or(&[1, 1][..spatial]);
        let values = values.iter().map(|&value| node.length(value, name)).collect::<Result<Vec<_>, _>>()?;
        match (flat, values.as_slice()) {
            (true, &[value]) => Ok([1, value]),
            (false, &[first, second]) => Ok([first, second]),
            _ => Err(node.invalid(format!("{name} {values:?}"), "one number per spatial axis")),
        }
    };
    let (strides, dilations) = (pair("strides")?, pair("dilations")?);
    if strides.contains(&0) || dilations.contains(&0) {
        return Err(
            node.invalid(format!("strides {strides:?} and dilations {dilations:?}"), "positive numbers")
        );
    }
    let group = node.length(node.int("group", 1), "group")?;
    let auto_pad = node.text("auto_pad").unwrap_or_else(|| "NOTSET".into());
    let pads = match auto_pad.as_str() {
        "NOTSET" | "" => {
            let zeros = [0; 4];
            let pads = node.ints("pads").unwrap_or(&zeros[..2 * spatial]);
            let pads = pads.iter().map(|&pad| node.length(pad, "pad")).collect::<Result<Vec<_>, _>>()?;
            match (flat, pads.as_slice()) {
                (true, &[left, right]) => [0, left, 0, right],
                (false, &[top, left, bottom, right]) => [top, left, bottom, right],
                _ => return Err(node.invalid(format!("pads {pads:?}"), "two numbers per spatial axis")),
            }
        }
        "VALID" => [0; 4],
        same @ ("SAME_UPPER" | "SAME_LOWER") => {
            let mut pads = [0; 4];
            for axis in 0..2 {
                let (length, kernel) = (x.shape()[axis + 2], weight.shape()[axis + 2]);
                let reach = kernel.saturating_sub(1).saturating_mul(dilations[axis]).saturating_add(1);
                let steps = length.div_ceil(strides[axis]).saturating_sub(1).saturating_mul(strides[axis]);
                let total = steps.saturating_add(reach).saturating_sub(length);
                let before = if same == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                (pads[axis], pads[axis + 2]) = (before, total - before);
            }
            pads
        }
        other => return Err(node.invalid(format!("auto_pad \"{other}\""), "NOTSET, VALID or SAME_*")),
    };
    let mut result = context.apply(Op::Conv { strides, pads, dilations, group }, &[&x, &weight])?;
    if let Some(bias) = node.input(2) {
        let bias = context.reshape(bias, vec![1, bias.elements(), 1, 1])?;
        result = context.apply(Op::Add, &[&result, &bias])?;
    }
    if flat {
        let shape = result.shape();
        let shape = vec![shape[0], shape[1], shape[3]];
        result = context.reshape(&result, shape)?;
    }
    Ok(vec![result])
}
