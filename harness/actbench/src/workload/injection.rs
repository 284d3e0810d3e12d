//! Extra work and memory in a case, on purpose: what the regression gate is tried on.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Numbers that a unit of work reads: 64 KiB, which every processor has a cache for.
const UNIT: usize = 16 << 10;

/// What a case does beyond its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Units of extra work: in each, a sum of squares of 16,384 numbers, one addition waiting for the other. The same
    /// work in every run, whatever else the machine does, and in steps of some microseconds.
    pub work_units: u64,
    /// Bytes that are held from the beginning to the end of what is measured.
    pub memory_bytes: u64,
}

impl Injection {
    /// The memory, every page of it touched.
    ///
    /// # Errors
    /// There is not that much.
    pub fn ballast(&self) -> Result<Vec<u8>> {
        let mut ballast = Vec::new();
        let refused = |_| Error::OutOfMemory { what: "the injected memory".to_owned(), bytes: self.memory_bytes };
        let bytes = usize::try_from(self.memory_bytes).unwrap_or(usize::MAX);
        ballast.try_reserve_exact(bytes).map_err(refused)?;
        ballast.resize(bytes, 1);
        Ok(black_box(ballast))
    }

    /// Does the work.
    pub fn work(&self) {
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
    fn memory_that_is_not_there_is_refused_with_its_bytes() {
        let injection = Injection { work_units: 0, memory_bytes: u64::MAX };
        assert!(matches!(injection.ballast(), Err(Error::OutOfMemory { bytes: u64::MAX, .. })));
        assert_eq!(Injection { memory_bytes: 5000, ..injection }.ballast().unwrap(), [1; 5000]);
    }
}
