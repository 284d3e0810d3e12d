//! Progress and counters of an extraction.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Progress of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Units done so far.
    pub done: u64,
    /// Units to do in all.
    pub total: u64,
    /// The name of the unit, in the plural: `samples`.
    pub unit: &'static str,
}

/// Receives progress, on the thread that does the work and between its batches.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Counters of an extraction: tokens asked for, tokens computed, and their cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractionStats {
    /// Tokens of the samples that were run.
    pub tokens_total: u64,
    /// Tokens that the model computed: fewer than in all if prefixes are shared, more if batches are padded.
    pub tokens_computed: u64,
    /// Forward passes.
    pub batches: u64,
    /// Floating-point operations of those tokens: GEMMs with weights and those of attention.
    pub flops: u64,
    /// How often batches were halved because a device ran out of memory.
    pub halvings: u64,
}

/// Counts and reports while plans run. Clones share the counters.
#[derive(Clone, Default)]
pub(crate) struct Monitor {
    counters: Arc<Counters>,
    sink: Option<ProgressSink>,
    interrupted: Option<fn() -> bool>,
}

#[derive(Debug, Default)]
struct Counters {
    tokens_total: AtomicU64,
    tokens_computed: AtomicU64,
    batches: AtomicU64,
    flops: AtomicU64,
    halvings: AtomicU64,
}

impl Monitor {
    /// A monitor with counters at zero that reports to `sink`.
    pub(crate) fn reporting_to(sink: Option<ProgressSink>) -> Self {
        Monitor { counters: Arc::default(), sink, interrupted: None }
    }

    /// The same monitor with an interrupt: [`Monitor::check_interrupt`] fails once `interrupted` returns true.
    pub(crate) fn with_interrupt(self, interrupted: fn() -> bool) -> Self {
        Monitor { interrupted: Some(interrupted), ..self }
    }

    /// Called between batches.
    ///
    /// # Errors
    /// The user has interrupted the work.
    pub(crate) fn check_interrupt(&self) -> Result<()> {
        match self.interrupted {
            Some(interrupted) if interrupted() => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Counts the tokens of samples that are about to run.
    pub(crate) fn add_tokens(&self, tokens: usize) {
        self.counters.tokens_total.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts a batch that has run.
    pub(crate) fn add_batch(&self, tokens: usize, flops: u64) {
        self.counters.tokens_computed.fetch_add(tokens as u64, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.flops.fetch_add(flops, Ordering::Relaxed);
    }

    /// Counts a halving of batches.
    pub(crate) fn add_halving(&self) {
        self.counters.halvings.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports samples done to the sink, if there is one.
    pub(crate) fn report_samples(&self, done: usize, total: usize) {
        if let Some(sink) = &self.sink {
            sink(Progress { done: done as u64, total: total as u64, unit: "samples" });
        }
    }

    /// The counters so far.
    pub(crate) fn stats(&self) -> ExtractionStats {
        ExtractionStats {
            tokens_total: self.counters.tokens_total.load(Ordering::Relaxed),
            tokens_computed: self.counters.tokens_computed.load(Ordering::Relaxed),
            batches: self.counters.batches.load(Ordering::Relaxed),
            flops: self.counters.flops.load(Ordering::Relaxed),
            halvings: self.counters.halvings.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("stats", &self.stats()).field("reports", &self.sink.is_some()).finish()
    }
}
