//! What people read on the terminal.

use std::fmt::Write;
use std::path::Path;

use marill_compiler::Compiled;
use marill_compiler::calibrate::{Agreement, Sample};
use marill_compiler::ir::Owner;
use marill_compiler::precision::headroom::GroupHeadroom;
use marill_compiler::report::{OperatorRow, PhaseReport, Report, constants};
use marill_plaintext::DType;
use marill_program::Owner as Party;

/// Rows of the tables on the terminal; the JSON report has all.
const MAX_ROWS: usize = 10;
/// Longest name of a group that is printed whole.
const MAX_NAME: usize = 56;

/// Everything about a compilation.
pub fn summary(model: &Path, compiled: &Compiled, report: &Report) -> String {
    let mut text = format!("{}", model.display());
    let dims: Vec<String> = report.dims.iter().map(|(name, size)| format!("{name}={size}")).collect();
    if !dims.is_empty() {
        let _ = write!(text, "  ({})", dims.join(", "));
    }
    text.push('\n');
    for &id in &compiled.graph.inputs {
        let node = compiled.graph.node(id);
        let owner = match node.facts.owner {
            Some(Owner::Server) => "the server's",
            Some(Owner::Public) => "public",
            _ => "the client's",
        };
        let _ = writeln!(text, "  input   {}  {}  {owner}", node.name, node.facts.ty);
    }
    for output in &compiled.graph.outputs {
        let to = match output.reveal_to {
            Owner::Server => "the server",
            Owner::Client => "the client",
            _ => "both",
        };
        let _ = writeln!(text, "  output  {}  {}  to {to}", output.name, compiled.graph.ty(output.value));
    }
    for (owner, name) in [(Party::Server, "private"), (Party::Public, "public ")] {
        let count = constants(compiled, owner);
        let _ = writeln!(
            text,
            "  {name} constants  {} tensors, {} elements",
            count.tensors,
            grouped(count.elements as u64)
        );
    }

    let _ = writeln!(text, "  activations {}", report.approximate);

    let _ = writeln!(text, "\npredicted with the {} suite on {}", report.suite.name(), report.network);
    let _ = writeln!(
        text,
        "  {:<11} {:>11} {:>11} {:>11} {:>11} {:>7} {:>10}",
        "", "client out", "client in", "server out", "server in", "rounds", "seconds"
    );
    for (name, phase) in
        [("setup", &report.setup), ("preprocess", &report.preprocess), ("online", &report.online)]
    {
        text.push_str(&phase_row(name, phase));
    }
    text.push_str(&operators(&report.operators));
    if !report.rewrites.is_empty() {
        text.push_str("\nrewrites (forms found)\n");
        for row in &report.rewrites {
            let _ = writeln!(text, "  {:<34} {}", row.rule, row.count);
        }
    }
    if report.samples.count == 0 {
        return text;
    }
    let samples = match (report.samples.count, report.samples.is_synthetic) {
        (_, true) => "on made-up inputs, against f32".to_owned(),
        (1, false) => "on the sample, against f32".to_owned(),
        (count, false) => format!("on {count} samples, against f32"),
    };
    text.push_str(&agreements(&samples, &report.samples.outputs));
    text.push_str(&headroom(&report.headroom));
    text
}

fn phase_row(name: &str, phase: &PhaseReport) -> String {
    format!(
        "  {name:<11} {:>11} {:>11} {:>11} {:>11} {:>7} {:>10}\n",
        bytes(phase.bytes_sent.client),
        bytes(phase.bytes_received.client),
        bytes(phase.bytes_sent.server),
        bytes(phase.bytes_received.server),
        phase.rounds,
        seconds(phase.seconds)
    )
}

fn operators(rows: &[OperatorRow]) -> String {
    let mut rows: Vec<&OperatorRow> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.online_bytes, row.preprocess_bytes, row.setup_bytes)));
    let mut text = format!(
        "\n{:<58} {:>10} {:>7} {:>11} {:>10}\n",
        format!("most expensive of {} operators", rows.len()),
        "online",
        "rounds",
        "preprocess",
        "setup"
    );
    for row in rows.iter().take(MAX_ROWS) {
        let _ = writeln!(
            text,
            "  {:<MAX_NAME$} {:>10} {:>7} {:>11} {:>10}",
            shortened(&row.group, MAX_NAME),
            bytes(row.online_bytes),
            row.rounds,
            bytes(row.preprocess_bytes),
            bytes(row.setup_bytes)
        );
    }
    text
}

/// The outputs' types and sizes.
pub fn outputs(outputs: &Sample) -> String {
    let mut text = String::from("outputs\n");
    for (name, tensor) in outputs {
        let values = tensor.cast(DType::F32).to_f32_vec().unwrap_or_default();
        let (min, max) = values
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &value| (min.min(value), max.max(value)));
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64;
        let _ = writeln!(text, "  {name}  {}  min {min:.4}  max {max:.4}  mean {mean:.4}", tensor.ty());
    }
    text
}

/// Errors by output.
pub fn agreements(title: &str, agreements: &[Agreement]) -> String {
    let mut text = format!("\naccuracy {title}\n");
    for a in agreements {
        let _ =
            write!(text, "  {}  max error {:.2e}  mean {:.2e}", a.output, a.max_abs_error, a.mean_abs_error);
        let _ = match a.top1_rows {
            0 => writeln!(text),
            rows => writeln!(text, "  top-1 {}/{rows}", a.top1_same),
        };
    }
    text
}

/// The groups that came closest to the bounds of their rings.
pub fn headroom(groups: &[GroupHeadroom]) -> String {
    let mut groups: Vec<&GroupHeadroom> = groups.iter().collect();
    groups.sort_by(|a, b| a.spare_bits.total_cmp(&b.spare_bits));
    let title = format!("least headroom of {} operators", groups.len());
    let mut text = format!("\n{title:<58} {:>10} {:>7} {:>11}\n", "spare bits", "ring", "max");
    for group in groups.iter().take(MAX_ROWS) {
        let _ = writeln!(
            text,
            "  {:<MAX_NAME$} {:>10.1} {:>7} {:>11.4}",
            shortened(&group.group, MAX_NAME),
            group.spare_bits,
            group.width_bits,
            group.max_abs
        );
    }
    text
}

/// The name in `most` characters, its beginning left out if it is long: exporters put what tells nodes apart last.
pub fn shortened(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    let (op, _) = name.split_once(' ').unwrap_or(("", name));
    let op: String = op.chars().take(most / 2).collect();
    let kept = most - op.chars().count() - 4;
    let tail: String = name.chars().skip(count - kept).collect();
    format!("{op} ...{tail}")
}

pub fn bytes(count: u64) -> String {
    let value = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

pub fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.1} ms", value * 1e3) } else { format!("{value:.2} s") }
}

pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(grouped(12), "12");
        assert_eq!([bytes(999), bytes(1500), bytes(2_500_000)], ["999 B", "1.5 kB", "2.5 MB"]);
        assert_eq!([seconds(0.0125), seconds(2.0)], ["12.5 ms", "2.00 s"]);
    }

    #[test]
    fn long_names_keep_operation_and_end() {
        let name = format!("mat_mul /model/{}/MatMul_7", "layer/".repeat(30));
        let short = shortened(&name, MAX_NAME);
        assert_eq!(short.chars().count(), MAX_NAME);
        assert!(short.starts_with("mat_mul ...") && short.ends_with("MatMul_7"));
        assert_eq!(shortened("add x", MAX_NAME), "add x");
    }
}
