//! A graph of Llama's shape, spelled as the TorchScript exporter does at opset 17, to count what it costs. No program
//! depends on elements of weights, so they are a hole in a sparse file beside the model, but for the head's, of which
//! the compiler wants to see that it is injective.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::{StringStringEntryProto, TensorProto};
use protobuf::EnumOrUnknown;

use super::numbers::Numbers;
use super::onnx::{FLOAT, GraphWriter, INT64, int, ints};
use super::tuning::Tuning;

/// The file that weights lie in.
pub const DATA_FILE: &str = "llama.data";

/// A model's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Llama {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub inner: usize,
    pub tokens: usize,
    pub vocabulary: usize,
    /// How it was fine-tuned: adapters, and which heads are merged. Everything else is a matter of names.
    pub tuning: Tuning,
}

impl Llama {
    /// Llama 7B at `tokens` tokens.
    pub fn large(tokens: usize) -> Llama {
        Llama {
            layers: 32,
            width: 4096,
            heads: 32,
            inner: 11008,
            tokens,
            vocabulary: 32000,
            tuning: Tuning::default(),
        }
    }

    /// Writes the data file of any model of this vocabulary and width into `directory`, unless it is there.
    pub fn write_data(&self, directory: &Path) -> std::io::Result<()> {
        let path = directory.join(DATA_FILE);
        if path.exists() {
            return Ok(());
        }
        let mut file = BufWriter::new(File::create(&path)?);
        let mut numbers = Numbers::of("lm_head.weight");
        for _ in 0..self.width * self.vocabulary {
            file.write_all(&numbers.normal().to_le_bytes())?;
        }
        // A hole behind the head, as long as the largest of the other tensors.
        let hole = 4 * self.width * self.inner.max(self.vocabulary).max(self.width);
        file.seek(SeekFrom::Current(hole as i64 - 1))?;
        file.write_all(&[0])?;
        file.flush()
    }

    /// Writes the model to `path`; its data file is wanted beside it.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut graph = GraphWriter::default();
        graph.input("input_ids", INT64, &[1, self.tokens]);
        let output = self.model(&mut graph);
        graph.output(&output, &[1, self.tokens, self.vocabulary]);
        graph.write(path)
    }

    fn model(&self, g: &mut GraphWriter) -> String {
        let (d, t) = (self.width, self.tokens);
        let embedding = self.weight(g, "model.embed_tokens.weight", &[self.vocabulary, d]);
        let mut h = g.node("Gather", &[&embedding, "input_ids"], vec![]);
        let mask = g.causal_mask(t);
        for layer in 0..self.layers {
            let is_tuned = layer >= self.tuning.frozen;
            let rank = if is_tuned { self.tuning.lora_rank } else { 0 };
            let other_rank = if self.tuning.lora_attention_only { 0 } else { rank };
            let merged = if is_tuned { self.tuning.merged_heads.max(1) } else { 1 };
            let (heads, size) = (self.heads / merged, d / self.heads * merged);
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(g, &name("input_layernorm"), &h, d);
            // peft's default for Llama: queries and values.
            let q = self.linear(g, &name("self_attn.q_proj"), &normed, [d, d], rank);
            let k = self.linear(g, &name("self_attn.k_proj"), &normed, [d, d], other_rank);
            let v = self.linear(g, &name("self_attn.v_proj"), &normed, [d, d], rank);
            let split = g.shape(&[1, t, heads, size]);
            let heads_of = |this: &mut GraphWriter, x: &str| {
                let x = this.node("Reshape", &[x, &split], vec![]);
                this.node("Transpose", &[&x], vec![ints("perm", &[0, 2, 1, 3])])
            };
            let (q, k, v) = (heads_of(g, &q), heads_of(g, &k), heads_of(g, &v));
            let q = self.rotary(g, &q, t, size);
            let k = self.rotary(g, &k, t, size);
            let k = g.node("Transpose", &[&k], vec![ints("perm", &[0, 1, 3, 2])]);
            let mixed = g.attention([&q, &k, &v], &mask, t, [heads, size]);
            let mixed = self.linear(g, &name("self_attn.o_proj"), &mixed, [d, d], other_rank);
            h = g.node("Add", &[&h, &mixed], vec![]);
            let normed = self.norm(g, &name("post_attention_layernorm"), &h, d);
            let gate = self.linear(g, &name("mlp.gate_proj"), &normed, [d, self.inner], other_rank);
            let sigmoid = g.node("Sigmoid", &[&gate], vec![]);
            let gate = g.node("Mul", &[&gate, &sigmoid], vec![]);
            let up = self.linear(g, &name("mlp.up_proj"), &normed, [d, self.inner], other_rank);
            let inner = g.node("Mul", &[&gate, &up], vec![]);
            let out = self.linear(g, &name("mlp.down_proj"), &inner, [self.inner, d], other_rank);
            h = g.node("Add", &[&h, &out], vec![]);
        }
        let normed = self.norm(g, "model.norm", &h, d);
        let head = external_floats(g, "lm_head.weight", 0, &[d, self.vocabulary]);
        g.node("MatMul", &[&normed, &head], vec![])
    }

    fn norm(&self, g: &mut GraphWriter, name: &str, x: &str, d: usize) -> String {
        let constant = |this: &mut GraphWriter, v: f32| this.floats("", &[v], &[]);
        let two = constant(g, 2.0);
        let square = g.node("Pow", &[x, &two], vec![]);
        let mean = g.node("ReduceMean", &[&square], vec![ints("axes", &[-1]), int("keepdims", 1)]);
        let epsilon = constant(g, 1e-5);
        let mean = g.node("Add", &[&mean, &epsilon], vec![]);
        let root = g.node("Sqrt", &[&mean], vec![]);
        let one = constant(g, 1.0);
        let inverse = g.node("Div", &[&one, &root], vec![]);
        let normed = g.node("Mul", &[x, &inverse], vec![]);
        let gain = self.weight(g, &format!("{name}.weight"), &[d]);
        g.node("Mul", &[&gain, &normed], vec![])
    }

    /// Turns pairs of a head's elements by angles that grow with the position.
    fn rotary(&self, g: &mut GraphWriter, x: &str, tokens: usize, size: usize) -> String {
        let angle = |i: usize| {
            let (position, pair) = (i / size, i % size % (size / 2));
            position as f32 / 10000f32.powf(2.0 * pair as f32 / size as f32)
        };
        let shape = [1, 1, tokens, size];
        let tables: [Vec<f32>; 2] =
            [f32::cos, f32::sin].map(|f| (0..tokens * size).map(|i| f(angle(i))).collect());
        let cos = g.fresh();
        let cos = g.floats(&format!("rotary_cos.{cos}"), &tables[0], &shape);
        let sin = g.fresh();
        let sin = g.floats(&format!("rotary_sin.{sin}"), &tables[1], &shape);
        let axis = g.axis(3);
        let half = |this: &mut GraphWriter, start: usize, end: usize| {
            let (start, end) = (this.axis(start), this.axis(end));
            this.node("Slice", &[x, &start, &end, &axis], vec![])
        };
        let (low, high) = (half(g, 0, size / 2), half(g, size / 2, size));
        let high = g.node("Neg", &[&high], vec![]);
        let turned = g.node("Concat", &[&high, &low], vec![int("axis", 3)]);
        let still = g.node("Mul", &[x, &cos], vec![]);
        let turned = g.node("Mul", &[&turned, &sin], vec![]);
        g.node("Add", &[&still, &turned], vec![])
    }

    fn linear(
        &self,
        g: &mut GraphWriter,
        name: &str,
        x: &str,
        [from, to]: [usize; 2],
        lora_rank: usize,
    ) -> String {
        let weight = self.weight(g, &format!("{name}.weight"), &[from, to]);
        let product = g.node("MatMul", &[x, &weight], vec![]);
        if lora_rank == 0 {
            return product;
        }
        let a = self.weight(g, &format!("{name}.lora_A"), &[from, lora_rank]);
        let b = self.weight(g, &format!("{name}.lora_B"), &[lora_rank, to]);
        g.adapter(&product, x, [&a, &b])
    }

    fn weight(&self, g: &mut GraphWriter, name: &str, shape: &[usize]) -> String {
        external_floats(g, name, 4 * (self.width * self.vocabulary) as u64, shape)
    }
}

/// Floats that lie in the data file, from `offset_bytes` on.
fn external_floats(g: &mut GraphWriter, name: &str, offset_bytes: u64, shape: &[usize]) -> String {
    let length = 4 * shape.iter().product::<usize>();
    let entries = [
        ("location", DATA_FILE.to_owned()),
        ("offset", offset_bytes.to_string()),
        ("length", length.to_string()),
    ];
    let entry = |(key, value): (&str, String)| StringStringEntryProto {
        key: key.into(),
        value,
        ..Default::default()
    };
    g.tensor(TensorProto {
        name: name.into(),
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type: FLOAT,
        data_location: EnumOrUnknown::new(DataLocation::EXTERNAL),
        external_data: entries.into_iter().map(entry).collect(),
        ..Default::default()
    })
}
