//! Activations in a cache file, read through a mapping so that a selection touches its own pages alone.

use std::ops::Range;

use super::{ChunkSink, SourceRequest, assemble, samples_per_chunk};
use crate::error::Result;
use crate::plan::axes::Axis;
use crate::plan::cache_file::CacheFile;
use crate::plan::fingerprint::{Fingerprint, hash_samples};
use crate::plan::progress::Monitor;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// What decides the file's values: what decided those it was written from, if all samples are wanted in order.
pub(super) fn fingerprint(file: &CacheFile, samples: &[usize]) -> Fingerprint {
    let mut fingerprint = file.fingerprint().clone();
    let all = samples.iter().copied().eq(0..file.signature().n_samples);
    if !all {
        for part in ["tokens", "mask"] {
            let of_all = fingerprint.get(part).unwrap_or_default().to_owned();
            fingerprint.set(part, hash_samples(&of_all, samples));
        }
    }
    fingerprint
}

/// Positions along `l` of the layers asked for; the file of a tensor without `l` has one part.
fn positions(signature: &Signature, layers: &[usize]) -> Vec<usize> {
    match signature.axes.has(Axis::Layer) {
        true => layers.iter().filter_map(|id| signature.layer_position(*id)).collect(),
        false => vec![0],
    }
}

pub(super) fn visit(
    file: &CacheFile,
    request: &SourceRequest<'_>,
    monitor: &Monitor,
    sink: &mut ChunkSink<'_>,
) -> Result<()> {
    let positions = positions(file.signature(), request.layers);
    let rows = request.rows_signature(file.signature(), 1);
    let mut done = 0;
    for samples in request.samples.chunks(samples_per_chunk(&rows)) {
        let layers = positions.iter().map(|position| file.read(*position, samples)).collect::<Result<Vec<_>>>()?;
        let mask = file.mask().map(|mask| mask.select(samples));
        let block = |sample: usize, layer: usize| layers[layer].block(samples[sample]);
        let chunk = assemble(rows.with_samples(samples.len()), request, mask, block)?;
        // The mapping's pages are let go before the next ones come.
        drop(layers);
        sink(samples, chunk)?;
        done += samples.len();
        monitor.report_samples(done, request.samples.len());
    }
    Ok(())
}

pub(super) fn share(file: &CacheFile, layers: &[usize], range: Range<usize>) -> Result<Option<ActTensor>> {
    let [position] = positions(file.signature(), layers)[..] else { return Ok(None) };
    let samples: Vec<usize> = range.collect();
    let mask = file.mask().map(|mask| mask.select(&samples));
    let signature = Signature { layer_ids: layers.into(), ..file.signature().with_samples(samples.len()) };
    let bytes = file.read(position, &samples)?.into_bytes(&samples);
    ActTensor::from_signature(signature, mask, bytes).map(Some)
}
