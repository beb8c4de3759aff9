//! Sample inputs to check a compiled program on: the user's, or made up from the graph's input types.
//!
//! What samples show depends on private weights: it is for the model's provider, and nothing of it reaches the
//! program or the client.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use marill_plaintext::{DType, Op, Tensor, TensorType};
use marill_program::interpret::InterpretError;
use petgraph::Direction::Outgoing;
use petgraph::visit::EdgeRef;
use serde::Serialize;

use crate::Compiled;
use crate::ir::{self, Graph, ValueId};
use crate::npz::{self, NpzError};
use crate::precision::headroom::{self, Check};
use crate::splitmix::SplitMix64;
use crate::text_samples::{self, TextError};

/// One tensor for each input.
pub type Sample = BTreeMap<String, Tensor>;

/// Why a program cannot be checked on samples.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// A file of samples that cannot be read.
    #[error("no samples in {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: NpzError,
    },
    /// A text that gives no samples.
    #[error("no samples in {}: {source}", path.display())]
    Text {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: TextError,
    },
    /// A file without an array for an input.
    #[error(
        "{} has no array \"{name}\" for the input of type {expected}, it has: {}", path.display(), found.join(", ")
    )]
    Missing {
        /// Which file.
        path: PathBuf,
        /// The input.
        name: String,
        /// Its type.
        expected: TensorType,
        /// Arrays that the file has.
        found: Vec<String>,
    },
    /// An array of another type than its input.
    #[error("array \"{name}\" of {} is {found}, the input is {expected}", path.display())]
    Type {
        /// Which file.
        path: PathBuf,
        /// The input.
        name: String,
        /// Its type.
        expected: TensorType,
        /// The array's type.
        found: TensorType,
    },
    /// A reference that is not of the output's shape.
    #[error("the reference for \"{name}\" is {expected}, the output is {found}")]
    Reference {
        /// The output.
        name: String,
        /// Type of the reference.
        expected: TensorType,
        /// Type of the output.
        found: TensorType,
    },
    /// The graph cannot be run in the clear.
    #[error("the model fails on the samples: {0}")]
    Graph(#[from] ir::InterpretError),
    /// The program cannot be run in the clear.
    #[error("the program fails on the samples: {0}")]
    Program(#[from] InterpretError),
}

/// Reads samples: one of each npz file, some of each text, by `tokenizer`.
///
/// # Errors
/// A file that cannot be read, or does not fit the inputs.
pub fn read_samples(
    paths: &[PathBuf],
    tokenizer: &Path,
    inputs: &[(String, TensorType)],
) -> Result<Vec<Sample>, CalibrationError> {
    let mut samples = Vec::new();
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "npz") {
            samples.push(read_sample(path, inputs)?);
        } else {
            let texts = text_samples::read_text(path, tokenizer, inputs);
            samples.extend(texts.map_err(|source| CalibrationError::Text { path: path.clone(), source })?);
        }
    }
    Ok(samples)
}

/// Reads one sample from an npz file: the arrays named like the inputs; others are ignored.
///
/// # Errors
/// A file that cannot be read, or that lacks an array or has one of another type.
pub fn read_sample(path: &Path, inputs: &[(String, TensorType)]) -> Result<Sample, CalibrationError> {
    let mut arrays =
        npz::read(path).map_err(|source| CalibrationError::File { path: path.into(), source })?;
    let names: Vec<String> = arrays.keys().cloned().collect();
    let mut sample = Sample::new();
    for (name, ty) in inputs {
        let tensor = arrays.remove(name).ok_or_else(|| CalibrationError::Missing {
            path: path.into(),
            name: name.clone(),
            expected: ty.clone(),
            found: names.clone(),
        })?;
        // numpy has no narrow booleans in many pipelines: integers serve, and the other way round.
        let tensor = match (tensor.dtype(), ty.dtype) {
            (DType::I64, DType::Bool) | (DType::Bool, DType::I64) => tensor.cast(ty.dtype),
            _ => tensor,
        };
        if tensor.ty() != *ty {
            return Err(CalibrationError::Type {
                path: path.into(),
                name: name.clone(),
                expected: ty.clone(),
                found: tensor.ty(),
            });
        }
        sample.insert(name.clone(), tensor);
    }
    Ok(sample)
}

/// Name and type of each input of the graph.
pub fn inputs(graph: &Graph) -> Vec<(String, TensorType)> {
    graph.inputs.iter().map(|&id| (graph.node(id).name.clone(), graph.ty(id).clone())).collect()
}

/// Makes up one sample, always the same for one graph: tokens anywhere in their table, positions counted, masks that
/// keep everything, floats of normal distribution.
pub fn synthesise(graph: &Graph) -> Sample {
    synthesise_several(graph, 1).pop().unwrap_or_default()
}

/// As [`synthesise`], `count` different ones.
pub fn synthesise_several(graph: &Graph, count: usize) -> Vec<Sample> {
    let mut random = Random(SplitMix64(0x6d61_7269_6c6c));
    let mut one = || {
        let inputs = graph.inputs.iter();
        inputs.map(|&id| (graph.node(id).name.clone(), made_up(graph, id, &mut random))).collect()
    };
    (0..count).map(|_| one()).collect()
}

fn made_up(graph: &Graph, id: ValueId, random: &mut Random) -> Tensor {
    let (ty, name) = (graph.ty(id), graph.node(id).name.to_ascii_lowercase());
    let count = ty.len();
    let tensor = match ty.dtype {
        DType::Bool => Tensor::bool(ty.shape.clone(), vec![true; count]),
        DType::F32 => Tensor::f32(ty.shape.clone(), (0..count).map(|_| random.normal()).collect()),
        DType::I64 => {
            let rows = table_rows(graph, id);
            let data = match rows {
                _ if name.contains("mask") => vec![1; count],
                Some(rows) if name.contains("position") => {
                    let length = ty.shape.last().copied().unwrap_or(1).max(1);
                    (0..count).map(|i| (i % length).min(rows.saturating_sub(1)) as i64).collect()
                }
                Some(rows) => (0..count).map(|_| random.below(rows as u64) as i64).collect(),
                None if is_only_a_mask(graph, id) => vec![1; count],
                None => (0..count).map(|_| random.below(2) as i64).collect(),
            };
            Tensor::i64(ty.shape.clone(), data)
        }
    };
    // The data has the type's length by construction.
    tensor.unwrap_or_else(|_| Tensor::scalar_f32(0.0))
}

fn uses(graph: &Graph, id: ValueId) -> impl Iterator<Item = (ValueId, usize)> {
    graph.dag.edges_directed(id, Outgoing).map(|edge| (edge.target(), *edge.weight()))
}

/// Rows of the smallest table that a value, perhaps rearranged, is an index into.
fn table_rows(graph: &Graph, id: ValueId) -> Option<usize> {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    let mut rows: Option<usize> = None;
    while let Some(id) = pending.pop() {
        for (user, position) in uses(graph, id) {
            match graph.op(user) {
                Some(Op::Gather { axis }) if position == 1 => {
                    let found = graph.arg(user, 0).and_then(|table| graph.shape(table).get(*axis)).copied();
                    rows = rows.into_iter().chain(found).min();
                }
                Some(op)
                    if (op.is_movement() || matches!(op, Op::Cast { to: DType::I64 }))
                        && seen.insert(user) =>
                {
                    pending.push(user);
                }
                _ => {}
            }
        }
    }
    rows
}

/// Whether all that depends on the value does so through the masks of attention.
fn is_only_a_mask(graph: &Graph, id: ValueId) -> bool {
    let mut seen = BTreeSet::from([id]);
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        if graph.is_output(id) {
            return false;
        }
        for (user, position) in uses(graph, id) {
            if matches!(graph.op(user), Some(Op::AttentionSoftmax)) && position > 0 {
                continue;
            }
            if seen.insert(user) {
                pending.push(user);
            }
        }
    }
    true
}

/// What samples are made up of.
struct Random(SplitMix64);

impl Random {
    /// Uniform in `0..limit`, up to a bias that does not matter here; 0 for a limit of 0.
    fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.0.draw()) * u128::from(limit)) >> 64) as u64
    }

    fn normal(&mut self) -> f32 {
        let unit = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let (radius, angle) = (unit(self.0.draw()), unit(self.0.draw()));
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }
}

/// How far an output is from its reference, over all samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The output.
    pub output: String,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Mean absolute difference.
    pub mean_abs_error: f64,
    /// Largest magnitude of the reference.
    pub max_abs: f64,
    /// Rows (along the last axis) whose largest element is the reference's.
    pub top1_same: usize,
    /// Rows compared so; none for integers and rows of one element.
    pub top1_rows: usize,
}

impl Agreement {
    /// Whether the error is beyond what rounding explains: a hundredth of the largest magnitude, or of 1.
    pub fn is_poor(&self) -> bool {
        // Also true of a difference that is not a number.
        let within = self.max_abs_error <= 1e-2 * self.max_abs.max(1.0);
        !within
    }
}

/// Which positions each sample leaves out: outputs there mean nothing.
pub fn attention_masks(samples: &[Sample]) -> Vec<Option<Tensor>> {
    let mask =
        |sample: &Sample| sample.get("attention_mask").filter(|mask| mask.to_i64_vec().is_ok()).cloned();
    samples.iter().map(mask).collect()
}

/// Compares outputs, sample by sample, with references of the same names; outputs without a reference are left out.
/// Where `masks` holds a tensor of an output's leading axes, only the rows at which it is not 0 count.
///
/// # Errors
/// A reference of another shape than its output.
pub fn compare(
    found: &[Sample],
    expected: &[Sample],
    masks: &[Option<Tensor>],
) -> Result<Vec<Agreement>, CalibrationError> {
    let names: BTreeSet<&String> = found.iter().flat_map(|sample| sample.keys()).collect();
    let mut agreements = Vec::new();
    for name in names {
        let mut sum = Sums::default();
        let mut rows_compared = false;
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            let (Some(found), Some(expected)) = (found.get(name), expected.get(name)) else { continue };
            if found.shape() != expected.shape() {
                let (expected, found) = (expected.ty(), found.ty());
                return Err(CalibrationError::Reference { name: name.clone(), expected, found });
            }
            let mask = masks.get(at).and_then(Option::as_ref);
            sum.add(found, expected, mask);
            rows_compared = true;
        }
        if rows_compared {
            agreements.push(sum.agreement(name));
        }
    }
    Ok(agreements)
}

#[derive(Default)]
struct Sums {
    max_error: f64,
    total_error: f64,
    elements: usize,
    max_abs: f64,
    same: usize,
    rows: usize,
}

impl Sums {
    fn add(&mut self, found: &Tensor, expected: &Tensor, mask: Option<&Tensor>) {
        let width = expected.shape().last().copied().unwrap_or(1).max(1);
        let is_ranked = expected.dtype() == DType::F32 && !expected.shape().is_empty() && width > 1;
        let leading = &expected.shape()[..expected.shape().len().saturating_sub(1)];
        let keep = mask.filter(|mask| mask.shape() == leading).map(|mask| mask.cast(DType::Bool));
        let keep = keep.and_then(|mask| mask.to_bool_vec().ok());
        let numbers = |tensor: &Tensor| tensor.cast(DType::F32).to_f32_vec().unwrap_or_default();
        let (found, expected) = (numbers(found), numbers(expected));
        for (row, (found, expected)) in found.chunks(width).zip(expected.chunks(width)).enumerate() {
            if keep.as_ref().is_some_and(|keep| !keep.get(row).copied().unwrap_or(true)) {
                continue;
            }
            for (f, e) in found.iter().zip(expected) {
                let error = f64::from((f - e).abs());
                self.max_error = if error.is_nan() { error } else { self.max_error.max(error) };
                self.total_error += error;
                self.max_abs = self.max_abs.max(f64::from(e.abs()));
            }
            self.elements += expected.len();
            if is_ranked {
                let top = |row: &[f32]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j]));
                self.rows += 1;
                self.same += usize::from(top(found) == top(expected));
            }
        }
    }

    fn agreement(self, output: &str) -> Agreement {
        Agreement {
            output: output.to_owned(),
            max_abs_error: self.max_error,
            mean_abs_error: self.total_error / self.elements.max(1) as f64,
            max_abs: self.max_abs,
            top1_same: self.same,
            top1_rows: self.rows,
        }
    }
}

/// What samples showed of a compiled program.
#[derive(Debug)]
pub struct Calibration {
    /// Use of the rings, and the outputs of the exact ring arithmetic.
    pub check: Check,
    /// The ring's outputs against the graph's in f32.
    pub agreements: Vec<Agreement>,
}

impl Calibration {
    /// Largest error of any output; not a number where one is.
    pub fn max_error(&self) -> f64 {
        let errors = self.agreements.iter().map(|agreement| agreement.max_abs_error);
        errors.fold(0.0, |a: f64, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
    }
}

/// Runs the model as it was in f32 and the program in exact ring arithmetic on every sample.
///
/// # Errors
/// A sample that does not fit, or that the model fails on.
pub fn calibrate(compiled: &Compiled, samples: &[Sample]) -> Result<Calibration, CalibrationError> {
    let mut expected = Vec::with_capacity(samples.len());
    for sample in samples {
        expected.push(ir::interpret(&compiled.reference, sample)?.into_iter().collect::<Sample>());
    }
    let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, samples)?;
    let agreements = compare(&check.outputs, &expected, &attention_masks(samples))?;
    Ok(Calibration { check, agreements })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_suit_what_the_inputs_are_used_for() {
        let graph = ir::parse(
            r#"
            %0 = input "ids" : i64[1,40]
            %1 = input "position_ids" : i64[1,40]
            %2 = input "attention_mask" : i64[1,40]
            %3 = input "x" : f32[1,40,4]
            %4 = input "kinds" : i64[40]
            %5 = constant "words" : f32[9,4] #0000000000000000
            %6 = constant "places" : f32[30,4] #0000000000000000
            %7 = constant "types" : f32[2,4] #0000000000000000
            %8 = gather{axis=0}(%5, %0) : f32[1,40,4]
            %9 = gather{axis=0}(%6, %1) : f32[1,40,4]
            %10 = reshape{shape=[1,40]}(%4) : i64[1,40]
            %11 = gather{axis=0}(%7, %10) : f32[1,40,4]
            %12 = add(%8, %9) : f32[1,40,4]
            %13 = add(%12, %11) : f32[1,40,4]
            %14 = add(%13, %3) : f32[1,40,4]
            output "y" = %14 reveal=client
            "#,
        )
        .unwrap();
        let sample = synthesise(&graph);
        let ints = |name: &str| sample[name].to_i64_vec().unwrap();
        let spread = |name: &str| ints(name).into_iter().collect::<BTreeSet<i64>>();
        assert!(spread("ids").iter().all(|v| (0..9).contains(v)) && spread("ids").len() > 5);
        assert_eq!(ints("position_ids")[..3], [0, 1, 2]);
        assert_eq!(ints("position_ids")[39], 29);
        assert_eq!(spread("attention_mask"), BTreeSet::from([1]));
        assert_eq!(spread("kinds"), BTreeSet::from([0, 1]));
        let x = sample["x"].to_f32_vec().unwrap();
        let mean: f32 = x.iter().sum::<f32>() / x.len() as f32;
        let square: f32 = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.3 && (square - 1.0).abs() < 0.4, "{mean} {square}");
        assert_eq!(sample, synthesise(&graph));
    }

    #[test]
    fn an_input_that_only_masks_keeps_everything() {
        let graph = ir::parse(
            r#"
            %0 = input "scores" : f32[1,1,2,4]
            %1 = input "valid" : i64[1,1,1,4]
            %2 = constant "keep" : bool[1,1,1,1] [true]
            %3 = cast{to=f32}(%1) : f32[1,1,1,4]
            %4 = attention_softmax(%0, %2, %3) : f32[1,1,2,4]
            output "y" = %4 reveal=client
            "#,
        )
        .unwrap();
        assert_eq!(synthesise(&graph)["valid"].to_i64_vec().unwrap(), [1; 4]);
    }

    #[test]
    fn agreement_counts_rows_that_the_mask_keeps() {
        let of = |data: Vec<f32>| Sample::from([("y".to_owned(), Tensor::f32(vec![1, 3, 2], data).unwrap())]);
        let found = of(vec![1.0, 0.0, 0.5, 0.25, 9.0, 0.0]);
        let expected = of(vec![1.5, 0.0, 0.0, 0.25, 0.0, 7.0]);
        let mask = Tensor::i64(vec![1, 3], vec![1, 1, 0]).unwrap();
        let all = compare(std::slice::from_ref(&found), std::slice::from_ref(&expected), &[]).unwrap();
        assert_eq!((all[0].max_abs_error, all[0].top1_same, all[0].top1_rows), (9.0, 1, 3));
        let sample = Sample::from([("attention_mask".to_owned(), mask)]);
        let masks = attention_masks(&[sample, Sample::new()]);
        assert!(masks[1].is_none());
        let kept = compare(&[found], &[expected], &masks).unwrap();
        assert_eq!((kept[0].max_abs_error, kept[0].top1_same, kept[0].top1_rows), (0.5, 1, 2));
        assert_eq!((kept[0].mean_abs_error, kept[0].max_abs), (0.25, 1.5));
        assert!(kept[0].is_poor());
        let nan = Agreement { max_abs_error: f64::NAN, ..kept[0].clone() };
        assert!(nan.is_poor());
    }
}
