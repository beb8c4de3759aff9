//! The canonical text of an operation: `add`, `reshape{shape=[1,16]}`, `gelu{form=erf}`.
//!
//! Printing then parsing gives the same operation, floats bit for bit (all NaNs print alike). The parser takes the
//! attributes in any order, each exactly once, and nothing before, between or after.

use std::fmt;
use std::str::FromStr;

use crate::{DType, GeluForm, Op, OpError, Receiver};

/// `[1,2]` as numbers; `None` for any other form.
pub(crate) fn parse_list<T: Attribute>(text: &str) -> Option<Vec<T>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner.split(',').map(T::parse).collect()
}

pub(crate) fn write_list<T: Attribute>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    f.write_str("[")?;
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(",")?;
        }
        item.write(f)?;
    }
    f.write_str("]")
}

/// A value that can stand after `attribute=`.
pub(crate) trait Attribute: Sized {
    /// What a text must be, for the error.
    const FORM: &'static str;
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    fn parse(text: &str) -> Option<Self>;
}

impl Attribute for usize {
    const FORM: &'static str = "a non-negative integer";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
    fn parse(text: &str) -> Option<usize> {
        if text.starts_with('+') { None } else { text.parse().ok() }
    }
}

impl Attribute for i64 {
    const FORM: &'static str = "an integer";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
    fn parse(text: &str) -> Option<i64> {
        if text.starts_with('+') { None } else { text.parse().ok() }
    }
}

impl Attribute for bool {
    const FORM: &'static str = "true or false";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
    fn parse(text: &str) -> Option<bool> {
        text.parse().ok()
    }
}

impl Attribute for f32 {
    const FORM: &'static str = "a number";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug is the shortest text that reads back as the same bits; Display has no exponent.
        write!(f, "{self:?}")
    }
    fn parse(text: &str) -> Option<f32> {
        if text.starts_with('+') { None } else { text.parse().ok() }
    }
}

impl Attribute for Vec<usize> {
    const FORM: &'static str = "a list such as [1,16]";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self)
    }
    fn parse(text: &str) -> Option<Vec<usize>> {
        parse_list(text)
    }
}

impl<const N: usize> Attribute for [usize; N] {
    const FORM: &'static str = if N == 2 { "a list of 2 integers" } else { "a list of 4 integers" };
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(f, self)
    }
    fn parse(text: &str) -> Option<[usize; N]> {
        parse_list(text)?.try_into().ok()
    }
}

impl Attribute for DType {
    const FORM: &'static str = "f32, i64 or bool";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
    fn parse(text: &str) -> Option<DType> {
        text.parse().ok()
    }
}

impl Attribute for Receiver {
    const FORM: &'static str = "client, server or both";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Receiver::Client => "client",
            Receiver::Server => "server",
            Receiver::Both => "both",
        })
    }
    fn parse(text: &str) -> Option<Receiver> {
        match text {
            "client" => Some(Receiver::Client),
            "server" => Some(Receiver::Server),
            "both" => Some(Receiver::Both),
            _ => None,
        }
    }
}

impl Attribute for GeluForm {
    const FORM: &'static str = "erf or tanh";
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GeluForm::Erf => "erf",
            GeluForm::Tanh => "tanh",
        })
    }
    fn parse(text: &str) -> Option<GeluForm> {
        match text {
            "erf" => Some(GeluForm::Erf),
            "tanh" => Some(GeluForm::Tanh),
            _ => None,
        }
    }
}

/// The `key=value` pairs of one operation's text, taken out one by one.
struct Attributes<'a> {
    op: &'static str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Attributes<'a> {
    /// Splits `key=value,key=[value,value]`.
    fn split(op: &'static str, text: Option<&'a str>) -> Result<Attributes<'a>, OpError> {
        let mut pairs = Vec::new();
        let mut rest = text.unwrap_or_default();
        while !rest.is_empty() {
            let malformed =
                || OpError::Malformed { text: rest.to_string(), expected: "a list of attribute=value" };
            let (key, after) = rest.split_once('=').ok_or_else(malformed)?;
            let close = if after.starts_with('[') { after.find(']').ok_or_else(malformed)? } else { 0 };
            let end = after[close..].find(',').map(|at| at + close);
            pairs.push((key, &after[..end.unwrap_or(after.len())]));
            rest = match end {
                Some(at) if at + 1 < after.len() => &after[at + 1..],
                Some(_) => return Err(malformed()),
                None => "",
            };
        }
        Ok(Attributes { op, pairs })
    }

    fn take<T: Attribute>(&mut self, attribute: &'static str) -> Result<T, OpError> {
        let at = self.pairs.iter().position(|(key, _)| *key == attribute);
        let (_, value) = self.pairs.remove(at.ok_or(OpError::MissingAttribute { op: self.op, attribute })?);
        if self.pairs.iter().any(|(key, _)| *key == attribute) {
            return Err(OpError::RepeatedAttribute { op: self.op, attribute });
        }
        T::parse(value).ok_or_else(|| OpError::AttributeValue {
            op: self.op,
            attribute,
            found: format!("{value:?}"),
            expected: T::FORM.to_string(),
        })
    }

    fn finish(self) -> Result<(), OpError> {
        match self.pairs.first() {
            Some((key, _)) => Err(OpError::UnknownAttribute { op: self.op, attribute: (*key).to_string() }),
            None => Ok(()),
        }
    }
}

macro_rules! texts {
    ($($variant:ident $name:literal { $($field:ident),* })*) => {
        impl Op {
            /// The operation's name in text and errors, in snake case.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Op::$variant { .. } => $name,)*
                }
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())?;
                #[allow(unused_mut, unused_variables, unused_assignments)]
                match self {
                    $(Op::$variant { $($field),* } => {
                        let mut open = "{";
                        $(
                            write!(f, "{open}{}=", stringify!($field))?;
                            $field.write(f)?;
                            open = ",";
                        )*
                        if open == "," {
                            f.write_str("}")?;
                        }
                    })*
                }
                Ok(())
            }
        }

        fn named(name: &str, attributes: Option<&str>) -> Result<Op, OpError> {
            match name {
                $($name => {
                    #[allow(unused_mut)]
                    let mut attributes = Attributes::split($name, attributes)?;
                    let op = Op::$variant { $($field: attributes.take(stringify!($field))?),* };
                    attributes.finish()?;
                    Ok(op)
                })*
                _ => Err(OpError::UnknownOp { name: name.to_string() }),
            }
        }
    };
}

texts! {
    Reshape "reshape" { shape }
    Transpose "transpose" { perm }
    Concat "concat" { axis }
    Slice "slice" { axis, start, end, step }
    Expand "expand" { shape }
    Gather "gather" { axis }
    GatherNd "gather_nd" { batch_dims }
    ScatterNd "scatter_nd" {}
    Tile "tile" { repeats }
    Trilu "trilu" { upper, diagonal }
    Add "add" {}
    Sub "sub" {}
    Mul "mul" {}
    Div "div" {}
    Pow "pow" {}
    Max "max" {}
    Min "min" {}
    Neg "neg" {}
    Abs "abs" {}
    Floor "floor" {}
    Sqrt "sqrt" {}
    Reciprocal "reciprocal" {}
    Rsqrt "rsqrt" {}
    Exp "exp" {}
    Log "log" {}
    Sin "sin" {}
    Cos "cos" {}
    Erf "erf" {}
    Tanh "tanh" {}
    Sigmoid "sigmoid" {}
    Relu "relu" {}
    Clip "clip" { min, max }
    Not "not" {}
    And "and" {}
    Or "or" {}
    Equal "equal" {}
    Less "less" {}
    LessOrEqual "less_or_equal" {}
    Greater "greater" {}
    GreaterOrEqual "greater_or_equal" {}
    Where "where" {}
    IsNan "is_nan" {}
    Cast "cast" { to }
    ReduceSum "reduce_sum" { axes, keepdims }
    ReduceMean "reduce_mean" { axes, keepdims }
    ReduceMax "reduce_max" { axes, keepdims }
    CumSum "cum_sum" { axis, exclusive, reverse }
    ArgMax "arg_max" { axis, keepdims }
    MatMul "mat_mul" {}
    Conv "conv" { strides, pads, dilations, group }
    OneHot "one_hot" { depth }
    Softmax "softmax" { axis }
    AttentionSoftmax "attention_softmax" {}
    LayerNorm "layer_norm" { epsilon }
    RmsNorm "rms_norm" { epsilon }
    Gelu "gelu" { form }
    Silu "silu" {}
    Rotary "rotary" {}
    Reveal "reveal" { to }
}

impl FromStr for Op {
    type Err = OpError;

    fn from_str(text: &str) -> Result<Op, OpError> {
        let malformed =
            || OpError::Malformed { text: text.to_string(), expected: "name or name{attribute=value}" };
        match text.split_once('{') {
            None => named(text, None),
            Some((name, rest)) => match rest.strip_suffix('}') {
                Some(inner) if !inner.is_empty() && !inner.contains(['{', '}']) => named(name, Some(inner)),
                _ => Err(malformed()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts() {
        let table: [(Op, &str); 8] = [
            (Op::Reshape { shape: vec![1, 16] }, "reshape{shape=[1,16]}"),
            (Op::Reshape { shape: vec![] }, "reshape{shape=[]}"),
            (Op::Add, "add"),
            (Op::Gelu { form: GeluForm::Erf }, "gelu{form=erf}"),
            (Op::LayerNorm { epsilon: 1e-5 }, "layer_norm{epsilon=1e-5}"),
            (Op::Slice { axis: 1, start: 0, end: -1, step: -1 }, "slice{axis=1,start=0,end=-1,step=-1}"),
            (
                Op::Conv { strides: [1, 2], pads: [0, 1, 2, 3], dilations: [1, 1], group: 4 },
                "conv{strides=[1,2],pads=[0,1,2,3],dilations=[1,1],group=4}",
            ),
            (Op::Clip { min: f32::NEG_INFINITY, max: 6.0 }, "clip{min=-inf,max=6.0}"),
        ];
        for (op, text) in table {
            assert_eq!(op.to_string(), text);
            assert_eq!(text.parse::<Op>().unwrap(), op);
        }
    }

    #[test]
    fn attributes_in_any_order() {
        assert_eq!(
            "reduce_sum{keepdims=true,axes=[0,2]}".parse::<Op>(),
            Ok(Op::ReduceSum { axes: vec![0, 2], keepdims: true })
        );
    }

    #[test]
    fn bad_texts_name_the_fault() {
        type Fault = fn(&OpError) -> bool;
        let malformed: Fault = |e| matches!(e, OpError::Malformed { .. });
        let unknown_op: Fault = |e| matches!(e, OpError::UnknownOp { .. });
        let unknown: Fault = |e| matches!(e, OpError::UnknownAttribute { .. });
        let missing: Fault = |e| matches!(e, OpError::MissingAttribute { .. });
        let repeated: Fault = |e| matches!(e, OpError::RepeatedAttribute { .. });
        let value: Fault = |e| matches!(e, OpError::AttributeValue { .. });
        let table: [(&str, Fault); 20] = [
            ("", unknown_op),
            ("Add", unknown_op),
            ("add ", unknown_op),
            (" add", unknown_op),
            ("add{}", malformed),
            ("add{x=1}", unknown),
            ("concat", missing),
            ("concat{axis=1", malformed),
            ("concat{axis=1}x", malformed),
            ("concat{axis=1}}", malformed),
            ("concat{axis=1,}", malformed),
            ("concat{axis}", malformed),
            ("concat{axis=-1}", value),
            ("concat{axis=}", value),
            ("concat{axis=1,axis=1}", repeated),
            ("concat{axis=1,perm=[0]}", unknown),
            ("reshape{shape=[1,2}", malformed),
            ("reshape{shape=[1,]}", value),
            ("reshape{shape=[1]2}", value),
            ("conv{strides=[1],pads=[0,0,0,0],dilations=[1,1],group=1}", value),
        ];
        for (text, fault) in table {
            let error = text.parse::<Op>().unwrap_err();
            assert!(fault(&error), "{text}: {error}");
        }
    }
}
