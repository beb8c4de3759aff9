//! `marillc MODEL.onnx -o OUT`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use marill_compiler::calibrate::{self, Calibration, Sample};
use marill_compiler::precision::headroom;
use marill_compiler::report::report;
use marill_compiler::{Progress, Request, Stage, bundle, compile_observed, import};

use super::{CompileArgs, SuiteName, emit, print, warn};

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
    if args.suite == Some(SuiteName::TwoParty) {
        anyhow::bail!("the two-party suite is not available yet, --suite dealer works");
    }
    let request = Request { network: args.network, ..args.request.request() };
    let spinner = Spinner::new();
    let compiled = compile_observed(model, &request, &mut |progress| spinner.stage(&progress))?;
    let mut warnings = unused_dims(model, args)?;

    let samples = if args.skip_check {
        warnings.push("the program was not checked on samples".to_owned());
        Vec::new()
    } else if args.calibrate.is_empty() {
        warnings.push(
            "no --calibrate given: the program was checked on made-up inputs, real ones may need more --range-bits"
                .to_owned(),
        );
        vec![calibrate::synthesise(&compiled.graph)]
    } else {
        let inputs = calibrate::inputs(&compiled.graph);
        let read = args.calibrate.iter().map(|path| calibrate::read_sample(path, &inputs));
        read.collect::<Result<Vec<Sample>, _>>()?
    };
    spinner.step("checking on samples");
    let calibration = calibrate::calibrate(&compiled, &samples)?;
    if let Some(overflow) = headroom::first_overflow(&calibration.check) {
        return Err(overflow.into());
    }
    warnings.extend(poor_agreement(&calibration));

    spinner.step("writing");
    bundle::write(out, &compiled.graph, &compiled.lowered)?;
    let is_synthetic = args.calibrate.is_empty();
    let report = report(&compiled, &calibration, samples.len(), is_synthetic, args.network);
    let json = serde_json::to_string_pretty(&report)? + "\n";
    let path = out.join("report.json");
    fs::write(&path, &json).map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
    drop(spinner);

    warnings.iter().for_each(|text| warn(text));
    if args.json {
        if args.suite.is_none() {
            warn(SUITE_NOTE);
        }
        return emit(&json);
    }
    let mut text = print::summary(model, &compiled, &report);
    if args.suite.is_none() {
        text.push_str(&format!("\n{SUITE_NOTE}\n"));
    }
    let out = out.display();
    text.push_str(&format!(
        "\nwrote {out}/client and {out}/server; {out}/report.json depends on private weights, keep it with the server\n"
    ));
    emit(&text)
}

const SUITE_NOTE: &str = "predictions are for the dealer suite; the two-party suite cannot run yet";

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
