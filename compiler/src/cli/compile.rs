//! `marillc MODEL.onnx -o OUT`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use marill_compiler::calibrate::{self, Calibration, Sample};
use marill_compiler::fitting::{self, Freedom};
use marill_compiler::ir::Graph;
use marill_compiler::report::report;
use marill_compiler::{Approximate, Numerics, Progress, Stage, bundle, import, read};

use super::{CompileArgs, emit, print, warn};

/// A spinner with the current step; nothing unless standard error is a terminal.
pub struct Spinner(ProgressBar);

impl Spinner {
    pub fn new() -> Spinner {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }

    pub fn step(&self, text: &'static str) {
        self.0.set_message(text);
    }

    fn observe(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Begins(stage) => self.step(match stage {
                Stage::Import => "reading the model",
                Stage::Normalise => "normalising",
                Stage::Published => "comparing with the base model",
                Stage::Ownership => "assigning owners",
                Stage::Rewrite => "rewriting",
                Stage::Lower => "lowering",
            }),
            Progress::Checks => self.step("checking on samples"),
            Progress::Made(..) => {}
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

pub fn compile(model: &Path, out: &Path, args: &CompileArgs) -> anyhow::Result<()> {
    let request = args.request.request();
    let spinner = Spinner::new();
    let mut warnings = unused_dims(model, args)?;
    let mut observer = |progress: Progress<'_>| spinner.observe(&progress);
    let read = read(model, &request, &mut observer)?;
    let samples = read_samples(model, &read.graph, args, &mut warnings)?;
    let (compiled, calibration) = fitting::fit(&read, &request, &freedom(args), &samples, &mut observer)?;
    warnings.extend(poor_agreement(&calibration));
    warnings.extend(wider_bounds(request.numerics, compiled.numerics));

    spinner.step("writing");
    match args.cost_only {
        true => bundle::write_programs(out, &compiled.lowered)?,
        false => bundle::write(out, &compiled.graph, &compiled.lowered)?,
    }
    let is_synthetic = args.calibrate.is_empty();
    let report = report(&compiled, &calibration, samples.len(), is_synthetic, request.suite, request.network);
    let json = serde_json::to_string_pretty(&report)? + "\n";
    let path = out.join("report.json");
    fs::write(&path, &json).map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    drop(spinner);

    warnings.iter().for_each(|text| warn(text));
    if args.json {
        return emit(&json);
    }
    let mut text = print::summary(model, &compiled, &report);
    let out = out.display();
    text.push_str(&match args.cost_only {
        true => format!("\nwrote {out} without weights, for marillc explain and marillc compare\n"),
        false => format!(
            "\nwrote {out}/client and {out}/server; {out}/report.json depends on private weights, keep it with the \
             server\n"
        ),
    });
    emit(&text)
}

/// What samples may choose: what the user did not say.
fn freedom(args: &CompileArgs) -> Freedom {
    let approximate = match (args.request.approximate, args.max_error) {
        (Some(level), _) => vec![level.into()],
        (None, Some(_)) => vec![Approximate::Balanced, Approximate::Exact],
        (None, None) => vec![Approximate::Exact],
    };
    Freedom {
        hidden_bits: args.request.hidden_bits.is_none(),
        range_bits: args.request.range_bits.is_none(),
        approximate,
        max_error: args.max_error,
    }
}

/// That the samples needed wider bounds than usual.
fn wider_bounds(asked: Numerics, taken: Numerics) -> Option<String> {
    (asked != taken).then(|| {
        format!(
            "the samples need wider bounds than usual: --hidden-bits {} --range-bits {} were taken, which both parties see",
            taken.hidden_bits.max(taken.range_bits),
            taken.range_bits
        )
    })
}

/// The samples to check on; none if that is not wanted.
fn read_samples(
    model: &Path,
    graph: &Graph,
    args: &CompileArgs,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Vec<Sample>> {
    if args.cost_only {
        return Ok(Vec::new());
    }
    if args.skip_check {
        warnings.push("the program was not checked on samples".to_owned());
        return Ok(Vec::new());
    }
    if args.calibrate.is_empty() {
        warnings.push(
            "no --calibrate given: the program was checked on made-up inputs, real ones may need wider bounds"
                .to_owned(),
        );
        return Ok(vec![calibrate::synthesise(graph)]);
    }
    let tokenizer = args.tokenizer.clone().unwrap_or_else(|| model.with_file_name("tokenizer.json"));
    Ok(calibrate::read_samples(&args.calibrate, &tokenizer, &calibrate::inputs(graph))?)
}

/// A warning for each `--dim` that no input's shape has.
fn unused_dims(model: &Path, args: &CompileArgs) -> anyhow::Result<Vec<String>> {
    if args.request.dims.is_empty() {
        return Ok(Vec::new());
    }
    let known = import::symbolic_dims(model)?;
    let has = if known.is_empty() {
        "it has none".to_owned()
    } else {
        format!("its symbolic dimensions are {}", known.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let unused = args.request.dims.iter().filter(|(name, _)| !known.contains(name));
    Ok(unused.map(|(name, _)| format!("--dim {name} is not in the model, {has}")).collect())
}

fn poor_agreement(calibration: &Calibration) -> Vec<String> {
    let poor = calibration.agreements.iter().filter(|agreement| agreement.is_poor());
    let text = |a: &calibrate::Agreement| {
        format!(
            "output \"{}\" is off by up to {:.2e} (its largest value is {:.2e}): more --frac-bits make it finer, more \
             --range-bits let values be larger",
            a.output, a.max_abs_error, a.max_abs
        )
    };
    poor.map(text).collect()
}
