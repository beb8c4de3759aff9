//! Small models of architectures beyond those of the shared folder, as users' calls of exporters leave them
//! (`exports/export.py`), compiled at default settings and run between two parties, against onnxruntime's outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::fixtures::compare;
use crate::support::parallel::in_parallel;
use crate::support::parties::run_alone;
use marill_compiler::precision::headroom;
use marill_compiler::{Request, bundle, compile, npz};
use marill_plaintext::Tensor;
use marill_program::Suite;

/// Largest difference, relative to the largest element of an output but not below one.
const BOUND: f32 = 2e-3;

/// Mean difference, the same way: it differs less from run to run, since truncations round by chance.
const MEAN_BOUND: f32 = 8e-4;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    models.sort();
    models
}

/// Sizes of the symbolic dimensions that optimum writes.
fn dims(inputs: &BTreeMap<String, Tensor>) -> BTreeMap<String, usize> {
    let mut dims = BTreeMap::from([("batch_size".to_owned(), 1)]);
    for (name, tensor) in inputs {
        match (name.as_str(), tensor.shape()) {
            ("input_ids", &[_, tokens]) => dims.insert("sequence_length".to_owned(), tokens),
            ("past_key_values.0.key", &[_, _, past, _]) => {
                dims.insert("past_sequence_length".to_owned(), past)
            }
            _ => None,
        };
    }
    dims
}

/// What is wrong with a model's outputs.
fn problems(model: &Path, suite: Suite) -> Vec<String> {
    let name = model.file_stem().unwrap().to_string_lossy();
    let arrays = npz::read(&model.with_extension("npz")).unwrap();
    let part = |prefix: &str| -> BTreeMap<String, Tensor> {
        let named = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        named.map(|(name, array)| (name.to_owned(), array.clone())).collect()
    };
    let (inputs, expected) = (part("in."), part("out."));
    let request = Request { dims: dims(&inputs), suite, ..Request::default() };
    let compiled = match compile(model, &request) {
        Ok(compiled) => compiled,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let sample = std::slice::from_ref(&inputs);
    let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, sample).unwrap();
    let mut problems = Vec::new();
    if let Some(overflow) = headroom::first_overflow(&check) {
        problems.push(format!("{name}: {overflow:?}"));
    }
    let mut runs = vec![("in ring arithmetic", check.outputs[0].clone())];
    if suite == Suite::TwoParty {
        let folder = tempfile::tempdir().unwrap();
        bundle::write(folder.path(), &compiled.graph, &compiled.lowered).unwrap();
        runs.push(("between two parties", run_alone(folder.path(), &inputs, &BTreeMap::new())));
    }
    for (how, found) in runs {
        for (output, expected) in &expected {
            let elements = expected.to_f32_vec().unwrap();
            let largest = elements.into_iter().fold(1.0, |largest: f32, v| largest.max(v.abs()));
            let comparison = compare(&found[output], expected, inputs.get("attention_mask"));
            assert!(comparison.rows > 0, "{name}: {output} is empty");
            let (max, mean) = (comparison.max_abs_error / largest, comparison.mean_abs_error / largest);
            println!("{name}, {how}: {output}: {max:.1e}, {mean:.1e}");
            let is_close = max <= BOUND && mean <= MEAN_BOUND;
            if !is_close || comparison.same_top < comparison.rows {
                let (same, rows) = (comparison.same_top, comparison.rows);
                problems.push(format!(
                    "{name}, {how}: {output} is {max} off, {mean} on the mean, {same} of {rows} rows alike"
                ));
            }
        }
    }
    problems
}

#[test]
fn other_architectures_match_their_references() {
    let models = models();
    assert!(models.len() >= 16, "{} models", models.len());
    let cases: Vec<(&PathBuf, Suite)> =
        models.iter().flat_map(|model| [(model, Suite::Dealer), (model, Suite::TwoParty)]).collect();
    let problems = in_parallel(&cases, |&(model, suite)| problems(model, suite)).concat();
    assert!(problems.is_empty(), "{problems:#?}");
}
