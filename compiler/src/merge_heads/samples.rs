//! What attention does on samples: the scores, weights and values of every head.

use std::collections::BTreeMap;

use marill_plaintext::{DType, Tensor};

use super::block::Block;
use super::index::Index;
use crate::calibrate::{CalibrationError, Sample};
use crate::ir;

/// Most rows of queries that a block is looked at with.
const MAX_ROWS: usize = 256;
/// A sum of scores and mask at and below which a position is masked.
const MASKED: f32 = -1e4;

/// A query and the positions that it may attend to.
#[derive(Clone, Debug)]
pub struct Row {
    /// Positions that are not masked.
    pub positions: Vec<usize>,
    /// Scores by head and position.
    pub scores: Vec<Vec<f32>>,
    /// What is added to the scores, by position.
    pub bias: Vec<f32>,
    /// Weights by head and position.
    pub weights: Vec<Vec<f32>>,
    /// Which of the sequences it is of.
    pub sequence: usize,
}

/// One block on all samples.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Queries, some of them if there are very many.
    pub rows: Vec<Row>,
    /// Values by sequence and head: `[positions, width]`.
    pub values: Vec<Vec<Vec<f32>>>,
    /// Columns of a value head.
    pub width: usize,
    /// Rows of the output projection by head: `[width, columns]`.
    pub outputs: Vec<Vec<f32>>,
    /// Columns of the output projection.
    pub columns: usize,
}

/// Runs the model on the samples; its outputs on each, and what each block does.
///
/// # Errors
/// If the model fails on a sample.
pub fn observe(
    index: &Index,
    blocks: &[Block],
    samples: &[Sample],
) -> Result<(Vec<Sample>, Vec<Seen>), CalibrationError> {
    let outline = index.outline;
    let mut seen: Vec<Seen> = blocks.iter().map(|block| begin(index, block)).collect();
    let mut outputs = Vec::with_capacity(samples.len());
    let rows_each = (MAX_ROWS / samples.len().max(1)).max(1);
    let wanted: BTreeMap<ir::ValueId, ()> = blocks
        .iter()
        .flat_map(|block| [&block.scores, &block.logits, &block.values])
        .filter_map(|name| Some((*outline.values.get(name)?, ())))
        .collect();
    for sample in samples {
        let mut tensors: BTreeMap<ir::ValueId, Tensor> = BTreeMap::new();
        let found = ir::interpret_with(&outline.graph, sample, &mut |id, tensor| {
            if wanted.contains_key(&id) {
                tensors.insert(id, tensor.clone());
            }
        })?;
        outputs.push(found.into_iter().collect());
        for (block, seen) in blocks.iter().zip(&mut seen) {
            let tensor = |name: &String| {
                let tensor = tensors.get(outline.values.get(name)?)?;
                Some((tensor.shape().to_vec(), tensor.cast(DType::F32).to_f32_vec().ok()?))
            };
            if let (Some(scores), Some(logits), Some(values)) =
                (tensor(&block.scores), tensor(&block.logits), tensor(&block.values))
            {
                add(seen, block, &scores, &logits, &values, rows_each);
            }
        }
    }
    Ok((outputs, seen))
}

fn begin(index: &Index, block: &Block) -> Seen {
    let mut seen = Seen { width: block.value_width, ..Seen::default() };
    // Low-rank adapters add smaller products to the main one.
    let elements = |name: &str| index.shape(name).iter().product::<usize>();
    let Some(site) = block.sites[3].iter().max_by_key(|site| elements(&site.weight)) else { return seen };
    let weight = index.outline.initializers.get(&site.weight).and_then(|w| w.constant.load().ok());
    let Some(data) = weight.and_then(|w| w.to_f32_vec().ok()) else { return seen };
    let shape = index.shape(&site.weight);
    seen.columns = shape[1 - site.axis];
    let at = |row: usize, column: usize| match site.axis {
        0 => data[row * shape[1] + column],
        _ => data[column * shape[1] + row],
    };
    let head = |head: usize| {
        let rows = head * block.value_width..(head + 1) * block.value_width;
        rows.flat_map(|row| (0..seen.columns).map(move |column| (row, column)))
            .map(|(r, c)| at(r, c))
            .collect()
    };
    seen.outputs = (0..block.heads).map(head).collect();
    seen
}

type Shaped = (Vec<usize>, Vec<f32>);

fn add(seen: &mut Seen, block: &Block, scores: &Shaped, logits: &Shaped, values: &Shaped, rows_each: usize) {
    let (heads, width) = (block.heads, block.value_width);
    let ([.., queries, positions], [.., value_positions, value_width]) =
        (scores.0.as_slice(), values.0.as_slice())
    else {
        return;
    };
    let (queries, positions) = (*queries, *positions);
    let matrix = queries * positions;
    let is_usual = seen.columns > 0
        && *value_positions == positions
        && *value_width == width
        && scores.1.len() == logits.1.len()
        && matrix > 0
        && scores.1.len().is_multiple_of(matrix * heads)
        && values.1.len() * queries == scores.1.len() * width;
    if !is_usual {
        return;
    }
    let sequences = scores.1.len() / (matrix * heads);
    let stride = (sequences * queries).div_ceil(rows_each).max(1);
    for sequence in 0..sequences {
        let head_values = |head: usize| {
            let from = (sequence * heads + head) * positions * width;
            values.1[from..from + positions * width].to_vec()
        };
        for query in 0..queries {
            if !(sequence * queries + query).is_multiple_of(stride) {
                continue;
            }
            let start = |head: usize| ((sequence * heads + head) * queries + query) * positions;
            let kept: Vec<usize> = (0..positions).filter(|p| logits.1[start(0) + p] > MASKED).collect();
            if kept.is_empty() {
                continue;
            }
            let late = block.late_scale as f32;
            let of = |data: &[f32], head: usize| -> Vec<f32> {
                kept.iter().map(|p| data[start(head) + p]).collect()
            };
            let own: Vec<Vec<f32>> =
                (0..heads).map(|head| of(&scores.1, head).iter().map(|x| x * late).collect()).collect();
            let bias = of(&logits.1, 0).iter().zip(&own[0]).map(|(logit, score)| logit - score).collect();
            let weights = (0..heads).map(|head| softmax(of(&logits.1, head))).collect();
            let sequence = seen.values.len();
            seen.rows.push(Row { positions: kept, scores: own, bias, weights, sequence });
        }
        seen.values.push((0..heads).map(head_values).collect());
    }
}

/// Softmax of all elements.
pub fn softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for logit in &mut logits {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|weight| *weight /= sum);
    logits
}
