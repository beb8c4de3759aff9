//! How far outputs are from a reference.

use std::collections::BTreeMap;

use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use serde::{Deserialize, Serialize};

/// Distance of all compared outputs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Largest absolute difference of two elements; not a number if one is none.
    pub max_abs_error: f64,
    /// Mean absolute difference.
    pub mean_abs_error: f64,
    /// Share of rows along the last axis whose largest element is at the same place, of rows with at least two.
    pub top1_agreement: Option<f64>,
    /// How many rows were left out because `attention_mask` is 0 there.
    pub masked_rows: u64,
    /// The outputs that were compared.
    pub compared: Vec<String>,
}

/// A reference that does not fit the outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// No array has an output's name.
    #[error("the reference has no array for the outputs {}, it has {}", .outputs.join(", "), .found.join(", "))]
    NoOutput {
        /// The outputs' names.
        outputs: Vec<String>,
        /// The reference's names.
        found: Vec<String>,
    },
    /// Two shapes differ.
    #[error("output {name} has shape {output:?}, the reference {reference:?}")]
    Shape {
        /// The output's name.
        name: String,
        /// Its shape.
        output: Vec<usize>,
        /// The shape in the reference.
        reference: Vec<usize>,
    },
}

/// Whether [`compare`] will find what it needs, before a run.
///
/// # Errors
/// No output of the program is in the reference, or one has another shape there.
pub fn check_reference(program: &ValidProgram, reference: &BTreeMap<String, Tensor>) -> Result<(), Mismatch> {
    let outputs = &program.program().outputs;
    let mut comparable = false;
    for output in outputs {
        let Some(tensor) = reference.get(&output.name) else { continue };
        comparable = true;
        let shape = &program.ty(output.value).shape;
        if shape != tensor.shape() {
            let (name, reference) = (output.name.clone(), tensor.shape().to_vec());
            return Err(Mismatch::Shape { name, output: shape.clone(), reference });
        }
    }
    if comparable {
        return Ok(());
    }
    let outputs = outputs.iter().map(|output| output.name.clone()).collect();
    Err(Mismatch::NoOutput { outputs, found: reference.keys().cloned().collect() })
}

/// Compares the outputs that the reference has. Rows run along the last axis; where an output's other axes are those of
/// `mask`, rows at which it is 0 (padding) count for nothing.
///
/// # Errors
/// No output is in the reference, or one has another shape there.
pub fn compare(
    outputs: &BTreeMap<String, Tensor>,
    reference: &BTreeMap<String, Tensor>,
    mask: Option<&Tensor>,
) -> Result<Accuracy, Mismatch> {
    let mut compared = Vec::new();
    let (mut max, mut sum, mut elements) = (0.0f64, 0.0, 0u64);
    let (mut rows, mut agreeing, mut masked_rows) = (0u64, 0u64, 0u64);
    for (name, output) in outputs {
        let Some(expected) = reference.get(name) else { continue };
        if output.shape() != expected.shape() {
            let (output, reference) = (output.shape().to_vec(), expected.shape().to_vec());
            return Err(Mismatch::Shape { name: name.clone(), output, reference });
        }
        compared.push(name.clone());
        let (&width, outer) = output.shape().split_last().unwrap_or((&1, &[]));
        let kept = mask.filter(|mask| !mask.is_empty() && mask.shape() == outer).map(numbers);
        let (found, expected) = (numbers(output), numbers(expected));
        let pairs = found.chunks(width.max(1)).zip(expected.chunks(width.max(1)));
        for (row, (found, expected)) in pairs.enumerate() {
            if kept.as_ref().is_some_and(|kept| kept[row] == 0.0) {
                masked_rows += 1;
                continue;
            }
            for (found, expected) in found.iter().zip(expected) {
                let error = if found == expected { 0.0 } else { (found - expected).abs() };
                max = if error.is_nan() { error } else { max.max(error) };
                sum += error;
            }
            elements += found.len() as u64;
            if width > 1 {
                rows += 1;
                agreeing += u64::from(argmax(found) == argmax(expected));
            }
        }
    }
    if compared.is_empty() {
        let (outputs, found) = (outputs.keys().cloned().collect(), reference.keys().cloned().collect());
        return Err(Mismatch::NoOutput { outputs, found });
    }
    Ok(Accuracy {
        max_abs_error: if sum.is_nan() { f64::NAN } else { max },
        mean_abs_error: if elements == 0 { 0.0 } else { sum / elements as f64 },
        top1_agreement: (rows > 0).then(|| agreeing as f64 / rows as f64),
        masked_rows,
        compared,
    })
}

/// Elements in row-major order.
pub(super) fn numbers(tensor: &Tensor) -> Vec<f64> {
    match tensor {
        Tensor::F32(array) => array.iter().map(|v| f64::from(*v)).collect(),
        Tensor::I64(array) => array.iter().map(|v| *v as f64).collect(),
        Tensor::Bool(array) => array.iter().map(|v| f64::from(u8::from(*v))).collect(),
    }
}

/// The first place of the largest element.
pub(super) fn argmax(row: &[f64]) -> Option<usize> {
    (0..row.len()).reduce(|best, at| if row[at] > row[best] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, shape: &[usize], data: &[f32]) -> BTreeMap<String, Tensor> {
        BTreeMap::from([(name.to_owned(), Tensor::f32(shape, data.to_vec()).unwrap())])
    }

    #[test]
    fn rows_that_the_mask_leaves_count() {
        let found = named("y", &[1, 3, 2], &[1.0, 2.0, 5.0, 4.0, 100.0, 0.0]);
        let expected = named("y", &[1, 3, 2], &[1.5, 2.0, 4.0, 4.5, 0.0, 100.0]);
        let all = compare(&found, &expected, None).unwrap();
        assert_eq!(all.max_abs_error, 100.0);
        assert_eq!(all.top1_agreement, Some(1.0 / 3.0));
        let mask = Tensor::i64([1, 3], vec![1, 1, 0]).unwrap();
        let kept = compare(&found, &expected, Some(&mask)).unwrap();
        assert_eq!((kept.max_abs_error, kept.mean_abs_error), (1.0, 0.5));
        assert_eq!((kept.top1_agreement, kept.masked_rows), (Some(0.5), 1));
        // A mask of another shape says nothing about these rows.
        let other = Tensor::i64([3], vec![0, 0, 0]).unwrap();
        assert_eq!(compare(&found, &expected, Some(&other)).unwrap(), all);
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let (found, expected) = (named("y", &[2], &[1.0, f32::NAN]), named("y", &[2], &[1.0, 1.0]));
        assert!(compare(&found, &expected, None).unwrap().max_abs_error.is_nan());
        let error = compare(&found, &named("z", &[2], &[0.0; 2]), None).unwrap_err();
        assert_eq!(error.to_string(), "the reference has no array for the outputs y, it has z");
        let error = compare(&found, &named("y", &[1, 2], &[0.0; 2]), None).unwrap_err();
        assert_eq!(error.to_string(), "output y has shape [2], the reference [1, 2]");
        let scalar = named("y", &[], &[1.0]);
        assert_eq!(compare(&scalar, &scalar, None).unwrap().top1_agreement, None);
    }
}
