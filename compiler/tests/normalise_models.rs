//! Every exporter's spelling of every family comes out in the one preferred form, and computes the same.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fixtures::models;
use marill_compiler::import::problem::ImportProblem;
use marill_compiler::import::{ImportRequest, import};
use marill_compiler::ir::{Graph, TextOptions, interpret, print, verify};
use marill_compiler::normalise::normalise;
use marill_compiler::{Problem, npz};
use marill_plaintext::Tensor;

/// Operations that no recognised pattern leaves behind.
const NEVER_LEFT: [&str; 10] = [
    "erf",
    "pow",
    "sqrt",
    "reciprocal",
    "is_nan",
    "sigmoid",
    "reduce_mean",
    "scatter_nd",
    "gather_nd",
    "conv",
];

struct Case {
    model: &'static str,
    /// How often operations occur; those named here and not counted must not occur.
    counts: &'static [(&'static str, usize)],
}

const GPT2: &[(&str, usize)] =
    &[("attention_softmax", 2), ("gelu", 2), ("layer_norm", 5), ("tanh", 0), ("softmax", 0), ("div", 0)];
const LLAMA: &[(&str, usize)] = &[
    ("attention_softmax", 2),
    ("silu", 2),
    ("rms_norm", 5),
    ("rotary", 4),
    ("softmax", 0),
    ("neg", 0),
    ("div", 0),
];
const BERT: &[(&str, usize)] =
    &[("attention_softmax", 2), ("gelu", 2), ("layer_norm", 5), ("tanh", 1), ("softmax", 0), ("div", 0)];

/// One token after 15 in a cache sees all of them: nothing is masked.
const CACHED: &[(&str, usize)] =
    &[("softmax", 2), ("attention_softmax", 0), ("gelu", 2), ("layer_norm", 5), ("concat", 4)];

const CASES: &[Case] = &[
    Case { model: "gpt2_legacy14", counts: GPT2 },
    Case { model: "gpt2_dynamo18", counts: GPT2 },
    Case { model: "gpt2_legacy17_dyn", counts: GPT2 },
    Case { model: "old_gpt2_legacy13_dyn", counts: GPT2 },
    Case { model: "llama_legacy17", counts: LLAMA },
    Case { model: "llama_dynamo18", counts: LLAMA },
    Case { model: "old_llama_legacy14", counts: LLAMA },
    Case { model: "mistral_legacy17", counts: LLAMA },
    Case { model: "qwen2_legacy17", counts: LLAMA },
    Case {
        model: "qwen3_dynamo18",
        counts: &[("attention_softmax", 2), ("silu", 2), ("rms_norm", 9), ("rotary", 4), ("softmax", 0)],
    },
    Case {
        model: "gemma_legacy17",
        counts: &[("attention_softmax", 2), ("gelu", 2), ("rms_norm", 5), ("rotary", 4), ("tanh", 0)],
    },
    Case {
        model: "phi_legacy17",
        counts: &[("attention_softmax", 2), ("gelu", 2), ("layer_norm", 3), ("rotary", 4), ("tanh", 0)],
    },
    Case {
        model: "opt_legacy17",
        counts: &[("attention_softmax", 2), ("relu", 2), ("layer_norm", 5), ("max", 0)],
    },
    Case { model: "bert_cls_legacy14", counts: BERT },
    Case { model: "bert_cls_dynamo18", counts: BERT },
    Case { model: "old_bert_cls_legacy12_dyn", counts: BERT },
    Case {
        model: "distilbert_legacy17",
        counts: &[("attention_softmax", 2), ("gelu", 2), ("layer_norm", 5), ("relu", 1), ("div", 0)],
    },
    Case { model: "roberta_dynamo18", counts: &[("attention_softmax", 2), ("gelu", 3), ("layer_norm", 6)] },
    Case {
        model: "vit_legacy17",
        counts: &[("attention_softmax", 0), ("softmax", 2), ("gelu", 2), ("layer_norm", 5), ("div", 0)],
    },
    Case { model: "gpt2_past_legacy17", counts: CACHED },
    Case { model: "old_gpt2_past_legacy14", counts: CACHED },
    Case {
        model: "llama_past_dynamo18",
        counts: &[("softmax", 2), ("attention_softmax", 0), ("silu", 2), ("rms_norm", 5), ("rotary", 4)],
    },
    Case {
        model: "pair_gpt2/f_all",
        counts: &[("attention_softmax", 4), ("gelu", 4), ("layer_norm", 9), ("mat_mul", 41), ("tanh", 0)],
    },
    Case {
        model: "pair_llama/c_lora",
        counts: &[("attention_softmax", 2), ("silu", 2), ("rms_norm", 5), ("rotary", 4), ("mat_mul", 47)],
    },
    Case {
        model: "t5enc_legacy17",
        counts: &[("attention_softmax", 2), ("gelu", 2), ("rms_norm", 5), ("tanh", 0), ("softmax", 0)],
    },
];

/// Pairs of exports of one model with one set of weights.
const SAME: [(&str, &str); 4] = [
    ("gpt2_legacy14", "gpt2_dynamo18"),
    ("llama_legacy17", "llama_dynamo18"),
    ("bert_cls_legacy14", "bert_cls_dynamo18"),
    ("pair_gpt2/f_all", "pair_gpt2/f_all_dynamo18"),
];

/// Imports with symbolic dimensions bound to what the inputs' shapes say.
fn import_bound(path: &Path, inputs: &BTreeMap<String, Tensor>) -> Graph {
    let mut request = ImportRequest::default();
    loop {
        let error = match import(path, &request) {
            Ok(graph) => return graph,
            Err(error) => error,
        };
        let Problem::Import(ImportProblem::Dimension { axis, dim_param, .. }) = &error.problem else {
            panic!("{}: {error}", path.display());
        };
        let known = request.dims.insert(dim_param.clone(), inputs[&error.node].shape()[*axis]);
        assert!(known.is_none(), "{}: {error}", path.display());
    }
}

/// Largest difference relative to `max(1, max |expected|)` at positions whose `attention_mask` is 1, where the outputs
/// have the mask's leading axes.
fn difference(found: &Tensor, expected: &Tensor, mask: Option<&Tensor>) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let shape = expected.shape();
    let mask = mask.filter(|mask| shape.len() == 3 && mask.shape() == &shape[..2]);
    let mask = mask.map(|mask| mask.to_i64_vec().unwrap());
    let row = shape.last().copied().unwrap_or(1);
    let (found, expected) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let compared = || {
        let pairs = found.iter().zip(&expected).enumerate();
        pairs.filter(|(at, _)| mask.as_ref().is_none_or(|mask| mask[at / row] != 0)).map(|(_, pair)| pair)
    };
    assert!(compared().all(|(a, _)| a.is_finite()));
    let worst = compared().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    worst / compared().map(|(_, b)| b.abs()).fold(1.0, f32::max)
}

fn counts(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for id in graph.dag.node_indices() {
        if let Some(op) = graph.op(id) {
            *counts.entry(op.name()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn every_spelling_is_recognised_and_computes_the_same() {
    let Some(models) = models() else { return };
    let mut failures = Vec::new();
    for case in CASES {
        let folder = models.join(case.model);
        let inputs = npz::read(&folder.join("inputs.npz")).unwrap();
        let expected = npz::read(&folder.join("outputs.npz")).unwrap();
        let imported = import_bound(&folder.join("model.onnx"), &inputs);
        let before = imported.dag.node_count();
        let graph = normalise(imported).unwrap();
        verify(&graph).unwrap();
        let found = counts(&graph);
        println!("{}: {before} nodes to {}, {found:?}", case.model, graph.dag.node_count());
        let never = NEVER_LEFT.iter().map(|&op| (op, 0));
        for (op, count) in case.counts.iter().copied().chain(never) {
            let found = found.get(op).copied().unwrap_or(0);
            if found != count {
                failures.push(format!("{}: {found} {op}, expected {count}", case.model));
            }
        }
        for (name, tensor) in interpret(&graph, &inputs).unwrap() {
            let worst = difference(&tensor, &expected[&name], inputs.get("attention_mask"));
            if worst > 1e-4 {
                failures.push(format!("{}: {name} differs by {worst:.1e}", case.model));
            }
        }
        let again = counts(&normalise(graph).unwrap());
        if again != found {
            failures.push(format!("{}: normalising again changes it to {again:?}", case.model));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The text form without the names of constants, which are the exporter's, and without their elements: exporters
/// write masks as -inf or the least number, and tables of sines that are folded here differ in the last bit.
fn anonymous(graph: &Graph) -> Vec<String> {
    let text = print(graph, TextOptions::default());
    let nameless = |line: &str| match line.split_once("= constant \"") {
        Some((value, rest)) => {
            let ty = rest.split_once(" : ").map_or(rest, |(_, ty)| ty).split(' ').next().unwrap_or(rest);
            format!("{value}= constant : {ty}")
        }
        None => line.to_owned(),
    };
    text.lines().map(nameless).collect()
}

#[test]
fn exporters_agree_to_the_last_operation() {
    let Some(models) = models() else { return };
    for (one, other) in SAME {
        let graph = |model: &str| {
            let folder = models.join(model);
            let inputs = npz::read(&folder.join("inputs.npz")).unwrap();
            normalise(import_bound(&folder.join("model.onnx"), &inputs)).unwrap()
        };
        let (one_text, other_text) = (anonymous(&graph(one)), anonymous(&graph(other)));
        for (a, b) in one_text.iter().zip(&other_text) {
            assert_eq!(a, b, "{one} and {other}");
        }
        assert_eq!(one_text.len(), other_text.len());
    }
}

#[test]
fn whole_models_in_the_preferred_form() {
    let Some(models) = models() else { return };
    for model in ["gpt2_legacy17_dyn", "llama_dynamo18", "t5enc_legacy17"] {
        let folder = models.join(model);
        let inputs = npz::read(&folder.join("inputs.npz")).unwrap();
        let graph = normalise(import_bound(&folder.join("model.onnx"), &inputs)).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("files/normalise");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(model, anonymous(&graph).join("\n")));
    }
}
