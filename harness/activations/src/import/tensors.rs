//! Maps the tensors of a GGUF model of architecture `llama` to Hugging Face's names, and writes them as safetensors.
//!
//! llama.cpp permutes the rows of the query and key projections when it writes a GGUF file, because it rotates adjacent
//! elements of a head, while Hugging Face rotates element `j` with element `j + head_dim / 2`. This module reverses the
//! permutation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use actbench_kernels::DType;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo as SafeTensorInfo};

use super::config::LlamaMetadata;
use super::gguf::{GgmlType, GgufFile, GgufTensor};
use crate::error::{Error, Result};

/// Bytes of converted weights in memory at a time while tensors are written.
const CHUNK_BYTES: usize = 16 << 20;

/// Called with the number of tensors written so far and the total number.
pub type ImportProgress<'a> = dyn FnMut(usize, usize) + 'a;

/// A tensor of the file with Hugging Face's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTensor {
    /// The tensor in the GGUF file.
    pub source: GgufTensor,
    /// The name in the model directory, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// The number of heads, if llama.cpp has permuted the rows of each head.
    pub permuted_heads: Option<usize>,
    /// The type in the model directory; every value of the source is exact in it.
    pub dtype: DType,
}

impl PlannedTensor {
    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.source.shape.iter().product()
    }

    /// Bytes in the model directory.
    pub fn n_bytes(&self) -> usize {
        self.dtype.size() * self.n_elements()
    }

    /// Elements of a row.
    fn columns(&self) -> usize {
        self.source.shape.last().copied().unwrap_or(1)
    }

    /// The row of the GGUF tensor that becomes row `row`.
    ///
    /// In a head of `d` rows, llama.cpp stores row `t d/2 + j` (`t` in 0..2) as row `2 j + t`.
    fn source_row(&self, row: usize) -> usize {
        let Some(heads) = self.permuted_heads else {
            return row;
        };
        let width = self.n_elements() / self.row_elements() / heads;
        let (head, within) = (row / width, row % width);
        let (half, pair) = (within / (width / 2), within % (width / 2));
        head * width + 2 * pair + half
    }

    /// Elements that one step of the permutation moves: a row of a matrix, or one element of a bias.
    fn row_elements(&self) -> usize {
        if self.source.shape.len() == 1 && self.permuted_heads.is_some() { 1 } else { self.columns() }
    }
}

/// Lists the tensors to write: in file order, but those of four bytes first, so that all are aligned.
///
/// # Errors
/// A tensor that is missing or unknown, or whose shape contradicts the configuration.
pub fn plan(gguf: &GgufFile, config: &LlamaMetadata) -> Result<Vec<PlannedTensor>> {
    let mut planned = Vec::with_capacity(gguf.tensors().len());
    for source in gguf.tensors().iter().filter(|tensor| tensor.name != "rope_freqs.weight") {
        let name = hugging_face_name(&source.name).ok_or_else(|| {
            Error::file(gguf.path(), format!("has a tensor '{}', which is not part of a Llama model", source.name))
        })?;
        let permuted_heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => Some(config.shape.n_heads),
            Some("k_proj") => Some(config.shape.n_kv_heads),
            _ => None,
        };
        if permuted_heads.is_some() && source.shape.len() == 1 && source.kind.block_elements() > 1 {
            let what =
                format!("tensor '{}' is a bias stored as {}, which is not supported", source.name, source.kind.name());
            return Err(Error::file(gguf.path(), what));
        }
        let dtype = lossless_dtype(gguf, source);
        planned.push(PlannedTensor { source: source.clone(), name, permuted_heads, dtype });
    }
    check_complete(gguf, config, &planned)?;
    planned.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.size()));
    Ok(planned)
}

/// The type that holds every dequantized value of a tensor: its own, or single precision for a quantized one, whose
/// values are products of a half-precision scale and an integer. Single-precision values that are all exact in bfloat16,
/// such as the norms of most files, become bfloat16.
fn lossless_dtype(gguf: &GgufFile, source: &GgufTensor) -> DType {
    match source.kind {
        GgmlType::F16 => DType::F16,
        GgmlType::Bf16 => DType::Bf16,
        // bfloat16 is the upper half of single precision, and the values are little-endian.
        GgmlType::F32 if gguf.blocks(source).par_chunks_exact(4).all(|value| value[0] == 0 && value[1] == 0) => {
            DType::Bf16
        }
        _ => DType::F32,
    }
}

/// The type of most weights.
pub fn dtype_of(planned: &[PlannedTensor]) -> DType {
    let bytes =
        |dtype: DType| planned.iter().filter(|tensor| tensor.dtype == dtype).map(PlannedTensor::n_elements).sum();
    [DType::F32, DType::F16, DType::Bf16]
        .into_iter()
        .max_by_key(|&dtype| -> usize { bytes(dtype) })
        .unwrap_or(DType::F32)
}

/// Hugging Face's name of ggml's tensor `name`.
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

/// Checks that the file has exactly the tensors of the configuration, with their shapes.
fn check_complete(gguf: &GgufFile, config: &LlamaMetadata, planned: &[PlannedTensor]) -> Result<()> {
    let mut required: BTreeMap<String, Vec<usize>> =
        config.shape.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
    let biased: Vec<(String, Vec<usize>)> = required
        .iter()
        .filter(|(name, _)| has_bias(name, config))
        .map(|(name, shape)| (name.replace(".weight", ".bias"), shape[..1].to_vec()))
        .collect();
    required.extend(biased);
    for tensor in planned {
        let Some(shape) = required.remove(&tensor.name) else {
            let what = format!("has a tensor '{}' that its metadata does not describe", tensor.source.name);
            return Err(Error::file(gguf.path(), what));
        };
        if shape != tensor.source.shape {
            return Err(Error::file(
                gguf.path(),
                format!(
                    "tensor '{}' has shape {:?}, its metadata requires {shape:?}",
                    tensor.source.name, tensor.source.shape
                ),
            ));
        }
    }
    match required.keys().next() {
        Some(name) => Err(Error::file(gguf.path(), format!("has no tensor for '{name}'"))),
        None => Ok(()),
    }
}

fn has_bias(name: &str, config: &LlamaMetadata) -> bool {
    (config.attention_bias && name.contains(".self_attn.")) || (config.mlp_bias && name.contains(".mlp."))
}

/// Writes the planned tensors to a safetensors file at `path`, in chunks of 16 MiB.
///
/// # Errors
/// A weight that is not finite, or an error of the file system.
pub fn write_safetensors(
    gguf: &GgufFile,
    planned: &[PlannedTensor],
    path: &Path,
    progress: &mut ImportProgress<'_>,
) -> Result<()> {
    let file = File::create_new(path).map_err(Error::io("create", path))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let header = safetensors_header(planned)
        .map_err(|error| Error::internal(format!("the safetensors header of an import is invalid: {error}")))?;
    writer.write_all(&header).map_err(Error::io("write", path))?;
    for (done, tensor) in planned.iter().enumerate() {
        progress(done, planned.len());
        write_tensor(gguf, tensor, &mut |bytes| writer.write_all(bytes).map_err(Error::io("write", path)))?;
    }
    progress(planned.len(), planned.len());
    let file = writer.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(Error::io("write", path))
}

/// The length field and the header of a safetensors file, padded to eight bytes as the format requires.
fn safetensors_header(planned: &[PlannedTensor]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut offset = 0;
    let infos = planned.iter().map(|tensor| {
        let begin = offset;
        offset += tensor.n_bytes();
        let dtype = match tensor.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
        };
        let info = SafeTensorInfo { dtype, shape: tensor.source.shape.clone(), data_offsets: (begin, offset) };
        (tensor.name.clone(), info)
    });
    let infos = infos.collect();
    // Hugging Face's readers require the entry `format`.
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let mut json = serde_json::to_vec(&Metadata::new(Some(format), infos)?)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

/// Passes the bytes of a tensor to `sink`, in order and chunk by chunk.
fn write_tensor(gguf: &GgufFile, tensor: &PlannedTensor, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let columns = tensor.row_elements();
    let rows = tensor.n_elements() / columns;
    let blocks = gguf.blocks(&tensor.source);
    let stored_row = blocks.len() / rows;
    let row_bytes = tensor.dtype.size() * columns;
    let rows_per_chunk = (CHUNK_BYTES / row_bytes).max(1);
    let mut chunk = vec![0u8; row_bytes * rows_per_chunk.min(rows)];
    for first in (0..rows).step_by(rows_per_chunk) {
        let bytes = &mut chunk[..row_bytes * rows_per_chunk.min(rows - first)];
        bytes.par_chunks_exact_mut(row_bytes).enumerate().try_for_each_init(
            || vec![0f32; columns],
            |values, (index, out)| {
                let start = tensor.source_row(first + index) * stored_row;
                tensor.source.kind.dequantize(&blocks[start..start + stored_row], values);
                tensor.dtype.narrow(values, out);
                check_finite(gguf, tensor, values)
            },
        )?;
        sink(bytes)?;
    }
    Ok(())
}

/// Rejects an infinity or a NaN in the weights, which shows that the file is damaged.
fn check_finite(gguf: &GgufFile, tensor: &PlannedTensor, values: &[f32]) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let what = format!("tensor '{}' has weights that are not finite: the file is damaged", tensor.source.name);
    Err(Error::file(gguf.path(), what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_translated_unknown_are_not() {
        assert_eq!(hugging_face_name("blk.17.attn_k.weight").unwrap(), "model.layers.17.self_attn.k_proj.weight");
        assert_eq!(
            hugging_face_name("blk.0.ffn_norm.weight").unwrap(),
            "model.layers.0.post_attention_layernorm.weight"
        );
        assert_eq!(hugging_face_name("output.weight").unwrap(), "lm_head.weight");
        for unknown in ["blk.0.ffn_gate_inp.weight", "blk.x.attn_k.weight", "blk.0", "blk.0.attn_norm.bias", ""] {
            assert_eq!(hugging_face_name(unknown), None, "{unknown}");
        }
    }
}
