//! A graph of Llama's shape, spelled as the TorchScript exporter does at opset 17 where it does not fold constants, to
//! count what it costs. No program depends on elements of weights, so they are a hole in a sparse file beside the model,
//! but for the head's, of which the compiler wants to see that it is injective.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::numbers::Numbers;
use super::onnx::{FLOAT, FLOAT16, GraphWriter, INT64, int, ints};
use super::tuning::Tuning;

/// A model's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Llama {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    /// Heads of keys and values; each serves several of queries.
    pub kv_heads: usize,
    pub inner: usize,
    pub tokens: usize,
    pub vocabulary: usize,
    /// Whether weights are kept in half precision, and converted where they are used.
    pub half: bool,
    /// How it was fine-tuned: adapters, and which heads are merged. Everything else is a matter of names.
    pub tuning: Tuning,
}

impl Llama {
    /// The sizes of Llama's `7b` or `70b`, at `tokens` tokens.
    pub fn named(name: &str, tokens: usize) -> Option<Llama> {
        let small = Llama {
            layers: 32,
            width: 4096,
            heads: 32,
            kv_heads: 32,
            inner: 11008,
            tokens,
            vocabulary: 32000,
            half: false,
            tuning: Tuning::default(),
        };
        match name {
            "7b" => Some(small),
            "70b" => Some(Llama { layers: 80, width: 8192, heads: 64, kv_heads: 8, inner: 28672, ..small }),
            _ => None,
        }
    }

    /// The file that the weights of all models of this width lie in, the head first.
    pub fn data_file(&self) -> String {
        format!("llama-{}-{}.data", self.width, if self.half { "f16" } else { "f32" })
    }

    fn adapter_file(&self) -> String {
        self.data_file().replace(".data", "-lora.data")
    }

    /// Writes the data file into `directory`, as far as there are numbers in it, unless it is there.
    pub fn write_data(&self, directory: &Path) -> std::io::Result<()> {
        let path = directory.join(self.data_file());
        if path.exists() { Ok(()) } else { self.write_numbers(&path, self.width * self.vocabulary) }
    }

    /// Writes the model to `path`; its data file is wanted beside it, and becomes as long as the model needs. Adapters are
    /// no hole: they are in a file of their own.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut graph = GraphWriter::default();
        graph.input("input_ids", INT64, &[1, self.tokens]);
        let output = self.model(&mut graph);
        graph.output(&output, &[1, self.tokens, self.vocabulary]);
        let data = File::options().write(true).open(path.with_file_name(self.data_file()))?;
        let needed_bytes = graph.external_bytes(&self.data_file());
        if data.metadata()?.len() < needed_bytes {
            data.set_len(needed_bytes)?;
        }
        let adapter_bytes = graph.external_bytes(&self.adapter_file()) as usize;
        if adapter_bytes > 0 {
            let count = adapter_bytes / if self.half { 2 } else { 4 };
            self.write_numbers(&path.with_file_name(self.adapter_file()), count)?;
        }
        graph.write(path)
    }

    fn write_numbers(&self, path: &Path, count: usize) -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut numbers = Numbers::of(&path.file_name().unwrap_or_default().to_string_lossy());
        for _ in 0..count {
            let number = numbers.normal();
            match self.half {
                true => file.write_all(&half(number).to_le_bytes())?,
                false => file.write_all(&number.to_le_bytes())?,
            }
        }
        file.flush()
    }

    fn model(&self, g: &mut GraphWriter) -> String {
        let (d, t) = (self.width, self.tokens);
        let head = self.weight(g, "lm_head.weight", &[self.vocabulary, d]);
        let embedding = self.weight(g, "model.embed_tokens.weight", &[self.vocabulary, d]);
        let mut h = g.node("Gather", &[&embedding, "input_ids"], vec![]);
        let mask = g.causal_mask(t, 0);
        for layer in 0..self.layers {
            let is_tuned = layer >= self.tuning.frozen;
            let rank = if is_tuned { self.tuning.lora_rank } else { 0 };
            let other_rank = if self.tuning.lora_attention_only { 0 } else { rank };
            let merged = if is_tuned { self.tuning.merged_heads.max(1) } else { 1 };
            let (heads, kv_heads, size) =
                (self.heads / merged, self.kv_heads / merged, d / self.heads * merged);
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(g, &name("input_layernorm"), &h, d);
            // peft's default for Llama: queries and values.
            let q = self.linear(g, &name("self_attn.q_proj"), &normed, [d, d], rank);
            let k = self.linear(g, &name("self_attn.k_proj"), &normed, [d, kv_heads * size], other_rank);
            let v = self.linear(g, &name("self_attn.v_proj"), &normed, [d, kv_heads * size], rank);
            let heads_of = |g: &mut GraphWriter, x: &str, heads: usize| {
                let split = g.shape(&[1, t, heads, size]);
                let x = g.node("Reshape", &[x, &split], vec![]);
                g.node("Transpose", &[&x], vec![ints("perm", &[0, 2, 1, 3])])
            };
            let (q, k, v) = (heads_of(g, &q, heads), heads_of(g, &k, kv_heads), heads_of(g, &v, kv_heads));
            let q = self.rotary(g, &q, t, size);
            let k = self.rotary(g, &k, t, size);
            let [k, v] = [k, v].map(|x| repeated(g, &x, [kv_heads, heads / kv_heads], [t, size]));
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
        product(g, &normed, &head)
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
        let weight = self.weight(g, &format!("{name}.weight"), &[to, from]);
        let sum = product(g, x, &weight);
        if lora_rank == 0 {
            return sum;
        }
        let file = self.adapter_file();
        let a = self.stored(g, &format!("{name}.lora_A"), &[from, lora_rank], &file);
        let b = self.stored(g, &format!("{name}.lora_B"), &[lora_rank, to], &file);
        g.adapter(&sum, x, [&a, &b])
    }

    fn weight(&self, g: &mut GraphWriter, name: &str, shape: &[usize]) -> String {
        self.stored(g, name, shape, &self.data_file())
    }

    fn stored(&self, g: &mut GraphWriter, name: &str, shape: &[usize], file: &str) -> String {
        if !self.half {
            return g.external(name, FLOAT, file, shape);
        }
        let weight = g.external(name, FLOAT16, file, shape);
        g.node("Cast", &[&weight], vec![int("to", FLOAT.into())])
    }
}

/// `x` times the transpose of `weight`, which is as it is kept.
fn product(g: &mut GraphWriter, x: &str, weight: &str) -> String {
    let weight = g.node("Transpose", &[weight], vec![ints("perm", &[1, 0])]);
    g.node("MatMul", &[x, &weight], vec![])
}

/// Every one of `[heads, times]` heads of `[tokens, size]`, so many times.
fn repeated(g: &mut GraphWriter, x: &str, [heads, times]: [usize; 2], [tokens, size]: [usize; 2]) -> String {
    if times == 1 {
        return x.to_owned();
    }
    let axis = g.axis(2);
    let x = g.node("Unsqueeze", &[x, &axis], vec![]);
    let shape = g.shape(&[1, heads, times, tokens, size]);
    let x = g.node("Expand", &[&x, &shape], vec![]);
    let shape = g.shape(&[1, heads * times, tokens, size]);
    g.node("Reshape", &[&x, &shape], vec![])
}

/// The nearest half precision number towards zero of one that has the range.
fn half(number: f32) -> u16 {
    let bits = number.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}
