//! Embedding tables: those of a file row by row, as tokens need them, and all others as a whole.
//!
//! A text has a small part of a vocabulary, whose table may be a quarter of all weights. A table in memory is uploaded at
//! once, so that its memory can be freed.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::prepare::{DestinationRows, matrix};
use super::tensor::bytes;
use super::{CudaBackend, CudaTensor, Device, count};
use crate::check::TensorShape;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::host::HostTensor;

const OP: &str = "embed";

/// Bytes of rows that are read from a file at a time: they fit the pinned memory of small uploads.
const STAGED_BYTES: usize = 1 << 20;

/// The place of a row that is not resident.
const ABSENT: u32 = u32::MAX;

/// Rows that one thread reads at least.
const ROWS_PER_TASK: usize = 16;

/// An embedding table `[rows, columns]`, in the run's dtype on the device.
pub struct CudaEmbedding<B> {
    dtype: DType,
    rows: usize,
    columns: usize,
    table: EmbeddingTable<B>,
}

enum EmbeddingTable<B> {
    Whole(CudaTensor<B>),
    /// A table in a file.
    ByRow {
        source: HostTensor,
        resident: Mutex<ResidentRows<B>>,
    },
}

/// The rows that some token has needed.
struct ResidentRows<B> {
    /// Resident rows, in the order of their uploads, and space for more.
    table: CudaTensor<B>,
    /// The place of each row of the file, or [`ABSENT`]. A map would take longer than the launches of a long batch.
    places: Vec<u32>,
}

impl<B> TensorShape for CudaEmbedding<B> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }
}

impl<D: Device> CudaBackend<D> {
    /// Prepares `table` for [`CudaBackend::with_rows`].
    pub(super) fn embedding(&self, table: &HostTensor, run: DType) -> Result<CudaEmbedding<D::Buffer>, KernelError> {
        let (rows, columns) = matrix("prepare embedding", table)?;
        let prepared = if table.is_in_file() {
            let resident = CudaTensor { buffer: self.device.alloc(0)?, capacity: 0, dtype: run, rows: 0, columns };
            let resident = Mutex::new(ResidentRows { table: resident, places: vec![ABSENT; rows] });
            EmbeddingTable::ByRow { source: table.clone(), resident }
        } else {
            EmbeddingTable::Whole(self.upload_table(table, run)?)
        };
        Ok(CudaEmbedding { dtype: run, rows, columns, table: prepared })
    }

    /// Calls `launch` with a table on the device and the places of `rows` in it. Rows of a file are uploaded first, unless
    /// an earlier call has.
    ///
    /// # Errors
    /// Those of `launch`; no memory; a file that cannot be read, or a row of it with an element that is not finite.
    pub(super) fn with_rows(
        &self,
        embedding: &CudaEmbedding<D::Buffer>,
        rows: &[u32],
        launch: impl FnOnce(&CudaTensor<D::Buffer>, &[u32]) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let (source, resident) = match &embedding.table {
            EmbeddingTable::Whole(table) => return launch(table, rows),
            EmbeddingTable::ByRow { source, resident } => (source, resident),
        };
        // Rows get their places only after their upload, so a failed call leaves the others in order.
        let mut resident = resident.lock().unwrap_or_else(PoisonError::into_inner);
        let is_absent = |row: &u32| resident.places.get(*row as usize).is_none_or(|place| *place == ABSENT);
        let mut missing: Vec<u32> = rows.iter().copied().filter(is_absent).collect();
        if !missing.is_empty() {
            // In the order of the file, each once.
            missing.sort_unstable();
            missing.dedup();
            self.grow(&mut resident, missing.len(), embedding.rows)?;
            let at_once = (STAGED_BYTES / (embedding.columns * source.dtype().size()).max(1)).max(1);
            missing.chunks(at_once).try_for_each(|rows| self.upload_rows(source, &mut resident, rows))?;
        }
        let places: Vec<u32> = rows.iter().filter_map(|row| resident.places.get(*row as usize).copied()).collect();
        launch(&resident.table, &places)
    }

    /// Makes space for `more` rows of a table of `all`.
    fn grow(&self, resident: &mut ResidentRows<D::Buffer>, more: usize, all: usize) -> Result<(), KernelError> {
        let table = &resident.table;
        let needed = table.rows + more;
        if bytes(table.dtype, needed, table.columns)? <= table.capacity {
            return Ok(());
        }
        // At least twice as many as before: a row is then copied once on average.
        let space = needed.max(2 * table.rows).min(all);
        let capacity = bytes(table.dtype, space, table.columns)?;
        let buffer = self.device.alloc(capacity)?;
        let mut grown = CudaTensor { buffer, capacity, dtype: table.dtype, rows: table.rows, columns: table.columns };
        self.copy(table, 0, table.rows, &mut grown, 0)?;
        resident.table = grown;
        Ok(())
    }

    /// Uploads `rows` of `source`, none of which is resident, behind the resident ones.
    fn upload_rows(
        &self,
        source: &HostTensor,
        resident: &mut ResidentRows<D::Buffer>,
        rows: &[u32],
    ) -> Result<(), KernelError> {
        let ResidentRows { table, places } = resident;
        let staged = read_rows(source, table.columns, table.dtype, rows)?;
        self.traffic.add_to_device(staged.len());
        let stored = self.device.upload(&staged)?;
        let (shape, to) = ((rows.len(), table.columns), DestinationRows { first: table.rows, step: 1 });
        // The rows were checked while they were read: a note on the device would be read too late.
        self.convert(OP, &stored, source.dtype(), table.dtype, shape, to, &mut table.buffer, None)?;
        for row in rows {
            let place = count(OP, table.rows)?;
            places.get_mut(*row as usize).into_iter().for_each(|entry| *entry = place);
            table.rows += 1;
        }
        Ok(())
    }
}

/// Reads `rows` of a matrix, in the order given. All elements must be finite once rounded to `run`.
fn read_rows(source: &HostTensor, columns: usize, run: DType, rows: &[u32]) -> Result<Vec<u8>, KernelError> {
    let row_bytes = columns * source.dtype().size();
    let mut bytes = vec![0; rows.len() * row_bytes];
    if row_bytes == 0 {
        return Ok(bytes);
    }
    let read = |(row, out): (&u32, &mut [u8])| {
        let row = *row as usize;
        source.read(row * row_bytes, out)?;
        match first_not_finite(source.dtype(), run, out) {
            None => Ok(()),
            Some((column, value)) => Err(KernelError::NotFinite { op: OP, index: row * columns + column, value }),
        }
    };
    // As in the copies of a driver: a rayon thread that waits runs other tasks, which could need this table.
    if rows.len() <= ROWS_PER_TASK || rayon::current_thread_index().is_some() {
        rows.iter().zip(bytes.chunks_exact_mut(row_bytes)).try_for_each(read)?;
    } else {
        let rows = rows.par_iter().with_min_len(ROWS_PER_TASK);
        rows.zip(bytes.par_chunks_exact_mut(row_bytes)).try_for_each(read)?;
    }
    Ok(bytes)
}

/// The first element of `bytes` that is not finite once rounded to `run`, and its rounded value.
fn first_not_finite(stored: DType, run: DType, bytes: &[u8]) -> Option<(usize, f32)> {
    let mut values = stored.to_f32_vec(bytes);
    if stored != run {
        values = run.to_f32_vec(&run.from_f32_slice(&values));
    }
    let index = values.iter().position(|value| !value.is_finite())?;
    Some((index, values[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_element_that_is_not_finite_is_found_after_rounding() {
        let found = |stored: DType, run, values: &[f32]| first_not_finite(stored, run, &stored.from_f32_slice(values));
        assert_eq!(found(DType::Bf16, DType::Bf16, &[1.0, -2.0]), None);
        assert_eq!(found(DType::F32, DType::F16, &[1.0, -1e6, f32::NAN]), Some((1, f32::NEG_INFINITY)));
        assert_eq!(found(DType::F32, DType::Bf16, &[65504.0, f32::MAX]), Some((1, f32::INFINITY)));
        assert_eq!(found(DType::F32, DType::F32, &[f32::MAX]), None);
        assert!(
            found(DType::F16, DType::F32, &[0.0, f32::NAN]).is_some_and(|(index, value)| index == 1 && value.is_nan())
        );
    }
}
