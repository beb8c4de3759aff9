//! `marillc simulate`: a compiled model's exact ring arithmetic in one process.

use std::slice;

use marill_compiler::bundle::Bundle;
use marill_compiler::calibrate::{self, CalibrationError};
use marill_compiler::precision::headroom;
use marill_compiler::{Diagnostic, npz};
use marill_plaintext::TensorType;
use marill_program::{Form, Instruction, ValidProgram};

use super::compile::Spinner;
use super::{SimulateArgs, emit, print, warn};

pub fn simulate(args: &SimulateArgs) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.bundle.join("server"))?;
    let sample = calibrate::read_sample(&args.input, &inputs(bundle.program()))?;
    let reference = match &args.reference {
        Some(path) => {
            Some(npz::read(path).map_err(|source| CalibrationError::File { path: path.clone(), source })?)
        }
        None => None,
    };
    let spinner = Spinner::new();
    spinner.step("simulating");
    let check = headroom::check_with(bundle.program(), slice::from_ref(&sample), &mut |name| {
        bundle.constant(name).map_err(|error| error.to_string())
    })
    .map_err(|error| match headroom::overflow_of(&error, bundle.program()) {
        Some(overflow) => anyhow::Error::from(Diagnostic::from(overflow)),
        None => CalibrationError::from(error).into(),
    })?;
    drop(spinner);

    let outputs = &check.outputs[0];
    let mut text = print::outputs(outputs);
    if let Some(reference) = reference {
        let masks = calibrate::attention_masks(slice::from_ref(&sample));
        let found = slice::from_ref(outputs);
        let agreements = calibrate::compare(found, &[reference], &masks)?;
        if agreements.is_empty() {
            let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
            anyhow::bail!("the reference has no array named like an output: {}", names.join(", "));
        }
        text.push_str(&print::agreements("against the reference", &agreements));
        if masks[0].as_ref().is_some_and(|mask| mask.to_i64_vec().is_ok_and(|mask| mask.contains(&0))) {
            text.push_str("  (positions that attention_mask leaves out are not compared)\n");
        }
    }
    text.push_str(&print::headroom(&check.headroom));
    if let Some(path) = &args.output {
        npz::write(path, outputs)?;
        text.push_str(&format!("\nwrote {}\n", path.display()));
    }
    emit(&text)?;
    if let Some(overflow) = headroom::first_overflow(&check) {
        warn(&Diagnostic::from(overflow).to_string());
    }
    Ok(())
}

fn inputs(program: &ValidProgram) -> Vec<(String, TensorType)> {
    let input = |at: usize| match (program.instruction(at), program.types()[at].form) {
        (Instruction::Input(input), Form::Plain { dtype, .. }) => {
            Some((input.name.clone(), TensorType::new(dtype, program.types()[at].shape.clone())))
        }
        _ => None,
    };
    (0..program.len()).filter_map(input).collect()
}
