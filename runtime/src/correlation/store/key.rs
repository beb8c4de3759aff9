//! The key of a party's stores: a file that its owner alone reads.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::register::Register;
use super::{differs, file_fault, random, store_fault, sync_directory};
use crate::error::{RunError, StoreFault};

/// 32 random bytes, wiped on drop. Beside its file lies the register of the stores that were used under it.
pub struct StoreKey {
    bytes: Zeroizing<[u8; 32]>,
    path: PathBuf,
}

impl StoreKey {
    /// Makes a key and its empty register.
    ///
    /// # Errors
    /// `File`; a key that is already there is never overwritten.
    pub fn create(path: &Path) -> Result<StoreKey, RunError> {
        let bytes = Zeroizing::new(random()?);
        let mut text = Zeroizing::new(String::with_capacity(65));
        for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
        text.push('\n');
        create_private(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(file_fault(path, "create"))?;
        let register = register_path(path);
        create_private(&register)
            .and_then(|file| file.sync_all())
            .map_err(file_fault(&register, "create"))?;
        sync_directory(path)?;
        Ok(StoreKey { bytes, path: path.to_owned() })
    }

    /// Loads what [`StoreKey::create`] wrote.
    ///
    /// # Errors
    /// `File`; `Store` where others than the owner may read it, or it holds something else.
    pub fn load(path: &Path) -> Result<StoreKey, RunError> {
        let file = File::open(path).map_err(file_fault(path, "read"))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_err(file_fault(path, "read"))?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(differs(path, "mode", "600".to_owned(), format!("{mode:o}")));
            }
        }
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        file.take(100).read_to_end(&mut text).map_err(file_fault(path, "read"))?;
        let mut bytes = Zeroizing::new([0; 32]);
        let digits = text.trim_ascii_end();
        let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
        let read = |at: usize| Some((digit(2 * at)? << 4 | digit(2 * at + 1)?) as u8);
        let whole = (0..32).all(|at| read(at).map(|byte| bytes[at] = byte).is_some());
        if !whole || digits.len() != 64 {
            let found = format!("{} characters", digits.len());
            let (what, expected) = ("content", "64 hexadecimal digits".to_owned());
            return Err(store_fault(path, StoreFault::Differs { what, expected, found }));
        }
        Ok(StoreKey { bytes, path: path.to_owned() })
    }

    /// The register of the stores that were used under this key.
    pub fn register(&self) -> Register {
        Register::new(register_path(&self.path))
    }

    /// What tells this key from others, and tells nothing of it.
    pub(super) fn name(&self) -> [u8; 8] {
        let mut name = [0; 8];
        let digest = Zeroizing::new(blake3::derive_key("marill 2026 name of a key of stores", &*self.bytes));
        name.copy_from_slice(&digest[..8]);
        name
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

fn register_path(key: &Path) -> PathBuf {
    let mut name = OsString::from(key);
    name.push(".used");
    name.into()
}

fn create_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
