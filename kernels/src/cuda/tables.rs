//! A cache of lookup tables on the device, such as positions.
//!
//! All blocks of a model are launched with the same tables for a batch, so each table is uploaded once a batch instead of
//! once a launch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Cached tables: more than a batch needs in its blocks and for its pooled rows.
const CAPACITY: usize = 16;

/// Tables on a device with their values, the most recently used first.
pub(super) struct Tables<B>(Mutex<VecDeque<(Vec<u32>, Arc<B>)>>);

impl<B> Default for Tables<B> {
    fn default() -> Self {
        Tables(Mutex::new(VecDeque::new()))
    }
}

impl<B> Tables<B> {
    /// The table of `values`, created by `upload` if it is not cached.
    pub(super) fn of<E>(&self, values: &[u32], upload: impl FnOnce() -> Result<B, E>) -> Result<Arc<B>, E> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match tables.iter().position(|(cached, _)| cached == values).and_then(|index| tables.remove(index))
        {
            Some(entry) => entry,
            None => (values.to_vec(), Arc::new(upload()?)),
        };
        let table = entry.1.clone();
        tables.push_front(entry);
        tables.truncate(CAPACITY);
        Ok(table)
    }

    /// Drops all tables.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_uploaded_once_until_evicted() {
        let tables = Tables::default();
        let mut uploaded = Vec::new();
        let mut request = |value: u32| {
            let table = tables.of(&[value], || {
                uploaded.push(value);
                Ok::<_, ()>(value)
            });
            assert_eq!(table.as_deref(), Ok(&value));
        };
        for value in (0..CAPACITY as u32).chain(0..CAPACITY as u32) {
            request(value);
        }
        // One more evicts the least recently used one.
        let _ = [99, 1, 0].map(&mut request);
        assert_eq!(uploaded, (0..CAPACITY as u32).chain([99, 0]).collect::<Vec<_>>());
    }
}
