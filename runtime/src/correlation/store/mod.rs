//! What a party keeps on disk, encrypted, for one program and one peer: one run's correlations, between preprocessing and
//! the rounds, used at most once; and setups ([`SetupFile`]), used as often as wanted.
//!
//! A store is made whole or not at all: it is written under another name and renamed when the disk has it. It is used
//! in this order: locked, verified, greeted with, written down in the key's register, deleted; only then do the rounds
//! begin. A crash before the register has it leaves it unused, a crash after that loses it.

mod key;
mod make;
mod open;
mod register;
mod sealed;
mod setup;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use marill_program::ValidProgram;

use crate::error::{RunError, StoreFault};
use crate::sharing::Party;

pub use key::StoreKey;
pub use make::{Keep, NewStore};
pub use open::{Kept, Store};
pub use register::Register;
pub use sealed::{CHUNK_BYTES, HEADER_BYTES, Kind, SealedFile, SealedWriter, TAG_BYTES, Window};
pub use setup::SetupFile;

/// The name that two parties gave a pair of stores, or of setups; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId([u8; 32]);

impl StoreId {
    /// Of bytes that client and server drew half of each.
    pub fn new(drawn: [u8; 32]) -> StoreId {
        StoreId(drawn)
    }

    /// What goes into greetings, never zero.
    pub fn tag(&self) -> [u8; 16] {
        let mut tag = [0; 16];
        tag.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        tag
    }

    fn hex(&self) -> String {
        hex(&self.0)
    }

    fn of_line(line: &[u8]) -> Option<StoreId> {
        let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
        blake3::Hash::from_hex(text).ok().map(|hash| StoreId(*hash.as_bytes()))
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.tag()[..8]))
    }
}

/// Digest, id, party, seed.
const FIXED_BYTES: usize = 32 + 32 + 1 + 16;

fn party_code(party: Party) -> u8 {
    match party {
        Party::Client => 1,
        Party::Server => 2,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_fault(path: &Path, action: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::File { path: path.to_owned(), action, source }
}

fn store_fault(path: &Path, reason: StoreFault) -> RunError {
    RunError::Store { path: path.to_owned(), reason }
}

fn differs(path: &Path, what: &'static str, expected: String, found: String) -> RunError {
    store_fault(path, StoreFault::Differs { what, expected, found })
}

/// Bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RunError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        file_fault(Path::new("the system's random generator"), "read")(io::Error::other(error.to_string()))
    })?;
    Ok(bytes)
}

/// Whether a file is that of `party` for `program`, by the digest and the party in it.
fn check_owner(
    path: &Path,
    party: Party,
    program: &ValidProgram,
    (digest, code): (&[u8; 32], u8),
) -> Result<(), RunError> {
    if *digest != program.digest() {
        return Err(differs(path, "program digest", hex(&program.digest()[..8]), hex(&digest[..8])));
    }
    if code != party_code(party) {
        let found = [Party::Client, Party::Server].into_iter().find(|party| party_code(*party) == code);
        let found = found.map_or_else(|| format!("unknown party {code}"), |party| party.role().to_string());
        return Err(differs(path, "party", party.role().to_string(), found));
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Waits until the disk has the names in the directory of `path`, where a system tells.
fn sync_directory(path: &Path) -> Result<(), RunError> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let parent = parent(path);
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(file_fault(parent, "write"))
}
