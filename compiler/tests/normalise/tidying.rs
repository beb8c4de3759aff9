//! Linear layers, constants, identities and duplicates.

use marill_compiler::ir::{Graph, Owner, ValueId};
use marill_compiler::normalise::normalise;
use marill_plaintext::{DType, Op, Tensor, TensorType};

use super::spelling::Spelling;

#[test]
fn a_linear_layer_on_flattened_rows_works_on_the_rows_themselves() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3, 8]);
    let flat = s.op(Op::Reshape { shape: vec![6, 8] }, &[x]);
    let weight = s.weight("weight", &[4, 8]);
    let weight = s.op(Op::Transpose { perm: vec![1, 0] }, &[weight]);
    let product = s.op(Op::MatMul, &[flat, weight]);
    let bias = s.weight("bias", &[4]);
    let sum = s.op(Op::Add, &[bias, product]);
    let out = s.op(Op::Reshape { shape: vec![2, 3, 4] }, &[sum]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "mat_mul"]);
    let sum = normalised.the("add");
    assert!(
        normalised.0.constant(normalised.0.arg(sum, 1).unwrap()).is_some(),
        "the bias is the second operand"
    );
}

fn conv(s: &mut Spelling, strides: [usize; 2]) -> ValueId {
    let x = s.input("pixels", &[2, 3, 8, 6]);
    let weight = s.weight("kernel", &[5, 3, 4, 2]);
    let op = Op::Conv { strides, pads: [0; 4], dilations: [1, 1], group: 1 };
    let out = s.op(op, &[x, weight]);
    let bias = s.weight("bias", &[1, 5, 1, 1]);
    s.op(Op::Add, &[out, bias])
}

#[test]
fn a_convolution_of_separate_patches_is_a_product() {
    let mut s = Spelling::default();
    let sum = conv(&mut s, [4, 2]);
    let rows = s.op(Op::Reshape { shape: vec![2, 5, 6] }, &[sum]);
    let out = s.op(Op::Transpose { perm: vec![0, 2, 1] }, &[rows]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "mat_mul", "reshape", "reshape", "transpose"]);
    normalised.snapshot("patches");

    let mut s = Spelling::default();
    let out = conv(&mut s, [2, 2]);
    let overlapping = s.same(out).operations();
    assert!(overlapping.contains(&"gather") && !overlapping.contains(&"conv"), "{overlapping:?}");
}

#[test]
fn constants_fold_unless_the_result_is_large() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2048, 2049]);
    let one = s.constant(Tensor::f32([1, 1], vec![1.5]).unwrap());
    let large = s.op(Op::Expand { shape: vec![2048, 2049] }, &[one]);
    let half = s.number(0.25);
    let sum = s.op(Op::Add, &[half, half]);
    let product = s.op(Op::Mul, &[large, x]);
    let out = s.op(Op::Add, &[product, sum]);
    let normalised = s.same(out);
    assert_eq!(normalised.operations(), ["add", "expand", "mul"]);
}

#[test]
fn identities_chains_and_duplicates_vanish() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3, 4]);
    let mut y = s.op(Op::Cast { to: DType::F32 }, &[x]);
    y = s.op(Op::Expand { shape: vec![2, 3, 4] }, &[y]);
    y = s.with(Op::Mul, y, 1.0);
    y = s.with(Op::Add, y, 0.0);
    y = s.with(Op::Div, y, 1.0);
    y = s.op(Op::Slice { axis: 1, start: 0, end: 3, step: 1 }, &[y]);
    y = s.op(Op::Transpose { perm: vec![2, 0, 1] }, &[y]);
    y = s.op(Op::Transpose { perm: vec![1, 2, 0] }, &[y]);
    y = s.op(Op::Reshape { shape: vec![6, 4] }, &[y]);
    y = s.op(Op::Reshape { shape: vec![2, 3, 4] }, &[y]);
    let once = s.op(Op::Exp, &[y]);
    let twice = s.op(Op::Exp, &[x]);
    s.op(Op::Log, &[twice]);
    let out = s.op(Op::Add, &[once, twice]);
    assert_eq!(s.same(out).operations(), ["add", "exp"]);
}

#[test]
fn look_ups_of_everything_in_order_are_reshapes() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3]);
    let places: Vec<i64> = (0..2).flat_map(|i| (0..3).flat_map(move |j| [i, j])).collect();
    let tuples = s.constant(Tensor::i64([1, 2, 3, 2], places.clone()).unwrap());
    let gathered = s.op(Op::GatherNd { batch_dims: 0 }, &[x, tuples]);
    let rows = s.constant(Tensor::i64([2], vec![0, 1]).unwrap());
    let gathered = s.op(Op::Gather { axis: 1 }, &[gathered, rows]);
    let whole = s.op(Op::Reshape { shape: vec![2, 3] }, &[gathered]);
    let tuples = s.constant(Tensor::i64([2, 3, 2], places).unwrap());
    let target = s.input("target", &[2, 3]);
    let out = s.op(Op::ScatterNd, &[target, tuples, whole]);
    assert_eq!(s.same(out).operations(), Vec::<&str>::new());

    let mut s = Spelling::default();
    let x = s.input("x", &[2, 3]);
    let rows = s.constant(Tensor::i64([2], vec![1, 0]).unwrap());
    let out = s.op(Op::Gather { axis: 0 }, &[x, rows]);
    assert_eq!(s.same(out).operations(), ["gather"], "another order");
}

#[test]
fn a_look_up_beyond_its_table_is_the_users_error() {
    let mut graph = Graph::default();
    let table = graph.add_constant("table", Tensor::f32([2], vec![1.0, 2.0]).unwrap());
    let place = graph.add_constant("place", Tensor::i64([1], vec![7]).unwrap());
    let out = graph.apply(Op::Gather { axis: 0 }, &[table, place], "look_up").unwrap();
    graph.add_output("out", out, Owner::Client);
    let error = normalise(graph).unwrap_err();
    assert_eq!((error.node.as_str(), error.code()), ("look_up", "operands"));
}

#[test]
fn inputs_stay_though_nothing_uses_them() {
    let mut s = Spelling::default();
    let x = s.input("x", &[2]);
    s.graph.add_input("unused", TensorType::new(DType::I64, [3]));
    let out = s.op(Op::Neg, &[x]);
    let normalised = s.same(out);
    assert_eq!(normalised.0.inputs.len(), 2);
}
