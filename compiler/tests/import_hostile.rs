//! No bytes make the importer panic, overflow, allocate without bound or read outside the model's directory.

use crate::function::{function, node, reference};
use crate::model::{Attribute, Model};
use marill_compiler::Diagnostic;
use marill_compiler::import::ops::OPERATORS;
use marill_compiler::import::{ImportRequest, import, import_bytes};
use marill_plaintext::Tensor;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::dimension;
use onnx_protobuf::type_proto::Value;
use onnx_protobuf::{AttributeProto, GraphProto, Message, ModelProto, StringStringEntryProto, TensorProto};
use proptest::prelude::*;

fn request() -> ImportRequest {
    let mut request = ImportRequest::default();
    for name in ["batch", "batch_size", "sequence", "sequence_length", "seq", "b", "s"] {
        request.dims.insert(name.into(), 2);
    }
    request
}

fn refusal(bytes: Vec<u8>) -> Diagnostic {
    let error = import_bytes(bytes, &request()).unwrap_err();
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 1000, "{text}");
    error
}

/// A model with inline, typed and attribute tensors, shape arithmetic and several operators.
fn sample() -> Vec<u8> {
    let mut model = Model::new(13);
    model.symbolic_input("x", &["batch", "2 * s"]);
    model.initializer("w", &Tensor::f32([4, 3], (0..12).map(|x| x as f32).collect()).unwrap());
    let target = model.initializer("t", &Tensor::i64([2], vec![0, -1]).unwrap());
    target.raw_data.clear();
    target.int64_data = vec![0, -1];
    model.initializer("mask", &Tensor::bool([3], vec![true, false, true]).unwrap());
    model.input("shift", &Tensor::f32([3], vec![0.0; 3]).unwrap().ty());
    model.node("Einsum", &["x", "w"], &["q"], &[("equation", Attribute::Text("ab,bc->ac"))]);
    model.node("Add", &["shift", "q"], &["p"], &[]);
    model.node("Reshape", &["p", "t"], &["r"], &[]);
    let half = Attribute::Float(0.5);
    model.node("Constant", &[], &["c"], &[("value_float", half)]);
    model.node("Where", &["mask", "r", "c"], &["m"], &[]);
    model.node("Transpose", &["m"], &["n"], &[("perm", Attribute::Ints(vec![1, 0]))]);
    model.node("Softmax", &["n"], &["y"], &[("axis", Attribute::Int(-1))]);
    model.output("y");
    model.bytes()
}

/// The sample, and real exports without their bulk where they are at hand.
fn fixtures() -> Vec<Vec<u8>> {
    let mut fixtures = vec![sample()];
    if let Some(models) = crate::fixtures::models() {
        for name in ["gpt2_legacy17_dyn", "bert_cls_dynamo18", "old_llama_legacy14"] {
            fixtures.push(std::fs::read(models.join(name).join("model.onnx")).unwrap());
        }
    }
    fixtures
}

const NUMBERS: [i64; 16] = [
    i64::MIN,
    i64::MIN + 1,
    -(1 << 40),
    -3,
    -2,
    -1,
    0,
    1,
    2,
    3,
    7,
    64,
    65_537,
    1 << 40,
    i64::MAX - 1,
    i64::MAX,
];

/// Changes one number, name or operand somewhere in the graph.
fn distort(graph: &mut GraphProto, kind: u8, place: prop::sample::Index, choice: prop::sample::Index) {
    let number = NUMBERS[choice.index(NUMBERS.len())];
    let names: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
    let count = graph.node.len();
    let node = &mut graph.node[place.index(count)];
    match kind {
        0 => {
            let operator = &OPERATORS[choice.index(OPERATORS.len())];
            (node.op_type, node.domain) = (operator.op_type.into(), operator.domain.into());
        }
        1 => node.input.push(choice.get(&names).clone()),
        2 => drop(node.input.pop()),
        3 if !node.input.is_empty() => {
            let index = choice.index(node.input.len());
            node.input[index] = names[place.index(names.len())].clone();
        }
        4 => {
            let mut attributes: Vec<&mut AttributeProto> =
                graph.node.iter_mut().flat_map(|node| &mut node.attribute).collect();
            let count = attributes.len();
            let attribute = &mut attributes[place.index(count)];
            attribute.i = number;
            attribute.ints.iter_mut().for_each(|int| *int = number);
            attribute.ints.push(number);
        }
        5 => {
            let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
            let mut tensors: Vec<&mut TensorProto> = attributes.filter_map(|a| a.t.as_mut()).collect();
            tensors.extend(graph.initializer.iter_mut().filter(|tensor| tensor.data_type == 7));
            if tensors.is_empty() {
                return;
            }
            let count = tensors.len();
            let tensor = &mut tensors[place.index(count)];
            if tensor.data_type == 7 && tensor.raw_data.len() >= 8 {
                tensor.raw_data[..8].copy_from_slice(&number.to_le_bytes());
            }
            tensor.int64_data.iter_mut().take(1).for_each(|value| *value = number);
        }
        6 if !graph.initializer.is_empty() => {
            let count = graph.initializer.len();
            let tensor = &mut graph.initializer[place.index(count)];
            match choice.index(3) {
                0 => tensor.dims.push(number),
                1 => tensor.data_type = number as i32,
                _ => tensor.dims.iter_mut().take(1).for_each(|dim| *dim = number),
            }
        }
        _ => {
            let dims =
                graph.input.iter_mut().filter_map(|input| match input.type_.as_mut()?.value.as_mut()? {
                    Value::TensorType(tensor) => tensor.shape.as_mut(),
                    _ => None,
                });
            let mut dims: Vec<_> = dims.flat_map(|shape| &mut shape.dim).collect();
            let count = dims.len();
            dims[place.index(count)].value = Some(dimension::Value::DimValue(number));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_import_or_are_refused(
        which in 0..4usize,
        cut in proptest::option::of(any::<prop::sample::Index>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        // Structure sits at both ends of a file, weights in the middle.
        at_end in any::<bool>(),
    ) {
        let fixtures = fixtures();
        let mut bytes = fixtures[which % fixtures.len()].clone();
        let window = bytes.len().min(1 << 16);
        let base = if at_end { bytes.len() - window } else { 0 };
        for (index, value) in changes {
            let at = base + index.index(window);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(error) = import_bytes(bytes, &request()) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// Well-formed files whose numbers and wiring are not.
    #[test]
    fn absurd_models_import_or_are_refused(
        which in 0..4usize,
        opset in prop::sample::select(vec![11i64, 12, 13, 17, 18, 20, 23]),
        changes in prop::collection::vec((0..8u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
    ) {
        let fixtures = fixtures();
        let mut model = ModelProto::parse_from_bytes(&fixtures[which % fixtures.len()]).unwrap();
        model.opset_import[0].version = opset;
        let graph = model.graph.as_mut().unwrap();
        for (kind, place, choice) in changes {
            distort(graph, kind, place, choice);
        }
        if let Ok(graph) = import_bytes(model.write_to_bytes().unwrap(), &request()) {
            marill_compiler::ir::verify(&graph).unwrap();
        }
    }

    #[test]
    fn any_bytes_are_refused_or_import(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = import_bytes(bytes, &request());
    }
}

#[test]
fn the_undamaged_sample_imports() {
    import_bytes(sample(), &request()).unwrap();
}

#[test]
fn every_truncation_of_the_sample_is_refused() {
    let sample = sample();
    for length in 0..sample.len() {
        // The opset comes after the graph: nothing shorter than the whole can be accepted.
        refusal(sample[..length].to_vec());
    }
}

#[test]
fn groups_and_garbage_get_one_sentence() {
    let groups = refusal(vec![0x0b; 1 << 20]).to_string();
    assert!(groups.contains("not an ONNX model"), "{groups}");
    assert!(refusal(Vec::new()).to_string().contains("not an ONNX model"));
    assert!(refusal(b"PK\x03\x04 this is a zip".to_vec()).to_string().contains("not an ONNX model"));
    assert!(refusal(vec![0xff; 4096]).to_string().contains("not an ONNX model"));
}

#[test]
fn nested_graphs_do_not_exhaust_the_stack() {
    // If, whose branch holds an If, and so on.
    let mut bytes: Vec<u8> = Vec::new();
    for field in [6u8, 5, 1].iter().cycle().take(3000) {
        let mut outer = vec![field << 3 | 2];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    let mut model = Model::new(13);
    model.output("y");
    let mut file = model.bytes();
    // Appending a second `graph` field merges it into the first.
    file.push(7 << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        file.push(length as u8 | 0x80);
        length >>= 7;
    }
    file.push(length as u8);
    file.extend_from_slice(&bytes);
    assert!(refusal(file).to_string().contains("8 is the most"));
}

#[test]
fn impossible_shapes_are_refused_without_allocating() {
    let claim = |dims: &[i64], raw: usize| {
        let mut model = Model::new(13);
        let tensor = model.initializer("w", &Tensor::f32([1], vec![0.0]).unwrap());
        tensor.dims = dims.to_vec();
        tensor.raw_data = vec![0; raw];
        model.node("Identity", &["w"], &["y"], &[]);
        model.output("y");
        model.bytes()
    };
    for (dims, raw) in [
        (&[1 << 40][..], 4),
        (&[i64::MAX, i64::MAX], 4),
        (&[-1], 4),
        (&[3], 4),
        (&[0, i64::MAX, i64::MAX], 4),
        (&[0, 1 << 41], 0),
        (&[1, 1], 3),
    ] {
        refusal(claim(dims, raw));
    }
    let filled = |shape: &[i64], op_type: &str| {
        let mut model = Model::new(13);
        model.initializer("s", &Tensor::i64([shape.len()], shape.to_vec()).unwrap());
        model.node(op_type, &["s"], &["y"], &[]);
        model.output("y");
        model.bytes()
    };
    refusal(filled(&[i64::MAX, 2], "ConstantOfShape"));
    refusal(filled(&[-1], "ConstantOfShape"));
    // Large but conceivable: stays an operation.
    let graph = import_bytes(filled(&[1 << 16, 1 << 16], "ConstantOfShape"), &request()).unwrap();
    assert_eq!(graph.shape(graph.outputs[0].value), [1 << 16, 1 << 16]);
}

fn external(location: &str, offset: &str, length: &str) -> Vec<u8> {
    let mut model = Model::new(13);
    let tensor: &mut TensorProto = model.initializer("w", &Tensor::f32([2], vec![0.0; 2]).unwrap());
    tensor.raw_data.clear();
    tensor.data_location = DataLocation::EXTERNAL.into();
    for (key, value) in [("location", location), ("offset", offset), ("length", length)] {
        let mut entry = StringStringEntryProto::new();
        entry.key = key.into();
        entry.value = value.into();
        tensor.external_data.push(entry);
    }
    model.node("Neg", &["w"], &["y"], &[]);
    model.output("y");
    model.bytes()
}

#[test]
fn external_data_stays_below_the_model() {
    let directory = std::env::temp_dir().join(format!("marill-import-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("inner")).unwrap();
    let data: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(directory.join("outside.data"), &data).unwrap();
    std::fs::write(directory.join("inner/weights.data"), &data).unwrap();
    let path = directory.join("inner/model.onnx");
    let attempt = |location: &str, offset: &str, length: &str| {
        std::fs::write(&path, external(location, offset, length)).unwrap();
        import(&path, &request())
    };
    let graph = attempt("weights.data", "4", "8").unwrap();
    let values = marill_compiler::ir::interpret(&graph, &Default::default()).unwrap();
    assert_eq!(values[0].1.to_f32_vec().unwrap(), [-2.0, -3.0]);
    let outside = directory.join("outside.data");
    for (location, offset, length, code) in [
        ("../outside.data", "0", "8", "external-data"),
        (outside.to_str().unwrap(), "0", "8", "external-data"),
        ("", "0", "8", "external-data"),
        ("missing.data", "0", "8", "unreadable"),
        (".", "0", "8", "unreadable"),
        ("weights.data", "8", "8", "constant"),
        ("weights.data", "18446744073709551615", "8", "constant"),
        ("weights.data", "0", "4", "constant"),
        ("weights.data", "-4", "8", "external-data"),
    ] {
        let error = attempt(location, offset, length).unwrap_err();
        assert_eq!(error.code(), code, "{location} {offset} {length}: {error}");
    }
    assert_eq!(refusal(external("weights.data", "0", "8")).code(), "external-data");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_decoder_that_sees_a_skeleton_sees_no_documentation() {
    use marill_compiler::import::wire;
    let mut model = ModelProto::parse_from_bytes(&sample()).unwrap();
    model.doc_string = "/home/somebody/model.py".into();
    let mut entry = StringStringEntryProto::new();
    entry.key = "trace".into();
    entry.value = "/home/somebody/train.py".into();
    if let Some(graph) = model.graph.as_mut() {
        graph.node[0].metadata_props.push(entry);
    }
    let bytes = model.write_to_bytes().unwrap();
    let skeleton = wire::scan(&bytes).unwrap();
    assert!(!String::from_utf8_lossy(&skeleton.model).contains("somebody"));
    import_bytes(bytes, &request()).unwrap();
}

/// A model that calls the first of `functions`.
fn calling(functions: Vec<onnx_protobuf::FunctionProto>) -> Vec<u8> {
    let mut model = Model::new(17);
    model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
    let (domain, name) = (functions[0].domain.clone(), functions[0].name.clone());
    model.node(&name, &["x"], &["y"], &[]).domain = domain;
    model.output("y");
    model.functions = functions;
    model.bytes()
}

#[test]
fn functions_that_call_themselves_are_refused() {
    let call = |name: &str, other: &str| {
        function(("my", name), &["a"], &["b"], vec![node("my", other, &["a"], &["b"])])
    };
    let error = refusal(calling(vec![call("F", "F")]));
    assert_eq!((error.code(), error.node.as_str()), ("recursion", "my.F"));
    let error = refusal(calling(vec![call("F", "G"), call("G", "H"), call("H", "G")]));
    assert_eq!((error.code(), error.node.as_str()), ("recursion", "my.G"));
    assert!(error.to_string().contains("by way of \"my.H\""), "{error}");
    // An operator that a function of the same name stands for is a call, too.
    let own = function(("", "Relu"), &["a"], &["b"], vec![node("ai.onnx", "Relu", &["a"], &["b"])]);
    assert_eq!(refusal(calling(vec![own])).code(), "recursion");
    assert_eq!(refusal(calling(vec![call("F", "F"), call("F", "F")])).code(), "redefined");
}

#[test]
fn functions_that_grow_too_large_are_refused() {
    let doubling = |count: usize| {
        let calls = |index: usize| {
            let (name, inner) = (format!("F{index}"), format!("F{}", index + 1));
            let nodes = vec![node("my", &inner, &["a"], &["m"]), node("my", &inner, &["m"], &["b"])];
            function(("my", &name), &["a"], &["b"], nodes)
        };
        let mut functions: Vec<_> = (0..count).map(calls).collect();
        let last = format!("F{count}");
        functions.push(function(("my", &last), &["a"], &["b"], vec![node("", "Neg", &["a"], &["b"])]));
        functions
    };
    let graph = import_bytes(calling(doubling(5)), &request()).unwrap();
    assert_eq!(graph.dag.node_count(), 1 + 32);
    let error = refusal(calling(doubling(60)));
    assert_eq!(error.code(), "expansion");
    // Without a second call nothing grows, but the calls lie within each other.
    let mut chain = doubling(80);
    for function in &mut chain {
        function.node.truncate(1);
        function.node[0].output[0] = "b".into();
    }
    assert_eq!(refusal(calling(chain)).code(), "expansion");
}

#[test]
fn calls_with_many_names_are_counted() {
    let names: Vec<String> = (0..20_000).map(|index| format!("a{index}")).collect();
    let mut inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    inputs[0] = "a";
    let wide = function(("my", "F"), &inputs, &["b"], vec![node("", "Neg", &["a"], &["b"])]);
    let mut model = Model::new(17);
    model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
    model.functions.push(wide);
    for index in 0..100 {
        let from = if index == 0 { "x".to_owned() } else { format!("v{}", index - 1) };
        model.node("F", &[&from], &[&format!("v{index}")], &[]).domain = "my".into();
    }
    model.output("v99");
    assert_eq!(refusal(model.bytes()).code(), "expansion");
}

#[test]
fn only_so_much_is_computed_while_importing() {
    // Products of large known matrices, in a small file: a few are folded, the others become nodes.
    let mut model = Model::new(17);
    model.initializer("s", &Tensor::i64([2], vec![1024, 1024]).unwrap());
    model.node("ConstantOfShape", &["s"], &["v0"], &[]);
    for index in 0..40 {
        let from = format!("v{index}");
        model.node("MatMul", &[&from, &from], &[&format!("v{}", index + 1)], &[]);
    }
    model.output("v40");
    let graph = import_bytes(model.bytes(), &request()).unwrap();
    assert!((30..=41).contains(&graph.dag.node_count()), "{} nodes", graph.dag.node_count());
}

#[test]
fn long_names_do_not_multiply() {
    // Each of many small nodes would be named after its call.
    let nodes = (0..1000).map(|index| match index {
        0 => node("", "Neg", &["a"], &["v0"]),
        _ => node("", "Neg", &[&format!("v{}", index - 1)], &[&format!("v{index}")]),
    });
    let mut model = Model::new(17);
    model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
    model.functions.push(function(("my", "F"), &["a"], &["v999"], nodes.collect()));
    let call = model.node("F", &["x"], &["y"], &[]);
    (call.domain, call.name) = ("my".into(), "n".repeat(1 << 20));
    model.output("y");
    assert_eq!(import_bytes(model.bytes(), &request()).unwrap_err().code(), "expansion");
}

#[test]
fn calls_that_do_not_suit_their_function_are_refused() {
    let identity = |inputs: &[&str], outputs: &[&str]| {
        function(("my", "F"), inputs, outputs, vec![node("", "Identity", &["a"], &["b"])])
    };
    let refused = |function, change: &dyn Fn(&mut Model)| {
        let mut model = Model::new(17);
        model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
        model.functions.push(function);
        model.node("F", &["x"], &["y"], &[]).domain = "my".into();
        model.output("y");
        change(&mut model);
        refusal(model.bytes()).code()
    };
    let nothing = |_: &mut Model| ();
    let operand = |model: &mut Model| model.graph.node[0].input.push("x".into());
    assert_eq!(refused(identity(&["a"], &["b"]), &operand), "operator-invalid");
    let output = |model: &mut Model| model.graph.node[0].output.push("z".into());
    assert_eq!(refused(identity(&["a"], &["b"]), &output), "operator-invalid");
    assert_eq!(refused(identity(&["a"], &["c"]), &nothing), "undefined");
    assert_eq!(refused(identity(&["c"], &["b"]), &nothing), "undefined");
    assert_eq!(refused(identity(&["a", "a"], &["b"]), &nothing), "redefined");
    let absent = |model: &mut Model| model.graph.node[0].input.clear();
    assert_eq!(refused(identity(&["a"], &["b"]), &absent), "operator-invalid");
    // Names of the graph are no names of the function.
    let outer = function(("my", "F"), &["a"], &["b"], vec![node("", "Neg", &["x"], &["b"])]);
    assert_eq!(refused(outer, &nothing), "undefined");
    // A parameter without a value takes the attribute away, and Constant needs one.
    let mut constant = node("", "Constant", &[], &["b"]);
    constant.attribute.push(reference("value_float", "v"));
    let valued = || function(("my", "F"), &["a"], &["b"], vec![constant.clone()]);
    assert_eq!(refused(valued(), &nothing), "operator-form");
    // References outside of functions, and to what is of another type.
    let outside = |model: &mut Model| model.graph.node[0].attribute.push(reference("v", "w"));
    assert_eq!(refused(valued(), &outside), "operator-invalid");
    let mut typed = valued();
    typed.node[0].attribute[0].type_ = onnx_protobuf::attribute_proto::AttributeType::FLOAT.into();
    let text = |model: &mut Model| {
        let mut attribute = reference("v", "");
        attribute.type_ = onnx_protobuf::attribute_proto::AttributeType::STRING.into();
        model.graph.node[0].attribute.push(attribute);
    };
    assert_eq!(refused(typed, &text), "operator-invalid");
}

#[test]
fn conditionals_without_suitable_branches_are_refused() {
    let refused = |change: &dyn Fn(&mut Model)| {
        let mut branch = Model::new(17);
        branch.node("Neg", &["x"], &["r"], &[]);
        branch.output("r");
        let mut model = Model::new(17);
        model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
        model.initializer("c", &Tensor::bool([], vec![true]).unwrap());
        let mut attribute = reference("then_branch", "");
        attribute.g = Some(branch.graph).into();
        model.node("If", &["c"], &["y"], &[]).attribute.push(attribute);
        model.output("y");
        change(&mut model);
        import_bytes(model.bytes(), &request()).map(|_| ()).map_err(|error| error.code())
    };
    fn branch(model: &mut Model) -> &mut GraphProto {
        model.graph.node[0].attribute[0].g.as_mut().unwrap()
    }
    assert_eq!(refused(&|_| ()), Ok(()));
    assert_eq!(refused(&|model| model.graph.node[0].attribute.clear()), Err("operator-invalid"));
    assert_eq!(refused(&|model| branch(model).output.clear()), Err("operator-invalid"));
    assert_eq!(refused(&|model| model.graph.node[0].output.push("z".into())), Err("operator-invalid"));
    assert_eq!(refused(&|model| model.graph.node[0].input.clear()), Err("operator-invalid"));
    assert_eq!(refused(&|model| model.graph.node[0].input.push("c".into())), Err("operator-invalid"));
    assert_eq!(refused(&|model| model.graph.node[0].input[0] = "x".into()), Err("operator"));
    assert_eq!(refused(&|model| branch(model).node[0].input[0] = "nothing".into()), Err("undefined"));
    assert_eq!(refused(&|model| branch(model).node[0].op_type = "LSTM".into()), Err("operator"));
    assert_eq!(refused(&|model| model.graph.initializer[0].raw_data = vec![0]), Err("operator-invalid"));
}

#[test]
fn inputs_and_outputs_have_names_of_their_own_that_can_be_shown() {
    let named = |input: &str, outputs: &[&str]| {
        let mut model = Model::new(17);
        model.input(input, &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
        model.node("Neg", &[input], &["y"], &[]);
        outputs.iter().for_each(|output| model.output(output));
        import_bytes(model.bytes(), &request()).map(|_| ()).map_err(|error| (error.code(), error.node))
    };
    assert_eq!(named("x", &["y", "x"]), Ok(()));
    assert_eq!(named("x", &["y", "x", "y"]), Err(("redefined", "y".into())));
    assert_eq!(named("x\u{17}", &["y"]), Err(("name", "x\\u{17}".into())));
    assert_eq!(named(" x", &["y"]), Err(("name", " x".into())));
    assert_eq!(named("x\u{202e}", &["y", "y"]).unwrap_err().0, "name");
    assert_eq!(named("x", &["y", ""]), Err(("name", String::new())));
}

#[test]
fn only_so_much_is_held_while_importing() {
    // Each range is a few bytes of the file and 8 MB in memory, and all are needed at the end.
    let mut model = Model::new(17);
    for (name, value) in [("start", 0), ("limit", 1 << 20), ("delta", 1)] {
        model.initializer(name, &Tensor::scalar_i64(value));
    }
    let names: Vec<String> = (0..1000).map(|index| format!("r{index}")).collect();
    for name in &names {
        model.node("Range", &["start", "limit", "delta"], &[name], &[]);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    model.node("Concat", &names, &["y"], &[("axis", Attribute::Int(0))]);
    model.output("y");
    let error = refusal(model.bytes());
    assert_eq!((error.code(), error.node.as_str()), ("operator-form", "r64"));
    // What is let go again makes room.
    let mut model = Model::new(17);
    model.initializer("s", &Tensor::i64([1], vec![1 << 20]).unwrap());
    model.node("ConstantOfShape", &["s"], &["v0"], &[]);
    for index in 0..150 {
        model.node("Neg", &[&format!("v{index}")], &[&format!("v{}", index + 1)], &[]);
    }
    model.output("v150");
    assert_eq!(import_bytes(model.bytes(), &request()).unwrap().dag.node_count(), 1);
}

#[test]
fn names_do_not_multiply_by_the_values_of_a_node() {
    let mut model = Model::new(17);
    model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
    let output = "y".repeat(1 << 20);
    model.node("Sum", &["x"; 10_000], &[&output], &[]);
    model.output(&output);
    let graph = import_bytes(model.bytes(), &request()).unwrap();
    assert_eq!(graph.dag.node_count(), 10_000);
    assert!(graph.dag.node_weights().all(|node| node.name.len() < 1000));
}

#[test]
fn many_nodes_that_need_a_known_shape_are_told_of_in_time() {
    let mut model = Model::new(17);
    model.input("x", &Tensor::i64([1], vec![0]).unwrap().ty());
    for index in 0..20_000 {
        let from = if index == 0 { "x".to_owned() } else { format!("v{}", index - 1) };
        model.node("Neg", &[&from], &[&format!("v{index}")], &[]);
        model.node("Reshape", &["x", &format!("v{index}")], &[&format!("r{index}")], &[]);
        model.output(&format!("r{index}"));
    }
    let error = refusal(model.bytes());
    assert_eq!((error.code(), error.node.as_str()), ("dynamic", "r0"));
}

#[test]
fn shapes_of_many_axes_are_refused() {
    let mut model = Model::new(17);
    model.initializer("w", &Tensor::f32([], vec![0.0]).unwrap()).dims = vec![1; 100_000];
    model.node("Neg", &["w"], &["y"], &[]);
    model.output("y");
    assert!(refusal(model.bytes()).to_string().contains("100000 axes, 64 is the most"));
}

#[test]
fn an_equation_of_many_labels_is_refused_in_time() {
    let equation: String = ('\u{4e00}'..).take(80_000).collect();
    let mut model = Model::new(17);
    model.input("x", &Tensor::f32([2], vec![0.0; 2]).unwrap().ty());
    let node = model.node("Einsum", &["x", "x"], &["y"], &[("equation", Attribute::Text(""))]);
    node.attribute[0].s = format!("{equation},a->a").into_bytes();
    model.output("y");
    assert_eq!(refusal(model.bytes()).code(), "operator-form");
}
