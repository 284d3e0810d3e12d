//! What `actbench cache` and `actbench features` share: a model, its samples and layers, ready for an extraction.

use std::sync::Arc;

use actbench_activations::data::EMBEDDED;
use actbench_activations::model::ActivationModel;
use actbench_activations::plan::Rules;
use actbench_activations::plan::cache_file::SampleTable;
use actbench_kernels::DType;
use clap::Args;
use serde_json::{Map, Value};

use super::extraction_progress::ExtractionProgress;
use super::settings::{ExtractionArgs, layer_help};
use crate::case::{CaseObserver, Method, Phase, RunConfig, Task};
use crate::error::{Error, Result};
use crate::workload::extract::Extraction;
use crate::workload::prepare::{Prepared, prepare_with_digest};
use crate::workload::{check_depth, deepest, device, layers_of, load_model, request, with_layers};
use pairgate::stderr_line;

const ONE_LAYER: &str = "The one layer to extract [default of --tasks train: 12, or the last of a smaller model; half \
                         the depth of the embedded one]";
const LAYERS: &str =
    "The layers to extract, 0 to N - 1 [default: 16, or all of a smaller model and of the embedded one]";

/// The flags that select the layers to extract.
#[derive(Args, Clone, Debug)]
pub struct LayerSelectionArgs {
    /// Task that selects the layers: train has one, sweep several [default: train with --layer, otherwise sweep]
    #[arg(long, alias = "task", value_name = "TASK")]
    pub tasks: Option<Task>,
    /// The one layer to extract [default of --tasks train: 12, or the last of a smaller model; half the depth of the embedded
    /// one]
    #[arg(long, value_name = "LAYER", long_help = layer_help(ONE_LAYER))]
    pub layer: Option<usize>,
    /// The layers to extract, 0 to N - 1 [default: 16, or all of a smaller model and of the embedded one]
    #[arg(long, value_name = "N", long_help = layer_help(LAYERS))]
    pub sweep_layers: Option<usize>,
}

impl LayerSelectionArgs {
    /// The task whose layers are extracted.
    ///
    /// # Errors
    /// Two flags that select different layers.
    pub fn task(&self) -> Result<Task> {
        let refuse = |message: String| Err(Error::usage(message));
        match (self.tasks, self.layer, self.sweep_layers) {
            (_, Some(layer), Some(n)) => refuse(format!(
                "--layer {layer} selects one layer and --sweep-layers {n} the layers 0 to {}; leave out one of the two",
                n.saturating_sub(1)
            )),
            (Some(Task::Sweep), Some(layer), None) => refuse(format!(
                "--tasks sweep selects the layers from 0 on, and --layer {layer} selects one layer; leave out --tasks for layer \
                 {layer} alone, or --layer for all of them"
            )),
            (Some(Task::Train), None, Some(n)) => refuse(format!(
                "--tasks train selects one layer, and --sweep-layers {n} selects several; use --layer for one layer, or leave \
                 out --tasks"
            )),
            (tasks, layer, _) => Ok(tasks.unwrap_or(if layer.is_some() { Task::Train } else { Task::Sweep })),
        }
    }
}

/// An extraction that has not run.
pub struct ExtractionSetup {
    pub config: RunConfig,
    pub prepared: Prepared,
    /// The layers of the task, increasing.
    pub layers: Vec<usize>,
    pub model: Arc<dyn ActivationModel>,
    /// Where the extraction reports its progress.
    pub progress: Arc<ExtractionProgress>,
    data_digest: String,
    rules: Rules,
}

impl ExtractionSetup {
    /// Reads data and model. Warnings, and unless `quiet` progress and the choice of a device, go to standard error.
    ///
    /// # Errors
    /// Bad settings or input, or no memory for the model.
    pub fn load(
        extraction: &ExtractionArgs,
        selection: &LayerSelectionArgs,
        method: Method,
        quiet: bool,
    ) -> Result<Self> {
        let task = selection.task()?;
        let config = RunConfig {
            tasks: vec![task],
            methods: vec![method],
            layer: selection.layer,
            sweep_layers: selection.sweep_layers,
            ..extraction.config()
        };
        config.check()?;
        let (prepared, data_digest) = prepare_with_digest(request(&config, quiet))?;
        for warning in &prepared.warnings {
            stderr_line!("warning: {warning}");
        }
        let config = with_layers(&config, &prepared);
        check_depth(&config, task, prepared.model.spec.n_layers)?;
        if let Some(note) = device::choose(&config, &prepared)?.note.filter(|_| !quiet) {
            stderr_line!("note: {note}");
        }
        let layers = layers_of(&config, task);
        let progress = ExtractionProgress::new(quiet);
        let observer: Arc<dyn CaseObserver> = progress.clone();
        let model = load_model(&prepared, &config, deepest(&config, task), &observer)?;
        let rules = Rules::all_but(&config.no_opt)?;
        progress.phase(Phase::Extracting);
        Ok(ExtractionSetup { config, prepared, layers, model, progress, data_digest, rules })
    }

    /// The options of the extraction. Features stay in memory.
    pub fn options(&self) -> Extraction<'static> {
        Extraction {
            batch_size: self.config.batch_size,
            fill_batches: !self.config.batch_size_is_limit,
            pool: self.config.pool,
            rules: self.rules,
            cache_directory: None,
        }
    }

    /// The settings that decide the samples and their features, for the metadata of a file. Values are those of the flags.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| EMBEDDED.to_owned());
        let adapter = config.adapter.as_ref().map(|adapter| ("adapter", adapter.display().to_string()));
        let settings = [
            ("model", name(&config.model)),
            ("dataset", name(&config.dataset)),
            ("data_digest", self.data_digest.clone()),
            ("mask", config.mask.to_string()),
            ("pool", config.pool.to_string()),
            ("dtype", dtype_name(config.dtype).to_owned()),
            ("samples", config.samples.to_string()),
            ("train_frac", config.train_frac.to_string()),
            ("seed", config.seed.to_string()),
        ];
        settings.into_iter().chain(adapter).collect()
    }

    /// Where each sample comes from, training samples first.
    pub fn sample_table(&self) -> SampleTable {
        let sides = [(1, &self.prepared.train), (0, &self.prepared.test)];
        SampleTable {
            rows: sides.iter().flat_map(|(_, side)| side.rows.iter().map(|row| *row as i64)).collect(),
            labels: sides.iter().flat_map(|(_, side)| side.labels.iter().copied()).collect(),
            is_train: sides.iter().flat_map(|(flag, side)| vec![*flag; side.rows.len()]).collect(),
            settings: self.settings_json(),
        }
    }

    /// The settings as one JSON object.
    fn settings_json(&self) -> String {
        let entries = self.settings().into_iter().map(|(name, value)| (name.to_owned(), Value::from(value)));
        Value::Object(Map::from_iter(entries)).to_string()
    }
}

/// The name of the flag value, which differs from the name in the kernels crate.
fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "fp32",
        DType::F16 => "fp16",
        DType::Bf16 => "bf16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(tasks: Option<Task>, layer: Option<usize>, sweep_layers: Option<usize>) -> Result<Task, String> {
        LayerSelectionArgs { tasks, layer, sweep_layers }.task().map_err(|error| error.to_string())
    }

    #[test]
    fn layer_alone_selects_that_layer() {
        assert_eq!(task(None, Some(3), None), Ok(Task::Train));
        assert_eq!(task(Some(Task::Train), Some(3), None), Ok(Task::Train));
        assert_eq!(task(None, None, Some(3)), Ok(Task::Sweep));
        assert_eq!(task(None, None, None), Ok(Task::Sweep));
        assert_eq!(task(Some(Task::Train), None, None), Ok(Task::Train));
    }

    #[test]
    fn contradicting_selections_are_refused_with_both_flags() {
        for (selection, flags) in [
            ((None, Some(3), Some(4)), ["--layer 3", "--sweep-layers 4"]),
            ((Some(Task::Train), Some(3), Some(4)), ["--layer 3", "--sweep-layers 4"]),
            ((Some(Task::Sweep), Some(3), None), ["--layer 3", "--tasks sweep"]),
            ((Some(Task::Train), None, Some(4)), ["--sweep-layers 4", "--tasks train"]),
        ] {
            let error = task(selection.0, selection.1, selection.2).unwrap_err();
            assert!(flags.iter().all(|flag| error.contains(flag)), "{error}");
        }
    }
}
