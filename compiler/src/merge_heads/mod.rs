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

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct MergeRequest {
    /// How many heads become one.
    pub factor: usize,
    /// Layers to change; all if not given.
    pub layers: Option<Range<usize>>,
    /// Sizes of symbolic dimensions.
    pub dims: BTreeMap<String, usize>,
    /// Files of sample inputs; without any, neighbours are merged.
    pub samples: Vec<PathBuf>,
    /// Whether neighbours are merged, with even gains, although there are samples.
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
    /// Heads of keys and values before, if fewer.
    pub kv_heads: usize,
    /// The heads of keys that became one each, with the queries that share them.
    pub groups: Vec<Vec<usize>>,
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
        vec![calibrate::synthesise(&outline.graph)]
    } else {
        request.samples.iter().map(|path| calibrate::read_sample(path, &inputs)).collect::<Result<_, _>>()?
    };
    let (expected, seen) = samples::observe(&index, &blocks, &samples)?;
    let mut reports = Vec::new();
    let mut choices = Vec::new();
    for (block, seen) in blocks.into_iter().zip(&seen) {
        let (choice, report) = if is_synthetic || seen.rows.is_empty() {
            (even(&block, factor), None)
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
    let masks: Vec<_> = samples.iter().map(|sample| sample.get("attention_mask").cloned()).collect();
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

fn even(block: &Block, factor: usize) -> Choice {
    let gain = fit::even(factor)[0] / graph_ratio(block, factor);
    Choice { gains: vec![gain; block.heads], ..Choice::adjacent(block) }
}

/// Which heads to merge and with which gains, by what samples showed.
fn choose(block: &Block, seen: &samples::Seen, factor: usize, keeps_order: bool) -> (Choice, LayerFit) {
    let fitter = Fitter::new(seen);
    let share = block.heads / block.kv_heads;
    // The queries that share merged keys, each group one merged head.
    let merged = |group: &[usize]| -> Vec<Vec<usize>> {
        (0..share).map(|i| group.iter().map(|head| head * share + i).collect()).collect()
    };
    let neighbours: Vec<Vec<usize>> =
        (0..block.kv_heads).collect::<Vec<_>>().chunks(factor).map(<[usize]>::to_vec).collect();
    let with_even = |groups: &[Vec<usize>]| -> Vec<(Vec<usize>, Vec<f64>)> {
        groups.iter().flat_map(|group| merged(group)).map(|heads| (heads, fit::even(factor))).collect()
    };
    let neighbours_error = fitter.relative_error(&with_even(&neighbours));
    let (groups, fitted) = if keeps_order || factor == 1 {
        (neighbours.clone(), with_even(&neighbours))
    } else {
        let mut cost =
            |group: &[usize]| -> f64 { merged(group).iter().map(|heads| fitter.tries(heads)).sum() };
        let groups = group::group(block.kv_heads, factor, &mut cost);
        let fit = |heads: Vec<usize>| {
            let gains = fitter.fit(&heads);
            (heads, gains)
        };
        let fitted = groups.iter().flat_map(|group| merged(group)).map(fit).collect();
        (groups, fitted)
    };
    let ratio = graph_ratio(block, factor);
    let mut choice = Choice { order: groups.concat(), gains: vec![1.0; block.heads] };
    for (heads, gains) in &fitted {
        for (&head, gain) in heads.iter().zip(gains) {
            choice.gains[head] = gain / ratio;
        }
    }
    let similarity = fitted.iter().map(|(heads, _)| fitter.similarity(heads)).sum::<f64>();
    let fit = LayerFit {
        similarity: similarity / fitted.len().max(1) as f64,
        relative_error: fitter.relative_error(&fitted),
        neighbours_error,
    };
    (choice, fit)
}

fn layer_report(block: &Block, choice: &Choice, factor: usize, fit: Option<LayerFit>) -> LayerReport {
    LayerReport {
        layer: block.layer,
        name: block.label.clone(),
        heads: block.heads,
        width: block.width,
        kv_heads: block.kv_heads,
        groups: choice.order.chunks(factor).map(<[usize]>::to_vec).collect(),
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
        fs::create_dir_all(&folder).map_err(|error| unwritable(error.to_string()))?;
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
