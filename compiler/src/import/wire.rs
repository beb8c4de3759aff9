//! Reads an ONNX file's outer shape without decoding it: finds the tensors' bytes, copies the small rest.
//!
//! The protobuf decoder behind `onnx-protobuf` recurses on hostile bytes and copies every weight. It is therefore
//! only ever given what [`scan`] wrote: the known fields of the known messages, nested no deeper than the schema
//! below, every length checked, no groups, no tensor contents, no documentation and no metadata. A tensor's
//! contents stay in the file; its copy carries `segment.begin = i`, which says that [`Skeleton::payloads`]`[i]`
//! holds their place.

use std::ops::Range;

use thiserror::Error;

/// Most bytes that everything but the tensors' contents may take; two layers with dynamic axes need 80 kB.
pub const MAX_SKELETON_BYTES: usize = 32 << 20;
/// Most fields that are kept or lifted; bounds the decoder's memory, whose structs outgrow their encoding.
pub const MAX_FIELDS: usize = 1 << 20;
/// Most graphs within graphs, the model's own among them: the decoder recurses into each.
pub const MAX_NESTED_GRAPHS: usize = 8;

/// Why the bytes are not an ONNX file that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A varint or fixed-width value reaches past the end of the enclosing message.
    #[error("the file ends inside a field at byte {at}")]
    Truncated {
        /// Byte of the file.
        at: usize,
    },
    /// A varint of more than 64 bits.
    #[error("byte {at} starts an integer of more than 64 bits")]
    Varint {
        /// Byte of the file.
        at: usize,
    },
    /// A length that exceeds the enclosing message.
    #[error("a field at byte {at} claims {length} bytes where {left} are left")]
    Length {
        /// Byte of the file.
        at: usize,
        /// The length claimed.
        length: u64,
        /// Bytes left in the message.
        left: usize,
    },
    /// Groups, undefined wire types and field number zero.
    #[error("byte {at} starts a field of number {field} and wire type {wire}, which ONNX does not use")]
    Field {
        /// Byte of the file.
        at: usize,
        /// Field number.
        field: u64,
        /// Wire type.
        wire: u8,
    },
    /// A known field in another encoding than its own.
    #[error("field {field} of {message} at byte {at} has wire type {wire}")]
    WireType {
        /// Byte of the file.
        at: usize,
        /// The message that holds it.
        message: &'static str,
        /// Field number.
        field: u64,
        /// Wire type.
        wire: u8,
    },
    /// Graphs within graphs, deeper than [`MAX_NESTED_GRAPHS`].
    #[error("byte {at} starts a graph within {limit} others, {limit} is the most")]
    Nesting {
        /// Byte of the file.
        at: usize,
        /// The limit.
        limit: usize,
    },
    /// More structure than [`MAX_SKELETON_BYTES`] or [`MAX_FIELDS`].
    #[error("the graph's structure needs more than {limit} {what} beside its tensors")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// What it counts.
        what: &'static str,
    },
}

/// Which of a tensor's fields its contents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `raw_data`: little-endian elements of the tensor's type.
    Raw,
    /// `float_data`: little-endian f32.
    Floats,
    /// `double_data`: little-endian f64.
    Doubles,
    /// `int32_data`, `int64_data` and `uint64_data`: varints.
    Varints,
}

/// Where a tensor's contents are: ranges of the file, to be read one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The field that holds them.
    pub encoding: Encoding,
    /// Places in the file, in order.
    pub parts: Vec<Range<usize>>,
}

/// A model without its tensors' contents, and where those are.
#[derive(Clone, Debug, Default)]
pub struct Skeleton {
    /// A `ModelProto` that the decoder can read safely.
    pub model: Vec<u8>,
    /// Contents by the number in a tensor's `segment.begin`.
    pub payloads: Vec<Payload>,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// What becomes of a field.
#[derive(Clone, Copy)]
enum Keep {
    /// Copied; must have this wire type.
    As(u8),
    /// Copied, one element per field or many packed into one.
    Packed(u8),
    /// Scanned in turn.
    Message(&'static Schema),
    /// A tensor's contents; elements of this wire type unless packed.
    Lift(Encoding, u8),
}

struct Schema {
    name: &'static str,
    fields: &'static [(u64, Keep)],
}

const INT: Keep = Keep::As(VARINT);
const TEXT: Keep = Keep::As(BYTES);

static ENTRY: Schema = Schema { name: "StringStringEntryProto", fields: &[(1, TEXT), (2, TEXT)] };
static OPSET: Schema = Schema { name: "OperatorSetIdProto", fields: &[(1, TEXT), (2, INT)] };
static DIMENSION: Schema = Schema { name: "Dimension", fields: &[(1, INT), (2, TEXT)] };
static SHAPE: Schema = Schema { name: "TensorShapeProto", fields: &[(1, Keep::Message(&DIMENSION))] };
static TENSOR_TYPE: Schema =
    Schema { name: "TypeProto.Tensor", fields: &[(1, INT), (2, Keep::Message(&SHAPE))] };
// Sequence, map and optional types nest without bound and are not supported: they read as "no type".
static TYPE: Schema = Schema { name: "TypeProto", fields: &[(1, Keep::Message(&TENSOR_TYPE))] };
static VALUE_INFO: Schema =
    Schema { name: "ValueInfoProto", fields: &[(1, TEXT), (2, Keep::Message(&TYPE))] };
static TENSOR: Schema = Schema {
    name: "TensorProto",
    fields: &[
        (1, Keep::Packed(VARINT)),
        (2, INT),
        (4, Keep::Lift(Encoding::Floats, FIXED32)),
        (5, Keep::Lift(Encoding::Varints, VARINT)),
        (7, Keep::Lift(Encoding::Varints, VARINT)),
        (8, TEXT),
        (9, Keep::Lift(Encoding::Raw, BYTES)),
        (10, Keep::Lift(Encoding::Doubles, FIXED64)),
        (11, Keep::Lift(Encoding::Varints, VARINT)),
        (13, Keep::Message(&ENTRY)),
        (14, INT),
    ],
};
// Lists of graphs (field 11) are left out: no operator that is read has them.
static ATTRIBUTE: Schema = Schema {
    name: "AttributeProto",
    fields: &[
        (1, TEXT),
        (2, Keep::As(FIXED32)),
        (3, INT),
        (4, TEXT),
        (5, Keep::Message(&TENSOR)),
        (6, Keep::Message(&GRAPH)),
        (7, Keep::Packed(FIXED32)),
        (8, Keep::Packed(VARINT)),
        (9, TEXT),
        (20, INT),
        (21, TEXT),
    ],
};
static NODE: Schema = Schema {
    name: "NodeProto",
    fields: &[
        (1, TEXT),
        (2, TEXT),
        (3, TEXT),
        (4, TEXT),
        (5, Keep::Message(&ATTRIBUTE)),
        (7, TEXT),
        (8, TEXT),
    ],
};
static GRAPH: Schema = Schema {
    name: "GraphProto",
    fields: &[
        (1, Keep::Message(&NODE)),
        (2, TEXT),
        (5, Keep::Message(&TENSOR)),
        (11, Keep::Message(&VALUE_INFO)),
        (12, Keep::Message(&VALUE_INFO)),
    ],
};
static FUNCTION: Schema = Schema {
    name: "FunctionProto",
    fields: &[
        (1, TEXT),
        (4, TEXT),
        (5, TEXT),
        (6, TEXT),
        (7, Keep::Message(&NODE)),
        (9, Keep::Message(&OPSET)),
        (10, TEXT),
        (11, Keep::Message(&ATTRIBUTE)),
        (13, TEXT),
    ],
};
static MODEL: Schema = Schema {
    name: "ModelProto",
    fields: &[
        (1, INT),
        (2, TEXT),
        (7, Keep::Message(&GRAPH)),
        (8, Keep::Message(&OPSET)),
        (25, Keep::Message(&FUNCTION)),
    ],
};

/// Splits `file`, the bytes of a `ModelProto`, into its structure and the places of its tensors' contents.
///
/// Reads each byte of the structure once and none of the contents. Unknown fields are left out.
pub fn scan(file: &[u8]) -> Result<Skeleton, WireError> {
    let mut scanner = Scanner { file, payloads: Vec::new(), fields: 0, graphs: 0 };
    let mut model = Vec::new();
    scanner.message(&MODEL, 0..file.len(), &mut model)?;
    Ok(Skeleton { model, payloads: scanner.payloads })
}

/// The varints in `bytes`, for contents of encoding [`Encoding::Varints`].
pub fn varints(bytes: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let value = varint(bytes, &mut at, bytes.len());
        if value.is_err() {
            at = bytes.len();
        }
        Some(value)
    })
}

struct Scanner<'f> {
    file: &'f [u8],
    payloads: Vec<Payload>,
    fields: usize,
    /// How many graphs the message being read lies in.
    graphs: usize,
}

impl Scanner<'_> {
    /// Recurses along the schema, whose only cycle goes through graphs, at most [`MAX_NESTED_GRAPHS`] times.
    fn message(&mut self, schema: &Schema, range: Range<usize>, out: &mut Vec<u8>) -> Result<(), WireError> {
        let mut payload: Option<Payload> = None;
        let mut at = range.start;
        while at < range.end {
            let start = at;
            let Field { number: field, wire, content, .. } = next_field(self.file, &mut at, range.end)?;
            let Some(&(_, keep)) = schema.fields.iter().find(|(number, _)| *number == field) else {
                continue;
            };
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(WireError::TooLarge { limit: MAX_FIELDS, what: "fields" });
            }
            let fits = match keep {
                Keep::As(own) => wire == own,
                Keep::Packed(own) | Keep::Lift(_, own) => wire == own || wire == BYTES,
                Keep::Message(_) => wire == BYTES,
            };
            if !fits {
                return Err(WireError::WireType { at: start, message: schema.name, field, wire });
            }
            match keep {
                Keep::As(_) | Keep::Packed(_) => {
                    // Checked before copying, so that no field is copied past the limit.
                    room(out.len(), at - start)?;
                    out.extend_from_slice(&self.file[start..at]);
                }
                Keep::Message(inner) => {
                    let mut nested = Vec::new();
                    let is_graph = std::ptr::eq(inner, &GRAPH);
                    if is_graph && self.graphs == MAX_NESTED_GRAPHS {
                        return Err(WireError::Nesting { at: start, limit: MAX_NESTED_GRAPHS });
                    }
                    self.graphs += usize::from(is_graph);
                    self.message(inner, content, &mut nested)?;
                    self.graphs -= usize::from(is_graph);
                    room(out.len(), nested.len() + 12)?;
                    put_varint(field << 3 | u64::from(wire), out);
                    put_varint(nested.len() as u64, out);
                    out.extend_from_slice(&nested);
                }
                Keep::Lift(encoding, _) => match &mut payload {
                    // The last `raw_data` wins; repeated fields accumulate.
                    Some(known) if known.encoding == encoding && encoding != Encoding::Raw => {
                        known.parts.push(content);
                    }
                    _ => payload = Some(Payload { encoding, parts: vec![content] }),
                },
            }
        }
        if let Some(payload) = payload {
            // `segment { begin: index }`, fields 3 and 1.
            let mut segment = Vec::new();
            put_varint(1 << 3, &mut segment);
            put_varint(self.payloads.len() as u64, &mut segment);
            put_varint(3 << 3 | u64::from(BYTES), out);
            put_varint(segment.len() as u64, out);
            out.extend_from_slice(&segment);
            self.payloads.push(payload);
        }
        Ok(())
    }
}

/// One field of a message.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Field number.
    pub number: u64,
    /// Wire type.
    pub wire: u8,
    /// Where the whole field is.
    pub whole: Range<usize>,
    /// Where its content is, without tag and length.
    pub content: Range<usize>,
}

/// The fields of the message that `range` of `file` holds.
pub(crate) fn fields(file: &[u8], range: Range<usize>) -> Result<Vec<Field>, WireError> {
    let mut at = range.start;
    let mut found = Vec::new();
    while at < range.end {
        found.push(next_field(file, &mut at, range.end)?);
    }
    Ok(found)
}

fn next_field(file: &[u8], at: &mut usize, end: usize) -> Result<Field, WireError> {
    let start = *at;
    let tag = varint(file, at, end)?;
    let (number, wire) = (tag >> 3, (tag & 7) as u8);
    if number == 0 || number > u64::from(u32::MAX >> 3) {
        return Err(WireError::Field { at: start, field: number, wire });
    }
    let mut content_start = *at;
    match wire {
        VARINT => {
            varint(file, at, end)?;
        }
        FIXED64 | FIXED32 => {
            let width = if wire == FIXED64 { 8 } else { 4 };
            if end - *at < width {
                return Err(WireError::Truncated { at: start });
            }
            *at += width;
        }
        BYTES => {
            let length = varint(file, at, end)?;
            let left = end - *at;
            if length > left as u64 {
                return Err(WireError::Length { at: start, length, left });
            }
            content_start = *at;
            *at += length as usize;
        }
        _ => return Err(WireError::Field { at: start, field: number, wire }),
    }
    Ok(Field { number, wire, whole: start..*at, content: content_start..*at })
}

fn room(used: usize, more: usize) -> Result<(), WireError> {
    if used.saturating_add(more) > MAX_SKELETON_BYTES {
        return Err(WireError::TooLarge { limit: MAX_SKELETON_BYTES, what: "bytes" });
    }
    Ok(())
}

fn varint(file: &[u8], at: &mut usize, end: usize) -> Result<u64, WireError> {
    let start = *at;
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        if *at >= end {
            return Err(WireError::Truncated { at: start });
        }
        let byte = file[*at];
        *at += 1;
        if shift == 63 && byte > 1 {
            return Err(WireError::Varint { at: start });
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Varint { at: start })
}

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, StringStringEntryProto, TensorProto};

    fn model() -> ModelProto {
        let mut tensor = TensorProto::new();
        tensor.name = "w".into();
        tensor.dims = vec![2, 300];
        tensor.raw_data = (0..2400).map(|i| i as u8).collect();
        let mut floats = TensorProto::new();
        floats.float_data = vec![1.5, -2.0];
        floats.doc_string = "/home/someone".into();
        let mut secret = StringStringEntryProto::new();
        secret.key = "path".into();
        secret.value = "/home/someone".into();
        let mut node = NodeProto::new();
        node.op_type = "MatMul".into();
        node.input = vec!["x".into(), "w".into()];
        node.metadata_props.push(secret);
        let mut graph = GraphProto::new();
        graph.node.push(node);
        graph.initializer = vec![tensor, floats];
        let mut model = ModelProto::new();
        model.doc_string = "/home/someone".into();
        model.graph = Some(graph).into();
        model
    }

    #[test]
    fn contents_stay_and_structure_goes() {
        let file = model().write_to_bytes().unwrap();
        let skeleton = scan(&file).unwrap();
        assert!(skeleton.model.len() < 100, "{} bytes", skeleton.model.len());
        assert!(!String::from_utf8_lossy(&skeleton.model).contains("someone"));
        let read = ModelProto::parse_from_bytes(&skeleton.model).unwrap();
        assert_eq!(read.graph.node[0].input, ["x", "w"]);
        let tensors = &read.graph.initializer;
        assert_eq!(tensors[0].dims, [2, 300]);
        let raw = &skeleton.payloads[tensors[0].segment.begin as usize];
        assert_eq!(raw.encoding, Encoding::Raw);
        assert_eq!(file[raw.parts[0].clone()], model().graph.initializer[0].raw_data);
        let floats = &skeleton.payloads[tensors[1].segment.begin as usize];
        assert_eq!((floats.encoding, floats.parts[0].len()), (Encoding::Floats, 8));
    }

    #[test]
    fn groups_and_bad_lengths_are_refused() {
        assert_eq!(scan(&vec![0x0b; 1 << 20]).unwrap_err(), WireError::Field { at: 0, field: 1, wire: 3 });
        assert_eq!(scan(&[0x3a, 0x05, 0x00]).unwrap_err(), WireError::Length { at: 0, length: 5, left: 1 });
        assert_eq!(scan(&[0x3a]).unwrap_err(), WireError::Truncated { at: 1 });
        assert_eq!(scan(&[0x08, 0xff]).unwrap_err(), WireError::Truncated { at: 1 });
        assert_eq!(scan(&[0xff; 16]).unwrap_err(), WireError::Varint { at: 0 });
        assert!(matches!(scan(&[0x3a, 2, 0x3a, 0x7f]), Err(WireError::Length { .. })));
        // An unknown field is passed over.
        assert!(scan(&[0x7a, 1, 0]).is_ok());
        assert!(matches!(scan(&[0x3d, 0, 0, 0, 0]), Err(WireError::WireType { .. })));
    }

    /// A model whose graph holds a node whose attribute holds a graph, and so on: `graphs` of them.
    fn nested(graphs: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varint(2 << 3 | u64::from(BYTES), &mut bytes);
        put_varint(4, &mut bytes);
        bytes.extend_from_slice(b"deep");
        let mut wrap = |field: u64| {
            let mut outer = Vec::with_capacity(bytes.len() + 12);
            put_varint(field << 3 | u64::from(BYTES), &mut outer);
            put_varint(bytes.len() as u64, &mut outer);
            outer.append(&mut bytes);
            bytes = outer;
        };
        for _ in 1..graphs {
            [6, 5, 1].into_iter().for_each(&mut wrap);
        }
        wrap(7);
        bytes
    }

    #[test]
    fn graphs_nest_a_little() {
        let skeleton = scan(&nested(MAX_NESTED_GRAPHS)).unwrap();
        assert!(String::from_utf8_lossy(&skeleton.model).contains("deep"));
        let read = ModelProto::parse_from_bytes(&skeleton.model).unwrap();
        assert!(read.graph.node[0].attribute[0].g.is_some());
        for graphs in [MAX_NESTED_GRAPHS + 1, 1_000] {
            let limit = MAX_NESTED_GRAPHS;
            assert!(matches!(scan(&nested(graphs)), Err(WireError::Nesting { limit: l, .. }) if l == limit));
        }
    }

    #[test]
    fn structure_is_bounded() {
        // Empty nodes: two bytes each in the file, hundreds in memory.
        let nodes = [0x0a, 0x00].repeat(MAX_FIELDS + 1);
        let mut file = vec![0x3a];
        put_varint(nodes.len() as u64, &mut file);
        file.extend_from_slice(&nodes);
        assert!(matches!(scan(&file), Err(WireError::TooLarge { what: "fields", .. })));
    }

    #[test]
    fn varints_decode() {
        let values: Result<Vec<u64>, _> = varints(&[0x01, 0xff, 0x01, 0x80, 0x01]).collect();
        assert_eq!(values.unwrap(), [1, 255, 128]);
        assert!(varints(&[0x80]).any(|v| v.is_err()));
    }
}
