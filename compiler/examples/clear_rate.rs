//! How fast a model runs in the clear, and where the time goes: `clear_rate MODEL.onnx [RUNS] [IO.npz]`. Inputs are
//! small counting numbers; they and the outputs go to `IO.npz`, so that `onnxruntime_rate.py` can compare.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use marill_compiler::import::{ImportRequest, import};
use marill_compiler::ir::{Constant, Graph, NodeKind, interpret, interpret_with};
use marill_compiler::normalise::normalise;
use marill_compiler::npz;
use marill_plaintext::{DType, Tensor, TensorType};

type Failure = Box<dyn std::error::Error>;

fn counting(ty: &TensorType) -> Result<Tensor, Failure> {
    let values = (0..ty.len() as i64).map(|i| i * 7919 % 1009).collect();
    let tensor = Tensor::i64(ty.shape.clone(), values)?;
    Ok(if ty.dtype == DType::Bool { Tensor::zeros(ty.clone())? } else { tensor.cast(ty.dtype) })
}

/// Seconds of each kind of operation in one run.
fn by_operation(graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, f64)>, Failure> {
    let (mut taken, mut since) = (BTreeMap::<String, f64>::new(), Instant::now());
    interpret_with(graph, inputs, &mut |id, value| {
        let name = match &graph.node(id).kind {
            NodeKind::Apply(op) => format!("{} {}", op.name(), value.ty()),
            _ => "operands".to_owned(),
        };
        *taken.entry(name).or_default() += since.elapsed().as_secs_f64();
        since = Instant::now();
    })?;
    let mut taken: Vec<(String, f64)> = taken.into_iter().collect();
    taken.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(taken)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &arguments[..] else {
        return Err("usage: clear_rate MODEL.onnx [RUNS] [IO.npz]".into());
    };
    let runs = rest.first().map_or(Ok(10), |text| text.parse::<usize>())?;
    let mut graph = normalise(import(Path::new(path), &ImportRequest::default())?)?;
    let start = Instant::now();
    for id in graph.topological() {
        if let NodeKind::Constant(constant) = &graph.node(id).kind {
            let loaded = Constant::inline(constant.load()?);
            graph.node_mut(id).kind = NodeKind::Constant(loaded);
        }
    }
    println!("constants: {:.3} s", start.elapsed().as_secs_f64());
    let mut inputs = BTreeMap::new();
    for &id in &graph.inputs {
        let node = graph.node(id);
        inputs.insert(node.name.clone(), counting(&node.facts.ty)?);
    }
    let mut seconds = Vec::new();
    let mut outputs = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        outputs = interpret(&graph, &inputs)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "run: best {:.3} s, median {:.3} s of {}",
        seconds[0],
        seconds[seconds.len() / 2],
        seconds.len()
    );
    for (name, seconds) in by_operation(&graph, &inputs)?.into_iter().take(16) {
        println!("{seconds:8.4} s  {name}");
    }
    if let Some(file) = rest.get(1) {
        inputs.extend(outputs);
        npz::write(Path::new(file), &inputs)?;
    }
    Ok(())
}
