//! Which tensors a GGUF model of architecture `llama` has under which names, and how they are written as safetensors.
//!
//! llama.cpp reorders the rows of the query and key projections when it makes a GGUF file, because it rotates
//! neighbouring elements of a head where Hugging Face rotates element `j` with element `j + head_dim / 2`. The rows
//! are put back in order here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use actbench_kernels::DType;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo as SafeTensorInfo};

use super::Progress;
use super::config::ModelConfig;
use super::gguf::{GgufFile, TensorInfo};
use crate::error::{Error, Result};

/// Bytes of bfloat16 that are in memory at once while tensors are written.
const CHUNK_BYTES: usize = 16 << 20;

/// A tensor of the file under its name in Hugging Face's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Where it comes from.
    pub source: TensorInfo,
    /// Its name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Heads whose rows llama.cpp has reordered.
    pub permuted_heads: Option<usize>,
}

impl PlannedTensor {
    /// Its number of elements.
    pub fn n_elements(&self) -> usize {
        self.source.shape.iter().product()
    }

    /// Length of a row.
    fn columns(&self) -> usize {
        self.source.shape.last().copied().unwrap_or(1)
    }

    /// The row of the GGUF tensor that becomes row `row`.
    ///
    /// Of a head of `d` rows, llama.cpp stores row `t d/2 + j` (`t` in 0..2) as row `2 j + t`.
    fn source_row(&self, row: usize) -> usize {
        let Some(heads) = self.permuted_heads else {
            return row;
        };
        let width = self.n_elements() / self.row_elements() / heads;
        let (head, within) = (row / width, row % width);
        let (half, pair) = (within / (width / 2), within % (width / 2));
        head * width + 2 * pair + half
    }

    /// Elements that move together when rows are reordered: a row of a matrix, one element of a bias.
    fn row_elements(&self) -> usize {
        if self.source.shape.len() == 1 && self.permuted_heads.is_some() { 1 } else { self.columns() }
    }
}

/// Lists the tensors to write, in the order of the file.
///
/// # Errors
/// A tensor that is missing, is not known, or has another shape than the configuration gives it.
pub fn plan(gguf: &GgufFile, config: &ModelConfig) -> Result<Vec<PlannedTensor>> {
    let mut planned = Vec::with_capacity(gguf.tensors().len());
    for source in gguf.tensors().iter().filter(|tensor| tensor.name != "rope_freqs.weight") {
        let name = hugging_face_name(&source.name).ok_or_else(|| {
            Error::file(gguf.path(), format!("has a tensor '{}', which no Llama model has", source.name))
        })?;
        let permuted_heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => Some(config.shape.n_heads),
            Some("k_proj") => Some(config.shape.n_kv_heads),
            _ => None,
        };
        if permuted_heads.is_some() && source.shape.len() == 1 && source.kind.block_elements() > 1 {
            let what = format!("tensor '{}' is a bias stored as {}", source.name, source.kind.name());
            return Err(Error::file(gguf.path(), what));
        }
        planned.push(PlannedTensor { source: source.clone(), name, permuted_heads });
    }
    check_complete(gguf, config, &planned)?;
    Ok(planned)
}

/// The name that Hugging Face gives to ggml's tensor `name`.
fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (module, part) = rest.split_once('.')?;
    let module = match (module, part) {
        ("attn_norm", "weight") => "input_layernorm",
        ("ffn_norm", "weight") => "post_attention_layernorm",
        ("attn_q", "weight" | "bias") => "self_attn.q_proj",
        ("attn_k", "weight" | "bias") => "self_attn.k_proj",
        ("attn_v", "weight" | "bias") => "self_attn.v_proj",
        ("attn_output", "weight" | "bias") => "self_attn.o_proj",
        ("ffn_gate", "weight" | "bias") => "mlp.gate_proj",
        ("ffn_up", "weight" | "bias") => "mlp.up_proj",
        ("ffn_down", "weight" | "bias") => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{module}.{part}"))
}

/// Every tensor that the configuration asks for is there with its shape, and no other.
fn check_complete(gguf: &GgufFile, config: &ModelConfig, planned: &[PlannedTensor]) -> Result<()> {
    let mut wanted: BTreeMap<String, Vec<usize>> =
        config.shape.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    let biased: Vec<(String, Vec<usize>)> = wanted
        .iter()
        .filter(|(name, _)| has_bias(name, config))
        .map(|(name, shape)| (name.replace(".weight", ".bias"), shape[..1].to_vec()))
        .collect();
    wanted.extend(biased);
    for tensor in planned {
        let Some(shape) = wanted.remove(&tensor.name) else {
            let what = format!("has a tensor '{}' beyond what its metadata describes", tensor.source.name);
            return Err(Error::file(gguf.path(), what));
        };
        if shape != tensor.source.shape {
            return Err(Error::file(
                gguf.path(),
                format!(
                    "tensor '{}' has shape {:?}, its metadata asks for {shape:?}",
                    tensor.source.name, tensor.source.shape
                ),
            ));
        }
    }
    match wanted.keys().next() {
        Some(name) => Err(Error::file(gguf.path(), format!("has no tensor for '{name}'"))),
        None => Ok(()),
    }
}

fn has_bias(name: &str, config: &ModelConfig) -> bool {
    (config.attention_bias && name.contains(".self_attn.")) || (config.mlp_bias && name.contains(".mlp."))
}

/// Writes the planned tensors as bfloat16 into a safetensors file at `path`, a few megabytes at a time.
///
/// # Errors
/// A weight that is not finite, or a file that cannot be written.
pub fn write_safetensors(
    gguf: &GgufFile,
    planned: &[PlannedTensor],
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<()> {
    let file = File::create_new(path).map_err(Error::io("create", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let header = safetensors_header(planned).map_err(|error| Error::file(gguf.path(), error.to_string()))?;
    writer.write_all(&header).map_err(Error::io("write", path))?;
    for (done, tensor) in planned.iter().enumerate() {
        progress(done, planned.len());
        write_tensor(gguf, tensor, &mut |bytes| writer.write_all(bytes).map_err(Error::io("write", path)))?;
    }
    progress(planned.len(), planned.len());
    let file = writer.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(Error::io("write", path))
}

/// The length field and the header of a safetensors file, padded to eight bytes as the format asks.
fn safetensors_header(planned: &[PlannedTensor]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut at = 0;
    let infos = planned.iter().map(|tensor| {
        let begin = at;
        at += 2 * tensor.n_elements();
        let info = SafeTensorInfo { dtype: Dtype::BF16, shape: tensor.source.shape.clone(), data_offsets: (begin, at) };
        (tensor.name.clone(), info)
    });
    let infos = infos.collect();
    // Hugging Face's readers want to know which framework's layout this is.
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let mut json = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

/// Hands out a tensor's bfloat16 bytes in order, chunk by chunk.
fn write_tensor(gguf: &GgufFile, tensor: &PlannedTensor, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let columns = tensor.row_elements();
    let rows = tensor.n_elements() / columns;
    let blocks = gguf.blocks(&tensor.source);
    let stored_row = blocks.len() / rows;
    let rows_per_chunk = (CHUNK_BYTES / (2 * columns)).max(1);
    let mut chunk = vec![0u8; 2 * columns * rows_per_chunk.min(rows)];
    for first in (0..rows).step_by(rows_per_chunk) {
        let bytes = &mut chunk[..2 * columns * rows_per_chunk.min(rows - first)];
        bytes.par_chunks_exact_mut(2 * columns).enumerate().try_for_each_init(
            || vec![0f32; columns],
            |values, (index, out)| {
                let from = tensor.source_row(first + index) * stored_row;
                tensor.source.kind.dequantise(&blocks[from..from + stored_row], values);
                DType::Bf16.narrow(values, out);
                check_finite(gguf, tensor, out)
            },
        )?;
        sink(bytes)?;
    }
    Ok(())
}

/// An infinity or a NaN in weights is a damaged file: no model computes with it.
fn check_finite(gguf: &GgufFile, tensor: &PlannedTensor, bytes: &[u8]) -> Result<()> {
    // All exponent bits set, in the upper byte and the top bit of the lower one.
    let finite = bytes.chunks_exact(2).all(|pair| pair[1] & 0x7f != 0x7f || pair[0] & 0x80 == 0);
    if finite {
        return Ok(());
    }
    let what =
        format!("tensor '{}' has weights that are not finite in bfloat16: the file is damaged", tensor.source.name);
    Err(Error::file(gguf.path(), what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_and_strange_ones_are_not() {
        assert_eq!(hugging_face_name("blk.17.attn_k.weight").unwrap(), "model.layers.17.self_attn.k_proj.weight");
        assert_eq!(
            hugging_face_name("blk.0.ffn_norm.weight").unwrap(),
            "model.layers.0.post_attention_layernorm.weight"
        );
        assert_eq!(hugging_face_name("output.weight").unwrap(), "lm_head.weight");
        for strange in ["blk.0.ffn_gate_inp.weight", "blk.x.attn_k.weight", "blk.0", "blk.0.attn_norm.bias", ""] {
            assert_eq!(hugging_face_name(strange), None, "{strange}");
        }
    }
}
