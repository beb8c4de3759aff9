//! Functions of masked values: tables, series, comparisons.

use super::{Checker, MAX_DIGITS, MAX_STEP_BITS};
use crate::error::ProgramError;
use crate::schema::{self, Basis};
use crate::value::Form;

impl Checker {
    pub(super) fn piece_bits(&self, low: u32, index: u32, width: u32) -> Result<(), ProgramError> {
        if !(1..=14).contains(&index) {
            return Err(self.bounds("index bits", index.into(), "1 to 14"));
        }
        if low > 62 || low + index > width {
            return Err(self.bounds(
                "low bits",
                low.into(),
                "with the index bits at most the operand's width",
            ));
        }
        Ok(())
    }

    pub(super) fn lines(&self, l: &schema::Lines) -> Result<(Form, Vec<usize>), ProgramError> {
        let ((width, _), shape) = self.masked(l.arg)?;
        self.piece_bits(l.low_bits, l.index_bits, width)?;
        if l.step_bits > l.low_bits.min(MAX_STEP_BITS) {
            return Err(self.bounds("step bits", l.step_bits.into(), "0 to 8 and to the low bits"));
        }
        for (what, count) in [("slopes", l.slopes.len()), ("intercepts", l.intercepts.len())] {
            if count != 1 << (l.step_bits + l.index_bits) {
                return Err(self.bounds(what, count as i64, "one for every version of every piece"));
            }
        }
        let bits = [l.slope_bits, l.value_bits];
        if bits.iter().any(|bits| !(1..64).contains(bits)) || bits.iter().sum::<u32>() > 64 {
            return Err(self.bounds("slope bits", l.slope_bits.into(), "with the value bits 2 to 64"));
        }
        if l.shift > 62 || l.value_bits + l.shift > 64 {
            return Err(self.bounds("shift", l.shift.into(), "with the value bits at most 64"));
        }
        if let Some(slope) = l.slopes.iter().find(|slope| **slope >> l.slope_bits != 0) {
            return Err(self.bounds("slope", *slope as i64, "at most the slope bits"));
        }
        Ok((Form::Boolean { width: l.slope_bits + l.value_bits }, shape))
    }

    pub(super) fn entry_fracs(&self, entry: u32, power: u32) -> Result<u32, ProgramError> {
        if entry.max(power) > 40 {
            return Err(self.bounds("fraction bits", entry.max(power).into(), "at most 40"));
        }
        self.frac(entry + power)
    }

    pub(super) fn finite(&self, values: &[f64]) -> Result<(), ProgramError> {
        match values.iter().find(|v| !v.is_finite() || v.abs() > 1e12) {
            Some(&v) => Err(self.bounds("coefficient", v as i64, "finite and at most 1e12")),
            None => Ok(()),
        }
    }

    pub(super) fn table(&self, t: &schema::Table) -> Result<(Form, Vec<usize>), ProgramError> {
        let ((width, _), shape) = self.masked(t.arg)?;
        self.piece_bits(t.low_bits, t.index_bits, width)?;
        let basis: Basis = self.enumeration("basis", t.basis)?;
        let degree = if basis == Basis::Exponential { 0 } else { t.degree };
        if degree != t.degree || degree > 3 {
            return Err(self.bounds("degree", t.degree.into(), "0 to 3, and 0 with the exponential basis"));
        }
        if t.exponent_log2 > 4 || (t.exponent_log2 > 0 && basis != Basis::Exponential) {
            let found = t.exponent_log2.into();
            return Err(self.bounds("exponent", found, "0 to 4, and 0 without the exponential basis"));
        }
        let expected = (1usize << t.index_bits) * (degree as usize + 1);
        if t.coefficients.len() != expected {
            let found = t.coefficients.len();
            return Err(ProgramError::Length { at: self.at, field: "coefficients", found, expected });
        }
        self.finite(&t.coefficients)?;
        let frac = self.entry_fracs(t.entry_frac, t.power_frac)?;
        Ok((Form::Arithmetic { width: self.width("width", t.width)?, frac }, shape))
    }

    pub(super) fn fourier(&self, f: &schema::Fourier) -> Result<(Form, Vec<usize>), ProgramError> {
        let ((width, _), shape) = self.masked(f.arg)?;
        if !(1..=24).contains(&f.period_bits) || f.period_bits > width {
            return Err(self.bounds(
                "period bits",
                f.period_bits.into(),
                "1 to 24, at most the operand's width",
            ));
        }
        let terms = f.cos.len();
        if terms == 0 || terms > 64 || f.sin.len() != terms {
            return Err(ProgramError::Length {
                at: self.at,
                field: "sin",
                found: f.sin.len(),
                expected: terms,
            });
        }
        self.finite(&f.cos)?;
        self.finite(&f.sin)?;
        self.finite(&[f.constant, f.window])?;
        let frac = self.entry_fracs(f.entry_frac, f.power_frac)?;
        Ok((Form::Arithmetic { width: self.width("width", f.width)?, frac }, shape))
    }

    pub(super) fn compare(&self, c: &schema::Compare) -> Result<(Form, Vec<usize>), ProgramError> {
        let digits = self.get(c.digits)?;
        let opened = self.get(c.opened)?;
        match (digits.form, opened.form) {
            (Form::Boolean { width: w }, Form::MaskedBits { width: o })
                if w.is_multiple_of(2) && w / 2 <= MAX_DIGITS && o == w - 1 =>
            {
                self.equal("shapes", &digits.shape, &opened.shape)?;
                Ok((Form::Boolean { width: 1 }, digits.shape.clone()))
            }
            _ => Err(self.wrong(c.opened, "the digits' opened lower bits")),
        }
    }
}
