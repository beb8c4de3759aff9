//! Both parties, and the dealer where the suite has one, as processes on this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use marill_plaintext::Tensor;
use marill_runtime::error::Role;
use marill_runtime::inputs;
use marill_runtime::report::Report;
use marill_runtime::transport::{CERTIFICATE_FILE, Identity, Network};

use super::party::Allow;
use super::supervisor::Supervisor;
use super::wire::Waits;
use super::{Suite, temporary_directory};

/// How the processes are run.
pub(super) struct Local<'a> {
    /// What the compiler wrote.
    pub directory: &'a Path,
    pub suite: Suite,
    pub insecure_plaintext: bool,
    pub allow: &'a Allow,
    pub waits: &'a Waits,
    /// What the links are slowed down to.
    pub network: Option<Network>,
    /// Rounds begin when all correlations are there.
    pub in_turn: bool,
}

/// What came of it, all processes taken together.
pub(super) struct Finished {
    pub outputs: BTreeMap<String, Tensor>,
    pub report: Report,
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

impl Local<'_> {
    pub(super) fn has_dealer(&self) -> bool {
        self.suite == Suite::Dealer
    }

    /// Runs the program once on the inputs of client and server.
    pub(super) fn run(&self, [client, server]: &[BTreeMap<String, Tensor>; 2]) -> Result<Finished> {
        let desk = Desk { directory: temporary_directory()? };
        inputs::write(&desk.of(Role::Client, "input.npz"), client)?;
        inputs::write(&desk.of(Role::Server, "input.npz"), server)?;
        if !self.insecure_plaintext {
            for role in std::iter::once(&Role::Client).chain(self.others()) {
                Identity::create_in(&desk.of(*role, "identity"))?;
            }
        }
        self.run_processes(&desk)?;
        let mut outputs: BTreeMap<String, Tensor> = inputs::read(&desk.of(Role::Server, "output.npz"))?;
        outputs.extend(inputs::read(&desk.of(Role::Client, "output.npz"))?);
        let mut report = read_report(&desk.of(Role::Client, "stats.json"))?;
        for role in self.others() {
            report = report.merged(&read_report(&desk.of(*role, "stats.json"))?);
        }
        Ok(Finished { outputs, report })
    }

    /// The command line of the child of `role`, less its addresses. `trusts` are options and whose certificate they
    /// name.
    fn line(&self, desk: &Desk, role: Role, command: [OsString; 2], trusts: &[(&str, Role)]) -> Line {
        let words = command.into_iter().filter(|word| !word.is_empty()).collect();
        let mut line = Line(words)
            .with("--stats", desk.of(role, "stats.json"))
            .with("--timeout", self.waits.timeout.as_secs_f64().to_string())
            .with("--patience", self.waits.patience.as_secs_f64().to_string());
        if role != Role::Dealer {
            line = line
                .with("--suite", if self.has_dealer() { "dealer" } else { "two-party" })
                .with("--input", desk.of(role, "input.npz"))
                .with("--output", desk.of(role, "output.npz"));
        }
        if self.in_turn && role != Role::Dealer {
            line.0.push("--in-turn".into());
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
        if let Some(network) = self.network.filter(|network| *network != Network::LOOPBACK) {
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

fn read_report(path: &Path) -> Result<Report> {
    let text = fs::read_to_string(path).context("a process left no statistics")?;
    serde_json::from_str(&text).context("a process left statistics that cannot be read")
}
