//! Writes local functions.

use onnx_protobuf::{AttributeProto, FunctionProto, NodeProto};

/// A function whose body is `nodes`.
pub fn function(
    (domain, name): (&str, &str),
    inputs: &[&str],
    outputs: &[&str],
    nodes: Vec<NodeProto>,
) -> FunctionProto {
    let mut function = FunctionProto::new();
    (function.domain, function.name) = (domain.into(), name.into());
    function.input = inputs.iter().map(|&name| name.into()).collect();
    function.output = outputs.iter().map(|&name| name.into()).collect();
    function.node = nodes;
    function
}

/// A node of `domain`.
pub fn node(domain: &str, op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let mut node = NodeProto::new();
    (node.domain, node.op_type) = (domain.into(), op_type.into());
    node.input = inputs.iter().map(|&name| name.into()).collect();
    node.output = outputs.iter().map(|&name| name.into()).collect();
    node
}

/// Attribute `name` that is the function's parameter `parameter`.
pub fn reference(name: &str, parameter: &str) -> AttributeProto {
    let mut attribute = AttributeProto::new();
    (attribute.name, attribute.ref_attr_name) = (name.into(), parameter.into());
    attribute
}
