//! Work on the vectors of a batch while they land in host memory.

use std::ops::Range;

use actbench_kernels::{KernelError, PoolGroups};

use crate::error::Result;
use crate::model::LayerBytes;

/// Bytes that one thread reads or writes at least: for fewer, waking another thread takes longer.
const MIN_BYTES_PER_TASK: usize = 256 << 10;

/// How many of `groups`, whose vectors have `vector_bytes` bytes, one thread takes at least.
pub(crate) fn min_groups_per_task(groups: &PoolGroups, vector_bytes: usize) -> usize {
    let mean_bytes = (groups.n_rows() / groups.len().max(1)).max(1) * vector_bytes.max(1);
    MIN_BYTES_PER_TASK.div_ceil(mean_bytes)
}

/// Calls `consume` with each range of `groups` whose vectors, of `vector_bytes` bytes each, have landed, and with all bytes
/// that have landed. The ranges are in order and as large as possible. Returns when all of `bytes` have landed.
///
/// # Errors
/// A failure of the device. `consume` was then called for the groups before it.
pub(crate) fn for_landed_groups(
    bytes: &mut LayerBytes<'_>,
    groups: &PoolGroups,
    vector_bytes: usize,
    consume: &mut dyn FnMut(Range<usize>, &[u8]),
) -> Result<()> {
    // Where the vectors of each group and of those before it end.
    let mut ends = Vec::with_capacity(groups.len());
    let mut end = 0;
    for group in 0..groups.len() {
        end = groups.rows_of(group).iter().map(|row| (*row as usize + 1) * vector_bytes).fold(end, usize::max);
        ends.push(end);
    }
    let mut first = 0;
    while let Some(needed) = ends.get(first) {
        let landed = bytes.wait_for(*needed)?;
        let complete = first + ends[first..].partition_point(|end| *end <= landed.len());
        if complete == first {
            let what = format!("emitted {} bytes, fewer than the {needed} of its rows", landed.len());
            return Err(KernelError::shape("model", what).into());
        }
        consume(first..complete, landed);
        first = complete;
    }
    // Bytes of no group are part of the output as well: their failure is one of the device.
    bytes.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use actbench_kernels::PendingCopy;

    use super::*;

    /// A copy in parts that notes each part that lands.
    struct CopyInParts {
        bytes: Vec<u8>,
        landed: usize,
        part: usize,
        fails_at: usize,
        log: Arc<Mutex<Vec<String>>>,
    }

    impl PendingCopy for CopyInParts {
        fn n_bytes(&self) -> usize {
            self.bytes.len()
        }

        fn wait_for(&mut self, n_bytes: usize) -> std::result::Result<&[u8], KernelError> {
            while self.landed < n_bytes.min(self.bytes.len()) {
                if self.landed >= self.fails_at {
                    return Err(KernelError::shape("read", "a part fails"));
                }
                self.landed = self.bytes.len().min(self.landed + self.part);
                self.log.lock().unwrap().push(format!("landed {}", self.landed));
            }
            Ok(&self.bytes[..self.landed])
        }
    }

    /// The order of parts that land and groups that are consumed: groups of two vectors of 4 bytes each, in parts of 20.
    fn log_of(groups: &[&[u32]], fails_at: usize) -> (Vec<String>, Result<()>) {
        let log = Arc::<Mutex<Vec<String>>>::default();
        let bytes = (0..50).collect();
        let copy = CopyInParts { bytes, landed: 0, part: 20, fails_at, log: log.clone() };
        let mut all = PoolGroups::new();
        groups.iter().for_each(|rows| all.push(rows.iter().copied()));
        let result = for_landed_groups(&mut LayerBytes::Pending(Box::new(copy)), &all, 4, &mut |groups, landed| {
            assert!(landed.iter().enumerate().all(|(index, byte)| index == *byte as usize));
            log.lock().unwrap().push(format!("groups {groups:?}"));
        });
        let log = log.lock().unwrap().clone();
        (log, result)
    }

    #[test]
    fn groups_are_consumed_before_last_part_lands() {
        let groups: [&[u32]; 5] = [&[0, 1], &[2, 3], &[4, 5], &[], &[6, 7]];
        let (log, result) = log_of(&groups, usize::MAX);
        result.unwrap();
        assert_eq!(log, ["landed 20", "groups 0..2", "landed 40", "groups 2..5", "landed 50"]);
    }

    #[test]
    fn groups_wait_for_their_last_row() {
        // The second group needs a row of the last part, and the third, which does not, keeps its place.
        let (log, result) = log_of(&[&[1], &[11, 0], &[2]], usize::MAX);
        result.unwrap();
        assert_eq!(log, ["landed 20", "groups 0..1", "landed 40", "landed 50", "groups 1..3"]);
    }

    #[test]
    fn failing_part_keeps_earlier_groups_and_is_an_error() {
        let groups: [&[u32]; 3] = [&[0, 1], &[2, 3], &[4, 5]];
        for (fails_at, expected) in [(0, &[][..]), (20, &["landed 20", "groups 0..2"])] {
            let (log, result) = log_of(&groups, fails_at);
            assert_eq!(log, expected);
            assert!(result.unwrap_err().to_string().contains("a part fails"), "{fails_at}");
        }
        // A part that no group needs.
        let (log, result) = log_of(&groups[..2], 40);
        assert_eq!(log, ["landed 20", "groups 0..2", "landed 40"]);
        assert!(result.is_err());
    }

    #[test]
    fn missing_rows_are_an_error() {
        let (log, result) = log_of(&[&[0], &[12]], usize::MAX);
        assert_eq!(log, ["landed 20", "groups 0..1", "landed 40", "landed 50"]);
        assert!(result.unwrap_err().to_string().contains("50 bytes, fewer than the 52"));
    }

    #[test]
    fn tasks_have_bytes_worth_a_thread() {
        let mut groups = PoolGroups::new();
        assert_eq!(min_groups_per_task(&groups, 0), MIN_BYTES_PER_TASK);
        groups.push(0..256);
        assert_eq!(min_groups_per_task(&groups, 4096), 1);
        groups.push(0..256);
        assert_eq!(min_groups_per_task(&groups, 4), 256);
    }
}
