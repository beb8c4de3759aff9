//! A setup on disk, for the runs and preparations to come of one program between these two parties.
//!
//! Content: the program's digest, the pair's name, the party, the digest of the weights at the server or zeros, the
//! party's secrets, then what the peer sent. It is written whole or not at all, in place of an older one. What the peer
//! sent is read, and checked, when products need it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use marill_program::ValidProgram;
use zeroize::Zeroizing;

use super::make::copy;
use super::open::take;
use super::{
    Kind, SealedFile, SealedWriter, StoreId, StoreKey, Window, check_owner, differs, file_fault, hex, parent,
    party_code, sync_directory,
};
use crate::correlation::spool::Spool;
use crate::correlation::two_party::setup::Setup;
use crate::error::RunError;
use crate::sharing::Party;

/// A file that holds a setup, or will.
pub struct SetupFile {
    path: PathBuf,
    key: StoreKey,
    party: Party,
    digest: [u8; 32],
    kept: Option<KeptSetup>,
}

struct KeptSetup {
    id: StoreId,
    weights: [u8; 32],
    setup: Setup,
}

/// Digest, id, party, weights, secrets.
const FIXED_BYTES: usize = 32 + 32 + 1 + 32 + Setup::SECRET_BYTES;

impl SetupFile {
    /// The setup of `party` for `program` that lies at `path`, or a place for it where there is no file yet.
    ///
    /// # Errors
    /// `File`; `Store` for a file that is no setup, is too short or too long, or is another key's, program's or party's.
    pub fn open(
        path: &Path,
        key: StoreKey,
        party: Party,
        program: &ValidProgram,
    ) -> Result<SetupFile, RunError> {
        let digest = program.digest();
        let kept = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(file_fault(path, "read")(error)),
            Ok(file) => Some(read(file, path, &key, party, program)?),
        };
        if kept.is_none() {
            // Found out before hours of work have nowhere to go.
            new_file(path)?;
        }
        Ok(SetupFile { path: path.to_owned(), key, party, digest, kept })
    }

    /// The name of the setup that is there.
    pub fn id(&self) -> Option<StoreId> {
        self.kept.as_ref().map(|kept| kept.id)
    }

    /// Whether it is the setup of `party` for `program` and, where there is one already, for these weights.
    ///
    /// # Errors
    /// `Store`.
    pub fn check(&self, party: Party, program: &ValidProgram, weights: &[u8; 32]) -> Result<(), RunError> {
        check_owner(&self.path, party, program, (&self.digest, party_code(self.party)))?;
        match &self.kept {
            Some(kept) if kept.weights != *weights => {
                Err(differs(&self.path, "digest of the weights", hex(&weights[..8]), hex(&kept.weights[..8])))
            }
            _ => Ok(()),
        }
    }

    /// The setup that is there.
    pub fn take(&mut self) -> Option<Setup> {
        self.kept.take().map(|kept| kept.setup)
    }

    /// Writes `setup`, which must be complete, in place of what was there; when this returns, the disk has it.
    ///
    /// # Errors
    /// `File`.
    pub fn write(&self, id: &StoreId, weights: &[u8; 32], setup: &Setup) -> Result<(), RunError> {
        let mut fixed = Zeroizing::new(Vec::with_capacity(FIXED_BYTES));
        fixed.extend_from_slice(&self.digest);
        fixed.extend_from_slice(&id.0);
        fixed.push(party_code(self.party));
        fixed.extend_from_slice(weights);
        fixed.extend_from_slice(&setup.secrets());
        let length_bytes = FIXED_BYTES as u64 + setup.theirs.with(|spool| spool.len_bytes());
        let mut file = new_file(&self.path)?;
        let mut out =
            SealedWriter::new(file.as_file_mut(), Kind::SETUP, &self.path, &self.key, length_bytes)?;
        out.write(&fixed)?;
        setup.theirs.with(|spool| copy(spool, &mut out))?;
        out.finish()?;
        file.persist(&self.path).map_err(|failed| file_fault(&self.path, "create")(failed.error))?;
        sync_directory(&self.path)
    }
}

fn new_file(path: &Path) -> Result<tempfile::NamedTempFile, RunError> {
    let made = tempfile::Builder::new().prefix(".marill-setup-").tempfile_in(parent(path));
    made.map_err(file_fault(path, "create"))
}

fn read(
    file: File,
    path: &Path,
    key: &StoreKey,
    party: Party,
    program: &ValidProgram,
) -> Result<KeptSetup, RunError> {
    let sealed = SealedFile::open(file, Kind::SETUP, path, key)?;
    let length_bytes = sealed.len_bytes();
    let sealed = Arc::new(Mutex::new(sealed));
    let fixed = Zeroizing::new(Window::new(Arc::clone(&sealed), 0, length_bytes).read(0, FIXED_BYTES)?);
    let (digest, rest) = take(&fixed);
    let (id, rest) = take(rest);
    let ([code], rest) = take(rest);
    let (weights, rest) = take(rest);
    check_owner(path, party, program, (&digest, code))?;
    let start_bytes = FIXED_BYTES as u64;
    let theirs = Window::new(sealed, start_bytes, length_bytes - start_bytes);
    let secrets = Zeroizing::new(take(rest).0);
    Ok(KeptSetup { id: StoreId(id), weights, setup: Setup::of(&secrets, Spool::stored(theirs)) })
}
