//! Matrix products over `Z_2^64`: every sum and product wraps.
//!
//! A narrower ring has the low bits of these: a product says how many are wanted, and what stands above them is
//! arbitrary. All matrices are row-major. Large products run on [`threads`] threads; the wanted bits never depend on their
//! number or on the [`Path`].

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocked;
mod few_rows;
mod portable;

use crate::threads::{for_each, threads};

/// Sizes of a product `[n, k] x [k, m] -> [n, m]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatShape {
    /// Rows of the left side and of the result.
    pub n: usize,
    /// Columns of the left side, rows of the right side.
    pub k: usize,
    /// Columns of the right side and of the result.
    pub m: usize,
}

/// An element of the right-hand matrix, taken into `Z_2^64`.
pub trait RingElement: Copy + Send + Sync {
    /// The value modulo `2^64`: signed types are sign-extended.
    fn to_ring(self) -> u64;
}

impl RingElement for u64 {
    #[inline(always)]
    fn to_ring(self) -> u64 {
        self
    }
}

impl RingElement for i32 {
    #[inline(always)]
    fn to_ring(self) -> u64 {
        self as u64
    }
}

impl RingElement for i16 {
    #[inline(always)]
    fn to_ring(self) -> u64 {
        self as u64
    }
}

/// How the right-hand matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[k, m]`.
    Plain,
    /// `[m, k]`: its transpose is multiplied.
    Transposed,
}

/// An implementation of the products; all give the same wanted bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// 8-bit tile registers on Linux, with 512-bit vectors for what is too small for them.
    Amx,
    /// 512-bit vectors with a 64-bit multiply, or a 52-bit one where that is there and enough.
    Avx512,
    /// 256-bit vectors, 64-bit multiplies made of three 32-bit ones; up to 32 bits of one.
    Avx2,
    /// No vector instructions beyond what the compiler finds.
    Portable,
}

impl Path {
    /// Every path, fastest first.
    pub const ALL: [Path; 4] = [Path::Amx, Path::Avx512, Path::Avx2, Path::Portable];

    /// Whether this machine can run the path.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Path::Amx => amx::is_available(),
            Path::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq"),
            Path::Avx2 => is_x86_feature_detected!("avx2"),
            Path::Portable => true,
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Path::Portable;
    }

    /// The fastest path of this machine.
    pub fn best() -> Path {
        Path::ALL.into_iter().find(|path| path.is_available()).unwrap_or(Path::Portable)
    }
}

/// How to multiply.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The implementation, which this machine must be able to run.
    pub path: Path,
    /// The largest number of threads.
    pub threads: usize,
    /// Of the right side.
    pub layout: Layout,
    /// The low bits of the result that are wanted.
    pub width: u32,
}

impl Way {
    /// The fastest for plain matrices in a ring of `width` bits.
    pub fn fastest(width: u32) -> Way {
        Way { path: Path::best(), threads: threads(), layout: Layout::Plain, width }
    }
}

/// `a x b`, shapes `[n, k] x [k, m] -> [n, m]`.
///
/// # Panics
/// If a slice's length is not that of its shape.
pub fn matmul(a: &[u64], b: &[u64], shape: MatShape) -> Vec<u64> {
    let mut c = vec![0; shape.n * shape.m];
    matmul_accumulate(a, b, &mut c, shape, 64);
    c
}

/// The low `width` bits of `c += a x b`, shapes `[n, k] x [k, m] -> [n, m]`.
///
/// # Panics
/// If a slice's length is not that of its shape.
pub fn matmul_accumulate(a: &[u64], b: &[u64], c: &mut [u64], shape: MatShape, width: u32) {
    matmul_with(Way::fastest(width), a, b, c, shape);
}

/// The product that all others are calls of: `c += a x b`, shapes `[n, k] x [k, m] -> [n, m]`, or `[m, k]` for a
/// transposed `b`.
///
/// # Panics
/// If a slice's length is not that of its shape, or this machine cannot run the path.
pub fn matmul_with<B: RingElement>(way: Way, a: &[u64], b: &[B], c: &mut [u64], shape: MatShape) {
    let Way { path, threads, layout, width } = way;
    let MatShape { n, k, m } = shape;
    assert!(path.is_available(), "this machine cannot run the {path:?} path");
    assert_eq!(Some(a.len()), n.checked_mul(k), "left side of a product {shape:?}");
    assert_eq!(Some(b.len()), k.checked_mul(m), "right side of a product {shape:?}");
    assert_eq!(Some(c.len()), n.checked_mul(m), "result of a product {shape:?}");
    if n == 0 || k == 0 || m == 0 {
        return;
    }
    if layout == Layout::Plain && m < FEW_COLUMNS && n >= FEW_COLUMNS {
        let transposed: Vec<B> = (0..m).flat_map(|j| b.iter().skip(j).step_by(m).copied()).collect();
        let layout = Layout::Transposed;
        return split(path, threads, Job { a, b: &transposed, k, m, layout, columns: (0, m), width }, c);
    }
    split(path, threads, Job { a, b, k, m, layout, columns: (0, m), width }, c);
}

/// Below this many multiply-adds a thread costs more than it saves.
const THREAD_WORK: usize = 4_000_000;

/// Parts are multiples of this, which every path's tile divides or nearly so.
const PART: usize = 32;

/// Below this many columns (or rows) a product is limited by reading the other side, and nothing is packed.
const FEW_COLUMNS: usize = 8;

/// Some columns of a product; the rows are those of `a`.
#[derive(Clone, Copy)]
struct Job<'a, B> {
    /// `[rows, k]`.
    a: &'a [u64],
    /// All of the right side.
    b: &'a [B],
    k: usize,
    /// Columns of all of the right side.
    m: usize,
    layout: Layout,
    /// First column and the one after the last.
    columns: (usize, usize),
    /// Low bits of the result that are wanted.
    width: u32,
}

/// Cuts the longer side of the result into one part per thread.
fn split<B: RingElement>(path: Path, threads: usize, job: Job<'_, B>, c: &mut [u64]) {
    let Job { a, k, m, .. } = job;
    let n = a.len() / k;
    let work = n.saturating_mul(k).saturating_mul(m);
    let parts = if work <= THREAD_WORK { 1 } else { threads.max(1).min(work / (THREAD_WORK / 4)) };
    if parts == 1 {
        return run(path, job, &mut c.chunks_mut(m).collect::<Vec<_>>());
    }
    if n > m {
        let rows = n.div_ceil(parts).next_multiple_of(PART);
        for_each(a.chunks(rows * k).zip(c.chunks_mut(rows * m)), |(a, c)| {
            run(path, Job { a, ..job }, &mut c.chunks_mut(m).collect::<Vec<_>>());
        });
        return;
    }
    let width = m.div_ceil(parts).next_multiple_of(PART);
    let mut pieces: Vec<_> = c.chunks_mut(m).map(|row| row.chunks_mut(width)).collect();
    let columns = (0..m).step_by(width).map(|first| {
        let c: Vec<&mut [u64]> = pieces.iter_mut().filter_map(Iterator::next).collect();
        ((first, m.min(first + width)), c)
    });
    for_each(columns, |(columns, mut c)| run(path, Job { columns, ..job }, &mut c));
}

/// Runs a job on this thread; `c` holds the job's columns, one slice per row. The path must be available.
fn run<B: RingElement>(path: Path, job: Job<'_, B>, c: &mut [&mut [u64]]) {
    match path {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the only way here is through `matmul_with`, which checks that the machine has the features.
        Path::Amx => unsafe { amx::run(job, c) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Path::Avx512 => unsafe { avx512::run(job, c) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Path::Avx2 => unsafe { avx2::run(job, c) },
        _ => portable::run(job, c),
    }
}

/// Chooses between the ways through memory.
#[inline(always)]
fn run_tiles<B: RingElement, T: blocked::Tile>(job: Job<'_, B>, c: &mut [&mut [u64]]) {
    let (rows, columns) = (c.len(), job.columns.1 - job.columns.0);
    match job.layout {
        Layout::Plain if rows < FEW_COLUMNS => few_rows::plain(job, c),
        Layout::Transposed if rows < FEW_COLUMNS || columns < FEW_COLUMNS => few_rows::transposed(job, c),
        _ => blocked::run::<B, T>(job, c),
    }
}
