//! All processes on this machine, once.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use marill_runtime::bundle::{PROGRAM_FILE, read_program};
use marill_runtime::error::Role;
use marill_runtime::inputs;
use marill_runtime::report::{check_reference, compare};

use super::local::Local;
use super::party::Allow;
use super::wire::Pace;
use super::{Suite, check_places, print, put, write_stats};

#[derive(Args)]
pub(super) struct Arguments {
    /// What the compiler wrote: a directory with client/ and server/
    directory: PathBuf,
    /// The inputs of both parties by name
    #[arg(long, value_name = "NPZ")]
    input: Option<PathBuf>,
    /// Where to write the outputs that the parties learn
    #[arg(long, value_name = "NPZ")]
    output: Option<PathBuf>,
    /// Expected outputs, to tell how far the outputs are from them; rows where an input attention_mask is 0 do not count
    #[arg(long, value_name = "NPZ")]
    reference: Option<PathBuf>,
    /// Where to write bytes, rounds, seconds and peak memory of all processes as JSON
    #[arg(long, value_name = "JSON")]
    stats: Option<PathBuf>,
    /// Who makes the correlations
    #[arg(long, value_enum, default_value = "two-party")]
    suite: Suite,
    /// Let the rounds begin when all correlations are there, not while they are made, so that every phase's seconds are
    /// its own
    #[arg(long)]
    in_turn: bool,
    /// Go without TLS
    #[arg(long)]
    insecure_plaintext: bool,
    #[command(flatten)]
    allow: Allow,
    #[command(flatten)]
    pace: Pace,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    check_places(&[&arguments.output, &arguments.stats])?;
    let local = Local {
        directory: &arguments.directory,
        suite: arguments.suite,
        insecure_plaintext: arguments.insecure_plaintext,
        allow: &arguments.allow,
        waits: &arguments.pace.waits,
        network: arguments.pace.network,
        in_turn: arguments.in_turn,
    };
    let (program, _) = read_program(&arguments.directory.join(Role::Client.to_string()).join(PROGRAM_FILE))?;
    let statement = arguments.allow.agree(&program)?;
    let given = arguments.input.as_deref().map(inputs::read).transpose()?.unwrap_or_default();
    let mask = given.get(print::MASK).cloned();
    let parts = inputs::divide(&program, &given)?;
    drop(given);
    let reference = arguments.reference.as_deref().map(inputs::read).transpose()?;
    if let Some(reference) = &reference {
        check_reference(&program, reference)?;
    }
    put(&format!("{statement}\n"))?;
    if !local.has_dealer() {
        put(
            "two-party suite: client and server make the correlations themselves, no third party takes part\n\n",
        )?;
    }
    let mut finished = local.run(&parts)?;
    if let Some(path) = &arguments.output {
        inputs::write(path, &finished.outputs)?;
    }
    if let Some(reference) = &reference {
        finished.report.accuracy = Some(compare(&finished.outputs, reference, mask.as_ref())?);
    }
    write_stats(arguments.stats.as_deref(), &finished.report)?;
    put(&format!("{}{}", print::outputs(&finished.outputs), print::report(&finished.report)))
}
