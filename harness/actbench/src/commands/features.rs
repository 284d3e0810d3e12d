//! `actbench features`: tokens, masks, labels and pooled features of a run in one safetensors file.
//!
//! Another implementation can then process the same tokens and compare its features.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use actbench_kernels::DType;
use clap::Args;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::extraction_setup::ExtractionSetup;
use super::halved;
use super::settings::SettingsArgs;
use crate::atomic_file::{check_writable, write_whole};
use crate::case::{Method, Task};
use crate::error::{Error, Result};
use crate::workload::extract::{Extracted, eager_layers, lazy_layers};
use crate::workload::features::LayerFeatures;
use crate::workload::prepare::{LabeledTokens, Prepared};
use actbench_activations::plan::{Progress, ProgressSink};

/// Write tokens, masks, labels and pooled features of the layers of a task to a file.
///
/// Tensors: tokens (flat), offsets, mask, labels, is_train, layer_ids, pooled [n, l, h] in f32; training samples first.
/// Metadata: model, pool, dtype, extract_s.
#[derive(Args, Clone, Debug)]
#[command(before_help = "Examples:\n  \
    actbench features --out features.safetensors\n  \
    actbench features --samples 40 --dtype fp32 --method eager --out features.safetensors")]
pub struct FeaturesArgs {
    /// The work to extract features for.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Task that selects the layers
    #[arg(long, default_value = "sweep", value_name = "TASK")]
    pub tasks: Task,
    /// Extraction method
    #[arg(long, default_value = "lazy", value_name = "METHOD")]
    pub method: Method,
    /// Output file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or a file that cannot be written.
pub fn features(args: &FeaturesArgs) -> Result<()> {
    check_writable(&args.out, "--out", "the features")?;
    let setup = ExtractionSetup::load(&args.settings, args.tasks, args.method)?;
    let ExtractionSetup { config, prepared, layers, model, .. } = &setup;
    let sink: ProgressSink = Arc::new(|_: Progress| ());
    let start = std::time::Instant::now();
    let extracted = match args.method {
        Method::Eager => eager_layers(model, prepared, layers, setup.options(), &sink)?,
        Method::Lazy | Method::LazyDisk => lazy_layers(model, prepared, layers, setup.options(), &sink)?,
    };
    let extract_s = start.elapsed().as_secs_f64();
    halved::warn("features", extracted.stats.halvings);
    let metadata = HashMap::from([
        ("model".to_owned(), config.model.clone().unwrap_or_else(|| "embedded".to_owned())),
        ("pool".to_owned(), config.pool.to_string()),
        ("dtype".to_owned(), dtype_name(config.dtype).to_owned()),
        ("method".to_owned(), args.method.to_string()),
        ("extract_s".to_owned(), extract_s.to_string()),
    ]);
    write(args, prepared, &extracted, metadata)
}

/// The name of the flag value, which differs from the name in the kernels crate.
fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "fp32",
        DType::F16 => "fp16",
        DType::Bf16 => "bf16",
    }
}

fn write(
    args: &FeaturesArgs,
    prepared: &Prepared,
    extracted: &Extracted,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let sides: [&LabeledTokens; 2] = [&prepared.train, &prepared.test];
    let sequences = || sides.iter().flat_map(|side| &side.tokens.sequences);
    let n_samples = sequences().count();
    let tokens: Vec<i32> = sequences().flat_map(|sequence| sequence.ids.iter().map(|id| *id as i32)).collect();
    let mask: Vec<u8> = sequences().flat_map(|sequence| sequence.mask.iter().map(|masked| u8::from(*masked))).collect();
    let mut offsets = vec![0i64];
    offsets.extend(sequences().scan(0i64, |end, sequence| {
        *end += sequence.len() as i64;
        Some(*end)
    }));
    let labels: Vec<u8> = sides.iter().flat_map(|side| side.labels.iter().copied()).collect();
    let is_train: Vec<u8> =
        [1u8, 0].iter().zip(sides).flat_map(|(flag, side)| vec![*flag; side.labels.len()]).collect();
    let layer_ids: Vec<i32> = extracted.layers.iter().map(|features| features.layer as i32).collect();
    let hidden = extracted.layers.first().map_or(0, LayerFeatures::hidden_size);
    let mut pooled = vec![0.0f32; n_samples * layer_ids.len() * hidden];
    for (index, features) in extracted.layers.iter().enumerate() {
        let rows = [features.train()?.to_f32_vec(), features.test()?.to_f32_vec()].concat();
        for (sample, row) in rows.chunks_exact(hidden).enumerate() {
            let start = (sample * layer_ids.len() + index) * hidden;
            pooled[start..start + hidden].copy_from_slice(row);
        }
    }
    let tensors: [(&str, Dtype, Vec<usize>, &[u8]); 7] = [
        ("tokens", Dtype::I32, vec![tokens.len()], bytemuck::cast_slice(&tokens)),
        ("offsets", Dtype::I64, vec![offsets.len()], bytemuck::cast_slice(&offsets)),
        ("mask", Dtype::U8, vec![mask.len()], &mask),
        ("labels", Dtype::U8, vec![labels.len()], &labels),
        ("is_train", Dtype::U8, vec![is_train.len()], &is_train),
        ("layer_ids", Dtype::I32, vec![layer_ids.len()], bytemuck::cast_slice(&layer_ids)),
        ("pooled", Dtype::F32, vec![n_samples, layer_ids.len(), hidden], bytemuck::cast_slice(&pooled)),
    ];
    let write_error =
        |error: safetensors::SafeTensorError| Error::file(&args.out, format!("cannot be written: {error}"));
    let views = tensors
        .into_iter()
        .map(|(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes).map_err(write_error)?)))
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(write_error)?;
    write_whole(&args.out, &bytes)
}
