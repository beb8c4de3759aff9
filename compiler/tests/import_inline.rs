//! Local functions and branches stand in place of their calls, and everything unsupported is named at once.

use std::collections::BTreeMap;

use crate::function::{function, node, reference};
use crate::model::{Attribute, Model};
use marill_compiler::import::problem::ImportProblem;
use marill_compiler::import::{ImportRequest, import_bytes};
use marill_compiler::ir::interpret;
use marill_compiler::{Diagnostic, Problem};
use marill_plaintext::Tensor;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto, OperatorSetIdProto};

fn f(data: &[f32]) -> Tensor {
    Tensor::f32([data.len()], data.to_vec()).unwrap()
}

/// The model's results on `x = [1, -2, 4]`.
fn results(model: &Model) -> Result<Vec<Vec<f32>>, Diagnostic> {
    let graph = import_bytes(model.bytes(), &ImportRequest::default())?;
    marill_compiler::ir::verify(&graph).unwrap();
    let fed = BTreeMap::from([("x".to_owned(), f(&[1.0, -2.0, 4.0]))]);
    let fed = fed.into_iter().filter(|(name, _)| graph.inputs.iter().any(|&i| graph.node(i).name == *name));
    let computed = interpret(&graph, &fed.collect()).unwrap();
    Ok(computed.into_iter().map(|(_, tensor)| tensor.to_f32_vec().unwrap()).collect())
}

/// A model with input `x`.
fn model(opset: i64) -> Model {
    let mut model = Model::new(opset);
    model.input("x", &f(&[0.0; 3]).ty());
    model
}

fn float(name: &str, value: f32) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.name = name.into();
    attribute.type_ = AttributeType::FLOAT.into();
    attribute.f = value;
    attribute
}

fn with(mut node: NodeProto, attributes: Vec<AttributeProto>) -> NodeProto {
    node.attribute = attributes;
    node
}

fn constant(output: &str, parameter: &str) -> NodeProto {
    with(node("", "Constant", &[], &[output]), vec![reference("value_float", parameter)])
}

#[test]
fn a_function_wins_over_the_operator_of_its_name() {
    let mut model = model(17);
    let double = vec![node("", "Add", &["a", "a"], &["b"])];
    model.functions.push(function(("", "Relu"), &["a"], &["b"], double));
    let negate = vec![node("", "Neg", &["a"], &["b"])];
    model.functions.push(function(("com.microsoft", "Gelu"), &["a"], &["b"], negate.clone()));
    // Of another overload: not what is called.
    let mut other = function(("", "Abs"), &["a"], &["b"], negate);
    other.overload = "negative".into();
    model.functions.push(other);
    model.node("Relu", &["x"], &["y"], &[]).domain = "ai.onnx".into();
    model.node("Gelu", &["x"], &["z"], &[]).domain = "com.microsoft".into();
    model.node("Abs", &["x"], &["v"], &[]);
    model.node("Abs", &["x"], &["w"], &[]).overload = "negative".into();
    ["y", "z", "v", "w"].into_iter().for_each(|name| model.output(name));
    let found = results(&model).unwrap();
    let expected: [[f32; 3]; 4] = [[2.0, -4.0, 8.0], [-1.0, 2.0, -4.0], [1.0, 2.0, 4.0], [-1.0, 2.0, -4.0]];
    assert_eq!(found, expected);
}

/// `scaled(a, b) = factor * a + shift [+ b]`, where `factor` is 3 unless given and `shift` is a parameter without default.
fn scaled() -> onnx_protobuf::FunctionProto {
    let mut scaled = function(
        ("my", "Scaled"),
        &["a", "b"],
        &["sum", "product"],
        vec![
            constant("k", "factor"),
            constant("s", "shift"),
            node("", "Mul", &["a", "k"], &["product"]),
            node("", "Add", &["product", "s"], &["t"]),
            node("my", "Sum", &["t", "b"], &["sum"]),
        ],
    );
    scaled.attribute.push("shift".into());
    scaled.attribute_proto.push(float("factor", 3.0));
    scaled
}

/// `a`, or the sum of both operands: `Clip` without its bounds is where ONNX lets operands be absent.
fn sum() -> onnx_protobuf::FunctionProto {
    function(("my", "Sum"), &["a", "b"], &["c"], vec![node("", "Clip", &["a", "b"], &["c"])])
}

#[test]
fn calls_take_attributes_defaults_and_absent_operands() {
    let mut model = model(17);
    model.functions.extend([scaled(), sum()]);
    // The function's names are the graph's too, and the call is made twice.
    model.initializer("k", &Tensor::scalar_f32(5.0));
    let call = |model: &mut Model, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]| {
        model.node("Scaled", inputs, outputs, attributes).domain = "my".into();
    };
    let (shift, factor) = (("shift", Attribute::Float(1.0)), ("factor", Attribute::Float(-1.0)));
    call(&mut model, &["x"], &["t"], std::slice::from_ref(&shift));
    call(&mut model, &["t", "k"], &["sum", "product"], &[shift.clone(), factor]);
    call(&mut model, &["x", ""], &["", "u"], &[shift]);
    ["t", "sum", "product", "u"].into_iter().for_each(|name| model.output(name));
    let found = results(&model).unwrap();
    // Clip's second operand is its least value.
    assert_eq!(found[0], [4.0, -5.0, 13.0]);
    assert_eq!(found[1], [5.0, 6.0, 5.0]);
    assert_eq!(found[2], [-4.0, 5.0, -13.0]);
    assert_eq!(found[3], [3.0, -6.0, 12.0]);
}

#[test]
fn values_inside_are_named_after_the_call() {
    let mut model = model(17);
    let inner = vec![node("", "Exp", &["a"], &["e"]), node("", "Neg", &["e"], &["b"])];
    model.functions.push(function(("my", "F"), &["a"], &["b"], inner));
    for (name, from, to) in [("first", "x", "m"), ("second", "m", "y")] {
        let node = model.node("F", &[from], &[to], &[]);
        (node.domain, node.name) = ("my".into(), name.into());
    }
    model.output("y");
    let graph = import_bytes(model.bytes(), &ImportRequest::default()).unwrap();
    let names: Vec<&str> = graph.topological().into_iter().map(|id| graph.node(id).name.as_str()).collect();
    assert_eq!(names, ["x", "first/e", "first/b", "second/e", "second/b"]);
}

#[test]
fn a_function_has_its_own_opset() {
    let mut model = model(17);
    model.input("m", &Tensor::f32([2, 2], vec![0.0; 4]).unwrap().ty());
    let mut axis = AttributeProto::new();
    (axis.name, axis.i, axis.type_) = ("axis".into(), 0, AttributeType::INT.into());
    let softmax = with(node("", "Softmax", &["a"], &["b"]), vec![axis]);
    let mut old = function(("my", "Soft"), &["a"], &["b"], vec![softmax]);
    let mut set = OperatorSetIdProto::new();
    set.version = 11;
    old.opset_import.push(set);
    model.functions.push(old);
    model.node("Soft", &["m"], &["y"], &[]).domain = "my".into();
    model.output("y");
    // Axis 0 of two is refused in opset 11 only.
    let error = results(&model).unwrap_err();
    assert!(error.to_string().contains("in opset 11"), "{error}");
    model.functions[0].opset_import[0].version = 13;
    import_bytes(model.bytes(), &ImportRequest::default()).unwrap();
    model.functions[0].opset_import[0].version = 9;
    let error = results(&model).unwrap_err();
    assert_eq!((error.code(), error.node.as_str()), ("opset", "my.Soft"));
}

/// A graph of one node on `reads`.
fn branch(op_type: &str, reads: &[&str], output: &str) -> GraphProto {
    let mut branch = Model::new(17);
    branch.node(op_type, reads, &[output], &[]);
    branch.output(output);
    branch.graph
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    attribute.name = name.into();
    attribute.type_ = AttributeType::GRAPH.into();
    attribute.g = Some(graph).into();
    attribute
}

fn choice(condition: &str, output: &str, then: GraphProto, otherwise: GraphProto) -> NodeProto {
    let branches = vec![graph_attribute("then_branch", then), graph_attribute("else_branch", otherwise)];
    with(node("", "If", &[condition], &[output]), branches)
}

#[test]
fn the_branch_that_is_taken_stands_in_place() {
    for (rank, expected) in [(1i64, [-1.0f32, 2.0, -4.0]), (2, [2.0, -4.0, 8.0])] {
        let mut model = model(17);
        // Known because shapes are.
        model.initializer("rank", &Tensor::scalar_i64(rank));
        model.node("Shape", &["x"], &["shape"], &[]);
        model.node("Size", &["shape"], &["axes"], &[]);
        model.node("Equal", &["axes", "rank"], &["c"], &[]);
        model.node("Neg", &["x"], &["minus"], &[]);
        // Each branch would be refused if it were looked at without being taken.
        let mut then = branch("Identity", &["minus"], "r");
        let mut otherwise = branch("Add", &["x", "x"], "r");
        let other = if rank == 1 { &mut otherwise } else { &mut then };
        other.node[0].op_type = "LSTM".into();
        model.graph.node.push(choice("c", "y", then, otherwise));
        model.output("y");
        assert_eq!(results(&model).unwrap(), [expected]);
    }
}

#[test]
fn branches_nest_and_hold_tensors() {
    let mut model = model(17);
    model.initializer("yes", &Tensor::bool([1], vec![true]).unwrap());
    model.initializer("no", &Tensor::bool([], vec![false]).unwrap());
    let mut inner = Model::new(17);
    inner.initializer("w", &f(&[10.0, 20.0, 30.0]));
    inner.node("Add", &["w", "x"], &["i"], &[]);
    inner.output("i");
    let mut outer = Model::new(17);
    outer.graph.node.push(choice("no", "o", branch("Loop", &["x"], "l"), inner.graph));
    outer.node("Mul", &["o", "x"], &["p"], &[]);
    outer.output("p");
    model.graph.node.push(choice("yes", "y", outer.graph, branch("Scan", &["x"], "s")));
    model.output("y");
    assert_eq!(results(&model).unwrap(), [[11.0, -36.0, 136.0]]);
}

#[test]
fn a_function_chooses_by_its_parameter() {
    let mut model = model(17);
    let cast = with(node("", "Cast", &["flag"], &["c"]), {
        let mut to = AttributeProto::new();
        (to.name, to.i, to.type_) = ("to".into(), 9, AttributeType::INT.into());
        vec![to]
    });
    let choose = choice("c", "b", branch("Neg", &["a"], "r"), branch("Identity", &["a"], "q"));
    let nodes = vec![constant("flag", "negate"), cast, choose];
    model.functions.push(function(("my", "Maybe"), &["a"], &["b"], nodes));
    for (output, negate) in [("y", 1.0), ("z", 0.0)] {
        model.node("Maybe", &["x"], &[output], &[("negate", Attribute::Float(negate))]).domain = "my".into();
        model.output(output);
    }
    assert_eq!(results(&model).unwrap(), [[-1.0, 2.0, -4.0], [1.0, -2.0, 4.0]]);
}

#[test]
fn a_condition_that_depends_on_inputs_is_unsupported() {
    let mut model = model(17);
    model.node("IsNaN", &["x"], &["n"], &[]);
    model.graph.node.push(choice("n", "y", branch("Neg", &["x"], "r"), branch("Abs", &["x"], "q")));
    model.output("y");
    let error = results(&model).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code(), "operator");
    assert!(text.contains("If") && text.contains("condition") && text.contains("input \"x\""), "{text}");

    // Known, but no boolean, or not a single one.
    for condition in [Tensor::scalar_f32(1.0), Tensor::bool([2], vec![true; 2]).unwrap()] {
        let mut model = self::model(17);
        model.initializer("n", &condition);
        model.graph.node.push(choice("n", "y", branch("Neg", &["x"], "r"), branch("Abs", &["x"], "q")));
        model.output("y");
        assert_eq!(results(&model).unwrap_err().code(), "operator-invalid");
    }
}

#[test]
fn every_unsupported_node_is_named_at_once() {
    let mut model = model(17);
    model.functions.push(function(("my", "F"), &["a"], &["b"], vec![node("", "Det", &["a"], &["b"])]));
    model.node("LSTM", &["x"], &["a", "h"], &[]).name = "first".into();
    model.node("Neg", &["a"], &["b"], &[]);
    model.node("MoE", &["b"], &["c"], &[]).domain = "com.microsoft".into();
    model.node("LSTM", &["c"], &["", "d"], &[]).name = "second".into();
    // Not needed, so not named.
    model.node("NonZero", &["x"], &["unused"], &[]);
    let call = model.node("F", &["d"], &["e"], &[]);
    (call.domain, call.name) = ("my".into(), "call".into());
    model.node("Gelu", &["e"], &["g"], &[]);
    // Another fault comes after these.
    model.node("Reshape", &["x", "x"], &["r"], &[]);
    model.node("Add", &["g", "r"], &["y"], &[]);
    model.output("y");
    let error = results(&model).unwrap_err();
    let Problem::Import(ImportProblem::Unsupported(unsupported)) = &error.problem else { panic!("{error}") };
    let found: Vec<(&str, &str, &str, usize, &str)> = unsupported
        .nodes
        .iter()
        .map(|n| (n.domain.as_str(), n.op_type.as_str(), n.node.as_str(), n.index, n.output.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("", "LSTM", "first", 0, "a"),
            ("com.microsoft", "MoE", "c", 2, "c"),
            ("", "LSTM", "second", 3, "d"),
            ("", "Det", "call/b", 0, "b"),
            ("", "Gelu", "g", 6, "g"),
        ]
    );
    let text = error.to_string();
    for part in [
        "5 nodes of 4 operators",
        "opset 17",
        "LSTM, 2 nodes",
        "node 0 \"first\", output \"a\"",
        "node 3 \"second\", output \"d\"",
        "com.microsoft.MoE, 1 node",
        "node 0 of function \"my.F\" \"call/b\"",
        "exists from opset 20 on, 17 is used here",
        "docs/onnx-support.md",
        "other domains",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("NonZero"), "{text}");
}

#[test]
fn unsupported_nodes_are_named_before_dimensions_are_asked_for() {
    let mut model = Model::new(17);
    model.symbolic_input("x", &["batch"]);
    model.node("Relu", &["x"], &["a"], &[]);
    model.node("LSTM", &["a"], &["y"], &[]);
    model.output("y");
    let error = import_bytes(model.bytes(), &ImportRequest::default()).unwrap_err();
    assert!(error.to_string().contains("LSTM"), "{error}");
    model.graph.node[1].op_type = "Neg".into();
    let error = import_bytes(model.bytes(), &ImportRequest::default()).unwrap_err();
    assert_eq!(error.code(), "dimension");
}

#[test]
fn long_lists_are_counted() {
    let mut model = model(17);
    let mut last = "x".to_owned();
    for index in 0..100 {
        let next = format!("v{index}");
        model.node("LSTM", &[&last], &[&next], &[]);
        last = next;
    }
    model.output(&last);
    let error = results(&model).unwrap_err();
    let Problem::Import(ImportProblem::Unsupported(unsupported)) = &error.problem else { panic!("{error}") };
    assert_eq!(unsupported.nodes.len(), 100);
    let text = error.to_string();
    assert!(text.contains("LSTM, 100 nodes") && text.contains("and 68 more"), "{text}");
}
