//! The threads that large work is split among.
//!
//! A thread that has called [`join_pool`] splits it with those of rayon's pool, which are there already; any other with
//! threads of the moment, since work of the pool would wait for a thread that may be waiting for a peer.

use std::sync::OnceLock;

/// The number of threads that large work runs on: what the machine offers, at most `MARILL_THREADS` where that is set to a
/// number above zero. Read once.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let offered = std::thread::available_parallelism().map_or(1, usize::from);
        let limit = std::env::var("MARILL_THREADS").ok().and_then(|text| text.parse().ok());
        limit.filter(|limit| *limit > 0).map_or(offered, |limit| offered.min(limit))
    })
}

/// Makes this thread one of rayon's global pool of [`threads`]. Without effect where there is a pool already.
pub fn join_pool() {
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads()).use_current_thread().build_global();
}

/// Does `work` on every part: the first one here, others where there is a thread for them.
///
/// # Panics
/// If `work` does.
pub fn for_each<T: Send>(parts: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut parts = parts.fuse();
    let (Some(own), second) = (parts.next(), parts.next()) else { return };
    let Some(second) = second else { return work(own) };
    let others: Vec<T> = [second].into_iter().chain(parts).collect();
    let work = &work;
    if rayon::current_thread_index().is_some() {
        rayon::scope(|scope| {
            others.into_iter().for_each(|part| scope.spawn(move |_| work(part)));
            work(own);
        });
    } else {
        std::thread::scope(|scope| {
            for part in others {
                scope.spawn(move || work(part));
            }
            work(own);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_part_is_worked_on_once_on_any_thread() {
        let check = || {
            for count in [0, 1, 2, 7] {
                let seen = Mutex::new(Vec::new());
                for_each(0..count, |part| seen.lock().unwrap().push(part));
                let mut seen = seen.into_inner().unwrap();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..count));
            }
        };
        check();
        rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap().install(check);
    }

    #[test]
    #[should_panic(expected = "a part")]
    fn a_panic_of_any_part_comes_through() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| for_each(0..3, |part| assert!(part != 2, "a part")));
    }
}
