//! The register of used stores, which only grows: a name in hexadecimal on each line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{StoreId, file_fault, store_fault, sync_directory};
use crate::error::{RunError, StoreFault};

/// Bytes of a line.
const LINE_BYTES: usize = 65;

/// The register of one key.
pub struct Register {
    path: PathBuf,
}

impl Register {
    pub(super) fn new(path: PathBuf) -> Register {
        Register { path }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that a store has not been used.
    ///
    /// # Errors
    /// As [`Register::add`].
    pub fn check(&self, id: &StoreId, store: &Path) -> Result<(), RunError> {
        let file = OpenOptions::new().read(true).open(&self.path).map_err(file_fault(&self.path, "read"))?;
        file.lock_shared().map_err(file_fault(&self.path, "lock"))?;
        self.read(&file, id, store).map(drop)
    }

    /// Writes down that a store is used; when this returns, the disk has it. Of several who try it for one store, one
    /// succeeds.
    ///
    /// # Errors
    /// `File`, so where there is no register; `Store` for a store that was used, and for a file that is no register.
    pub fn add(&self, id: &StoreId, store: &Path) -> Result<(), RunError> {
        let write = |error| file_fault(&self.path, "write")(error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(file_fault(&self.path, "read"))?;
        file.lock().map_err(file_fault(&self.path, "lock"))?;
        let whole_bytes = self.read(&file, id, store)?;
        // A line that a crash cut short was no use yet: nobody goes on before the disk has it.
        file.set_len(whole_bytes).map_err(write)?;
        file.seek(SeekFrom::Start(whole_bytes)).map_err(write)?;
        file.write_all(format!("{}\n", id.hex()).as_bytes()).map_err(write)?;
        file.sync_all().map_err(write)?;
        sync_directory(&self.path)
    }

    /// The length of all whole lines, none of which is `id`.
    fn read(&self, mut file: &File, id: &StoreId, store: &Path) -> Result<u64, RunError> {
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(file_fault(&self.path, "read"))?;
        let lines = text.chunks_exact(LINE_BYTES);
        let torn = lines.remainder();
        for (at, line) in lines.enumerate() {
            let Some(found) = StoreId::of_line(line) else {
                let found = format!("something else in line {}", at + 1);
                return Err(store_fault(
                    &self.path,
                    StoreFault::Malformed { what: "list of used stores", found },
                ));
            };
            if found == *id {
                let reason = StoreFault::Used { id: id.to_string(), register: self.path.clone() };
                return Err(store_fault(store, reason));
            }
        }
        if torn.contains(&b'\n') {
            let found = format!("{} bytes at its end", torn.len());
            return Err(store_fault(
                &self.path,
                StoreFault::Malformed { what: "list of used stores", found },
            ));
        }
        Ok((text.len() - torn.len()) as u64)
    }
}
