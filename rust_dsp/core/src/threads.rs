//! Threads: started per call, so that none is left behind for a forked child to wait for.

use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};

/// Do `work` on every item with `threads` threads (0: one per core), of which the caller's is one.
///
/// Items are taken one by one, so that no thread is left with many when the others have none.
pub(crate) fn for_each<T: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) + Sync,
) -> Result<(), ThreadPoolBuildError> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores() } else { threads }.min(items.len());
    let items = Mutex::new(items.into_iter());
    let take_turns = || {
        loop {
            let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = item else { break };
            work(item);
        }
    };
    if threads > 1 {
        let others = ThreadPoolBuilder::new().num_threads(threads - 1).build()?;
        others.in_place_scope(|scope| {
            (1..threads).for_each(|_| scope.spawn(|_| take_turns()));
            take_turns();
        });
    } else {
        take_turns();
    }
    Ok(())
}
