//! Writes a GPT-2-shaped model with random weights, for measuring: `random_gpt2 OUT.onnx [block|small] [TOKENS]`.

#[path = "../tests/support/gpt2.rs"]
mod gpt2;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &arguments[..] else {
        return Err("usage: random_gpt2 OUT.onnx [block|small] [TOKENS]".into());
    };
    let tokens = rest.get(1).map_or(Ok(128), |t| t.parse())?;
    let model = match rest.first().map(String::as_str) {
        Some("small") => gpt2::Gpt2::small(tokens),
        _ => gpt2::Gpt2::block(tokens),
    };
    model.write(Path::new(path))?;
    println!("{path}: {model:?}");
    Ok(())
}
