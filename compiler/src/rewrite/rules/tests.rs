//! Every rule on a graph where it must hold and on one where it must not apply.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ir::{self, Constant, Graph, NodeKind, Owner, ValueId};
use crate::ownership;
use crate::rewrite::Space;
use crate::rewrite::certificate::certify;
use marill_plaintext::Tensor;

/// Name, a graph on which the rule finds forms, a graph on which it finds none. `x: shape` is an input, `i: shape` one of
/// indices 0 and 1, `c: shape` a
/// private constant, `p: shape` a public one, `=0.5` a public scalar; operands follow by position of the line, from 0; the last is the output.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str)] = &[
    ("mul-one",        "x 2,3; =1; mul(%0, %1)",                        "x 2,3; =2; mul(%0, %1)"),
    ("mul-one",        "x 2,3; =1; mul(%1, %0)",                        "x 2,3; c 1=1; mul(%0, %1)"),
    ("mul-one",        "x 2,3; =1; mul(%1, %0)",                        "x 3; c 2,3=1; mul(%0, %1)"),
    ("add-zero",       "x 2,3; =0; sub(%0, %1)",                        "x 2,3; =0; sub(%1, %0)"),
    ("add-zero",       "x 2,3; =0; add(%1, %0)",                        "x 2,3; c 2,3=0; add(%0, %1)"),
    ("merge-scales",   "x 2,3; =3; mul(%0, %1); =0.5; mul(%2, %3)",     "x 2,3; =1e30; mul(%0, %1); =1e30; mul(%2, %3)"),
    ("merge-gains",    "x 2,3; c 3; mul(%0, %1); =2; mul(%2, %3)",      "x 2,3; =3; mul(%0, %1); =2; mul(%2, %3)"),
    ("merge-gains",    "x 2,3; c 3; mul(%1, %0); c 2,1; mul(%3, %2)",   "x 2,3; x 3; mul(%1, %0); c 2,1; mul(%3, %2)"),
    ("merge-biases",   "x 2,3; c 3; add(%1, %0); c 2,3; add(%3, %2)",   "x 2,3; x 3; add(%1, %0); c 2,3; add(%3, %2)"),
    ("neg-neg",        "x 2; neg(%0); neg(%1)",                         "x 2; abs(%0); neg(%1)"),
    ("neg-scale",      "x 2; neg(%0); =2; mul(%1, %2)",                 "x 2; neg(%0); c 2; mul(%1, %2)"),
    ("neg-scale",      "x 2; =2; mul(%0, %1); neg(%2)",                 "x 2; x 2; mul(%0, %1); neg(%2)"),
    ("sub-constant",   "x 2,3; c 3; sub(%0, %1)",                       "x 2,3; c 3; sub(%1, %0)"),
    ("div-scalar",     "x 2; =4; div(%0, %1)",                          "x 2; =0; div(%0, %1)"),
    ("div-scalar",     "x 2; =4; div(%0, %1)",                          "x 2; =4; div(%1, %0)"),
    ("div-constant",   "x 2,3; c 3; div(%0, %1)",                       "x 2,3; x 3; div(%0, %1)"),
    ("scale-sum",      "x 2,3; c 3; add(%0, %1); =3; mul(%2, %3)",      "x 2,3; x 3; add(%0, %1); =3; mul(%2, %3)"),
    ("gain-sum",       "x 2,3; c 3; add(%0, %1); c 3; mul(%2, %3)",     "x 2,3; c 3; add(%0, %1); x 3; mul(%2, %3)"),
    ("identity-movement", "x 2,3; transpose{perm=[0,1]}(%0)",           "x 2,2; transpose{perm=[1,0]}(%0)"),
    ("identity-movement", "x 2,3; slice{axis=1,start=0,end=3,step=1}(%0)", "x 2,3; slice{axis=1,start=2,end=-1,step=-1}(%0)"),
    ("identity-movement", "x 2,3; reshape{shape=[2,3]}(%0)",            "x 2,3; reshape{shape=[3,2]}(%0)"),
    ("reshape-reshape", "x 2,3; reshape{shape=[6]}(%0); reshape{shape=[3,2]}(%1)", "x 2,3; transpose{perm=[1,0]}(%0); reshape{shape=[6]}(%1)"),
    ("transpose-transpose", "x 2,3,4; transpose{perm=[1,2,0]}(%0); transpose{perm=[1,0,2]}(%1)", "x 2,3; reshape{shape=[3,2]}(%0); transpose{perm=[1,0]}(%1)"),
    ("slice-slice",    "x 9; slice{axis=0,start=2,end=8,step=1}(%0); slice{axis=0,start=1,end=3,step=1}(%1)", "x 9; slice{axis=0,start=2,end=8,step=2}(%0); slice{axis=0,start=1,end=3,step=1}(%1)"),
    ("slice-slice",    "x 9; slice{axis=0,start=2,end=8,step=1}(%0); slice{axis=0,start=1,end=3,step=1}(%1)", "x 9,9; slice{axis=1,start=2,end=8,step=1}(%0); slice{axis=0,start=1,end=3,step=1}(%1)"),
    ("slice-concat",   "x 2; x 3; concat{axis=0}(%0, %1); slice{axis=0,start=3,end=5,step=1}(%2)", "x 2; x 3; concat{axis=0}(%0, %1); slice{axis=0,start=1,end=5,step=1}(%2)"),
    ("scale-down-movement", "x 2,3; transpose{perm=[1,0]}(%0); =2; mul(%1, %2)", "x 2,3; transpose{perm=[1,0]}(%0); c 2; mul(%1, %2)"),
    ("scale-down-movement", "x 2; x 3; concat{axis=0}(%0, %1); =2; mul(%2, %3)", "x 2,3; abs(%0); =2; mul(%1, %2)"),
    ("scale-down-movement", "x 2,4; c 4; c 4; rotary(%0, %1, %2); =2; mul(%3, %4)", "x 2,3; softmax{axis=1}(%0); =2; mul(%1, %2)"),
    ("scale-up-movement", "x 2,3; =2; mul(%0, %1); expand{shape=[4,2,3]}(%2)", "x 2,3; c 3; mul(%0, %1); expand{shape=[4,2,3]}(%2)"),
    ("scale-up-movement", "x 2; x 3; =2; mul(%0, %2); mul(%1, %2); concat{axis=0}(%3, %4)", "x 2; x 3; =2; mul(%0, %2); =3; mul(%1, %4); concat{axis=0}(%3, %5)"),
    ("scale-up-movement", "x 2; x 3; =2; mul(%0, %2); mul(%1, %2); concat{axis=0}(%3, %4)", "x 2; x 3; =2; mul(%0, %2); concat{axis=0}(%3, %1)"),
    ("norm-affine",    "x 2,4; c 4; c 4; layer_norm{epsilon=1e-5}(%0, %1, %2)", "x 2,4; layer_norm{epsilon=1e-5}(%0)"),
    ("norm-affine",    "x 2,4; c 4; rms_norm{epsilon=1e-5}(%0, %1)",    "c 2,4; c 4; rms_norm{epsilon=1e-5}(%0, %1)"),
    ("norm-centre",    "x 2,4; layer_norm{epsilon=1e-5}(%0)",           "x 2,4; c 4; c 4; layer_norm{epsilon=1e-5}(%0, %1, %2)"),
    ("norm-centre",    "x 2,4; layer_norm{epsilon=1e-5}(%0)",           "x 2,4; rms_norm{epsilon=1e-5}(%0)"),
    ("centre-sum",     "x 2,4; x 2,4; add(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 2,4; x 2,4; add(%0, %1); reduce_mean{axes=[1],keepdims=true}(%0); sub(%2, %3)"),
    ("centre-sum",     "x 2,4; c 4; add(%1, %0); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 2,4; c 2,1; add(%1, %0); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)"),
    ("centre-sum",     "x 2,4; x 2,4; add(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 4,4; x 4,4; add(%0, %1); reduce_mean{axes=[0],keepdims=true}(%2); sub(%2, %3)"),
    ("centre-sum",     "x 2,4; x 2,4; add(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 2,4; x 2,4; mul(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)"),
    ("centre-product", "x 2,3; c 3,4; mat_mul(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 2,3; x 3,4; mat_mul(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)"),
    ("centre-product", "x 2,3; c 3,4; mat_mul(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "x 2,3; c 3,4; mat_mul(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%3, %2)"),
    ("centre-rows",    "x 4,3; reshape{shape=[2,2,3]}(%0); reduce_mean{axes=[2],keepdims=true}(%1); sub(%1, %2)", "x 3,4; reshape{shape=[3,2,2]}(%0); reduce_mean{axes=[2],keepdims=true}(%1); sub(%1, %2)"),
    ("centre-rows",    "c 2,4; i 3; gather{axis=0}(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)", "c 4,2; i 3; gather{axis=1}(%0, %1); reduce_mean{axes=[1],keepdims=true}(%2); sub(%2, %3)"),
    ("quad-gelu",      "x 2,3; gelu{form=tanh}(%0)",                    "x 2,3; silu(%0)"),
    ("scale-product",  "x 2,3; c 3,4; mat_mul(%0, %1); =2; mul(%2, %3)", "x 2,3; c 3,4; mat_mul(%0, %1); c 4; mul(%2, %3)"),
    ("scale-product",  "x 2,3; x 3,4; mat_mul(%0, %1); =2; mul(%3, %2)", "x 2,3; x 2,3; mul(%0, %1); =2; mul(%2, %3)"),
    ("scaled-operand", "x 2,3; =2; mul(%0, %1); c 3,4; mat_mul(%2, %3)", "x 2,3; c 3; mul(%0, %1); c 3,4; mat_mul(%2, %3)"),
    ("scaled-operand", "x 2,3; x 3,4; =2; mul(%1, %2); mat_mul(%0, %3)", "x 2,3; c 3,4; =2; mul(%1, %2); mat_mul(%0, %3)"),
    ("gain-into-product", "x 2,3; c 3; mul(%0, %1); c 3,4; mat_mul(%2, %3)", "x 2,3; c 2,1; mul(%0, %1); c 3,4; mat_mul(%2, %3)"),
    ("gain-into-product", "x 5,2,3; c 1,1,3; mul(%1, %0); c 3,4; mat_mul(%2, %3)", "x 2,3; c 3; mul(%0, %1); x 3,4; mat_mul(%2, %3)"),
    ("gain-into-product", "x 2,3; c 3; mul(%0, %1); c 3,4; mat_mul(%2, %3)", "x 2,1; c 3; mul(%0, %1); c 3,4; mat_mul(%2, %3)"),
    ("gain-after-product", "x 2,3; c 3,4; mat_mul(%0, %1); c 4; mul(%2, %3)", "x 2,3; c 3,4; mat_mul(%0, %1); c 2,1; mul(%2, %3)"),
    ("bias-through-product", "x 2,3; c 3; add(%0, %1); c 3,4; mat_mul(%2, %3)", "x 2,3; c 2,3; add(%0, %1); c 3,4; mat_mul(%2, %3)"),
    ("bias-through-product", "x 2,3; c 1,3; add(%0, %1); c 3,4; mat_mul(%2, %3)", "x 2,3; x 3; add(%0, %1); c 3,4; mat_mul(%2, %3)"),
    ("slice-sum",      "x 2,3; c 3; add(%0, %1); slice{axis=1,start=1,end=3,step=1}(%2)", "x 2,3; c 3; add(%0, %1); slice{axis=0,start=1,end=2,step=1}(%2)"),
    ("slice-product",  "x 2,3; c 3,4; mat_mul(%0, %1); slice{axis=1,start=1,end=3,step=1}(%2)", "x 2,3; c 3,4; mat_mul(%0, %1); slice{axis=0,start=1,end=2,step=1}(%2)"),
    ("slice-product",  "x 2,3; c 3,4; mat_mul(%0, %1); slice{axis=1,start=3,end=-1,step=-2}(%2)", "x 2,3; x 3,4; mat_mul(%0, %1); slice{axis=1,start=1,end=3,step=1}(%2)"),
    ("product-of-products", "x 2,3; c 3,4; mat_mul(%0, %1); c 4,2; mat_mul(%2, %3)", "x 2,3; x 3,4; mat_mul(%0, %1); c 4,2; mat_mul(%2, %3)"),
    ("split-product",  "x 2,3; c 3,4; c 4,2; mat_mul(%1, %2); mat_mul(%0, %3)", "x 2,3; c 3,4; x 4,2; mat_mul(%1, %2); mat_mul(%0, %3)"),
    ("move-thin-sum",  "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%0, %3); slice{axis=1,start=0,end=4,step=1}(%4)", "x 2,8; x 2,3; c 3,8; mat_mul(%1, %2); add(%0, %3); slice{axis=1,start=0,end=4,step=1}(%4)"),
    ("move-thin-sum",  "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%3, %0); reshape{shape=[4,4]}(%4)", "x 2,8; x 2,2; p 2,8; mat_mul(%1, %2); add(%3, %0); reshape{shape=[4,4]}(%4)"),
    ("move-thin-sum",  "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%3, %0); transpose{perm=[1,0]}(%4)", "x 8; x 2,2; c 2,8; mat_mul(%1, %2); add(%3, %0); transpose{perm=[1,0]}(%4)"),
    ("heads-of-thin",  "x 1,3,2; c 2,8; mat_mul(%0, %1); reshape{shape=[1,3,2,4]}(%2); transpose{perm=[0,2,1,3]}(%3)", "x 1,3,2; c 2,8; mat_mul(%0, %1); reshape{shape=[1,3,2,4]}(%2); transpose{perm=[0,1,3,2]}(%3)"),
    ("heads-of-thin",  "x 2,3,2; c 2,8; mat_mul(%0, %1); reshape{shape=[2,3,2,4]}(%2); transpose{perm=[0,2,3,1]}(%3)", "x 2,3,2; c 2,8; mat_mul(%0, %1); reshape{shape=[3,2,2,4]}(%2); transpose{perm=[0,2,3,1]}(%3)"),
    ("product-of-thin-sum", "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%0, %3); x 8,3; mat_mul(%4, %5)", "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%0, %3); c 8,3; mat_mul(%4, %5)"),
    ("product-of-thin-sum", "x 2,8; x 2,2; c 2,8; mat_mul(%1, %2); add(%0, %3); x 3,2; mat_mul(%5, %4)", "x 2,8; x 2,2; x 2,8; mat_mul(%1, %2); add(%0, %3); x 3,2; mat_mul(%5, %4)"),
    ("thin-last",      "x 1,3,2; c 2,2,4; mat_mul(%0, %1); x 4,3; mat_mul(%2, %3)", "x 1,3,2; c 2,4; mat_mul(%0, %1); x 4,3; mat_mul(%2, %3)"),
    ("thin-last",      "x 2,5,3; c 2,4,2; x 2,3; mat_mul(%1, %2); x 5,4; mat_mul(%4, %3)", "x 2,5,3; p 2,4,2; x 2,3; mat_mul(%1, %2); x 5,4; mat_mul(%4, %3)"),
    ("select-rows-first", "x 2,3,4; c 4,5; mat_mul(%0, %1); slice{axis=1,start=0,end=1,step=1}(%2)", "x 2,3,4; c 4,5; mat_mul(%0, %1); slice{axis=2,start=0,end=1,step=1}(%2)"),
    ("select-rows-first", "x 2,3,4; c 4; c 4; layer_norm{epsilon=0.1}(%0, %1, %2); slice{axis=0,start=1,end=2,step=1}(%3)", "x 2,3,4; softmax{axis=1}(%0); slice{axis=1,start=1,end=2,step=1}(%1)"),
    ("select-rows-first", "x 2,3,4; c 4; add(%1, %0); slice{axis=1,start=2,end=-1,step=-2}(%2)", "x 2,3,4; c 3,1; add(%1, %0); slice{axis=1,start=1,end=2,step=1}(%2)"),
    ("select-rows-first", "x 2,3,4; x 2,3,4; mul(%1, %0); slice{axis=1,start=1,end=3,step=1}(%2)", "x 2,1,4; x 3,1; mul(%1, %0); slice{axis=1,start=1,end=3,step=1}(%2)"),
    ("select-rows-first", "x 2,3,4; c 3,4; mul(%1, %0); slice{axis=0,start=1,end=2,step=1}(%2)", "x 3,4; x 2,1,4; mul(%1, %0); slice{axis=1,start=1,end=2,step=1}(%2)"),
    ("split-sum",      "x 2,3; c 3,4; p 3,4; add(%1, %2); mat_mul(%0, %3)", "x 2,3; c 3,4; c 3,4; add(%1, %2); mat_mul(%0, %3)"),
    ("split-sum",      "x 2,3; p 3,4; c 3,4; add(%1, %2); mat_mul(%0, %3)", "x 2,3; p 3,4; p 3,4; add(%1, %2); mat_mul(%0, %3)"),
    ("split-sum",      "x 2,3; p 3,4; c 3,4; add(%1, %2); mat_mul(%0, %3)", "x 2,3; p 4; c 3,4; add(%1, %2); mat_mul(%0, %3)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3,5; mat_mul(%2, %3); reveal{to=client}(%4)", "x 2,3; c 3; mul(%0, %1); c 3,5; mat_mul(%2, %3); reveal{to=client}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3,3; mat_mul(%2, %3); reveal{to=both}(%4)", "x 2,3; c 3; mul(%0, %1); p 3,2; mat_mul(%2, %3); reveal{to=both}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3,3; mat_mul(%2, %3); reveal{to=client}(%4)", "x 2,3; c 3; mul(%0, %1); p 3,5=1; mat_mul(%2, %3); reveal{to=client}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3; add(%3, %2); reveal{to=client}(%4)", "x 2,3; c 3; mul(%0, %1); c 3; add(%2, %3); reveal{to=client}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3; sub(%2, %3); reveal{to=server}(%4)", "x 3; c 3; mul(%0, %1); p 2,3; sub(%2, %3); reveal{to=server}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); p 3; mul(%2, %3); reveal{to=client}(%4)", "x 2,3; c 3; mul(%0, %1); p 3=0; mul(%2, %3); reveal{to=client}(%4)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); =2; mul(%2, %3); reveal{to=client}(%4)", "x 2,3; c 3; mul(%0, %1); layer_norm{epsilon=0.1}(%2); reveal{to=client}(%3)"),
    ("reveal-earlier", "x 2,3; c 3; mul(%0, %1); transpose{perm=[1,0]}(%2); reveal{to=client}(%3)", "x 2,3; c 3; mul(%0, %1); slice{axis=1,start=0,end=2,step=1}(%2); reveal{to=client}(%3)"),
    ("merge-products", "x 2,3; c 3,4; mat_mul(%0, %1); c 3,4; mat_mul(%0, %3); add(%2, %4)", "x 2,3; c 3,4; mat_mul(%0, %1); c 3,4; x 2,3; mat_mul(%4, %3); add(%2, %5)"),
];

fn tensor(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let element = |i: usize| ((i * 37 + seed * 101 + 11) % 29) as f32 / 10.0 - 1.35;
    Tensor::f32(shape, (0..count).map(element).collect()).unwrap()
}

fn parse_shape(text: &str) -> Vec<usize> {
    text.split(',').map(|dim| dim.trim().parse().unwrap()).collect()
}

fn graph(text: &str) -> Graph {
    let mut graph = Graph::default();
    let mut values: Vec<ValueId> = Vec::new();
    for (place, line) in text.split(';').map(str::trim).enumerate() {
        let value = if let Some(shape) = line.strip_prefix("x ") {
            let shape = parse_shape(shape);
            graph.add_input(format!("x{place}"), TensorType { dtype: DType::F32, shape })
        } else if let Some(shape) = line.strip_prefix("i ") {
            let shape = parse_shape(shape);
            graph.add_input(format!("i{place}"), TensorType { dtype: DType::I64, shape })
        } else if let Some((kind @ ("c" | "p"), text)) = line.split_once(' ') {
            let tensor = match text.split_once('=') {
                Some((shape, value)) => {
                    let shape = parse_shape(shape);
                    let count = shape.iter().product();
                    Tensor::f32(shape, vec![value.parse().unwrap(); count]).unwrap()
                }
                None => tensor(&parse_shape(text), place),
            };
            graph.add_constant(format!("{kind}{place}"), tensor)
        } else if let Some(scalar) = line.strip_prefix('=') {
            graph.add_constant("scalar", Tensor::scalar_f32(scalar.parse().unwrap()))
        } else {
            let (op, args) = line.strip_suffix(')').unwrap().split_once('(').unwrap();
            let args: Vec<ValueId> =
                args.split(',').map(|arg| values[arg.trim()[1..].parse::<usize>().unwrap()]).collect();
            graph.apply(op.parse().unwrap(), &args, "").unwrap()
        };
        values.push(value);
    }
    let inputs: Vec<String> = graph.inputs.iter().map(|&id| graph.node(id).name.clone()).collect();
    graph.add_output("y", values[values.len() - 1], Owner::Client);
    ownership::assign(&mut graph, &inputs.into_iter().map(|name| (name, Owner::Client)).collect()).unwrap();
    // Constants here stand for weights, also the small ones, but for the public scalars.
    for &value in &values {
        let owner = match graph.node(value).name.as_bytes().first() {
            Some(b'c') => Owner::Server,
            Some(b'p') => Owner::Public,
            _ => continue,
        };
        graph.node_mut(value).facts.owner = Some(owner);
    }
    // Operations join the owners that their operands have now.
    for id in graph.topological() {
        if let Some(op) = graph.op(id) {
            let owners = graph.args(id).into_iter().filter_map(|arg| graph.node(arg).facts.owner);
            let owner = Owner::of_result(op, owners);
            graph.node_mut(id).facts.owner = Some(owner);
        }
    }
    graph
}

fn output(graph: &Graph) -> Vec<f32> {
    let inputs: BTreeMap<String, Tensor> = graph
        .inputs
        .iter()
        .enumerate()
        .map(|(seed, &id)| {
            let indices = (0..graph.ty(id).len() as i64).map(|i| i % 2).collect();
            let value = match graph.ty(id).dtype {
                DType::I64 => Tensor::i64(graph.shape(id), indices).unwrap(),
                _ => tensor(graph.shape(id), seed + 5),
            };
            (graph.node(id).name.clone(), value)
        })
        .collect();
    ir::interpret(graph, &inputs).unwrap()[0].1.to_f32_vec().unwrap()
}

fn space(graph: &Graph) -> Space {
    Space::new(graph, &certify(graph).unwrap())
}

/// The graph with each form that the rule names, in the place of the value that it is a form of.
fn variants(graph: &Graph, rule: &Rule) -> Vec<Graph> {
    let space = space(graph);
    let mut values: BTreeMap<Id, ValueId> = BTreeMap::new();
    for (&value, &id) in &space.values {
        values.entry(space.classes.find(id)).or_insert(value);
    }
    fn build(graph: &mut Graph, values: &BTreeMap<Id, ValueId>, expr: &Expr) -> Option<ValueId> {
        match expr {
            Expr::Class(id) => Some(values[id]),
            Expr::Scalar(value) => Some(graph.add_constant("", Tensor::scalar_f32(*value))),
            Expr::Apply(op, args) => {
                let args: Option<Vec<ValueId>> = args.iter().map(|arg| build(graph, values, arg)).collect();
                graph.apply(op.clone(), &args?, "").ok()
            }
        }
    }
    let matches = space.matches(std::slice::from_ref(rule));
    let variant = |(_, id, expr): &(usize, Id, Expr)| {
        let mut variant = graph.clone();
        let new = build(&mut variant, &values, expr)?;
        if variant.ty(new) != variant.ty(values[id]) {
            return None;
        }
        for output in variant.outputs.iter_mut().filter(|output| output.value == values[id]) {
            output.value = new;
        }
        Some(variant)
    };
    matches.iter().filter_map(variant).collect()
}

#[test]
fn rules_hold_where_they_apply_and_apply_nowhere_else() {
    for &(name, applies, stays) in CASES {
        let mut all = RULES.iter().chain(QUAD_RULES);
        let rule = all.find(|rule| rule.name == name).unwrap_or_else(|| panic!("no rule {name}"));
        let before = graph(applies);
        let found = variants(&before, rule);
        assert!(!found.is_empty(), "{name} does not apply to {applies}");
        // What a rule changes, it changes as it says.
        let expected = if name == "quad-gelu" { quad() } else { output(&before) };
        for variant in found {
            let y = output(&variant);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
            assert!(y.iter().zip(&expected).all(close), "{name} on {applies}: {y:?}, not {expected:?}");
        }
        assert_eq!(variants(&graph(stays), rule).len(), 0, "{name} applies to {stays}");
    }
}

/// `x^2 / 8 + x / 4 + 1 / 2` of the first input of two rows of three.
fn quad() -> Vec<f32> {
    let x = tensor(&[2, 3], 5).to_f32_vec().unwrap();
    x.into_iter().map(|x| x * x / 8.0 + x / 4.0 + 0.5).collect()
}

#[test]
fn every_rule_has_a_case_and_its_own_name() {
    let named: BTreeSet<&str> = RULES.iter().chain(QUAD_RULES).map(|rule| rule.name).collect();
    assert_eq!(named.len(), RULES.len() + QUAD_RULES.len());
    let tested: BTreeSet<&str> = CASES.iter().map(|case| case.0).collect();
    assert_eq!(named, tested);
}

/// Whatever the private elements are, ones, zeros or equal tensors, every rule finds the same forms.
#[test]
fn no_rule_sees_private_elements() {
    for &(_, text, other) in CASES {
        for text in [text, other] {
            let plain = graph(text);
            let mut special = plain.clone();
            for id in plain.topological() {
                if plain.node(id).name.starts_with('c') {
                    let count = plain.ty(id).len();
                    let ones = Tensor::f32(plain.shape(id), vec![1.0; count]).unwrap();
                    special.node_mut(id).kind = NodeKind::Constant(Constant::inline(ones));
                }
            }
            assert_eq!(space(&plain).matches(RULES), space(&special).matches(RULES), "{text}");
        }
    }
}
