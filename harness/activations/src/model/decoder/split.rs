//! Which blocks are loaded on which device.

use std::ops::Range;

/// Cuts `n_blocks` blocks of `block_bytes` each into consecutive ranges, one a device and none empty, in proportion to
/// the free memory of the devices. The first device also takes the embedding, of `embedding_bytes`. If one does not
/// report its memory, all get equally many blocks. With fewer blocks than devices there are fewer ranges.
pub(super) fn split_by_free_memory(
    n_blocks: usize,
    block_bytes: u64,
    embedding_bytes: u64,
    free: &[Option<u64>],
) -> Vec<Range<usize>> {
    let n_devices = free.len().min(n_blocks);
    if n_devices <= 1 {
        // A model of no blocks still has its embedding.
        return free.first().map(|_| 0..n_blocks).into_iter().collect();
    }
    let available: Vec<f64> = match free[..n_devices].iter().copied().collect::<Option<Vec<u64>>>() {
        Some(free) => {
            let first = free[0].saturating_sub(embedding_bytes);
            std::iter::once(first)
                .chain(free[1..].iter().copied())
                .map(|bytes| (bytes.max(block_bytes)) as f64)
                .collect()
        }
        None => vec![1.0; n_devices],
    };
    let total: f64 = available.iter().sum::<f64>().max(1.0);
    let (mut start, mut before) = (0, 0.0);
    available
        .iter()
        .enumerate()
        .map(|(device, bytes)| {
            before += bytes;
            let left = n_devices - device - 1;
            let end = match left {
                0 => n_blocks,
                _ => ((n_blocks as f64 * before / total).round() as usize).clamp(start + 1, n_blocks - left),
            };
            let range = start..end;
            start = end;
            range
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::slice;

    use super::*;

    #[test]
    fn blocks_follow_free_memory() {
        assert_eq!(split_by_free_memory(16, 1, 0, &[None, None]), [0..8, 8..16]);
        assert_eq!(split_by_free_memory(16, 1, 0, &[Some(300), Some(100)]), [0..12, 12..16]);
        assert_eq!(split_by_free_memory(16, 1, 200, &[Some(300), Some(100)]), [0..8, 8..16]);
        assert_eq!(split_by_free_memory(3, 1, 0, &[Some(1); 5]), [0..1, 1..2, 2..3]);
        assert_eq!(split_by_free_memory(4, 1, 0, &[Some(7)]).as_slice(), slice::from_ref(&(0..4)));
        assert_eq!(split_by_free_memory(0, 1, 0, &[None, None]).as_slice(), slice::from_ref(&(0..0)));
    }

    proptest! {
        #[test]
        fn every_block_is_on_one_device(n_blocks in 1usize..90, free in prop::collection::vec(0u64..1000, 1..9)) {
            let free: Vec<Option<u64>> = free.into_iter().map(Some).collect();
            let ranges = split_by_free_memory(n_blocks, 10, 50, &free);
            prop_assert_eq!(ranges.len(), free.len().min(n_blocks));
            prop_assert!(ranges.iter().all(|range| !range.is_empty()));
            prop_assert_eq!(ranges.into_iter().flatten().collect::<Vec<_>>(), (0..n_blocks).collect::<Vec<_>>());
        }
    }
}
