//! Exported models with inputs and reference outputs, where they are at hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use marill_compiler::{Compiled, Request, bundle, compile, npz};
use marill_plaintext::Tensor;

use super::models::find_shared;
use marill_program::Suite;

/// Families that must work, all without a key-value cache.
pub const MODELS: &[&str] = &[
    "gpt2_legacy14",
    "gpt2_legacy17_dyn",
    "gpt2_dynamo18",
    "old_gpt2_legacy13_dyn",
    "llama_legacy17",
    "llama_dynamo18",
    "old_llama_legacy14",
    "bert_cls_legacy14",
    "bert_cls_dynamo18",
    "old_bert_cls_legacy12_dyn",
    "distilbert_legacy17",
    "roberta_dynamo18",
    "vit_legacy17",
];

/// The folder of shared models; `None`, having said so, where there is none and none is required.
pub fn shared() -> Option<PathBuf> {
    match find_shared() {
        Ok(models) => Some(models),
        Err(problem) => {
            assert!(std::env::var_os("MARILL_REQUIRE_SHARED").is_none(), "{problem}");
            println!("skipped: shared models missing");
            None
        }
    }
}

/// A model with its sample.
pub struct Fixture {
    pub model: PathBuf,
    pub inputs: BTreeMap<String, Tensor>,
    pub outputs: BTreeMap<String, Tensor>,
}

impl Fixture {
    /// Reads a fixture's folder.
    pub fn load(shared: &Path, name: &str) -> Fixture {
        let folder = shared.join(name);
        let read = |file: &str| npz::read(&folder.join(file)).unwrap();
        Fixture { model: folder.join("model.onnx"), inputs: read("inputs.npz"), outputs: read("outputs.npz") }
    }

    /// Sizes of the usual symbolic dimensions, from the inputs.
    pub fn dims(&self) -> BTreeMap<String, usize> {
        let (batch, tokens) = self.inputs.values().next().map_or((1, 1), |t| (t.shape()[0], t.shape()[1]));
        let names = [("batch", batch), ("batch_size", batch), ("seq", tokens), ("sequence", tokens)];
        let names = names.into_iter().chain([("sequence_length", tokens)]);
        names.map(|(name, size)| (name.to_owned(), size)).collect()
    }

    /// Compiles into a bundle directory at default settings.
    pub fn compile(&self, out: &Path) -> Compiled {
        let request = Request { dims: self.dims(), suite: Suite::Dealer, ..Request::default() };
        let compiled = compile(&self.model, &request).unwrap();
        bundle::write(out, &compiled.graph, &compiled.lowered).unwrap();
        compiled
    }
}

/// How an output compares with its reference.
pub struct Comparison {
    pub max_abs_error: f32,
    pub mean_abs_error: f32,
    /// Rows whose largest element is the reference's, or whose reference is too close to call.
    pub same_top: usize,
    pub rows: usize,
}

/// Compares along the last axis; rows where `mask` is 0 are left out.
pub fn compare(found: &Tensor, expected: &Tensor, mask: Option<&Tensor>) -> Comparison {
    let (found, reference) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let classes = *expected.shape().last().unwrap();
    let mask = mask.map(|m| m.to_i64_vec().unwrap()).filter(|m| m.len() * classes == reference.len());
    let mut result = Comparison { max_abs_error: 0.0, mean_abs_error: 0.0, same_top: 0, rows: 0 };
    for (row, (f, r)) in found.chunks(classes).zip(reference.chunks(classes)).enumerate() {
        if mask.as_ref().is_some_and(|m| m[row] == 0) {
            continue;
        }
        // What is no number is as far off as can be.
        let errors = f.iter().zip(r).map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() });
        let (mut sum, mut largest) = (0.0, result.max_abs_error);
        errors.for_each(|error| (sum, largest) = (sum + error, largest.max(error)));
        (result.mean_abs_error, result.max_abs_error) = (result.mean_abs_error + sum, largest);
        let top = |v: &[f32]| (0..classes).max_by(|&i, &j| v[i].total_cmp(&v[j])).unwrap();
        let mut sorted = r.to_vec();
        sorted.sort_by(f32::total_cmp);
        let gap = if classes > 1 { sorted[classes - 1] - sorted[classes - 2] } else { 0.0 };
        result.rows += 1;
        result.same_top += usize::from(top(f) == top(r) || gap < 1e-2);
    }
    result.mean_abs_error /= (result.rows * classes).max(1) as f32;
    result
}
