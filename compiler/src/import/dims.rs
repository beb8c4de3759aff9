//! Symbolic dimensions: names that the request binds, and simple expressions of them.

use std::collections::BTreeMap;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DimError {
    /// Symbols without a value, in order of appearance.
    Missing(Vec<String>),
    /// Not an expression, or without a non-negative integer value.
    Invalid,
}

/// Nested brackets allowed in an expression.
const MAX_DEPTH: usize = 16;

/// Value of a `dim_param`: the name itself if `dims` has it, else the value of the expression that it spells with
/// `+ - * /` and brackets, e.g. `past_sequence_length + 1`.
pub(super) fn evaluate(text: &str, dims: &BTreeMap<String, usize>) -> Result<usize, DimError> {
    if let Some(&value) = dims.get(text) {
        return Ok(value);
    }
    let mut parser = Parser { rest: text, dims, missing: Vec::new(), depth: 0 };
    let value = parser.sum();
    parser.skip_spaces();
    match value {
        Some(_) | None if !parser.missing.is_empty() && parser.rest.is_empty() => {
            Err(DimError::Missing(parser.missing))
        }
        Some(value) if parser.rest.is_empty() => usize::try_from(value).map_err(|_| DimError::Invalid),
        // Not arithmetic at all: a free-form name such as "batch size".
        _ if !text.contains(['+', '*', '/', '(', ')']) => Err(DimError::Missing(vec![text.into()])),
        _ => Err(DimError::Invalid),
    }
}

struct Parser<'t> {
    rest: &'t str,
    dims: &'t BTreeMap<String, usize>,
    missing: Vec<String>,
    depth: usize,
}

impl Parser<'_> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, symbols: [char; 2]) -> Option<char> {
        self.skip_spaces();
        let symbol = self.rest.chars().next().filter(|c| symbols.contains(c))?;
        self.rest = &self.rest[symbol.len_utf8()..];
        Some(symbol)
    }

    fn sum(&mut self) -> Option<i64> {
        let mut value = self.product()?;
        while let Some(symbol) = self.take(['+', '-']) {
            let right = self.product()?;
            value = if symbol == '+' { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<i64> {
        let mut value = self.atom()?;
        while let Some(symbol) = self.take(['*', '/']) {
            // "//" is Python's integer division.
            if symbol == '/' && self.rest.starts_with('/') {
                self.rest = &self.rest[1..];
            }
            let right = self.atom()?;
            value =
                if symbol == '*' { value.checked_mul(right)? } else { value.checked_div_euclid(right)? };
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<i64> {
        if self.take(['(', '(']).is_some() {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return None;
            }
            let value = self.sum()?;
            self.depth -= 1;
            return self.take([')', ')']).map(|_| value);
        }
        self.skip_spaces();
        let end =
            self.rest.find(|c: char| !(c.is_alphanumeric() || "_.".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        if word.is_empty() {
            return None;
        }
        self.rest = rest;
        if let Ok(number) = word.parse() {
            return Some(number);
        }
        match self.dims.get(word) {
            Some(&value) => i64::try_from(value).ok(),
            None => {
                if !self.missing.iter().any(|name| name == word) {
                    self.missing.push(word.into());
                }
                Some(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_expressions() {
        let dims: BTreeMap<String, usize> =
            [("past".into(), 15), ("s".into(), 4), ("odd name".into(), 3)].into_iter().collect();
        for (text, expected) in [
            ("s", Ok(4)),
            ("odd name", Ok(3)),
            ("past + 1", Ok(16)),
            ("2*(s - 1)+past//2", Ok(13)),
            ("batch", Err(DimError::Missing(vec!["batch".into()]))),
            ("past + t * t", Err(DimError::Missing(vec!["t".into()]))),
            ("batch size", Err(DimError::Missing(vec!["batch size".into()]))),
            ("", Err(DimError::Missing(vec!["".into()]))),
            ("s - 5", Err(DimError::Invalid)),
            ("s / 0", Err(DimError::Invalid)),
            ("s +", Err(DimError::Invalid)),
            ("9999999999999 * 9999999999999", Err(DimError::Invalid)),
        ] {
            assert_eq!(evaluate(text, &dims), expected, "{text}");
        }
        assert_eq!(evaluate(&"(".repeat(100_000), &dims), Err(DimError::Invalid));
    }
}
