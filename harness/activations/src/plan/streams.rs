//! How the samples of a plan are divided among the streams of a model: consecutive visits of the prefix tree for each, so that
//! samples with a common prefix stay together. A prefix that is cut is computed by both streams.

use std::ops::Range;

use super::batches::Batching;

/// Tokens of a batch that one thread computes alone, at least. It reads all weights for them, which takes longer with fewer than
/// threads that share a larger batch wait for each other: on SmolLM2, batches of 245 tokens take 10 % more time of the processor
/// than those of 490.
const MIN_STREAM_TOKENS: usize = 256;

/// Bytes of the batches of all streams, up to which each stream has batches as large as one stream alone; beyond, they divide its
/// batches.
const STREAM_BYTES: usize = 32 << 20;

/// Vectors of the residual stream's size that a token takes in a forward pass, about: the stream and its copies, queries, keys,
/// values, and an MLP four times as wide.
const VECTORS_PER_TOKEN: usize = 13;

/// Streams in host memory are not used if the prefixes that they repeat are more than this part of all computed tokens: about what
/// they save.
const MAX_REPEATED_PART: usize = 16;

/// The part of its distance from an even cut, in tokens, that a cut may save in repeated tokens. A stream that ends early costs
/// little: its thread helps the others.
const DISTANCE_PART: usize = 8;

/// The tokens of a visit of the prefix tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitTokens {
    /// Those that are computed.
    pub new: usize,
    /// Those before them, shared with the visit before.
    pub shared: usize,
}

/// The visits of each of `n_streams` streams on devices of their own: about as many computed tokens each.
pub fn divide_evenly(visits: &[VisitTokens], n_streams: usize) -> Vec<Range<usize>> {
    let total: usize = visits.iter().map(|visit| visit.new).sum();
    let mut streams = vec![0..0; n_streams.max(1)];
    let mut before = 0;
    for (index, visit) in visits.iter().enumerate() {
        let stream = (before * streams.len() / total.max(1)).min(streams.len() - 1);
        if streams[stream].is_empty() {
            streams[stream] = index..index;
        }
        streams[stream].end = index + 1;
        before += visit.new;
    }
    streams
}

/// The sizes on which the batches of streams in host memory depend.
#[derive(Clone, Copy, Debug)]
pub struct TokenSizes {
    /// Tokens of a padded sample.
    pub longest: usize,
    /// Bytes of a vector of the residual stream.
    pub vector_bytes: usize,
}

/// The visits of each stream of a model in host memory, which may have up to `n_streams`, and their batches: one stream with
/// `batching`, or `n_streams` with at most that.
pub fn divide_in_memory(
    visits: &[VisitTokens],
    n_streams: usize,
    batching: Batching,
    sizes: TokenSizes,
) -> (Vec<Range<usize>>, Batching) {
    let one = (std::iter::once(0..visits.len()).collect(), batching);
    let (n_streams, longest) = (n_streams.max(1), sizes.longest.max(1));
    let requested = if batching.padded { batching.max_samples.saturating_mul(longest) } else { batching.max_tokens };
    let affordable = STREAM_BYTES / (VECTORS_PER_TOKEN * sizes.vector_bytes).max(1);
    let batch_tokens = requested.min((affordable / n_streams).max(requested / n_streams));
    let total: usize = visits.iter().map(|visit| visit.new).sum();
    if n_streams == 1 || batch_tokens < MIN_STREAM_TOKENS || total < n_streams * MIN_STREAM_TOKENS {
        return one;
    }
    let divided = if batching.padded {
        Batching { max_samples: (batch_tokens / longest).max(1), ..batching }
    } else {
        // The number of samples bounds the bytes of results, of which each stream has some.
        Batching { max_samples: (batching.max_samples / n_streams).max(1), max_tokens: batch_tokens, ..batching }
    };
    let cuts = cuts(visits, n_streams, total);
    let repeated: usize = cuts.iter().map(|cut| visits[*cut].shared).sum();
    if repeated > total / MAX_REPEATED_PART {
        return one;
    }
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([visits.len()]);
    (starts.zip(ends).map(|(start, end)| start..end).collect(), divided)
}

/// The first visits of all streams but the first, increasing: near an even cut, and where few tokens are shared.
fn cuts(visits: &[VisitTokens], n_streams: usize, total: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = Vec::new();
    for stream in 1..n_streams {
        let even = total * stream / n_streams;
        let first = cuts.last().map_or(0, |cut| cut + 1);
        let mut before = 0usize;
        let mut best: Option<(usize, usize)> = None;
        for (index, visit) in visits.iter().enumerate() {
            let cost = visit.shared + before.abs_diff(even) / DISTANCE_PART;
            if index >= first.max(1) && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, index));
            }
            before += visit.new;
        }
        cuts.extend(best.map(|(_, index)| index));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHING: Batching = Batching { max_samples: 1000, max_tokens: 512, padded: false, masked_only: true };
    const SIZES: TokenSizes = TokenSizes { longest: 40, vector_bytes: 1152 };

    fn visits(tokens: impl IntoIterator<Item = (usize, usize)>) -> Vec<VisitTokens> {
        tokens.into_iter().map(|(new, shared)| VisitTokens { new, shared }).collect()
    }

    #[test]
    fn devices_get_equal_parts() {
        let equal = visits([(10, 0); 7]);
        assert_eq!(divide_evenly(&equal, 2), [0..4, 4..7]);
        assert_eq!(divide_evenly(&equal, 1), std::slice::from_ref(&(0..7)));
        assert_eq!(divide_evenly(&visits([(1, 0), (1, 0)]), 4), [0..1, 0..0, 1..2, 0..0]);
        assert_eq!(divide_evenly(&[], 2), [0..0, 0..0]);
    }

    #[test]
    fn streams_are_cut_where_little_is_shared() {
        // Two branches of different sizes below a root of 5 tokens; within a branch 60 tokens are shared.
        let first = std::iter::once((100, 0)).chain([(20, 60); 45]);
        let tree = visits(first.chain([(75, 5)]).chain([(20, 60); 55]));
        assert_eq!(divide_in_memory(&tree, 2, BATCHING, SIZES).0, [0..46, 46..102]);
        // Far from the middle the cut is not worth it.
        let short = visits([(100, 0), (75, 5)].into_iter().chain([(20, 20); 200]));
        let (streams, batching) = divide_in_memory(&short, 2, BATCHING, SIZES);
        assert!(streams.len() == 2 && streams[0].end > 90 && streams[1] == (streams[0].end..202), "{streams:?}");
        assert_eq!(batching, Batching { max_samples: 500, ..BATCHING });
    }

    #[test]
    fn every_visit_is_in_one_stream() {
        let tree = visits((0..100).map(|index| (20 + index % 7, index % 4)));
        for n_streams in 1..=4 {
            let (streams, _) = divide_in_memory(&tree, n_streams, BATCHING, SIZES);
            assert_eq!(streams.len(), n_streams);
            assert!(streams.iter().all(|stream| !stream.is_empty()));
            assert_eq!(streams.into_iter().flatten().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn batches_of_streams_keep_their_size_within_memory() {
        let many = visits([(20, 0); 1000]);
        let size = |n_streams: usize, batching: Batching, vector_bytes: usize| {
            let (streams, divided) = divide_in_memory(&many, n_streams, batching, TokenSizes { vector_bytes, ..SIZES });
            assert!(streams.len() == n_streams || (streams.len() == 1 && divided == batching));
            (streams.len(), if batching.padded { divided.max_samples } else { divided.max_tokens })
        };
        // 32 MiB are 2240 tokens of 13 vectors of 576 bf16.
        assert_eq!([1, 2, 4, 8].map(|n| size(n, BATCHING, 1152)), [(1, 512), (2, 512), (4, 512), (8, 280)]);
        // Of larger vectors they are fewer than one batch, which is divided.
        let large = Batching { max_tokens: 1024, ..BATCHING };
        assert_eq!([2, 4, 5].map(|n| size(n, large, 8192)), [(2, 512), (4, 256), (1, 1024)]);
        let padded = |max_samples| Batching { max_samples, max_tokens: usize::MAX, padded: true, masked_only: true };
        assert_eq!([6, 7, 100].map(|samples| size(2, padded(samples), 1152)), [(1, 6), (2, 7), (2, 50)]);
    }

    #[test]
    fn small_work_stays_in_one_stream() {
        let many = visits([(20, 0); 100]);
        let count = |visits: &[VisitTokens], n_streams: usize| {
            let (streams, batching) = divide_in_memory(visits, n_streams, BATCHING, SIZES);
            assert!(streams.len() > 1 || batching == BATCHING);
            streams.len()
        };
        assert_eq!([1, 2, 4, 7, 8].map(|n_streams| count(&many, n_streams)), [1, 2, 4, 7, 1]);
        assert_eq!(count(&many[..25], 2), 1, "500 tokens in all");
        assert_eq!(count(&[], 2), 1);
        // Each cut repeats 150 of 2150 tokens.
        let long_prefix = visits(std::iter::once((150, 0)).chain([(20, 150); 100]));
        assert_eq!(count(&long_prefix, 2), 1);
    }
}
