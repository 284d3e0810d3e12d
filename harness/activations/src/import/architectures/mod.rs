//! The architectures of GGUF files: each turns metadata into a `config.json` of Hugging Face's format, and has a table of its tensors.
//!
//! llama.cpp's converter, `convert_hf_to_gguf.py`, drops some settings and stores some tensors in another layout. A file here
//! has all of that for one architecture. Settings that the converter drops follow transformers' reader of GGUF files, or
//! llama.cpp where that reader has another result than the published model.

mod common;
mod gemma;
mod gemma2;
mod gemma3;
mod gpt2;
mod gptneox;
mod keys;
mod llama;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
pub mod table;
#[cfg(test)]
mod tests;

use actbench_kernels::DType;
use serde_json::Value as Json;

use super::gguf::GgufFile;
use crate::error::{Error, Result};
use table::{ModelExtents, TensorTable};

/// An architecture that can be imported.
pub struct GgufArchitecture {
    /// The value of `general.architecture`, and the prefix of its metadata.
    pub name: &'static str,
    /// Its tensors.
    pub tensors: TensorTable,
    /// Keys under the prefix that it reads, and that change the computation of other architectures.
    pub handled: &'static [&'static str],
    /// Reads its metadata.
    pub read: fn(&GgufFile) -> Result<ArchitectureModel>,
}

/// The metadata of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchitectureModel {
    /// The extents of the tensors.
    pub extents: ModelExtents,
    /// The content of `config.json`, except the type of the weights.
    pub config: Json,
    /// The factor of attention scores.
    pub score_scale: f64,
}

impl ArchitectureModel {
    /// The text of the `config.json` of a model with weights of the type `dtype`.
    pub fn config_json(&self, dtype: DType) -> String {
        let mut config = self.config.clone();
        config["torch_dtype"] = match dtype {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::Bf16 => "bfloat16",
        }
        .into();
        format!("{config:#}\n")
    }
}

/// All architectures, in the order of the list in errors.
static ARCHITECTURES: [&GgufArchitecture; 9] = [
    &llama::ARCHITECTURE,
    &qwen2::ARCHITECTURE,
    &qwen3::ARCHITECTURE,
    &gemma::ARCHITECTURE,
    &gemma2::ARCHITECTURE,
    &gemma3::ARCHITECTURE,
    &phi3::ARCHITECTURE,
    &gptneox::ARCHITECTURE,
    &gpt2::ARCHITECTURE,
];

/// The architecture of a file.
///
/// # Errors
/// The file names none, or one that cannot be imported.
pub fn find(gguf: &GgufFile) -> Result<&'static GgufArchitecture> {
    let name = gguf.string("general.architecture")?;
    ARCHITECTURES.iter().copied().find(|architecture| architecture.name == name).ok_or_else(|| {
        let known = ARCHITECTURES.map(|architecture| architecture.name).join(" ");
        let what = format!("is a model of architecture '{name}'; supported are: {known}");
        Error::file(gguf.path(), what)
    })
}
