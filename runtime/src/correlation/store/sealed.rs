//! Bytes in a file, encrypted and authenticated in chunks, to be read anywhere.
//!
//! Layout: magic, version, name of the key, a fresh prefix, the length of the content; then chunks of the [`Kind`]'s
//! length, the last one shorter, each with a tag. Chunk i is sealed under the nonce prefix | i | whether it is the
//! last, with the header as associated data, so that a chunk that is changed, moved, left out or taken from another
//! file is noticed.
//! Reference: STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015) over XChaCha20-Poly1305
//! (draft-irtf-cfrg-xchacha-03), prefix of 152 bits.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::key::StoreKey;
use super::{differs, file_fault, hex, random, store_fault};
use crate::error::{RunError, StoreFault};

/// What lies in a file.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The file's first bytes.
    magic: [u8; 8],
    /// Bytes of content in a chunk.
    chunk_bytes: u64,
}

impl Kind {
    /// The correlations of a run, mostly read in order.
    pub const STORE: Kind = Kind { magic: *b"MARILLST", chunk_bytes: CHUNK_BYTES };
    /// A setup, whose matrices are read in pieces of some hundred kilobytes.
    pub const SETUP: Kind = Kind { magic: *b"MARILLSU", chunk_bytes: 1 << 16 };

    /// Number of chunks of `length_bytes` bytes; at least one.
    fn chunks(self, length_bytes: u64) -> u64 {
        length_bytes.div_ceil(self.chunk_bytes).max(1)
    }
}

/// Of the layout and of what lies in it.
const VERSION: u32 = 2;

/// Bytes of content in a chunk of a store.
pub const CHUNK_BYTES: u64 = 1 << 20;

/// Bytes by which a chunk grows.
pub const TAG_BYTES: u64 = 16;

/// Bytes before the first chunk.
pub const HEADER_BYTES: u64 = 47;

const PREFIX: std::ops::Range<usize> = 20..39;

type Header = [u8; HEADER_BYTES as usize];

fn cipher(key: &StoreKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

/// The nonce of a chunk; `None` beyond the last number.
fn nonce(header: &Header, chunk: u64, last: bool) -> Option<XNonce> {
    let mut nonce = [0; 24];
    nonce[..19].copy_from_slice(&header[PREFIX]);
    nonce[19..23].copy_from_slice(&u32::try_from(chunk).ok()?.to_be_bytes());
    nonce[23] = last.into();
    Some(nonce.into())
}

/// Writes a content whose length is known.
pub struct SealedWriter<'f> {
    file: &'f mut File,
    kind: Kind,
    path: PathBuf,
    cipher: XChaCha20Poly1305,
    header: Header,
    chunk: u64,
    length_bytes: u64,
    buffer: Zeroizing<Vec<u8>>,
}

impl<'f> SealedWriter<'f> {
    /// At the beginning of an empty file that will be called `path`.
    ///
    /// # Errors
    /// `File`.
    pub fn new(
        file: &'f mut File,
        kind: Kind,
        path: &Path,
        key: &StoreKey,
        length_bytes: u64,
    ) -> Result<SealedWriter<'f>, RunError> {
        let mut header = [0; HEADER_BYTES as usize];
        header[..8].copy_from_slice(&kind.magic);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..20].copy_from_slice(&key.name());
        header[PREFIX].copy_from_slice(&random::<19>()?);
        header[39..].copy_from_slice(&length_bytes.to_le_bytes());
        file.write_all(&header).map_err(file_fault(path, "write"))?;
        let buffer = Zeroizing::new(Vec::with_capacity((kind.chunk_bytes + TAG_BYTES) as usize));
        Ok(SealedWriter {
            file,
            kind,
            path: path.to_owned(),
            cipher: cipher(key),
            header,
            chunk: 0,
            length_bytes,
            buffer,
        })
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// `File`.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), RunError> {
        let limit = self.kind.chunk_bytes as usize;
        while !bytes.is_empty() {
            if self.buffer.len() == limit {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(limit - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Seals what is left, and waits until the file is on the disk.
    ///
    /// # Errors
    /// `File`; `Malformed` where another length was announced.
    pub fn finish(mut self) -> Result<(), RunError> {
        let written = self.chunk * self.kind.chunk_bytes + self.buffer.len() as u64;
        if written != self.length_bytes {
            let found = format!("{written} bytes where {} were announced", self.length_bytes);
            return Err(store_fault(&self.path, StoreFault::Malformed { what: "content", found }));
        }
        self.seal(true)?;
        self.file.sync_all().map_err(file_fault(&self.path, "write"))
    }

    fn seal(&mut self, last: bool) -> Result<(), RunError> {
        let sealed = nonce(&self.header, self.chunk, last)
            .and_then(|nonce| self.cipher.encrypt_in_place(&nonce, &self.header, &mut *self.buffer).ok());
        if sealed.is_none() {
            let found = format!("more than {} bytes", self.kind.chunk_bytes << 32);
            return Err(store_fault(&self.path, StoreFault::Malformed { what: "content", found }));
        }
        self.file.write_all(&self.buffer).map_err(file_fault(&self.path, "write"))?;
        self.buffer.clear();
        self.chunk += 1;
        Ok(())
    }
}

/// Reads what [`SealedWriter`] wrote.
pub struct SealedFile {
    file: File,
    kind: Kind,
    path: PathBuf,
    cipher: XChaCha20Poly1305,
    header: Header,
    length_bytes: u64,
}

impl SealedFile {
    /// Looks at the header and the length of a file. Nothing of it is authentic before a chunk has been read.
    ///
    /// # Errors
    /// `File`; `Store` for a file of another kind, version, key or length.
    pub fn open(mut file: File, kind: Kind, path: &Path, key: &StoreKey) -> Result<SealedFile, RunError> {
        let found_bytes = file.metadata().map_err(file_fault(path, "read"))?.len();
        let mut header = [0; HEADER_BYTES as usize];
        if found_bytes < HEADER_BYTES {
            let expected_bytes = HEADER_BYTES + TAG_BYTES;
            return Err(store_fault(path, StoreFault::Length { expected_bytes, found_bytes }));
        }
        file.read_exact(&mut header).map_err(file_fault(path, "read"))?;
        if header[..8] != kind.magic {
            return Err(differs(path, "first bytes", hex(&kind.magic), hex(&header[..8])));
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return Err(differs(path, "version", VERSION.to_string(), version.to_string()));
        }
        if header[12..20] != key.name() {
            return Err(differs(path, "key", hex(&key.name()), hex(&header[12..20])));
        }
        let length_bytes = header[39..].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let expected_bytes = kind
            .chunks(length_bytes)
            .saturating_mul(TAG_BYTES)
            .saturating_add(length_bytes)
            .saturating_add(HEADER_BYTES);
        if found_bytes != expected_bytes {
            return Err(store_fault(path, StoreFault::Length { expected_bytes, found_bytes }));
        }
        Ok(SealedFile { file, kind, path: path.to_owned(), cipher: cipher(key), header, length_bytes })
    }

    /// Bytes of content.
    pub fn len_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Whether every chunk is what was written.
    ///
    /// # Errors
    /// `File`, and `Store` naming the first chunk that is not.
    pub fn verify(&mut self) -> Result<(), RunError> {
        (0..self.kind.chunks(self.length_bytes)).try_for_each(|chunk| self.chunk(chunk).map(drop))
    }

    fn chunk(&mut self, chunk: u64) -> Result<Zeroizing<Vec<u8>>, RunError> {
        let (all, chunk_bytes) = (self.kind.chunks(self.length_bytes), self.kind.chunk_bytes);
        let start = chunk * chunk_bytes;
        let bytes = self.length_bytes.saturating_sub(start).min(chunk_bytes) + TAG_BYTES;
        let mut content = Zeroizing::new(vec![0; bytes as usize]);
        let at = HEADER_BYTES + chunk * (chunk_bytes + TAG_BYTES);
        self.file.seek(SeekFrom::Start(at)).map_err(file_fault(&self.path, "read"))?;
        self.file.read_exact(&mut content).map_err(file_fault(&self.path, "read"))?;
        let nonce = nonce(&self.header, chunk, chunk + 1 == all);
        let opened = nonce.and_then(|n| self.cipher.decrypt_in_place(&n, &self.header, &mut *content).ok());
        match opened {
            Some(()) => Ok(content),
            None => Err(store_fault(&self.path, StoreFault::Corrupted { chunk: chunk + 1, chunks: all })),
        }
    }
}

/// A part of a sealed file's content.
pub struct Window {
    file: Arc<Mutex<SealedFile>>,
    start_bytes: u64,
    length_bytes: u64,
    /// The chunk that was read last.
    held: Mutex<Option<(u64, Zeroizing<Vec<u8>>)>>,
}

impl Window {
    /// `length_bytes` bytes from `start_bytes` on.
    pub fn new(file: Arc<Mutex<SealedFile>>, start_bytes: u64, length_bytes: u64) -> Window {
        Window { file, start_bytes, length_bytes, held: Mutex::default() }
    }

    /// Its length.
    pub fn len_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// `count_bytes` bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// As [`Window::read_to`].
    pub fn read(&self, offset_bytes: u64, count_bytes: usize) -> Result<Vec<u8>, RunError> {
        let mut bytes = vec![0; count_bytes];
        self.read_to(offset_bytes, &mut bytes)?;
        Ok(bytes)
    }

    /// Overwrites `bytes` with those from `offset_bytes` on.
    ///
    /// # Errors
    /// `File`; `Store` where they are not what was written, or beyond the end.
    pub fn read_to(&self, offset_bytes: u64, mut bytes: &mut [u8]) -> Result<(), RunError> {
        let count_bytes = bytes.len();
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let end = offset_bytes.checked_add(count_bytes as u64).filter(|end| *end <= self.length_bytes);
        let first = self.start_bytes.saturating_add(offset_bytes);
        let inside = first.saturating_add(count_bytes as u64) <= file.length_bytes;
        let (Some(_), true) = (end, inside) else {
            let found = format!("{offset_bytes} and {count_bytes} bytes of {}", self.length_bytes);
            return Err(store_fault(&file.path, StoreFault::Malformed { what: "table of contents", found }));
        };
        let chunk_bytes = file.kind.chunk_bytes;
        while !bytes.is_empty() {
            let at = first + (count_bytes - bytes.len()) as u64;
            let (chunk, skip) = (at / chunk_bytes, (at % chunk_bytes) as usize);
            let content = match held.take() {
                Some((held, content)) if held == chunk => content,
                _ => file.chunk(chunk)?,
            };
            let (now, later) = bytes.split_at_mut((content.len() - skip).min(bytes.len()));
            now.copy_from_slice(&content[skip..skip + now.len()]);
            bytes = later;
            *held = Some((chunk, content));
        }
        Ok(())
    }
}
