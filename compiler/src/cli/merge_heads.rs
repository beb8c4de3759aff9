//! `marillc merge-heads`: a model of fewer, wider heads.

use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;

use clap::Args;
use marill_compiler::Request;
use marill_compiler::merge_heads::savings::{RunCost, run_cost};
use marill_compiler::merge_heads::{LayerReport, MergeReport, MergeRequest, merge};
use serde::Serialize;

use super::compile::Spinner;
use super::{emit, parse_dim, print, warn};

#[derive(Debug, Args)]
pub struct MergeHeadsArgs {
    /// The model
    #[arg(value_name = "BASE.onnx")]
    base: PathBuf,
    /// How many heads become one
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=1024))]
    factor: u32,
    /// Sample inputs to choose heads by: an npz file for each, with arrays named like the inputs, or a text, with the
    /// model's tokenizer.json beside it [default: inputs are made up]
    #[arg(long, value_name = "X.npz|TEXT")]
    calibrate: Vec<PathBuf>,
    /// Layers to change, from A to before B, counted from 0 [default: all]
    #[arg(long, value_name = "A..B", value_parser = parse_layers)]
    layers: Option<Range<usize>>,
    /// Size of a symbolic dimension
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    dims: Vec<(String, usize)>,
    /// The model to write
    #[arg(short, long, value_name = "MERGED.onnx")]
    out: PathBuf,
    /// Print the report as JSON, and nothing else, to standard output
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    merge: &'a MergeReport,
    costs: Option<Costs>,
}

/// What a run of each model takes.
#[derive(Serialize)]
struct Costs {
    base: RunCost,
    merged: RunCost,
}

pub fn merge_heads(args: &MergeHeadsArgs) -> anyhow::Result<()> {
    let request = MergeRequest {
        factor: args.factor as usize,
        layers: args.layers.clone(),
        dims: args.dims.iter().cloned().collect(),
        samples: args.calibrate.clone(),
        keeps_order: false,
    };
    let compile = Request { dims: request.dims.clone(), ..Request::default() };
    let spinner = Spinner::new();
    spinner.step("compiling the base");
    // Before anything is written: both may be one file.
    let base = run_cost(&args.base, &compile);
    spinner.step("merging heads");
    let report = merge(&args.base, &args.out, &request)?;
    spinner.step("compiling the result");
    let costs = base.and_then(|base| Ok(Costs { base, merged: run_cost(&args.out, &compile)? }));
    drop(spinner);
    if report.is_synthetic {
        warn("no --calibrate given: heads were chosen by made-up inputs, real ones make better groups");
    }
    if let Err(error) = &costs {
        warn(&format!("what is saved cannot be told: {error}"));
    }
    let costs = costs.ok();
    if args.json {
        return emit(&(serde_json::to_string_pretty(&Report { merge: &report, costs })? + "\n"));
    }
    let mut text = layers(&report);
    text.push_str(&print::agreements(
        "before fine-tuning, against the model with its own heads",
        &report.outputs,
    ));
    if let Some(costs) = costs {
        text.push_str(&table(&costs));
    }
    let _ = writeln!(text, "\nwrote {}", args.out.display());
    emit(&text)
}

fn layers(report: &MergeReport) -> String {
    let mut text = String::new();
    for layer in &report.layers {
        let heads = layer.heads / report.factor;
        let _ = write!(
            text,
            "layer {}  {} heads of {} -> {heads} of {}  {}",
            layer.layer,
            layer.heads,
            layer.width,
            layer.width * report.factor,
            groups(layer)
        );
        if let Some(fit) = layer.fit {
            let _ = write!(
                text,
                "  alike {:.2}  error {:.3} (neighbours {:.3})",
                fit.similarity, fit.relative_error, fit.neighbours_error
            );
        }
        text.push('\n');
    }
    text
}

fn groups(layer: &LayerReport) -> String {
    let group = |group: &Vec<usize>| group.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
    layer.groups.iter().map(group).collect::<Vec<_>>().join(" ")
}

fn table(costs: &Costs) -> String {
    let mut text = format!("\n{:<26} {:>12} {:>12}\n", "a run, two-party suite", "base", "merged");
    let mut row = |name: &str, value: &dyn Fn(&RunCost) -> String| {
        let _ = writeln!(text, "  {name:<24} {:>12} {:>12}", value(&costs.base), value(&costs.merged));
    };
    row("online", &|cost| print::bytes(cost.online_bytes));
    row("  of it softmax", &|cost| print::bytes(cost.softmax_online_bytes));
    row("rounds", &|cost| cost.rounds.to_string());
    row("preprocessing", &|cost| print::bytes(cost.preprocess_bytes));
    row("  of it softmax", &|cost| print::bytes(cost.softmax_preprocess_bytes));
    text
}

fn parse_layers(text: &str) -> Result<Range<usize>, String> {
    let bounds = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    match bounds {
        Some(layers) if !layers.is_empty() => Ok(layers),
        _ => Err("expected is A..B with A below B, as in 2..4".to_owned()),
    }
}
