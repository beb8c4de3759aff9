//! What a party keeps for the rounds, by instruction.

use std::collections::BTreeMap;

use marill_kernels::pack::packed_len;
use marill_program::correlation::Field;

use super::shares::Shares;
use super::spool::Spool;
use crate::error::RunError;
use crate::transport::Channel;

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

    /// Adds a stream of `total_bytes` that the peer sends in chunks; `heard` is told the shelf's length after each.
    ///
    /// # Errors
    /// Of the channel and of the file, and what `heard` returns.
    pub fn receive(
        &mut self,
        channel: &mut Channel,
        total_bytes: u64,
        heard: &mut dyn FnMut(u64) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        self.spool.receive(channel, total_bytes, heard)
    }

    /// The shares of an instruction's fields, packed one after the other.
    ///
    /// # Errors
    /// Of the file; `malformed` where padding bits are set.
    pub fn fields(
        &mut self,
        at: u32,
        demand: &[Field],
        malformed: impl Fn() -> RunError,
    ) -> Result<Vec<Shares>, RunError> {
        let (mut offset, mut shares) = (0, Vec::with_capacity(demand.len()));
        for field in demand {
            let bytes = self.read(at, offset, packed_len(field.len, field.width))?;
            offset += bytes.len() as u64;
            shares.push(Shares::packed(bytes, field.len, field.width).ok_or_else(&malformed)?);
        }
        Ok(shares)
    }

    /// Adds numbers of 64 bits as those of instruction `at`.
    ///
    /// # Errors
    /// Of the file.
    pub fn put(&mut self, at: u32, numbers: &[u64]) -> Result<(), RunError> {
        self.begin(at);
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.append(&bytes)
    }

    /// The first `len` numbers of instruction `at`.
    ///
    /// # Errors
    /// Of the file.
    pub fn numbers(&mut self, at: u32, len: usize) -> Result<Vec<u64>, RunError> {
        let bytes = self.read(at, 0, 8 * len)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
    }

    /// `count_bytes` bytes of instruction `at` behind its first `skip_bytes`.
    ///
    /// # Errors
    /// Of the file.
    pub fn read(&mut self, at: u32, skip_bytes: u64, count_bytes: usize) -> Result<Vec<u8>, RunError> {
        let start = self.offsets.get(&at).copied().unwrap_or(0);
        self.spool.read(start.saturating_add(skip_bytes), count_bytes)
    }
}
