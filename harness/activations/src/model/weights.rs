//! A model's weights by name: mapped from safetensors files, or synthetic ones generated from a seed.
//!
//! Nothing is copied: a tensor of a file shares the mapped pages, so opening a model costs no memory until its weights
//! are packed, and [`Weights::release`] releases the pages afterwards. One of `f64` is copied, and a synthetic one generated, when it
//! is asked for. Either way a block that no plan needs costs nothing. Tensors that an adapter changes are computed when they are asked
//! for, in f32.

mod digest;
mod files;
pub(super) mod header;
mod leftovers;
mod names;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use actbench_fixtures::presets::Preset;
use actbench_fixtures::synthetic;
use actbench_kernels::{DType, HostTensor};
use bytes::Bytes;

use super::adapter::merge::Adapter;
use super::spec::DecoderSpec;
use super::tensor_shapes::tensor_shapes;
use crate::error::{Error, Result};

pub(crate) use files::{SHARD_INDEX, SINGLE_FILE, adapter_file, shard_names};
pub(super) use leftovers::is_quantization;
pub(super) use names::block_of;

use digest::parallel_digest;
use files::WeightFiles;

// Checkpoints are little-endian and [`HostTensor`] is native-endian, so mapped bytes are used unchanged.
const _: () = assert!(cfg!(target_endian = "little"), "weights are mapped as little-endian");

/// The weights of one model.
#[derive(Debug)]
pub struct Weights {
    source: WeightSource,
    adapter: Option<Adapter>,
    fingerprint: OnceLock<String>,
}

#[derive(Debug)]
enum WeightSource {
    Files(WeightFiles),
    Synthetic { preset: Preset, seed: u64, shapes: BTreeMap<String, Vec<usize>>, norm_mean: f32 },
}

impl Weights {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names, in the directory `dir`.
    ///
    /// `spec` has the names of the model's family. The files must not be changed while they are mapped; a change is not detected.
    ///
    /// # Errors
    /// No weights, or incomplete or inconsistent safetensors files.
    pub fn open(dir: &Path, spec: &DecoderSpec) -> Result<Weights> {
        let files = WeightFiles::open(dir, &spec.names, spec.norm.kind.initial_weight())?;
        Ok(Weights::of(WeightSource::Files(files)))
    }

    /// Synthetic bfloat16 weights of the shape of `spec`, which is that of `preset`.
    pub fn synthetic(preset: &Preset, spec: &DecoderSpec, seed: u64) -> Weights {
        let norm_mean = spec.norm.kind.initial_weight();
        let source = WeightSource::Synthetic { preset: *preset, seed, shapes: tensor_shapes(spec), norm_mean };
        Weights::of(source)
    }

    fn of(source: WeightSource) -> Weights {
        Weights { source, adapter: None, fingerprint: OnceLock::new() }
    }

    /// The weights with the changes of `adapter`, which was opened for them.
    #[must_use]
    pub fn with_adapter(self, adapter: Adapter) -> Weights {
        Weights { adapter: Some(adapter), ..Weights::of(self.source) }
    }

    /// The adapter whose changes the weights have.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Whether there is a tensor of that name. Names are those of transformers, whatever the file calls its tensors.
    pub fn contains(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// The extents of a tensor, outermost first, if there is one of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let stored = match &self.source {
            WeightSource::Files(files) => files.shape(name),
            WeightSource::Synthetic { shapes, .. } => shapes.get(name).map(Vec::as_slice),
        };
        // An adapter may have a bias that the files lack.
        stored.or_else(|| Some(self.replacement(name)?.shape()))
    }

    fn replacement(&self, name: &str) -> Option<&HostTensor> {
        self.adapter.as_ref()?.replacement(name)
    }

    /// Each tensor's name in transformers and in its file, and whether another tensor of the same name replaces it.
    pub(super) fn renamed(&self) -> Vec<(Cow<'_, str>, &str, bool)> {
        match &self.source {
            WeightSource::Files(files) => files.renamed().collect(),
            WeightSource::Synthetic { shapes, .. } => {
                shapes.keys().map(|name| (Cow::Borrowed(name.as_str()), name.as_str(), false)).collect()
            }
        }
    }

    /// The names of all tensors in their files.
    pub fn names(&self) -> Vec<&str> {
        match &self.source {
            WeightSource::Files(files) => files.names().collect(),
            WeightSource::Synthetic { shapes, .. } => shapes.keys().map(String::as_str).collect(),
        }
    }

    /// The tensor `name`, which must be of `shape` and of type `F64`, `F32`, `F16` or `BF16`. `F64` is rounded to `F32`.
    ///
    /// A synthetic tensor is generated again by each call, and one that an adapter updates is computed again.
    ///
    /// # Errors
    /// No such tensor (the error names the most similar one), another shape or type, or an adapter with elements that are not finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        self.check(name, shape)?;
        let Some(adapter) = self.adapter.as_ref().filter(|adapter| adapter.changes(name)) else {
            return self.unchanged(name, shape);
        };
        let tensor = match adapter.replacement(name) {
            Some(replacement) => replacement.clone(),
            None => self.unchanged(name, shape)?,
        };
        let changed = adapter.apply(name, tensor.clone())?;
        self.release(&tensor);
        Ok(changed)
    }

    /// The tensor `name` of the base model.
    fn unchanged(&self, name: &str, shape: &[usize]) -> Result<HostTensor> {
        match &self.source {
            WeightSource::Files(files) => files.tensor(name),
            WeightSource::Synthetic { seed, norm_mean, .. } => {
                let is_scale = shape.len() == 1 && name.ends_with(".weight");
                let mean = if is_scale { *norm_mean } else { 0.0 };
                let bytes = Bytes::from(synthetic::tensor_bf16(name, shape, mean, *seed));
                Ok(HostTensor::new(DType::Bf16, shape.to_vec(), bytes)?)
            }
        }
    }

    /// Checks that there is a tensor `name` of `shape`, from the headers alone.
    ///
    /// # Errors
    /// As [`Weights::tensor`], except for the type.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let found = self.shape(name).ok_or_else(|| self.missing(name))?;
        if found == shape {
            return Ok(());
        }
        let stored = match &self.source {
            WeightSource::Files(files) => files.stored_name(name).unwrap_or(name),
            WeightSource::Synthetic { .. } => name,
        };
        let leftover = self.leftover(name).map(|leftover| format!("; {leftover}")).unwrap_or_default();
        Err(Error::input(
            self.origin(name),
            format!("tensor '{stored}' has shape {found:?}, config.json asks for {shape:?}{leftover}"),
        ))
    }

    /// Advises the system that the pages of `tensor` are not needed for now, which lowers the resident size.
    ///
    /// The tensor stays valid: its pages are read again when they are touched. A tensor that is not mapped from
    /// these files is ignored.
    pub fn release(&self, tensor: &HostTensor) {
        if let WeightSource::Files(files) = &self.source {
            files.release(tensor.bytes());
        }
    }

    /// A digest of every tensor's name, type, shape and contents; for synthetic weights, of preset, seed and generator. Includes the
    /// files of the adapter.
    ///
    /// The first call reads all weights, with all threads and without keeping their pages; later calls return the same text.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let base = match &self.source {
                WeightSource::Files(files) => files.fingerprint(),
                WeightSource::Synthetic { preset, seed, .. } => {
                    let recipe = format!(
                        "synthetic weights, generator {}, seed {seed}, preset {}\n{}",
                        synthetic::GENERATOR_VERSION,
                        preset.name,
                        preset.config_json()
                    );
                    blake3::hash(recipe.as_bytes()).to_hex().to_string()
                }
            };
            match &self.adapter {
                Some(adapter) => adapter.fingerprint_with(&base),
                None => base,
            }
        })
    }

    /// The start of an error about `name`: the file that contains it, or the model.
    pub fn origin(&self, name: &str) -> String {
        if let Some(adapter) = self.adapter.as_ref().filter(|adapter| adapter.replacement(name).is_some()) {
            return adapter.path().display().to_string();
        }
        match &self.source {
            WeightSource::Files(files) => files.path_of(name).display().to_string(),
            WeightSource::Synthetic { preset, .. } => format!("synthetic:{}", preset.name),
        }
    }

    fn missing(&self, name: &str) -> Error {
        if let Some(leftover) = self.leftover(name) {
            return Error::input(self.origin(name), format!("no tensor '{name}'; {leftover}"));
        }
        let names = self.names();
        let advice = match names.iter().min_by_key(|candidate| strsim::levenshtein(candidate, name)) {
            Some(nearest) => format!("the nearest of its {} tensors is '{nearest}'", names.len()),
            None => "it has no tensors".to_owned(),
        };
        Error::input(self.origin(name), format!("no tensor '{name}'; {advice}"))
    }

    /// The reason why the tensor `name` is not there as the family has it, if the tensors next to it tell.
    fn leftover(&self, name: &str) -> Option<String> {
        let WeightSource::Files(files) = &self.source else { return None };
        leftovers::explain(name, files.base_prefix(), |prefix| files.names_from(prefix).map(str::to_owned).collect())
    }
}
