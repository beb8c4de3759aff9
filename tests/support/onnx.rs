//! Writes ONNX graphs node by node, for models that are made up. Names that do not matter are counted.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use protobuf::{EnumOrUnknown, Message, MessageField};

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;

/// A graph in the making, at opset 17.
#[derive(Default)]
pub struct GraphWriter {
    graph: GraphProto,
    count: usize,
}

impl GraphWriter {
    /// Declares an input.
    pub fn input(&mut self, name: &str, elem_type: i32, shape: &[usize]) {
        self.graph.input.push(value(name, elem_type, shape));
    }

    /// Declares an output.
    pub fn output(&mut self, name: &str, shape: &[usize]) {
        self.graph.output.push(value(name, FLOAT, shape));
    }

    /// Writes the model to `path`.
    pub fn write(self, path: &Path) -> std::io::Result<()> {
        let mut model = ModelProto::new();
        model.ir_version = 8;
        model.opset_import = vec![OperatorSetIdProto { version: 17, ..Default::default() }];
        model.graph = MessageField::some(self.graph);
        let mut file = BufWriter::new(File::create(path)?);
        model.write_to_writer(&mut file).map_err(std::io::Error::other)
    }

    pub fn axis(&mut self, value: usize) -> String {
        self.integers("", &[value as i64], &[1])
    }

    pub fn shape(&mut self, shape: &[usize]) -> String {
        let values: Vec<i64> = shape.iter().map(|&v| v as i64).collect();
        self.integers("", &values, &[shape.len()])
    }

    pub fn floats(&mut self, name: &str, data: &[f32], shape: &[usize]) -> String {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, FLOAT, bytes, shape)
    }

    pub fn integers(&mut self, name: &str, data: &[i64], shape: &[usize]) -> String {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, INT64, bytes, shape)
    }

    pub fn initializer(&mut self, name: &str, data_type: i32, raw_data: Vec<u8>, shape: &[usize]) -> String {
        let name = if name.is_empty() { self.fresh() } else { name.to_owned() };
        let dims = shape.iter().map(|&d| d as i64).collect();
        let tensor = TensorProto { name: name.clone(), dims, data_type, raw_data, ..Default::default() };
        self.graph.initializer.push(tensor);
        name
    }

    #[allow(dead_code, reason = "not every example that includes this file has a file beside the model")]
    /// Floats that lie in the file `location` beside the model, from `offset_bytes` on.
    pub fn external_floats(
        &mut self,
        name: &str,
        location: &str,
        offset_bytes: u64,
        shape: &[usize],
    ) -> String {
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: key.into(),
            value,
            ..Default::default()
        };
        let length = 4 * shape.iter().product::<usize>();
        let tensor = TensorProto {
            name: name.into(),
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type: FLOAT,
            data_location: EnumOrUnknown::new(DataLocation::EXTERNAL),
            external_data: vec![
                entry("location", location.into()),
                entry("offset", offset_bytes.to_string()),
                entry("length", length.to_string()),
            ],
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        name.to_owned()
    }

    pub fn fresh(&mut self) -> String {
        self.count += 1;
        format!("value_{}", self.count)
    }

    pub fn node(&mut self, op_type: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.fresh();
        self.graph.node.push(NodeProto {
            name: format!("{op_type}_{}", self.count),
            op_type: op_type.into(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.clone()],
            attribute,
            ..Default::default()
        });
        output
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.into(), i, ..Default::default() };
    attribute.type_ = EnumOrUnknown::new(AttributeType::INT);
    attribute
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.into(), ints: values.to_vec(), ..Default::default() };
    attribute.type_ = EnumOrUnknown::new(AttributeType::INTS);
    attribute
}

fn value(name: &str, elem_type: i32, shape: &[usize]) -> ValueInfoProto {
    let dimension = |&d: &usize| {
        let mut dim = tensor_shape_proto::Dimension::new();
        dim.value = Some(tensor_shape_proto::dimension::Value::DimValue(d as i64));
        dim
    };
    let mut tensor = type_proto::Tensor { elem_type, ..Default::default() };
    tensor.shape.mut_or_insert_default().dim = shape.iter().map(dimension).collect();
    let mut info = ValueInfoProto { name: name.into(), ..Default::default() };
    info.type_.mut_or_insert_default().value = Some(type_proto::Value::TensorType(tensor));
    info
}
