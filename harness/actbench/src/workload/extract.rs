//! Features of both sides of the split, the eager way and the lazy way.

use std::path::Path;
use std::sync::Arc;

use actbench_kernels::PoolMethod;

use super::features::LayerFeatures;
use super::prepare::{LabelledTokens, Prepared};
use crate::error::Result;
use actbench_activations::eager;
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::{Acts, Axis, ExtractionStats, Progress, ProgressSink, Rules};

/// How features are extracted.
#[derive(Clone, Copy, Debug)]
pub struct Extraction<'a> {
    /// Samples of one batch.
    pub batch_size: usize,
    /// How the masked positions become one vector.
    pub pool: PoolMethod,
    /// What the optimiser may do; the lazy way alone.
    pub rules: Rules,
    /// A folder for cache files: the lazy way then writes features to disk and reads them from there.
    pub cache_folder: Option<&'a Path>,
}

/// What the extraction gave and what it took.
pub struct Extracted {
    /// One entry a layer, in the order asked for.
    pub layers: Vec<LayerFeatures>,
    /// Tokens asked for and computed, both sides.
    pub stats: ExtractionStats,
    /// Bytes of the cache files, where there are any.
    pub cache_bytes: u64,
}

/// One layer, the eager way: each batch's full output comes to the host and is pooled there.
///
/// # Errors
/// As [`eager::extract_layer_pooled`].
pub fn eager_layer(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layer: usize,
    how: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let side = |side: &LabelledTokens, sink: &ProgressSink| {
        eager::extract_layer_pooled(&**model, &side.tokens, layer, how.batch_size, how.pool, Some(sink))
    };
    let sinks = two_sided(prepared, progress);
    let (train, test) = (side(&prepared.train, &sinks[0])?, side(&prepared.test, &sinks[1])?);
    let (train_acts, test_acts) = (Acts::from_tensor(train.tensor), Acts::from_tensor(test.tensor));
    let layers = vec![LayerFeatures::new(layer, train_acts, test_acts, prepared)?];
    Ok(Extracted { layers, stats: sum(train.stats, test.stats), cache_bytes: 0 })
}

/// Several layers, the eager way: the full tensors of both sides are materialised, then selected and pooled.
///
/// # Errors
/// As [`eager::extract_full`].
pub fn eager_layers(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    how: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let side = |side: &LabelledTokens, sink: &ProgressSink| {
        eager::extract_full(&**model, &side.tokens, layers, how.batch_size, Some(sink))
    };
    let sinks = two_sided(prepared, progress);
    let (train, test) = (side(&prepared.train, &sinks[0])?, side(&prepared.test, &sinks[1])?);
    let pooled = layers
        .iter()
        .map(|&layer| {
            let (train, test) = (train.tensor.pool_layer(layer, how.pool)?, test.tensor.pool_layer(layer, how.pool)?);
            LayerFeatures::new(layer, Acts::from_tensor(train), Acts::from_tensor(test), prepared)
        })
        .collect::<Result<_>>()?;
    Ok(Extracted { layers: pooled, stats: sum(train.stats, test.stats), cache_bytes: 0 })
}

/// Any layers, the lazy way: one pooled plan a side, run once, in memory or through a cache file.
///
/// # Errors
/// Whatever the plan's building, running, writing or reading fails with.
pub fn lazy_layers(
    model: &Arc<dyn ActivationModel>,
    prepared: &Prepared,
    layers: &[usize],
    how: Extraction<'_>,
    progress: &ProgressSink,
) -> Result<Extracted> {
    let sinks = two_sided(prepared, progress);
    let mut cache_bytes = 0;
    let mut side = |side: &LabelledTokens, name: &str, sink: &ProgressSink| -> Result<(Acts, ExtractionStats)> {
        let plan = plan(model, side, layers, how)?.with_progress(sink.clone());
        let path = how.cache_folder.map(|folder| folder.join(format!("{name}.safetensors")));
        let cached = plan.cache(path.as_deref())?;
        if let Some(path) = path {
            cache_bytes += std::fs::metadata(&path).map_err(crate::error::Error::io("read", &path))?.len();
        }
        Ok((cached, plan.stats()))
    };
    let (train, train_stats) = side(&prepared.train, "train", &sinks[0])?;
    let (test, test_stats) = side(&prepared.test, "test", &sinks[1])?;
    let features = layers
        .iter()
        .map(|&layer| LayerFeatures::new(layer, train.select_layer(layer)?, test.select_layer(layer)?, prepared))
        .collect::<Result<_>>()?;
    Ok(Extracted { layers: features, stats: sum(train_stats, test_stats), cache_bytes })
}

/// The lazy plan of one side: pooled activations of `layers`, `[n, l, h]`.
///
/// # Errors
/// A layer that the model does not have, or tokens that it cannot be run on.
pub fn plan(
    model: &Arc<dyn ActivationModel>,
    side: &LabelledTokens,
    layers: &[usize],
    how: Extraction<'_>,
) -> Result<Acts> {
    Acts::collect(model.clone(), side.tokens.clone(), layers, how.batch_size)?
        .with_rules(how.rules)
        .pool(how.pool, Axis::Sequence)
}

/// One progress over both sides, told to each of them as its own.
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
