//! Every fixture compiles, and the program's exact ring arithmetic agrees with onnxruntime.

mod fixtures;

use std::collections::BTreeMap;

use fixtures::models;
use marill_compiler::precision::headroom;
use marill_compiler::{Compiled, Request, compile, npz};
use marill_plaintext::Tensor;
use marill_program::cost::cost;
use prost::Message;

/// Families that must work, all without a key-value cache.
const MODELS: &[&str] = &[
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

fn request(inputs: &BTreeMap<String, Tensor>) -> Request {
    let (batch, sequence) = inputs.values().next().map_or((1, 16), |t| (t.shape()[0], t.shape()[1]));
    let names = [
        ("batch", batch),
        ("batch_size", batch),
        ("seq", sequence),
        ("sequence", sequence),
        ("sequence_length", sequence),
    ];
    let dims = names.into_iter().map(|(n, s)| (n.to_owned(), s)).collect();
    Request { dims, ..Request::default() }
}

/// Largest difference and whether the largest element agrees, row by row where the mask is 1.
fn compare(found: &Tensor, expected: &Tensor, mask: Option<&Tensor>) -> (f32, usize, usize) {
    let (found, reference) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let classes = *expected.shape().last().unwrap();
    let mask = mask.map(|m| m.to_i64_vec().unwrap()).filter(|m| m.len() * classes == reference.len());
    let (mut worst, mut same, mut rows) = (0f32, 0, 0);
    for (row, (f, r)) in found.chunks(classes).zip(reference.chunks(classes)).enumerate() {
        if mask.as_ref().is_some_and(|m| m[row] == 0) {
            continue;
        }
        worst = f.iter().zip(r).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        let top = |v: &[f32]| (0..classes).max_by(|&i, &j| v[i].total_cmp(&v[j])).unwrap();
        rows += 1;
        let gap = {
            let mut sorted = r.to_vec();
            sorted.sort_by(f32::total_cmp);
            sorted[classes - 1] - sorted[classes - 2]
        };
        same += usize::from(top(f) == top(r) || gap < 1e-2);
    }
    (worst, same, rows)
}

#[test]
fn fixtures_simulate_to_their_references() {
    let Some(models) = models() else { return };
    let mut failures = Vec::new();
    for name in MODELS {
        let folder = models.join(name);
        let inputs = npz::read(&folder.join("inputs.npz")).unwrap();
        let outputs = npz::read(&folder.join("outputs.npz")).unwrap();
        let compiled = match compile(&folder.join("model.onnx"), &request(&inputs)) {
            Ok(compiled) => compiled,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                println!("{name}: {error}");
                continue;
            }
        };
        let Compiled { graph, lowered, program, .. } = &compiled;
        let check = headroom::check(graph, lowered, program, std::slice::from_ref(&inputs)).unwrap();
        let cost = cost(program, lowered.program.encode_to_vec().len() as u64);
        let mask = inputs.get("attention_mask");
        for (output, expected) in &outputs {
            let (error, same, rows) = compare(&check.outputs[0][output], expected, mask);
            println!(
                "{name}: max error {error:.2e}, top-1 {same}/{rows}, rounds {}, online {} kB, preprocess {} kB, setup {} kB, {} instructions",
                cost.online.rounds,
                cost.online.bytes.total() / 1000,
                cost.preprocess.bytes.total() / 1000,
                cost.setup.bytes.total() / 1000,
                program.len(),
            );
            if error > 1e-2 || same != rows {
                failures.push(format!("{name}: {error}"));
            }
        }
        if let Some(overflow) = headroom::first_overflow(&check) {
            println!("{name}: {overflow}");
            failures.push(format!("{name}: {overflow}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
