//! The command line: arguments in, text out.

mod bench;
mod deal;
mod demo;
mod keygen;
mod local;
mod look;
mod party;
mod prepare;
mod print;
mod progress;
mod supervisor;
mod wire;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use marill_program::flow::is_hidden;
use marill_runtime::error::RunError;
use marill_runtime::report::Report;
use serde::Serialize;

/// Runs compiled programs between two parties: the client, who has the inputs, and the server, who has the weights.
#[derive(Parser)]
#[command(name = "marill", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run client and server (and a dealer, where the suite has one) as processes on this machine, over TCP with TLS
    Demo(demo::Arguments),
    /// Measure programs with processes on this machine: seconds, bytes, rounds and memory by phase
    Bench(bench::Arguments),
    /// Be the server: wait for one client, run once, exit
    Serve(party::ServeArguments),
    /// Be the client: call the server (and the dealer, where the suite has one), run once
    Run(party::RunArguments),
    /// Be the dealer: make correlations for one run, exit
    Deal(deal::Arguments),
    /// Make the correlations of one run with the other party ahead of the inputs, and keep this party's part
    Prepare(prepare::Arguments),
    /// Make an identity for TLS, certificate.pem to give to the others and key.pem to keep, or a key of stores
    Keygen(keygen::Arguments),
    /// Check a program file, or the directory of one or both parties
    Verify(look::VerifyArguments),
    /// Show a program as text, and what it costs
    Inspect(look::InspectArguments),
}

/// Who makes the correlations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The two parties between them
    TwoParty,
    /// A third process that sees no data, and that must not collude with either party
    Dealer,
}

impl From<Suite> for marill_program::Suite {
    fn from(suite: Suite) -> marill_program::Suite {
        match suite {
            Suite::TwoParty => marill_program::Suite::TwoParty,
            Suite::Dealer => marill_program::Suite::Dealer,
        }
    }
}

/// Parses, runs, and tells what went wrong in one line.
pub fn main() -> ExitCode {
    marill_kernels::threads::join_pool();
    marill_kernels::memory::keep();
    let result = match Cli::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Serve(arguments) => party::serve(&arguments),
        Command::Run(arguments) => party::run(&arguments),
        Command::Deal(arguments) => deal::run(&arguments),
        Command::Prepare(arguments) => prepare::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Verify(arguments) => look::verify(&arguments),
        Command::Inspect(arguments) => look::inspect(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            let line: Vec<&str> = text.lines().map(str::trim).collect();
            let _ = writeln!(io::stderr(), "error: {}", printable(&line.join("; ")));
            ExitCode::FAILURE
        }
    }
}

/// Text whose hidden characters show: names in it come from programs that somebody else wrote.
fn printable(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c != '\n' && is_hidden(c) => all.extend(c.escape_default()),
            c => all.push(c),
        }
    }
    all
}

/// Prints for people.
fn put(text: &str) -> Result<()> {
    write_out(&printable(text))
}

/// Prints for programs.
fn put_json(value: &impl Serialize) -> Result<()> {
    write_out(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints and flushes; a reader who has seen enough is no error.
fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => bail!("could not print: {error}"),
        _ => Ok(()),
    }
}

fn write_stats(path: Option<&Path>, report: &Report) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    std::fs::write(path, json)
        .map_err(|source| RunError::File { path: PathBuf::from(path), action: "write", source }.into())
}

/// Finds out before a long run that its results have nowhere to go.
fn check_places(paths: &[&Option<PathBuf>]) -> Result<()> {
    for path in paths.iter().filter_map(|path| path.as_deref()) {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if path.is_dir() || !parent.is_dir() {
            bail!("cannot write {}: it is a directory, or its directory does not exist", path.display());
        }
    }
    Ok(())
}

fn temporary_directory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("marill-").tempdir().context("could not make a temporary directory")
}
