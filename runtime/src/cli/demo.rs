//! All processes on this machine: both parties, and the dealer where the suite has one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use marill_plaintext::Tensor;
use marill_program::ValidProgram;
use marill_program::flow::{Consent, Statement};
use marill_runtime::bundle::{PROGRAM_FILE, read_program};
use marill_runtime::error::{Role, RunError};
use marill_runtime::inputs;
use marill_runtime::report::{Report, check_reference, compare};
use marill_runtime::session::trace;
use marill_runtime::transport::{CERTIFICATE_FILE, Identity, Network};

use super::party::Allow;
use super::supervisor::Supervisor;
use super::wire::Pace;
use super::{Suite, check_places, print, put, temporary_directory, write_stats};

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
    /// Go without TLS
    #[arg(long)]
    insecure_plaintext: bool,
    #[command(flatten)]
    allow: Allow,
    #[command(flatten)]
    pace: Pace,
}

/// The files of a run.
struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    fn of(&self, role: Role, file: &str) -> PathBuf {
        self.directory.path().join(format!("{role}-{file}"))
    }

    fn certificate(&self, role: Role) -> PathBuf {
        self.of(role, "identity").join(CERTIFICATE_FILE)
    }
}

/// A child's command line.
struct Line(Vec<OsString>);

impl Line {
    fn with(mut self, option: &str, value: impl Into<OsString>) -> Line {
        self.0.extend([option.into(), value.into()]);
        self
    }
}

impl Arguments {
    /// The command line of the child of `role`, less its addresses. `trusts` are options and whose certificate they
    /// name.
    fn line(&self, desk: &Desk, role: Role, command: [OsString; 2], trusts: &[(&str, Role)]) -> Line {
        let words = command.into_iter().filter(|word| !word.is_empty()).collect();
        let mut line = Line(words)
            .with("--stats", desk.of(role, "stats.json"))
            .with("--timeout", self.pace.timeout.as_secs_f64().to_string())
            .with("--patience", self.pace.patience.as_secs_f64().to_string());
        if role != Role::Dealer {
            line = line
                .with("--suite", if self.has_dealer() { "dealer" } else { "two-party" })
                .with("--input", desk.of(role, "input.npz"))
                .with("--output", desk.of(role, "output.npz"));
        }
        let options = match role {
            Role::Client => vec![
                ("--allow-reveal", &self.allow.allow_reveal),
                ("--allow-public", &self.allow.allow_public),
            ],
            Role::Server => vec![("--allow-reveal", &self.allow.allow_reveal)],
            Role::Dealer => Vec::new(),
        };
        for (option, names) in options {
            line = names.iter().fold(line, |line, name| line.with(option, name));
        }
        if let Some(network) = self.pace.network.filter(|network| *network != Network::LOOPBACK) {
            line = line.with("--network", network.to_string());
        }
        if self.insecure_plaintext {
            line.0.push("--insecure-plaintext".into());
            return line;
        }
        line = line.with("--identity", desk.of(role, "identity"));
        let known = trusts.iter().filter(|(_, whom)| self.has_dealer() || *whom != Role::Dealer);
        known.fold(line, |line, (option, whom)| line.with(option, desk.certificate(*whom)))
    }

    fn has_dealer(&self) -> bool {
        self.suite == Suite::Dealer
    }

    /// Everybody but the client.
    fn others(&self) -> &'static [Role] {
        if self.has_dealer() { &[Role::Server, Role::Dealer] } else { &[Role::Server] }
    }

    fn party_directory(&self, role: Role) -> PathBuf {
        self.directory.join(role.to_string())
    }

    /// Runs the processes, whose outputs and statistics then lie on the desk.
    fn run_processes(&self, desk: &Desk) -> Result<()> {
        let mut supervisor = Supervisor::new();
        let anywhere = "127.0.0.1:0";
        let mut dealer = None;
        if self.has_dealer() {
            let deal = self.line(
                desk,
                Role::Dealer,
                ["deal".into(), "".into()],
                &[("--trust-client", Role::Client), ("--trust-server", Role::Server)],
            );
            let deal = deal.with("--listen", anywhere).with("--public", self.party_directory(Role::Client));
            supervisor.spawn(Role::Dealer, &deal.0)?;
            dealer = Some(supervisor.address_of(Role::Dealer)?);
        }
        let reach = |line: Line| match &dealer {
            Some(dealer) => line.with("--dealer", dealer),
            None => line,
        };
        let serve = self.line(
            desk,
            Role::Server,
            ["serve".into(), self.party_directory(Role::Server).into()],
            &[("--trust", Role::Client), ("--trust-dealer", Role::Dealer)],
        );
        supervisor.spawn(Role::Server, &reach(serve.with("--listen", anywhere)).0)?;
        let server = supervisor.address_of(Role::Server)?;
        let run = self.line(
            desk,
            Role::Client,
            ["run".into(), self.party_directory(Role::Client).into()],
            &[("--trust", Role::Server), ("--trust-dealer", Role::Dealer)],
        );
        supervisor.spawn(Role::Client, &reach(run.with("--connect", server)).0)?;
        supervisor.wait()
    }
}

/// What the program tells whom, once both parties agree to it.
fn agree(program: &ValidProgram, allow: &Allow) -> Result<Statement, RunError> {
    let (flow, consent) = (trace(program)?, allow.consent());
    let refused = |party| move |reason| RunError::Refused { party, reason };
    consent.of_client(program, &flow).map_err(refused(Role::Client))?;
    let outputs = Consent { public_inputs: Default::default(), ..consent };
    outputs.of_server(program, &flow).map_err(refused(Role::Server))?;
    Ok(Statement::new(program, &flow))
}

fn read_report(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).context("a process left no statistics")?;
    serde_json::from_str(&text).context("a process left statistics that cannot be read")
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    check_places(&[&arguments.output, &arguments.stats])?;
    let (program, _) = read_program(&arguments.party_directory(Role::Client).join(PROGRAM_FILE))?;
    let statement = agree(&program, &arguments.allow)?;
    let given = arguments.input.as_deref().map(inputs::read).transpose()?.unwrap_or_default();
    let mask = given.get(print::MASK).cloned();
    let [client_inputs, server_inputs] = inputs::divide(&program, &given)?;
    drop(given);
    let reference = arguments.reference.as_deref().map(inputs::read).transpose()?;
    if let Some(reference) = &reference {
        check_reference(&program, reference)?;
    }

    let desk = Desk { directory: temporary_directory()? };
    inputs::write(&desk.of(Role::Client, "input.npz"), &client_inputs)?;
    inputs::write(&desk.of(Role::Server, "input.npz"), &server_inputs)?;
    if !arguments.insecure_plaintext {
        for role in std::iter::once(&Role::Client).chain(arguments.others()) {
            Identity::create_in(&desk.of(*role, "identity"))?;
        }
    }
    put(&format!("{statement}\n"))?;
    if !arguments.has_dealer() {
        put(
            "two-party suite: client and server make the correlations themselves, no third party takes part\n\n",
        )?;
    }
    arguments.run_processes(&desk)?;

    let mut outputs: BTreeMap<String, Tensor> = inputs::read(&desk.of(Role::Server, "output.npz"))?;
    outputs.extend(inputs::read(&desk.of(Role::Client, "output.npz"))?);
    let mut report = read_report(&desk.of(Role::Client, "stats.json"))?;
    for role in arguments.others() {
        report = report.merged(&read_report(&desk.of(*role, "stats.json"))?);
    }
    if let Some(path) = &arguments.output {
        inputs::write(path, &outputs)?;
    }
    if let Some(reference) = &reference {
        report.accuracy = Some(compare(&outputs, reference, mask.as_ref())?);
    }
    write_stats(arguments.stats.as_deref(), &report)?;
    put(&format!("{}{}", print::outputs(&outputs), print::report(&report)))
}
