//! Executes an optimized plan: the source emits batches, the remaining operations are applied to each, and the samples
//! are copied to their positions in the result.

use std::collections::HashSet;

use bytes::Bytes;

use super::mask::SequenceMask;
use super::optimize::OptimizedPlan;
use super::progress::Monitor;
use super::signature::Signature;
use super::sources::PlanSource;
use super::tensor::{ActTensor, contiguous};
use crate::error::{Error, Result};

/// A plan that is ready to run.
#[derive(Clone, Debug)]
pub(super) struct Execution {
    pub(super) source: PlanSource,
    pub(super) plan: OptimizedPlan,
    /// Signature of the whole result.
    pub(super) result: Signature,
    pub(super) monitor: Monitor,
}

impl Execution {
    /// The result for some samples of the source, in that order; one may occur several times.
    ///
    /// # Errors
    /// A failure of the source, or not enough memory.
    pub(super) fn tensor_of(&self, samples: &[usize]) -> Result<ActTensor> {
        if let Some(view) = self.view(samples)? {
            return Ok(view);
        }
        let mut assembler = Assembler::new(self.result.with_samples(samples.len()))?;
        let positions = SamplePositions::of(samples);
        self.visit(&positions.distinct, &mut |numbers, tensor| {
            for (index, number) in numbers.iter().enumerate() {
                positions.of_sample(*number).try_for_each(|position| assembler.put(position, &tensor, index))?;
            }
            Ok(())
        })?;
        assembler.finish()
    }

    /// Runs the plan for `samples`, distinct samples of the source, each once. `sink` receives their numbers, in any order,
    /// and their results.
    ///
    /// # Errors
    /// A failure of the source or of `sink`.
    pub(super) fn visit(
        &self,
        samples: &[usize],
        sink: &mut dyn FnMut(&[usize], ActTensor) -> Result<()>,
    ) -> Result<()> {
        let all: Vec<usize>;
        let samples = if self.plan.all_samples {
            all = (0..self.source.signature().n_samples).collect();
            &all
        } else {
            samples
        };
        let request = self.plan.request(samples);
        self.source.visit(&request, &self.monitor, &mut |numbers, mut tensor| {
            for operation in &self.plan.remaining {
                tensor = tensor.apply(operation)?;
            }
            sink(numbers, tensor)?;
            // After the sink, so that a batch that was computed is not lost to a cache file.
            self.monitor.check_interrupt()
        })
    }

    /// The result without a copy, if it is contiguous in the source.
    fn view(&self, samples: &[usize]) -> Result<Option<ActTensor>> {
        let (true, Some(range)) = (self.plan.is_plain(), contiguous(samples)) else { return Ok(None) };
        let Some(tensor) = self.source.view(&self.plan.layers, range)? else { return Ok(None) };
        let result = self.plan.remaining.iter().try_fold(tensor, |tensor, operation| tensor.apply(operation));
        result.map(Some)
    }
}

/// The positions of each sample of the source in a result.
pub(super) struct SamplePositions {
    /// The samples in the order of their first occurrence.
    pub(super) distinct: Vec<usize>,
    /// `(sample, position)`, sorted.
    positions: Vec<(usize, usize)>,
}

impl SamplePositions {
    pub(super) fn of(samples: &[usize]) -> Self {
        let mut seen = HashSet::with_capacity(samples.len());
        let distinct = samples.iter().copied().filter(|sample| seen.insert(*sample)).collect();
        let mut positions: Vec<(usize, usize)> =
            samples.iter().enumerate().map(|(position, sample)| (*sample, position)).collect();
        positions.sort_unstable();
        SamplePositions { distinct, positions }
    }

    /// The positions of a sample, increasing; none if it is not in the result.
    pub(super) fn of_sample(&self, sample: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.positions.partition_point(|(known, _)| *known < sample);
        self.positions[first..].iter().take_while(move |(known, _)| *known == sample).map(|(_, position)| *position)
    }
}

/// A result that samples are copied into, in any order.
pub(super) struct Assembler {
    signature: Signature,
    bytes: Vec<u8>,
    mask: Vec<bool>,
}

impl Assembler {
    /// Reserves the memory of `signature` at once, so that it fails before any work is done if there is too little.
    pub(super) fn new(signature: Signature) -> Result<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(signature.n_bytes()).map_err(|_| Error::OutOfMemory {
            what: format!("activations {signature}"),
            bytes: signature.n_bytes() as u64,
        })?;
        let mask = vec![false; if signature.has_mask { signature.n_samples * signature.seq_len } else { 0 }];
        Ok(Assembler { signature, bytes, mask })
    }

    /// Copies sample `index` of `tensor` to `position`.
    pub(super) fn put(&mut self, position: usize, tensor: &ActTensor, index: usize) -> Result<()> {
        let expected = self.signature.with_samples(tensor.signature().n_samples);
        if *tensor.signature() != expected {
            return Err(Error::internal(format!("a batch is {} instead of {expected}", tensor.signature())));
        }
        let len = self.signature.sample_bytes();
        // Pages are touched sample by sample: peak memory is then that of the samples so far.
        if self.bytes.len() < (position + 1) * len {
            self.bytes.resize((position + 1) * len, 0);
        }
        self.bytes[position * len..(position + 1) * len].copy_from_slice(tensor.sample(index));
        if let Some(mask) = tensor.mask() {
            let len = self.signature.seq_len;
            self.mask[position * len..(position + 1) * len].copy_from_slice(mask.row(index));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ActTensor> {
        let new_mask = |flags| SequenceMask::new(self.signature.n_samples, self.signature.seq_len, flags);
        let mask = self.signature.has_mask.then(|| new_mask(self.mask)).transpose()?;
        ActTensor::from_signature(self.signature, mask, Bytes::from(self.bytes))
    }
}
