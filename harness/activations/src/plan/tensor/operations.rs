//! The reference semantics of each operation: one tensor in, one tensor out. Plans must give the same bytes.

use actbench_kernels::{DType, PoolMethod};
use bytes::Bytes;

use super::ActTensor;
use crate::error::Result;
use crate::plan::axes::Axis;
use crate::plan::mask::SequenceMask;
use crate::plan::operation::{BatchSelection, Operation, ResultDevice};
use crate::plan::pooling::pool_groups;
use crate::plan::signature::Signature;
use crate::tokens::TokenSet;

impl ActTensor {
    /// Applies `operation`.
    ///
    /// # Errors
    /// It does not fit; see [`Signature::after`].
    pub fn apply(&self, operation: &Operation) -> Result<ActTensor> {
        let after = self.signature.after(operation)?;
        match operation {
            Operation::SelectLayers(ids) => self.keep_layers(ids, after),
            Operation::SelectLayer(id) => self.keep_layers(&[*id], after),
            Operation::SliceBatch(selection) => self.keep_samples(&selection.resolve(self.signature.n_samples)?, after),
            Operation::Pool { method, axis: Axis::Sequence } => {
                self.pool_positions(*method, &(0..self.signature.n_layers()).collect::<Vec<_>>(), after)
            }
            Operation::Pool { method, .. } => self.pool_layers(*method, after),
            Operation::Cast(dtype) => self.convert(*dtype, after),
            Operation::To(_) => Ok(self.clone()),
        }
    }

    /// Keeps these layers, by number and in this order; axis `l` stays. Numbers must be distinct.
    ///
    /// # Errors
    /// No axis `l`, an unknown layer, a layer twice, or none.
    pub fn select_layers(&self, ids: &[usize]) -> Result<ActTensor> {
        self.apply(&Operation::SelectLayers(ids.into()))
    }

    /// Keeps one layer, by number, and drops axis `l`.
    ///
    /// # Errors
    /// No axis `l`, or an unknown layer.
    pub fn select_layer(&self, id: usize) -> Result<ActTensor> {
        self.apply(&Operation::SelectLayer(id))
    }

    /// Keeps some samples; see [`BatchSelection`].
    ///
    /// # Errors
    /// A number outside the batch.
    pub fn slice_batch(&self, selection: impl Into<BatchSelection>) -> Result<ActTensor> {
        self.apply(&Operation::SliceBatch(selection.into()))
    }

    /// Pools the masked positions (`s`) or the layers (`l`) to one vector.
    ///
    /// # Errors
    /// Another axis, one that the tensor does not have, or `s` without a mask.
    pub fn pool(&self, method: PoolMethod, axis: Axis) -> Result<ActTensor> {
        self.apply(&Operation::Pool { method, axis })
    }

    /// [`ActTensor::pool`] by the mean.
    ///
    /// # Errors
    /// As for [`ActTensor::pool`].
    pub fn mean_pool(&self, axis: Axis) -> Result<ActTensor> {
        self.pool(PoolMethod::Mean, axis)
    }

    /// [`ActTensor::pool`] by the elementwise maximum.
    ///
    /// # Errors
    /// As for [`ActTensor::pool`].
    pub fn max_pool(&self, axis: Axis) -> Result<ActTensor> {
        self.pool(PoolMethod::Max, axis)
    }

    /// [`ActTensor::pool`] by the last masked position, or the last layer.
    ///
    /// # Errors
    /// As for [`ActTensor::pool`].
    pub fn last_pool(&self, axis: Axis) -> Result<ActTensor> {
        self.pool(PoolMethod::Last, axis)
    }

    /// [`ActTensor::pool`] by the sum.
    ///
    /// # Errors
    /// As for [`ActTensor::pool`].
    pub fn sum_pool(&self, axis: Axis) -> Result<ActTensor> {
        self.pool(PoolMethod::Sum, axis)
    }

    /// Rounds every element to `dtype`.
    ///
    /// # Errors
    /// When the result would be too large to address.
    pub fn cast(&self, dtype: DType) -> Result<ActTensor> {
        self.apply(&Operation::Cast(dtype))
    }

    /// Names the memory of the tensor, which can only be host memory.
    ///
    /// # Errors
    /// Any other device.
    pub fn to(&self, device: ResultDevice) -> Result<ActTensor> {
        self.apply(&Operation::To(device))
    }

    /// `select_layer(id)` and then `pool(method, s)`, without a copy of the layer in between.
    ///
    /// Array libraries select by a strided view, so an eager baseline that copied would be slower than necessary.
    ///
    /// # Errors
    /// As for the two operations.
    pub fn pool_layer(&self, id: usize, method: PoolMethod) -> Result<ActTensor> {
        let selected = self.signature.after(&Operation::SelectLayer(id))?;
        let after = selected.after(&Operation::Pool { method, axis: Axis::Sequence })?;
        let position = self.signature.layer_position(id).unwrap_or_default();
        self.pool_positions(method, &[position], after)
    }

    fn keep_layers(&self, ids: &[usize], after: Signature) -> Result<ActTensor> {
        if *ids == *self.signature.layer_ids {
            return ActTensor::from_signature(after, self.mask.clone(), self.bytes.clone());
        }
        let positions: Vec<usize> = ids.iter().filter_map(|id| self.signature.layer_position(*id)).collect();
        let mut bytes = Vec::with_capacity(after.n_bytes());
        for sample in 0..self.signature.n_samples {
            positions.iter().for_each(|position| bytes.extend_from_slice(self.block(sample, *position)));
        }
        ActTensor::from_signature(after, self.mask.clone(), Bytes::from(bytes))
    }

    fn keep_samples(&self, samples: &[usize], after: Signature) -> Result<ActTensor> {
        let mask = self.mask.as_ref().map(|mask| mask.select(samples));
        let bytes = match contiguous(samples) {
            Some(range) => {
                let len = self.signature.sample_bytes();
                self.bytes.slice(range.start * len..range.end * len)
            }
            None => {
                let mut bytes = Vec::with_capacity(after.n_bytes());
                samples.iter().for_each(|sample| bytes.extend_from_slice(self.sample(*sample)));
                Bytes::from(bytes)
            }
        };
        ActTensor::from_signature(after, mask, bytes)
    }

    /// Pools the masked positions of the layers at `positions`.
    fn pool_positions(&self, method: PoolMethod, positions: &[usize], after: Signature) -> Result<ActTensor> {
        let empty = SequenceMask::of_tokens(&TokenSet::default(), &[], 0);
        let mask = self.mask.as_ref().unwrap_or(&empty);
        let vector_bytes = self.signature.vector_bytes();
        let mut bytes = vec![0; after.n_bytes()];
        let group_vectors = |group: usize| {
            let (sample, layer) = (group / positions.len(), positions[group % positions.len()]);
            let block = self.block(sample, layer);
            mask.positions(sample).map(move |position| &block[position * vector_bytes..(position + 1) * vector_bytes])
        };
        pool_groups(self.dtype(), method, self.signature.hidden_size, group_vectors, &mut bytes);
        ActTensor::from_signature(after, None, Bytes::from(bytes))
    }

    fn pool_layers(&self, method: PoolMethod, after: Signature) -> Result<ActTensor> {
        let (seq_len, n_layers) = (self.signature.seq_len, self.signature.n_layers());
        let vector_bytes = self.signature.vector_bytes();
        let mut bytes = vec![0; after.n_bytes()];
        let group_vectors = |group: usize| {
            let (sample, position) = (group / seq_len, group % seq_len);
            (0..n_layers)
                .map(move |layer| &self.block(sample, layer)[position * vector_bytes..(position + 1) * vector_bytes])
        };
        pool_groups(self.dtype(), method, self.signature.hidden_size, group_vectors, &mut bytes);
        ActTensor::from_signature(after, self.mask.clone(), Bytes::from(bytes))
    }

    fn convert(&self, dtype: DType, after: Signature) -> Result<ActTensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        // In chunks, so that the widened values stay in the L1 cache: 4096 floats are 16 KiB.
        const CHUNK: usize = 4096;
        let mut widened = [0.0; CHUNK];
        let mut bytes = vec![0; after.n_bytes()];
        let chunks = bytes.chunks_mut(CHUNK * dtype.size()).zip(self.bytes.chunks(CHUNK * self.dtype().size()));
        for (out, source) in chunks {
            let widened = &mut widened[..source.len() / self.dtype().size()];
            self.dtype().widen(source, widened);
            dtype.narrow(widened, out);
        }
        ActTensor::from_signature(after, self.mask.clone(), Bytes::from(bytes))
    }
}

/// `numbers` as a range, if they are consecutive.
pub(crate) fn contiguous(numbers: &[usize]) -> Option<std::ops::Range<usize>> {
    let Some(first) = numbers.first() else { return Some(0..0) };
    numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]).then(|| *first..first + numbers.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::axes::Axes;

    /// `[2, 2, 3, 1]`; values encode sample, layer and position: sample 1, layer 9, position 2 is 192.
    fn tensor() -> ActTensor {
        let values: Vec<f32> = [0.0, 100.0]
            .iter()
            .flat_map(|sample| [40.0, 90.0].iter().map(move |layer| sample + layer))
            .flat_map(|block| (0..3).map(move |position| block + position as f32))
            .collect();
        let mask = SequenceMask::new(2, 3, vec![true, true, false, false, true, true]).unwrap();
        ActTensor::from_f32(Axes::BLSH, &[2, 2, 3, 1], DType::F32, [4, 9], Some(mask), &values).unwrap()
    }

    #[test]
    fn layers_are_selected_by_number_in_order() {
        let swapped = tensor().select_layers(&[9, 4]).unwrap();
        assert_eq!(swapped.layer_ids(), [9, 4]);
        assert_eq!(swapped.to_f32_vec()[..6], [90.0, 91.0, 92.0, 40.0, 41.0, 42.0]);
        let single = swapped.select_layer(4).unwrap();
        assert_eq!((single.axes(), single.layer_ids()), (Axes::BSH, [4].as_slice()));
        assert_eq!(single.to_f32_vec(), [40.0, 41.0, 42.0, 140.0, 141.0, 142.0]);
        assert!(single.mask().is_some());
    }

    #[test]
    fn selected_samples_keep_their_masks() {
        let picked = tensor().slice_batch(vec![-1, 0, -1]).unwrap();
        assert_eq!(picked.shape(), [3, 2, 3, 1]);
        assert_eq!(picked.mask().unwrap().row(0), [false, true, true]);
        assert_eq!(picked.mask().unwrap().row(1), [true, true, false]);
        assert_eq!(
            picked.select_layer(4).unwrap().max_pool(Axis::Sequence).unwrap().to_f32_vec(),
            [142.0, 41.0, 142.0]
        );
        let shared = tensor().slice_batch(1..).unwrap();
        assert_eq!(shared.to_f32_vec(), tensor().to_f32_vec()[6..]);
    }

    #[test]
    fn pools_use_masked_positions_or_all_layers() {
        let pooled = |method| tensor().pool(method, Axis::Sequence).unwrap().to_f32_vec();
        assert_eq!(pooled(PoolMethod::Mean), [40.5, 90.5, 141.5, 191.5]);
        assert_eq!(pooled(PoolMethod::Last), [41.0, 91.0, 142.0, 192.0]);
        let layers = tensor().sum_pool(Axis::Layer).unwrap();
        assert_eq!((layers.axes(), layers.layer_ids()), (Axes::BSH, [4, 9].as_slice()));
        assert_eq!(layers.to_f32_vec(), [130.0, 132.0, 134.0, 330.0, 332.0, 334.0]);
        assert_eq!(layers.mean_pool(Axis::Sequence).unwrap().to_f32_vec(), [131.0, 333.0]);
    }

    #[test]
    fn pool_layer_equals_select_then_pool() {
        for method in PoolMethod::ALL {
            for layer in [4, 9] {
                let two = tensor().select_layer(layer).unwrap().pool(method, Axis::Sequence).unwrap();
                let one = tensor().pool_layer(layer, method).unwrap();
                assert_eq!((one.signature(), one.bytes()), (two.signature(), two.bytes()));
            }
        }
        assert!(tensor().pool_layer(5, PoolMethod::Mean).is_err());
    }

    #[test]
    fn casts_round_elements_and_keep_masks() {
        let values: Vec<f32> = (0..10_000).map(|index| index as f32 * 0.37).collect();
        let full = ActTensor::from_f32(Axes::BH, &[5000, 2], DType::F32, [3], None, &values).unwrap();
        let cast = full.cast(DType::Bf16).unwrap();
        assert_eq!(cast.bytes()[..], DType::Bf16.from_f32_slice(&values)[..]);
        assert_eq!(cast.cast(DType::F32).unwrap().to_f32_vec(), cast.to_f32_vec());
        assert!(tensor().cast(DType::F16).unwrap().mask().is_some());
        assert!(full.to(ResultDevice::Cpu).is_ok() && full.to(ResultDevice::Cuda(0)).is_err());
    }
}
