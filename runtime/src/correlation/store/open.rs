//! Reading a store, and using it up.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use marill_kernels::Seed;
use marill_program::ValidProgram;
use zeroize::Zeroizing;

use super::{
    FIXED_BYTES, Kind, Register, SealedFile, StoreId, StoreKey, Window, check_owner, file_fault, store_fault,
    sync_directory,
};
use crate::correlation::shelf::Shelf;
use crate::correlation::spool::Spool;
use crate::error::{RunError, StoreFault};
use crate::sharing::Party;

/// What a party has kept of preprocessing.
pub struct Kept {
    /// Of its masks.
    pub seed: Seed,
    /// As in [`super::Keep`].
    pub shelves: [Shelf; 2],
}

/// A store that this process has locked and verified, and that was not used before.
pub struct Store {
    path: PathBuf,
    register: Register,
    digest: [u8; 32],
    party: u8,
    id: StoreId,
    kept: Kept,
}

impl Store {
    /// Opens the store of `party` for `program`, and reads all of it once.
    ///
    /// # Errors
    /// `File`; `Store` for a file that is no store, is not whole, is another key's, program's or party's, that was used
    /// or that another run has open.
    pub fn open(
        path: &Path,
        key: &StoreKey,
        party: Party,
        program: &ValidProgram,
    ) -> Result<Store, RunError> {
        let file = File::open(path).map_err(file_fault(path, "read"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => store_fault(path, StoreFault::Busy),
            TryLockError::Error(source) => file_fault(path, "lock")(source),
        })?;
        let sealed = SealedFile::open(file, Kind::STORE, path, key)?;
        let length_bytes = sealed.len_bytes();
        let sealed = Arc::new(Mutex::new(sealed));
        let window = Window::new(Arc::clone(&sealed), 0, length_bytes);
        let fixed = Zeroizing::new(window.read(0, FIXED_BYTES)?);
        let (digest, rest) = take(&fixed);
        let (id, rest) = take(rest);
        let ([code], seed) = take(rest);
        let mut at = FIXED_BYTES as u64;
        check_owner(path, party, program, (&digest, code))?;
        let register = key.register();
        register.check(&StoreId(id), path)?;
        sealed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).verify()?;

        let mut tables = [(); 2].map(|()| (BTreeMap::new(), 0));
        for (offsets, bytes) in &mut tables {
            let [count, length] = words(&window.read(at, 16)?);
            if count > program.len() as u64 {
                let found = format!("{count} instructions of {}", program.len());
                return Err(store_fault(path, StoreFault::Malformed { what: "table of contents", found }));
            }
            let entries = window.read(at + 16, 16 * count as usize)?;
            offsets.extend(entries.chunks_exact(16).map(|entry| {
                let [at, offset] = words(entry);
                (at as u32, offset)
            }));
            at += 16 + entries.len() as u64;
            *bytes = length;
        }
        let shelves = tables.map(|(offsets, bytes)| {
            let part = Window::new(Arc::clone(&sealed), at, bytes);
            at = at.saturating_add(bytes);
            Shelf::over(Spool::stored(part), offsets)
        });
        let seed = Zeroizing::new(take(seed).0);
        let kept = Kept { seed: Seed::new(*seed), shelves };
        Ok(Store { path: path.to_owned(), register, digest, party: code, id: StoreId(id), kept })
    }

    /// Its name.
    pub fn id(&self) -> &StoreId {
        &self.id
    }

    /// Whether it is the store of `party` for `program`.
    ///
    /// # Errors
    /// `Store`.
    pub fn check(&self, party: Party, program: &ValidProgram) -> Result<(), RunError> {
        check_owner(&self.path, party, program, (&self.digest, self.party))
    }

    /// What it holds, to be used. Before this returns, the disk has written down that the store is used, and the file
    /// is deleted.
    ///
    /// # Errors
    /// `File`; `Store` where another run, or one on a copy of the file, used it meanwhile.
    pub fn consume(self) -> Result<Kept, RunError> {
        self.register.add(&self.id, &self.path)?;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(file_fault(&self.path, "delete")(error));
            }
            _ => {}
        }
        sync_directory(&self.path)?;
        Ok(self.kept)
    }
}

/// The first `N` bytes, zeros where there are fewer, and the rest.
pub(super) fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk().map_or(([0; N], &[]), |(first, rest)| (*first, rest))
}

fn words(bytes: &[u8]) -> [u64; 2] {
    let (first, rest) = take(bytes);
    [first, take(rest).0].map(u64::from_le_bytes)
}
