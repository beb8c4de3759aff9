//! Every family of models computes the same before and after, and is in the form meant.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fixtures::models;
use marill_compiler::import::problem::ImportProblem;
use marill_compiler::import::{ImportRequest, import};
use marill_compiler::ir::{Graph, NodeKind, Owner, interpret, verify};
use marill_compiler::normalise::normalise;
use marill_compiler::ownership::assign;
use marill_compiler::rewrite::{RewriteOptions, rewrite};
use marill_compiler::{Problem, npz};
use marill_plaintext::{Op, Tensor};

/// Models, and for how many products of two tensors element by element, one of them private and constant, each has:
/// gains fold into the next matrix, but for those that something else than a matrix follows.
const MODELS: [(&str, usize); 22] = [
    ("gpt2_legacy14", 0),
    ("gpt2_dynamo18", 0),
    ("gpt2_legacy17_dyn", 0),
    ("old_gpt2_legacy13_dyn", 0),
    ("gpt2_past_legacy17", 0),
    ("old_gpt2_past_legacy14", 0),
    ("llama_legacy17", 0),
    ("llama_dynamo18", 0),
    ("llama_past_dynamo18", 0),
    ("old_llama_legacy14", 0),
    ("mistral_legacy17", 0),
    ("qwen2_legacy17", 0),
    ("qwen3_dynamo18", 4),
    ("gemma_legacy17", 0),
    ("phi_legacy17", 0),
    ("opt_legacy17", 0),
    ("bert_cls_legacy14", 4),
    ("bert_cls_dynamo18", 4),
    ("old_bert_cls_legacy12_dyn", 4),
    ("distilbert_legacy17", 4),
    ("roberta_dynamo18", 4),
    ("vit_legacy17", 0),
];

/// The normalised model with owners; symbolic dimensions are what the inputs' shapes say.
fn owned(path: &Path, inputs: &BTreeMap<String, Tensor>) -> Graph {
    let mut request = ImportRequest::default();
    loop {
        let error = match import(path, &request) {
            Ok(graph) => {
                let mut graph = normalise(graph).unwrap();
                assign(&mut graph, &BTreeMap::new()).unwrap();
                return graph;
            }
            Err(error) => error,
        };
        let Problem::Import(ImportProblem::Dimension { axis, dim_param, .. }) = &error.problem else {
            panic!("{}: {error}", path.display());
        };
        let known = request.dims.insert(dim_param.clone(), inputs[&error.node].shape()[*axis]);
        assert!(known.is_none(), "{}: {error}", path.display());
    }
}

/// Products of a value that is not constant and a private constant that is no matrix of a product.
fn private_gains(graph: &Graph) -> usize {
    let is_private_gain = |id| {
        graph.node(id).facts.owner == Some(Owner::Server) && !matches!(graph.node(id).kind, NodeKind::Input)
    };
    let gained = graph.topological().into_iter().filter(|&id| {
        let is_shared = graph.node(id).facts.owner == Some(Owner::Shared);
        is_shared && graph.op(id) == Some(&Op::Mul) && graph.args(id).into_iter().any(is_private_gain)
    });
    gained.count()
}

/// Scales of values that nobody knows: that of attention's scores goes into the query's matrix or norm.
fn scales(graph: &Graph) -> usize {
    let is_scale = |id| graph.node(id).facts.owner == Some(Owner::Public) && graph.ty(id).len() == 1;
    let scaled = graph.topological().into_iter().filter(|&id| {
        let is_shared = graph.node(id).facts.owner == Some(Owner::Shared);
        is_shared && graph.op(id) == Some(&Op::Mul) && graph.args(id).into_iter().any(is_scale)
    });
    scaled.count()
}

#[test]
fn models_compute_the_same_before_and_after() {
    let Some(models) = models() else { return };
    for (model, gains) in MODELS {
        let folder = models.join(model);
        let inputs = npz::read(&folder.join("inputs.npz")).unwrap();
        let graph = owned(&folder.join("model.onnx"), &inputs);
        let (rewritten, report) = rewrite(graph.clone(), &RewriteOptions::default()).unwrap();
        verify(&rewritten).unwrap();
        let before = interpret(&graph, &inputs).unwrap();
        let after = interpret(&rewritten, &inputs).unwrap();
        for ((name, before), (same, after)) in before.iter().zip(&after) {
            assert_eq!(name, same);
            let (before, after) = (before.to_f32_vec().unwrap(), after.to_f32_vec().unwrap());
            let largest = before.iter().fold(1.0f32, |largest, x| largest.max(x.abs()));
            let error = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
            assert!(error <= 1e-4, "{model} {name}: {error}");
        }
        assert_eq!(private_gains(&rewritten), gains, "{model}");
        assert_eq!(scales(&rewritten), 0, "{model}");
        assert!(report.is_saturated && report.cost_after_s < report.cost_before_s, "{model}: {report:?}");
    }
}
