//! Makes a model of fewer, wider heads from a model: ONNX to ONNX, before fine-tuning.
//!
//! Precondition: any file. Postcondition: a model with the same inputs, outputs and parameters, whose attention, in
//! the layers asked for, has one softmax where there were `factor`. `block` and `trace` find the heads, `samples` and
//! `fit` say which are alike, `edit` says what changes.

mod axes;
mod block;
mod edit;
mod fit;
mod group;
mod index;
pub mod problem;
mod samples;
pub mod savings;
#[cfg(test)]
mod tests;
mod trace;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::calibrate::{self, Agreement, CalibrationError, Sample};
use crate::diagnostic::{Diagnostic, Problem};
use crate::export;
use crate::import::outline::{self, Outline};
use crate::import::{ImportRequest, symbolic_dims};
use crate::ir;
use block::Block;
use edit::Choice;
use fit::Fitter;
use index::Index;
use problem::MergeProblem;

/// Samples that are made up where none are given.
const MADE_UP: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct MergeRequest {
    /// How many heads become one.
    pub factor: usize,
    /// Layers to change; all if not given.
    pub layers: Option<Range<usize>>,
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, usize>,
    /// Files of sample inputs; without any, some are made up.
    pub samples: Vec<PathBuf>,
    /// Whether neighbours are merged, with even gains, whatever samples show.
    pub keeps_order: bool,
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// Which, from 0.
    pub layer: usize,
    /// The softmax, as the exporter calls it.
    pub name: String,
    /// Heads before.
    pub heads: usize,
    /// Columns of a query or key head before.
    pub width: usize,
    /// Heads of keys and values before.
    pub kv_heads: usize,
    /// The heads that became one each.
    pub groups: Vec<Vec<usize>>,
    /// The heads of keys and values that became one each.
    pub kv_groups: Vec<Vec<usize>>,
    /// By which the queries of each head are multiplied.
    pub gains: Vec<f64>,
    /// What samples showed.
    pub fit: Option<LayerFit>,
}

/// What samples showed of one layer, on the activations of the model before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerFit {
    /// Part of the attention weights that the heads of a group have in common, on average.
    pub similarity: f64,
    /// Error of what leaves the output projection, relative, root mean square.
    pub relative_error: f64,
    /// The same had neighbours been merged, with even gains.
    pub neighbours_error: f64,
}

/// What became of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MergeReport {
    /// How many heads became one.
    pub factor: usize,
    /// Layers that were changed.
    pub layers: Vec<LayerReport>,
    /// Whether the samples were made up.
    pub is_synthetic: bool,
    /// How many samples there were.
    pub samples: usize,
    /// Outputs of the new model against the old one's, before any fine-tuning.
    pub outputs: Vec<Agreement>,
}

/// Why heads were not merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The model, or the file to write.
    #[error(transparent)]
    Model(#[from] Diagnostic),
    /// The samples.
    #[error(transparent)]
    Samples(#[from] CalibrationError),
}

/// Reads the model at `base`, merges heads and writes the result to `merged`, which may be `base`.
///
/// # Errors
/// If a file cannot be read or written, a sample does not suit, or the attention is of a form that cannot be changed.
/// Nothing is written then.
pub fn merge(base: &Path, merged: &Path, request: &MergeRequest) -> Result<MergeReport, MergeError> {
    let import = ImportRequest { dims: request.dims.clone() };
    let outline = outline::outline(base, &import)?;
    let is_static = symbolic_dims(base)?.is_empty();
    let index = Index::new(&outline);
    let factor = request.factor.max(1);
    let found = block::find(&index)?;
    let layers = request.layers.clone().unwrap_or(0..found.len());
    if layers.is_empty() || layers.end > found.len() {
        let problem = MergeProblem::Layers { start: layers.start, end: layers.end, count: found.len() };
        return Err(Diagnostic::new(outline.name.clone(), problem).into());
    }
    let blocks: Vec<Block> =
        layers.map(|layer| block::block(&index, &found[layer], layer, factor)).collect::<Result<_, _>>()?;

    let inputs = calibrate::inputs(&outline.graph);
    let is_synthetic = request.samples.is_empty();
    let samples: Vec<Sample> = if is_synthetic {
        calibrate::synthesise_several(&outline.graph, MADE_UP)
    } else {
        calibrate::read_samples(&request.samples, &base.with_file_name("tokenizer.json"), &inputs)?
    };
    let (expected, seen) = samples::observe(&index, &blocks, &samples)?;
    let mut reports = Vec::new();
    let mut choices = Vec::new();
    for (block, seen) in blocks.into_iter().zip(&seen) {
        let (choice, report) = if seen.rows.is_empty() {
            let groups = neighbours(&block, factor);
            (choice(&block, factor, &groups, &even(&block, factor, &groups)), None)
        } else {
            let (choice, fit) = choose(&block, seen, factor, request.keeps_order);
            (choice, Some(fit))
        };
        reports.push(layer_report(&block, &choice, factor, report));
        choices.push((block, choice));
    }
    let edits = edit::edits(&index, &choices, factor, is_static)?;
    let written = Written::new(&outline, &edits, merged)?;
    let new = outline::outline(&written.model, &import)?;
    verify(&index, &choices, factor, &new)?;
    let outputs = run(&new, &samples)?;
    let masks = calibrate::attention_masks(&samples);
    let outputs = calibrate::compare(&outputs, &expected, &masks)?;
    written.keep(merged)?;
    Ok(MergeReport { factor, layers: reports, is_synthetic, samples: samples.len(), outputs })
}

fn run(outline: &Outline, samples: &[Sample]) -> Result<Vec<Sample>, CalibrationError> {
    let one = |sample| Ok(ir::interpret(&outline.graph, sample)?.into_iter().collect());
    samples.iter().map(one).collect()
}

/// Ratio of the scale of merged scores to that of scores: what the graph itself does.
fn graph_ratio(block: &Block, factor: usize) -> f64 {
    edit::merged_scale(block, factor) / block.scale
}

/// Heads and the gain of each.
type Gained = (Vec<usize>, Vec<f64>);

fn neighbours(block: &Block, factor: usize) -> Vec<Vec<usize>> {
    (0..block.kv_heads).collect::<Vec<_>>().chunks(factor).map(<[usize]>::to_vec).collect()
}

/// The heads of queries that share the heads of keys of each group, as they come, with even gains.
fn even(block: &Block, factor: usize, groups: &[Vec<usize>]) -> Vec<Gained> {
    let share = block.heads / block.kv_heads;
    let merged = groups.iter().flat_map(|group| {
        (0..share).map(move |i| group.iter().map(|head| head * share + i).collect::<Vec<usize>>())
    });
    merged.map(|heads| (heads, fit::even(factor))).collect()
}

/// Groups of heads of keys and of queries as one.
fn choice(block: &Block, factor: usize, groups: &[Vec<usize>], merged: &[Gained]) -> Choice {
    let ratio = graph_ratio(block, factor);
    let mut gains = vec![1.0; block.heads];
    for (heads, own) in merged {
        for (&head, gain) in heads.iter().zip(own) {
            gains[head] = gain / ratio;
        }
    }
    let queries = merged.iter().flat_map(|(heads, _)| heads.iter().copied()).collect();
    Choice { queries, keys: groups.concat(), gains }
}

/// Which heads to merge and with which gains, by what samples showed.
fn choose(block: &Block, seen: &samples::Seen, factor: usize, keeps_order: bool) -> (Choice, LayerFit) {
    let fitter = Fitter::new(seen);
    let plain = neighbours(block, factor);
    let neighbours_error = fitter.relative_error(&even(block, factor, &plain));
    let (groups, fitted) = if keeps_order || factor == 1 {
        let fitted = even(block, factor, &plain);
        (plain, fitted)
    } else {
        let matched = |group: &[usize]| matched(&fitter, group, block.heads / block.kv_heads);
        let mut cost =
            |group: &[usize]| -> f64 { matched(group).iter().map(|heads| fitter.tries(heads)).sum() };
        let groups = group::group(block.kv_heads, factor, &mut cost);
        let fit = |heads: Vec<usize>| {
            let gains = fitter.fit(&heads);
            (heads, gains)
        };
        let fitted = groups.iter().flat_map(|group| matched(group)).map(fit).collect();
        (groups, fitted)
    };
    let similarity = fitted.iter().map(|(heads, _)| fitter.similarity(heads)).sum::<f64>();
    let fit = LayerFit {
        similarity: similarity / fitted.len().max(1) as f64,
        relative_error: fitter.relative_error(&fitted),
        neighbours_error,
    };
    (choice(block, factor, &groups, &fitted), fit)
}

/// The heads of queries that share the heads of keys of `group`, `share` each, with those together that go best: one
/// after the other, each of the first head's takes what is left of the others'.
fn matched(fitter: &Fitter, group: &[usize], share: usize) -> Vec<Vec<usize>> {
    let queries = |head: usize| (head * share..(head + 1) * share).collect::<Vec<usize>>();
    let Some((&first, others)) = group.split_first() else { return Vec::new() };
    let mut merged: Vec<Vec<usize>> = queries(first).into_iter().map(|query| vec![query]).collect();
    for &other in others {
        let mut left = queries(other);
        for heads in &mut merged {
            let error = |query: &usize| {
                let mut with = heads.clone();
                with.push(*query);
                fitter.tries(&with)
            };
            // What is left alone needs no trial.
            let errors: Vec<f64> =
                if left.len() > 1 { left.iter().map(error).collect() } else { vec![0.0; left.len()] };
            if let Some(best) = (0..left.len()).min_by(|&a, &b| errors[a].total_cmp(&errors[b])) {
                heads.push(left.remove(best));
            }
        }
    }
    merged
}

fn layer_report(block: &Block, choice: &Choice, factor: usize, fit: Option<LayerFit>) -> LayerReport {
    LayerReport {
        layer: block.layer,
        name: block.label.clone(),
        heads: block.heads,
        width: block.width,
        kv_heads: block.kv_heads,
        groups: choice.queries.chunks(factor).map(<[usize]>::to_vec).collect(),
        kv_groups: choice.keys.chunks(factor).map(<[usize]>::to_vec).collect(),
        gains: choice.gains.clone(),
        fit,
    }
}

/// That every value by head has the shape, and every block the scale, that merged heads need.
fn verify(
    index: &Index,
    choices: &[(Block, Choice)],
    factor: usize,
    new: &Outline,
) -> Result<(), Diagnostic> {
    let changed = Index::new(new);
    let found = block::find(&changed)?;
    for (block, _) in choices {
        for (value, needed) in &block.reshaped {
            let shape = new.shape(value).unwrap_or_default();
            if shape != needed {
                let node = index.maker(value).map_or(value, |at| &index.node(at).label);
                let problem = MergeProblem::Shape { found: shape.to_vec(), needed: needed.clone() };
                return Err(Diagnostic::new(node, problem));
            }
        }
        let again = block::block(&changed, &found[block.layer.min(found.len() - 1)], block.layer, 1)?;
        let needed = edit::merged_scale(block, factor);
        if (again.scale - needed).abs() > 1e-5 * needed.abs() {
            let problem =
                MergeProblem::Scale { found: format!("{:.6}", again.scale), needed: format!("{needed:.6}") };
            return Err(Diagnostic::new(block.label.clone(), problem));
        }
    }
    Ok(())
}

/// A model that is not yet where it shall be.
struct Written {
    folder: PathBuf,
    model: PathBuf,
}

impl Written {
    fn new(outline: &Outline, edits: &export::Edits, path: &Path) -> Result<Written, Diagnostic> {
        let unwritable =
            |reason: String| Diagnostic::new("", Problem::Unwritable { path: path.to_owned(), reason });
        let name = path.file_name().ok_or_else(|| unwritable("it is no file".into()))?;
        let mut folder = path.as_os_str().to_owned();
        folder.push(".unchecked");
        let folder = PathBuf::from(folder);
        fs::create_dir(&folder).map_err(|error| unwritable(format!("{}: {error}", folder.display())))?;
        let written = Written { model: folder.join(name), folder };
        export::write(outline, edits, &written.model)?;
        Ok(written)
    }

    fn keep(self, path: &Path) -> Result<(), Diagnostic> {
        let mut data = path.as_os_str().to_owned();
        data.push(".data");
        let mut beside = self.model.as_os_str().to_owned();
        beside.push(".data");
        let moved = match fs::exists(&beside) {
            Ok(true) => fs::rename(&beside, &data),
            _ => Ok(()),
        };
        moved.and_then(|()| fs::rename(&self.model, path)).map_err(|error| {
            Diagnostic::new("", Problem::Unwritable { path: path.to_owned(), reason: error.to_string() })
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // What cannot be removed is left for its owner to see.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
