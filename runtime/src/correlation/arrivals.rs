//! What a peer sends at length, read by others while it comes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::spool::Spool;
use crate::error::RunError;
use crate::transport::Channel;

/// A spool that fills.
pub struct Arrivals {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    spool: Spool,
    /// Nothing more will come.
    over: bool,
}

impl Arrivals {
    /// One that is empty.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<Arrivals, RunError> {
        Ok(Arrivals {
            state: Mutex::new(State { spool: Spool::new()?, over: false }),
            changed: Condvar::new(),
        })
    }

    /// One that is there.
    pub fn of(spool: Spool) -> Arrivals {
        Arrivals { state: Mutex::new(State { spool, over: true }), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a stream of `total_bytes`, the whole of it.
    ///
    /// # Errors
    /// As [`Spool::receive`].
    pub fn receive(&self, channel: &mut Channel, total_bytes: u64) -> Result<(), RunError> {
        let received = Spool::chunks(channel, total_bytes, &mut |bytes| {
            self.state().spool.append(bytes)?;
            self.changed.notify_all();
            Ok(())
        });
        self.end();
        received
    }

    /// Nothing more will come: who waits reads what is there.
    pub fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// `count_bytes` bytes from `offset_bytes` on, as soon as they are there.
    ///
    /// # Errors
    /// The file cannot be read, or ends before.
    pub fn read(&self, offset_bytes: u64, count_bytes: usize) -> Result<Vec<u8>, RunError> {
        let end = offset_bytes.saturating_add(count_bytes as u64);
        let mut state = self.state();
        while !state.over && state.spool.len_bytes() < end {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.spool.read(offset_bytes, count_bytes)
    }

    /// Uses all that has come.
    pub fn with<T>(&self, work: impl FnOnce(&mut Spool) -> T) -> T {
        work(&mut self.state().spool)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::transport::memory_pair;

    #[test]
    fn what_has_not_come_yet_is_waited_for_and_what_never_comes_is_an_error() {
        let (mut client, mut server) = memory_pair();
        let arrivals = Arrivals::new().unwrap();
        thread::scope(|scope| {
            let late = scope.spawn(|| arrivals.read(3, 4));
            let never = scope.spawn(|| arrivals.read(6, 5));
            server.send(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
            arrivals.receive(&mut client, 9).unwrap();
            assert_eq!(late.join().unwrap().unwrap(), [4, 5, 6, 7]);
            assert!(never.join().unwrap().is_err());
        });
    }
}
