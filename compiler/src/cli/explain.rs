//! `marillc explain`: where every operation runs, why, and what it costs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use marill_compiler::bundle::read_program;
use marill_compiler::explain::{KindRow, Place, PlacedOperation, by_kind, placements};
use marill_compiler::precision::tensors::{TensorRow, tensor_rows};
use marill_compiler::report::operator_rows;
use marill_program::flow::{Statement, check};
use serde::Serialize;
use serde_json::Value;

use super::print::{bytes, grouped, seconds, shortened};
use super::{ExplainArgs, emit};

#[derive(Serialize)]
struct Explanation {
    program: String,
    kinds: Vec<KindRow>,
    operations: Vec<PlacedOperation>,
    tensors: Vec<TensorRow>,
    /// What each party holds, sees and may infer.
    statement: Statement,
    /// What compiling found: weights, certificates, rules. Missing where `report.json` is.
    report: Option<Value>,
}

pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let client = args.bundle.join("client");
    let whole = client.is_dir();
    let program = &read_program(if whole { &client } else { &args.bundle })?;
    let operations = placements(program);
    let kinds = by_kind(&operations, &operator_rows(program, args.suite.into()));
    let report = read_report(&args.bundle.join("report.json"))?;
    let name = program.program().name.clone();
    let statement = Statement::new(program, &check(program.program())?);
    let tensors = tensor_rows(program);
    let explanation = Explanation { program: name, kinds, operations, tensors, statement, report };
    if args.json {
        return emit(&(serde_json::to_string_pretty(&explanation)? + "\n"));
    }
    let mut text = format!("{}\n", explanation.program);
    places(&explanation.kinds, &mut text);
    if args.tensors {
        tensor_table(&explanation, &mut text);
    }
    let _ = write!(text, "\n{}", explanation.statement);
    if let Some(report) = &explanation.report {
        if let Some(level) = report["approximate"].as_str() {
            let _ = writeln!(text, "\nactivations: {level}");
        }
        let numerics = &report["numerics"];
        let bits = |name: &str| numerics[name].as_u64();
        if let (Some(frac), Some(range), Some(hidden)) =
            (bits("frac_bits"), bits("range_bits"), bits("hidden_bits"))
        {
            let _ = writeln!(text, "numbers: --frac-bits {frac} --range-bits {range} --hidden-bits {hidden}");
        }
        weights(&report["weights"], &mut text);
        certificates(&report["certificates"], &mut text);
        rules(&report["rewrites"], &mut text);
    } else {
        text.push_str("\nreport.json is not here: it tells about weights, certificates and rules\n");
    }
    emit(&text)
}

fn read_report(path: &Path) -> anyhow::Result<Option<Value>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => anyhow::bail!("cannot read {}: {error}", path.display()),
    };
    let report = serde_json::from_slice(&bytes);
    report.map(Some).map_err(|error| anyhow::anyhow!("{} is not a report: {error}", path.display()))
}

fn places(kinds: &[KindRow], text: &mut String) {
    let mut last: Option<Place> = None;
    for row in kinds {
        if last != Some(row.place) {
            let _ = writeln!(text, "\n{}: {}", row.place.title(), row.place.reason());
            last = Some(row.place);
        }
        let _ = write!(text, "  {:<18} x {:<5}", row.operation, row.count);
        if row.place == Place::Shared {
            let _ = write!(
                text,
                " online {:>10}  rounds {:>4}  preprocess {:>10}  setup {:>10}",
                bytes(row.online_bytes),
                row.rounds,
                bytes(row.preprocess_bytes),
                bytes(row.setup_bytes)
            );
        } else if row.products > 0 {
            let _ = write!(text, " {} multiply-adds", grouped(row.products));
        }
        text.push('\n');
    }
}

/// Every tensor, with what the report knows of its use.
fn tensor_table(explanation: &Explanation, text: &mut String) {
    let _ = writeln!(
        text,
        "\n{:<44} {:<20} {:<7} {:>5} {:>9} {:>9} {:>7} {:>11} {:>11}",
        "tensors", "shape", "at", "ring", "fraction", "below", "opened", "samples' max", "spare bits"
    );
    for row in &explanation.tensors {
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let encoding = row.encoding;
        let _ = write!(
            text,
            "  {:<42} {:<20} {:<7} {:>5} {:>9} {:>9} {:>7}",
            shortened(&row.group, 42),
            format!("{:?}", row.shape).replace(' ', ""),
            row.holder.name(),
            number(encoding.map(|e| e.width_bits)),
            number(encoding.map(|e| e.frac_bits)),
            encoding.map(|e| format!("2^{}", e.below.log2())).unwrap_or_default(),
            number(row.opened.map(|e| e.width_bits)),
        );
        let used = explanation.report.as_ref().and_then(|report| report["headroom"].as_array());
        let used = used.and_then(|rows| rows.iter().find(|used| used["group"] == row.group.as_str()));
        if let Some((max, spare)) =
            used.and_then(|u| Some((u["max_abs"].as_f64()?, u["spare_bits"].as_f64()?)))
        {
            let _ = write!(text, " {max:>11.4} {spare:>11.1}");
        }
        text.push('\n');
    }
}

/// Weights by status; a line each for what is private or thin.
fn weights(rows: &Value, text: &mut String) {
    const SHOWN: usize = 24;
    let Some(rows) = rows.as_array() else { return };
    let status = |row: &Value| row["status"].as_str().unwrap_or_default().to_owned();
    let _ = writeln!(text, "\nweights");
    for (key, title) in [
        ("published", "in the base model"),
        ("declared", "declared public"),
        ("low_rank", "of low rank from the base model"),
        ("private", "private"),
    ] {
        let mine: Vec<&Value> = rows.iter().filter(|row| status(row) == key).collect();
        let elements: u64 = mine.iter().filter_map(|row| row["elements"].as_u64()).sum();
        if mine.is_empty() {
            continue;
        }
        let _ = writeln!(text, "  {:<34} {:>5} tensors, {} elements", title, mine.len(), grouped(elements));
        if key == "published" || key == "declared" {
            continue;
        }
        for row in mine.iter().take(SHOWN) {
            let rank = row["rank"].as_u64().map(|rank| format!("  rank {rank}")).unwrap_or_default();
            let _ = writeln!(text, "    {}{rank}", row["name"].as_str().unwrap_or_default());
        }
        if mine.len() > SHOWN {
            let _ = writeln!(text, "    and {} more", mine.len() - SHOWN);
        }
    }
}

fn certificates(rows: &Value, text: &mut String) {
    let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) else { return };
    let _ =
        writeln!(text, "\ncertificates: what separates outputs from what could be revealed in their place");
    for row in rows {
        let name = row["weight"].as_str().unwrap_or_default();
        let verdict = match (row["is_injective"].as_bool(), row["condition"].as_f64()) {
            (Some(true), Some(condition)) => format!("injective, condition number at most {condition:.1}"),
            _ => "not shown to be injective, stays where it is".to_owned(),
        };
        let _ = writeln!(text, "  {name} {} rank {}: {verdict}", row["shape"], row["rank"]);
    }
}

fn rules(rows: &Value, text: &mut String) {
    let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) else { return };
    let _ =
        writeln!(text, "\nrules that found new forms, and what a run would lose without them (estimated)");
    for row in rows {
        let saved = row["saves_s"].as_f64().unwrap_or_default();
        let saved = if saved > 0.0 { seconds(saved) } else { "nothing".to_owned() };
        let _ = writeln!(
            text,
            "  {:<22} {:>6} {:>12}",
            row["rule"].as_str().unwrap_or_default(),
            row["count"],
            saved
        );
    }
}
