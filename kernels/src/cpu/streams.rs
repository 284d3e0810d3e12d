//! Streams of batches that run at the same time, a thread each.
//!
//! Threads that share a batch wait for each other at the end of every operation. With several batches at hand, each thread
//! computes whole batches alone instead and waits for none (inter-operation parallelism, the "streams" of OpenVINO).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::KernelError;

/// The streams of a session.
///
/// While all of them run, an operation of [`CpuBackend`](super::CpuBackend) stays on the thread of its stream. Once one has
/// ended, the operations of the others use all threads of the backend. No bit depends on it.
#[derive(Clone, Debug)]
pub struct Streams {
    n_streams: usize,
    running: Arc<AtomicUsize>,
}

thread_local! {
    /// The streams that the operations of this thread belong to.
    static CURRENT: RefCell<Option<Streams>> = const { RefCell::new(None) };
}

impl Streams {
    /// `n_streams` streams, each of which counts as running until its [`Streams::run`] returns.
    pub fn new(n_streams: usize) -> Self {
        Streams { n_streams, running: Arc::new(AtomicUsize::new(n_streams)) }
    }

    /// Runs `work`, all operations of one stream, on a thread of its own, and waits for it. Each stream is run once.
    ///
    /// # Errors
    /// The system permits no further thread.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, KernelError> {
        let _end = EndOfStream(&self.running);
        // Operations split their work by rayon, which on any other thread would take the pool of the whole process.
        let pool = super::thread_pool(1, "stream")?;
        Ok(pool.install(|| {
            CURRENT.set(Some(self.clone()));
            work()
        }))
    }

    fn all_run(&self) -> bool {
        self.running.load(Ordering::Relaxed) == self.n_streams
    }
}

/// Counts a stream as ended, after a panic too.
struct EndOfStream<'a>(&'a AtomicUsize);

impl Drop for EndOfStream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this thread computes its operations alone.
pub(super) fn is_alone() -> bool {
    CURRENT.with_borrow(|streams| streams.as_ref().is_some_and(Streams::all_run))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn streams_are_alone_while_all_run() {
        assert!(!is_alone(), "no stream runs here");
        let (streams, both_run) = (Streams::new(2), Barrier::new(2));
        let alone = std::thread::scope(|scope| {
            let short = scope.spawn(|| {
                streams.run(|| {
                    both_run.wait();
                    (is_alone(), rayon::current_num_threads())
                })
            });
            let long = scope.spawn(|| {
                streams.run(|| {
                    both_run.wait();
                    while is_alone() {
                        std::thread::yield_now();
                    }
                    (is_alone(), rayon::current_num_threads())
                })
            });
            [short, long].map(|thread| thread.join().unwrap().unwrap())
        });
        assert_eq!(alone, [(true, 1), (false, 1)]);
        assert!(!is_alone());
    }

    #[test]
    fn panic_ends_its_stream() {
        let streams = Streams::new(1);
        let panicked = std::panic::catch_unwind(|| streams.run(|| std::panic::resume_unwind(Box::new(()))));
        assert!(panicked.is_err() && streams.running.load(Ordering::Relaxed) == 0);
    }
}
