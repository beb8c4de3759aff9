//! `marillc MODEL.onnx -o OUT`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use marill_compiler::calibrate::{self, Calibration, Sample};
use marill_compiler::precision::headroom;
use marill_compiler::report::report;
use marill_compiler::{Approximate, Compiled, Progress, Request, Stage, bundle, compile_observed, import};

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

    fn stage(&self, progress: &Progress<'_>) {
        if let Progress::Begins(stage) = progress {
            self.step(match stage {
                Stage::Import => "reading the model",
                Stage::Normalise => "normalising",
                Stage::Published => "comparing with the base model",
                Stage::Ownership => "assigning owners",
                Stage::Rewrite => "rewriting",
                Stage::Lower => "lowering",
            });
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
    let mut samples: Option<Vec<Sample>> = None;
    let levels = levels(args);
    let mut tried = Vec::new();
    let (compiled, calibration) = loop {
        let Some(&approximate) = levels.get(tried.len()) else { return Err(too_far(args, &tried)) };
        let request = Request { approximate, ..request.clone() };
        let compiled = compile_observed(model, &request, &mut |progress| spinner.stage(&progress))?;
        let samples = match &samples {
            Some(samples) => samples,
            None => samples.insert(read_samples(&compiled, args, &mut warnings)?),
        };
        spinner.step("checking on samples");
        let calibration = calibrate::calibrate(&compiled, samples)?;
        if let Some(overflow) = headroom::first_overflow(&calibration.check) {
            return Err(overflow.into());
        }
        if args.max_error.is_none_or(|most| calibration.max_error() <= most) {
            break (compiled, calibration);
        }
        tried.push((approximate, calibration.max_error()));
    };
    let samples = samples.unwrap_or_default();
    warnings.extend(poor_agreement(&calibration));

    spinner.step("writing");
    bundle::write(out, &compiled.graph, &compiled.lowered)?;
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
    text.push_str(&format!(
        "\nwrote {out}/client and {out}/server; {out}/report.json depends on private weights, keep it with the server\n"
    ));
    emit(&text)
}

/// What is tried in turn, the cheapest first.
fn levels(args: &CompileArgs) -> Vec<Approximate> {
    match (args.request.approximate, args.max_error) {
        (Some(level), _) => vec![level.into()],
        (None, Some(_)) => vec![Approximate::Balanced, Approximate::Exact],
        (None, None) => vec![Approximate::Exact],
    }
}

/// That no level keeps the error which is asked for.
fn too_far(args: &CompileArgs, tried: &[(Approximate, f64)]) -> anyhow::Error {
    let found: Vec<String> = tried.iter().map(|(level, error)| format!("{error:.2e} with {level}")).collect();
    let most = args.max_error.unwrap_or_default();
    let help = match tried.iter().any(|(level, _)| *level == Approximate::Exact) {
        true => "more --frac-bits make them finer",
        false => "--approximate exact makes activations exact",
    };
    anyhow::anyhow!(
        "the samples' outputs are off by {}, more than --max-error {most:e}: {help}",
        found.join(", ")
    )
}

/// The samples to check on; none if that is not wanted.
fn read_samples(
    compiled: &Compiled,
    args: &CompileArgs,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Vec<Sample>> {
    if args.skip_check {
        warnings.push("the program was not checked on samples".to_owned());
        return Ok(Vec::new());
    }
    if args.calibrate.is_empty() {
        warnings.push(
            "no --calibrate given: the program was checked on made-up inputs, real ones may need more --range-bits"
                .to_owned(),
        );
        return Ok(vec![calibrate::synthesise(&compiled.graph)]);
    }
    let inputs = calibrate::inputs(&compiled.graph);
    let read = args.calibrate.iter().map(|path| calibrate::read_sample(path, &inputs));
    Ok(read.collect::<Result<Vec<Sample>, _>>()?)
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
