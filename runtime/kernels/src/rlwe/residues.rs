//! Residues as bytes: three each, little endian, in `0..p`.

use super::modulus::Modulus;

/// Bytes of a residue.
pub const RESIDUE_BYTES: usize = 3;

/// Appends residues.
pub fn write(modulus: Modulus, values: &[f64], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + RESIDUE_BYTES * values.len(), 0);
    for (place, value) in out[start..].as_chunks_mut::<RESIDUE_BYTES>().0.iter_mut().zip(values) {
        let [low, middle, high, _] = modulus.canonical(*value).to_le_bytes();
        *place = [low, middle, high];
    }
}

/// Overwrites `values` with centred residues. Fails if the length differs or one is not below the prime.
pub fn read(modulus: Modulus, bytes: &[u8], values: &mut [f64]) -> Option<()> {
    if bytes.len() != RESIDUE_BYTES * values.len() {
        return None;
    }
    let (prime, mut largest) = (modulus.prime(), 0);
    for (value, [low, middle, high]) in values.iter_mut().zip(bytes.as_chunks::<RESIDUE_BYTES>().0) {
        let word = u32::from_le_bytes([*low, *middle, *high, 0]);
        largest = largest.max(word);
        *value = f64::from(if word > prime / 2 { word as i32 - prime as i32 } else { word as i32 });
    }
    (largest < prime).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::MODULI;

    #[test]
    fn residues_round_trip_and_larger_words_are_refused() {
        let modulus = MODULI[3];
        let half = f64::from(modulus.prime() / 2);
        let values = [0.0, 1.0, -1.0, half, -half];
        let mut bytes = Vec::new();
        write(modulus, &values, &mut bytes);
        let mut back = [9.0; 5];
        assert_eq!(read(modulus, &bytes, &mut back), Some(()));
        assert_eq!(back, values);
        assert_eq!(read(modulus, &bytes[1..], &mut back), None);
        bytes[..3].copy_from_slice(&modulus.prime().to_le_bytes()[..3]);
        assert_eq!(read(modulus, &bytes, &mut back), None);
    }
}
