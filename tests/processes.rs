//! The binaries as a user runs them: `marillc` compiles, `marill demo` runs client and server (and a dealer) as processes
//! over TCP with mutual TLS, at default settings.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::binaries::binary;
use crate::support::fixtures::{Fixture, MODELS, shared};
use crate::support::parallel::in_parallel;
use serde_json::Value;

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output
}

/// Compiles and runs a model; the run's statistics.
fn compile_and_demo(
    suite: &str,
    model: &Path,
    dims: &[(String, usize)],
    inputs: &Path,
    outputs: &Path,
) -> Value {
    let scratch = tempfile::tempdir().unwrap();
    let (bundle, stats) = (scratch.path().join("bundle"), scratch.path().join("stats.json"));
    let mut marillc = Command::new(binary("marillc").unwrap());
    marillc.arg(model).arg("-o").arg(&bundle).args(["--suite", suite, "--calibrate"]).arg(inputs);
    dims.iter().for_each(|(name, size)| {
        marillc.arg("--dim").arg(format!("{name}={size}"));
    });
    run(&mut marillc);
    let mut demo = Command::new(binary("marill").unwrap());
    demo.arg("demo").arg(&bundle).args(["--suite", suite, "--input"]).arg(inputs);
    run(demo.arg("--reference").arg(outputs).arg("--stats").arg(&stats));
    serde_json::from_slice(&std::fs::read(stats).unwrap()).unwrap()
}

fn assert_agrees(name: &str, stats: &Value, max_abs_error: f64) {
    let error = stats["max_abs_error"].as_f64().unwrap();
    assert!(error < max_abs_error, "{name}: error {error}");
    assert_eq!(stats["top1_agreement"].as_f64(), Some(1.0), "{name}");
    for phase in ["setup", "preprocess", "online"] {
        let phase = &stats[phase];
        assert!(
            phase["seconds"].as_f64().unwrap() >= 0.0 && phase["bytes_sent"]["client"].as_u64().unwrap() > 0
        );
    }
    let dealer = (stats["suite"] == "dealer").then_some("dealer");
    for party in ["client", "server"].into_iter().chain(dealer) {
        assert!(stats["peak_rss_bytes"][party].as_u64().unwrap() > 0, "{name}: {party}");
    }
}

#[test]
fn the_shipped_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm");
    let at = |file: &str| folder.join(file);
    let stats = compile_and_demo("dealer", &at("model.onnx"), &[], &at("inputs.npz"), &at("outputs.npz"));
    assert_agrees("small_lm", &stats, 1e-2);
}

#[test]
fn fixtures() {
    let Some(shared) = shared() else { return };
    in_parallel(MODELS, |name| {
        let fixture = Fixture::load(&shared, name);
        let folder = shared.join(name);
        let dims: Vec<_> = fixture.dims().into_iter().collect();
        let (inputs, outputs) = (folder.join("inputs.npz"), folder.join("outputs.npz"));
        for suite in ["dealer", "two-party"] {
            let stats = compile_and_demo(suite, &fixture.model, &dims, &inputs, &outputs);
            assert_eq!(stats["suite"], suite);
            assert_agrees(name, &stats, 1e-2);
            let seconds =
                ["setup", "preprocess", "online"].map(|phase| stats[phase]["seconds"].as_f64().unwrap());
            println!("{name}, {suite}: error {}, {seconds:.1?} s", stats["max_abs_error"]);
        }
    });
}
