//! Long byte sequences in files, so that memory stays bounded.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use marill_kernels::threads::{for_each, threads};
use marill_kernels::{Prg, Seed};
use marill_program::cost::CHUNK_BYTES;

use super::fresh_seed;
use super::store::Window;
use crate::error::RunError;
use crate::files::{read_exact_at, write_all_at};
use crate::transport::Channel;

/// A temporary file without a name, appended to, then read anywhere; or a part of a store, which is only read. The
/// file is encrypted under a key that this process alone has, so what is left of it on the disk tells nothing.
pub struct Spool {
    place: Place,
    length_bytes: u64,
}

enum Place {
    Temporary(Arc<Temporary>),
    Stored(Window),
}

struct Temporary {
    file: File,
    seed: Seed,
    /// Of a part that was read late.
    failed: Mutex<Option<RunError>>,
}

impl Temporary {
    fn read_to(&self, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), RunError> {
        read_exact_at(&self.file, bytes, offset_bytes).map_err(fault("read a file in"))?;
        encrypt(&self.seed, offset_bytes, bytes);
        Ok(())
    }
}

/// A part of a spool that is read when it is used, by any thread.
pub struct Late {
    spool: Arc<Temporary>,
    offset_bytes: u64,
}

impl Late {
    /// Overwrites `bytes` with those of the part from `skip_bytes` on. Where the file cannot be read they are zeros, and
    /// [`Spool::check`] tells.
    pub fn read_to(&self, skip_bytes: u64, bytes: &mut [u8]) {
        if let Err(error) = self.spool.read_to(self.offset_bytes + skip_bytes, bytes) {
            bytes.fill(0);
            self.spool.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// Bytes that are encrypted at once.
const BLOCK_BYTES: usize = 1 << 16;

/// Encrypts or decrypts what lies `offset_bytes` from the start, long pieces on all cores. Every byte of the stream serves
/// one byte of the file.
fn encrypt(seed: &Seed, offset_bytes: u64, bytes: &mut [u8]) {
    let size = bytes.len().div_ceil(threads()).max(LEAST_BYTES);
    for_each(bytes.chunks_mut(size).enumerate(), |(i, part)| {
        encrypt_here(seed, offset_bytes + (i * size) as u64, part);
    });
}

/// Bytes for which a thread is worth its start.
const LEAST_BYTES: usize = 1 << 19;

fn encrypt_here(seed: &Seed, offset_bytes: u64, bytes: &mut [u8]) {
    let mut stream = Prg::new(seed.clone(), 0);
    stream.seek_bytes(offset_bytes);
    let mut pad = [0; 4096];
    for bytes in bytes.chunks_mut(pad.len()) {
        let pad = &mut pad[..bytes.len()];
        stream.fill(pad);
        bytes.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= *pad);
    }
}

fn fault(action: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::File { path: std::env::temp_dir(), action, source }
}

impl Spool {
    /// An empty spool.
    ///
    /// # Errors
    /// No file can be made in the system's temporary directory.
    pub fn new() -> Result<Spool, RunError> {
        let file = tempfile::tempfile().map_err(fault("create a file in"))?;
        let temporary = Temporary { file, seed: fresh_seed()?, failed: Mutex::default() };
        Ok(Spool { place: Place::Temporary(Arc::new(temporary)), length_bytes: 0 })
    }

    /// A part of a store.
    pub fn stored(window: Window) -> Spool {
        Spool { length_bytes: window.len_bytes(), place: Place::Stored(window) }
    }

    /// Where the next append goes.
    pub fn len_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// The file cannot be written, or is a store.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let fault = fault("write a file in");
        let Place::Temporary(temporary) = &self.place else {
            return Err(fault(ErrorKind::Unsupported.into()));
        };
        let mut block = Vec::new();
        for bytes in bytes.chunks(BLOCK_BYTES) {
            block.clear();
            block.extend_from_slice(bytes);
            encrypt(&temporary.seed, self.length_bytes, &mut block);
            write_all_at(&temporary.file, &block, self.length_bytes).map_err(&fault)?;
            self.length_bytes += block.len() as u64;
        }
        Ok(())
    }

    /// `count_bytes` bytes from `offset_bytes` on.
    ///
    /// # Errors
    /// The file cannot be read, or ends before.
    pub fn read(&self, offset_bytes: u64, count_bytes: usize) -> Result<Vec<u8>, RunError> {
        let mut bytes = vec![0; count_bytes];
        self.read_to(offset_bytes, &mut bytes)?;
        Ok(bytes)
    }

    /// Overwrites `bytes` with those from `offset_bytes` on.
    ///
    /// # Errors
    /// As [`Spool::read`].
    pub fn read_to(&self, offset_bytes: u64, bytes: &mut [u8]) -> Result<(), RunError> {
        match &self.place {
            Place::Temporary(temporary) => temporary.read_to(offset_bytes, bytes),
            Place::Stored(window) => window.read_to(offset_bytes, bytes),
        }
    }

    /// What lies from `offset_bytes` on, to be read when it is used; `None` for a store, whose chunks are opened whole.
    pub fn late(&self, offset_bytes: u64) -> Option<Late> {
        match &self.place {
            Place::Temporary(spool) => Some(Late { spool: Arc::clone(spool), offset_bytes }),
            Place::Stored(_) => None,
        }
    }

    /// Whether all that was read late could be.
    ///
    /// # Errors
    /// The file could not be read. This is told once.
    pub fn check(&self) -> Result<(), RunError> {
        match &self.place {
            Place::Temporary(spool) => {
                let failed = spool.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                failed.map_or(Ok(()), Err)
            }
            Place::Stored(_) => Ok(()),
        }
    }

    /// Appends a stream of `total_bytes` that the peer sends in chunks; `heard` is told the spool's length after each.
    ///
    /// # Errors
    /// Of the channel and of the file, and what `heard` returns.
    pub fn receive(
        &mut self,
        channel: &mut Channel,
        total_bytes: u64,
        heard: &mut dyn FnMut(u64) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        Spool::chunks(channel, total_bytes, &mut |chunk| {
            self.append(chunk)?;
            heard(self.length_bytes)
        })
    }

    /// Hands over a stream of `total_bytes` that the peer sends in chunks.
    ///
    /// # Errors
    /// Of the channel, and what `take` returns.
    pub fn chunks(
        channel: &mut Channel,
        total_bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let mut left = total_bytes;
        let mut chunk = vec![0; left.min(CHUNK_BYTES) as usize];
        while left > 0 {
            chunk.truncate(left.min(CHUNK_BYTES) as usize);
            channel.recv_into(&mut chunk)?;
            take(&chunk)?;
            left -= chunk.len() as u64;
        }
        Ok(())
    }
}

/// Cuts a stream of bytes into messages of [`CHUNK_BYTES`], the last one shorter.
pub struct Chunks<'a> {
    channel: &'a mut Channel,
    buffer: Vec<u8>,
}

impl<'a> Chunks<'a> {
    /// A stream to the channel's peer.
    pub fn new(channel: &'a mut Channel) -> Chunks<'a> {
        Chunks { channel, buffer: Vec::new() }
    }

    /// Adds `bytes` to the stream.
    ///
    /// # Errors
    /// Of the channel.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), RunError> {
        let limit = CHUNK_BYTES as usize;
        while self.buffer.len() + bytes.len() >= limit {
            let (now, later) = bytes.split_at(limit - self.buffer.len());
            if self.buffer.is_empty() {
                self.channel.send(now)?;
            } else {
                self.buffer.extend_from_slice(now);
                self.channel.send(&self.buffer)?;
                self.buffer.clear();
            }
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds blocks `0 .. count` in order, made by `block` on all cores where there are several.
    ///
    /// # Errors
    /// Of the channel, and the first that `block` returns.
    pub fn write_blocks(
        &mut self,
        count: usize,
        block: impl Fn(usize) -> Result<Vec<u8>, RunError> + Sync,
    ) -> Result<(), RunError> {
        let workers = threads().min(count);
        if workers < 2 {
            return (0..count).try_for_each(|i| self.write(&block(i)?));
        }
        std::thread::scope(|scope| {
            let mut queues = Vec::with_capacity(workers);
            for worker in 0..workers {
                let (sender, receiver) = sync_channel(4);
                queues.push(receiver);
                let block = &block;
                scope.spawn(move || {
                    for i in (worker..count).step_by(workers) {
                        let made = block(i);
                        let last = made.is_err();
                        // A failed send means that the stream has ended with an error of its own.
                        if sender.send(made).is_err() || last {
                            return;
                        }
                    }
                });
            }
            for i in 0..count {
                // A queue ends early only behind an error, or where its worker panicked, which the scope passes on.
                if let Ok(made) = queues[i % workers].recv() {
                    self.write(&made?)?;
                }
            }
            Ok(())
        })
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// Of the channel.
    pub fn finish(self) -> Result<(), RunError> {
        if self.buffer.is_empty() { Ok(()) } else { self.channel.send(&self.buffer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom};

    #[test]
    fn what_was_appended_is_read_anywhere_and_the_file_tells_nothing() {
        let mut spool = Spool::new().unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i / 1000) as u8).collect();
        for part in [&bytes[..3], &bytes[3..3], &bytes[3..70_000], &bytes[70_000..]] {
            spool.append(part).unwrap();
        }
        assert_eq!(spool.len_bytes(), 200_000);
        for (start, end) in [(0, 200_000), (1, 2), (65_530, 65_550), (69_999, 70_001), (199_999, 200_000)] {
            assert_eq!(spool.read(start as u64, end - start).unwrap(), bytes[start..end]);
        }
        assert!(spool.read(199_999, 2).is_err());
        let late = spool.late(65_530).unwrap();
        let mut found = [0; 20];
        late.read_to(3, &mut found);
        assert_eq!(found, bytes[65_533..65_553]);
        spool.check().unwrap();
        late.read_to(200_000, &mut found);
        assert_eq!(found, [0; 20]);
        assert!(spool.check().is_err() && spool.check().is_ok());
        let Place::Temporary(temporary) = &spool.place else { panic!() };
        let mut file = &temporary.file;
        let mut raw = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut raw).unwrap();
        assert_eq!(raw.len(), 200_000);
        let equal = raw.iter().zip(&bytes).filter(|(raw, byte)| raw == byte).count();
        // One in 256 by chance.
        assert!((500..1100).contains(&equal), "{equal}");
    }
}
