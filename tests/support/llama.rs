//! A graph of Llama's shape, spelled as the TorchScript exporter does at opset 17, to count what it costs. No program
//! depends on elements of weights, so they are a hole in a sparse file beside the model, but for the head's, of which
//! the compiler wants to see that it is injective.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::gpt2::Numbers;
use super::onnx::{GraphWriter, INT64, int, ints};
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
        let head_bytes = 4 * (self.width * self.vocabulary) as u64;
        let mut writer = Writer { graph: GraphWriter::default(), hole_bytes: head_bytes };
        writer.graph.input("input_ids", INT64, &[1, self.tokens]);
        let output = writer.model(self);
        writer.graph.output(&output, &[1, self.tokens, self.vocabulary]);
        writer.graph.write(path)
    }
}

struct Writer {
    graph: GraphWriter,
    /// Where the hole in the data file begins.
    hole_bytes: u64,
}

impl Deref for Writer {
    type Target = GraphWriter;

    fn deref(&self) -> &GraphWriter {
        &self.graph
    }
}

impl DerefMut for Writer {
    fn deref_mut(&mut self) -> &mut GraphWriter {
        &mut self.graph
    }
}

impl Writer {
    fn model(&mut self, m: &Llama) -> String {
        let (d, t) = (m.width, m.tokens);
        let embedding = self.weight("model.embed_tokens.weight", &[m.vocabulary, d]);
        let mut h = self.node("Gather", &[&embedding, "input_ids"], vec![]);
        let triangle: Vec<f32> = (0..t * t).map(|i| if i % t <= i / t { 0.0 } else { f32::MIN }).collect();
        let mask = self.floats("causal_mask", &triangle, &[1, 1, t, t]);
        for layer in 0..m.layers {
            let is_tuned = layer >= m.tuning.frozen;
            let rank = if is_tuned { m.tuning.lora_rank } else { 0 };
            let other_rank = if m.tuning.lora_attention_only { 0 } else { rank };
            let merged = if is_tuned { m.tuning.merged_heads.max(1) } else { 1 };
            let (heads, size) = (m.heads / merged, d / m.heads * merged);
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&name("input_layernorm"), &h, d);
            // peft's default for Llama: queries and values.
            let q = self.linear(&name("self_attn.q_proj"), &normed, [d, d], rank);
            let k = self.linear(&name("self_attn.k_proj"), &normed, [d, d], other_rank);
            let v = self.linear(&name("self_attn.v_proj"), &normed, [d, d], rank);
            let split = self.shape(&[1, t, heads, size]);
            let heads_of = |this: &mut Self, x: &str| {
                let x = this.node("Reshape", &[x, &split], vec![]);
                this.node("Transpose", &[&x], vec![ints("perm", &[0, 2, 1, 3])])
            };
            let (q, k, v) = (heads_of(self, &q), heads_of(self, &k), heads_of(self, &v));
            let q = self.rotary(&q, t, size);
            let k = self.rotary(&k, t, size);
            let k = self.node("Transpose", &[&k], vec![ints("perm", &[0, 1, 3, 2])]);
            let scores = self.node("MatMul", &[&q, &k], vec![]);
            let root = self.floats("", &[(size as f32).sqrt()], &[]);
            let scores = self.node("Div", &[&scores, &root], vec![]);
            let scores = self.node("Add", &[&scores, &mask], vec![]);
            let p = self.node("Softmax", &[&scores], vec![int("axis", -1)]);
            let mixed = self.node("MatMul", &[&p, &v], vec![]);
            let mixed = self.node("Transpose", &[&mixed], vec![ints("perm", &[0, 2, 1, 3])]);
            let flat = self.shape(&[1, t, d]);
            let mixed = self.node("Reshape", &[&mixed, &flat], vec![]);
            let mixed = self.linear(&name("self_attn.o_proj"), &mixed, [d, d], other_rank);
            h = self.node("Add", &[&h, &mixed], vec![]);
            let normed = self.norm(&name("post_attention_layernorm"), &h, d);
            let gate = self.linear(&name("mlp.gate_proj"), &normed, [d, m.inner], other_rank);
            let sigmoid = self.node("Sigmoid", &[&gate], vec![]);
            let gate = self.node("Mul", &[&gate, &sigmoid], vec![]);
            let up = self.linear(&name("mlp.up_proj"), &normed, [d, m.inner], other_rank);
            let inner = self.node("Mul", &[&gate, &up], vec![]);
            let out = self.linear(&name("mlp.down_proj"), &inner, [m.inner, d], other_rank);
            h = self.node("Add", &[&h, &out], vec![]);
        }
        let normed = self.norm("model.norm", &h, d);
        let head = self.graph.external_floats("lm_head.weight", DATA_FILE, 0, &[d, m.vocabulary]);
        self.node("MatMul", &[&normed, &head], vec![])
    }

    fn norm(&mut self, name: &str, x: &str, d: usize) -> String {
        let constant = |this: &mut Self, v: f32| this.floats("", &[v], &[]);
        let two = constant(self, 2.0);
        let square = self.node("Pow", &[x, &two], vec![]);
        let mean = self.node("ReduceMean", &[&square], vec![ints("axes", &[-1]), int("keepdims", 1)]);
        let epsilon = constant(self, 1e-5);
        let mean = self.node("Add", &[&mean, &epsilon], vec![]);
        let root = self.node("Sqrt", &[&mean], vec![]);
        let one = constant(self, 1.0);
        let inverse = self.node("Div", &[&one, &root], vec![]);
        let normed = self.node("Mul", &[x, &inverse], vec![]);
        let gain = self.weight(&format!("{name}.weight"), &[d]);
        self.node("Mul", &[&gain, &normed], vec![])
    }

    /// Turns pairs of a head's elements by angles that grow with the position.
    fn rotary(&mut self, x: &str, tokens: usize, size: usize) -> String {
        let angle = |i: usize| {
            let (position, pair) = (i / size, i % size % (size / 2));
            position as f32 / 10000f32.powf(2.0 * pair as f32 / size as f32)
        };
        let shape = [1, 1, tokens, size];
        let tables: [Vec<f32>; 2] =
            [f32::cos, f32::sin].map(|f| (0..tokens * size).map(|i| f(angle(i))).collect());
        let cos = self.fresh();
        let cos = self.floats(&format!("rotary_cos.{cos}"), &tables[0], &shape);
        let sin = self.fresh();
        let sin = self.floats(&format!("rotary_sin.{sin}"), &tables[1], &shape);
        let axis = self.axis(3);
        let half = |this: &mut Self, start: usize, end: usize| {
            let (start, end) = (this.axis(start), this.axis(end));
            this.node("Slice", &[x, &start, &end, &axis], vec![])
        };
        let (low, high) = (half(self, 0, size / 2), half(self, size / 2, size));
        let high = self.node("Neg", &[&high], vec![]);
        let turned = self.node("Concat", &[&high, &low], vec![int("axis", 3)]);
        let still = self.node("Mul", &[x, &cos], vec![]);
        let turned = self.node("Mul", &[&turned, &sin], vec![]);
        self.node("Add", &[&still, &turned], vec![])
    }

    fn linear(&mut self, name: &str, x: &str, [from, to]: [usize; 2], lora_rank: usize) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[from, to]);
        let product = self.node("MatMul", &[x, &weight], vec![]);
        if lora_rank == 0 {
            return product;
        }
        let a = self.weight(&format!("{name}.lora_A"), &[from, lora_rank]);
        let b = self.weight(&format!("{name}.lora_B"), &[lora_rank, to]);
        let thin = self.node("MatMul", &[x, &a], vec![]);
        let change = self.node("MatMul", &[&thin, &b], vec![]);
        let scale = self.floats("", &[2.0], &[]);
        let change = self.node("Mul", &[&change, &scale], vec![]);
        self.node("Add", &[&product, &change], vec![])
    }

    fn weight(&mut self, name: &str, shape: &[usize]) -> String {
        let hole_bytes = self.hole_bytes;
        self.graph.external_floats(name, DATA_FILE, hole_bytes, shape)
    }
}
