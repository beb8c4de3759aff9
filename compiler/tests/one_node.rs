//! Models of one node, and what its results are held against.

use std::collections::BTreeMap;

use crate::model::{Attribute, Model};
use marill_compiler::Diagnostic;
use marill_compiler::import::{ImportRequest, import_bytes};
use marill_compiler::ir::interpret;
use marill_plaintext::Tensor;

pub const MICROSOFT: &str = "com.microsoft";

/// A tensor of numbers between -1.25 and 1.25 without a pattern that an error could share.
pub fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product();
    let data = (0..count).map(|i| ((i * i * 7 + i * 5 + seed * 13) % 11) as f32 / 4.0 - 1.25).collect();
    Tensor::f32(shape.to_vec(), data).unwrap()
}

pub fn f(shape: &[usize], data: &[f64]) -> Tensor {
    Tensor::f32(shape.to_vec(), data.iter().map(|&x| x as f32).collect()).unwrap()
}

pub fn i(shape: &[usize], data: &[i64]) -> Tensor {
    Tensor::i64(shape.to_vec(), data.to_vec()).unwrap()
}

pub fn at(tensor: &Tensor, index: &[usize]) -> f64 {
    let flat = index.iter().zip(tensor.shape()).fold(0, |flat, (&i, &length)| flat * length + i);
    f64::from(tensor.to_f32_vec().unwrap()[flat])
}

/// The outputs named in `outputs` of one node; `None` among the inputs is one left out.
pub fn run(
    name: (&str, &str),
    attributes: &[(&str, Attribute)],
    inputs: &[Option<&Tensor>],
    outputs: &[&str],
) -> Result<Vec<Tensor>, Diagnostic> {
    run_knowing(&[], name, attributes, inputs, outputs)
}

/// As [`run`], where the inputs at `known` are constants.
pub fn run_knowing(
    known: &[usize],
    (domain, op_type): (&str, &str),
    attributes: &[(&str, Attribute)],
    inputs: &[Option<&Tensor>],
    outputs: &[&str],
) -> Result<Vec<Tensor>, Diagnostic> {
    let mut model = Model::new(if domain.is_empty() { 23 } else { 17 });
    let mut fed = BTreeMap::new();
    let names: Vec<String> = (0..inputs.len()).map(|index| format!("x{index}")).collect();
    let mut given = Vec::new();
    for (index, (name, input)) in names.iter().zip(inputs).enumerate() {
        given.push(input.map_or("", |_| name.as_str()));
        if let Some(tensor) = input {
            if known.contains(&index) {
                model.initializer(name, tensor);
                continue;
            }
            model.input(name, &tensor.ty());
            fed.insert(name.clone(), (*tensor).clone());
        }
    }
    model.node(op_type, &given, outputs, attributes).domain = domain.into();
    outputs.iter().filter(|name| !name.is_empty()).for_each(|name| model.output(name));
    let graph = import_bytes(model.bytes(), &ImportRequest::default())?;
    marill_compiler::ir::verify(&graph).unwrap();
    Ok(interpret(&graph, &fed).unwrap().into_iter().map(|(_, tensor)| tensor).collect())
}

pub fn one(op_type: &str, attributes: &[(&str, Attribute)], inputs: &[&Tensor]) -> Tensor {
    let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
    run((MICROSOFT, op_type), attributes, &inputs, &["y"])
        .unwrap_or_else(|e| panic!("{op_type}: {e}"))
        .remove(0)
}

pub fn refusal(op_type: &str, attributes: &[(&str, Attribute)], inputs: &[Option<&Tensor>]) -> Diagnostic {
    run((MICROSOFT, op_type), attributes, inputs, &["y"]).unwrap_err()
}

#[track_caller]
pub fn assert_close(found: &Tensor, shape: &[usize], expected: &[f64]) {
    assert_eq!(found.shape(), shape);
    let found = found.to_f32_vec().unwrap();
    assert_eq!(found.len(), expected.len());
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() < 2e-5, "{index}: {a} for {b}");
    }
}

/// Pairs of `x [batch, length, heads, width]` turned by the angles at `position(batch, step)`.
pub fn turned(
    x: &dyn Fn(usize, usize, usize, usize) -> f64,
    [batch, length, heads, width]: [usize; 4],
    [cosines, sines]: [&Tensor; 2],
    position: &dyn Fn(usize, usize) -> usize,
    interleaved: bool,
) -> Vec<f64> {
    let half = cosines.shape()[1];
    let mut result = Vec::new();
    for b in 0..batch {
        for s in 0..length {
            for h in 0..heads {
                let mut row: Vec<f64> = (0..width).map(|d| x(b, s, h, d)).collect();
                for pair in 0..half {
                    let (one, two) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, half + pair) };
                    let (c, n) = (at(cosines, &[position(b, s), pair]), at(sines, &[position(b, s), pair]));
                    let (real, imaginary) = (row[one], row[two]);
                    row[one] = real * c - imaginary * n;
                    row[two] = real * n + imaginary * c;
                }
                result.extend(row);
            }
        }
    }
    result
}
