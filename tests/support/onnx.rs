//! Writes ONNX graphs node by node, for models that are made up. Names that do not matter are counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use onnx_protobuf::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_shape_proto, type_proto,
};
use protobuf::{EnumOrUnknown, Message, MessageField};

pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;
pub const FLOAT16: i32 = 10;

/// A graph in the making, at opset 17.
#[derive(Default)]
pub struct GraphWriter {
    graph: GraphProto,
    count: usize,
    /// Lengths of the files that external initializers lie in.
    external_bytes: BTreeMap<String, u64>,
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

    /// A tensor of one index.
    pub fn axis(&mut self, value: usize) -> String {
        self.integers("", &[value as i64], &[1])
    }

    /// A shape as a tensor.
    pub fn shape(&mut self, shape: &[usize]) -> String {
        let values: Vec<i64> = shape.iter().map(|&v| v as i64).collect();
        self.integers("", &values, &[shape.len()])
    }

    /// An initializer; without a name it is counted.
    pub fn floats(&mut self, name: &str, data: &[f32], shape: &[usize]) -> String {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, FLOAT, bytes, shape)
    }

    /// As [`Self::floats`].
    pub fn integers(&mut self, name: &str, data: &[i64], shape: &[usize]) -> String {
        let bytes = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, INT64, bytes, shape)
    }

    fn initializer(&mut self, name: &str, data_type: i32, raw_data: Vec<u8>, shape: &[usize]) -> String {
        let name = if name.is_empty() { self.fresh() } else { name.to_owned() };
        let dims = shape.iter().map(|&d| d as i64).collect();
        self.tensor(TensorProto { name, dims, data_type, raw_data, ..Default::default() })
    }

    /// An initializer that lies in the file `location`, behind those before it.
    pub fn external(&mut self, name: &str, data_type: i32, location: &str, shape: &[usize]) -> String {
        let element_bytes = if data_type == FLOAT16 { 2 } else { 4 };
        let length_bytes = element_bytes * shape.iter().product::<usize>() as u64;
        let entries = [
            ("location", location.to_owned()),
            ("offset", self.external_bytes(location).to_string()),
            ("length", length_bytes.to_string()),
        ];
        *self.external_bytes.entry(location.to_owned()).or_default() += length_bytes;
        let entry = |(key, value): (&str, String)| StringStringEntryProto {
            key: key.into(),
            value,
            ..Default::default()
        };
        self.tensor(TensorProto {
            name: name.into(),
            dims: shape.iter().map(|&d| d as i64).collect(),
            data_type,
            data_location: EnumOrUnknown::new(DataLocation::EXTERNAL),
            external_data: entries.into_iter().map(entry).collect(),
            ..Default::default()
        })
    }

    /// Length of the file `location` that holds the external initializers so far.
    pub fn external_bytes(&self, location: &str) -> u64 {
        self.external_bytes.get(location).copied().unwrap_or_default()
    }

    fn tensor(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone();
        self.graph.initializer.push(tensor);
        name
    }

    /// A name that nothing else has.
    pub fn fresh(&mut self) -> String {
        self.count += 1;
        format!("value_{}", self.count)
    }

    /// A node; its output's name.
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

    /// What is added to scores: nothing for a token and those before it, `past` of which have no row.
    pub fn causal_mask(&mut self, tokens: usize, past: usize) -> String {
        let total = past + tokens;
        let bias = |i: usize| if i % total <= past + i / total { 0.0 } else { f32::MIN };
        let triangle: Vec<f32> = (0..tokens * total).map(bias).collect();
        self.floats("causal_mask", &triangle, &[1, 1, tokens, total])
    }

    /// Attention of queries, keys (transposed) and values by `[heads, size]`, joined to `[1, tokens, heads * size]`.
    pub fn attention(
        &mut self,
        [q, k, v]: [&str; 3],
        mask: &str,
        tokens: usize,
        [heads, size]: [usize; 2],
    ) -> String {
        let scores = self.node("MatMul", &[q, k], vec![]);
        let root = self.floats("", &[(size as f32).sqrt()], &[]);
        let scores = self.node("Div", &[&scores, &root], vec![]);
        let scores = self.node("Add", &[&scores, mask], vec![]);
        let p = self.node("Softmax", &[&scores], vec![int("axis", -1)]);
        let mixed = self.node("MatMul", &[&p, v], vec![]);
        let mixed = self.node("Transpose", &[&mixed], vec![ints("perm", &[0, 2, 1, 3])]);
        let flat = self.shape(&[1, tokens, heads * size]);
        self.node("Reshape", &[&mixed, &flat], vec![])
    }

    /// `sum + 2 (x A) B`.
    pub fn adapter(&mut self, sum: &str, x: &str, [a, b]: [&str; 2]) -> String {
        let thin = self.node("MatMul", &[x, a], vec![]);
        let change = self.node("MatMul", &[&thin, b], vec![]);
        let scale = self.floats("", &[2.0], &[]);
        let change = self.node("Mul", &[&change, &scale], vec![]);
        self.node("Add", &[sum, &change], vec![])
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
