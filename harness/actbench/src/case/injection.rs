//! Injected work and memory, which slow a case down by a known amount: the regression gate is tested on them.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Numbers that a unit of work reads: 64 KiB, which fit into the cache of every processor.
const UNIT: usize = 16 << 10;

/// Work and memory injected into a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Units of injected work. A unit is a sum of squares of 16,384 numbers in which each addition depends on the one before:
    /// the same work in every run, in steps of some microseconds.
    pub work_units: u64,
    /// Bytes that stay allocated throughout the measured part.
    pub memory_bytes: u64,
}

impl Injection {
    /// Allocates the injected memory and touches every page of it.
    ///
    /// # Errors
    /// The allocation fails.
    pub fn allocate(&self) -> Result<Vec<u8>> {
        let mut allocation = Vec::new();
        let out_of_memory = |_| Error::OutOfMemory { what: "the injected memory".to_owned(), bytes: self.memory_bytes };
        let bytes = usize::try_from(self.memory_bytes).unwrap_or(usize::MAX);
        allocation.try_reserve_exact(bytes).map_err(out_of_memory)?;
        allocation.resize(bytes, 1);
        Ok(black_box(allocation))
    }

    /// Performs the injected work.
    pub fn run_work(&self) {
        if self.work_units == 0 {
            return;
        }
        let numbers: Vec<f32> = (0..UNIT).map(|index| index as f32 / UNIT as f32).collect();
        for _ in 0..self.work_units {
            black_box(black_box(&numbers).iter().fold(0.0f32, |sum, number| sum + number * number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_allocation_reports_its_bytes() {
        let injection = Injection { work_units: 0, memory_bytes: u64::MAX };
        assert!(matches!(injection.allocate(), Err(Error::OutOfMemory { bytes: u64::MAX, .. })));
        assert_eq!(Injection { memory_bytes: 5000, ..injection }.allocate().unwrap(), [1; 5000]);
    }
}
