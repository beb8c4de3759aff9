//! Several threads, and the machine's vectors. Neither shows in a result: work is cut between elements, never inside
//! the computation of one.

use std::sync::OnceLock;

/// The number of threads that large operations run on: what the machine offers, at most `MARILL_THREADS` where that
/// is set to a number above zero. Read once.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let offered = std::thread::available_parallelism().map_or(1, usize::from);
        let limit = std::env::var("MARILL_THREADS").ok().and_then(|text| text.parse().ok());
        limit.filter(|limit| *limit > 0).map_or(offered, |limit| offered.min(limit))
    })
}

/// Nanoseconds of work that are worth a thread.
const PART_NS: usize = 100_000;

/// How many threads `work_ns` nanoseconds of work deserve.
pub fn parts(work_ns: usize) -> usize {
    threads().min(work_ns / PART_NS).max(1)
}

/// Cuts `out` into pieces of whole units of `unit` elements and gives each to a thread, with the index of its first
/// unit. `unit_ns` is the time that a unit takes, roughly.
pub fn split<T: Send>(out: &mut [T], unit: usize, unit_ns: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let unit = unit.max(1);
    let units = out.len() / unit;
    let parts = parts(units.saturating_mul(unit_ns));
    let size = units.div_ceil(parts).max(1);
    let mut pieces = out.chunks_mut(size * unit).enumerate();
    let Some((_, own)) = pieces.next() else { return };
    std::thread::scope(|scope| {
        let f = &f;
        for (part, piece) in pieces {
            scope.spawn(move || f(part * size, piece));
        }
        f(0, own);
    });
}

/// A loop that is compiled for every kind of vectors and run with the machine's widest. What it calls must be
/// `#[inline(always)]`. Rust never fuses or reorders floating-point operations, so the result does not depend on the
/// kind.
pub trait Loop {
    fn run(self);
}

struct Dispatched<L>(L);

impl<L: Loop> pulp::NullaryFnOnce for Dispatched<L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.run();
    }
}

pub fn vectorised(l: impl Loop) {
    pulp::Arch::new().dispatch(Dispatched(l));
}

/// The sum of `f` of every value in f64: sixteen running sums side by side, then those in pairs.
#[inline(always)]
pub fn sum<T: Copy + Into<f64>>(values: &[T], f: impl Fn(f64) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for lane in 0..LANES {
            sums[lane] += f(chunk[lane].into());
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f(x.into());
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}
