//! Threads, started per call: a forked child would wait forever for those of a global pool.
//!
//! Without the feature `parallel` there are none, and the caller's thread does everything.

/// The operating system refused to start a thread.
#[derive(Debug, thiserror::Error)]
#[error("no thread pool: {0}")]
pub struct ThreadsError(
    #[cfg(feature = "parallel")] rayon::ThreadPoolBuildError,
    #[cfg(not(feature = "parallel"))] std::convert::Infallible,
);

/// Call `work` for every item on `threads` threads (0: one per core), including the caller's.
///
/// Threads take items one by one, which balances the load.
#[cfg(feature = "parallel")]
pub(crate) fn for_each<T: Send>(items: Vec<T>, threads: usize, work: impl Fn(T) + Sync) -> Result<(), ThreadsError> {
    use std::sync::{Mutex, PoisonError};

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
        let helpers = rayon::ThreadPoolBuilder::new().num_threads(threads - 1).build().map_err(ThreadsError)?;
        helpers.in_place_scope(|scope| {
            (1..threads).for_each(|_| scope.spawn(|_| process_items()));
            process_items();
        });
    } else {
        process_items();
    }
    Ok(())
}

/// Call `work` for every item, one after the other.
#[cfg(not(feature = "parallel"))]
pub(crate) fn for_each<T>(items: Vec<T>, _threads: usize, work: impl Fn(T)) -> Result<(), ThreadsError> {
    items.into_iter().for_each(work);
    Ok(())
}
