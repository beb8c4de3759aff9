//! Numbers for weights that are made up: the same ones for one name, everywhere.

/// A stream of numbers that a name stands for.
pub struct Numbers(u64);

impl Numbers {
    pub fn of(name: &str) -> Numbers {
        // FNV-1a.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Numbers(hash | 1)
    }

    /// Roughly normal: the sum of four uniform bytes pairs.
    pub fn normal(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let sum: i64 = (0..4).map(|i| (self.0 >> (16 * i)) as i64 & 0xffff).sum();
        (sum - 2 * 0xffff) as f32 / (0xffff as f32 * 0.577_35)
    }
}
