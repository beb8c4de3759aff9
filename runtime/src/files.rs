//! Reading and writing anywhere in a file that several threads have: none of this depends on the file's position, which some
//! systems change.

use std::fs::File;
use std::io;

/// Fills `bytes` with what lies at `offset_bytes`.
///
/// # Errors
/// Of the system; `UnexpectedEof` where the file ends before.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset_bytes)
}

/// Writes `bytes` at `offset_bytes`.
///
/// # Errors
/// Of the system.
#[cfg(unix)]
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset_bytes)
}

/// Fills `bytes` with what lies at `offset_bytes`.
///
/// # Errors
/// Of the system; `UnexpectedEof` where the file ends before.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset_bytes: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, bytes, offset_bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[count..];
        offset_bytes += count as u64;
    }
    Ok(())
}

/// Writes `bytes` at `offset_bytes`.
///
/// # Errors
/// Of the system.
#[cfg(windows)]
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset_bytes: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, offset_bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
        offset_bytes += count as u64;
    }
    Ok(())
}
