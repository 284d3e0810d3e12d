//! Weights to the device: uploaded in their stored type, converted and checked there by `cast.cu`.

use super::checks::Conversion;
use super::registry::{Operation, require};
use super::tensor::bytes;
use super::{Argument, CudaBackend, CudaTensor, CudaVector, CudaWeights, Device, count};
use crate::check::WeightShape;
use crate::dtype::DType;
use crate::error::KernelError;
use crate::host::HostTensor;

/// Bytes of a weight that are converted at a time: their stored form is a temporary buffer on the device.
const CHUNK_BYTES: usize = 64 << 20;

/// The destination rows of a source: `first`, `first + step`, and so on.
#[derive(Clone, Copy)]
pub(super) struct DestinationRows {
    pub(super) first: usize,
    pub(super) step: usize,
}

impl<D: Device> CudaBackend<D> {
    /// Stacks matrices of equal width.
    pub(super) fn stack_weights(
        &self,
        weights: &[HostTensor],
        run: DType,
    ) -> Result<CudaWeights<D::Buffer>, KernelError> {
        const OP: &str = "prepare linear";
        let shapes = weights.iter().map(|weight| matrix(OP, weight)).collect::<Result<Vec<_>, _>>()?;
        let in_features = shapes.first().map_or(0, |shape| shape.1);
        if let Some(other) = shapes.iter().find(|shape| shape.1 != in_features) {
            return Err(KernelError::shape(OP, format!("{} input features stacked on {in_features}", other.1)));
        }
        let out_features = shapes.iter().map(|shape| shape.0).sum();
        let mut buffer = self.device.alloc(bytes(run, out_features, in_features)?)?;
        let mut first = 0;
        for (weight, shape) in weights.iter().zip(&shapes) {
            self.cast(OP, weight, run, DestinationRows { first, step: 1 }, &mut buffer)?;
            first += shape.0;
        }
        Ok(CudaWeights { buffer, shape: WeightShape { dtype: run, out_features, in_features, gated: false } })
    }

    /// Interleaves the rows of a gate and an up projection.
    pub(super) fn interleave_weights(
        &self,
        gate: &HostTensor,
        up: &HostTensor,
        run: DType,
    ) -> Result<CudaWeights<D::Buffer>, KernelError> {
        const OP: &str = "prepare gated";
        let (out_features, in_features) = matrix(OP, gate)?;
        if gate.shape() != up.shape() {
            return Err(KernelError::shape(OP, format!("gate {:?}, up {:?}", gate.shape(), up.shape())));
        }
        let mut buffer = self.device.alloc(bytes(run, 2 * out_features, in_features)?)?;
        for (first, weight) in [gate, up].into_iter().enumerate() {
            self.cast(OP, weight, run, DestinationRows { first, step: 2 }, &mut buffer)?;
        }
        Ok(CudaWeights { buffer, shape: WeightShape { dtype: run, out_features, in_features, gated: true } })
    }

    /// An embedding table in the run's type.
    pub(super) fn upload_table(&self, table: &HostTensor, run: DType) -> Result<CudaTensor<D::Buffer>, KernelError> {
        const OP: &str = "prepare embedding";
        let (rows, columns) = matrix(OP, table)?;
        let capacity = bytes(run, rows, columns)?;
        let mut buffer = self.device.alloc(capacity)?;
        self.cast(OP, table, run, DestinationRows { first: 0, step: 1 }, &mut buffer)?;
        Ok(CudaTensor { buffer, capacity, dtype: run, rows, columns })
    }

    /// Concatenates vectors, rounded to the run's type and stored as `f32`. They are short, so the host converts them.
    pub(super) fn join_vectors(&self, parts: &[HostTensor], run: DType) -> Result<CudaVector<D::Buffer>, KernelError> {
        let mut values = Vec::new();
        for part in parts {
            let rounded = run.to_f32_vec(&run.from_f32_slice(&part.to_f32_vec()));
            if let Some(index) = rounded.iter().position(|value| !value.is_finite()) {
                return Err(KernelError::NotFinite { op: "prepare vector", index, value: rounded[index] });
            }
            values.extend(rounded);
        }
        let mut buffer = self.device.alloc(values.len() * size_of::<f32>())?;
        self.write(&mut buffer, bytemuck::cast_slice(&values))?;
        Ok(CudaVector { buffer, len: values.len() })
    }

    /// Converts `source` to `run` into rows of `out` in chunks, so that a large table is not on the device twice. Does not
    /// wait: [`CudaBackend::read_checks`] reports elements that are not finite.
    fn cast(
        &self,
        op: &'static str,
        source: &HostTensor,
        run: DType,
        rows: DestinationRows,
        out: &mut D::Buffer,
    ) -> Result<(), KernelError> {
        let (n_rows, columns) = matrix(op, source)?;
        let row_bytes = columns * source.dtype().size();
        let chunk_rows = (CHUNK_BYTES / row_bytes.max(1)).max(1);
        for first in (0..n_rows).step_by(chunk_rows) {
            let n_rows = chunk_rows.min(n_rows - first);
            let chunk = first * row_bytes..(first + n_rows) * row_bytes;
            let mut stored = self.device.alloc(chunk.len())?;
            self.traffic.add_to_device(chunk.len());
            self.device.write_tensor(&mut stored, source, chunk)?;
            let to = DestinationRows { first: rows.first + first * rows.step, step: rows.step };
            self.with_note(Conversion { op, first_element: first * columns }, |notes, check| {
                let shape = (n_rows, columns);
                self.convert(op, &stored, source.dtype(), run, shape, to, out, Some((notes, check)))
            })?;
        }
        Ok(())
    }

    /// Converts the rows of `stored`, of `shape` and type `from`, to `run` into rows of `out`. With `note`, notes and the
    /// index of one, notes the first element that is not finite.
    #[expect(clippy::too_many_arguments, reason = "the arguments of the kernel")]
    pub(super) fn convert(
        &self,
        op: &'static str,
        stored: &D::Buffer,
        from: DType,
        run: DType,
        (n_rows, columns): (usize, usize),
        to: DestinationRows,
        out: &mut D::Buffer,
        note: Option<(&mut D::Buffer, usize)>,
    ) -> Result<(), KernelError> {
        // The wide kernel takes eight elements at a time, of both types: 16 bytes of the narrow ones.
        let variant = self.row_variant(DType::Bf16, columns);
        let kernel = require(op, Operation::Cast { from }, variant, run)?;
        let launch = kernel.launch([count(op, n_rows)?, 1, 1]);
        let (notes, check) = match note {
            Some((notes, check)) => (Argument::Write(notes), check),
            None => (Argument::Null, 0),
        };
        let mut arguments = [
            Argument::Read(stored),
            Argument::U64(columns as u64),
            Argument::U64(to.first as u64),
            Argument::U64(to.step as u64),
            Argument::Write(out),
            notes,
            Argument::U64(check as u64),
        ];
        self.launch(&launch, &mut arguments)
    }
}

/// Rows and columns of a matrix.
pub(super) fn matrix(op: &'static str, tensor: &HostTensor) -> Result<(usize, usize), KernelError> {
    match tensor.shape() {
        [rows, columns] => Ok((*rows, *columns)),
        other => Err(KernelError::shape(op, format!("not a matrix: {other:?}"))),
    }
}
