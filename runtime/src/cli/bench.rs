//! What programs take, with every suite and on every network that is asked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use marill_plaintext::{DType, Tensor, TensorType};
use marill_program::{Instruction, ValidProgram};
use marill_runtime::bundle::{PROGRAM_FILE, read_program};
use marill_runtime::error::Role;
use marill_runtime::inputs;
use marill_runtime::report::{PhaseReport, Report};
use marill_runtime::transport::Network;
use serde::Serialize;

use super::local::Local;
use super::party::Allow;
use super::wire::Waits;
use super::{Suite, check_places, print, put};

#[derive(Args)]
pub(super) struct Arguments {
    /// What the compiler wrote: directories with client/ and server/
    #[arg(required = true)]
    directories: Vec<PathBuf>,
    /// Who makes the correlations; may be given again
    #[arg(long = "suite", value_enum, default_value = "two-party")]
    suites: Vec<Suite>,
    /// Slow the links down to loopback, lan, wan, or BANDWIDTH,RTT such as 200Mbit,40ms; may be given again
    #[arg(long = "network", value_name = "NETWORK", default_value = "loopback")]
    networks: Vec<Network>,
    /// Run each so many times and show the run whose seconds in all are the median
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// The inputs of both parties by name, where made-up ones do not do: they change the outputs and nothing else
    #[arg(long, value_name = "NPZ")]
    input: Option<PathBuf>,
    /// Where to write the same as JSON
    #[arg(long, value_name = "JSON")]
    json: Option<PathBuf>,
    /// Go without TLS
    #[arg(long)]
    insecure_plaintext: bool,
    #[command(flatten)]
    allow: Allow,
    #[command(flatten)]
    waits: Waits,
}

/// One program with one suite on one network.
#[derive(Serialize)]
struct Case {
    directory: PathBuf,
    network: String,
    report: Report,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    check_places(&[&arguments.json])?;
    let given = arguments.input.as_deref().map(inputs::read).transpose()?;
    let mut programs = Vec::new();
    for directory in &arguments.directories {
        let path = directory.join(Role::Client.to_string()).join(PROGRAM_FILE);
        let (program, _) = read_program(&path)?;
        arguments.allow.agree(&program)?;
        let all = given.clone().map_or_else(|| made_up(&program), Ok)?;
        programs.push((directory, inputs::divide(&program, &all)?));
    }
    let mut cases = Vec::new();
    for (directory, parts) in &programs {
        put(&format!("{}\n{}", directory.display(), heading()))?;
        for &suite in &arguments.suites {
            for &network in &arguments.networks {
                let report = median(arguments, directory, suite, network, parts)?;
                put(&rows(suite, network, &report))?;
                cases.push(Case { directory: directory.to_path_buf(), network: network.to_string(), report });
            }
        }
    }
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&cases)? + "\n";
        std::fs::write(path, json).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

/// Inputs of the right types: numbers between -1 and 1, the first token or class, nothing masked out.
fn made_up(program: &ValidProgram) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for at in 0..program.len() {
        let Instruction::Input(input) = program.instruction(at) else { continue };
        let TensorType { dtype, shape } = input.ty.parse()?;
        let count = shape.iter().product();
        let tensor = match dtype {
            DType::F32 => {
                Tensor::f32(shape, (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0).collect())
            }
            DType::I64 => Tensor::i64(shape, vec![i64::from(input.name == print::MASK); count]),
            DType::Bool => Tensor::bool(shape, vec![true; count]),
        }?;
        all.insert(input.name.clone(), tensor);
    }
    Ok(all)
}

fn median(
    arguments: &Arguments,
    directory: &Path,
    suite: Suite,
    network: Network,
    parts: &[BTreeMap<String, Tensor>; 2],
) -> Result<Report> {
    let local = Local {
        directory,
        suite,
        insecure_plaintext: arguments.insecure_plaintext,
        allow: &arguments.allow,
        waits: &arguments.waits,
        network: Some(network),
        in_turn: true,
    };
    let mut reports = Vec::new();
    for _ in 0..arguments.runs {
        reports.push(local.run(parts)?.report);
    }
    let total_s =
        |report: &Report| print::PHASES.map(|phase| report.phase(phase).seconds).iter().sum::<f64>();
    reports.sort_by(|a, b| total_s(a).total_cmp(&total_s(b)));
    let middle = (reports.len() - 1) / 2;
    Ok(reports.swap_remove(middle))
}

fn heading() -> String {
    format!(
        "{:<11}{:<17}{:<12}{:>10}{:>14}{:>12}{:>12}{:>8}\n",
        "suite", "network", "phase", "time", "network alone", "sent", "received", "rounds"
    )
}

/// A line for each phase, as the client sees it, and one of the most memory.
fn rows(suite: Suite, network: Network, report: &Report) -> String {
    let mut text = String::new();
    let name = marill_program::Suite::from(suite).name();
    for phase in print::PHASES {
        let taken = report.phase(phase);
        let of_client = |count: Option<u64>| print::bytes(count.unwrap_or_default());
        let _ = writeln!(
            text,
            "{:<11}{:<17}{:<12}{:>10}{:>14}{:>12}{:>12}{:>8}",
            name,
            network.to_string(),
            phase.to_string(),
            print::seconds(taken.seconds),
            print::seconds(network_seconds(taken, network)),
            of_client(taken.bytes_sent.client),
            of_client(taken.bytes_received.client),
            taken.rounds.unwrap_or_default()
        );
    }
    let _ = writeln!(text, "{:<28}{}", "", print::peaks(report).unwrap_or_default());
    text
}

/// What the client's links alone would take: the longer of both directions, and half a round trip for each round.
fn network_seconds(taken: &PhaseReport, network: Network) -> f64 {
    let bytes = taken.bytes_sent.client.max(taken.bytes_received.client).unwrap_or_default();
    let rounds = taken.rounds.unwrap_or_default();
    8.0 * bytes as f64 / network.bandwidth_bits_per_second + rounds as f64 * network.rtt_seconds / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use marill_runtime::report::PerRole;

    #[test]
    fn a_network_takes_the_longer_direction_and_half_a_round_trip_per_round() {
        let bytes = |client| PerRole { client: Some(client), ..PerRole::default() };
        let taken = PhaseReport {
            bytes_sent: bytes(1_000_000),
            bytes_received: bytes(2_500_000),
            rounds: Some(10),
            seconds: 9.0,
        };
        let network: Network = "100Mbit,40ms".parse().unwrap();
        assert!((network_seconds(&taken, network) - 0.4).abs() < 1e-9);
    }
}
