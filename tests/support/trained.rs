//! Small models fine-tuned from a trained base, and how well they predict the next token of held-out text.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::slice;

use marill_compiler::precision::headroom;
use marill_compiler::{Compiled, Diagnostic, Request, Weights, compile, ir, npz};
use marill_plaintext::Tensor;
use marill_program::Suite;

/// Models and the bases they are compiled against: files of one folder, without `.onnx`.
pub const TRAINED: [(&str, &str); 5] = [
    ("full", "base"),
    ("frozen", "base"),
    ("lora", "base"),
    ("headmerge", "base"),
    ("marill", "base_paired"),
];

/// Tokens that a model reads at once. It predicts the one after each of them.
pub const TOKENS: usize = 64;

/// Compiles a model of `folder` against its base, else at default settings.
///
/// # Errors
/// As [`compile`].
pub fn compile_trained(folder: &Path, name: &str, base: &str) -> Result<Compiled, Diagnostic> {
    let file = |name: &str| folder.join(format!("{name}.onnx"));
    let weights = Weights { base: Some(file(base)), ..Weights::default() };
    compile(&file(name), &Request { weights, suite: Suite::Dealer, ..Request::default() })
}

/// Up to `count` windows of held-out text, each of [`TOKENS`] tokens and the one after.
///
/// # Errors
/// A file that cannot be read or holds no windows of that length.
pub fn held_out(folder: &Path, count: usize) -> Result<Vec<Vec<i64>>, Box<dyn Error>> {
    let path = folder.join("eval_tokens.npz");
    let arrays = npz::read(&path)?;
    match arrays.get("tokens") {
        Some(tokens) if tokens.shape().last() == Some(&(TOKENS + 1)) => {
            Ok(tokens.to_i64_vec()?.chunks(TOKENS + 1).take(count).map(<[i64]>::to_vec).collect())
        }
        _ => Err(format!("{} has no windows of {} tokens", path.display(), TOKENS + 1).into()),
    }
}

/// What the model is given of a window.
///
/// # Errors
/// A window that is too short.
pub fn input(window: &[i64]) -> Result<BTreeMap<String, Tensor>, Box<dyn Error>> {
    let ids = window.get(..TOKENS).ok_or("the window is too short")?;
    Ok(BTreeMap::from([("input_ids".to_owned(), Tensor::i64([1, TOKENS], ids.to_vec())?)]))
}

/// The most likely token after each of [`TOKENS`] positions.
///
/// # Errors
/// Outputs without logits.
pub fn predictions(outputs: &BTreeMap<String, Tensor>) -> Result<Vec<i64>, Box<dyn Error>> {
    let logits = outputs.get("logits").ok_or("there are no logits")?.to_f32_vec()?;
    let best = |row: &[f32]| (0..row.len()).max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap_or_default();
    Ok(logits.chunks((logits.len() / TOKENS).max(1)).map(|row| best(row) as i64).collect())
}

/// How many tokens were predicted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Tokens to predict.
    pub tokens: usize,
    /// Of these, predicted in f32.
    pub clear: usize,
    /// Of these, predicted in exact ring arithmetic.
    pub ring: usize,
    /// Predictions that are the same, right or wrong.
    pub same: usize,
}

/// Runs the model in f32 and its program in exact ring arithmetic on every window.
///
/// # Errors
/// A model that does not read such windows, or whose values pass the bounds of the program's rings.
pub fn score(compiled: &Compiled, windows: &[Vec<i64>]) -> Result<Score, Box<dyn Error>> {
    let mut score = Score::default();
    for window in windows {
        let sample = input(window)?;
        let clear = predictions(&ir::interpret(&compiled.reference, &sample)?.into_iter().collect())?;
        let samples = slice::from_ref(&sample);
        let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, samples)?;
        if let Some(overflow) = headroom::first_overflow(&check) {
            return Err(Diagnostic::from(overflow).into());
        }
        let ring = predictions(&check.outputs[0])?;
        let equal = |a: &[i64], b: &[i64]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        score.tokens += TOKENS;
        score.clear += equal(&clear, &window[1..]);
        score.ring += equal(&ring, &window[1..]);
        score.same += equal(&clear, &ring);
    }
    Ok(score)
}
