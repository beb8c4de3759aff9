//! How well some heads can be one, and with which gains.
//!
//! Merged heads have one softmax, of the sum of their scores, each with a gain. To second order the divergence of a
//! head's weights from merged ones is half the variance, under its weights, of the difference of scores; so the first
//! gains are a weighted least-squares fit of scores. Gauss-Newton steps on what leaves the output projection follow.

use super::samples::{Row, Seen, softmax};

/// Gauss-Newton steps at most.
const STEPS: usize = 6;

/// Gains by which the scores of heads are multiplied before they are added, and the sum of squares of the difference
/// in what leaves the output projection.
#[derive(Clone, Debug)]
struct Fit {
    gains: Vec<f64>,
    error: f64,
}

/// One block's heads, ready to be tried in groups.
pub struct Fitter<'s> {
    seen: &'s Seen,
    /// Covariances of the scores of two heads under the weights of a third.
    covariances: Vec<Vec<f64>>,
    /// How much each head's weights matter: the squared length of what it adds to the output.
    importance: Vec<f64>,
}

impl<'s> Fitter<'s> {
    /// Prepares a block.
    pub fn new(seen: &'s Seen) -> Fitter<'s> {
        let heads = seen.outputs.len();
        let mut covariances = vec![vec![0.0; heads * heads]; heads];
        for row in &seen.rows {
            for (sums, weights) in covariances.iter_mut().zip(&row.weights) {
                add_covariances(sums, weights, &row.scores);
            }
        }
        let importance = (0..heads).map(|head| {
            let projected = Projected::new(seen, &[head]);
            projected.values.iter().flatten().map(|&x| f64::from(x).powi(2)).sum()
        });
        Fitter { seen, covariances, importance: importance.collect() }
    }

    /// The squared error of what leaves the output projection with the better of the gains that fit scores and even
    /// ones: quick enough to try many groups.
    pub fn tries(&self, group: &[usize]) -> f64 {
        let projected = Projected::new(self.seen, group);
        let tried = [self.score_gains(group), even(group.len())];
        let errors = tried.map(|gains| self.error(group, &projected, &gains, None));
        errors[0].min(errors[1])
    }

    /// The best gains near those that fit scores and near even ones.
    pub fn fit(&self, group: &[usize]) -> Vec<f64> {
        let projected = Projected::new(self.seen, group);
        let starts = [self.score_gains(group), even(group.len())];
        let refined =
            starts.map(|gains| self.refine(group, &projected, self.tried(group, &projected, gains)));
        let [a, b] = refined;
        if b.error < a.error { b.gains } else { a.gains }
    }

    fn tried(&self, group: &[usize], projected: &Projected, gains: Vec<f64>) -> Fit {
        let error = self.error(group, projected, &gains, None);
        Fit { gains, error }
    }

    fn score_gains(&self, group: &[usize]) -> Vec<f64> {
        let count = group.len();
        let heads = self.covariances.len();
        let mut normal = Normal::new(count);
        for &head in group {
            let (weight, sums) = (self.importance[head], &self.covariances[head]);
            for (i, &a) in group.iter().enumerate() {
                for (j, &b) in group.iter().enumerate() {
                    normal.matrix[i * count + j] += weight * sums[a * heads + b];
                }
                normal.right[i] += weight * sums[a * heads + head];
            }
        }
        normal.solve(1e-6).unwrap_or_else(|| even(count))
    }

    fn refine(&self, group: &[usize], projected: &Projected, mut best: Fit) -> Fit {
        let mut damping = 1e-3;
        for _ in 0..STEPS {
            let mut normal = Normal::new(group.len());
            self.error(group, projected, &best.gains, Some(&mut normal));
            let Some(step) = normal.solve(damping) else { break };
            let gains = best.gains.iter().zip(&step).map(|(gain, step)| gain - step).collect();
            let next = self.tried(group, projected, gains);
            if next.error < best.error {
                let is_done = next.error > 0.999 * best.error;
                best = next;
                damping *= 0.3;
                if is_done {
                    break;
                }
            } else {
                damping *= 10.0;
            }
        }
        best
    }

    /// The squared error over all rows, and its normal equations if asked for.
    fn error(
        &self,
        group: &[usize],
        projected: &Projected,
        gains: &[f64],
        mut normal: Option<&mut Normal>,
    ) -> f64 {
        let width = projected.columns;
        let span = group.len() * width;
        let mut error = 0.0;
        for row in &self.seen.rows {
            let values = &projected.values[row.sequence];
            let merged = merged_weights(row, group, gains);
            let mut residual = vec![0.0f64; width];
            for (at, &position) in row.positions.iter().enumerate() {
                let all = &values[position * span..(position + 1) * span];
                for (&head, own) in group.iter().zip(all.chunks(width)) {
                    let difference = f64::from(merged[at]) - f64::from(row.weights[head][at]);
                    for (r, v) in residual.iter_mut().zip(own) {
                        *r += difference * f64::from(*v);
                    }
                }
            }
            error += dot(&residual, &residual);
            if let Some(normal) = normal.as_deref_mut() {
                let slopes = slopes(row, group, &merged, values, width);
                for (i, left) in slopes.iter().enumerate() {
                    normal.right[i] += dot(left, &residual);
                    for (j, right) in slopes.iter().enumerate() {
                        normal.matrix[i * group.len() + j] += dot(left, right);
                    }
                }
            }
        }
        error
    }

    /// How alike the heads attend: what their weights have in common, between 0 and 1.
    pub fn similarity(&self, group: &[usize]) -> f64 {
        let (mut sum, mut count) = (0.0, 0usize);
        for row in &self.seen.rows {
            for (at, &a) in group.iter().enumerate() {
                for &b in &group[at + 1..] {
                    let shared =
                        row.weights[a].iter().zip(&row.weights[b]).map(|(x, y)| f64::from(x.min(*y)));
                    sum += shared.sum::<f64>();
                    count += 1;
                }
            }
        }
        if count == 0 { 1.0 } else { sum / count as f64 }
    }

    /// The root of the squared error of all groups together, relative to what leaves the output projection.
    pub fn relative_error(&self, groups: &[(Vec<usize>, Vec<f64>)]) -> f64 {
        let seen = self.seen;
        let (mut error, mut whole) = (0.0, 0.0);
        let heads: Vec<usize> = (0..seen.outputs.len()).collect();
        for row in &seen.rows {
            let mut weights = row.weights.clone();
            for (group, gains) in groups {
                let merged = merged_weights(row, group, gains);
                for &head in group {
                    weights[head].clone_from(&merged);
                }
            }
            let mut difference = vec![0.0f64; seen.columns];
            let mut total = vec![0.0f64; seen.columns];
            for &head in &heads {
                let values = &seen.values[row.sequence][head];
                let (mut new, mut old) = (vec![0.0f32; seen.width], vec![0.0f32; seen.width]);
                for (at, &position) in row.positions.iter().enumerate() {
                    let value = &values[position * seen.width..(position + 1) * seen.width];
                    for (column, v) in value.iter().enumerate() {
                        new[column] += weights[head][at] * v;
                        old[column] += row.weights[head][at] * v;
                    }
                }
                for (column, output) in seen.outputs[head].chunks(seen.columns).enumerate() {
                    let change = f64::from(new[column] - old[column]);
                    let own = f64::from(old[column]);
                    for (k, weight) in output.iter().enumerate() {
                        difference[k] += change * f64::from(*weight);
                        total[k] += own * f64::from(*weight);
                    }
                }
            }
            error += difference.iter().map(|x| x * x).sum::<f64>();
            whole += total.iter().map(|x| x * x).sum::<f64>();
        }
        if whole > 0.0 { (error / whole).sqrt() } else { 0.0 }
    }
}

/// Values of some heads as they leave the output projection, up to a rotation that keeps lengths.
struct Projected {
    columns: usize,
    /// By sequence: `[positions, heads, columns]`.
    values: Vec<Vec<f32>>,
}

impl Projected {
    fn new(seen: &Seen, group: &[usize]) -> Projected {
        let rows: Vec<f32> = group.iter().flat_map(|&head| seen.outputs[head].iter().copied()).collect();
        let (columns, rows) = shortened(rows, group.len() * seen.width, seen.columns);
        let block = seen.width * columns;
        let values = seen.values.iter().map(|heads| {
            let positions = heads.first().map_or(0, |own| own.len() / seen.width.max(1));
            let mut projected = Vec::with_capacity(positions * group.len() * columns);
            for position in 0..positions {
                for (own, &head) in group.iter().enumerate() {
                    let value = &heads[head][position * seen.width..(position + 1) * seen.width];
                    let mut sum = vec![0.0f32; columns];
                    for (v, row) in value.iter().zip(rows[own * block..(own + 1) * block].chunks(columns)) {
                        for (s, w) in sum.iter_mut().zip(row) {
                            *s += v * w;
                        }
                    }
                    projected.extend(sum);
                }
            }
            projected
        });
        Projected { columns, values: values.collect() }
    }
}

/// `data` of `[rows, columns]` with at most as many columns as rows and the same products between rows: a Cholesky
/// factor of those.
fn shortened(data: Vec<f32>, rows: usize, columns: usize) -> (usize, Vec<f32>) {
    if columns <= rows {
        return (columns, data);
    }
    let mut factor = vec![0.0f64; rows * rows];
    let row = |i: usize| &data[i * columns..(i + 1) * columns];
    for i in 0..rows {
        for j in 0..=i {
            let product: f64 = row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let known = dot(&factor[i * rows..i * rows + j], &factor[j * rows..j * rows + j]);
            let left = product - known;
            factor[i * rows + j] = if i == j {
                left.max(0.0).sqrt()
            } else if factor[j * rows + j] > 1e-9 {
                left / factor[j * rows + j]
            } else {
                0.0
            };
        }
    }
    (rows, factor.into_iter().map(|x| x as f32).collect())
}

/// The normal equations of a least-squares fit.
struct Normal {
    matrix: Vec<f64>,
    right: Vec<f64>,
}

impl Normal {
    fn new(count: usize) -> Normal {
        Normal { matrix: vec![0.0; count * count], right: vec![0.0; count] }
    }

    /// The solution, by Gauss-Jordan elimination, with the diagonal raised by a part of it.
    fn solve(mut self, damping: f64) -> Option<Vec<f64>> {
        let count = self.right.len();
        for i in 0..count {
            self.matrix[i * count + i] *= 1.0 + damping;
        }
        for pivot in 0..count {
            let size = |row: &usize| self.matrix[row * count + pivot].abs();
            let best = (pivot..count).max_by(|a, b| size(a).total_cmp(&size(b)))?;
            for column in 0..count {
                self.matrix.swap(pivot * count + column, best * count + column);
            }
            self.right.swap(pivot, best);
            let head = self.matrix[pivot * count + pivot];
            if head.abs() < 1e-12 || !head.is_finite() {
                return None;
            }
            for row in (0..count).filter(|&row| row != pivot) {
                let ratio = self.matrix[row * count + pivot] / head;
                for column in 0..count {
                    self.matrix[row * count + column] -= ratio * self.matrix[pivot * count + column];
                }
                self.right[row] -= ratio * self.right[pivot];
            }
        }
        Some((0..count).map(|i| self.right[i] / self.matrix[i * count + i]).collect())
    }
}

/// Gains without samples: scores are added and scaled for their number of columns.
pub fn even(count: usize) -> Vec<f64> {
    vec![1.0 / (count as f64).sqrt(); count]
}

fn merged_weights(row: &Row, group: &[usize], gains: &[f64]) -> Vec<f32> {
    let logits = (0..row.positions.len()).map(|at| {
        let sum: f64 =
            group.iter().zip(gains).map(|(&head, gain)| gain * f64::from(row.scores[head][at])).sum();
        sum as f32 + row.bias[at]
    });
    softmax(logits.collect())
}

/// How the merged output changes with each gain.
fn slopes(row: &Row, group: &[usize], merged: &[f32], values: &[f32], width: usize) -> Vec<Vec<f64>> {
    let span = group.len() * width;
    let slope = |&head: &usize| {
        let scores = &row.scores[head];
        let mean: f64 = merged.iter().zip(scores).map(|(w, s)| f64::from(w * s)).sum();
        let mut slope = vec![0.0f64; width];
        for (at, &position) in row.positions.iter().enumerate() {
            let change = f64::from(merged[at]) * (f64::from(scores[at]) - mean);
            for own in values[position * span..(position + 1) * span].chunks(width) {
                for (s, v) in slope.iter_mut().zip(own) {
                    *s += change * f64::from(*v);
                }
            }
        }
        slope
    };
    group.iter().map(slope).collect()
}

fn add_covariances(sums: &mut [f64], weights: &[f32], scores: &[Vec<f32>]) {
    let heads = scores.len();
    let centred: Vec<Vec<f64>> = scores
        .iter()
        .map(|own| {
            let mean: f64 = own.iter().zip(weights).map(|(s, w)| f64::from(s * w)).sum();
            own.iter().map(|&s| f64::from(s) - mean).collect()
        })
        .collect();
    for i in 0..heads {
        let weighted: Vec<f64> = centred[i].iter().zip(weights).map(|(c, &w)| c * f64::from(w)).collect();
        for j in i..heads {
            let covariance = dot(&weighted, &centred[j]);
            sums[i * heads + j] += covariance;
            if i != j {
                sums[j * heads + i] += covariance;
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
