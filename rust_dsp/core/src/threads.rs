//! Threads: a pool per call, so that none is left behind for a forked child to wait for.

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// A pool of `threads` (0: all cores) but no more than there are tasks; `None` where the caller's thread is enough.
pub(crate) fn pool(threads: usize, tasks: usize) -> Result<Option<ThreadPool>, ThreadPoolBuildError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores() } else { threads }.min(tasks);
    if threads <= 1 { Ok(None) } else { ThreadPoolBuilder::new().num_threads(threads).build().map(Some) }
}
