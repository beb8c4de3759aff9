//! Several threads that make one thing: the first failure of one ends them all.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{RunError, TransportFault};

/// What is done with a file whose shares will never be there.
const LOST: &str = "read shares in";

/// What will never come, because who was to make it has failed, which it tells itself.
pub(super) fn lost() -> RunError {
    let source = std::io::ErrorKind::UnexpectedEof.into();
    RunError::File { path: std::env::temp_dir(), action: LOST, source }
}

/// Sees to it.
pub(crate) struct Watch<'a> {
    give_up: &'a (dyn Fn() + Sync),
    errors: Mutex<Vec<RunError>>,
}

/// Gives up unless it is told not to, be it because of a panic.
struct Guard<'a>(Option<&'a (dyn Fn() + Sync)>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(give_up) = self.0 {
            give_up();
        }
    }
}

impl<'a> Watch<'a> {
    /// `give_up` ends all work that waits.
    pub(crate) fn new(give_up: &'a (dyn Fn() + Sync)) -> Watch<'a> {
        Watch { give_up, errors: Mutex::default() }
    }

    fn errors(&self) -> MutexGuard<'_, Vec<RunError>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread's work.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> Result<T, RunError>) -> Option<T> {
        let mut guard = Guard(Some(self.give_up));
        match work() {
            Ok(done) => {
                guard.0 = None;
                Some(done)
            }
            Err(error) => {
                self.errors().push(error);
                None
            }
        }
    }

    /// Whether somebody has failed.
    pub(crate) fn has_failed(&self) -> bool {
        !self.errors().is_empty()
    }

    /// What was done, or the first error that does not follow from another.
    pub(crate) fn outcome<T>(self, done: Option<T>) -> Result<T, RunError> {
        let errors = self.errors.into_inner().unwrap_or_else(PoisonError::into_inner);
        let follows = |error: &RunError| {
            let closed = |fault: &TransportFault| {
                matches!(fault, TransportFault::Closed | TransportFault::AlreadyFailed)
            };
            match error {
                RunError::Transport { source, .. } => closed(source),
                RunError::File { action, .. } => *action == LOST,
                _ => false,
            }
        };
        let cause = errors.iter().position(|error| !follows(error)).unwrap_or(0);
        match (errors.into_iter().nth(cause), done) {
            (Some(error), _) => Err(error),
            (None, Some(done)) => Ok(done),
            // Who has done nothing has told an error.
            (None, None) => Err(lost()),
        }
    }
}
