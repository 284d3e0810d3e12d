//! Tables that go with launches, such as positions: those of the last launches are kept on the device.
//!
//! Every block of a model is launched with the same tables for a batch, so that each is copied once a batch and not
//! once a launch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How many are kept: what a batch needs in its blocks and for its pooled rows, and some more.
const KEPT: usize = 16;

/// Tables on a device and what is in them, the last used in front.
pub(super) struct Tables<B>(Mutex<VecDeque<(Vec<u32>, Arc<B>)>>);

impl<B> Default for Tables<B> {
    fn default() -> Self {
        Tables(Mutex::new(VecDeque::new()))
    }
}

impl<B> Tables<B> {
    /// The table of `values`, made by `upload` if it is not there.
    pub(super) fn of<E>(&self, values: &[u32], upload: impl FnOnce() -> Result<B, E>) -> Result<Arc<B>, E> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match tables.iter().position(|(known, _)| known == values).and_then(|place| tables.remove(place)) {
            Some(entry) => entry,
            None => (values.to_vec(), Arc::new(upload()?)),
        };
        let table = entry.1.clone();
        tables.push_front(entry);
        tables.truncate(KEPT);
        Ok(table)
    }

    /// Forgets all of them.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_once_until_others_push_it_out() {
        let tables = Tables::default();
        let mut made = Vec::new();
        let mut ask = |value: u32| {
            let table = tables.of(&[value], || {
                made.push(value);
                Ok::<_, ()>(value)
            });
            assert_eq!(table.as_deref(), Ok(&value));
        };
        for value in (0..KEPT as u32).chain(0..KEPT as u32) {
            ask(value);
        }
        // One more pushes out the one that was used longest ago.
        let _ = [99, 1, 0].map(&mut ask);
        assert_eq!(made, (0..KEPT as u32).chain([99, 0]).collect::<Vec<_>>());
    }
}
