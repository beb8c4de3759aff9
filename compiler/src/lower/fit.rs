//! Approximations: trigonometric series by least squares, polynomial pieces by Chebyshev interpolation.

/// A trigonometric series of one parity: `sum_k c[k] cos(2 pi k x / period)` for k = 0, 1, ..., or sines from k = 1.
#[derive(Clone, Debug)]
pub struct Series {
    pub coefficients: Vec<f64>,
    /// Largest error on the window.
    pub error: f64,
    /// Largest magnitude anywhere.
    pub peak: f64,
}

/// Parity of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    Even,
    Odd,
}

/// Fits `f` of the given parity on [-window, window] with `terms` harmonics of `period`, nearly minimax: iteratively
/// reweighted least squares (Lawson). Outside the window the series does what it likes.
pub fn series(f: impl Fn(f64) -> f64, parity: Parity, window: f64, period: f64, terms: usize) -> Series {
    const SAMPLES: usize = 600;
    const SWEEPS: usize = 40;
    let first = if parity == Parity::Even { 0 } else { 1 };
    let harmonics: Vec<f64> = (first..=terms).map(|k| std::f64::consts::TAU * k as f64 / period).collect();
    let basis = |x: f64| -> Vec<f64> {
        let wave = |h: &f64| if parity == Parity::Even { (h * x).cos() } else { (h * x).sin() };
        harmonics.iter().map(wave).collect()
    };
    let points: Vec<f64> = (0..=SAMPLES).map(|i| window * i as f64 / SAMPLES as f64).collect();
    let rows: Vec<Vec<f64>> = points.iter().map(|&x| basis(x)).collect();
    let targets: Vec<f64> = points.iter().map(|&x| f(x)).collect();
    let mut weights = vec![1.0; points.len()];
    let mut best = Series { coefficients: vec![0.0; harmonics.len()], error: f64::INFINITY, peak: 0.0 };
    for _ in 0..SWEEPS {
        let coefficients = least_squares(&rows, &targets, &weights);
        let residual = |(row, t): (&Vec<f64>, &f64)| (dot(row, &coefficients) - t).abs();
        let errors: Vec<f64> = rows.iter().zip(&targets).map(residual).collect();
        let error = errors.iter().copied().fold(0.0, f64::max);
        if error < best.error {
            best = Series { coefficients, error, peak: 0.0 };
        }
        for (w, e) in weights.iter_mut().zip(&errors) {
            *w *= (1.0 + e / error.max(f64::MIN_POSITIVE)).sqrt();
        }
        let largest = weights.iter().copied().fold(0.0, f64::max);
        weights.iter_mut().for_each(|w| *w /= largest);
    }
    let everywhere = (0..=4 * SAMPLES).map(|i| period * (i as f64 / (4 * SAMPLES) as f64 - 0.5));
    best.peak = everywhere.map(|x| dot(&basis(x), &best.coefficients).abs()).fold(0.0, f64::max);
    best
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Weighted least squares by Householder reflections, with a trace of regularisation against the near-dependence of
/// the columns.
fn least_squares(rows: &[Vec<f64>], targets: &[f64], weights: &[f64]) -> Vec<f64> {
    const RIDGE: f64 = 1e-9;
    let n = rows[0].len();
    let mut a: Vec<Vec<f64>> =
        rows.iter().zip(weights).map(|(r, w)| r.iter().map(|v| v * w).collect()).collect();
    let mut b: Vec<f64> = targets.iter().zip(weights).map(|(t, w)| t * w).collect();
    for i in 0..n {
        let mut row = vec![0.0; n];
        row[i] = RIDGE;
        a.push(row);
        b.push(0.0);
    }
    for column in 0..n {
        let norm = a[column..].iter().map(|r| r[column] * r[column]).sum::<f64>().sqrt();
        if norm == 0.0 {
            continue;
        }
        let alpha = if a[column][column] > 0.0 { -norm } else { norm };
        let mut v: Vec<f64> = a[column..].iter().map(|r| r[column]).collect();
        v[0] -= alpha;
        let square = dot(&v, &v);
        if square == 0.0 {
            continue;
        }
        for j in column..n {
            let projection = 2.0 * v.iter().zip(&a[column..]).map(|(x, r)| x * r[j]).sum::<f64>() / square;
            for (x, r) in v.iter().zip(&mut a[column..]) {
                r[j] -= projection * x;
            }
        }
        let projection = 2.0 * dot(&v, &b[column..]) / square;
        for (x, t) in v.iter().zip(&mut b[column..]) {
            *t -= projection * x;
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| a[i][j] * solution[j]).sum();
        solution[i] = if a[i][i] == 0.0 { 0.0 } else { (b[i] - known) / a[i][i] };
    }
    solution
}

/// Coefficients of the cubic in `d` that interpolates `f(start + d * width)` at four Chebyshev points of (-1, 1).
pub fn cubic(f: impl Fn(f64) -> f64, start: f64, width: f64) -> [f64; 4] {
    // Chebyshev coefficients from four nodes, then to powers of d.
    let node = |i: usize| (std::f64::consts::PI * (2 * i + 1) as f64 / 8.0).cos();
    let values: Vec<f64> = (0..4).map(|i| f(start + node(i) * width)).collect();
    let coefficient = |k: usize| -> f64 {
        let wave = |i: usize| (std::f64::consts::PI * (k * (2 * i + 1)) as f64 / 8.0).cos();
        (0..4).map(|i| values[i] * wave(i)).sum::<f64>() / if k == 0 { 4.0 } else { 2.0 }
    };
    let c: Vec<f64> = (0..4).map(coefficient).collect();
    [c[0] - c[2], c[1] - 3.0 * c[3], 2.0 * c[2], 4.0 * c[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_reproduces_cubics() {
        let f = |x: f64| 1.0 + 2.0 * x - 3.0 * x * x + 0.5 * x * x * x;
        let c = cubic(f, 0.7, 0.25);
        for d in [-1.0, -0.3, 0.0, 0.9] {
            let value = c[0] + d * (c[1] + d * (c[2] + d * c[3]));
            assert!((value - f(0.7 + 0.25 * d)).abs() < 1e-12);
        }
    }

    #[test]
    fn series_reach_the_published_errors() {
        let gelu_even = |x: f64| 0.5 * x * marill_plaintext::evaluate::erf(x / std::f64::consts::SQRT_2);
        let fit = series(gelu_even, Parity::Even, 4.25, 16.0, 8);
        assert!(fit.error < 2e-5 && fit.peak < 8.0, "{} {}", fit.error, fit.peak);
        let fit = series(|x: f64| x.tanh(), Parity::Odd, 5.25, 16.0, 14);
        assert!(fit.error < 1e-4, "{}", fit.error);
    }
}
