//! What a party keeps for the rounds, by instruction.

use std::collections::BTreeMap;

use marill_kernels::pack::packed_len;
use marill_program::correlation::Field;

use super::shares::Shares;
use super::spool::Spool;
use crate::error::RunError;

/// Bytes for which it pays to be read where they are used, in parts.
const LATE_FROM_BYTES: usize = 1 << 14;

/// Bytes of instructions one after the other, and where each begins.
pub struct Shelf {
    spool: Spool,
    offsets: BTreeMap<u32, u64>,
}

impl Shelf {
    /// An empty shelf in a temporary file.
    ///
    /// # Errors
    /// Of the temporary file.
    pub fn new() -> Result<Shelf, RunError> {
        Ok(Shelf { spool: Spool::new()?, offsets: BTreeMap::new() })
    }

    /// A shelf whose bytes lie in `spool`.
    pub fn over(spool: Spool, offsets: BTreeMap<u32, u64>) -> Shelf {
        Shelf { spool, offsets }
    }

    /// The bytes, and where each instruction's begin.
    pub fn parts(&mut self) -> (&mut Spool, &BTreeMap<u32, u64>) {
        (&mut self.spool, &self.offsets)
    }

    /// Whether nothing is kept for instruction `at`.
    pub fn lacks(&self, at: u32) -> bool {
        !self.offsets.contains_key(&at)
    }

    /// What is appended from now on is instruction `at`'s.
    pub fn begin(&mut self, at: u32) {
        self.offsets.insert(at, self.spool.len_bytes());
    }

    /// Adds `bytes` at the end.
    ///
    /// # Errors
    /// Of the file.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        self.spool.append(bytes)
    }

    /// The shares of an instruction's fields, packed one after the other.
    ///
    /// # Errors
    /// Of the file; `malformed` where padding bits are set.
    pub fn fields(
        &self,
        at: u32,
        demand: &[Field],
        malformed: impl Fn() -> RunError,
    ) -> Result<Vec<Shares>, RunError> {
        let (mut offset, mut shares) = (self.start(at), Vec::with_capacity(demand.len()));
        for &Field { len, width, .. } in demand {
            shares.push(self.packed_at(offset, len, width)?.ok_or_else(&malformed)?);
            offset += packed_len(len, width) as u64;
        }
        Ok(shares)
    }

    /// The `len` packed values of `width` bits of instruction `at`; `None` where padding bits are set.
    ///
    /// # Errors
    /// Of the file.
    pub fn packed(&self, at: u32, len: usize, width: u32) -> Result<Option<Shares>, RunError> {
        self.packed_at(self.start(at), len, width)
    }

    fn packed_at(&self, offset: u64, len: usize, width: u32) -> Result<Option<Shares>, RunError> {
        let count_bytes = packed_len(len, width);
        Ok(match self.spool.late(offset) {
            Some(place) if count_bytes >= LATE_FROM_BYTES => {
                let before_tail = packed_len(len - len % 8, width);
                let tail = self.spool.read(offset + before_tail as u64, count_bytes - before_tail)?;
                Shares::late(place, &tail, len, width)
            }
            _ => Shares::packed(self.spool.read(offset, count_bytes)?, len, width),
        })
    }

    /// Adds numbers of 64 bits as those of instruction `at`.
    ///
    /// # Errors
    /// Of the file.
    pub fn put(&mut self, at: u32, numbers: impl IntoIterator<Item = u64>) -> Result<(), RunError> {
        self.begin(at);
        let (mut numbers, mut bytes) = (numbers.into_iter(), Vec::new());
        loop {
            bytes.clear();
            bytes.extend(numbers.by_ref().take(1 << 13).flat_map(u64::to_le_bytes));
            if bytes.is_empty() {
                return Ok(());
            }
            self.append(&bytes)?;
        }
    }

    /// The first `len` numbers of instruction `at`.
    ///
    /// # Errors
    /// Of the file.
    pub fn numbers(&self, at: u32, len: usize) -> Result<Shares, RunError> {
        let start = self.start(at);
        let shares = match self.spool.late(start) {
            Some(place) => Shares::late(
                place,
                &self.spool.read(start + 8 * (len - len % 8) as u64, 8 * (len % 8))?,
                len,
                64,
            ),
            None => Shares::packed(self.spool.read(start, 8 * len)?, len, 64),
        };
        // Numbers of 64 bits have no padding.
        Ok(shares.unwrap_or_else(|| Shares::values(Vec::new())))
    }

    /// As [`Spool::check`].
    ///
    /// # Errors
    /// The file could not be read.
    pub fn check(&self) -> Result<(), RunError> {
        self.spool.check()
    }

    /// `count_bytes` bytes of instruction `at` behind its first `skip_bytes`.
    ///
    /// # Errors
    /// Of the file.
    pub fn read(&self, at: u32, skip_bytes: u64, count_bytes: usize) -> Result<Vec<u8>, RunError> {
        self.spool.read(self.start(at).saturating_add(skip_bytes), count_bytes)
    }

    fn start(&self, at: u32) -> u64 {
        self.offsets.get(&at).copied().unwrap_or(0)
    }
}
