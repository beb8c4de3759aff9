//! GPT-2-shaped ONNX models with random weights, spelled as the TorchScript exporter does at opset 17, and models
//! fine-tuned from them: a tensor's elements follow from its name, so those that are not tuned are the base model's.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use onnx_protobuf::AttributeProto;
use onnx_protobuf::attribute_proto::AttributeType;
use protobuf::EnumOrUnknown;

use super::numbers::Numbers;
use super::onnx::{FLOAT, GraphWriter, INT64, int, ints};
use super::tuning::Tuning;

/// A model's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Gpt2 {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub inner: usize,
    pub tokens: usize,
    /// Tokens before these, of which keys and values are inputs.
    pub past: usize,
    pub vocabulary: usize,
    /// Whether logits come out, or else the last block's hidden states.
    pub head: bool,
    /// How it differs from the base model.
    pub tuning: Tuning,
}

impl Gpt2 {
    /// GPT-2 small at `tokens` tokens.
    pub fn small(tokens: usize) -> Gpt2 {
        Gpt2 {
            layers: 12,
            width: 768,
            heads: 12,
            inner: 3072,
            tokens,
            past: 0,
            vocabulary: 50257,
            head: true,
            tuning: Tuning::default(),
        }
    }

    /// One block of it behind an embedding of 256 tokens.
    #[allow(dead_code, reason = "an example that includes this file needs whole models alone")]
    pub fn block(tokens: usize) -> Gpt2 {
        Gpt2 { layers: 1, vocabulary: 256, head: false, ..Gpt2::small(tokens) }
    }

    /// That block's step for one more token behind `past` of them.
    #[allow(dead_code, reason = "an example that includes this file needs whole models alone")]
    pub fn step(past: usize) -> Gpt2 {
        Gpt2 { past, ..Gpt2::block(1) }
    }

    /// Writes the model to `path`.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut writer = Writer { graph: GraphWriter::default(), tuned: false };
        writer.graph.input("input_ids", INT64, &[1, self.tokens]);
        let output = writer.model(self);
        let shape = [1, self.tokens, if self.head { self.vocabulary } else { self.width }];
        writer.graph.output(&output, &shape);
        writer.graph.write(path)
    }
}

struct Writer {
    graph: GraphWriter,
    /// Whether weights made now differ from the base model's.
    tuned: bool,
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
    fn model(&mut self, m: &Gpt2) -> String {
        let d = m.width;
        let tuning = m.tuning;
        self.tuned = tuning.full && tuning.frozen == 0;
        let (past, total) = (m.past as i64, m.past + m.tokens);
        let positions = self.integers("positions", &(past..total as i64).collect::<Vec<_>>(), &[1, m.tokens]);
        let wte = self.weight("wte.weight", &[m.vocabulary, d], 0.14);
        let wpe = self.weight("wpe.weight", &[total, d], 0.05);
        let tokens = self.node("Gather", &[&wte, "input_ids"], vec![]);
        let places = self.node("Gather", &[&wpe, &positions], vec![]);
        let mut h = self.node("Add", &[&tokens, &places], vec![]);
        let mask = self.causal_mask(m.tokens, m.past);
        for layer in 0..m.layers {
            let is_tuned = layer >= tuning.frozen;
            self.tuned = tuning.full && is_tuned;
            let rank = if is_tuned { tuning.lora_rank } else { 0 };
            let other_rank = if tuning.lora_attention_only { 0 } else { rank };
            let merged = if is_tuned { tuning.merged_heads.max(1) } else { 1 };
            let heads = m.heads / merged;
            let normed = self.norm(&format!("h.{layer}.ln_1"), &h, d);
            let qkv = self.linear(&format!("h.{layer}.attn.c_attn"), &normed, [d, 3 * d], rank);
            let part = |this: &mut Self, i: usize, perm: &[i64]| {
                let (start, end) = (this.axis(i * d), this.axis((i + 1) * d));
                let axis = this.axis(2);
                let slice = this.node("Slice", &[&qkv, &start, &end, &axis], vec![]);
                let split = this.shape(&[1, m.tokens, heads, d / heads]);
                let heads = this.node("Reshape", &[&slice, &split], vec![]);
                this.node("Transpose", &[&heads], vec![ints("perm", perm)])
            };
            let q = part(self, 0, &[0, 2, 1, 3]);
            let [k, v] = if m.past == 0 {
                [part(self, 1, &[0, 2, 3, 1]), part(self, 2, &[0, 2, 1, 3])]
            } else {
                let [k, v] = [(1, "key"), (2, "value")].map(|(i, kind)| {
                    let new = part(self, i, &[0, 2, 1, 3]);
                    self.behind_past(&format!("{layer}.{kind}"), &new, [heads, m.past, d / heads])
                });
                [self.node("Transpose", &[&k], vec![ints("perm", &[0, 1, 3, 2])]), v]
            };
            let mixed = self.attention([&q, &k, &v], &mask, m.tokens, [heads, d / heads]);
            let mixed = self.linear(&format!("h.{layer}.attn.c_proj"), &mixed, [d, d], other_rank);
            h = self.node("Add", &[&h, &mixed], vec![]);
            let normed = self.norm(&format!("h.{layer}.ln_2"), &h, d);
            let inner = self.linear(&format!("h.{layer}.mlp.c_fc"), &normed, [d, m.inner], other_rank);
            let inner = self.gelu(&inner);
            let out = self.linear(&format!("h.{layer}.mlp.c_proj"), &inner, [m.inner, d], other_rank);
            h = self.node("Add", &[&h, &out], vec![]);
        }
        if !m.head {
            return h;
        }
        let normed = self.norm("ln_f", &h, d);
        self.tuned = tuning.full && tuning.frozen == 0;
        let head = self.weight("onnx::MatMul_head", &[d, m.vocabulary], 0.14);
        self.node("MatMul", &[&normed, &head], vec![])
    }

    /// Behind the cached ones, which are an input.
    fn behind_past(&mut self, name: &str, new: &str, [heads, past, size]: [usize; 3]) -> String {
        let input = format!("past_key_values.{name}");
        self.graph.input(&input, FLOAT, &[1, heads, past, size]);
        self.node("Concat", &[&input, new], vec![int("axis", -2)])
    }

    /// The tanh form: `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
    fn gelu(&mut self, x: &str) -> String {
        let constant = |this: &mut Self, v: f32| this.floats("", &[v], &[]);
        let half = constant(self, 0.5);
        let halved = self.node("Mul", &[x, &half], vec![]);
        let three = constant(self, 3.0);
        let cube = self.node("Pow", &[x, &three], vec![]);
        let small = constant(self, 0.044_715);
        let cube = self.node("Mul", &[&cube, &small], vec![]);
        let sum = self.node("Add", &[x, &cube], vec![]);
        let root = constant(self, 0.797_884_6);
        let scaled = self.node("Mul", &[&sum, &root], vec![]);
        let tanh = self.node("Tanh", &[&scaled], vec![]);
        let one = constant(self, 1.0);
        let above = self.node("Add", &[&tanh, &one], vec![]);
        self.node("Mul", &[&halved, &above], vec![])
    }

    fn norm(&mut self, name: &str, x: &str, d: usize) -> String {
        let gain = self.spread(&format!("{name}.weight"), &[d], 1.0, 0.15);
        let bias = self.weight(&format!("{name}.bias"), &[d], 0.05);
        let mut epsilon = AttributeProto { name: "epsilon".into(), f: 1e-5, ..Default::default() };
        epsilon.type_ = EnumOrUnknown::new(AttributeType::FLOAT);
        self.node("LayerNormalization", &[x, &gain, &bias], vec![int("axis", -1), epsilon])
    }

    fn linear(&mut self, name: &str, x: &str, [from, to]: [usize; 2], lora_rank: usize) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[from, to], 0.8 / (from as f32).sqrt());
        let bias = self.weight(&format!("{name}.bias"), &[to], 0.05);
        let product = self.node("MatMul", &[x, &weight], vec![]);
        let sum = self.node("Add", &[&bias, &product], vec![]);
        if lora_rank == 0 {
            return sum;
        }
        let a = self.weight(&format!("{name}.lora_A"), &[from, lora_rank], 1.0 / (from as f32).sqrt());
        let b = self.weight(&format!("{name}.lora_B"), &[lora_rank, to], 0.1);
        self.adapter(&sum, x, [&a, &b])
    }

    fn weight(&mut self, name: &str, shape: &[usize], deviation: f32) -> String {
        self.spread(name, shape, 0.0, deviation)
    }

    /// Fine-tuning changes an element by a tenth of its deviation.
    fn spread(&mut self, name: &str, shape: &[usize], mean: f32, deviation: f32) -> String {
        let count = shape.iter().product();
        let mut numbers = Numbers::of(name);
        let mut data: Vec<f32> = (0..count).map(|_| mean + deviation * numbers.normal()).collect();
        if self.tuned {
            let mut numbers = Numbers::of(&format!("{name} tuned"));
            data.iter_mut().for_each(|v| *v += 0.1 * deviation * numbers.normal());
        }
        self.floats(name, &data, shape)
    }
}
