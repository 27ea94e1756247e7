//! Threads, started per call: a forked child would wait forever for those of a global pool.

use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};

/// Call `work` for every item on `threads` threads (0: one per core), including the caller's.
///
/// Threads take items one by one, which balances the load.
pub(crate) fn for_each<T: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) + Sync,
) -> Result<(), ThreadPoolBuildError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores() } else { threads }.min(items.len());
    let items = Mutex::new(items.into_iter());
    let process_items = || {
        loop {
            let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = item else { break };
            work(item);
        }
    };
    if threads > 1 {
        let helpers = ThreadPoolBuilder::new().num_threads(threads - 1).build()?;
        helpers.in_place_scope(|scope| {
            (1..threads).for_each(|_| scope.spawn(|_| process_items()));
            process_items();
        });
    } else {
        process_items();
    }
    Ok(())
}
