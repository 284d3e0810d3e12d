//! What a case will hold in memory at once, predicted from sizes alone before anything is allocated.

use super::score::{matrix_bytes, parallel_layers};
use crate::error::{Error, Result};

/// Sizes that the memory of a case follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Samples and longest sequence of the training and of the test side.
    pub sides: [(usize, usize); 2],
    /// Layers extracted.
    pub layers: usize,
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Columns inside of the feed-forward part.
    pub intermediate: usize,
    /// Bytes of a stored element.
    pub element: usize,
    /// Samples of a batch.
    pub batch_size: usize,
}

/// What is held while features are extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The full `[n, l, s, h]` of both sides, and the pooled features beside them.
    Full,
    /// Pooled features and a batch.
    Pooled,
    /// A batch; features go to a file.
    Batch,
}

impl Sizes {
    /// Bytes that extraction holds at once beside what is resident already.
    pub fn extraction(&self, holding: Holding) -> u64 {
        let samples = self.samples();
        let pooled = product(&[samples, self.layers as u64, self.vector()]);
        let full = self.sides.iter().fold(0u64, |sum, (samples, longest)| {
            let side = product(&[*samples as u64, *longest as u64, self.layers as u64, self.vector()]);
            sum.saturating_add(side)
        });
        let features = match holding {
            Holding::Full => full.saturating_add(pooled),
            Holding::Pooled => pooled,
            Holding::Batch => 0,
        };
        features.saturating_add(self.batch())
    }

    /// Bytes of the matrices of the layers whose probes `threads` threads train at a time.
    pub fn probe(&self, threads: usize) -> u64 {
        let samples = self.sides.iter().fold(0usize, |sum, (samples, _)| sum.saturating_add(*samples));
        let layer = matrix_bytes(samples, self.hidden);
        let at_a_time = parallel_layers(threads, layer).min(self.layers.max(1));
        product(&[layer, at_a_time as u64])
    }

    /// Samples of both sides.
    fn samples(&self) -> u64 {
        self.sides.iter().fold(0u64, |sum, (samples, _)| sum.saturating_add(*samples as u64))
    }

    /// Bytes of a vector of the residual stream.
    fn vector(&self) -> u64 {
        product(&[self.hidden as u64, self.element as u64])
    }

    /// A batch's intermediate results, about: residual stream, its norm, queries, keys, values and attention's output
    /// of `hidden` columns at most, and gate and up of the feed-forward part.
    pub fn batch(&self) -> u64 {
        let longest = self.sides.iter().map(|(_, longest)| *longest).max().unwrap_or(0);
        let columns = product(&[6, self.hidden as u64]).saturating_add(product(&[2, self.intermediate as u64]));
        product(&[self.batch_size as u64, longest as u64, columns, self.element as u64])
    }
}

/// Refuses what does not fit: `resident` bytes are there and `more` will be held beside them, as `what`.
///
/// # Errors
/// [`Error::OverMemoryLimit`] with the bytes wanted, if they are above `limit`.
pub fn check(what: &str, resident: u64, more: u64, limit: Option<u64>) -> Result<()> {
    let bytes = resident.saturating_add(more);
    match limit {
        Some(limit) if bytes > limit => Err(Error::OverMemoryLimit { what: what.to_owned(), bytes, limit }),
        _ => Ok(()),
    }
}

fn product(factors: &[u64]) -> u64 {
    factors.iter().fold(1u64, |product, factor| product.saturating_mul(*factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes =
        Sizes { sides: [(80, 10), (20, 8)], layers: 4, hidden: 16, intermediate: 32, element: 2, batch_size: 8 };

    #[test]
    fn each_way_holds_what_it_holds() {
        // 8 samples of 10 tokens, 6 * 16 + 2 * 32 columns of 2 bytes.
        let batch = 8 * 10 * 160 * 2;
        let pooled = 100 * 4 * 32;
        let full = 80 * 10 * 4 * 32 + 20 * 8 * 4 * 32;
        assert_eq!(SIZES.extraction(Holding::Batch), batch);
        assert_eq!(SIZES.extraction(Holding::Pooled), batch + pooled);
        assert_eq!(SIZES.extraction(Holding::Full), batch + pooled + full);
        // Features take 4 + 8 + 4 bytes, the square matrix of the smaller dimension and its factor 8 each.
        let layer = 100 * 16 * 16 + 16 * 16 * 16;
        assert_eq!(SIZES.probe(1), layer);
        assert_eq!(SIZES.probe(64), 4 * layer, "four layers, however many threads");
        let many = Sizes { sides: [(20_000, 10), (5_000, 10)], hidden: 576, ..SIZES };
        assert_eq!(many.probe(64), 25_000 * 576 * 16 + 576 * 576 * 16, "one at a time");
    }

    #[test]
    fn the_disk_cache_does_not_grow_with_the_samples() {
        let more = Sizes { sides: [(80_000, 10), (20_000, 8)], ..SIZES };
        assert_eq!(more.extraction(Holding::Batch), SIZES.extraction(Holding::Batch));
        let endless = Sizes { sides: [(usize::MAX, usize::MAX); 2], ..SIZES };
        assert_eq!(endless.extraction(Holding::Full), u64::MAX);
    }

    #[test]
    fn the_limit_itself_fits_and_one_byte_more_does_not() {
        assert!(check("x", 60, 40, Some(100)).is_ok());
        assert!(check("x", 60, 40, None).is_ok());
        let error = check("eager activations", 60, 41, Some(100)).unwrap_err();
        assert!(matches!(error, Error::OverMemoryLimit { bytes: 101, limit: 100, .. }), "{error}");
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("eager activations") && error.to_string().contains("--memory-limit"));
    }
}
