//! Asks a small trained language model for the next token without showing it the prompt: compiles the model, runs
//! `marill demo` (client and server as two processes on this machine, no third party) and compares with onnxruntime.

#[path = "../tests/support/binaries.rs"]
mod binaries;
#[path = "small_lm/tokenizer.rs"]
mod tokenizer;

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use marill_compiler::{Request, bundle, compile, npz};
use marill_runtime::error::Role;
use marill_runtime::report::Report;
use tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/small_lm");
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| scratch.path().join(name);

    println!("compiling {}", folder.join("model.onnx").display());
    let compiled = compile(&folder.join("model.onnx"), &Request::default())?;
    bundle::write(&at("bundle"), &compiled.graph, &compiled.lowered)?;

    println!("building and running marill demo");
    let status = Command::new(binaries::binary("marill")?)
        .arg("demo")
        .arg(at("bundle"))
        .arg("--input")
        .arg(folder.join("inputs.npz"))
        .arg("--reference")
        .arg(folder.join("outputs.npz"))
        .arg("--output")
        .arg(at("outputs.npz"))
        .arg("--stats")
        .arg(at("stats.json"))
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("marill demo failed: {status}").into());
    }

    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
    let prompt = npz::read(&folder.join("inputs.npz"))?["input_ids"].to_i64_vec()?;
    let logits =
        |path: &Path| -> Result<Vec<f32>, Box<dyn Error>> { Ok(npz::read(path)?["logits"].to_f32_vec()?) };
    let (secure, clear) = (logits(&at("outputs.npz"))?, logits(&folder.join("outputs.npz"))?);
    let vocabulary = clear.len() / prompt.len();
    let answers = |logits: &[f32]| -> Vec<i64> { logits.chunks(vocabulary).map(most_likely).collect() };
    let (secure_answers, clear_answers) = (answers(&secure), answers(&clear));
    let last = |answers: &[i64]| tokenizer.decode(&answers[answers.len() - 1..]);
    let agree = secure_answers.iter().zip(&clear_answers).filter(|(a, b)| a == b).count();
    let worst = secure.iter().zip(&clear).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("\nprompt (known to the client alone):\n{}", tokenizer.decode(&prompt));
    println!("\nnext token, two-party : {:?}", last(&secure_answers));
    println!("next token, in clear  : {:?}", last(&clear_answers));
    println!("largest error of {} logits: {worst:.1e}", clear.len());
    println!("same most likely token at {agree} of {} positions\n", prompt.len());

    let report: Report = serde_json::from_slice(&std::fs::read(at("stats.json"))?)?;
    println!("phase        client sends   server sends  rounds  seconds");
    for (name, phase) in
        [("setup", report.setup), ("preprocess", report.preprocess), ("online", report.online)]
    {
        let sent = |role| format!("{:>10} B", phase.bytes_sent.of(role).unwrap_or_default());
        let (client, server) = (sent(Role::Client), sent(Role::Server));
        let rounds = phase.rounds.unwrap_or_default();
        println!("{name:<10} {client:>14} {server:>14} {rounds:>7} {:>8.2}", phase.seconds);
    }
    if agree < prompt.len() || worst > 0.05 {
        return Err("the two-party answer is not the model's".into());
    }
    Ok(())
}

/// The position of the largest logit.
fn most_likely(logits: &[f32]) -> i64 {
    let best = (0..logits.len()).max_by(|&i, &j| logits[i].total_cmp(&logits[j]));
    best.unwrap_or_default() as i64
}
