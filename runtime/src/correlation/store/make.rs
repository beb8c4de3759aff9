//! Writing a store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use marill_kernels::Seed;
use marill_program::ValidProgram;
use zeroize::Zeroizing;

use super::{
    FIXED_BYTES, Kind, SealedWriter, StoreId, StoreKey, file_fault, parent, party_code, sync_directory,
};
use crate::correlation::shelf::Shelf;
use crate::correlation::spool::Spool;
use crate::error::RunError;
use crate::sharing::Party;

/// What a party keeps of preprocessing.
pub struct Keep<'a> {
    /// Of its masks.
    pub seed: &'a Seed,
    /// Its shares of all fields; its masks of products with public matrices.
    pub shelves: [&'a mut Shelf; 2],
}

/// Bytes that go from one file to another at once.
const COPY_BYTES: u64 = 1 << 18;

/// Writes all of `spool`.
pub(super) fn copy(spool: &mut Spool, out: &mut SealedWriter<'_>) -> Result<(), RunError> {
    let (mut at, end) = (0, spool.len_bytes());
    while at < end {
        let bytes = Zeroizing::new(spool.read(at, (end - at).min(COPY_BYTES) as usize)?);
        out.write(&bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// A place for a store that is still to be made.
pub struct NewStore {
    path: PathBuf,
    key: StoreKey,
    file: tempfile::NamedTempFile,
}

impl NewStore {
    /// Makes sure that there is no such file yet and that its directory can be written.
    ///
    /// # Errors
    /// `File`.
    pub fn reserve(path: &Path, key: StoreKey) -> Result<NewStore, RunError> {
        if path.symlink_metadata().is_ok() {
            return Err(file_fault(path, "create")(ErrorKind::AlreadyExists.into()));
        }
        let file = tempfile::Builder::new()
            .prefix(".marill-store-")
            .tempfile_in(parent(path))
            .map_err(file_fault(path, "create"))?;
        Ok(NewStore { path: path.to_owned(), key, file })
    }

    /// Writes everything, and returns the file's length when the disk has it under its name.
    ///
    /// # Errors
    /// `File`; a file of this name that came meanwhile is not overwritten.
    pub fn write(
        mut self,
        party: Party,
        program: &ValidProgram,
        id: &StoreId,
        keep: Keep<'_>,
    ) -> Result<u64, RunError> {
        let shelves = keep.shelves.map(Shelf::parts);
        let mut table = Zeroizing::new(Vec::with_capacity(FIXED_BYTES));
        table.extend_from_slice(&program.digest());
        table.extend_from_slice(&id.0);
        table.push(party_code(party));
        table.extend_from_slice(keep.seed.expose());
        let mut tables = Vec::new();
        for (spool, offsets) in &shelves {
            tables.extend([offsets.len() as u64, spool.len_bytes()]);
            tables.extend(offsets.iter().flat_map(|(at, offset)| [u64::from(*at), *offset]));
        }
        let tables: Vec<u8> = tables.into_iter().flat_map(u64::to_le_bytes).collect();
        let content: u64 = shelves.iter().map(|(spool, _)| spool.len_bytes()).sum();
        let length_bytes = (table.len() + tables.len()) as u64 + content;
        let mut out =
            SealedWriter::new(self.file.as_file_mut(), Kind::STORE, &self.path, &self.key, length_bytes)?;
        out.write(&table)?;
        out.write(&tables)?;
        for (spool, _) in shelves {
            copy(spool, &mut out)?;
        }
        out.finish()?;
        let file = self.file.persist_noclobber(&self.path);
        let file = file.map_err(|failed| file_fault(&self.path, "create")(failed.error))?;
        sync_directory(&self.path)?;
        Ok(file.metadata().map_err(file_fault(&self.path, "read"))?.len())
    }
}
