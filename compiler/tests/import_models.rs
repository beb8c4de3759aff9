//! Every exporter's spelling of every family imports and computes what onnxruntime computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::fixtures::models;
use marill_compiler::import::{ImportRequest, import};
use marill_compiler::ir::{Graph, interpret};
use marill_compiler::{Diagnostic, npz};
use marill_plaintext::Tensor;

/// Binds symbolic dimensions one diagnostic after the other, as a user would, to what the inputs' shapes say.
fn import_bound(path: &Path, inputs: &BTreeMap<String, Tensor>) -> Result<Graph, Diagnostic> {
    let mut request = ImportRequest::default();
    loop {
        let error = match import(path, &request) {
            Ok(graph) => return Ok(graph),
            Err(error) => error,
        };
        let Some((axis, dim_param)) = unbound(&error) else { return Err(error) };
        let Some(input) = inputs.get(&error.node) else { return Err(error) };
        if request.dims.insert(dim_param, input.shape()[axis]).is_some() {
            return Err(error);
        }
    }
}

fn unbound(error: &Diagnostic) -> Option<(usize, String)> {
    use marill_compiler::Problem;
    use marill_compiler::import::problem::ImportProblem;
    match &error.problem {
        Problem::Import(ImportProblem::Dimension { axis, dim_param, .. }) => Some((*axis, dim_param.clone())),
        _ => None,
    }
}

/// Largest difference between two outputs relative to `max(1, max |expected|)`, without the positions that
/// `attention_mask` excludes where the outputs have the mask's leading axes.
fn difference(found: &Tensor, expected: &Tensor, mask: Option<&Tensor>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (found, wanted) = (found.to_f32_vec().unwrap(), expected.to_f32_vec().unwrap());
    let shape = expected.shape();
    let mask = mask.filter(|mask| shape.len() == 3 && mask.shape() == &shape[..2]);
    let mask = mask.map(|mask| mask.to_i64_vec().unwrap());
    let row = shape.last().copied().unwrap_or(1).max(1);
    let (mut worst, mut largest) = (0f64, 1f64);
    for (index, (&a, &b)) in found.iter().zip(&wanted).enumerate() {
        if mask.as_ref().is_some_and(|mask| mask[index / row] == 0) {
            continue;
        }
        assert!(!a.is_nan(), "element {index} is not a number");
        worst = worst.max(f64::from((a - b).abs()));
        largest = largest.max(f64::from(b.abs()));
    }
    worst / largest
}

fn check(label: &str, model: &Path, inputs: &Path, outputs: &Path, failures: &mut Vec<String>) {
    let inputs = npz::read(inputs).unwrap();
    let expected = npz::read(outputs).unwrap();
    let graph = match import_bound(model, &inputs) {
        Ok(graph) => graph,
        Err(error) => return failures.push(format!("{label}: {error}")),
    };
    marill_compiler::ir::verify(&graph).unwrap();
    let found = match interpret(&graph, &inputs) {
        Ok(found) => found,
        Err(error) => return failures.push(format!("{label}: {error}")),
    };
    assert_eq!(found.len(), expected.len(), "{label}");
    let mask = inputs.get("attention_mask");
    let worst =
        found.iter().map(|(name, tensor)| difference(tensor, &expected[name], mask)).fold(0.0, f64::max);
    let operations = graph.dag.node_indices().filter(|&id| graph.op(id).is_some()).count();
    println!(
        "{label:30} {operations:4} operations, {} inputs, relative error {worst:.1e}",
        graph.inputs.len()
    );
    if worst > 1e-4 {
        failures.push(format!("{label}: relative error {worst:.1e}"));
    }
}

#[test]
fn every_model_computes_what_onnxruntime_computes() {
    let Some(models) = models() else { return };
    let mut cases: Vec<(String, PathBuf)> = Vec::new();
    let mut folders = vec![models.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "onnx") {
                let label = path.strip_prefix(&models).unwrap().with_extension("");
                cases.push((label.to_string_lossy().replace("/model", ""), path));
            }
        }
    }
    cases.sort();
    assert!(cases.len() >= 20, "only {} models", cases.len());
    let mut failures = Vec::new();
    for (label, model) in &cases {
        let folder = model.parent().unwrap();
        let stem = model.file_stem().unwrap().to_string_lossy().replace("_paired", "");
        let outputs = [folder.join("outputs.npz"), folder.join(format!("outputs_{stem}.npz"))];
        let outputs = outputs.iter().find(|path| path.is_file()).expect("a model has reference outputs");
        check(label, model, &folder.join("inputs.npz"), outputs, &mut failures);
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn a_symbolic_dimension_without_a_value_is_named() {
    let Some(models) = models() else { return };
    let path = models.join("gpt2_legacy17_dyn/model.onnx");
    let error = import(&path, &ImportRequest::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("--dim ") && text.contains("=N"), "{text}");
    assert!(text.contains("input_ids"), "{text}");
}

#[test]
fn weights_stay_in_the_file() {
    use marill_compiler::ir::NodeKind;
    let Some(models) = models() else { return };
    let graph = import(&models.join("gpt2_legacy14/model.onnx"), &ImportRequest::default()).unwrap();
    let constants = graph.dag.node_weights().filter_map(|node| match &node.kind {
        NodeKind::Constant(constant) => Some((&node.name, constant)),
        _ => None,
    });
    let (mut stored, mut inline) = (0, 0);
    for (name, constant) in constants {
        let mapped = format!("{constant:?}").contains("mapped");
        if mapped {
            stored += constant.elements();
        } else {
            inline += constant.elements();
            assert!(constant.elements() <= 4096, "{name} with {} elements was copied", constant.elements());
        }
    }
    assert!(stored > 20 * inline, "{stored} elements in the file, {inline} in memory");
}
