//! How a run comes along: a bar on a terminal, lines to a parent process.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use marill_runtime::error::Role;
use marill_runtime::session;
use marill_runtime::transport::Phase;

use super::put;

/// Most lines per second to a parent.
const PACE: Duration = Duration::from_millis(100);

pub(super) struct Progress {
    role: Role,
    phase: Phase,
    bar: Option<ProgressBar>,
    reported: Option<Instant>,
}

impl Progress {
    /// Of the process of `role`; `supervised` sends lines to the parent in place of a bar.
    pub(super) fn new(role: Role, supervised: bool) -> Progress {
        let bar = (!supervised)
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)));
        Progress { role, phase: Phase::Setup, bar, reported: None }
    }

    pub(super) fn hear(&mut self, progress: session::Progress) {
        match progress {
            session::Progress::Phase(phase) => self.begin(phase),
            session::Progress::Step { done, total } => self.step(done, total),
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        match &self.bar {
            Some(bar) => {
                bar.set_style(style(self.role, phase, false));
                bar.set_position(0);
                bar.tick();
            }
            None => report(phase, 0, 0),
        }
        self.reported = None;
    }

    /// `done` of `total` in the present phase.
    fn step(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if self.reported.is_none() {
                self.reported = Some(Instant::now());
                bar.set_style(style(self.role, self.phase, true));
                bar.set_length(total);
            }
            bar.set_position(done);
            return;
        }
        if self.reported.is_none_or(|at| at.elapsed() >= PACE) || done == total {
            self.reported = Some(Instant::now());
            report(self.phase, done, total);
        }
    }

    /// As a parent, hears a line of a child.
    pub(super) fn hear_line(&mut self, line: &str) {
        let mut words = line.split(' ').skip(1);
        let phase = match words.next() {
            Some("setup") => Phase::Setup,
            Some("preprocess") => Phase::Preprocess,
            _ => Phase::Online,
        };
        let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let (done, total) = (number(), number());
        if phase != self.phase || total == 0 {
            self.begin(phase);
        }
        if total > 0 {
            self.step(done, total);
        }
    }

    /// Clears the bar.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn report(phase: Phase, done: u64, total: u64) {
    // A parent that no longer reads is about to end this process.
    let _ = put(&format!("progress {phase} {done} {total}\n"));
}

fn style(role: Role, phase: Phase, measured: bool) -> ProgressStyle {
    let unit = match (role, phase) {
        (_, Phase::Online) => "{pos} of {len} rounds",
        (Role::Server, _) => "{decimal_bytes} of {decimal_total_bytes}",
        _ => "{pos} of {len} instructions",
    };
    let template = if measured {
        format!("{phase:10} [{{bar:40}}] {unit} {{elapsed}}")
    } else {
        format!("{phase:10} {{spinner}}")
    };
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
