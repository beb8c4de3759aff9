//! `marillc compare`: several compiled models side by side.

use std::fmt::Write;
use std::path::Path;

use marill_compiler::bundle::read_program;
use marill_compiler::machine::Machines;
use marill_compiler::report::{Prediction, predict, predict_on};
use marill_program::{Network, Suite};
use serde::Serialize;

use super::print::{bytes, seconds};
use super::{CompareArgs, emit};

#[derive(Serialize)]
struct Timed {
    network: Network,
    #[serde(flatten)]
    prediction: Prediction,
}

#[derive(Serialize)]
struct Row {
    bundle: String,
    program: String,
    predictions: Vec<Timed>,
}

pub fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let suite = Suite::from(args.suite);
    let row = |path: &std::path::PathBuf| -> anyhow::Result<Row> {
        let program = &read_program(&party(path))?;
        let predicted = |network| match args.one_machine {
            true => predict_on(program, suite, network, Machines::One),
            false => predict(program, suite, network),
        };
        let timed = |&network: &Network| Timed { network, prediction: predicted(network) };
        Ok(Row {
            bundle: path.display().to_string(),
            program: program.program().name.clone(),
            predictions: args.network.iter().map(timed).collect(),
        })
    };
    let rows = args.bundles.iter().map(row).collect::<anyhow::Result<Vec<Row>>>()?;
    if args.json {
        return emit(&(serde_json::to_string_pretty(&rows)? + "\n"));
    }
    emit(&table(&rows, suite))
}

/// A bundle's directory for a party, where the whole is given.
fn party(path: &Path) -> std::path::PathBuf {
    let client = path.join("client");
    if client.is_dir() { client } else { path.to_owned() }
}

fn table(rows: &[Row], suite: Suite) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|row| row.bundle.chars().count()).max().unwrap_or(0).max(6);
    let _ = writeln!(
        text,
        "{:<width$} {:>11} {:>7} {:>7} {:>11} {:>7} {:>11} {:>11} {:>7}",
        "", "online", "ratio", "rounds", "preprocess", "ratio", "setup", "total", "ratio"
    );
    let exact = |row: &Row| row.predictions.first().map(|timed| timed.prediction);
    let ratio = |a: u64, b: u64| format!("{:.1}x", a as f64 / b.max(1) as f64);
    let Some(first) = rows.first().and_then(exact) else { return text };
    for row in rows {
        let Some(p) = exact(row) else { continue };
        let _ = writeln!(
            text,
            "{:<width$} {:>11} {:>7} {:>7} {:>11} {:>7} {:>11} {:>11} {:>7}",
            row.bundle,
            bytes(p.online.total_bytes()),
            ratio(first.online.total_bytes(), p.online.total_bytes()),
            p.online.rounds,
            bytes(p.preprocess.total_bytes()),
            ratio(first.preprocess.total_bytes(), p.preprocess.total_bytes()),
            bytes(p.setup.total_bytes()),
            bytes(p.total_bytes()),
            ratio(first.total_bytes(), p.total_bytes()),
        );
    }
    for (at, timed) in rows[0].predictions.iter().enumerate() {
        let _ = writeln!(text, "\npredicted with the {} suite on {}", suite.name(), timed.network);
        let _ = writeln!(
            text,
            "{:<width$} {:>11} {:>7} {:>11} {:>11} {:>11} {:>7}",
            "", "online", "ratio", "preprocess", "setup", "total", "ratio"
        );
        let first = timed.prediction;
        for row in rows {
            let p = row.predictions[at].prediction;
            let _ = writeln!(
                text,
                "{:<width$} {:>11} {:>6.1}x {:>11} {:>11} {:>11} {:>6.1}x",
                row.bundle,
                seconds(p.online.seconds),
                first.online.seconds / p.online.seconds,
                seconds(p.preprocess.seconds),
                seconds(p.setup.seconds),
                seconds(p.total_seconds()),
                first.total_seconds() / p.total_seconds(),
            );
        }
    }
    text
}
