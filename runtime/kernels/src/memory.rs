//! What this process's allocator does with memory that is free. Without effect where it is another than the GNU C library's.

/// Freed blocks of this length and more go back to the system while memory counts.
const LARGE_BYTES: i32 = 1 << 20;

/// The longest blocks that the library keeps at all.
const LONGEST_BYTES: i32 = 1 << 25;

/// From now on large blocks go back to the system when they are freed, instead of being kept in pieces that later ones, of
/// other lengths, may not fit into.
pub fn give_back() {
    set([(MMAP_THRESHOLD, LARGE_BYTES), (TRIM_THRESHOLD, LARGE_BYTES)]);
}

/// From now on freed blocks are kept: pages that are new to a process are slow.
pub fn keep() {
    set([(MMAP_THRESHOLD, LONGEST_BYTES), (TRIM_THRESHOLD, 2 * LONGEST_BYTES)]);
}

/// `M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of `malloc.h`.
const TRIM_THRESHOLD: i32 = -1;
const MMAP_THRESHOLD: i32 = -3;

fn set<const COUNT: usize>(parameters: [(i32, i32); COUNT]) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        for (parameter, value) in parameters {
            // SAFETY: the C library's own function, which takes its lock and any numbers.
            unsafe { mallopt(parameter, value) };
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = parameters;
}
