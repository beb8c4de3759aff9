//! What bytes and work count for where the two parties' preprocessing can be done in several ways, in picoseconds.
//!
//! Both parties choose alike: from the program alone, in integers.

/// A byte on a link of which the program does not say how fast it is: 100 Mbit/s.
const DEFAULT_KBITS_PER_SECOND: u64 = 100_000;

/// An oblivious transfer, at one party.
pub(super) const TRANSFER_PS: u64 = 125_000;
/// A number that it carries.
pub(super) const NUMBER_PS: u64 = 20_000;
/// A number of a leaf's stream.
pub(super) const LEAF_PS: u64 = 1_800;
/// A multiply-add of one limb of an encrypted product.
pub(super) const MULTIPLY_ADD_PS: u64 = 250;
/// A transform of one limb.
pub(super) const TRANSFORM_PS: u64 = 32_000_000;

/// The link between the parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    byte_ps: u64,
}

impl Link {
    /// A link of so many kbit/s each way; 0 if nobody said.
    pub fn new(kbits_per_second: u64) -> Link {
        let rate = if kbits_per_second == 0 { DEFAULT_KBITS_PER_SECOND } else { kbits_per_second };
        Link { byte_ps: (8_000_000_000 / rate).max(1) }
    }

    /// Time that `bytes` take.
    pub fn bytes_ps(self, bytes: u64) -> u64 {
        bytes.saturating_mul(self.byte_ps)
    }

    /// Bytes that pass within so many milliseconds.
    pub fn bytes_within(self, milliseconds: u64) -> u64 {
        milliseconds.saturating_mul(1_000_000_000) / self.byte_ps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_a_default_and_do_not_overflow() {
        assert_eq!(Link::new(0), Link::new(100_000));
        assert_eq!(
            [100_000, 1_000_000, u64::MAX].map(|rate| Link::new(rate).bytes_ps(10)),
            [800_000, 80_000, 10]
        );
        assert_eq!(Link::new(1).bytes_ps(u64::MAX), u64::MAX);
        assert_eq!(Link::new(100_000).bytes_within(50), 625_000);
    }
}
