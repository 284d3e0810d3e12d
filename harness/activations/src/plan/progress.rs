//! What an extraction reports: how far it is, and how many tokens it asked for and computed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// How far a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units to do in all.
    pub total: u64,
    /// What is counted, in the plural: `samples`.
    pub unit: &'static str,
}

/// Hears of progress, on the thread that does the work and between its batches.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Tokens asked for and computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractionStats {
    /// Tokens of the samples that were run.
    pub tokens_total: u64,
    /// Rows that went through the model: fewer where prefixes are shared, more where rows are padded.
    pub tokens_computed: u64,
    /// Forward passes.
    pub batches: u64,
    /// Floating-point operations of those rows: products with weights and of attention.
    pub flops: u64,
    /// How often batches were halved because a device had no memory for them.
    pub halvings: u64,
}

/// Counts and reports while plans run. Clones count into the same place.
#[derive(Clone, Default)]
pub(crate) struct Monitor {
    counters: Arc<Counters>,
    sink: Option<ProgressSink>,
    stop: Option<fn() -> bool>,
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
    /// Nothing counted yet; reports go to `sink`.
    pub(crate) fn reporting_to(sink: Option<ProgressSink>) -> Self {
        Monitor { counters: Arc::default(), sink, stop: None }
    }

    /// The same, asking `stop` between batches whether to go on.
    pub(crate) fn stopped_by(self, stop: fn() -> bool) -> Self {
        Monitor { stop: Some(stop), ..self }
    }

    /// To be called between batches.
    ///
    /// # Errors
    /// Somebody wants the work to end here.
    pub(crate) fn go_on(&self) -> Result<()> {
        match self.stop {
            Some(stop) if stop() => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    /// Samples of `tokens` tokens in all are about to run.
    pub(crate) fn add_tokens(&self, tokens: usize) {
        self.counters.tokens_total.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// A batch of `rows` rows and `flops` floating-point operations has run.
    pub(crate) fn add_batch(&self, rows: usize, flops: u64) {
        self.counters.tokens_computed.fetch_add(rows as u64, Ordering::Relaxed);
        self.counters.batches.fetch_add(1, Ordering::Relaxed);
        self.counters.flops.fetch_add(flops, Ordering::Relaxed);
    }

    /// Batches are halved from now on.
    pub(crate) fn add_halving(&self) {
        self.counters.halvings.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the sink, if there is one, of samples done.
    pub(crate) fn report_samples(&self, done: usize, total: usize) {
        if let Some(sink) = &self.sink {
            sink(Progress { done: done as u64, total: total as u64, unit: "samples" });
        }
    }

    /// What was counted so far.
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
