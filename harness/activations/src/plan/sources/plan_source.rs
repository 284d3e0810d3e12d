//! The start of a plan: any of the sources.

use std::ops::Range;
use std::sync::Arc;

use super::cached;
use super::model::ModelSource;
use super::request::{ChunkSink, SourceRequest};
use super::tensor::TensorSource;
use crate::error::Result;
use crate::plan::cache_file::CacheFile;
use crate::plan::fingerprint::PlanFingerprint;
use crate::plan::progress::Monitor;
use crate::plan::signature::Signature;
use crate::plan::tensor::ActTensor;

/// The start of a plan. Cloning shares it.
#[derive(Clone, Debug)]
pub enum PlanSource {
    /// Activations in memory.
    Tensor(Arc<TensorSource>),
    /// A model and the tokens to run it on.
    Model(Arc<ModelSource>),
    /// Activations in a file.
    CacheFile(Arc<CacheFile>),
}

impl PlanSource {
    /// The whole source's axes, extents, layers and dtype.
    pub fn signature(&self) -> &Signature {
        match self {
            PlanSource::Tensor(source) => source.signature(),
            PlanSource::Model(source) => source.signature(),
            PlanSource::CacheFile(file) => file.signature(),
        }
    }

    /// The fingerprint of `samples` of the source.
    pub(crate) fn fingerprint(&self, samples: &[usize]) -> PlanFingerprint {
        match self {
            PlanSource::Tensor(source) => source.fingerprint(samples),
            PlanSource::Model(source) => source.fingerprint(samples),
            PlanSource::CacheFile(file) => cached::fingerprint(file, samples),
        }
    }

    /// Emits the activations of `request`, chunk by chunk.
    ///
    /// # Errors
    /// A failure of the model, of the file, or of `sink`.
    pub(crate) fn visit(&self, request: &SourceRequest<'_>, monitor: &Monitor, sink: &mut ChunkSink<'_>) -> Result<()> {
        match self {
            PlanSource::Tensor(source) => source.visit(request, monitor, sink),
            PlanSource::Model(source) => source.visit(request, monitor, sink),
            PlanSource::CacheFile(file) => cached::visit(file, request, monitor, sink),
        }
    }

    /// The samples in `range` of `layers` without a copy, if they are contiguous.
    ///
    /// # Errors
    /// A damaged file.
    pub(crate) fn view(&self, layers: &[usize], range: Range<usize>) -> Result<Option<ActTensor>> {
        match self {
            PlanSource::Tensor(source) => source.view(layers, range),
            PlanSource::Model(_) => Ok(None),
            PlanSource::CacheFile(file) => cached::view(file, layers, range),
        }
    }

    /// The source in one line, for people.
    pub fn describe(&self) -> String {
        match self {
            PlanSource::Tensor(source) => format!("tensor {}", source.signature()),
            PlanSource::Model(source) => source.describe(),
            PlanSource::CacheFile(file) => format!("cache file {} {}", file.path().display(), file.signature()),
        }
    }
}
