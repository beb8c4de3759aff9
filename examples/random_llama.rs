//! Writes a Llama-shaped model whose weights are a sparse file beside it, for measuring what compiling takes:
//! `random_llama OUT.onnx [7b|70b] [TOKENS] [f32|f16] [base|full|frozen|lora|lora-attention|heads|all|all-attention]`.
//! The head's weights alone take room on the disk.

#[path = "../tests/support/llama.rs"]
mod llama;
#[path = "../tests/support/numbers.rs"]
mod numbers;
#[path = "../tests/support/onnx.rs"]
mod onnx;
#[path = "../tests/support/tuning.rs"]
mod tuning;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &arguments[..] else {
        return Err("usage: random_llama OUT.onnx [7b|70b] [TOKENS] [f32|f16] [TUNING]".into());
    };
    let tokens = rest.get(1).map_or(Ok(128), |t| t.parse())?;
    let size = rest.first().map_or("7b", String::as_str);
    let mut model = llama::Llama::named(size, tokens).ok_or(format!("there is no size \"{size}\""))?;
    model.half = rest.get(2).is_some_and(|element| element == "f16");
    let tuning = rest.get(3).map_or("base", String::as_str);
    model.tuning =
        tuning::Tuning::named(tuning, model.layers).ok_or(format!("there is no tuning \"{tuning}\""))?;
    let path = Path::new(path);
    model.write_data(path.parent().unwrap_or(Path::new("")))?;
    model.write(path)?;
    println!("{}: {model:?}", path.display());
    Ok(())
}
