//! By how many bits of a number a party chooses at once.
//!
//! A digit of `k` bits takes one offset for each of the other party's numbers where single bits take `k`, but a tree for
//! each lane, and each party expands `2^k` leaves for each number. So digits pay where one number meets many.

use super::effort::{LEAF_PS, Link, NUMBER_PS, TRANSFER_PS};
use super::ot::BLOCK_BYTES;

/// Bits of a digit, at most.
const MOST_BITS: u32 = 8;

/// Bits of the digits by which a number of `bits` bits is chosen, if `per` numbers modulo 2^`width` are multiplied by it.
pub(super) fn digit_bits(link: Link, bits: u32, per: usize, width: u32) -> u32 {
    let bits = bits.min(width);
    let most = if per > 1 { bits.clamp(1, MOST_BITS) } else { 1 };
    let cost = |k: &u32| {
        let each = digits(bits, *k).map(|(low, k)| digit_ps(link, k, per, width - low));
        each.fold(0, u64::saturating_add)
    };
    (1..=most).min_by_key(cost).unwrap_or(1)
}

/// Of how many digits that is.
pub fn digit_count(link: Link, bits: u32, per: usize, width: u32) -> u32 {
    bits.min(width).div_ceil(digit_bits(link, bits, per, width))
}

/// The digits of a number of `bits` bits, `most` bits each but for the last: their lowest bit, and how many they have.
pub(super) fn digits(bits: u32, most: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..bits).step_by(most as usize).map(move |low| (low, most.min(bits - low)))
}

/// Bytes that digits of numbers of `bits` bits take for one lane, about.
pub(super) fn private_bytes(link: Link, bits: u32, per: usize, width: u32) -> u64 {
    let most = digit_bits(link, bits, per, width);
    digits(bits.min(width), most).map(|(low, k)| digit_bytes(k, per, width - low)).sum()
}

fn digit_bytes(k: u32, per: usize, width: u32) -> u64 {
    u64::from(k - 1) * BLOCK_BYTES + (per as u64 * u64::from(width)).div_ceil(8)
}

fn digit_ps(link: Link, k: u32, per: usize, width: u32) -> u64 {
    let per_number = if k > 1 { LEAF_PS << k } else { 0 } + NUMBER_PS;
    let work_ps = (per as u64).saturating_mul(per_number).saturating_add(u64::from(k) * TRANSFER_PS);
    link.bytes_ps(digit_bytes(k, per, width)).saturating_add(work_ps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_pay_where_a_number_meets_many() {
        let bits =
            |bits, per| [1_000_000, 100_000, 10_000].map(|rate| digit_bits(Link::new(rate), bits, per, 48));
        assert_eq!([bits(30, 1), bits(1, 768)], [[1; 3]; 2]);
        // The slower the link, the larger.
        assert_eq!([bits(30, 64), bits(30, 768)], [[4, 6, 8]; 2]);
    }

    #[test]
    fn digits_cover_all_bits_once() {
        assert_eq!(digits(7, 3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(digits(0, 3).count(), 0);
        // The slowest link and the longest row there can be.
        assert!(digit_bits(Link::new(1), 64, 1 << 32, 64) >= 1);
        // Bits above the ring choose nothing.
        assert_eq!(digit_count(Link::new(0), 60, 64, 20), digit_count(Link::new(0), 20, 64, 20));
    }
}
