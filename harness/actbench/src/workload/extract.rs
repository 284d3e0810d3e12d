//! Features of both sides of the split, extracted eagerly or lazily.
//!
//! Lazy runs both sides in one pass, in which they share prefixes and batches. Eager runs one side after the other: it stands
//! for extraction without a plan, and its full tensors are those of a side.

use std::path::Path;
use std::sync::Arc;

use actbench_kernels::PoolMethod;

use super::features::LayerFeatures;
use super::prepare::{LabeledTokens, Prepared};
use crate::error::{Error, Result};
use actbench_activations::eager;
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{Acts, Axis, ExtractionStats, Progress, ProgressSink, Rules};
use actbench_activations::tokens::JoinedTokens;

/// Options of an extraction.
#[derive(Clone, Copy, Debug)]
pub struct Extraction<'a> {
    /// Samples of one batch.
    pub batch_size: usize,
    /// Lazy on a GPU may take larger batches than that, as large as keep it busy.
    pub fill_batches: bool,
    /// Pooling of the masked positions into one vector.
    pub pool: PoolMethod,
    /// Rules that the optimizer may apply; lazy only.
    pub rules: Rules,
    /// A directory for the cache file: lazy then writes features to disk and reads them from there.
    pub cache_directory: Option<&'a Path>,
}

/// Extracted features and their cost.
pub struct Extracted {
    /// One entry per layer, in the requested order.
    pub layers: Vec<LayerFeatures>,
    /// Requested and computed tokens of both sides.
    pub stats: ExtractionStats,
    /// Bytes of the cache file; 0 without one.
    pub cache_bytes: u64,
}

/// Extracts one layer eagerly: the full output of each batch is downloaded and pooled on the host.
///
/// # Errors
/// As [`eager::extract_layer_pooled`].
pub fn eager_layer(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layer: usize,
    options: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let side = |side: &LabeledTokens, sink: &ProgressSink| {
        eager::extract_layer_pooled(&**model, &side.tokens, layer, options.batch_size, options.pool, Some(sink))
    };
    let sinks = two_sided(prepared, progress);
    let (train, test) = (side(&prepared.train, &sinks[0])?, side(&prepared.test, &sinks[1])?);
    let (train_acts, test_acts) = (Acts::from_tensor(train.tensor), Acts::from_tensor(test.tensor));
    let layers = vec![LayerFeatures::new(layer, train_acts, test_acts, prepared)?];
    Ok(Extracted { layers, stats: sum(train.stats, test.stats), cache_bytes: 0 })
}

/// Extracts several layers eagerly: the full tensors of both sides are materialized, then selected and pooled.
///
/// # Errors
/// As [`eager::extract_full`].
pub fn eager_layers(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    options: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let side = |side: &LabeledTokens, sink: &ProgressSink| {
        eager::extract_full(&**model, &side.tokens, layers, options.batch_size, Some(sink))
    };
    let sinks = two_sided(prepared, progress);
    let (train, test) = (side(&prepared.train, &sinks[0])?, side(&prepared.test, &sinks[1])?);
    let pooled = layers
        .iter()
        .map(|&layer| {
            let (train, test) =
                (train.tensor.pool_layer(layer, options.pool)?, test.tensor.pool_layer(layer, options.pool)?);
            LayerFeatures::new(layer, Acts::from_tensor(train), Acts::from_tensor(test), prepared)
        })
        .collect::<Result<_>>()?;
    Ok(Extracted { layers: pooled, stats: sum(train.stats, test.stats), cache_bytes: 0 })
}

/// Extracts layers lazily: one pooled plan over both sides, run once, in memory or through a cache file.
///
/// # Errors
/// Building or running the plan fails, or writing or reading its cache file.
pub fn lazy_layers(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    options: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let plan = plan(model, prepared.all_tokens(), layers, options)?.with_progress(progress.clone());
    let path = options.cache_directory.map(|directory| directory.join("features.safetensors"));
    let cached = plan.cache(path.as_deref())?;
    let cache_bytes = match path {
        Some(path) => std::fs::metadata(&path).map_err(Error::io("read", &path))?.len(),
        None => 0,
    };
    let n_train = prepared.train.tokens.len() as i64;
    let (train, test) = (cached.slice_batch(..n_train)?, cached.slice_batch(n_train..)?);
    let features = layers
        .iter()
        .map(|&layer| LayerFeatures::new(layer, train.select_layer(layer)?, test.select_layer(layer)?, prepared))
        .collect::<Result<_>>()?;
    Ok(Extracted { layers: features, stats: plan.stats(), cache_bytes })
}

/// The lazy plan of all samples of `tokens`: pooled activations of `layers`, `[n, l, h]`.
///
/// # Errors
/// A layer that the model lacks, or tokens outside its vocabulary.
pub fn plan(
    model: &Arc<dyn ActivationModel>,
    tokens: JoinedTokens,
    layers: &[usize],
    options: Extraction<'_>,
) -> Result<Acts> {
    Acts::collect(model.clone(), tokens, layers, options.batch_size)?
        .with_filled_batches(options.fill_batches)
        .with_rules(options.rules)
        .pool(options.pool, Axis::Sequence)
}

/// Splits one progress over both sides into a sink for each side.
fn two_sided(prepared: &Prepared, progress: &ProgressSink) -> [ProgressSink; 2] {
    let n_train = prepared.train.tokens.len() as u64;
    let total = n_train + prepared.test.tokens.len() as u64;
    [0, n_train].map(|before| -> ProgressSink {
        let progress = progress.clone();
        Arc::new(move |step: Progress| progress(Progress { done: before + step.done, total, unit: step.unit }))
    })
}

fn sum(a: ExtractionStats, b: ExtractionStats) -> ExtractionStats {
    ExtractionStats {
        tokens_total: a.tokens_total + b.tokens_total,
        tokens_computed: a.tokens_computed + b.tokens_computed,
        batches: a.batches + b.batches,
        flops: a.flops + b.flops,
        halvings: a.halvings + b.halvings,
    }
}
