//! Runs an optimised plan: batches come from the source, the remaining operations are done on each, and the samples
//! go to wherever the result wants them.

use std::collections::HashSet;

use bytes::Bytes;

use super::mask::SequenceMask;
use super::optimise::OptimisedPlan;
use super::progress::Monitor;
use super::signature::Signature;
use super::sources::{Source, SourceRequest};
use super::tensor::{ActTensor, contiguous};
use crate::error::{Error, Result};

/// A plan that is ready to run.
#[derive(Clone, Debug)]
pub(super) struct Execution {
    pub(super) source: Source,
    pub(super) plan: OptimisedPlan,
    /// Signature of the whole result.
    pub(super) result: Signature,
    pub(super) monitor: Monitor,
}

impl Execution {
    /// The result for some samples of the source, in that order; one may stand several times.
    ///
    /// # Errors
    /// A failure of the source, or memory that is not there.
    pub(super) fn tensor_of(&self, samples: &[usize]) -> Result<ActTensor> {
        if let Some(shared) = self.shared(samples)? {
            return Ok(shared);
        }
        let mut assembler = Assembler::new(self.result.with_samples(samples.len()))?;
        let places = Places::of(samples);
        self.visit(&places.distinct, &mut |numbers, tensor| {
            for (index, number) in numbers.iter().enumerate() {
                places.of_sample(*number).try_for_each(|place| assembler.put(place, &tensor, index))?;
            }
            Ok(())
        })?;
        assembler.finish()
    }

    /// Runs the plan for `samples`, distinct samples of the source, each once. `sink` is given their numbers, in any
    /// order, and their results.
    ///
    /// # Errors
    /// A failure of the source or of `sink`.
    pub(super) fn visit(
        &self,
        samples: &[usize],
        sink: &mut dyn FnMut(&[usize], ActTensor) -> Result<()>,
    ) -> Result<()> {
        let all: Vec<usize>;
        let samples = match self.plan.all_samples {
            true => {
                all = (0..self.source.signature().n_samples).collect();
                &all
            }
            false => samples,
        };
        let request =
            SourceRequest { samples, layers: &self.plan.layers, pool: self.plan.pool, rules: self.plan.rules };
        self.source.visit(&request, &self.monitor, &mut |numbers, mut tensor| {
            self.monitor.go_on()?;
            for operation in &self.plan.remaining {
                tensor = tensor.apply(operation)?;
            }
            sink(numbers, tensor)
        })
    }

    /// The result without a copy, where the source has it in one piece.
    fn shared(&self, samples: &[usize]) -> Result<Option<ActTensor>> {
        let (true, Some(range)) = (self.plan.is_plain(), contiguous(samples)) else { return Ok(None) };
        let Some(tensor) = self.source.share(&self.plan.layers, range)? else { return Ok(None) };
        let done = self.plan.remaining.iter().try_fold(tensor, |tensor, operation| tensor.apply(operation));
        done.map(Some)
    }
}

/// Where in a result each sample of the source goes.
pub(super) struct Places {
    /// The samples in the order in which they first stand.
    pub(super) distinct: Vec<usize>,
    /// `(sample, place)`, sorted.
    places: Vec<(usize, usize)>,
}

impl Places {
    pub(super) fn of(samples: &[usize]) -> Self {
        let mut seen = HashSet::with_capacity(samples.len());
        let distinct = samples.iter().copied().filter(|sample| seen.insert(*sample)).collect();
        let mut places: Vec<(usize, usize)> =
            samples.iter().enumerate().map(|(place, sample)| (*sample, place)).collect();
        places.sort_unstable();
        Places { distinct, places }
    }

    /// The places of a sample, increasing; none if nobody wants it.
    pub(super) fn of_sample(&self, sample: usize) -> impl Iterator<Item = usize> + '_ {
        let first = self.places.partition_point(|(known, _)| *known < sample);
        self.places[first..].iter().take_while(move |(known, _)| *known == sample).map(|(_, place)| *place)
    }
}

/// A result that samples are put into in any order.
pub(super) struct Assembler {
    signature: Signature,
    bytes: Vec<u8>,
    mask: Vec<bool>,
}

impl Assembler {
    /// Reserves the memory of `signature` at once, so that a lack of it shows before any work is done.
    pub(super) fn new(signature: Signature) -> Result<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(signature.n_bytes()).map_err(|_| Error::OutOfMemory {
            what: format!("activations {signature}"),
            bytes: signature.n_bytes() as u64,
        })?;
        let mask = vec![false; if signature.has_mask { signature.n_samples * signature.seq_len } else { 0 }];
        Ok(Assembler { signature, bytes, mask })
    }

    /// Puts sample `index` of `tensor` at `place`.
    pub(super) fn put(&mut self, place: usize, tensor: &ActTensor, index: usize) -> Result<()> {
        let expected = self.signature.with_samples(tensor.signature().n_samples);
        if *tensor.signature() != expected {
            return Err(Error::Disagreement(format!("a batch came as {}, not as {expected}", tensor.signature())));
        }
        let len = self.signature.sample_bytes();
        // Pages are touched as samples come, not before.
        if self.bytes.len() < (place + 1) * len {
            self.bytes.resize((place + 1) * len, 0);
        }
        self.bytes[place * len..(place + 1) * len].copy_from_slice(tensor.sample(index));
        if let Some(mask) = tensor.mask() {
            let len = self.signature.seq_len;
            self.mask[place * len..(place + 1) * len].copy_from_slice(mask.row(index));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<ActTensor> {
        let mask = match self.signature.has_mask {
            true => Some(SequenceMask::new(self.signature.n_samples, self.signature.seq_len, self.mask)?),
            false => None,
        };
        ActTensor::from_signature(self.signature, mask, Bytes::from(self.bytes))
    }
}
