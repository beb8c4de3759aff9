//! Dense packing of `k`-bit values, as sent between parties.
//!
//! Value `i` fills bits `i * k .. (i + 1) * k` of the stream; bit `b` of the stream is bit `b % 8` of byte `b / 8`.
//! The unused high bits of the last byte are zero.

use crate::bits::mask;

/// Bytes that `len` values of `width_bits` bits fill: `ceil(len * width_bits / 8)`, or `usize::MAX` where that is
/// more than `usize` can say.
pub fn packed_len(len: usize, width_bits: u32) -> usize {
    let bytes = (len as u128 * u128::from(width_bits)).div_ceil(8);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Appends the low `width_bits` bits of every value to `out`, `packed_len(values.len(), width_bits)` bytes in all.
///
/// # Panics
/// If `width_bits` is not in `1..=64`.
pub fn pack(values: &[u64], width_bits: u32, out: &mut Vec<u8>) {
    assert!((1..=64).contains(&width_bits), "width_bits is {width_bits}, not in 1..=64");
    let start = out.len();
    out.resize(start + packed_len(values.len(), width_bits), 0);
    let out = &mut out[start..];
    match width_bits {
        8 => out.iter_mut().zip(values).for_each(|(byte, value)| *byte = *value as u8),
        16 => pack_whole::<2>(values, out),
        32 => pack_whole::<4>(values, out),
        64 => pack_whole::<8>(values, out),
        _ => {
            let mut whole = 0;
            #[cfg(target_arch = "x86_64")]
            if avx512::is_available() {
                // SAFETY: the machine has the features.
                whole = unsafe { avx512::pack_groups(values, width_bits, out) };
            }
            pack_bits(&values[whole * GROUP..], width_bits, &mut out[whole * width_bits as usize..]);
        }
    }
}

/// The `len` values that [`pack`] wrote, or `None` unless `bytes` is exactly such an output: the length must be
/// `packed_len(len, width_bits)`, the padding bits zero and the width in `1..=64`.
///
/// Allocates nothing before the length is checked.
pub fn unpack(bytes: &[u8], width_bits: u32, len: usize) -> Option<Vec<u64>> {
    let mut values = Vec::new();
    unpack_to(bytes, width_bits, len, &mut values)?;
    Some(values)
}

/// As [`unpack`], in place of what `values` holds; `None` leaves it alone.
pub fn unpack_to(bytes: &[u8], width_bits: u32, len: usize, values: &mut Vec<u64>) -> Option<()> {
    if !(1..=64).contains(&width_bits) || bytes.len() != packed_len(len, width_bits) {
        return None;
    }
    let last_bits = len % 8 * width_bits as usize % 8;
    if last_bits > 0 && bytes.last()? >> last_bits != 0 {
        return None;
    }
    values.resize(len, 0);
    match width_bits {
        8 => values.iter_mut().zip(bytes).for_each(|(value, byte)| *value = u64::from(*byte)),
        16 => unpack_whole::<2>(bytes, values),
        32 => unpack_whole::<4>(bytes, values),
        64 => unpack_whole::<8>(bytes, values),
        _ => unpack_bits(bytes, width_bits, values),
    }
    Some(())
}

/// Of what [`pack`] wrote of values of at most 8 bits the first `len`, in place of what `values` holds. Bytes beyond those of
/// `len` values, and the padding, are not looked at.
///
/// # Panics
/// If `width_bits` is not in `1..=8` or there are too few bytes.
pub fn unpack_bytes(bytes: &[u8], width_bits: u32, len: usize, values: &mut Vec<u8>) {
    assert!((1..=8).contains(&width_bits), "width_bits is {width_bits}, not in 1..=8");
    let bytes = &bytes[..packed_len(len, width_bits)];
    values.resize(len, 0);
    let (half, quarter, one) = (mask(4 * width_bits), mask(2 * width_bits), mask(width_bits));
    let (quarters, ones) = (quarter | quarter << 32, one | one << 16 | one << 32 | one << 48);
    let spread = |word: [u8; GROUP]| {
        let word = u64::from_le_bytes(word);
        // Apart by halves, by quarters, then one by one.
        let word = (word & half) | (((word >> (4 * width_bits)) & half) << 32);
        let word = (word & quarters) | (((word >> (2 * width_bits)) & quarters) << 16);
        ((word & ones) | (((word >> width_bits) & ones) << 8)).to_le_bytes()
    };
    let (groups, rest) = values.as_chunks_mut::<GROUP>();
    let mut at = 0;
    for values in groups {
        let word = bytes.get(at..at + GROUP).and_then(|word| word.try_into().ok());
        *values = spread(word.unwrap_or_else(|| first_word(&bytes[at..])));
        at += width_bits as usize;
    }
    let last = spread(first_word(&bytes[at..]));
    rest.copy_from_slice(&last[..rest.len()]);
}

/// The first bytes, and zeros where there are fewer.
fn first_word(bytes: &[u8]) -> [u8; GROUP] {
    let mut word = [0; GROUP];
    let count = bytes.len().min(GROUP);
    word[..count].copy_from_slice(&bytes[..count]);
    word
}

fn pack_whole<const BYTES: usize>(values: &[u64], out: &mut [u8]) {
    for (place, value) in out.as_chunks_mut::<BYTES>().0.iter_mut().zip(values) {
        place.copy_from_slice(&value.to_le_bytes()[..BYTES]);
    }
}

fn unpack_whole<const BYTES: usize>(bytes: &[u8], values: &mut [u64]) {
    for (value, chunk) in values.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
        let mut word = [0; 8];
        word[..BYTES].copy_from_slice(chunk);
        *value = u64::from_le_bytes(word);
    }
}

/// Fills whole words; 64 values are `width_bits` words, so no block of 64 leaves bits behind.
fn pack_bits(values: &[u64], width_bits: u32, out: &mut [u8]) {
    let mask = mask(width_bits);
    let (mut word, mut used_bits) = (0_u64, 0_u32);
    let mut words = out.chunks_mut(8);
    for value in values {
        let value = value & mask;
        word |= value << used_bits;
        used_bits += width_bits;
        if used_bits >= 64 {
            if let Some(place) = words.next() {
                place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
            }
            used_bits -= 64;
            // Two shifts, because the value may have ended with the word and a shift by 64 is not defined.
            word = value >> 1 >> (width_bits - used_bits - 1);
        }
    }
    if let Some(place) = words.next() {
        place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
    }
}

/// Eight values fill `width_bits` whole bytes.
const GROUP: usize = 8;

/// The widest values that, wherever in a byte they begin, end within eight bytes.
const WITHIN_WORD: u32 = 57;

fn unpack_bits(bytes: &[u8], width_bits: u32, values: &mut [u64]) {
    let mut whole = 0;
    #[cfg(target_arch = "x86_64")]
    if avx512::is_available() {
        // SAFETY: the machine has the features.
        whole = unsafe { avx512::unpack_groups(bytes, width_bits, values) };
    }
    if width_bits <= WITHIN_WORD {
        let stride = width_bits as usize;
        whole += unpack_groups(&bytes[whole * stride..], width_bits, &mut values[whole * GROUP..]);
    }
    unpack_rest(&bytes[whole * width_bits as usize..], width_bits, &mut values[whole * GROUP..]);
}

/// Unpacks groups as long as whole words can be read, and says how many.
fn unpack_groups(bytes: &[u8], width_bits: u32, values: &mut [u64]) -> usize {
    let (stride, mask) = (width_bits as usize, mask(width_bits));
    let groups = (bytes.len().saturating_sub(GROUP) / stride).min(values.len() / GROUP);
    for (group, values) in values.as_chunks_mut::<GROUP>().0.iter_mut().take(groups).enumerate() {
        let bytes = &bytes[group * stride..][..stride + GROUP];
        for (i, value) in values.iter_mut().enumerate() {
            let bit = i * stride;
            let word = bytes[bit / 8..][..8].try_into().map_or(0, u64::from_le_bytes);
            *value = (word >> (bit % 8)) & mask;
        }
    }
    groups
}

/// One value after the other.
fn unpack_rest(bytes: &[u8], width_bits: u32, values: &mut [u64]) {
    let mask = mask(width_bits);
    let (words, tail) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let mut words = words.iter().chain(std::iter::once(&last)).map(|word| u64::from_le_bytes(*word));
    let (mut word, mut left_bits) = (0_u64, 0_u32);
    for place in values {
        if left_bits >= width_bits {
            *place = word & mask;
            word >>= width_bits;
            left_bits -= width_bits;
            continue;
        }
        let next = words.next().unwrap_or(0);
        *place = (word | next << left_bits) & mask;
        let taken_bits = width_bits - left_bits;
        // Two shifts, because all 64 bits may have been taken.
        word = next >> 1 >> (taken_bits - 1);
        left_bits = 64 - taken_bits;
    }
}

/// A group at once: bytes are brought to the lanes of a 512-bit vector, and out of them, by permutations.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _MM_PERM_BADC, _mm512_and_si512, _mm512_loadu_epi64, _mm512_maskz_mov_epi64,
        _mm512_maskz_permutexvar_epi8, _mm512_or_si512, _mm512_permutexvar_epi8, _mm512_reduce_or_epi64,
        _mm512_set1_epi64, _mm512_shuffle_epi32, _mm512_sllv_epi64, _mm512_srlv_epi64, _mm512_storeu_epi64,
    };
    use std::array::from_fn;

    use super::{GROUP, WITHIN_WORD, mask};

    const VECTOR_BYTES: usize = 64;

    /// The widest values of which two, begun anywhere in a byte, fill no more than 128 bits.
    const WITHIN_PAIR: u32 = 62;

    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi")
    }

    #[target_feature(enable = "avx512f")]
    fn words(words: [u64; GROUP]) -> __m512i {
        // SAFETY: the array is as long as the vector, and loads need no alignment.
        unsafe { _mm512_loadu_epi64(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn bytes(bytes: [u8; VECTOR_BYTES]) -> __m512i {
        // SAFETY: the array is as long as the vector, and loads need no alignment.
        unsafe { _mm512_loadu_epi64(bytes.as_ptr().cast()) }
    }

    /// Unpacks groups as long as whole vectors can be read, and says how many.
    #[target_feature(enable = "avx512f,avx512vbmi")]
    pub(super) fn unpack_groups(packed: &[u8], width_bits: u32, values: &mut [u64]) -> usize {
        let stride = width_bits as usize;
        if packed.len() < VECTOR_BYTES {
            return 0;
        }
        let groups = ((packed.len() - VECTOR_BYTES) / stride + 1).min(values.len() / GROUP);
        let order: [u8; VECTOR_BYTES] = from_fn(|at| (at / 8 * stride / 8 + at % 8) as u8);
        let shifts: [u64; GROUP] = from_fn(|i| (i * stride % 8) as u64);
        // Of wide values the eight bytes behind, of which no more than the lowest counts: the others are shifted out.
        let (behind, rest) = (bytes(order.map(|place| place + 8)), words(shifts.map(|shift| 64 - shift)));
        let (order, shifts, is_wide) = (bytes(order), words(shifts), width_bits > WITHIN_WORD);
        let mask = _mm512_set1_epi64(mask(width_bits) as i64);
        for (group, values) in values.as_chunks_mut::<GROUP>().0.iter_mut().take(groups).enumerate() {
            let packed = &packed[group * stride..][..VECTOR_BYTES];
            // SAFETY: `packed` is 64 bytes long and the load needs no alignment.
            let packed = unsafe { _mm512_loadu_epi64(packed.as_ptr().cast()) };
            let mut words = _mm512_srlv_epi64(_mm512_permutexvar_epi8(order, packed), shifts);
            if is_wide {
                let above = _mm512_sllv_epi64(_mm512_permutexvar_epi8(behind, packed), rest);
                words = _mm512_or_si512(words, above);
            }
            // SAFETY: `values` is 64 bytes long and the store needs no alignment.
            unsafe { _mm512_storeu_epi64(values.as_mut_ptr().cast(), _mm512_and_si512(words, mask)) };
        }
        groups
    }

    /// Packs groups as long as whole vectors, or words, can be written, and says how many. What lies behind them is
    /// arbitrary.
    #[target_feature(enable = "avx512f,avx512vbmi")]
    pub(super) fn pack_groups(values: &[u64], width_bits: u32, out: &mut [u8]) -> usize {
        match width_bits {
            ..=8 => pack_words(values, width_bits, out),
            9..=WITHIN_PAIR => pack_vectors(values, width_bits, out),
            _ => 0,
        }
    }

    #[target_feature(enable = "avx512f,avx512vbmi")]
    fn pack_words(values: &[u64], width_bits: u32, out: &mut [u8]) -> usize {
        let (mask, stride) = (_mm512_set1_epi64(mask(width_bits) as i64), width_bits as usize);
        let shifts = words(from_fn(|i| (i * stride) as u64));
        let mut groups = 0;
        for group in values.as_chunks::<GROUP>().0 {
            let Some(place) = out.get_mut(groups * stride..groups * stride + 8) else { break };
            let shifted = _mm512_sllv_epi64(_mm512_and_si512(words(*group), mask), shifts);
            place.copy_from_slice(&_mm512_reduce_or_epi64(shifted).to_le_bytes());
            groups += 1;
        }
        groups
    }

    #[target_feature(enable = "avx512f,avx512vbmi")]
    fn pack_vectors(values: &[u64], width_bits: u32, out: &mut [u8]) -> usize {
        const EVEN: u8 = 0x55;
        let (mask, stride) = (_mm512_set1_epi64(mask(width_bits) as i64), width_bits as usize);
        // Two values make a pair of 128 bits, which begins at some bit of a byte.
        let pair_bits = 2 * stride;
        let begin = |pair: usize| pair * pair_bits % 8;
        let is_odd = |lane: usize| lane % 2 == 1;
        let join = words(from_fn(|lane| if is_odd(lane) { stride as u64 } else { 0 }));
        let spill = words(from_fn(|lane| if is_odd(lane) { 64 - stride as u64 } else { 64 }));
        let shift = words(from_fn(|lane| begin(lane / 2) as u64));
        let carry = words(from_fn(|lane| if is_odd(lane) { 64 } else { 64 - begin(lane / 2) as u64 }));
        // Pairs 0 and 2 have no byte in common, nor have 1 and 3.
        let places = [0, 1].map(|first| {
            let (mut order, mut filled) = ([0; VECTOR_BYTES], 0_u64);
            for pair in [first, first + 2] {
                for byte in 0..(begin(pair) + pair_bits).div_ceil(8) {
                    let at = pair * pair_bits / 8 + byte;
                    order[at] = (16 * pair + byte) as u8;
                    filled |= 1 << at;
                }
            }
            (bytes(order), filled)
        });
        let swap = |pairs| _mm512_shuffle_epi32::<_MM_PERM_BADC>(pairs);
        let mut groups = 0;
        for group in values.as_chunks::<GROUP>().0 {
            let Some(place) = out.get_mut(groups * stride..groups * stride + VECTOR_BYTES) else { break };
            let values = _mm512_and_si512(words(*group), mask);
            let joined = _mm512_sllv_epi64(values, join);
            let low = _mm512_maskz_mov_epi64(EVEN, _mm512_or_si512(joined, swap(joined)));
            let pairs = _mm512_or_si512(low, _mm512_srlv_epi64(values, spill));
            let carried = swap(_mm512_srlv_epi64(pairs, carry));
            let pairs = _mm512_or_si512(_mm512_sllv_epi64(pairs, shift), carried);
            let [even, odd] =
                places.map(|(order, filled)| _mm512_maskz_permutexvar_epi8(filled, order, pairs));
            // SAFETY: `place` is 64 bytes long and the store needs no alignment.
            unsafe { _mm512_storeu_epi64(place.as_mut_ptr().cast(), _mm512_or_si512(even, odd)) };
            groups += 1;
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One bit at a time, straight from the module's definition.
    fn pack_naive(values: &[u64], width_bits: u32) -> Vec<u8> {
        let mut bytes = vec![0; packed_len(values.len(), width_bits)];
        for (i, value) in values.iter().enumerate() {
            for bit in 0..width_bits as usize {
                let at = i * width_bits as usize + bit;
                bytes[at / 8] |= (((value >> bit) & 1) as u8) << (at % 8);
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn packing_follows_the_definition_and_round_trips(
            values in proptest::collection::vec(any::<u64>(), 0..200),
            width_bits in 1_u32..=64,
        ) {
            let mut bytes = vec![0xaa, 0x55];
            pack(&values, width_bits, &mut bytes);
            prop_assert_eq!(&bytes[..2], &[0xaa, 0x55]);
            prop_assert_eq!(&bytes[2..], &pack_naive(&values, width_bits)[..]);
            let expected: Vec<u64> = values.iter().map(|value| value & mask(width_bits)).collect();
            if width_bits <= 8 {
                let mut narrow = vec![7; 3];
                unpack_bytes(&bytes[2..], width_bits, values.len(), &mut narrow);
                prop_assert!(narrow.iter().map(|byte| u64::from(*byte)).eq(expected.iter().copied()));
            }
            prop_assert_eq!(unpack(&bytes[2..], width_bits, values.len()), Some(expected));
        }

        #[test]
        fn accepted_bytes_are_what_packing_gives(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            width_bits in 0_u32..70,
            len in 0_usize..80,
        ) {
            if let Some(values) = unpack(&bytes, width_bits, len) {
                let mut again = Vec::new();
                pack(&values, width_bits, &mut again);
                prop_assert_eq!(again, bytes);
                prop_assert_eq!(values.len(), len);
            }
        }
    }

    #[test]
    fn every_width_at_every_short_length() {
        for width_bits in 1..=64 {
            for len in 0..=70 {
                let values: Vec<u64> =
                    (0..len).map(|i| (i + 1_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
                let mut bytes = Vec::new();
                pack(&values, width_bits, &mut bytes);
                assert_eq!(bytes, pack_naive(&values, width_bits), "{width_bits} bits, {len} values");
                let values: Vec<u64> = values.iter().map(|value| value & mask(width_bits)).collect();
                assert_eq!(unpack(&bytes, width_bits, len as usize), Some(values));
            }
        }
    }

    /// Every path, at lengths where the vectors end and others begin.
    #[test]
    fn long_runs_of_every_width() {
        for width_bits in 1..=64 {
            let values: Vec<u64> = (0..1003)
                .map(|i| (i + 1_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask(width_bits))
                .collect();
            for len in [200, 1000, 1003] {
                let mut bytes = Vec::new();
                pack(&values[..len], width_bits, &mut bytes);
                let mut found = vec![7; 2000];
                assert_eq!(unpack_to(&bytes, width_bits, len, &mut found), Some(()));
                assert_eq!(found, values[..len], "{width_bits} bits, {len} values");
                if width_bits <= WITHIN_WORD {
                    let mut found = vec![0; len];
                    let groups = unpack_groups(&bytes, width_bits, &mut found);
                    assert!(groups + 8 >= len / GROUP);
                    assert_eq!(found[..groups * GROUP], values[..groups * GROUP], "{width_bits} bits");
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_padding_and_widths_are_refused() {
        let mut bytes = Vec::new();
        pack(&[1, 2, 3], 5, &mut bytes);
        assert_eq!(bytes.len(), 2);
        assert_eq!(unpack(&bytes, 5, 3), Some(vec![1, 2, 3]));
        assert_eq!(unpack(&bytes, 5, 4), None);
        assert_eq!(unpack(&bytes[..1], 5, 3), None);
        assert_eq!(unpack(&[bytes[0], bytes[1] | 0x80], 5, 3), None);
        assert_eq!(unpack(&[0], 1, 0), None);
        assert_eq!(unpack(&[], 0, 0), None);
        assert_eq!(unpack(&[], 0, 10), None);
        assert_eq!(unpack(&[0; 65], 65, 8), None);
        assert_eq!(unpack(&[0; 8], 64, usize::MAX), None);
        assert_eq!(unpack(&[], 63, usize::MAX / 2), None);
        assert_eq!(unpack(&[], 64, 0), Some(vec![]));
    }

    #[test]
    fn lengths_do_not_overflow() {
        assert_eq!(packed_len(0, 64), 0);
        assert_eq!(packed_len(3, 5), 2);
        assert_eq!(packed_len(usize::MAX, 8), usize::MAX);
        assert_eq!(packed_len(usize::MAX, 64), usize::MAX);
    }
}
