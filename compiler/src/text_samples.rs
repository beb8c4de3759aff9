//! Samples made of a text: its tokens, by a `tokenizer.json` of Hugging Face's tokenizers.
//!
//! A model that takes an attention mask gets lines, each padded or cut to the model's length; others get pieces of the
//! whole text, of full length.

use std::fs;
use std::path::{Path, PathBuf};

use marill_plaintext::{DType, Tensor, TensorType};
use tokenizers::{Encoding, Tokenizer};

use crate::calibrate::Sample;

/// So many samples are made at most, of places all over the text.
pub const MAX_SAMPLES: usize = 8;

/// Tokens that a vocabulary has for padding, the first that there is.
const PADDING: [&str; 5] = ["[PAD]", "<pad>", "<|endoftext|>", "</s>", "<unk>"];

/// Why a text gives no samples.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The text cannot be read.
    #[error("cannot read the text: {0}")]
    Text(std::io::Error),
    /// The tokenizer cannot be read.
    #[error(
        "{} is not a tokenizer: {reason}; a text needs the model's tokenizer.json, beside the model or by --tokenizer",
        path.display()
    )]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The text cannot be split into tokens.
    #[error("the tokenizer fails on the text: {0}")]
    Encode(String),
    /// The text is shorter than one sample.
    #[error("the text has {found} tokens, the model takes {needed} at once")]
    Short {
        /// Tokens.
        found: usize,
        /// Tokens of a sample.
        needed: usize,
    },
    /// The text has fewer lines than a batch.
    #[error("the text has {found} lines that are not empty, the model takes {needed} at once")]
    Lines {
        /// Lines.
        found: usize,
        /// Lines of a sample.
        needed: usize,
    },
    /// A model without an input for tokens.
    #[error("the model has no input for tokens: give samples as npz files")]
    NoTokens,
    /// An input that a text does not give.
    #[error("input \"{name}\" of type {ty} is not made of text: give samples as npz files")]
    NotText {
        /// The input.
        name: String,
        /// Its type.
        ty: TensorType,
    },
}

/// What an input holds of a text.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Tokens,
    Mask,
    Segments,
    Positions,
}

impl Part {
    fn of(name: &str) -> Part {
        match name {
            _ if name.contains("attention_mask") => Part::Mask,
            _ if name.contains("token_type") => Part::Segments,
            _ if name.contains("position") => Part::Positions,
            _ => Part::Tokens,
        }
    }
}

/// At most [`MAX_SAMPLES`] samples for `inputs` of the text at `path`.
///
/// # Errors
/// Files that cannot be read, a text without enough tokens, an input that is none of tokens, their mask, segments and
/// positions.
pub fn read_text(
    path: &Path,
    tokenizer: &Path,
    inputs: &[(String, TensorType)],
) -> Result<Vec<Sample>, TextError> {
    let text = fs::read_to_string(path).map_err(TextError::Text)?;
    let tokenizer = read_tokenizer(tokenizer)?;
    let length = length(inputs)?;
    let is_masked = inputs.iter().any(|(name, _)| Part::of(name) == Part::Mask);
    let batch = inputs.iter().map(|(_, ty)| ty.len() / length.max(1)).max().unwrap_or(1).max(1);
    let rows = match is_masked {
        true => lines(&text, &tokenizer, length, batch)?,
        false => pieces(&text, &tokenizer, length, batch)?,
    };
    let starts = spread(rows.len() / batch);
    Ok(starts.map(|at| sample(inputs, &rows[at * batch..(at + 1) * batch])).collect())
}

/// The tokenizer, without the padding and the length that its file may ask for.
fn read_tokenizer(path: &Path) -> Result<Tokenizer, TextError> {
    let failed =
        |reason: tokenizers::Error| TextError::Tokenizer { path: path.into(), reason: reason.to_string() };
    let mut tokenizer = Tokenizer::from_file(path).map_err(failed)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(failed)?;
    Ok(tokenizer)
}

/// Tokens of one sequence: the last axis of every input.
fn length(inputs: &[(String, TensorType)]) -> Result<usize, TextError> {
    let mut lengths = inputs.iter().map(|(name, ty)| {
        let is_text = matches!(ty.dtype, DType::I64 | DType::Bool) || Part::of(name) == Part::Mask;
        let length = ty.shape.last().copied().filter(|_| is_text && ty.shape.len() <= 2);
        length.ok_or_else(|| TextError::NotText { name: name.clone(), ty: ty.clone() })
    });
    let first = lengths.next().unwrap_or(Ok(0))?;
    for ((name, ty), length) in inputs.iter().skip(1).zip(lengths) {
        if length? != first {
            return Err(TextError::NotText { name: name.clone(), ty: ty.clone() });
        }
    }
    let tokens: Vec<&(String, TensorType)> =
        inputs.iter().filter(|(name, _)| Part::of(name) == Part::Tokens).collect();
    match tokens[..] {
        [_] => Ok(first),
        [_, (name, ty), ..] => Err(TextError::NotText { name: name.clone(), ty: ty.clone() }),
        [] => Err(TextError::NoTokens),
    }
}

/// One sequence.
struct Row {
    tokens: Vec<i64>,
    segments: Vec<i64>,
    mask: Vec<i64>,
}

impl Row {
    fn new(encoding: &Encoding, from: usize, length: usize, padding: i64) -> Row {
        let take = |values: &[u32], fill: i64| {
            let known = values.iter().skip(from).take(length).map(|&v| i64::from(v));
            known.chain(std::iter::repeat(fill)).take(length).collect()
        };
        Row {
            tokens: take(encoding.get_ids(), padding),
            segments: take(encoding.get_type_ids(), 0),
            mask: take(encoding.get_attention_mask(), 0),
        }
    }
}

fn lines(text: &str, tokenizer: &Tokenizer, length: usize, batch: usize) -> Result<Vec<Row>, TextError> {
    let padding = PADDING.iter().find_map(|token| tokenizer.token_to_id(token)).unwrap_or(0);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let rows = lines.map(|line| {
        let encoding = tokenizer.encode(line, true).map_err(|error| TextError::Encode(error.to_string()))?;
        Ok(Row::new(&encoding, 0, length, padding.into()))
    });
    let rows = rows.collect::<Result<Vec<Row>, TextError>>()?;
    if rows.len() < batch {
        return Err(TextError::Lines { found: rows.len(), needed: batch });
    }
    Ok(rows)
}

fn pieces(text: &str, tokenizer: &Tokenizer, length: usize, batch: usize) -> Result<Vec<Row>, TextError> {
    let encoding = tokenizer.encode(text, true).map_err(|error| TextError::Encode(error.to_string()))?;
    let found = encoding.get_ids().len();
    let needed = length.saturating_mul(batch);
    if length == 0 || found < needed {
        return Err(TextError::Short { found, needed });
    }
    Ok((0..found / length).map(|piece| Row::new(&encoding, piece * length, length, 0)).collect())
}

/// At most [`MAX_SAMPLES`] of `count` places, evenly.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(MAX_SAMPLES);
    (0..taken).map(move |i| i * count / taken)
}

fn sample(inputs: &[(String, TensorType)], rows: &[Row]) -> Sample {
    let one = |(name, ty): &(String, TensorType)| {
        let positions: Vec<i64> = (0..ty.shape.last().copied().unwrap_or(0) as i64).collect();
        let part = |row: &Row| match Part::of(name) {
            Part::Tokens => row.tokens.clone(),
            Part::Mask => row.mask.clone(),
            Part::Segments => row.segments.clone(),
            Part::Positions => positions.clone(),
        };
        // Positions may have one row for the whole batch.
        let count = ty.len() / positions.len().max(1);
        let data: Vec<i64> = rows.iter().take(count).flat_map(part).collect();
        Tensor::i64(ty.shape.clone(), data).ok().map(|tensor| (name.clone(), tensor.cast(ty.dtype)))
    };
    inputs.iter().filter_map(one).collect()
}
