//! Merging heads: what comes out is an ordinary model that imports, compiles and takes less softmax.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixtures::models;
use marill_compiler::export::{self, Edits};
use marill_compiler::import::ImportRequest;
use marill_compiler::import::outline::{Outline, outline};
use marill_compiler::merge_heads::savings::run_cost;
use marill_compiler::merge_heads::{MergeReport, MergeRequest, merge};
use marill_compiler::{Request, ir, npz};
use marill_plaintext::Tensor;
use marill_program::{Network, Suite};

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/small_lm").join(file)
}

fn read(model: &Path) -> Outline {
    outline(model, &ImportRequest::default()).unwrap()
}

/// Softmax by tables and tournaments, whose costs are in proportion to heads.
fn dealt() -> Request {
    Request { suite: Suite::Dealer, network: Network::LOOPBACK, ..Request::default() }
}

fn request(factor: usize, inputs: &[PathBuf]) -> MergeRequest {
    MergeRequest { factor, samples: inputs.to_vec(), ..MergeRequest::default() }
}

fn worst(report: &MergeReport) -> f64 {
    report.outputs.iter().map(|output| output.max_abs_error).fold(0.0, f64::max)
}

#[test]
fn a_factor_of_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("same.onnx");
    let report = merge(&example("model.onnx"), &path, &request(1, &[example("inputs.npz")])).unwrap();
    assert_eq!(worst(&report), 0.0);
    assert_eq!(fs::read(&path).unwrap(), fs::read(example("model.onnx")).unwrap());
}

#[test]
fn parameters_keep_their_names_and_shapes_and_the_base_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::copy(example("model.onnx"), &path).unwrap();
    let report = merge(&path, &path, &request(2, &[example("inputs.npz")])).unwrap();
    assert!(report.layers.iter().all(|layer| layer.groups == layer.kv_groups && layer.groups.len() == 4));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the model is left");
    let types = |model: &Path| -> BTreeMap<String, String> {
        let tensors = read(model).initializers;
        tensors.into_iter().map(|(name, tensor)| (name, tensor.constant.ty().to_string())).collect()
    };
    let (old, new) = (types(&example("model.onnx")), types(&path));
    assert!(old.iter().all(|(name, ty)| new.get(name) == Some(ty)));
    assert_eq!(read(&example("model.onnx")).outputs, read(&path).outputs);
    let before = run_cost(&example("model.onnx"), &dealt()).unwrap();
    let after = run_cost(&path, &dealt()).unwrap();
    assert_eq!((before.rounds, before.softmax_online_bytes), (after.rounds, 2 * after.softmax_online_bytes));
    assert!(after.online_bytes < before.online_bytes && after.preprocess_bytes < before.preprocess_bytes);
}

#[test]
fn large_models_have_their_tensors_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.onnx");
    let base = read(&example("model.onnx"));
    let mut edits = Edits::default();
    let weight = "transformer.h.0.attn.c_attn.weight";
    let tensor = base.initializers[weight].constant.load().unwrap();
    edits.replaced.insert(weight.to_owned(), tensor);
    export::write_within(&base, &edits, &path, 0).unwrap();
    let written = read(&path);
    assert!(written.initializers[weight].is_external);
    let inputs = npz::read(&example("inputs.npz")).unwrap();
    let outputs = |outline: &Outline| ir::interpret(&outline.graph, &inputs).unwrap();
    assert_eq!(outputs(&written), outputs(&base));
    // From there into one file again.
    let whole = folder.path().join("whole.onnx");
    export::write(&written, &Edits::default(), &whole).unwrap();
    fs::remove_file(folder.path().join("large.onnx.data")).unwrap();
    let whole = read(&whole);
    assert!(!whole.initializers[weight].is_external);
    assert_eq!(outputs(&whole), outputs(&base));
}

#[test]
fn exporters_models_merge_compile_and_save() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, factor) in [
        ("gpt2_legacy14", 2),
        ("gpt2_legacy17_dyn", 4),
        ("gpt2_dynamo18", 2),
        ("old_gpt2_legacy13_dyn", 2),
        ("bert_cls_legacy14", 2),
        ("old_bert_cls_legacy12_dyn", 2),
        ("distilbert_legacy17", 4),
        ("roberta_dynamo18", 2),
        ("vit_legacy17", 2),
        ("opt_legacy17", 2),
        ("llama_legacy17", 2),
        ("llama_dynamo18", 2),
        ("old_llama_legacy14", 2),
        ("qwen2_legacy17", 2),
        ("phi_legacy17", 4),
        ("pair_gpt2/base", 4),
        ("pair_gpt2/f_all_dynamo18", 2),
    ] {
        let (model, inputs) = (models.join(name).join("model.onnx"), models.join(name).join("inputs.npz"));
        let path = folder.path().join("merged.onnx");
        let batch = npz::read(&inputs).unwrap().into_values().next().map_or(1, |array| array.shape()[0]);
        let names =
            [("batch", batch), ("batch_size", batch), ("seq", 16), ("sequence", 16), ("sequence_length", 16)];
        let dims: BTreeMap<String, usize> = names.map(|(name, size)| (name.to_owned(), size)).into();
        let request = MergeRequest { dims: dims.clone(), ..request(factor, &[inputs]) };
        let report = merge(&model, &path, &request).unwrap_or_else(|error| panic!("{name}: {error}"));
        for layer in &report.layers {
            let fit = layer.fit.unwrap();
            assert!(fit.relative_error <= fit.neighbours_error, "{name}: {layer:?}");
        }
        assert!(worst(&report).is_finite(), "{name}");
        let compile = Request { dims, ..dealt() };
        let cost = |path: &Path| run_cost(path, &compile).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (before, after) = (cost(&model), cost(&path));
        let ratio = before.softmax_online_bytes as f64 / after.softmax_online_bytes as f64;
        // Bits are packed, so that a few bytes are rounding.
        assert!((ratio / factor as f64 - 1.0).abs() < 0.01, "{name}: {ratio}");
        assert!(before.preprocess_bytes > after.preprocess_bytes, "{name}");
    }
}

#[test]
fn samples_make_better_groups_than_neighbours() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let tokens = npz::read(&models.join("trained/eval_tokens.npz")).unwrap()["tokens"].to_i64_vec().unwrap();
    let windows: Vec<PathBuf> = (0..16)
        .map(|window| {
            let path = folder.path().join(format!("{window}.npz"));
            let ids = Tensor::i64([1, 64], tokens[window * 65..window * 65 + 64].to_vec()).unwrap();
            npz::write(&path, &BTreeMap::from([("input_ids".to_owned(), ids)])).unwrap();
            path
        })
        .collect();
    let inputs: Vec<_> = windows[8..].iter().map(|path| npz::read(path).unwrap()).collect();
    let logits = |model: &Path| -> Vec<f32> {
        let graph = read(model).graph;
        let run = |sample| ir::interpret(&graph, sample).unwrap()[0].1.to_f32_vec().unwrap();
        inputs.iter().flat_map(run).collect()
    };
    let expected = logits(&models.join("trained/base.onnx"));
    // What the model is not fitted on.
    let error = |base: &str, request: &MergeRequest| {
        let path = folder.path().join("merged.onnx");
        let request = MergeRequest { layers: Some(2..4), ..request.clone() };
        merge(&models.join(base), &path, &request).unwrap();
        let pairs = logits(&path).into_iter().zip(&expected).map(|(f, e)| f64::from(f - e).powi(2));
        (pairs.sum::<f64>() / expected.len() as f64).sqrt()
    };
    let fitted = error("trained/base.onnx", &request(2, &windows[..8]));
    let made_up = error("trained/base.onnx", &request(2, &[]));
    let plain = MergeRequest { keeps_order: true, ..request(2, &[]) };
    let neighbours = error("trained/base.onnx", &plain);
    // The published pairing of the same model's heads.
    let published = error("trained/base_paired.onnx", &plain);
    println!("fitted {fitted:.3} made up {made_up:.3} neighbours {neighbours:.3} published {published:.3}");
    assert!(
        fitted < 0.8 * neighbours && fitted < 0.8 * published && fitted < made_up && made_up < neighbours
    );
}

#[test]
fn what_cannot_be_merged_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merged.onnx");
    let refused = |model: &Path, request: &MergeRequest, parts: &[&str]| {
        let error = merge(model, &path, request).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{}: {error}", model.display());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is written");
    };
    let small = example("model.onnx");
    refused(
        &small,
        &request(3, &[]),
        &["8 heads", "groups of 3", "factors that work here are 2, 4, 8", "h.0"],
    );
    let beyond = MergeRequest { layers: Some(2..5), ..request(2, &[]) };
    refused(&small, &beyond, &["layers 2 to before 5", "the model has 4", "B at most 4"]);
    refused(&small, &request(2, &[folder.path().join("none.npz")]), &["none.npz"]);
    let elsewhere = folder.path().join("none/merged.onnx");
    let error = merge(&small, &elsewhere, &request(2, &[])).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
    let Some(models) = models() else { return };
    let model = |name: &str| models.join(name).join("model.onnx");
    refused(&model("t5enc_legacy17"), &request(2, &[]), &["Add_3", "differs from head to head"]);
    refused(&model("gemma_legacy17"), &request(2, &[]), &["1 key heads", "nothing to be merged with"]);
    refused(&model("gpt2_past_legacy17"), &request(2, &[]), &["Concat", "without a cache"]);
    refused(&model("qwen3_dynamo18"), &request(2, &[]), &["Pow", "computes on heads"]);
}

#[test]
fn the_command_reports_and_warns() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let model = example("model.onnx");
        let command = Command::new(env!("CARGO_BIN_EXE_marillc"))
            .arg("merge-heads")
            .arg(model)
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (command.status.code(), text(command.stdout), text(command.stderr))
    };
    let (code, out, warnings) = run(&["--factor", "2", "--layers", "2..4", "-o", "m.onnx", "--json"]);
    assert_eq!(code, Some(0), "{warnings}");
    assert!(warnings.contains("made-up inputs"), "{warnings}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["layers"].as_array().unwrap().len(), 2);
    assert_eq!(report["layers"][0]["layer"], 2);
    assert!(
        report["costs"]["merged"]["online_bytes"].as_u64() < report["costs"]["base"]["online_bytes"].as_u64()
    );
    assert!(report["outputs"][0]["max_abs_error"].as_f64().unwrap() > 0.0);
    let inputs = example("inputs.npz");
    let (_, out, warnings) = run(&["--factor", "4", "-o", "m.onnx", "--calibrate", inputs.to_str().unwrap()]);
    assert!(
        warnings.is_empty() && out.contains("8 heads of 16 -> 2 of 64") && out.contains("top-1"),
        "{out}"
    );
    assert!(out.contains("of it softmax") && out.contains("wrote m.onnx"), "{out}");
    let (code, _, error) = run(&["--factor", "2", "--layers", "4..2", "-o", "n.onnx"]);
    assert!(code == Some(2) && error.contains("A below B"), "{error}");
    let (code, _, error) = run(&["--factor", "5", "-o", "n.onnx"]);
    assert!(code == Some(1) && error.contains("factors that work here"), "{error}");
}
