//! Width changes on rings `Z_2^k`, `k = width_bits`, one `u64` word per element.

/// `2^width_bits - 1`: the bits of a `width_bits`-bit value. A width of 64 or more gives all ones, zero gives none.
pub const fn mask(width_bits: u32) -> u64 {
    if width_bits >= 64 { u64::MAX } else { (1 << width_bits) - 1 }
}

/// Brings every word to `0..2^width_bits`.
pub fn reduce(values: &mut [u64], width_bits: u32) {
    if width_bits < 64 {
        let mask = mask(width_bits);
        values.iter_mut().for_each(|value| *value &= mask);
    }
}

/// The low `width_bits` bits read as a two's complement number. A width of zero gives zero.
pub const fn sign_extend(value: u64, width_bits: u32) -> i64 {
    match width_bits {
        0 => 0,
        64.. => value as i64,
        _ => ((value << (64 - width_bits)) as i64) >> (64 - width_bits),
    }
}

/// Keeps bits `shift..width_bits` of every word, moved down to bit 0: an element of `Z_2^(width_bits - shift)`.
///
/// The shift is logical; a shift of `width_bits` or more gives zero.
pub fn truncate(values: &mut [u64], width_bits: u32, shift: u32) {
    if shift >= 64 {
        values.fill(0);
        return;
    }
    let mask = mask(width_bits);
    values.iter_mut().for_each(|value| *value = (*value & mask) >> shift);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_at_the_edges() {
        assert_eq!([mask(0), mask(1), mask(37), mask(63)], [0, 1, 0x1f_ffff_ffff, u64::MAX >> 1]);
        assert_eq!([mask(64), mask(65)], [u64::MAX; 2]);
    }

    #[test]
    fn reduce_keeps_the_low_bits() {
        let mut values = [u64::MAX, 1 << 20, 5];
        reduce(&mut values, 20);
        assert_eq!(values, [0xf_ffff, 0, 5]);
        reduce(&mut values, 64);
        assert_eq!(values, [0xf_ffff, 0, 5]);
    }

    #[test]
    fn sign_extension_agrees_with_the_integer_types() {
        for value in [0, 1, 0x7f, 0x80, 0xff, 0x1234_5678_9abc_def0, u64::MAX, 1 << 63, 1 << 31, 1 << 15] {
            assert_eq!(sign_extend(value, 8), i64::from(value as i8));
            assert_eq!(sign_extend(value, 16), i64::from(value as i16));
            assert_eq!(sign_extend(value, 32), i64::from(value as i32));
            assert_eq!(sign_extend(value, 64), value as i64);
            assert_eq!(sign_extend(value, 1), -((value & 1) as i64));
            assert_eq!(sign_extend(value, 0), 0);
        }
    }

    #[test]
    fn truncation_drops_high_and_low_bits() {
        let mut values = [0xabcd_ef01_2345_6789, u64::MAX, 0];
        truncate(&mut values, 32, 8);
        assert_eq!(values, [0x23_4567, 0xff_ffff, 0]);
        for shift in [20, 63, 64, u32::MAX] {
            let mut values = [u64::MAX];
            truncate(&mut values, 20, shift);
            assert_eq!(values, [0]);
        }
        let mut values = [u64::MAX];
        truncate(&mut values, 64, 63);
        assert_eq!(values, [1]);
    }
}
