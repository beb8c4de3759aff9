//! `marillc explain`: where every operation runs, why, and what it costs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use marill_compiler::bundle::Bundle;
use marill_compiler::explain::{KindRow, Place, PlacedOperation, by_kind, placements};
use marill_compiler::report::operator_rows;
use marill_program::flow::{Statement, check};
use serde::Serialize;
use serde_json::Value;

use super::print::{bytes, grouped, seconds};
use super::{ExplainArgs, emit};

#[derive(Serialize)]
struct Explanation {
    program: String,
    kinds: Vec<KindRow>,
    operations: Vec<PlacedOperation>,
    /// What each party holds, sees and may infer.
    statement: Statement,
    /// What compiling found: weights, certificates, rules. Missing where `report.json` is.
    report: Option<Value>,
}

pub fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let client = args.bundle.join("client");
    let whole = client.is_dir();
    let bundle = Bundle::open(if whole { &client } else { &args.bundle })?;
    let program = bundle.program();
    let operations = placements(program);
    let kinds = by_kind(&operations, &operator_rows(program, args.suite.into()));
    let report = read_report(&args.bundle.join("report.json"))?;
    let name = program.program().name.clone();
    let statement = Statement::new(program, &check(program.program())?);
    let explanation = Explanation { program: name, kinds, operations, statement, report };
    if args.json {
        return emit(&(serde_json::to_string_pretty(&explanation)? + "\n"));
    }
    let mut text = format!("{}\n", explanation.program);
    places(&explanation.kinds, &mut text);
    let _ = write!(text, "\n{}", explanation.statement);
    if let Some(report) = &explanation.report {
        if let Some(level) = report["approximate"].as_str() {
            let _ = writeln!(text, "\nactivations: {level}");
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
