//! `actbench features`: tokens, masks, labels and pooled features of a run in one safetensors file.
//!
//! Another implementation can then process the same tokens and compare its features.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::extraction_setup::{ExtractionSetup, LayerSelectionArgs};
use super::halved;
use super::settings::ExtractionArgs;
use crate::atomic_file::write_whole;
use crate::case::{LAYER_NUMBERING, Method};
use crate::error::{Error, Result};
use crate::own_output::{FEATURES_FORMAT, OutputFormat, check_own_output};
use crate::workload::extract::{Extracted, eager_layers, lazy_layers};
use crate::workload::features::LayerFeatures;
use crate::workload::prepare::LabeledTokens;
use actbench_activations::plan::cache_file::SampleTable;
use pairgate::stderr_line;

/// Write tokens, masks, labels and pooled features of the layers of a task to a file.
///
/// Tensors: tokens (flat), offsets, mask, rows (the index of each sample in the data set, from 0), labels, is_train,
/// layer_ids, pooled [n, l, h] in f32; training samples first. Metadata: format, method, extract_s, layer_numbering, and the
/// settings: model, dataset, data_digest, mask, pool, dtype, samples, train_frac, seed, and adapter if there is one.
/// scripts/actbench_files.py reads the file in Python.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench features --out features.safetensors\n  \
    actbench features --model ./smollm2 --dataset data.jsonl --layer 12 --out features.safetensors\n  \
    actbench features --samples 40 --dtype fp32 --method eager --out features.safetensors",
    after_help = "Exit status: 0 success, 1 out of memory, or the file cannot be written, 2 bad usage or input,\n\
    130 interrupted."
)]
pub struct FeaturesArgs {
    /// The work to extract features for.
    #[command(flatten)]
    pub extraction: ExtractionArgs,
    /// The layers.
    #[command(flatten)]
    pub selection: LayerSelectionArgs,
    /// Extraction method: eager or lazy
    #[arg(long, default_value = "lazy", value_name = "METHOD", value_parser = parse_method)]
    pub method: Method,
    /// Output file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// A method that keeps features in memory.
fn parse_method(text: &str) -> Result<Method, String> {
    match Method::from_str(text, false) {
        Ok(Method::LazyDisk) => Err("lazy-disk writes features to a cache file: use `actbench cache`".to_owned()),
        Ok(method) => Ok(method),
        Err(_) => Err("use eager or lazy".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or a file that cannot be written.
pub fn features(args: &FeaturesArgs) -> Result<()> {
    check_own_output(&args.out, "--out", &OutputFormat::FEATURES)?;
    let setup = ExtractionSetup::load(&args.extraction, &args.selection, args.method, args.quiet)?;
    let ExtractionSetup { prepared, layers, model, .. } = &setup;
    let sink = setup.progress.sink();
    let start = std::time::Instant::now();
    let extracted = match args.method {
        Method::Eager => eager_layers(model, prepared, layers, setup.options(), &sink)?,
        Method::Lazy | Method::LazyDisk => lazy_layers(model, prepared, layers, setup.options(), &sink)?,
    };
    let extract_s = start.elapsed().as_secs_f64();
    setup.progress.finish();
    halved::warn("features", extracted.stats.halvings);
    let mut metadata = HashMap::from([
        ("format".to_owned(), FEATURES_FORMAT.to_owned()),
        ("layer_numbering".to_owned(), LAYER_NUMBERING.to_owned()),
        ("method".to_owned(), args.method.to_string()),
        ("extract_s".to_owned(), extract_s.to_string()),
    ]);
    metadata.extend(setup.settings().into_iter().map(|(name, value)| (name.to_owned(), value)));
    write(args, &setup, &extracted, metadata)?;
    // Standard error, as of other commands whose output may be `/dev/stdout`.
    stderr_line!(
        "wrote {}: {} rows x {} x {}",
        args.out.display(),
        prepared.train.labels.len() + prepared.test.labels.len(),
        counted(extracted.layers.len(), "layer"),
        extracted.layers.first().map_or(0, LayerFeatures::hidden_size)
    );
    Ok(())
}

/// `1 layer`, `2 layers`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn write(
    args: &FeaturesArgs,
    setup: &ExtractionSetup,
    extracted: &Extracted,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let sides: [&LabeledTokens; 2] = [&setup.prepared.train, &setup.prepared.test];
    let sequences = || sides.iter().flat_map(|side| &side.tokens.sequences);
    let n_samples = sequences().count();
    let tokens: Vec<i32> = sequences().flat_map(|sequence| sequence.ids.iter().map(|id| *id as i32)).collect();
    let mask: Vec<u8> = sequences().flat_map(|sequence| sequence.mask.iter().map(|masked| u8::from(*masked))).collect();
    let mut offsets = vec![0i64];
    offsets.extend(sequences().scan(0i64, |end, sequence| {
        *end += sequence.len() as i64;
        Some(*end)
    }));
    let SampleTable { rows, labels, is_train, .. } = setup.sample_table();
    let layer_ids: Vec<i32> = extracted.layers.iter().map(|features| features.layer as i32).collect();
    let hidden = extracted.layers.first().map_or(0, LayerFeatures::hidden_size);
    let mut pooled = vec![0.0f32; n_samples * layer_ids.len() * hidden];
    for (index, features) in extracted.layers.iter().enumerate() {
        let vectors = [features.train()?.to_f32_vec(), features.test()?.to_f32_vec()].concat();
        for (sample, vector) in vectors.chunks_exact(hidden).enumerate() {
            let start = (sample * layer_ids.len() + index) * hidden;
            pooled[start..start + hidden].copy_from_slice(vector);
        }
    }
    let tensors: [(&str, Dtype, Vec<usize>, &[u8]); 8] = [
        ("tokens", Dtype::I32, vec![tokens.len()], bytemuck::cast_slice(&tokens)),
        ("offsets", Dtype::I64, vec![offsets.len()], bytemuck::cast_slice(&offsets)),
        ("mask", Dtype::U8, vec![mask.len()], &mask),
        ("rows", Dtype::I64, vec![rows.len()], bytemuck::cast_slice(&rows)),
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
