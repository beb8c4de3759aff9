use std::path::{Path, PathBuf};

use super::*;
use crate::npz;

/// Models with their samples: the one of the repository, and those of the shared folder if it is there.
fn models() -> Vec<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = root.join("../examples/small_lm");
    let mut models = vec![(example.join("model.onnx"), example.join("inputs.npz"))];
    let shared = std::env::var_os("MARILL_SHARED").map_or_else(|| root.join("../../shared"), PathBuf::from);
    if !shared.join("models").is_dir() {
        assert!(std::env::var_os("MARILL_REQUIRE_SHARED").is_none(), "{} is missing", shared.display());
        println!("skipped in part: shared models missing");
        return models;
    }
    let fixtures = [
        "gpt2_legacy14",
        "gpt2_dynamo18",
        "bert_cls_legacy14",
        "vit_legacy17",
        "opt_legacy17",
        "llama_legacy17",
        "llama_dynamo18",
        "phi_legacy17",
        "pair_gpt2/base",
        "pair_gpt2/c_lora",
        "pair_llama/c_lora",
    ];
    let folder = |name: &str| shared.join("models").join(name);
    models.extend(fixtures.map(|name| (folder(name).join("model.onnx"), folder(name).join("inputs.npz"))));
    models.push((folder("trained/base.onnx"), folder("trained/inputs.npz")));
    models
}

fn read(model: &Path) -> Outline {
    outline::outline(model, &ImportRequest::default()).unwrap()
}

fn sample(outline: &Outline, inputs: &Path) -> Sample {
    let all = npz::read(inputs).unwrap();
    let names: Vec<String> = calibrate::inputs(&outline.graph).into_iter().map(|(name, _)| name).collect();
    all.into_iter().filter(|(name, _)| names.contains(name)).collect()
}

#[test]
fn reordered_heads_compute_the_same() {
    for (model, inputs) in models() {
        let outline = read(&model);
        let index = Index::new(&outline);
        let choices: Vec<(Block, Choice)> = block::find(&index)
            .unwrap()
            .iter()
            .enumerate()
            .map(|(layer, found)| {
                let block = block::block(&index, found, layer, 1).unwrap();
                let reversed: Vec<Vec<usize>> = (0..block.kv_heads).rev().map(|head| vec![head]).collect();
                let choice = choice(&block, 1, &reversed, &even(&block, 1, &reversed));
                (block, choice)
            })
            .collect();
        let edits = edit::edits(&index, &choices, 1, true).unwrap();
        assert!(edits.replaced.len() >= 2 * choices.len(), "{}", model.display());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reordered.onnx");
        export::write(&outline, &edits, &path).unwrap();
        let sample = sample(&outline, &inputs);
        let expected: Sample = ir::interpret(&outline.graph, &sample).unwrap().into_iter().collect();
        let found = run(&read(&path), &[sample]).unwrap();
        for agreement in calibrate::compare(&found, &[expected], &[]).unwrap() {
            let bound = 1e-5 * agreement.max_abs.max(1.0);
            assert!(agreement.max_abs_error < bound, "{}: {agreement:?}", model.display());
        }
    }
}

#[test]
fn merged_heads_attend_by_the_sum_of_their_scores() {
    for (model, inputs) in models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("merged.onnx");
        // The first layer alone: what enters it is the same before and after.
        let request = MergeRequest {
            factor: 2,
            layers: Some(0..1),
            samples: vec![inputs.clone()],
            ..Default::default()
        };
        let report = merge(&model, &path, &request).unwrap();
        let (base, merged) = (read(&model), read(&path));
        let sample = sample(&base, &inputs);
        let seen = |outline: &Outline| {
            let index = Index::new(outline);
            let block = block::block(&index, &block::find(&index).unwrap()[0], 0, 1).unwrap();
            let seen = samples::observe(&index, std::slice::from_ref(&block), std::slice::from_ref(&sample));
            (block, seen.unwrap().1.remove(0))
        };
        let ((old_block, old), (new_block, new)) = (seen(&base), seen(&merged));
        let layer = &report.layers[0];
        let (heads, width) = (old_block.heads / 2, old_block.width * 2);
        assert_eq!((new_block.heads, new_block.width), (heads, width), "{}", model.display());
        let groups = &layer.groups;
        assert_eq!((groups.len(), old.rows.len()), (heads, new.rows.len()));
        let ratio = graph_ratio(&old_block, 2);
        assert!((ratio - 0.5f64.sqrt()).abs() < 1e-9, "{}: {ratio}", model.display());
        let mut worst = 0.0f32;
        for (old, new) in old.rows.iter().zip(&new.rows) {
            for (head, group) in groups.iter().enumerate() {
                let scores = |at: usize| {
                    let own = group.iter().map(|&h| layer.gains[h] * ratio * f64::from(old.scores[h][at]));
                    own.sum::<f64>() as f32 + old.bias[at]
                };
                let expected = samples::softmax((0..old.positions.len()).map(scores).collect());
                let errors = expected.iter().zip(&new.weights[head]).map(|(a, b)| (a - b).abs());
                worst = errors.fold(worst, f32::max);
            }
        }
        assert!(worst < 1e-4, "{}: {worst}", model.display());
    }
}
