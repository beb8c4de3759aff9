//! Results for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use marill_plaintext::Tensor;
use marill_runtime::error::Role;
use marill_runtime::report::Report;
use marill_runtime::transport::Phase;

/// The input that tells tokens from padding.
pub(super) const MASK: &str = "attention_mask";

pub(super) const PHASES: [Phase; 3] = [Phase::Setup, Phase::Preprocess, Phase::Online];

const ROLES: [Role; 3] = [Role::Client, Role::Server, Role::Dealer];

/// `1234567` as `1.23 MB`.
pub(super) fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{} {unit}", three_digits(value)) }
}

pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{} us", three_digits(s * 1e6)),
        s if s < 1.0 => format!("{} ms", three_digits(s * 1e3)),
        s => format!("{} s", three_digits(s)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Shape and first elements of each output, and the largest of the last row.
pub(super) fn outputs(outputs: &BTreeMap<String, Tensor>) -> String {
    let mut text = String::new();
    for (name, tensor) in outputs {
        let values: Vec<f64> = match tensor {
            Tensor::F32(array) => array.iter().map(|v| f64::from(*v)).collect(),
            Tensor::I64(array) => array.iter().map(|v| *v as f64).collect(),
            Tensor::Bool(array) => array.iter().map(|v| f64::from(u8::from(*v))).collect(),
        };
        let shown = |value: &f64| match tensor {
            Tensor::F32(_) => format!("{value:.4}"),
            _ => format!("{value}"),
        };
        let first: Vec<String> = values.iter().take(6).map(shown).collect();
        let more = if values.len() > first.len() { ", ..." } else { "" };
        let _ = write!(text, "{name} {}: {}{more}", tensor.ty(), first.join(", "));
        let width = tensor.shape().last().copied().unwrap_or(1);
        if width > 1 && !values.is_empty() {
            let row = &values[values.len() - width..];
            let best = (0..width).reduce(|best, at| if row[at] > row[best] { at } else { best });
            let _ = write!(text, "; largest of the last row at {}", best.unwrap_or(0));
        }
        text.push('\n');
    }
    text
}

/// Distance from the reference, bytes, rounds, time and memory.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    if let Some(accuracy) = &report.accuracy {
        let _ = write!(
            text,
            "against the reference ({}): largest error {:.3e}, mean error {:.3e}",
            accuracy.compared.join(", "),
            accuracy.max_abs_error,
            accuracy.mean_abs_error
        );
        if let Some(agreement) = accuracy.top1_agreement {
            let _ = write!(text, ", same largest element in {:.1} % of rows", 100.0 * agreement);
        }
        if accuracy.masked_rows > 0 {
            let _ = write!(text, "; rows left out because {MASK} is 0: {}", accuracy.masked_rows);
        }
        text.push('\n');
    }
    let known: Vec<Role> =
        ROLES.into_iter().filter(|role| report.setup.bytes_sent.of(*role).is_some()).collect();
    let _ = write!(text, "\n{:12}", "phase");
    for role in &known {
        let _ = write!(text, "{:>14}", format!("{role} sent"));
    }
    let _ = writeln!(text, "{:>10}{:>12}", "rounds", "time");
    for phase in PHASES {
        let taken = report.phase(phase);
        let _ = write!(text, "{:12}", phase.to_string());
        for role in &known {
            let _ = write!(text, "{:>14}", taken.bytes_sent.of(*role).map(bytes).unwrap_or_default());
        }
        let rounds = taken.rounds.map_or_else(|| "-".to_owned(), |rounds| rounds.to_string());
        let _ = writeln!(text, "{rounds:>10}{:>12}", seconds(taken.seconds));
    }
    let plaintext = report.plaintext_seconds;
    let taken: Vec<String> = [(Role::Client, plaintext.client), (Role::Server, plaintext.server)]
        .into_iter()
        .filter_map(|(role, taken)| taken.map(|taken| format!("{role} {}", seconds(taken))))
        .collect();
    if !taken.is_empty() {
        let _ = writeln!(text, "in plaintext {}", taken.join(", "));
    }
    if let Some(peaks) = peaks(report) {
        let _ = writeln!(text, "{peaks}");
    }
    text
}

/// The most memory of each process, where the system tells.
pub(super) fn peaks(report: &Report) -> Option<String> {
    let of = |role: Role| report.peak_rss_bytes.of(role).map(|peak| format!("{role} {}", bytes(peak)));
    let peaks: Vec<String> = ROLES.into_iter().filter_map(of).collect();
    (!peaks.is_empty()).then(|| format!("peak memory  {}", peaks.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_three_digits() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_999, "1.00 MB"),
            (1_234_567_890, "1.23 GB"),
        ];
        for (count, expected) in table {
            assert_eq!(bytes(count), expected);
        }
        assert_eq!(
            (seconds(0.0000125), seconds(0.04), seconds(75.0)),
            ("12.5 us".into(), "40.0 ms".into(), "75.0 s".into())
        );
    }

    #[test]
    fn outputs_are_one_line_each() {
        let tensors = BTreeMap::from([
            ("y".to_owned(), Tensor::f32([2, 2], vec![1.0, 2.0, 4.0, 3.0]).unwrap()),
            ("n".to_owned(), Tensor::scalar_i64(7)),
        ]);
        let text = outputs(&tensors);
        assert_eq!(
            text,
            "n i64[]: 7\ny f32[2,2]: 1.0000, 2.0000, 4.0000, 3.0000; largest of the last row at 0\n"
        );
    }
}
