//! A parent that runs the three processes, and what a child does for it.
//!
//! A child writes lines to its standard output: `listening on ADDRESS`, `progress PHASE DONE TOTAL`, and when it fails
//! `fault own` or, when all it knows is that a peer went away, `fault peer`. It ends when its standard input closes, so
//! no child outlives its parent.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use marill_runtime::error::{Role, RunError, TransportFault};

use super::progress::Progress;
use super::put;

/// How often children are looked at.
const PACE: Duration = Duration::from_millis(10);
/// How long the others may take to say what they saw when one has failed.
const GRACE: Duration = Duration::from_millis(1500);

/// Runs `work`, as a child that heeds its parent where `supervised`.
pub(super) fn obey(supervised: bool, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if !supervised {
        return work();
    }
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    });
    let result = work();
    if let Err(error) = &result {
        put(if is_echo(error) { "fault peer\n" } else { "fault own\n" })?;
    }
    result
}

/// Whether an error only tells that a peer went away.
fn is_echo(error: &Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(RunError::Transport {
            source: TransportFault::Closed | TransportFault::AlreadyFailed | TransportFault::Silent { .. },
            ..
        })
    )
}

struct Process {
    role: Role,
    child: Child,
    ended: Option<ExitStatus>,
    echo: bool,
    // Open as long as the child is wanted.
    _stdin: Option<ChildStdin>,
    errors: Option<JoinHandle<String>>,
}

pub(super) struct Supervisor {
    processes: Vec<Process>,
    sender: Sender<(Role, String)>,
    lines: Receiver<(Role, String)>,
    progress: Progress,
}

impl Supervisor {
    pub(super) fn new() -> Supervisor {
        let (sender, lines) = channel();
        // The server sees both the bytes of preprocessing and the rounds.
        Supervisor { processes: Vec::new(), sender, lines, progress: Progress::new(Role::Server, false) }
    }

    /// Starts this program again with other arguments.
    pub(super) fn spawn(&mut self, role: Role, arguments: &[OsString]) -> Result<()> {
        let own = std::env::current_exe().context("could not find this program's own file")?;
        let mut child = Command::new(own)
            .args(arguments)
            .arg("--supervised")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start the {role}"))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(stdout) = stdout {
            let sender = self.sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send((role, line)).is_err() {
                        break;
                    }
                }
            });
        }
        let errors = stderr.map(|mut stderr| {
            thread::spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        self.processes.push(Process { role, child, ended: None, echo: false, _stdin: stdin, errors });
        Ok(())
    }

    /// Where the child of `role` listens.
    pub(super) fn address_of(&mut self, role: Role) -> Result<String> {
        loop {
            if let Some((from, line)) = self.next_line()
                && from == role
                && let Some(address) = line.strip_prefix("listening on ")
            {
                return Ok(address.to_owned());
            }
            self.look()?;
            if self.processes.iter().any(|process| process.role == role && process.ended.is_some()) {
                return Err(anyhow!("the {role} ended before it listened"));
            }
        }
    }

    /// Waits until all children have ended well.
    pub(super) fn wait(&mut self) -> Result<()> {
        while self.processes.iter().any(|process| process.ended.is_none()) {
            self.next_line();
            self.look()?;
        }
        self.progress.finish();
        Ok(())
    }

    /// Hears the next line, if one comes soon.
    fn next_line(&mut self) -> Option<(Role, String)> {
        let (role, line) = match self.lines.recv_timeout(PACE) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        };
        if role == Role::Server && line.starts_with("progress ") {
            self.progress.hear_line(&line);
        }
        if line == "fault peer" {
            self.processes.iter_mut().filter(|p| p.role == role).for_each(|p| p.echo = true);
        }
        Some((role, line))
    }

    /// Notes who has ended; an error once one has failed.
    fn look(&mut self) -> Result<()> {
        if !self.note_ends()? {
            return Ok(());
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.processes.iter().any(|process| process.ended.is_none()) {
            self.next_line();
            self.note_ends()?;
        }
        // What the failed ones wrote last.
        while self.next_line().is_some() {}
        self.progress.finish();
        Err(self.first_cause())
    }

    /// Whether a child has failed.
    fn note_ends(&mut self) -> Result<bool> {
        let mut failed = false;
        for process in &mut self.processes {
            if process.ended.is_none() {
                process.ended = process.child.try_wait().context("could not wait for a child process")?;
            }
            failed |= process.ended.is_some_and(|status| !status.success());
        }
        Ok(failed)
    }

    /// Of those that failed: one that was killed, else one with a reason of its own, else any.
    fn first_cause(&mut self) -> Error {
        let rank = |process: &Process| match process.ended {
            Some(status) if status.code().is_none() => 0,
            Some(_) if !process.echo => 1,
            _ => 2,
        };
        let failed = self.processes.iter_mut().filter(|p| p.ended.is_some_and(|status| !status.success()));
        let Some(process) = failed.min_by_key(|process| rank(process)) else {
            return anyhow!("a child process failed");
        };
        let role = process.role;
        let text = process.errors.take().and_then(|errors| errors.join().ok()).unwrap_or_default();
        let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
        match (reason, process.ended) {
            (Some(reason), _) => anyhow!("{role}: {reason}"),
            (None, Some(status)) => anyhow!("the {role} ended without a word: {status}"),
            (None, None) => anyhow!("the {role} failed"),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for process in &mut self.processes {
            if process.ended.is_none() {
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
        }
    }
}
