//! Operators in small models, where the fixtures do not reach: the numbers are worked out by hand.

use std::slice::from_ref;

use crate::model::{Attribute, Model};
use marill_compiler::Problem;
use marill_compiler::import::problem::ImportProblem;
use marill_compiler::import::{ImportRequest, import_bytes};
use marill_compiler::ir::interpret;
use marill_plaintext::Tensor;

fn f(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::f32(shape, data.to_vec()).unwrap()
}

fn i(shape: &[usize], data: &[i64]) -> Tensor {
    Tensor::i64(shape, data.to_vec()).unwrap()
}

/// Runs one node on `inputs`; those in `fixed` are initializers.
fn run(
    opset: i64,
    op_type: &str,
    attributes: &[(&str, Attribute)],
    inputs: &[Tensor],
    fixed: &[usize],
    outputs: usize,
) -> Result<Vec<Tensor>, marill_compiler::Diagnostic> {
    let mut model = Model::new(opset);
    let mut names = Vec::new();
    let mut fed = std::collections::BTreeMap::new();
    for (index, tensor) in inputs.iter().enumerate() {
        let name = format!("x{index}");
        if fixed.contains(&index) {
            model.initializer(&name, tensor);
        } else {
            model.input(&name, &tensor.ty());
            fed.insert(name.clone(), tensor.clone());
        }
        names.push(name);
    }
    let results: Vec<String> = (0..outputs).map(|index| format!("y{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results: Vec<&str> = results.iter().map(String::as_str).collect();
    model.node(op_type, &names, &results, attributes);
    results.iter().for_each(|name| model.output(name));
    let graph = import_bytes(model.bytes(), &ImportRequest::default())?;
    marill_compiler::ir::verify(&graph).unwrap();
    let computed = interpret(&graph, &fed).unwrap();
    Ok(computed.into_iter().map(|(_, tensor)| tensor).collect())
}

/// One node with one result.
struct Case {
    opset: i64,
    op_type: &'static str,
    attributes: Vec<(&'static str, Attribute)>,
    inputs: Vec<Tensor>,
    fixed: Vec<usize>,
    expected: Tensor,
}

fn cases() -> Vec<Case> {
    use Attribute::{Float, Int, Ints, Text};
    let case = |opset, op_type, attributes, inputs: &[Tensor], fixed: &[usize], expected| Case {
        opset,
        op_type,
        attributes,
        inputs: inputs.to_vec(),
        fixed: fixed.to_vec(),
        expected,
    };
    let ramp = f(&[2, 3], &[0., 1., 2., 3., 4., 5.]);
    let row = f(&[3], &[1., 2., 3.]);
    vec![
        case(
            11,
            "Gemm",
            vec![("transB", Int(1)), ("alpha", Float(2.0)), ("beta", Float(0.5))],
            &[ramp.clone(), f(&[1, 3], &[1., 0., -1.]), f(&[1], &[4.])],
            &[1],
            f(&[2, 1], &[-2., -2.]),
        ),
        case(
            13,
            "Slice",
            vec![],
            &[
                ramp.clone(),
                i(&[2], &[-1, i64::MAX]),
                i(&[2], &[i64::MIN, 0]),
                i(&[2], &[0, 1]),
                i(&[2], &[-1, -2]),
            ],
            &[1, 2, 3, 4],
            f(&[2, 1], &[5., 2.]),
        ),
        case(13, "Reshape", vec![], &[ramp.clone(), i(&[2], &[0, -1])], &[1], ramp.clone()),
        case(
            11,
            "GatherElements",
            vec![("axis", Int(1))],
            &[ramp.clone(), i(&[2, 4], &[0, 2, -1, 1, 1, 1, 0, -3])],
            &[1],
            f(&[2, 4], &[0., 2., 2., 1., 4., 4., 3., 3.]),
        ),
        case(
            11,
            "GatherElements",
            vec![("axis", Int(0))],
            &[ramp.clone(), i(&[1, 2], &[1, -2])],
            &[1],
            f(&[1, 2], &[3., 1.]),
        ),
        case(
            13,
            "GatherND",
            vec![],
            &[ramp.clone(), i(&[3, 2], &[0, 1, -1, 0, 1, -1])],
            &[1],
            f(&[3], &[1., 3., 5.]),
        ),
        case(13, "GatherND", vec![], &[ramp.clone(), i(&[1, 1], &[-1])], &[1], f(&[1, 3], &[3., 4., 5.])),
        case(13, "Sign", vec![], &[f(&[3], &[-2., 0., 0.5])], &[], f(&[3], &[-1., 0., 1.])),
        case(11, "EyeLike", vec![("k", Int(1))], from_ref(&ramp), &[], f(&[2, 3], &[0., 1., 0., 0., 0., 1.])),
        case(
            11,
            "GlobalAveragePool",
            vec![],
            &[f(&[1, 2, 1, 3], &[0., 1., 2., 3., 4., 8.])],
            &[],
            f(&[1, 2, 1, 1], &[1., 5.]),
        ),
        case(
            11,
            "Squeeze",
            vec![("axes", Ints(vec![-3]))],
            &[f(&[1, 1, 2], &[7., 8.])],
            &[],
            f(&[1, 2], &[7., 8.]),
        ),
        case(13, "Unsqueeze", vec![], &[row.clone(), i(&[2], &[-1, 0])], &[1], f(&[1, 3, 1], &[1., 2., 3.])),
        case(11, "ReduceMean", vec![("axes", Ints(vec![-1]))], from_ref(&ramp), &[], f(&[2, 1], &[1., 4.])),
        case(
            18,
            "ReduceMean",
            vec![("keepdims", Int(0))],
            &[ramp.clone(), i(&[1], &[0])],
            &[1],
            f(&[3], &[1.5, 2.5, 3.5]),
        ),
        case(11, "ReduceMin", vec![("keepdims", Int(0))], from_ref(&ramp), &[], f(&[], &[0.])),
        case(
            12,
            "Einsum",
            vec![("equation", Text("ab, cb -> ca"))],
            &[ramp.clone(), f(&[1, 3], &[1., 1., 1.])],
            &[],
            f(&[1, 2], &[3., 12.]),
        ),
        case(
            11,
            "Mod",
            vec![],
            &[i(&[4], &[5, -5, 5, -5]), i(&[4], &[3, 3, -3, -3])],
            &[],
            i(&[4], &[2, 1, -1, -2]),
        ),
        case(
            11,
            "Clip",
            vec![],
            &[row.clone(), f(&[], &[1.5]), f(&[], &[2.5])],
            &[1, 2],
            f(&[3], &[1.5, 2., 2.5]),
        ),
        case(11, "Mean", vec![], &[row.clone(), f(&[1], &[3.])], &[], f(&[3], &[2., 2.5, 3.])),
        case(
            11,
            "Pad",
            vec![],
            &[row.clone(), i(&[2], &[1, 2]), f(&[], &[9.])],
            &[1, 2],
            f(&[6], &[9., 1., 2., 3., 9., 9.]),
        ),
        case(
            11,
            "Conv",
            vec![("pads", Ints(vec![1, 1]))],
            &[f(&[1, 1, 3], &[1., 2., 3.]), f(&[1, 1, 3], &[1., 1., 1.]), f(&[1], &[10.])],
            &[1, 2],
            f(&[1, 1, 3], &[13., 16., 15.]),
        ),
        case(
            11,
            "OneHot",
            vec![("axis", Int(0))],
            &[i(&[2], &[0, 2]), i(&[], &[3]), i(&[2], &[5, 7])],
            &[1, 2],
            i(&[3, 2], &[7, 5, 5, 5, 5, 7]),
        ),
        case(
            11,
            "Range",
            vec![],
            &[i(&[], &[7]), i(&[], &[0]), i(&[], &[-3])],
            &[0, 1, 2],
            i(&[3], &[7, 4, 1]),
        ),
        case(15, "Shape", vec![("start", Int(-1))], from_ref(&ramp), &[], i(&[1], &[3])),
        case(
            17,
            "LayerNormalization",
            vec![("axis", Int(0)), ("epsilon", Float(0.0))],
            &[f(&[2, 1], &[-1., 1.]), f(&[2, 1], &[2., 3.]), f(&[2, 1], &[0., 1.])],
            &[1, 2],
            f(&[2, 1], &[-2., 4.]),
        ),
        case(
            23,
            "RMSNormalization",
            vec![("epsilon", Float(0.0))],
            &[f(&[1, 2], &[1., -7.]), f(&[2], &[5., 10.])],
            &[1],
            f(&[1, 2], &[1., -14.]),
        ),
        // Two queries on one past and two new keys, all of equal score: each averages the values it may see.
        case(
            23,
            "Attention",
            vec![("is_causal", Int(1))],
            &[
                f(&[1, 2, 2, 1], &[0.; 4]),
                f(&[1, 1, 2, 1], &[1., 1.]),
                f(&[1, 1, 2, 1], &[6., 9.]),
                Tensor::bool([2, 3], vec![true; 6]).unwrap(),
                f(&[1, 1, 1, 1], &[1.]),
                f(&[1, 1, 1, 1], &[2.]),
            ],
            &[],
            f(&[1, 2, 2, 1], &[4., 17. / 3., 4., 17. / 3.]),
        ),
    ]
}

#[test]
fn one_node_at_a_time() {
    for case in cases() {
        let Case { opset, op_type, attributes, inputs, fixed, expected } = case;
        let found =
            run(opset, op_type, &attributes, &inputs, &fixed, 1).unwrap_or_else(|e| panic!("{op_type}: {e}"));
        assert_eq!(found[0].ty(), expected.ty(), "{op_type}");
        let close = |a: &Tensor, b: &Tensor| match (a.as_f32(), b.as_f32()) {
            (Ok(a), Ok(b)) => a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5),
            _ => a == b,
        };
        assert!(close(&found[0], &expected), "{op_type}: {:?} for {expected:?}", found[0]);
    }
}

#[test]
fn split_shares_out_an_axis() {
    let row = f(&[5], &[0., 1., 2., 3., 4.]);
    let uneven = run(18, "Split", &[("num_outputs", Attribute::Int(2))], from_ref(&row), &[], 2).unwrap();
    assert_eq!(uneven, [f(&[3], &[0., 1., 2.]), f(&[2], &[3., 4.])]);
    let given = run(13, "Split", &[], &[row.clone(), i(&[3], &[1, 0, 4])], &[1], 3).unwrap();
    assert_eq!(given, [f(&[1], &[0.]), f(&[0], &[]), f(&[4], &[1., 2., 3., 4.])]);
    let error = run(13, "Split", &[], &[row, i(&[2], &[1, 1])], &[1], 2).unwrap_err();
    assert_eq!(error.code(), "operator-invalid");
}

#[test]
fn what_is_not_supported_is_said() {
    let ramp = f(&[2, 3], &[0.; 6]);
    let refused = |opset, op_type, attributes: &[(&str, Attribute)], inputs: &[Tensor], fixed: &[usize]| {
        run(opset, op_type, attributes, inputs, fixed, 1).unwrap_err()
    };
    let error = refused(17, "LSTM", &[], from_ref(&ramp), &[]);
    assert!(error.to_string().contains("docs/onnx-support.md"), "{error}");
    assert!(error.to_string().contains("LSTM") && error.to_string().contains("opset 17"), "{error}");

    let error = refused(22, "RMSNormalization", &[], &[ramp.clone(), f(&[3], &[1.; 3])], &[]);
    assert_eq!(error.code(), "operator");

    let error = refused(13, "Reshape", &[], &[ramp.clone(), i(&[1], &[6])], &[]);
    let Problem::Import(ImportProblem::Dynamic { op_type, operand, inputs }) = &error.problem else {
        panic!("{error}")
    };
    assert_eq!(
        (op_type.as_str(), *operand, inputs.as_slice()),
        ("Reshape", "shape", &["x1".to_string()][..])
    );

    assert_eq!(
        refused(11, "Softmax", &[("axis", Attribute::Int(0))], from_ref(&ramp), &[]).code(),
        "operator-form"
    );
    assert_eq!(refused(10, "Relu", &[], from_ref(&ramp), &[]).code(), "opset");
    assert_eq!(refused(24, "Relu", &[], from_ref(&ramp), &[]).code(), "opset");
    assert_eq!(refused(13, "MatMul", &[], &[ramp.clone(), ramp.clone()], &[]).code(), "operands");
    assert_eq!(refused(13, "Add", &[], &[ramp], &[]).code(), "operator-invalid");
}

#[test]
fn foreign_domains_are_named() {
    let mut model = Model::new(17);
    model.input("x", &f(&[2], &[0.; 2]).ty());
    model.node("MoE", &["x"], &["y"], &[]).domain = "com.microsoft".into();
    model.output("y");
    let error = import_bytes(model.bytes(), &ImportRequest::default()).unwrap_err().to_string();
    assert!(error.contains("com.microsoft.MoE"), "{error}");
}

#[test]
fn unused_nodes_do_not_matter_and_names_do() {
    let mut model = Model::new(17);
    model.input("x", &f(&[2], &[0.; 2]).ty());
    model.node("LSTM", &["x"], &["unused"], &[]);
    model.node("Neg", &["x"], &["y"], &[]);
    model.output("y");
    let graph = import_bytes(model.bytes(), &ImportRequest::default()).unwrap();
    assert_eq!(graph.dag.node_count(), 2);

    model.node("Abs", &["missing"], &["z"], &[]);
    model.output("z");
    let error = import_bytes(model.bytes(), &ImportRequest::default()).unwrap_err();
    assert!(matches!(&error.problem, Problem::Undefined { value } if value == "missing"), "{error}");
}

#[test]
fn shapes_fold_away() {
    // x [b, 6] -> [b, 2, 3] by way of Shape, Gather, Concat, as the TorchScript exporter writes `view`.
    let mut model = Model::new(17);
    model.symbolic_input("x", &["batch", "2*width"]);
    model.initializer("zero", &i(&[1], &[0]));
    model.initializer("two", &i(&[1], &[2]));
    model.initializer("rest", &i(&[1], &[-1]));
    model.node("Shape", &["x"], &["s"], &[]);
    model.node("Gather", &["s", "zero"], &["b"], &[]);
    model.node("Concat", &["b", "two", "rest"], &["t"], &[("axis", Attribute::Int(0))]);
    model.node("Reshape", &["x", "t"], &["y"], &[]);
    model.output("y");
    let mut request = ImportRequest::default();
    let error = import_bytes(model.bytes(), &request).unwrap_err().to_string();
    assert!(error.contains("--dim batch=N"), "{error}");
    request.dims.insert("batch".into(), 4);
    let error = import_bytes(model.bytes(), &request).unwrap_err().to_string();
    assert!(error.contains("--dim width=N"), "{error}");
    request.dims.insert("width".into(), 3);
    let graph = import_bytes(model.bytes(), &request).unwrap();
    assert_eq!(graph.dag.node_count(), 2);
    assert_eq!(graph.shape(graph.outputs[0].value), [4, 2, 3]);
}

#[test]
fn a_tensor_may_be_stored_in_many_ways() {
    use onnx_protobuf::TensorProto;
    let stored = |data_type: i32, fill: &dyn Fn(&mut TensorProto)| {
        let mut model = Model::new(17);
        let tensor = model.initializer("w", &f(&[2], &[0.; 2]));
        tensor.raw_data.clear();
        tensor.data_type = data_type;
        fill(tensor);
        model.node("Identity", &["w"], &["y"], &[]);
        model.output("y");
        let graph = import_bytes(model.bytes(), &ImportRequest::default())?;
        Ok::<Tensor, marill_compiler::Diagnostic>(interpret(&graph, &Default::default()).unwrap().remove(0).1)
    };
    let floats = f(&[2], &[1.5, -2.0]);
    assert_eq!(stored(1, &|t| t.float_data = vec![1.5, -2.0]).unwrap(), floats);
    assert_eq!(stored(11, &|t| t.double_data = vec![1.5, -2.0]).unwrap(), floats);
    assert_eq!(stored(10, &|t| t.int32_data = vec![0x3e00, 0xc000]).unwrap(), floats);
    assert_eq!(stored(16, &|t| t.raw_data = vec![0xc0, 0x3f, 0x00, 0xc0]).unwrap(), floats);
    assert_eq!(stored(6, &|t| t.int32_data = vec![-1, 1 << 30]).unwrap(), i(&[2], &[-1, 1 << 30]));
    assert_eq!(stored(3, &|t| t.int32_data = vec![-128, 127]).unwrap(), i(&[2], &[-128, 127]));
    assert_eq!(stored(2, &|t| t.raw_data = vec![0, 255]).unwrap(), i(&[2], &[0, 255]));
    assert_eq!(stored(7, &|t| t.int64_data = vec![i64::MIN, 3]).unwrap(), i(&[2], &[i64::MIN, 3]));
    assert_eq!(
        stored(12, &|t| t.uint64_data = vec![1, 4_000_000_000]).unwrap(),
        i(&[2], &[1, 4_000_000_000])
    );
    let flags = Tensor::bool([2], vec![false, true]).unwrap();
    assert_eq!(stored(9, &|t| t.int32_data = vec![0, 1]).unwrap(), flags);
    let element = |data_type| stored(data_type, &|t| t.raw_data = vec![0; 16]).unwrap_err();
    assert_eq!(element(8).code(), "element-type");
    assert_eq!(element(22).code(), "element-type");
    assert_eq!(stored(1, &|t| t.int64_data = vec![1, 2]).unwrap_err().code(), "tensor");
    assert_eq!(stored(1, &|_| ()).unwrap_err().code(), "tensor");
    assert_eq!(stored(1, &|t| t.float_data = vec![1.0]).unwrap_err().code(), "constant");
}
