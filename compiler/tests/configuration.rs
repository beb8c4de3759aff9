//! What is computed of positions, shapes and single numbers while importing is configuration, and no weight.

use std::collections::BTreeMap;

use marill_compiler::import::{ImportRequest, import_bytes};
use marill_compiler::ir::Owner;
use marill_compiler::{normalise, ownership};
use marill_plaintext::{DType, Tensor, TensorType};

use crate::model::{Attribute, Model};

/// The owner of `op(x, table)`, where the client has x, `[4, 4]`, and `write` writes the table.
fn owner(op: &str, write: impl FnOnce(&mut Model)) -> Option<Owner> {
    let mut model = Model::new(17);
    model.input("x", &TensorType { dtype: DType::F32, shape: vec![4, 4] });
    write(&mut model);
    model.node(op, &["x", "table"], &["y"], &[]);
    model.output("y");
    let graph = import_bytes(model.bytes(), &ImportRequest::default()).unwrap();
    let mut graph = normalise::normalise(graph).unwrap();
    ownership::assign(&mut graph, &BTreeMap::new()).unwrap();
    graph.node(graph.outputs[0].value).facts.owner
}

/// `Where(triangle, 0, -1e4)`, as exporters write causal masks.
fn causal_mask(model: &mut Model, name: &str) {
    let triangle = (0..16).map(|i| i % 4 <= i / 4).collect();
    model.initializer("triangle", &Tensor::bool([4, 4], triangle).unwrap());
    model.initializer("zero", &Tensor::scalar_f32(0.0));
    model.initializer("hidden", &Tensor::scalar_f32(-1e4));
    model.node("Where", &["triangle", "zero", "hidden"], &[name], &[]);
}

/// `quantised`, small integers of eight bits, as floats.
fn converted(model: &mut Model, shape: [usize; 2]) {
    let elements = shape[0] * shape[1];
    let quantised = model.initializer("quantised", &Tensor::i64(shape, vec![0; elements]).unwrap());
    quantised.data_type = 3;
    quantised.raw_data = (0..elements).map(|i| (i % 100) as u8).collect();
    model.initializer("scale", &Tensor::scalar_f32(0.5));
    model.node("Cast", &["quantised"], &["floats"], &[("to", Attribute::Int(1))]);
    model.node("Mul", &["floats", "scale"], &["table"], &[]);
}

#[test]
fn a_mask_beside_the_clients_own_values_leaves_them_with_the_client() {
    assert_eq!(owner("Add", |model| causal_mask(model, "table")), Some(Owner::Client));
    let filled = |model: &mut Model| {
        model.initializer("shape", &Tensor::i64([2], vec![4, 4]).unwrap());
        model.node("ConstantOfShape", &["shape"], &["zeros"], &[]);
        model.initializer("hidden", &Tensor::scalar_f32(-1e4));
        model.node("Add", &["zeros", "hidden"], &["table"], &[]);
    };
    assert_eq!(owner("Add", filled), Some(Owner::Client));
}

#[test]
fn what_a_weight_has_a_part_in_stays_a_weight() {
    let shifted = |model: &mut Model| {
        causal_mask(model, "mask");
        model.initializer("bias", &Tensor::f32([4], vec![1.0, 2.0, 3.0, 4.0]).unwrap());
        model.node("Add", &["mask", "bias"], &["table"], &[]);
    };
    assert_eq!(owner("Add", shifted), Some(Owner::Shared));
    // Of one element as well: it may be the bias of a layer of width one.
    let narrow = |model: &mut Model| {
        causal_mask(model, "mask");
        model.initializer("bias", &Tensor::f32([1], vec![1.0]).unwrap());
        model.node("Add", &["mask", "bias"], &["table"], &[]);
    };
    assert_eq!(owner("Add", narrow), Some(Owner::Shared));
    let hot = |model: &mut Model| {
        model.initializer("indices", &Tensor::i64([4], vec![0, 1, 2, 3]).unwrap());
        model.initializer("depth", &Tensor::scalar_i64(4));
        model.initializer("values", &Tensor::f32([2], vec![0.25, 0.75]).unwrap());
        model.node("OneHot", &["indices", "depth", "values"], &["table"], &[]);
    };
    assert_eq!(owner("Add", hot), Some(Owner::Shared));
}

#[test]
fn integers_may_be_weights() {
    assert_eq!(owner("Add", |model| converted(model, [4, 4])), Some(Owner::Shared));
    assert_eq!(owner("MatMul", |model| converted(model, [4, 4])), Some(Owner::Shared));
    // Too many to be converted while importing.
    assert_eq!(owner("MatMul", |model| converted(model, [4, 1 << 19])), Some(Owner::Shared));
}
