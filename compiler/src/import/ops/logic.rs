//! Comparisons, booleans and the choice by them.

use marill_plaintext::{DType, Op};

use super::super::context::{Context, Operand};
use super::super::node::OnnxNode;
use crate::diagnostic::Diagnostic;

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
    not: Not / 1;
    and: And / 2;
    or: Or / 2;
    equal: Equal / 2;
    less: Less / 2;
    less_or_equal: LessOrEqual / 2;
    greater: Greater / 2;
    greater_or_equal: GreaterOrEqual / 2;
    where_: Where / 3;
    is_nan: IsNan / 1;
}

pub(super) fn xor(context: &mut Context, node: &OnnxNode) -> Results {
    let (a, b) = (node.need(0)?, node.need(1)?);
    if a.dtype() != DType::Bool {
        return Err(node.invalid(format!("{:?} operands", a.dtype()), "booleans"));
    }
    let same = context.apply(Op::Equal, &[a, b])?;
    Ok(vec![context.apply(Op::Not, &[&same])?])
}

pub(super) fn is_inf(context: &mut Context, node: &OnnxNode) -> Results {
    let x = node.need(0)?;
    let (negative, positive) = (node.flag("detect_negative", true), node.flag("detect_positive", true));
    let infinity = context.scalar(if positive { f32::INFINITY } else { f32::NEG_INFINITY });
    let compared = match (negative, positive) {
        (true, true) => context.apply(Op::Abs, &[x])?,
        (false, false) => return Err(node.form("neither sign to detect", "at least one")),
        _ => x.clone(),
    };
    Ok(vec![context.apply(Op::Equal, &[&compared, &infinity])?])
}
