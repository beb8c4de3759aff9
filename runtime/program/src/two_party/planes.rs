//! One bit of every element of a tensor, packed: bit `i` of a plane belongs to element `i`.

use std::sync::Arc;

/// Bits of some lanes. Without words, all are zero, whatever the number of lanes. Clones share them.
#[derive(Clone, Default)]
pub struct Plane {
    words: Arc<Vec<u64>>,
}

impl Plane {
    /// From words whose bits beyond `lanes` are dropped.
    pub fn new(mut words: Vec<u64>, lanes: usize) -> Plane {
        words.resize(lanes.div_ceil(64), 0);
        if let (Some(last), used @ 1..) = (words.last_mut(), lanes % 64) {
            *last &= (1 << used) - 1;
        }
        Plane { words: Arc::new(words) }
    }

    /// Ones in all lanes.
    pub fn ones(lanes: usize) -> Plane {
        Plane::new(vec![u64::MAX; lanes.div_ceil(64)], lanes)
    }

    /// The words: none where all bits are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Word `i`.
    pub fn word(&self, i: usize) -> u64 {
        self.words.get(i).copied().unwrap_or(0)
    }

    /// The bit of a lane.
    pub fn bit(&self, lane: usize) -> u64 {
        (self.word(lane / 64) >> (lane % 64)) & 1
    }

    /// Exclusive or, in place.
    pub fn xor_in(&mut self, other: &Plane) {
        if self.words.is_empty() {
            self.words = other.words.clone();
            return;
        }
        Arc::make_mut(&mut self.words).iter_mut().zip(other.words()).for_each(|(a, b)| *a ^= b);
    }

    /// Exclusive or.
    pub fn xor(&self, other: &Plane) -> Plane {
        match (self.words.is_empty(), other.words.is_empty()) {
            (true, _) => other.clone(),
            (_, true) => self.clone(),
            _ => {
                Plane { words: Arc::new(self.words.iter().zip(other.words()).map(|(a, b)| a ^ b).collect()) }
            }
        }
    }

    /// The lanes at `indices`.
    pub fn gather(&self, indices: &[u64]) -> Plane {
        if self.words.is_empty() {
            return Plane::default();
        }
        let mut words = vec![0; indices.len().div_ceil(64)];
        for (lane, &index) in indices.iter().enumerate() {
            words[lane / 64] |= self.bit(index as usize) << (lane % 64);
        }
        Plane { words: Arc::new(words) }
    }
}

/// Transposes a square of bits: bit `j` of word `i` becomes bit `i` of word `j`.
pub fn transpose(square: &mut [u64; 64]) {
    let (mut step, mut mask) = (32, 0xffff_ffff_u64);
    while step > 0 {
        let mut i = 0;
        while i < 64 {
            let moved = ((square[i] >> step) ^ square[i + step]) & mask;
            square[i] ^= moved << step;
            square[i + step] ^= moved;
            i = (i + step + 1) & !step;
        }
        step /= 2;
        mask ^= mask << step;
    }
}

/// Planes for which their bits are picked one by one, instead of by transposing all of them.
const FEW: usize = 4;

/// Planes of bits `first ..  first + count` of every number, `count` at most 64.
pub fn planes_of(numbers: &[u64], first: u32, count: usize) -> Vec<Plane> {
    if numbers.is_empty() {
        return vec![Plane::default(); count];
    }
    let words = numbers.len().div_ceil(64);
    if count <= FEW {
        let pick = |bit: u32| -> Vec<u64> {
            let word = |block: &[u64]| block.iter().rev().fold(0, |word, n| word << 1 | (n >> bit) & 1);
            numbers.chunks(64).map(word).collect()
        };
        let planes = (first..).take(count).map(|bit| Plane { words: Arc::new(pick(bit)) });
        return planes.collect();
    }
    let mut planes = vec![vec![0; words]; count];
    for (w, block) in numbers.chunks(64).enumerate() {
        let mut square = [0; 64];
        square.iter_mut().zip(block).for_each(|(s, n)| *s = n >> first);
        transpose(&mut square);
        planes.iter_mut().zip(square).for_each(|(plane, word)| plane[w] = word);
    }
    planes.into_iter().map(|words| Plane { words: Arc::new(words) }).collect()
}

/// The number of every lane whose bit `i` is in plane `i`, of at most 64 planes. Nothing where no plane has words.
pub fn numbers_of(planes: &[Plane], lanes: usize) -> Vec<u64> {
    if planes.iter().all(|plane| plane.words.is_empty()) {
        return Vec::new();
    }
    let mut numbers = Vec::with_capacity(lanes.next_multiple_of(64));
    for w in 0..lanes.div_ceil(64) {
        let mut square = [0; 64];
        square.iter_mut().zip(planes).for_each(|(s, plane)| *s = plane.word(w));
        transpose(&mut square);
        numbers.extend_from_slice(&square);
    }
    numbers.truncate(lanes);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_and_numbers_are_two_views_of_the_same_bits() {
        let numbers: Vec<u64> = (0..133u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let planes = planes_of(&numbers, 0, 64);
        assert!((0..133).all(|i| (0..64).all(|b| planes[b].bit(i) == (numbers[i] >> b) & 1)));
        assert!(numbers_of(&planes, 133) == numbers);
        for few in 1..6 {
            let expected = (0..few).map(|b| planes[b + 50].words()).collect::<Vec<_>>();
            assert!(planes_of(&numbers, 50, few).iter().map(Plane::words).eq(expected));
        }
        let high = planes_of(&numbers, 40, 10);
        assert!(numbers_of(&high, 133) == numbers.iter().map(|n| (n >> 40) & 1023).collect::<Vec<_>>());
    }

    #[test]
    fn a_plane_without_words_is_zero() {
        let ones = Plane::ones(70);
        assert_eq!((ones.word(0), ones.word(1)), (u64::MAX, 63));
        assert!(Plane::default().xor(&ones).words() == ones.words());
        assert!(ones.xor(&Plane::default()).words() == ones.words());
        assert_eq!(ones.gather(&[0, 69, 70]).word(0), 0b011);
        assert!(numbers_of(&[Plane::default()], 5).is_empty());
    }
}
