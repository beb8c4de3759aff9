//! Writes a GPT-2-shaped model with random weights, for measuring: `random_gpt2 OUT.onnx [block|step|small] [TOKENS]
//! [base|full|frozen|lora|lora-attention|heads|all|all-attention|all-attention-late]`. A step is a block's for one token
//! behind TOKENS cached ones. The last says how it was fine-tuned from the base.

#[path = "../tests/support/gpt2.rs"]
mod gpt2;
#[path = "../tests/support/numbers.rs"]
mod numbers;
#[path = "../tests/support/onnx.rs"]
#[expect(dead_code, reason = "what larger models need of it")]
mod onnx;
#[path = "../tests/support/tuning.rs"]
mod tuning;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &arguments[..] else {
        return Err("usage: random_gpt2 OUT.onnx [block|step|small] [TOKENS] [TUNING]".into());
    };
    let tokens = rest.get(1).map_or(Ok(128), |t| t.parse())?;
    let mut model = match rest.first().map(String::as_str) {
        Some("small") => gpt2::Gpt2::small(tokens),
        Some("step") => gpt2::Gpt2::step(tokens),
        _ => gpt2::Gpt2::block(tokens),
    };
    let tuning = rest.get(2).map_or("base", String::as_str);
    model.tuning =
        tuning::Tuning::named(tuning, model.layers).ok_or(format!("there is no tuning \"{tuning}\""))?;
    model.write(Path::new(path))?;
    println!("{path}: {model:?}");
    Ok(())
}
