//! A shelf that fills in the order of the instructions and is read meanwhile: who asks for what has not come yet waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use marill_program::correlation::Field;

use super::shares::Shares;
use super::shelf::Shelf;
use super::spool::Spool;
use super::watch::lost;
use crate::error::RunError;
use crate::transport::Channel;

/// One thread fills it, any may read.
pub struct Filling {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    shelf: Shelf,
    /// All of the instructions before this one is there.
    before: u32,
    /// Since when nothing more will come.
    over: Option<Instant>,
}

impl Filling {
    /// An empty one.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<Filling, RunError> {
        let state = State { shelf: Shelf::new()?, before: 0, over: None };
        Ok(Filling { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// A shelf that is full.
    pub fn full(shelf: Shelf) -> Filling {
        let state = State { shelf, before: u32::MAX, over: Some(Instant::now()) };
        Filling { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The shelf, to be kept.
    pub fn into_shelf(self) -> Shelf {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).shelf
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Shelf::put`].
    ///
    /// # Errors
    /// Of the file.
    pub fn put(&self, at: u32, numbers: impl IntoIterator<Item = u64>) -> Result<(), RunError> {
        self.state().shelf.put(at, numbers)
    }

    /// Adds what the peer sends of instruction `at`, `total_bytes` in chunks; `heard` is told each one's length.
    ///
    /// # Errors
    /// Of the channel and of the file, and what `heard` returns.
    pub fn receive(
        &self,
        at: u32,
        channel: &mut Channel,
        total_bytes: u64,
        heard: &mut dyn FnMut(usize) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        self.state().shelf.begin(at);
        Spool::chunks(channel, total_bytes, &mut |chunk| {
            self.state().shelf.append(chunk)?;
            heard(chunk.len())
        })
    }

    /// Everything of instruction `at` and of those before it is there.
    pub fn pass(&self, at: u32) {
        self.state().before = at + 1;
        self.changed.notify_all();
    }

    /// Nothing more will come: who waits for something else gets an error.
    pub fn end(&self) {
        self.state().over.get_or_insert_with(Instant::now);
        self.changed.notify_all();
    }

    /// Waits until nothing more comes, and tells since when.
    pub fn until_over(&self) -> Instant {
        let mut state = self.state();
        loop {
            match state.over {
                Some(moment) => return moment,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for all of instruction `at`.
    fn wait(&self, at: u32) -> Result<MutexGuard<'_, State>, RunError> {
        let mut state = self.state();
        while state.over.is_none() && state.before <= at {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.before <= at { Err(lost()) } else { Ok(state) }
    }

    /// The `len` numbers of instruction `at`, if it has some.
    ///
    /// # Errors
    /// Of the file; `File` if they will never come.
    pub fn numbers(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        let state = self.wait(at)?;
        if state.shelf.lacks(at) { Ok(None) } else { state.shelf.numbers(at, len).map(Some) }
    }

    /// As [`Shelf::fields`].
    ///
    /// # Errors
    /// Of the file; `malformed` where padding bits are set; `File` if they will never come.
    pub fn fields(
        &self,
        at: u32,
        demand: &[Field],
        malformed: impl Fn() -> RunError,
    ) -> Result<Vec<Shares>, RunError> {
        self.wait(at)?.shelf.fields(at, demand, malformed)
    }

    /// As [`Shelf::packed`].
    ///
    /// # Errors
    /// Of the file; `File` if they will never come.
    pub fn packed(&self, at: u32, len: usize, width: u32) -> Result<Option<Shares>, RunError> {
        self.wait(at)?.shelf.packed(at, len, width)
    }

    /// As [`Spool::check`].
    ///
    /// # Errors
    /// The file could not be read.
    pub fn check(&self) -> Result<(), RunError> {
        self.state().shelf.check()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::transport::memory_pair;

    #[test]
    fn what_has_not_come_is_waited_for_and_what_never_comes_is_an_error() {
        let (mut client, mut server) = memory_pair();
        let filling = Filling::new().unwrap();
        let values = |shares: Option<Shares>| shares.map(Shares::into_values);
        thread::scope(|scope| {
            let put = scope.spawn(|| filling.numbers(2, 3));
            let received = scope.spawn(|| filling.numbers(3, 1));
            let none = scope.spawn(|| filling.numbers(4, 1));
            let never = scope.spawn(|| filling.numbers(5, 1));
            filling.put(2, [7, 8, 9]).unwrap();
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!put.is_finished());
            filling.pass(2);
            assert_eq!(values(put.join().unwrap().unwrap()), Some(vec![7, 8, 9]));
            server.send(&5_u64.to_le_bytes()).unwrap();
            let mut heard = 0;
            let mut hear = |bytes| {
                heard += bytes;
                Ok(())
            };
            filling.receive(3, &mut client, 8, &mut hear).unwrap();
            assert!(!received.is_finished());
            filling.pass(4);
            assert_eq!(heard, 8);
            assert_eq!(values(received.join().unwrap().unwrap()), Some(vec![5]));
            assert_eq!(values(none.join().unwrap().unwrap()), None);
            assert!(!never.is_finished());
            filling.end();
            assert!(never.join().unwrap().is_err());
        });
        filling.until_over();
        let full = Filling::full(filling.into_shelf());
        assert_eq!(values(full.numbers(2, 3).unwrap()), Some(vec![7, 8, 9]));
        assert_eq!(values(full.numbers(9, 1).unwrap()), None);
    }
}
