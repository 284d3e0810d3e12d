//! Maps the tensors of a GGUF model to Hugging Face's names and layouts, and writes them as safetensors.
//!
//! llama.cpp's converter stores some tensors in another layout ([`TensorLayout`]); this module reverses it. For example, it
//! permutes the rows of a Llama's query and key projections, because llama.cpp rotates adjacent elements of a head, while
//! Hugging Face rotates element `j` with element `j + head_dim / 2`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use actbench_kernels::DType;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo as SafeTensorInfo};

use super::architectures::table::{ModelExtents, TensorLayout, TensorTable};
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
    /// How the file stores it.
    pub layout: TensorLayout,
    /// The number of heads whose rows the layout moves.
    pub heads: usize,
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

    /// Extents in the model directory, outermost first.
    fn shape(&self) -> Vec<usize> {
        let mut shape = self.source.shape.clone();
        if self.layout == TensorLayout::Transposed {
            shape.reverse();
        }
        shape
    }

    /// The row of the GGUF tensor that becomes row `row`.
    fn source_row(&self, row: usize) -> usize {
        let rows = self.n_elements() / self.row_elements();
        match self.layout {
            TensorLayout::Same | TensorLayout::PlusOne | TensorLayout::Transposed => row,
            // In a head of `d` rows, llama.cpp stores row `t d/2 + j` (`t` in 0..2) as row `2 j + t`.
            TensorLayout::QueryPairs | TensorLayout::KeyPairs => {
                let width = rows / self.heads;
                let (head, within) = (row / width, row % width);
                let (half, pair) = (within / (width / 2), within % (width / 2));
                head * width + 2 * pair + half
            }
            // Row `(3 h + p) d + j` (part `p` of head `h`) is stored as row `(p heads + h) d + j`.
            TensorLayout::PartsByHead => {
                let width = rows / (3 * self.heads);
                let (slot, within) = (row / width, row % width);
                let (head, part) = (slot / 3, slot % 3);
                (part * self.heads + head) * width + within
            }
        }
    }

    /// Elements that one step of the conversion writes: a row of a matrix, or one element of a bias whose rows move.
    fn row_elements(&self) -> usize {
        if self.source.shape.len() == 1 && self.layout.moves_rows() {
            1
        } else {
            self.shape().last().copied().unwrap_or(1)
        }
    }
}

/// Lists the tensors to write: in file order, but those of four bytes first, so that all are aligned.
///
/// # Errors
/// A tensor that is missing or unknown, or whose shape contradicts the metadata.
pub fn plan(gguf: &GgufFile, table: &TensorTable, extents: &ModelExtents) -> Result<Vec<PlannedTensor>> {
    let mut required = table.shapes(extents);
    let mut planned = Vec::with_capacity(gguf.tensors().len());
    for source in gguf.tensors().iter().filter(|tensor| !table.is_of_config(&tensor.name)) {
        let fail = |what: String| Err(Error::file(gguf.path(), what));
        let ggml = &source.name;
        let Some((name, layout)) = table.find(ggml) else {
            return fail(format!("has a tensor '{ggml}', which is not part of a {} model", table.title));
        };
        if layout.moves_rows() && source.shape.len() == 1 && source.kind.block_elements() > 1 {
            let kind = source.kind.name();
            return fail(format!("tensor '{ggml}' is a bias stored as {kind}, which is not supported"));
        }
        match required.remove(&name) {
            None => return fail(format!("has a tensor '{ggml}' that its metadata does not describe")),
            Some(shape) if shape != source.shape => {
                let found = &source.shape;
                return fail(format!("tensor '{ggml}' has shape {found:?}, its metadata requires {shape:?}"));
            }
            Some(_) => {}
        }
        let heads = if layout == TensorLayout::KeyPairs { extents.n_kv_heads } else { extents.n_heads };
        let dtype = lossless_dtype(gguf, source, layout);
        planned.push(PlannedTensor { source: source.clone(), name, layout, heads, dtype });
    }
    if let Some(name) = required.keys().next() {
        return Err(Error::file(gguf.path(), format!("has no tensor for '{name}'")));
    }
    planned.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.size()));
    Ok(planned)
}

/// The type that holds every converted value of a tensor: its own, or single precision for a quantized one, whose
/// values are products of a half-precision scale and an integer. Single-precision values that are all exact in bfloat16,
/// such as the norms of most files, become bfloat16.
fn lossless_dtype(gguf: &GgufFile, source: &GgufTensor, layout: TensorLayout) -> DType {
    /// bfloat16 is the upper half of single precision, and the values are little-endian.
    fn is_bf16(value: &[u8]) -> bool {
        value[0] == 0 && value[1] == 0
    }
    match source.kind {
        // The difference to 1 can have more digits than the stored value.
        _ if layout == TensorLayout::PlusOne => {
            let exact = stored_values(gguf, source).iter().all(|value| is_bf16(&(value - 1.0).to_le_bytes()));
            if exact { DType::Bf16 } else { DType::F32 }
        }
        GgmlType::F16 => DType::F16,
        GgmlType::Bf16 => DType::Bf16,
        GgmlType::F32 if gguf.blocks(source).par_chunks_exact(4).all(is_bf16) => DType::Bf16,
        _ => DType::F32,
    }
}

/// All values of a tensor, as the file stores them.
fn stored_values(gguf: &GgufFile, source: &GgufTensor) -> Vec<f32> {
    let mut values = vec![0.0; source.shape.iter().product()];
    source.kind.dequantize(gguf.blocks(source), &mut values);
    values
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
        let info = SafeTensorInfo { dtype, shape: tensor.shape(), data_offsets: (begin, offset) };
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
    // A column has parts of all stored rows, so those of a transposed matrix are converted at once.
    let transposed = (tensor.layout == TensorLayout::Transposed).then(|| stored_values(gguf, &tensor.source));
    let stored_row = blocks.len() / rows;
    let row_bytes = tensor.dtype.size() * columns;
    let rows_per_chunk = (CHUNK_BYTES / row_bytes).max(1);
    let mut chunk = vec![0u8; row_bytes * rows_per_chunk.min(rows)];
    for first in (0..rows).step_by(rows_per_chunk) {
        let bytes = &mut chunk[..row_bytes * rows_per_chunk.min(rows - first)];
        bytes.par_chunks_exact_mut(row_bytes).enumerate().try_for_each_init(
            || vec![0f32; columns],
            |values, (index, out)| {
                if let Some(transposed) = &transposed {
                    let column = transposed.iter().skip(first + index).step_by(rows);
                    values.iter_mut().zip(column).for_each(|(value, stored)| *value = *stored);
                } else {
                    let start = tensor.source_row(first + index) * stored_row;
                    tensor.source.kind.dequantize(&blocks[start..start + stored_row], values);
                }
                if tensor.layout == TensorLayout::PlusOne {
                    values.iter_mut().for_each(|value| *value -= 1.0);
                }
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
