//! Choices that follow from libFuzzer's seed alone.

use marill_compiler::splitmix::SplitMix64;

/// A stream of choices.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u32) -> Random {
        Random(SplitMix64(u64::from(seed) << 1 | 1))
    }

    /// A number below `limit`, 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.0.draw() % limit as u64) as usize }
    }

    /// True once in `count` times.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn choose<'t, T>(&mut self, among: &'t [T]) -> Option<&'t T> {
        among.get(self.below(among.len()))
    }

    /// Mostly small, sometimes at an edge.
    pub fn integer(&mut self) -> i64 {
        const EDGES: [i64; 16] = [
            i64::MIN,
            i64::MIN + 1,
            i64::MAX,
            i64::MAX - 1,
            i32::MIN as i64,
            i32::MAX as i64,
            u32::MAX as i64,
            1 << 32,
            1 << 40,
            1 << 20,
            (1 << 20) + 1,
            4096,
            1 << 16,
            63,
            64,
            1 << 62,
        ];
        match self.below(8) {
            0 => EDGES[self.below(EDGES.len())],
            1 => self.0.draw() as i64,
            2 => self.below(300) as i64 - 20,
            _ => self.below(8) as i64 - 2,
        }
    }

    pub fn float(&mut self) -> f32 {
        const EDGES: [f32; 12] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1e-5,
            1e30,
            -1e30,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            f32::MIN_POSITIVE,
        ];
        match self.below(3) {
            0 => f32::from_bits(self.0.draw() as u32),
            1 => self.integer() as f32,
            _ => EDGES[self.below(EDGES.len())],
        }
    }
}
