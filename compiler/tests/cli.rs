//! `marillc` as its users meet it: what it writes, and one clear sentence for what cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::model::Model;
use marill_compiler::npz;
use marill_plaintext::Tensor;
use tempfile::TempDir;

fn marillc(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_marillc")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `y = relu(x w)` in `model.onnx`, one sample of it and its output.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new(13);
    model.symbolic_input("x", &["batch", "width"]);
    let weights: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.6).collect();
    model.initializer("w", &Tensor::f32([4, 3], weights).unwrap());
    model.node("MatMul", &["x", "w"], &["product"], &[]);
    model.node("Relu", &["product"], &["y"], &[]);
    model.output("y");
    fs::write(folder.path().join("model.onnx"), model.bytes()).unwrap();
    let x = Tensor::f32([2, 4], vec![1.0, -0.5, 0.25, 2.0, -1.0, 0.0, 0.5, -2.0]).unwrap();
    npz::write(&folder.path().join("x.npz"), &BTreeMap::from([("x".to_owned(), x)])).unwrap();
    folder
}

const COMPILE: [&str; 7] = ["model.onnx", "-o", "out", "--dim", "batch=2", "--dim", "width=4"];

fn with<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    COMPILE.iter().copied().chain(extra.iter().copied()).collect()
}

#[test]
fn what_a_model_costs_is_told_without_its_weights() {
    let folder = folder();
    assert!(marillc(folder.path(), &with(&["--skip-check"])).status.success());
    let whole = text(&marillc(folder.path(), &["explain", "out"]).stdout);
    let run = marillc(folder.path(), &with(&["--cost-only"]));
    assert!(run.status.success() && run.stderr.is_empty(), "{}", text(&run.stderr));
    for party in ["out/client", "out/server"] {
        let entries = fs::read_dir(folder.path().join(party)).unwrap();
        let names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["program.marill"], "{party}");
    }
    assert_eq!(text(&marillc(folder.path(), &["explain", "out"]).stdout), whole);
    assert!(marillc(folder.path(), &["compare", "out", "out"]).status.success());
    let simulated = marillc(folder.path(), &["simulate", "out", "--input", "x.npz"]);
    let error = text(&simulated.stderr);
    assert!(!simulated.status.success() && error.contains("--cost-only"), "{error}");
    assert!(!marillc(folder.path(), &with(&["--cost-only", "--calibrate", "x.npz"])).status.success());
}

#[test]
fn compiles_reports_and_simulates() {
    let folder = folder();
    let run = marillc(folder.path(), &with(&["--calibrate", "x.npz", "--json"]));
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(text(&run.stderr), "");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["suite"], &report["dims"]["batch"]), (&"two-party".into(), &2.into()));
    for phase in ["setup", "preprocess", "online"] {
        let sum = |side: &str| -> u64 {
            ["client", "server", "dealer"].iter().map(|p| report[phase][side][p].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("bytes_sent"), sum("bytes_received"), "{phase}");
        assert!(report[phase]["seconds"].as_f64().unwrap() > 0.0);
    }
    let rows = report["operators"].as_array().unwrap();
    let rounds: u64 = rows.iter().map(|row| row["rounds"].as_u64().unwrap()).sum();
    assert_eq!(Some(rounds), report["online"]["rounds"].as_u64());
    assert!(!report["headroom"].as_array().unwrap().is_empty());
    assert_eq!(report["samples"]["is_synthetic"], false);

    let files = |party: &str| {
        let entries = fs::read_dir(folder.path().join("out").join(party)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(files("client"), "program.marill public.safetensors");
    assert_eq!(files("server"), "private.safetensors program.marill public.safetensors");
    assert_eq!(fs::read(folder.path().join("out/report.json")).unwrap(), run.stdout);

    let simulated = marillc(folder.path(), &["simulate", "out", "--input", "x.npz", "--output", "y.npz"]);
    assert!(simulated.status.success(), "{}", text(&simulated.stderr));
    let y = npz::read(&folder.path().join("y.npz")).unwrap()["y"].to_f32_vec().unwrap();
    let expected = [0.6, 0.94375, 1.2875, 0.0, 0.0, 0.0];
    let worst = y.iter().zip(expected).map(|(y, e): (&f32, f32)| (y - e).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{y:?}");
    let args = ["simulate", "out", "--input", "x.npz", "--reference", "y.npz"];
    let compared = text(&marillc(folder.path(), &args).stdout);
    assert!(compared.contains("max error 0.00e0") && compared.contains("top-1 2/2"), "{compared}");
}

/// A model of one GELU on what a private matrix makes.
fn with_gelu(folder: &Path) {
    let mut model = Model::new(20);
    model.input("x", &Tensor::f32([2, 4], vec![0.0; 8]).unwrap().ty());
    let weights: Vec<f32> = (0..12).map(|i| i as f32 / 8.0 - 0.6).collect();
    model.initializer("w", &Tensor::f32([4, 3], weights).unwrap());
    model.node("MatMul", &["x", "w"], &["product"], &[]);
    model.node("Gelu", &["product"], &["y"], &[]);
    model.output("y");
    fs::write(folder.join("gelu.onnx"), model.bytes()).unwrap();
}

#[test]
fn approximations_are_chosen_by_cost_and_error() {
    let folder = folder();
    with_gelu(folder.path());
    let compile = |extra: &[&str]| {
        let args = ["gelu.onnx", "-o", "out", "--suite", "dealer", "--calibrate", "x.npz", "--json"];
        marillc(folder.path(), &[&args[..], extra].concat())
    };
    let preprocess = |extra: &[&str]| -> u64 {
        let run = compile(extra);
        assert!(run.status.success(), "{extra:?}: {}", text(&run.stderr));
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        report["preprocess"]["bytes_sent"]["dealer"].as_u64().unwrap()
    };
    let exact = preprocess(&[]);
    assert_eq!(preprocess(&["--approximate", "exact"]), exact);
    let balanced = preprocess(&["--approximate", "balanced"]);
    assert!(balanced < exact, "{balanced} {exact}");
    // Rough errors allow the cheap form, fine ones do not.
    assert_eq!(preprocess(&["--max-error", "0.01"]), balanced);
    assert_eq!(preprocess(&["--max-error", "0.0006"]), exact);
    assert_eq!(preprocess(&["--max-error", "0.01", "--approximate", "exact"]), exact);
    assert!(preprocess(&["--approximate", "quad"]) < balanced / 2);
    let simulated = marillc(folder.path(), &["simulate", "out", "--input", "x.npz", "--output", "y.npz"]);
    assert!(simulated.status.success(), "{}", text(&simulated.stderr));
    let y = npz::read(&folder.path().join("y.npz")).unwrap()["y"].to_f32_vec().unwrap();
    let quad = |x: f32| x * x / 8.0 + x / 4.0 + 0.5;
    assert!((y[0] - quad(0.6)).abs() < 1e-3 && (y[1] - quad(0.94375)).abs() < 1e-3, "{y:?}");
    for (extra, parts) in [
        (&["--max-error", "1e-9"][..], &["with balanced", "with exact", "more than --max-error 1e-9"][..]),
        (&["--max-error", "0.01", "--approximate", "quad"], &["with quad", "--max-error 1e-2"]),
        (&["--max-error", "none"], &["is no error"]),
        (&["--max-error", "0.01", "--skip-check"], &["--skip-check"]),
    ] {
        let run = compile(extra);
        let error = text(&run.stderr);
        assert!(!run.status.success() && parts.iter().all(|part| error.contains(part)), "{extra:?}: {error}");
    }
}

#[test]
fn the_terminal_report_names_what_matters() {
    let folder = folder();
    let run = marillc(folder.path(), &with(&["--dim", "foo=3", "--network", "wan", "--suite", "dealer"]));
    assert!(run.status.success(), "{}", text(&run.stderr));
    let (report, warnings) = (text(&run.stdout), text(&run.stderr));
    for part in ["batch=2", "the client's", "to the client", "1 tensors, 12 elements", "100Mbit,40ms"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(report.contains("report.json depends on private weights") && !report.contains("two-party"));
    assert!(warnings.contains("made-up inputs"), "{warnings}");
    assert!(warnings.contains("--dim foo is not in the model, its symbolic dimensions are batch, width"));
}

#[test]
fn what_cannot_be_done_is_one_clear_error() {
    let folder = folder();
    let bytes = fs::read(folder.path().join("model.onnx")).unwrap();
    fs::write(folder.path().join("short.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    let mut odd = Model::new(13);
    odd.input("x", &Tensor::f32([1], vec![0.0]).unwrap().ty());
    odd.node("NonsenseOp", &["x"], &["y"], &[]);
    odd.output("y");
    fs::write(folder.path().join("odd.onnx"), odd.bytes()).unwrap();
    let wrong = BTreeMap::from([("z".to_owned(), Tensor::scalar_f32(0.0))]);
    npz::write(&folder.path().join("z.npz"), &wrong).unwrap();
    let wrong = BTreeMap::from([("x".to_owned(), Tensor::scalar_f32(0.0))]);
    npz::write(&folder.path().join("scalar.npz"), &wrong).unwrap();
    let large = Tensor::f32([2, 4], vec![3e4; 8]).unwrap();
    npz::write(&folder.path().join("large.npz"), &BTreeMap::from([("x".to_owned(), large)])).unwrap();
    fs::write(folder.path().join("bare.ir"), "%0 = input \"x\" : f32[2]\noutput \"y\" = %0 reveal=client\n")
        .unwrap();
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec!["none.onnx", "-o", "out"], 1, "cannot read none.onnx"),
        (vec![".", "-o", "out"], 1, "not a regular file"),
        (vec!["short.onnx", "-o", "out"], 1, "this is not an ONNX model"),
        (vec!["odd.onnx", "-o", "out"], 1, "NonsenseOp, 1 node"),
        (vec!["model.onnx", "-o", "out", "--dim", "batch=2"], 1, "give it with --dim width=N"),
        (with(&["--owner", "foo=server"]), 1, "its inputs are: x"),
        (with(&["--reveal", "foo=server"]), 1, "its outputs are: y"),
        (with(&["--calibrate", "none.npz"]), 1, "none.npz"),
        (with(&["--calibrate", "z.npz"]), 1, "no array \"x\" for the input of type f32[2,4], it has: z"),
        (with(&["--calibrate", "scalar.npz"]), 1, "the input is f32[2,4]"),
        (with(&["--calibrate", "large.npz"]), 1, "error: "),
        (vec!["model.onnx", "-o", "model.onnx", "--dim", "batch=2", "--dim", "width=4"], 1, "cannot write"),
        (vec!["simulate", "nowhere", "--input", "x.npz"], 1, "cannot read nowhere/server/program.marill"),
        (vec!["opt", "bare.ir", "--stage", "rewrite"], 1, "value \"x\" has no owner"),
        (vec!["opt", "model.onnx", "--stage", "normalise"], 1, "model.onnx"),
        (with(&["--owner", "x=bob"]), 2, "expected is client, server or public"),
        (with(&["--dim", "batch=none"]), 2, "not a number"),
        (with(&["--network", "fast"]), 2, "loopback, lan, wan"),
        (with(&["--frac-bits", "60"]), 2, "60"),
        (vec!["model.onnx"], 2, "--out"),
        (vec!["dump", "model.onnx"], 2, "--after"),
    ];
    for (args, code, part) in cases {
        let run = marillc(folder.path(), &args);
        let error = text(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains("error: ") && error.contains(part), "{args:?}: {error}");
        assert!(!error.contains("panicked") && run.stdout.is_empty(), "{args:?}: {error}");
    }
    assert!(!folder.path().join("out").exists(), "nothing is written on an error");
}

#[test]
fn stages_are_text_that_opt_takes_on() {
    let folder = folder();
    let dump = |stage: &str| {
        let args = ["dump", "model.onnx", "--after", stage, "--dim", "batch=2", "--dim", "width=4"];
        let run = marillc(folder.path(), &args);
        assert!(run.status.success(), "{stage}: {}", text(&run.stderr));
        text(&run.stdout)
    };
    for (before, stage) in [
        ("import", "normalise"),
        ("normalise", "ownership"),
        ("ownership", "rewrite"),
        ("rewrite", "program"),
    ] {
        fs::write(folder.path().join("stage.ir"), dump(before)).unwrap();
        let run = marillc(folder.path(), &["opt", "stage.ir", "--stage", stage]);
        assert!(run.status.success(), "{stage}: {}", text(&run.stderr));
        assert_eq!(text(&run.stdout), dump(stage), "{stage}");
    }
    assert!(dump("precision").contains("enc="));
    assert_eq!(dump("lower"), dump("program"));

    with_gelu(folder.path());
    let gelu = |arguments: &[&str]| {
        let run = marillc(folder.path(), arguments);
        assert!(run.status.success(), "{arguments:?}: {}", text(&run.stderr));
        text(&run.stdout)
    };
    let program = |level| gelu(&["dump", "gelu.onnx", "--after", "program", "--approximate", level]);
    assert_ne!(program("exact"), program("balanced"));
    fs::write(folder.path().join("gelu.ir"), gelu(&["dump", "gelu.onnx", "--after", "ownership"])).unwrap();
    let rewritten = |level| gelu(&["opt", "gelu.ir", "--stage", "rewrite", "--approximate", level]);
    assert_ne!(rewritten("exact"), rewritten("quad"));
    assert_eq!(
        rewritten("quad"),
        gelu(&["dump", "gelu.onnx", "--after", "rewrite", "--approximate", "quad"])
    );
}
