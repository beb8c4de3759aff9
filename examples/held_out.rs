//! How well fine-tuned models predict the next token of held-out text, in f32 and in the exact ring arithmetic
//! of their programs: `held_out [WINDOWS]`, all windows by default. The models are the trained ones of the
//! shared folder.

#[path = "../tests/support/models.rs"]
mod models;
#[path = "../tests/support/trained.rs"]
mod trained;

use std::error::Error;
use std::process::ExitCode;

use serde_json::Value;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("held_out: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let count = match std::env::args().nth(1).map(|text| text.parse::<usize>()) {
        None => usize::MAX,
        Some(Ok(count)) if count > 0 => count,
        Some(_) => return Err("WINDOWS is a number from 1 on".into()),
    };
    let folder = models::find_shared()?.join("trained");
    let windows = trained::held_out(&folder, count)?;
    let metrics: Value = serde_json::from_slice(&std::fs::read(folder.join("metrics.json"))?)?;
    println!("| model | windows | tokens | f32 % | ring % | difference, points | metrics.json % |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, base) in trained::TRAINED {
        let compiled = trained::compile_trained(&folder, name, base)?;
        let score = trained::score(&compiled, &windows)?;
        let percent = |right: usize| 100.0 * right as f64 / score.tokens as f64;
        let published = metrics["export"][name]["accuracy_eval_windows"].as_f64();
        println!(
            "| `{name}` | {} | {} | {:.2} | {:.2} | {:+.2} | {} |",
            windows.len(),
            score.tokens,
            percent(score.clear),
            percent(score.ring),
            percent(score.ring) - percent(score.clear),
            published.map_or("-".to_owned(), |share| format!("{:.2}", 100.0 * share)),
        );
        eprintln!("{name}: {} of {} predictions are the same", score.same, score.tokens);
    }
    Ok(())
}
