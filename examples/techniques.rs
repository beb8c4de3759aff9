//! What each of Marill's techniques saves, at GPT-2 small's size with random weights: `techniques [TOKENS]`.
//!
//! Every row is one fine-tuned model, compiled against its base model. Bytes and rounds are exact, seconds predicted.

#[path = "../tests/support/gpt2.rs"]
mod gpt2;

use std::error::Error;

use marill_compiler::report::{Prediction, predict};
use marill_compiler::{Request, Weights, compile};
use marill_program::Network;

/// Tuning and what it stands for.
const ROWS: [(&str, &str); 7] = [
    ("full", "standard fine-tuning"),
    ("frozen", "first half frozen"),
    ("lora", "LoRA r=8, all linear layers"),
    ("lora-attention", "LoRA r=8, c_attn"),
    ("heads", "heads merged x4"),
    ("all", "all, LoRA in all linear layers"),
    ("all-attention", "all, LoRA in c_attn"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let tokens = std::env::args().nth(1).map_or(Ok(128), |text| text.parse())?;
    let scratch = tempfile::tempdir()?;
    let write = |tuning: &str| -> Result<_, Box<dyn Error>> {
        let mut model = gpt2::Gpt2::small(tokens);
        model.tuning = gpt2::Tuning::named(tuning, model.layers).ok_or("no such tuning")?;
        let path = scratch.path().join(format!("{tuning}.onnx"));
        model.write(&path)?;
        Ok(path)
    };
    let base = write("base")?;
    println!("GPT-2 small, {tokens} tokens\n");
    println!(
        "| model | online MB | rounds | preprocess MB | setup MB | LAN s | WAN s | LAN total s | WAN total s |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut first: Option<Prediction> = None;
    for (tuning, title) in ROWS {
        let path = write(tuning)?;
        let weights = Weights { base: Some(base.clone()), ..Weights::default() };
        let mut cells = Vec::new();
        let mut exact = None;
        for network in [Network::LAN, Network::WAN] {
            let request = Request { network, weights: weights.clone(), ..Request::default() };
            let compiled = compile(&path, &request)?;
            let prediction = predict(&compiled.program, network);
            cells.push((prediction.online.seconds, prediction.total_seconds()));
            exact.get_or_insert(prediction);
        }
        let Some(p) = exact else { continue };
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        println!(
            "| {title} | {} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            megabytes(p.online.total_bytes()),
            p.online.rounds,
            megabytes(p.preprocess.total_bytes()),
            megabytes(p.setup.total_bytes()),
            cells[0].0,
            cells[1].0,
            cells[0].1,
            cells[1].1,
        );
        std::fs::remove_file(&path)?;
        first.get_or_insert(p);
    }
    Ok(())
}
