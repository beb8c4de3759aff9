//! A party's correlations of one run, made with the other party ([`super::make`]).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use marill_kernels::Seed;
use marill_kernels::pack::{pack, packed_len};
use marill_program::ValidProgram;
use marill_program::correlation::fields;

use crate::correlation::filling::Filling;
use crate::correlation::prepared::weighted;
use crate::correlation::shares::Shares;
use crate::correlation::shelf::Shelf;
use crate::correlation::watch::lost;
use crate::correlation::{Correlations, fresh_seed, mask_stream};
use crate::error::RunError;

/// Masks from this party's seed; shares and masks of products from spools that may still fill, for which who asks waits.
pub struct TwoPartySource<'a> {
    program: &'a ValidProgram,
    seed: Seed,
    state: Mutex<State>,
    changed: Condvar,
    derived: Filling,
}

struct State {
    fields: Shelf,
    /// Since when nothing more will come.
    over: Option<Instant>,
}

impl<'a> TwoPartySource<'a> {
    /// Draws this party's masks. Nothing else is there.
    ///
    /// # Errors
    /// Of temporary files, and `File` if the system has no randomness.
    pub fn new(program: &'a ValidProgram) -> Result<TwoPartySource<'a>, RunError> {
        let state = Mutex::new(State { fields: Shelf::new()?, over: None });
        let (changed, derived) = (Condvar::new(), Filling::new()?);
        Ok(TwoPartySource { program, seed: fresh_seed()?, state, changed, derived })
    }

    /// From what was kept of one that was made.
    pub fn of(program: &'a ValidProgram, seed: Seed, [fields, derived]: [Shelf; 2]) -> TwoPartySource<'a> {
        let over = Some(Instant::now());
        let (state, changed) = (Mutex::new(State { fields, over }), Condvar::new());
        TwoPartySource { program, seed, state, changed, derived: Filling::full(derived) }
    }

    /// To be kept: the seed of the masks, and the shelves.
    pub fn into_parts(self) -> (Seed, [Shelf; 2]) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (self.seed, [state.fields, self.derived.into_shelf()])
    }

    /// When the last of it came, if it has.
    pub fn complete_since(&self) -> Option<Instant> {
        self.state().over
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `there` or the end.
    fn wait(&self, there: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while state.over.is_none() && !there(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// This party's mask of what instruction `at` opens.
    pub(super) fn own_mask(&self, at: u32, len: usize, width: u32) -> Shares {
        Shares::seeded(self.seed.clone(), mask_stream(at), len, width)
    }

    /// Keeps this party's shares of the fields of instruction `at`.
    pub(super) fn store(&self, at: u32, made: Vec<Vec<u64>>) -> Result<(), RunError> {
        let mut bytes = Vec::new();
        for (field, mut values) in fields(self.program, at as usize).into_iter().zip(made) {
            // A party without words of its own has zeros.
            values.resize(field.len, 0);
            bytes.reserve(packed_len(field.len, field.width));
            pack(&values, field.width, &mut bytes);
        }
        let mut state = self.state();
        state.fields.begin(at);
        state.fields.append(&bytes)?;
        self.changed.notify_all();
        Ok(())
    }

    /// Keeps this party's mask of what instruction `at` makes of masked values, if there is one.
    pub(super) fn store_derived(&self, at: u32, mask: Option<&[u64]>) -> Result<(), RunError> {
        if let Some(mask) = mask {
            self.derived.put(at, mask.iter().copied())?;
        }
        self.derived.pass(at);
        Ok(())
    }

    /// Nothing more will come: who waits for something else gets an error.
    pub(super) fn end(&self) {
        self.state().over.get_or_insert_with(Instant::now);
        self.changed.notify_all();
        self.derived.end();
    }
}

impl Correlations for TwoPartySource<'_> {
    fn mask(&self, at: u32, len: usize, width: u32) -> Shares {
        self.own_mask(at, len, width)
    }

    fn fields(&self, at: u32) -> Result<Vec<Shares>, RunError> {
        let demand = fields(self.program, at as usize);
        // Nothing is made for fields without numbers.
        let some = demand.iter().any(|field| field.len > 0);
        let state = self.wait(|state| !some || !state.fields.lacks(at));
        if some && state.fields.lacks(at) {
            return Err(lost());
        }
        // A store is authenticated, and a temporary file this process's own.
        state.fields.fields(at, &demand, lost)
    }

    fn derived(&self, at: u32, len: usize) -> Result<Option<Shares>, RunError> {
        self.derived.numbers(at, len)
    }

    fn prepared(&self, at: u32, _: usize) -> Result<Option<Shares>, RunError> {
        debug_assert!(weighted(self.program, at).is_some());
        Ok(self.fields(at)?.into_iter().next())
    }

    fn check(&self) -> Result<(), RunError> {
        self.state().fields.check()?;
        self.derived.check()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use marill_program::schema::{Encode, Input, Lift, Open, Program, Step, VERSION};
    use marill_program::{Instruction, Owner, Target};

    use super::*;

    /// Two numbers, opened at 20 bits and lifted to 40 by instruction 3.
    fn program() -> ValidProgram {
        let input = Input { name: "x".into(), owner: Owner::Client as i32, ty: "i64[2]".into() };
        let instructions = [
            Instruction::Input(input),
            Instruction::Encode(Encode { arg: 0, width: 20, frac: 0 }),
            Instruction::Open(Open { arg: 1, to: Target::Both as i32, width: 20 }),
            Instruction::Lift(Lift { arg: 2, width: 40 }),
        ];
        let instructions = instructions.map(|one| Step { instruction: Some(one), group: 0 }).into();
        ValidProgram::new(Program { version: VERSION, instructions, ..Program::default() }).unwrap()
    }

    #[test]
    fn who_asks_for_what_is_still_being_made_waits_for_it() {
        let program = program();
        let source = TwoPartySource::new(&program).unwrap();
        thread::scope(|scope| {
            let fields = scope.spawn(|| source.fields(3));
            let derived = scope.spawn(|| source.derived(2, 2));
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(!fields.is_finished() && !derived.is_finished());
            source.store(3, vec![vec![5, 6], vec![7, 8]]).unwrap();
            let fields: Vec<Vec<u64>> =
                fields.join().unwrap().unwrap().into_iter().map(Shares::into_values).collect();
            assert_eq!(fields, [[5, 6], [7, 8]]);
            source.store_derived(2, Some(&[9, 10])).unwrap();
            assert_eq!(derived.join().unwrap().unwrap().map(Shares::into_values), Some(vec![9, 10]));
        });
        assert!(source.complete_since().is_none());
    }

    #[test]
    fn what_will_never_be_made_is_an_error() {
        let program = program();
        let source = TwoPartySource::new(&program).unwrap();
        thread::scope(|scope| {
            let waits = scope.spawn(|| source.fields(3));
            source.end();
            assert!(waits.join().unwrap().is_err());
        });
        assert!(source.derived(3, 2).is_err());
        assert_eq!(source.fields(2).unwrap().len(), 0);
        assert!(source.complete_since().is_some());
    }
}
