//! LoRA adapters in the format of PEFT, merged into the weights of their base model when these are read.
//!
//! `config` reads the settings and refuses variants that are more than LoRA, `targets` has PEFT's rules for names of modules, `file`
//! and `names` read the tensors, `tensors` finds the tensor that each of them changes, and `merge` computes the changed tensor.

mod base_name;
mod config;
mod file;
pub(in crate::model) mod merge;
mod names;
mod targets;
mod tensors;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::OnceLock;

use super::spec::DecoderSpec;
use super::weights::Weights;
use crate::error::Result;
use config::AdapterConfig;
use file::AdapterFiles;
use tensors::{FoundChanges, find_changes};

pub(super) use base_name::is_same_model;
pub use merge::Adapter;

impl Adapter {
    /// Opens the adapter in the directory `dir` for the model of shape `spec` with `weights`: `adapter_config.json` and
    /// `adapter_model.safetensors`, of which the header is read. The files must not be changed while they are mapped.
    ///
    /// # Errors
    /// Files that are missing or damaged, a method other than LoRA, or tensors that do not fit the model or the configuration.
    pub fn open(dir: &Path, spec: &DecoderSpec, weights: &Weights) -> Result<Adapter> {
        let AdapterFiles { config_path, config, path, file, tensors } = AdapterFiles::open(dir)?;
        let settings = AdapterConfig::parse(&config, &config_path)?;
        let FoundChanges { changes, warnings } = find_changes(tensors, &path, &settings, spec, weights)?;
        let AdapterConfig { base_model, warnings: of_config, .. } = settings;
        let warnings = of_config.into_iter().chain(warnings).collect();
        Ok(Adapter { path, changes, config, file, base_model, warnings, fingerprint: OnceLock::new() })
    }
}
