//! What is computed of positions, shapes and single numbers while importing is configuration, and no weight.

use std::collections::BTreeMap;

use marill_compiler::import::{ImportRequest, import_bytes};
use marill_compiler::ir::{Graph, Owner};
use marill_compiler::{normalise, ownership};
use marill_plaintext::{DType, Tensor, TensorType};

use crate::model::{Attribute, Model};

/// As the rewrite stage gets it.
fn owned(model: &Model) -> Graph {
    let mut graph =
        normalise::normalise(import_bytes(model.bytes(), &ImportRequest::default()).unwrap()).unwrap();
    ownership::assign(&mut graph, &BTreeMap::new()).unwrap();
    graph
}

fn input(model: &mut Model, name: &str, shape: &[usize]) {
    model.input(name, &TensorType { dtype: DType::F32, shape: shape.to_vec() });
}

fn owner(graph: &Graph, output: &str) -> Option<Owner> {
    let output = graph.outputs.iter().find(|o| o.name == output).unwrap();
    graph.node(output.value).facts.owner
}

/// `Where(triangle, 0, -1e4)`, as exporters write causal masks.
fn causal_mask(model: &mut Model) {
    let triangle = (0..16).map(|i| i % 4 <= i / 4).collect();
    model.initializer("triangle", &Tensor::bool([4, 4], triangle).unwrap());
    model.initializer("zero", &Tensor::scalar_f32(0.0));
    model.initializer("hidden", &Tensor::scalar_f32(-1e4));
    model.node("Where", &["triangle", "zero", "hidden"], &["mask"], &[]);
}

#[test]
fn a_mask_beside_the_clients_own_values_leaves_them_with_the_client() {
    let mut model = Model::new(17);
    input(&mut model, "x", &[4, 4]);
    causal_mask(&mut model);
    model.node("Add", &["x", "mask"], &["masked"], &[]);
    model.output("masked");
    assert_eq!(owner(&owned(&model), "masked"), Some(Owner::Client));
}

#[test]
fn what_a_weight_has_a_part_in_stays_a_weight() {
    let mut model = Model::new(17);
    input(&mut model, "x", &[4, 4]);
    causal_mask(&mut model);
    model.initializer("bias", &Tensor::f32([4], vec![1.0, 2.0, 3.0, 4.0]).unwrap());
    model.node("Add", &["mask", "bias"], &["table"], &[]);
    model.node("Add", &["x", "table"], &["y"], &[]);
    model.output("y");
    assert_eq!(owner(&owned(&model), "y"), Some(Owner::Shared));
}

#[test]
fn narrow_integers_may_be_weights() {
    let mut model = Model::new(17);
    input(&mut model, "x", &[4, 4]);
    let quantised = model.initializer("quantised", &Tensor::i64([4], vec![0; 4]).unwrap());
    quantised.data_type = 3;
    quantised.raw_data = vec![1, 2, 3, 4];
    model.initializer("scale", &Tensor::scalar_f32(0.5));
    model.node("Cast", &["quantised"], &["floats"], &[("to", Attribute::Int(1))]);
    model.node("Mul", &["floats", "scale"], &["bias"], &[]);
    model.node("Add", &["x", "bias"], &["y"], &[]);
    model.output("y");
    assert_eq!(owner(&owned(&model), "y"), Some(Owner::Shared));
}
