//! What the benches share.

use std::time::Duration;

use criterion::Criterion;
use marill_kernels::{Prg, Seed};

/// `len` words of `width` bits, the same for the same `salt`.
pub fn words(salt: u64, len: usize, width: u32) -> Vec<u64> {
    Prg::new(Seed::new([17; 16]), salt).ring(len, width)
}

/// Few and short samples: what is measured is long, and the machines are noisy.
pub fn brief() -> Criterion {
    let (warm_up, measured) = (Duration::from_millis(300), Duration::from_secs(2));
    Criterion::default().sample_size(10).warm_up_time(warm_up).measurement_time(measured)
}
