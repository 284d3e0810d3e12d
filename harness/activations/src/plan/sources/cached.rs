//! Activations in a cache file, read through a mapping so that a selection touches its own pages alone.

use std::ops::Range;

use super::assemble::{assemble, samples_per_chunk};
use super::request::{ChunkSink, SourceRequest};
use crate::error::Result;
use crate::plan::axes::Axis;
use crate::plan::cache_file::CacheFile;
use crate::plan::fingerprint::{PlanFingerprint, hash_samples};
use crate::plan::progress::Monitor;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// The fingerprint of `samples` of a file: that of the plan which wrote it, if they are all samples in order.
pub(super) fn fingerprint(file: &CacheFile, samples: &[usize]) -> PlanFingerprint {
    let mut fingerprint = file.fingerprint().clone();
    let is_whole = samples.iter().copied().eq(0..file.signature().n_samples);
    if !is_whole {
        for part in ["tokens", "mask"] {
            let whole = fingerprint.get(part).unwrap_or_default().to_owned();
            fingerprint.set(part, hash_samples(&whole, samples));
        }
    }
    fingerprint
}

/// Positions along `l` of the layers asked for; the file of a tensor without `l` has one part.
fn positions(signature: &Signature, layers: &[usize]) -> Vec<usize> {
    if signature.axes.has(Axis::Layer) {
        layers.iter().filter_map(|id| signature.layer_position(*id)).collect()
    } else {
        vec![0]
    }
}

pub(super) fn visit(
    file: &CacheFile,
    request: &SourceRequest<'_>,
    monitor: &Monitor,
    sink: &mut ChunkSink<'_>,
) -> Result<()> {
    let positions = positions(file.signature(), request.layers);
    let one_sample = request.unpooled_signature(file.signature(), 1);
    let mut done = 0;
    for samples in request.samples.chunks(samples_per_chunk(&one_sample)) {
        let layers = positions.iter().map(|position| file.read(*position, samples)).collect::<Result<Vec<_>>>()?;
        let mask = file.mask().map(|mask| mask.select(samples));
        let block = |sample: usize, layer: usize| layers[layer].block(samples[sample]);
        let chunk = assemble(one_sample.with_samples(samples.len()), request, mask, block)?;
        // Releases the mapped pages before the next chunk is read.
        drop(layers);
        sink(samples, chunk)?;
        done += samples.len();
        monitor.report_samples(done, request.samples.len());
    }
    Ok(())
}

pub(super) fn view(file: &CacheFile, layers: &[usize], range: Range<usize>) -> Result<Option<ActTensor>> {
    let [position] = positions(file.signature(), layers)[..] else { return Ok(None) };
    let samples: Vec<usize> = range.collect();
    let mask = file.mask().map(|mask| mask.select(&samples));
    let signature = Signature { layer_ids: layers.into(), ..file.signature().with_samples(samples.len()) };
    let bytes = file.read(position, &samples)?.into_bytes(&samples);
    ActTensor::from_signature(signature, mask, bytes).map(Some)
}
