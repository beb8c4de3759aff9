//! Compiles until the samples fit: with wider bounds where their values pass the usual ones, with closer approximations
//! where outputs are further off than wanted.
//!
//! What is chosen is public, since the program tells it, and depends on private weights: hidden bits, of which there are
//! the usual ones and [`HIDDEN_LEVELS`], range bits, and one of two levels of approximation.

use crate::calibrate::{self, Calibration, CalibrationError, Sample};
use crate::precision::headroom::{self, Overflow};
use crate::{Approximate, Compiled, Diagnostic, Model, Numerics, Progress, Request};

/// Hidden bits that may be taken: how many levels there are is what the choice tells.
pub const HIDDEN_LEVELS: [u32; 2] = [10, *Numerics::HIDDEN_BITS.end()];

/// Bits that samples leave to other inputs where they choose.
const MARGIN_BITS: f64 = 0.5;

/// What may be chosen by samples.
#[derive(Clone, Debug)]
pub struct Freedom {
    /// Whether hidden states may have more bits than the request says.
    pub hidden_bits: bool,
    /// Whether all else may.
    pub range_bits: bool,
    /// Levels to try in turn, the cheapest first.
    pub approximate: Vec<Approximate>,
    /// Largest error of an output.
    pub max_error: Option<f64>,
}

/// Why nothing fits.
#[derive(Debug, thiserror::Error)]
pub enum FittingError {
    /// The model cannot be compiled, or a sample's value has no room in any ring that may be chosen.
    #[error(transparent)]
    Compile(#[from] Diagnostic),
    /// The samples cannot be run.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// No level keeps the error that is asked for.
    #[error(
        "the samples' outputs are off by {}, more than --max-error {most:e}: {}",
        errors(tried),
        help(tried)
    )]
    TooFar {
        /// Levels and their errors.
        tried: Vec<(Approximate, f64)>,
        /// What was asked for.
        most: f64,
    },
}

fn errors(tried: &[(Approximate, f64)]) -> String {
    let found: Vec<String> = tried.iter().map(|(level, error)| format!("{error:.2e} with {level}")).collect();
    found.join(", ")
}

fn help(tried: &[(Approximate, f64)]) -> &'static str {
    match tried.iter().any(|(level, _)| *level == Approximate::Exact) {
        true => "more --frac-bits make them finer",
        false => "--approximate exact makes activations exact",
    }
}

/// Compiles `model` so that it fits `samples`, and what they showed.
///
/// # Errors
/// What is wrong with the model, or that no choice fits.
pub fn fit(
    model: &Model,
    request: &Request,
    freedom: &Freedom,
    samples: &[Sample],
    observer: &mut dyn FnMut(Progress<'_>),
) -> Result<(Compiled, Calibration), FittingError> {
    let mut bounds = Bounds { freedom, numerics: request.numerics, tried: None };
    let mut tried = Vec::new();
    for &approximate in &freedom.approximate {
        let (compiled, calibration) = loop {
            let request = Request { approximate, numerics: bounds.numerics, ..request.clone() };
            let compiled = model.compile(&request, observer)?;
            observer(Progress::Checks);
            let overflow = match calibrate::calibrate(&compiled, samples) {
                Ok(calibration) => match headroom::first_overflow(&calibration.check) {
                    None => break (compiled, calibration),
                    Some(overflow) => overflow,
                },
                Err(CalibrationError::Program(error)) => {
                    match headroom::overflow_of(&error, &compiled.program) {
                        Some(overflow) => overflow,
                        None => return Err(CalibrationError::from(error).into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            bounds.widen(overflow)?;
        };
        if freedom.max_error.is_none_or(|most| calibration.max_error() <= most) {
            return Ok((compiled, calibration));
        }
        tried.push((approximate, calibration.max_error()));
    }
    Err(FittingError::TooFar { tried, most: freedom.max_error.unwrap_or_default() })
}

/// The search for bounds.
struct Bounds<'a> {
    freedom: &'a Freedom,
    numerics: Numerics,
    /// The value for which hidden states last got more bits, and how many they had.
    tried: Option<(Overflow, u32)>,
}

impl Bounds<'_> {
    /// Gives room to a value: as a hidden state first, which costs little, and where that did not help, as anything else.
    fn widen(&mut self, overflow: Overflow) -> Result<(), Diagnostic> {
        let bits = (overflow.bits().max(0.0) + MARGIN_BITS).ceil() as u32;
        let (hidden, range) =
            (self.numerics.hidden_bits.max(self.numerics.range_bits), self.numerics.range_bits);
        let is_unmoved = |(last, _): &&(Overflow, u32)| {
            last.group == overflow.group && overflow.allowed < 1.5 * last.allowed
        };
        match self.tried.as_ref().filter(is_unmoved) {
            Some(&(_, before)) => self.numerics.hidden_bits = before,
            None => {
                let [_, most] = HIDDEN_LEVELS;
                let enough = HIDDEN_LEVELS.into_iter().find(|&level| level >= hidden + bits);
                if self.freedom.hidden_bits && hidden < most {
                    self.numerics.hidden_bits = enough.unwrap_or(most);
                    self.tried = Some((overflow, hidden));
                    return Ok(());
                }
            }
        }
        if !self.freedom.range_bits || !Numerics::RANGE_BITS.contains(&(range + bits)) {
            return Err(overflow.into());
        }
        self.numerics.range_bits = range + bits;
        Ok(())
    }
}
