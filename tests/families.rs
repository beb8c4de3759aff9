//! Every model of the shared folder: compiled for both suites, computed in exact ring arithmetic and run between parties
//! in threads, against onnxruntime's outputs. The table of results stands in `docs/onnx-support.md`, which
//! `UPDATE_DOCS=1` rewrites.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::support::fixtures::{Fixture, compare, shared};
use crate::support::parallel::in_parallel;
use crate::support::parties::run;
use marill_compiler::precision::headroom;
use marill_compiler::{Request, bundle, compile};
use marill_plaintext::Tensor;
use marill_program::Suite;
use serde_json::Value;

/// Where the table begins in the page.
const HEADING: &str = "## Models\n";

/// One line of the table.
struct Row {
    name: String,
    exporter: String,
    opset: i64,
    note: String,
    /// Largest difference of any output in ring arithmetic, by suite: with a dealer, without.
    errors: [f32; 2],
    largest: f64,
}

/// The largest error of any output; the most likely tokens or classes must be the reference's.
fn error(found: &BTreeMap<String, Tensor>, fixture: &Fixture, name: &str) -> f32 {
    let mask = fixture.inputs.get("attention_mask");
    let mut worst = 0f32;
    for (output, expected) in &fixture.outputs {
        let found = found.get(output).unwrap_or_else(|| panic!("{name}: no output {output}"));
        let comparison = compare(found, expected, mask);
        if output == "logits" {
            assert_eq!(comparison.same_top, comparison.rows, "{name}");
        }
        worst = worst.max(comparison.max_abs_error);
    }
    worst
}

fn row(shared: &Path, name: &str, about: &Value) -> Row {
    let fixture = Fixture::load(shared, name);
    let bound = 2e-3 * about["output_abs_max"].as_f64().unwrap().max(1.0) as f32;
    let errors = [Suite::Dealer, Suite::TwoParty].map(|suite| {
        let request = Request { dims: fixture.dims(), suite, ..Request::default() };
        let compiled = compile(&fixture.model, &request).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sample = std::slice::from_ref(&fixture.inputs);
        let close = |outputs: &BTreeMap<String, Tensor>, how: &str| {
            let error = error(outputs, &fixture, name);
            assert!(error <= bound, "{name}, {suite:?}, {how}: {error}");
            error
        };
        let check = headroom::check(&compiled.graph, &compiled.lowered, &compiled.program, sample).unwrap();
        assert!(headroom::first_overflow(&check).is_none(), "{name}");
        if suite == Suite::Dealer {
            let folder = tempfile::tempdir().unwrap();
            bundle::write(folder.path(), &compiled.graph, &compiled.lowered).unwrap();
            close(&run(folder.path(), &fixture.inputs, &BTreeMap::new()).outputs, "between parties");
        }
        close(&check.outputs[0], "in ring arithmetic")
    });
    let text = |field: &str| about[field].as_str().unwrap().to_owned();
    Row {
        name: name.to_owned(),
        exporter: text("exporter"),
        opset: about["opset"]["ai.onnx"].as_i64().unwrap(),
        note: text("note"),
        errors,
        largest: about["output_abs_max"].as_f64().unwrap(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{HEADING}\n\
         Small models of every family as exporters write them, two to four layers, against onnxruntime's outputs. The\n\
         programs are computed in exact ring arithmetic, and run between three parties; every most likely token or class\n\
         is the reference's; positions that a mask drops do not count.\n\
         `UPDATE_DOCS=1 cargo test --test system families` rewrites this table where the models are at hand.\n\n\
         | model | exporter | opset | what it has | largest output | error, dealer | error, two-party |\n\
         |---|---|---:|---|---:|---:|---:|\n"
    );
    for Row { name, exporter, opset, note, errors: [dealt, alone], largest } in rows {
        writeln!(
            text,
            "| `{name}` | {exporter} | {opset} | {note} | {largest:.2} | {dealt:.0e} | {alone:.0e} |"
        )
        .unwrap();
    }
    text
}

#[test]
fn every_model_compiles_and_matches() {
    let Some(shared) = shared() else { return };
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(shared.join("manifest.json")).unwrap()).unwrap();
    let models: Vec<(&String, &Value)> = manifest.as_object().unwrap().iter().collect();
    assert!(models.len() >= 30, "{} models", models.len());
    let rows = in_parallel(&models, |(name, about)| row(&shared, name, about));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/onnx-support.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let before = page.split(HEADING).next().unwrap().trim_end();
    let expected = format!("{before}\n\n{}", table(&rows));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        assert!(page == expected, "the models' table in docs/onnx-support.md is stale");
    }
}
