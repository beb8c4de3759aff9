//! Writes small ONNX models.

use marill_plaintext::{DType, Tensor, TensorType};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_shape_proto::{Dimension, dimension};
use onnx_protobuf::type_proto;
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

/// An attribute's value.
#[derive(Clone, Debug)]
pub enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// A model under construction.
pub struct Model {
    pub graph: GraphProto,
    pub functions: Vec<FunctionProto>,
    opset: i64,
}

impl Model {
    pub fn new(opset: i64) -> Model {
        Model { graph: GraphProto::new(), functions: Vec::new(), opset }
    }

    pub fn input(&mut self, name: &str, ty: &TensorType) {
        let dims = ty.shape.iter().map(|&length| dimension::Value::DimValue(length as i64));
        self.value(name, ty.dtype, dims.collect());
    }

    pub fn symbolic_input(&mut self, name: &str, dims: &[&str]) {
        let dims = dims.iter().map(|&dim| dimension::Value::DimParam(dim.into()));
        self.value(name, DType::F32, dims.collect());
    }

    fn value(&mut self, name: &str, dtype: DType, dims: Vec<dimension::Value>) {
        let mut shape = TensorShapeProto::new();
        for value in dims {
            let mut dim = Dimension::new();
            dim.value = Some(value);
            shape.dim.push(dim);
        }
        let mut tensor = type_proto::Tensor::new();
        tensor.elem_type = code(dtype);
        tensor.shape = Some(shape).into();
        let mut ty = TypeProto::new();
        ty.value = Some(type_proto::Value::TensorType(tensor));
        let mut info = ValueInfoProto::new();
        info.name = name.into();
        info.type_ = Some(ty).into();
        self.graph.input.push(info);
    }

    pub fn initializer(&mut self, name: &str, tensor: &Tensor) -> &mut TensorProto {
        let mut proto = TensorProto::new();
        proto.name = name.into();
        proto.dims = tensor.shape().iter().map(|&length| length as i64).collect();
        proto.data_type = code(tensor.dtype());
        proto.raw_data = match tensor {
            Tensor::F32(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Tensor::I64(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Tensor::Bool(array) => array.iter().map(|&x| u8::from(x)).collect(),
        };
        self.graph.initializer.push(proto);
        self.graph.initializer.last_mut().unwrap()
    }

    pub fn node(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> &mut NodeProto {
        let mut node = NodeProto::new();
        node.op_type = op_type.into();
        node.input = inputs.iter().map(|&name| name.into()).collect();
        node.output = outputs.iter().map(|&name| name.into()).collect();
        for (name, value) in attributes {
            let mut attribute = AttributeProto::new();
            attribute.name = (*name).into();
            attribute.type_ = match value.clone() {
                Attribute::Int(int) => {
                    attribute.i = int;
                    AttributeType::INT
                }
                Attribute::Float(float) => {
                    attribute.f = float;
                    AttributeType::FLOAT
                }
                Attribute::Ints(ints) => {
                    attribute.ints = ints;
                    AttributeType::INTS
                }
                Attribute::Text(text) => {
                    attribute.s = text.as_bytes().to_vec();
                    AttributeType::STRING
                }
            }
            .into();
            node.attribute.push(attribute);
        }
        self.graph.node.push(node);
        self.graph.node.last_mut().unwrap()
    }

    pub fn output(&mut self, name: &str) {
        let mut info = ValueInfoProto::new();
        info.name = name.into();
        self.graph.output.push(info);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut opset = OperatorSetIdProto::new();
        opset.version = self.opset;
        let mut model = ModelProto::new();
        model.ir_version = 8;
        model.opset_import.push(opset);
        model.graph = Some(self.graph.clone()).into();
        model.functions = self.functions.clone();
        model.write_to_bytes().unwrap()
    }
}

fn code(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 1,
        DType::I64 => 7,
        DType::Bool => 9,
    }
}
