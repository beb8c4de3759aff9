//! Mutations of ONNX models: other operators, operands, attributes, shapes and types.

use libfuzzer_sys::fuzzer_mutate;
use marill_compiler::import::ops::OPERATORS;
use marill_compiler::import::wire;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto, type_proto,
};

use crate::random::Random;

/// Names that the importer looks for.
const ATTRIBUTES: &[&str] = &[
    "allowzero",
    "alpha",
    "approximate",
    "auto_pad",
    "axes",
    "axis",
    "batch_dims",
    "beta",
    "ceil_mode",
    "dilations",
    "direction",
    "do_rotary",
    "else_branch",
    "end",
    "epsilon",
    "equation",
    "exclusive",
    "exponent",
    "fmod",
    "group",
    "interleaved",
    "is_causal",
    "k",
    "keepdims",
    "kernel_shape",
    "kv_num_heads",
    "mode",
    "noop_with_empty_axes",
    "num_heads",
    "num_outputs",
    "pads",
    "perm",
    "q_num_heads",
    "qk_matmul_output_mode",
    "reduction",
    "reverse",
    "rotary_embedding_dim",
    "scale",
    "select_last_index",
    "softcap",
    "split",
    "start",
    "stash_type",
    "strides",
    "then_branch",
    "to",
    "transA",
    "transB",
    "transBatchA",
    "transBatchB",
    "unidirectional",
    "upper",
    "value",
    "value_float",
    "value_floats",
    "value_int",
    "value_ints",
];

const TEXTS: &[&str] = &[
    "constant",
    "reflect",
    "edge",
    "tanh",
    "none",
    "NOTSET",
    "SAME_UPPER",
    "VALID",
    "add",
    "Relu",
    "Sigmoid",
    "ij,jk->ik",
    "bhqd,bhkd->bhqk",
    "...i,ij->...j",
    "i,i->",
    "ab,ab->ab",
    "",
];

const DIMS: &[&str] = &["batch", "s", "seq", "2*s", "s - 1", "s//2", "unknown", ""];

/// A libFuzzer mutator: bytes now and then, else one to four changes of the model.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random::new(seed);
    // The decoder recurses; what the importer would not give to it is not given to it here.
    let decoded = wire::scan(&data[..size]).is_ok().then(|| ModelProto::parse_from_bytes(&data[..size]).ok());
    let Some(mut model) = decoded.flatten().filter(|model| model.graph.is_some() && !random.once_in(5))
    else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(4) {
        change(&mut model, &mut random);
    }
    match model.write_to_bytes() {
        Ok(bytes) if bytes.len() <= max_size && bytes.len() <= data.len() && bytes != data[..size] => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
}

fn change(model: &mut ModelProto, random: &mut Random) {
    if random.once_in(24) {
        return change_model(model, random);
    }
    if random.once_in(16) && !model.functions.is_empty() {
        let at = random.below(model.functions.len());
        return change_function(&mut model.functions[at], random);
    }
    let functions: Vec<(String, String)> =
        model.functions.iter().map(|f| (f.domain.clone(), f.name.clone())).collect();
    if let Some(graph) = model.graph.as_mut() {
        change_graph(graph, random);
        if random.once_in(8)
            && let (Some((domain, name)), Some(at)) = (random.choose(&functions), pick(&graph.node, random))
        {
            graph.node[at].domain = domain.clone();
            graph.node[at].op_type = name.clone();
        }
    }
}

fn pick<T>(items: &[T], random: &mut Random) -> Option<usize> {
    (!items.is_empty()).then(|| random.below(items.len()))
}

fn change_model(model: &mut ModelProto, random: &mut Random) {
    match random.below(3) {
        0 => {
            let version = random.below(26) as i64;
            match model.opset_import.first_mut() {
                Some(set) => set.version = version,
                None => model.opset_import.push(OperatorSetIdProto { version, ..Default::default() }),
            }
        }
        // A node as a function of its own.
        1 => {
            let Some(graph) = model.graph.as_mut() else { return };
            let Some(at) = pick(&graph.node, random) else { return };
            let node = &mut graph.node[at];
            let mut function = FunctionProto::new();
            (function.domain, function.name) = ("f".into(), format!("F{}", model.functions.len()));
            function.input = node.input.iter().filter(|name| !name.is_empty()).cloned().collect();
            function.output = node.output.clone();
            function.node.push(node.clone());
            node.input.retain(|name| !name.is_empty());
            (node.domain, node.op_type) = (function.domain.clone(), function.name.clone());
            model.functions.push(function);
        }
        // Nodes as the branch of an `If`.
        _ => {
            let Some(graph) = model.graph.as_mut() else { return };
            let Some(at) = pick(&graph.node, random) else { return };
            let inner = graph.node[at].clone();
            let mut branch = GraphProto::new();
            branch.output = inner.output.iter().map(|name| named(name)).collect();
            let mut node = NodeProto::new();
            node.op_type = "If".into();
            node.input = vec!["condition".into()];
            node.output = inner.output.clone();
            branch.node.push(inner);
            for name in ["then_branch", "else_branch"] {
                let mut attribute = AttributeProto::new();
                attribute.name = name.into();
                attribute.type_ = AttributeType::GRAPH.into();
                attribute.g = Some(branch.clone()).into();
                node.attribute.push(attribute);
            }
            graph.node[at] = node;
            let mut condition = TensorProto::new();
            condition.name = "condition".into();
            condition.data_type = 9;
            condition.raw_data = vec![random.below(2) as u8];
            graph.initializer.push(condition);
        }
    }
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), ..Default::default() }
}

fn change_function(function: &mut FunctionProto, random: &mut Random) {
    let Some(at) = pick(&function.node, random) else { return };
    match random.below(4) {
        0 => function.node.push(function.node[at].clone()),
        1 => {
            let mut reference = AttributeProto::new();
            reference.name = (*random.choose(ATTRIBUTES).unwrap_or(&"axis")).into();
            reference.ref_attr_name = (*random.choose(ATTRIBUTES).unwrap_or(&"axis")).into();
            function.node[at].attribute.push(reference);
        }
        _ => change_node(&mut function.node[at], &function.input, random),
    }
}

/// Names of the graph's values that stand before node `at`, now and then any of them.
fn values(graph: &GraphProto, at: usize, random: &mut Random) -> Vec<String> {
    let end = if random.once_in(16) { graph.node.len() } else { at };
    let inputs = graph.input.iter().map(|input| input.name.clone());
    let stored = graph.initializer.iter().map(|tensor| tensor.name.clone());
    inputs.chain(stored).chain(graph.node[..end].iter().flat_map(|node| node.output.clone())).collect()
}

fn change_graph(graph: &mut GraphProto, random: &mut Random) {
    let at = pick(&graph.node, random);
    match (random.below(16), at) {
        (0..=5, Some(at)) => {
            let values = values(graph, at, random);
            change_node(&mut graph.node[at], &values, random);
        }
        (6, Some(at)) => {
            let node = graph.node.remove(at);
            // Its users take its first operand.
            if let (Some(operand), Some(result)) = (node.input.first(), node.output.first()) {
                replace(graph, result, operand);
            }
        }
        (7, Some(at)) => {
            // Into a branch, where there is one.
            if let Some(inner) = graph.node[at].attribute.iter_mut().find_map(|a| a.g.as_mut()) {
                change_graph(inner, random);
            } else {
                let copy = graph.node[at].clone();
                graph.node.insert(at, copy);
            }
        }
        (8..=10, _) => insert(graph, random),
        (11..=12, _) if !graph.initializer.is_empty() => {
            let at = random.below(graph.initializer.len());
            change_tensor(&mut graph.initializer[at], random);
        }
        (13, _) => change_input(graph, random),
        (14, Some(at)) => {
            let values = values(graph, at + 1, random);
            let Some(name) = random.choose(&values).cloned() else { return };
            match graph.output.first_mut() {
                Some(output) if !random.once_in(4) => output.name = name,
                _ => graph.output.push(named(&name)),
            }
        }
        (15, _) => {
            let mut tensor = TensorProto::new();
            tensor.name = format!("t{}", graph.initializer.len());
            let count = random.below(4);
            (tensor.dims, tensor.data_type) = (vec![count as i64], 7);
            tensor.raw_data = (0..count).flat_map(|_| random.integer().to_le_bytes()).collect();
            graph.initializer.push(tensor);
        }
        _ => change_input(graph, random),
    }
}

fn replace(graph: &mut GraphProto, from: &str, to: &str) {
    let inputs = graph.node.iter_mut().flat_map(|node| &mut node.input);
    let outputs = graph.output.iter_mut().map(|output| &mut output.name);
    inputs.chain(outputs).filter(|name| *name == from).for_each(|name| *name = to.to_owned());
}

/// A new node on some values, in place of one of them at its users.
fn insert(graph: &mut GraphProto, random: &mut Random) {
    let at = random.below(graph.node.len() + 1);
    let values = values(graph, at, random);
    let mut node = NodeProto::new();
    set_operator(&mut node, random);
    for _ in 0..random.below(4) + usize::from(!random.once_in(8)) {
        node.input.extend(random.choose(&values).cloned());
    }
    let result = format!("v{}", random.below(1000));
    if let Some(name) = random.choose(&values).cloned() {
        for later in &mut graph.node[at..] {
            later.input.iter_mut().filter(|input| **input == name).for_each(|input| *input = result.clone());
        }
        if let Some(output) = graph.output.iter_mut().find(|output| output.name == name) {
            output.name = result.clone();
        }
    }
    node.output.push(result);
    if random.once_in(2) {
        change_attribute(&mut node, random);
    }
    graph.node.insert(at, node);
}

fn set_operator(node: &mut NodeProto, random: &mut Random) {
    if let Some(operator) = random.choose(OPERATORS) {
        (node.domain, node.op_type) = (operator.domain.into(), operator.op_type.into());
    }
}

fn change_node(node: &mut NodeProto, values: &[String], random: &mut Random) {
    match random.below(10) {
        0..=1 => set_operator(node, random),
        2..=3 => {
            let (at, name) = (pick(&node.input, random), random.choose(values));
            if let (Some(at), Some(name)) = (at, name) {
                node.input[at] = if random.once_in(10) { String::new() } else { name.clone() };
            }
        }
        4 => node.input.extend(random.choose(values).cloned()),
        5 => drop(node.input.pop()),
        6 => {
            if random.once_in(3) {
                node.output.push(format!("w{}", random.below(1000)));
            } else if node.output.len() > 1 {
                node.output.pop();
            }
        }
        _ => change_attribute(node, random),
    }
}

fn change_attribute(node: &mut NodeProto, random: &mut Random) {
    let known = pick(&node.attribute, random);
    if let (Some(at), true) = (known, random.once_in(8)) {
        node.attribute.remove(at);
        return;
    }
    let at = match known {
        Some(at) if !random.once_in(3) => at,
        _ => {
            let mut attribute = AttributeProto::new();
            attribute.name = (*random.choose(ATTRIBUTES).unwrap_or(&"axis")).into();
            node.attribute.push(attribute);
            node.attribute.len() - 1
        }
    };
    let attribute = &mut node.attribute[at];
    let is_list = !attribute.ints.is_empty() || random.once_in(4);
    match random.below(8) {
        _ if attribute.g.is_some() => {
            if let Some(graph) = attribute.g.as_mut() {
                change_graph(graph, random);
            }
        }
        _ if attribute.t.is_some() => {
            if let Some(tensor) = attribute.t.as_mut() {
                change_tensor(tensor, random);
            }
        }
        0 => {
            attribute.s = random.choose(TEXTS).map(|text| text.as_bytes().to_vec()).unwrap_or_default();
            attribute.type_ = AttributeType::STRING.into();
        }
        1 => {
            attribute.f = random.float();
            attribute.type_ = AttributeType::FLOAT.into();
        }
        2..=6 if is_list => {
            change_list(&mut attribute.ints, random);
            attribute.type_ = AttributeType::INTS.into();
        }
        _ => {
            attribute.i = random.integer();
            attribute.type_ = AttributeType::INT.into();
        }
    }
}

fn change_list(list: &mut Vec<i64>, random: &mut Random) {
    match (random.below(6), pick(list, random)) {
        (0, _) => list.push(random.integer()),
        (1, Some(at)) => drop(list.remove(at)),
        (2, Some(at)) => {
            let other = random.below(list.len());
            list.swap(at, other);
        }
        (_, Some(at)) => list[at] = random.integer(),
        (_, None) => list.push(random.integer()),
    }
}

fn element_bytes(data_type: i32) -> usize {
    match data_type {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        7 | 11 | 13 => 8,
        _ => 4,
    }
}

fn change_tensor(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(6) {
        0 => tensor.data_type = random.below(18) as i32,
        1..=2 => change_list(&mut tensor.dims, random),
        3 if !tensor.int64_data.is_empty() => change_list(&mut tensor.int64_data, random),
        _ if tensor.data_type == 7 && !tensor.raw_data.is_empty() => {
            let at = random.below(tensor.raw_data.len().div_ceil(8)) * 8;
            let end = tensor.raw_data.len().min(at + 8);
            tensor.raw_data[at..end].copy_from_slice(&random.integer().to_le_bytes()[..end - at]);
        }
        _ if tensor.data_type == 1 && tensor.raw_data.len() >= 4 => {
            let at = random.below(tensor.raw_data.len() / 4) * 4;
            tensor.raw_data[at..at + 4].copy_from_slice(&random.float().to_le_bytes());
        }
        _ => {
            if let Some(at) = pick(&tensor.raw_data, random) {
                tensor.raw_data[at] = random.integer() as u8;
            }
        }
    }
    // As many elements as the shape has, mostly.
    let elements = tensor.dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    if let Some(elements) = elements.filter(|&n| n <= 512 && !random.once_in(12)) {
        let is_typed = [tensor.int64_data.len(), tensor.int32_data.len(), tensor.float_data.len()] != [0; 3];
        if !is_typed {
            tensor.raw_data.resize(elements * element_bytes(tensor.data_type), 0);
        }
    }
}

fn change_input(graph: &mut GraphProto, random: &mut Random) {
    let Some(at) = pick(&graph.input, random) else {
        graph.input.push(named("x"));
        return;
    };
    if random.once_in(8) {
        let copy = ValueInfoProto { name: format!("i{}", random.below(100)), ..graph.input[at].clone() };
        graph.input.push(copy);
        return;
    }
    let value = graph.input[at].type_.mut_or_insert_default().value.as_mut();
    let Some(type_proto::Value::TensorType(tensor)) = value else { return };
    if random.once_in(4) {
        tensor.elem_type = random.below(18) as i32;
        return;
    }
    let dims = &mut tensor.shape.mut_or_insert_default().dim;
    let mut dim = Dimension::new();
    dim.value = match random.below(6) {
        0 => random.choose(DIMS).map(|name| dimension::Value::DimParam((*name).to_owned())),
        _ => Some(dimension::Value::DimValue(random.integer())),
    };
    match (random.below(5), pick(dims, random)) {
        (0, _) | (_, None) => dims.push(dim),
        (1, Some(at)) => drop(dims.remove(at)),
        (_, Some(at)) => dims[at] = dim,
    }
}
