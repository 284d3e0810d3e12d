//! The memory of a case, predicted from sizes alone before anything is allocated.

use super::score::{matrix_bytes, parallel_layers};
use crate::error::{Error, Result};
use actbench_activations::model::memory_model::{full_feature_bytes, padded_batch_bytes, pooled_feature_bytes};
use actbench_activations::units::Bytes;

/// The sizes that decide the memory of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Samples and longest sequence of the training and of the test side.
    pub sides: [(usize, usize); 2],
    /// Layers extracted.
    pub layers: usize,
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Columns between gate/up and the down projection.
    pub intermediate: usize,
    /// Bytes of a stored element.
    pub element: usize,
    /// Samples of a batch.
    pub batch_size: usize,
    /// Batches of that size that are computed at the same time.
    pub batches: usize,
}

/// The features that are in memory during extraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The full `[n, l, s, h]` of both sides, and the pooled features.
    Full,
    /// Pooled features and a batch.
    Pooled,
    /// A batch; features go to a file.
    Batch,
}

impl Sizes {
    /// Bytes that extraction allocates in addition to those resident already, by purpose.
    pub fn extraction(&self, holding: Holding) -> Vec<(&'static str, u64)> {
        let (layers, hidden, element) = (self.layers as u64, self.hidden as u64, self.element as u64);
        let pooled = pooled_feature_bytes(self.samples(), layers, hidden, element);
        let full = self.sides.iter().fold(0u64, |sum, (samples, longest)| {
            sum.saturating_add(full_feature_bytes(*samples as u64, *longest as u64, layers, hidden, element))
        });
        let full = ("the full activations of both splits", full);
        let pooled = ("the pooled features", pooled);
        let purpose = if self.batches > 1 { "a batch of each thread" } else { "a batch" };
        let batch = (purpose, self.batch().saturating_mul(self.batches as u64));
        match holding {
            Holding::Full => vec![full, pooled, batch],
            Holding::Pooled => vec![pooled, batch],
            Holding::Batch => vec![batch],
        }
    }

    /// Bytes of the matrices of the layers whose probes `threads` threads train at a time.
    pub fn probe(&self, threads: usize) -> u64 {
        let samples = self.sides.iter().fold(0usize, |sum, (samples, _)| sum.saturating_add(*samples));
        let layer = matrix_bytes(samples, self.hidden);
        let concurrent = parallel_layers(threads, layer).min(self.layers.max(1));
        layer.saturating_mul(concurrent as u64)
    }

    /// Samples of both sides.
    fn samples(&self) -> u64 {
        self.sides.iter().fold(0u64, |sum, (samples, _)| sum.saturating_add(*samples as u64))
    }

    /// About how many bytes the activations of a batch take.
    pub fn batch(&self) -> u64 {
        let longest = self.sides.iter().map(|(_, longest)| *longest).max().unwrap_or(0);
        let tokens = (self.batch_size as u64).saturating_mul(longest as u64);
        padded_batch_bytes(tokens, self.hidden as u64, self.intermediate as u64, self.element as u64)
    }
}

/// Refuses allocations of `parts`, bytes by purpose, in addition to `resident` bytes, if they exceed the limit; `advice` names
/// what would take less.
///
/// # Errors
/// [`Error::OverMemoryLimit`] if the sum is above `limit`.
pub fn check(resident: u64, parts: &[(&str, u64)], limit: Option<u64>, advice: &'static str) -> Result<()> {
    let bytes = resident.saturating_add(total(parts));
    let listed = || {
        let parts = parts.iter().map(|(purpose, bytes)| format!("{} for {purpose}", Bytes(*bytes)));
        let all: Vec<String> = std::iter::once(format!("{} in use already", Bytes(resident))).chain(parts).collect();
        all.join(", ")
    };
    match limit {
        // Then no other amount of work fits either.
        Some(limit) if resident > limit => {
            let advice = "the model and the data alone take more: raise the limit, or take a smaller model or data set";
            Err(Error::OverMemoryLimit { what: listed(), bytes, limit, advice })
        }
        Some(limit) if bytes > limit => Err(Error::OverMemoryLimit { what: listed(), bytes, limit, advice }),
        _ => Ok(()),
    }
}

/// The bytes of all parts.
fn total(parts: &[(&str, u64)]) -> u64 {
    parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        sides: [(80, 10), (20, 8)],
        layers: 4,
        hidden: 16,
        intermediate: 32,
        element: 2,
        batch_size: 8,
        batches: 1,
    };

    #[test]
    fn extraction_counts_features_and_batch() {
        // 8 samples of 10 tokens, 6 * 16 + 2 * 32 columns of 2 bytes.
        let batch = 8 * 10 * 160 * 2;
        let pooled = 100 * 4 * 32;
        let full = 80 * 10 * 4 * 32 + 20 * 8 * 4 * 32;
        assert_eq!(total(&SIZES.extraction(Holding::Batch)), batch);
        assert_eq!(total(&SIZES.extraction(Holding::Pooled)), batch + pooled);
        assert_eq!(total(&SIZES.extraction(Holding::Full)), batch + pooled + full);
        let three = Sizes { batches: 3, ..SIZES };
        assert_eq!(total(&three.extraction(Holding::Full)), 3 * batch + pooled + full);
        // Features take 4 + 8 + 4 bytes, the square matrix of the smaller dimension and its factor 8 each.
        let layer = 100 * 16 * 16 + 16 * 16 * 16;
        assert_eq!(SIZES.probe(1), layer);
        assert_eq!(SIZES.probe(64), 4 * layer, "four layers with any number of threads");
        let many = Sizes { sides: [(20_000, 10), (5_000, 10)], hidden: 576, ..SIZES };
        assert_eq!(many.probe(64), 25_000 * 576 * 16 + 576 * 576 * 16, "one at a time");
    }

    #[test]
    fn disk_cache_does_not_grow_with_samples() {
        let more = Sizes { sides: [(80_000, 10), (20_000, 8)], ..SIZES };
        assert_eq!(more.extraction(Holding::Batch), SIZES.extraction(Holding::Batch));
        let largest = Sizes { sides: [(usize::MAX, usize::MAX); 2], ..SIZES };
        assert_eq!(total(&largest.extraction(Holding::Full)), u64::MAX);
    }

    #[test]
    fn limit_itself_fits_and_one_byte_more_fails() {
        assert!(check(60, &[("x", 40)], Some(100), "").is_ok());
        assert!(check(60, &[("x", 41)], None, "").is_ok());
        let error = check(60, &[("features", 40), ("a batch", 1)], Some(100), "take less").unwrap_err();
        assert!(matches!(error, Error::OverMemoryLimit { bytes: 101, limit: 100, .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        insta::assert_snapshot!(error, @"out of memory: 101 B would be needed, over the limit of 100 B (--memory-limit): 60 B in use already, 40 B for features, 1 B for a batch; take less");
        let hopeless = check(101, &[("x", 0)], Some(100), "take less").unwrap_err().to_string();
        assert!(hopeless.contains("raise the limit") && !hopeless.contains("take less"), "{hopeless}");
    }
}
