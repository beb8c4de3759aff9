//! What each of Marill's techniques saves: `techniques [gpt2|llama [TOKENS [dealer|two-party]]]`, or
//! everything that docs/marill.md shows.
//!
//! Every row is one fine-tuned model, compiled against its base model. Bytes and rounds are exact, seconds predicted.

#[path = "../tests/support/gpt2.rs"]
mod gpt2;
#[path = "../tests/support/llama.rs"]
mod llama;
#[path = "../tests/support/numbers.rs"]
mod numbers;
#[path = "../tests/support/onnx.rs"]
mod onnx;
#[path = "../tests/support/tuning.rs"]
mod tuning;

use std::error::Error;
use std::path::{Path, PathBuf};

use marill_compiler::report::{Prediction, predict};
use marill_compiler::{Request, Weights, compile};
use marill_program::{Network, Suite};
use tuning::Tuning;

/// Tuning and what it stands for.
const ROWS: [(&str, &str); 8] = [
    ("full", "standard fine-tuning"),
    ("frozen", "first half frozen"),
    ("lora", "LoRA r=8, all linear layers"),
    ("lora-attention", "LoRA r=8, attention"),
    ("heads", "heads merged x4"),
    ("all", "all, LoRA in all linear layers"),
    ("all-attention", "all, LoRA in attention"),
    ("all-attention-late", "the same, three quarters frozen"),
];

type Model = (PathBuf, Weights);
/// Writes the model of a tuning.
type Write<'a> = &'a dyn Fn(&str) -> Result<Model, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tokens = arguments.get(1).map(|text| text.parse()).transpose()?;
    let suite = match arguments.get(2).map(String::as_str) {
        Some("dealer") => Suite::Dealer,
        _ => Suite::TwoParty,
    };
    match arguments.first().map(String::as_str) {
        Some("gpt2") => gpt2_table(tokens.unwrap_or(128), suite),
        Some("llama") => llama_table(tokens.unwrap_or(64), suite),
        Some(other) => Err(format!("\"{other}\" is no model, expected is gpt2 or llama").into()),
        None => {
            for suite in Suite::ALL {
                gpt2_table(64, suite)?;
                gpt2_table(128, suite)?;
                llama_table(64, suite)?;
            }
            Ok(())
        }
    }
}

/// GPT-2 small, its weights compared with its base model's.
fn gpt2_table(tokens: usize, suite: Suite) -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let write = |tuning: &str| -> Result<PathBuf, Box<dyn Error>> {
        let mut model = gpt2::Gpt2::small(tokens);
        model.tuning = Tuning::named(tuning, model.layers).ok_or("no such tuning")?;
        let path = scratch.path().join(format!("{tuning}.onnx"));
        model.write(&path)?;
        Ok(path)
    };
    let base = write("base")?;
    table(&format!("GPT-2 small, {tokens} tokens, {} suite", suite.name()), suite, &|tuning| {
        Ok((write(tuning)?, Weights { base: Some(base.clone()), ..Weights::default() }))
    })
}

/// Llama 7B. Its weights are not there, so names tell which are published.
fn llama_table(tokens: usize, suite: Suite) -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let model = llama::Llama::named("7b", tokens).ok_or("no such size")?;
    model.write_data(scratch.path())?;
    table(&format!("Llama 7B, {tokens} tokens, {} suite", suite.name()), suite, &|name| {
        let tuning = Tuning::named(name, model.layers).ok_or("no such tuning")?;
        let path = scratch.path().join(format!("{name}.onnx"));
        llama::Llama { tuning, ..model }.write(&path)?;
        Ok((path, llama_weights(&tuning, model.layers)))
    })
}

/// Names of Llama's weights that are the server's.
fn llama_weights(tuning: &Tuning, layers: usize) -> Weights {
    let mut weights = Weights::default();
    if !tuning.full {
        weights.private = vec!["*.lora_*".into()];
    } else if tuning.frozen > 0 {
        weights.private = (tuning.frozen..layers).map(|layer| format!("model.layers.{layer}.*")).collect();
        weights.private.push("model.norm.weight".into());
    }
    weights
}

/// Prints a row for each tuning.
fn table(title: &str, suite: Suite, write: Write<'_>) -> Result<(), Box<dyn Error>> {
    println!("{title}\n");
    println!(
        "| model | online MB | rounds | preprocess MB | setup MB | LAN s | WAN s | LAN total s | WAN total s |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (tuning, title) in ROWS {
        let (path, weights) = write(tuning)?;
        println!("| {title} | {} |", row(&path, &weights, suite)?);
        std::fs::remove_file(&path)?;
    }
    println!();
    Ok(())
}

fn row(path: &Path, weights: &Weights, suite: Suite) -> Result<String, Box<dyn Error>> {
    let prediction = |network| -> Result<Prediction, Box<dyn Error>> {
        let request = Request { network, suite, weights: weights.clone(), ..Request::default() };
        Ok(predict(&compile(path, &request)?.program, suite, network))
    };
    let (lan, wan) = (prediction(Network::LAN)?, prediction(Network::WAN)?);
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let seconds = |seconds: f64| format!("{seconds:.2}");
    Ok([
        megabytes(lan.online.total_bytes()),
        lan.online.rounds.to_string(),
        megabytes(lan.preprocess.total_bytes()),
        megabytes(lan.setup.total_bytes()),
        seconds(lan.online.seconds),
        seconds(wan.online.seconds),
        seconds(lan.total_seconds()),
        seconds(wan.total_seconds()),
    ]
    .join(" | "))
}
