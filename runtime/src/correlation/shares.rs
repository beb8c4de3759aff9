//! One party's shares of a field, read block by block: whole fields can be far larger than what an instruction makes
//! of them.

use std::ops::{Deref, DerefMut, Range};

use marill_kernels::elements::by_blocks;
use marill_kernels::pack::{packed_len, unpack, unpack_bytes, unpack_to};
use marill_kernels::{Prg, Seed};
use marill_program::fixed::mask;

use super::spool::Late;

/// Values that were read last, in memory that is used again.
#[derive(Default)]
pub struct Numbers {
    values: Vec<u64>,
    /// As they lay in a file.
    bytes: Vec<u8>,
}

/// As [`Numbers`], for values of at most 8 bits.
#[derive(Default)]
pub struct Bytes {
    values: Vec<u8>,
    /// As they lay in a file.
    bytes: Vec<u8>,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.values
    }
}

impl Deref for Numbers {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.values
    }
}

impl DerefMut for Numbers {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.values
    }
}

/// Shares of a field's values, in order.
pub struct Shares {
    len: usize,
    width: u32,
    store: Store,
}

enum Store {
    /// A pseudo-random stream.
    Seeded { seed: Seed, stream: u64 },
    /// Packed numbers.
    Packed(Vec<u8>),
    /// Packed numbers in a file.
    Late(Late),
    /// Numbers.
    Values(Vec<u64>),
}

impl Shares {
    /// `len` values of `width` bits from stream number `stream` of `seed`.
    pub fn seeded(seed: Seed, stream: u64, len: usize, width: u32) -> Shares {
        Shares { len, width, store: Store::Seeded { seed, stream } }
    }

    /// `len` packed values of `width` bits; `None` unless `bytes` are exactly that, with zeros as padding.
    pub fn packed(bytes: Vec<u8>, len: usize, width: u32) -> Option<Shares> {
        let last = len - len % 8;
        let tail = bytes.get(packed_len(last, width)..)?;
        unpack(tail, width, len - last)?;
        Some(Shares { len, width, store: Store::Packed(bytes) })
    }

    /// `len` packed values of `width` bits that lie in a file; `None` unless `tail`, their last `len % 8`, has zeros as padding.
    pub fn late(place: Late, tail: &[u8], len: usize, width: u32) -> Option<Shares> {
        unpack(tail, width, len % 8)?;
        Some(Shares { len, width, store: Store::Late(place) })
    }

    /// These values.
    pub fn values(values: Vec<u64>) -> Shares {
        Shares { len: values.len(), width: 64, store: Store::Values(values) }
    }

    /// Bits of each value.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces what `numbers` has by the values in `range`, which starts at a multiple of 8 and ends at one or at the end.
    pub fn read(&self, range: Range<usize>, numbers: &mut Numbers) {
        let Numbers { values: out, bytes: packed } = numbers;
        let range = range.start.min(self.len)..range.end.min(self.len);
        // What `out` has is overwritten, and not cleared before: that takes as long as some of the reads.
        let read = match &self.store {
            Store::Seeded { seed, stream } => {
                out.resize(range.len(), 0);
                let mut prg = Prg::new(seed.clone(), *stream);
                prg.seek_number(range.start as u64, self.width);
                prg.fill_ring(out, self.width);
                Some(())
            }
            Store::Packed(bytes) => {
                let start = packed_len(range.start, self.width);
                let bytes = &bytes[start..start + packed_len(range.len(), self.width)];
                unpack_to(bytes, self.width, range.len(), out)
            }
            Store::Late(place) => {
                packed.resize(packed_len(range.len(), self.width), 0);
                place.read_to(packed_len(range.start, self.width) as u64, packed);
                // The padding was looked at, and a file that cannot be read is told of.
                unpack_to(packed, self.width, range.len(), out)
            }
            Store::Values(values) => {
                out.clear();
                out.extend_from_slice(&values[range]);
                Some(())
            }
        };
        if read.is_none() {
            // The range is not one of whole bytes, which `packed` and the callers rule out.
            out.clear();
        }
    }

    /// As [`Shares::read`] for values of at most 8 bits, into bytes; nothing for wider ones.
    pub fn read_bytes(&self, range: Range<usize>, out: &mut Bytes) {
        let Bytes { values: out, bytes: packed } = out;
        let range = range.start.min(self.len)..range.end.min(self.len);
        if self.width > 8 {
            out.clear();
            return;
        }
        match &self.store {
            Store::Seeded { seed, stream } => {
                out.resize(range.len(), 0);
                let mut prg = Prg::new(seed.clone(), *stream);
                prg.seek_number(range.start as u64, self.width);
                prg.fill(out);
                let mask = mask(self.width) as u8;
                out.iter_mut().for_each(|byte| *byte &= mask);
            }
            Store::Packed(bytes) => {
                unpack_bytes(&bytes[packed_len(range.start, self.width)..], self.width, range.len(), out);
            }
            Store::Late(place) => {
                packed.resize(packed_len(range.len(), self.width), 0);
                place.read_to(packed_len(range.start, self.width) as u64, packed);
                unpack_bytes(packed, self.width, range.len(), out);
            }
            Store::Values(values) => {
                out.clear();
                out.extend(values[range].iter().map(|value| *value as u8));
            }
        }
    }

    /// All values.
    pub fn into_values(self) -> Vec<u64> {
        match self.store {
            Store::Values(values) => values,
            _ => by_blocks(self.len, 1, Numbers::default, |numbers, range, out| {
                self.read(range, numbers);
                out.copy_from_slice(numbers);
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlation::spool::Spool;
    use marill_kernels::pack::pack;

    #[test]
    fn blocks_are_parts_of_the_whole() {
        for width in [1, 7, 13, 32, 64] {
            let values = Prg::new(Seed::new([7; 16]), 3).ring(1003, width);
            let mut bytes = Vec::new();
            pack(&values, width, &mut bytes);
            let mut spool = Spool::new().unwrap();
            spool.append(&[7]).unwrap();
            spool.append(&bytes).unwrap();
            for shares in [
                Shares::seeded(Seed::new([7; 16]), 3, 1003, width),
                Shares::packed(bytes.clone(), 1003, width).unwrap(),
                Shares::late(spool.late(1).unwrap(), &bytes[packed_len(1000, width)..], 1003, width).unwrap(),
                Shares::values(values.clone()),
            ] {
                let (mut out, mut bytes) = (Numbers::default(), Bytes::default());
                for range in [0..8, 16..160, 504..1003, 1000..1003, 1000..1008, 0..1003] {
                    shares.read(range.clone(), &mut out);
                    assert_eq!(*out, values[range.start..range.end.min(1003)]);
                    shares.read_bytes(range, &mut bytes);
                    if shares.width() <= 8 {
                        assert!(bytes.iter().map(|byte| u64::from(*byte)).eq(out.iter().copied()));
                    } else {
                        assert!(bytes.is_empty());
                    }
                }
                assert!(shares.into_values() == values);
            }
            spool.check().unwrap();
            assert!(Shares::packed(bytes.clone(), 1011, width).is_none());
            assert!(Shares::packed(bytes[1..].to_vec(), 1003, width).is_none());
            if width == 13 {
                *bytes.last_mut().unwrap() |= 0x80;
                let tail = &bytes[packed_len(1000, width)..];
                assert!(Shares::late(spool.late(1).unwrap(), tail, 1003, width).is_none());
                assert!(Shares::packed(bytes, 1003, width).is_none());
            }
        }
    }
}
