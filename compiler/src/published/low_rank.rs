//! The thin factors of a matrix of low numerical rank: a range finder with exact verification. Halko, Martinsson,
//! Tropp, "Finding structure with randomness" (SIAM Review 2011), algorithm 4.1.

/// `a b` for a matrix of rank `rank`.
#[derive(Clone, Debug)]
pub struct Factors {
    /// `[rows, rank]`, orthonormal columns.
    pub a: Vec<f32>,
    /// `[rank, columns]`.
    pub b: Vec<f32>,
    /// Columns of `a`.
    pub rank: usize,
}

/// Rows and columns of the piece that is tried first: more than [`MAX_RANK`], so that it can tell that a rank is above.
const SAMPLE: usize = 256;
/// Columns of the range finder beyond the rank that the piece shows.
const MARGIN: usize = 8;
/// Above this share of the shorter side, thin factors save nothing.
const MAX_RANK_SHARE: usize = 4;
/// Ranks above this are not looked for.
const MAX_RANK: usize = 192;

/// Factors of the row-major `[rows, columns]` matrix `d` with `|d - a b| <= tolerance |d|` (Frobenius), of the least
/// rank found; `None` if that is above a quarter of the shorter side or above 192, and for a zero matrix or one
/// with elements that are not finite.
pub fn factors(d: &[f32], rows: usize, columns: usize, tolerance: f64) -> Option<Factors> {
    let norm = frobenius(d);
    let max_rank = max_rank(rows, columns);
    if norm == 0.0 || !norm.is_finite() || max_rank == 0 {
        return None;
    }
    let piece: Vec<f32> = sample(rows, columns).into_iter().map(|place| d[place]).collect();
    let mut width = sample_rank(&piece, rows, columns, tolerance)? + MARGIN;
    loop {
        let width_now = width.min(max_rank + MARGIN).min(columns).min(rows);
        let q = range(d, rows, columns, width_now, tolerance * norm);
        let rank = q.len();
        if (1..=max_rank).contains(&rank) {
            let b = projected(d, columns, &q);
            if residual(d, columns, &q, &b) <= tolerance * norm {
                let a = (0..rows).flat_map(|row| q.iter().map(move |column| column[row] as f32)).collect();
                let b = b.into_iter().flatten().map(|v| v as f32).collect();
                return Some(Factors { a, b, rank });
            }
        }
        if width_now < width || rank > max_rank || width_now >= max_rank + MARGIN {
            return None;
        }
        width *= 2;
    }
}

fn frobenius(d: &[f32]) -> f64 {
    d.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

/// The largest rank that is looked for.
fn max_rank(rows: usize, columns: usize) -> usize {
    (rows.min(columns) / MAX_RANK_SHARE).min(MAX_RANK)
}

/// Where in a `[rows, columns]` matrix an evenly spread piece lies, row by row.
pub(super) fn sample(rows: usize, columns: usize) -> Vec<usize> {
    let (m, n) = (rows.min(SAMPLE), columns.min(SAMPLE));
    (0..m * n).map(|at| (at / n * rows / m) * columns + at % n * columns / n).collect()
}

/// The rank of the `piece` at [`sample`], which the whole's is not below; `None` if that exceeds what is looked for.
pub(super) fn sample_rank(piece: &[f32], rows: usize, columns: usize, tolerance: f64) -> Option<usize> {
    let (m, n) = (rows.min(SAMPLE), columns.min(SAMPLE));
    let max_rank = max_rank(rows, columns);
    let column = |j: usize| (0..m).map(|i| f64::from(piece[i * n + j])).collect();
    let mut lines: Vec<Vec<f64>> = (0..n).map(column).collect();
    let total: f64 = lines.iter().flatten().map(|v| v * v).sum();
    let basis = pivoted(&mut lines, total.sqrt() * tolerance, max_rank + 1);
    (basis.len() <= max_rank).then_some(basis.len())
}

/// Orthonormal columns that span the columns of `d`, from its products with `width` random vectors.
fn range(d: &[f32], rows: usize, columns: usize, width: usize, threshold: f64) -> Vec<Vec<f64>> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut sign = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random >> 63 == 0 { 1.0 } else { -1.0 }
    };
    let probes: Vec<f64> = (0..columns * width).map(|_| sign()).collect();
    let mut lines = vec![vec![0.0; rows]; width];
    for (row, values) in d.chunks_exact(columns).enumerate() {
        let mut sums = vec![0.0; width];
        for (&v, probe) in values.iter().zip(probes.chunks_exact(width)) {
            let v = f64::from(v);
            sums.iter_mut().zip(probe).for_each(|(sum, p)| *sum += v * p);
        }
        lines.iter_mut().zip(sums).for_each(|(line, sum)| line[row] = sum);
    }
    // A random vector of signs carries about the whole norm of what is left; half of it is on the safe side.
    pivoted(&mut lines, 0.5 * threshold, width)
}

/// Gram-Schmidt with pivoting: orthonormal vectors that span `lines` up to a rest of norm `threshold`, `limit` at most.
fn pivoted(lines: &mut [Vec<f64>], threshold: f64, limit: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    while basis.len() < limit {
        let norms: Vec<f64> = lines.iter().map(|line| dot(line, line)).collect();
        if norms.iter().sum::<f64>().sqrt() <= threshold {
            break;
        }
        let Some(pivot) = (0..lines.len()).max_by(|&i, &j| norms[i].total_cmp(&norms[j])) else { break };
        let mut next = lines[pivot].clone();
        // Twice is enough (Giraud, Langou, Rozložník 2005).
        for _ in 0..2 {
            for q in &basis {
                let share = dot(q, &next);
                next.iter_mut().zip(q).for_each(|(v, q)| *v -= share * q);
            }
        }
        let norm = dot(&next, &next).sqrt();
        if norm <= f64::MIN_POSITIVE {
            break;
        }
        next.iter_mut().for_each(|v| *v /= norm);
        for line in lines.iter_mut() {
            let share = dot(&next, line);
            line.iter_mut().zip(&next).for_each(|(v, q)| *v -= share * q);
        }
        basis.push(next);
    }
    basis
}

/// `q^T d`.
fn projected(d: &[f32], columns: usize, q: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut b = vec![vec![0.0; columns]; q.len()];
    for (row, values) in d.chunks_exact(columns).enumerate() {
        for (b, q) in b.iter_mut().zip(q) {
            let share = q[row];
            b.iter_mut().zip(values).for_each(|(sum, &v)| *sum += share * f64::from(v));
        }
    }
    b
}

/// `|d - q b|`.
fn residual(d: &[f32], columns: usize, q: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let mut total = 0.0;
    for (row, values) in d.chunks_exact(columns).enumerate() {
        let mut rest: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        for (q, b) in q.iter().zip(b) {
            rest.iter_mut().zip(b).for_each(|(v, b)| *v -= q[row] * b);
        }
        total += rest.iter().map(|v| v * v).sum::<f64>();
    }
    total.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((state >> 40) as f32 / (1u64 << 24) as f32) - 0.5
        }
    }

    fn product(rows: usize, rank: usize, columns: usize, seed: u64) -> Vec<f32> {
        let mut next = noise(seed);
        let a: Vec<f32> = (0..rows * rank).map(|_| next()).collect();
        let b: Vec<f32> = (0..rank * columns).map(|_| next()).collect();
        let cell = |i: usize, j: usize| (0..rank).map(|k| a[i * rank + k] * b[k * columns + j]).sum();
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| cell(i, j)).collect()
    }

    #[test]
    fn finds_the_rank_of_merged_adapters() {
        for (rows, rank, columns) in [(64, 4, 192), (300, 8, 70), (400, 1, 400), (65, 16, 64)] {
            let mut next = noise(7);
            let weight: Vec<f32> = (0..rows * columns).map(|_| next()).collect();
            let change = product(rows, rank, columns, 3);
            // Merging rounds the sum to f32.
            let merged: Vec<f32> = weight.iter().zip(&change).map(|(w, d)| w + 0.1 * d).collect();
            let d: Vec<f32> = merged.iter().zip(&weight).map(|(m, w)| m - w).collect();
            let found = factors(&d, rows, columns, 1e-4).unwrap();
            assert_eq!(found.rank, rank, "{rows} x {columns}");
            let cell = |i: usize, j: usize| -> f32 {
                (0..rank).map(|k| found.a[i * rank + k] * found.b[k * columns + j]).sum()
            };
            let worst = (0..rows * columns).map(|p| (cell(p / columns, p % columns) - d[p]).abs());
            assert!(worst.fold(0.0, f32::max) < 1e-5);
        }
    }

    #[test]
    fn full_rank_zero_and_not_finite_have_no_thin_factors() {
        let mut next = noise(5);
        let full: Vec<f32> = (0..256 * 256).map(|_| next()).collect();
        assert!(factors(&full, 256, 256, 1e-4).is_none());
        assert!(factors(&[0.0; 64], 8, 8, 1e-4).is_none());
        assert!(factors(&[f32::NAN; 64], 8, 8, 1e-4).is_none());
        // Low rank but for one row that the sampled piece does not see.
        let mut spoilt = product(400, 2, 400, 9);
        let mut next = noise(11);
        spoilt[..400].iter_mut().for_each(|v| *v = next());
        assert_eq!(factors(&spoilt, 400, 400, 1e-4).map(|f| f.rank), Some(3));
    }
}
