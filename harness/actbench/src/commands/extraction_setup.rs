//! What `actbench cache` and `actbench features` share: a model, its samples and layers, ready for an extraction.

use std::sync::Arc;

use actbench_activations::model::ActivationModel;
use actbench_activations::plan::Rules;

use super::settings::SettingsArgs;
use crate::case::{CaseObserver, Method, NoopObserver, RunConfig, Task};
use crate::error::Result;
use crate::workload::extract::Extraction;
use crate::workload::prepare::{Prepared, prepare};
use crate::workload::{deepest, device, layers_of, load_model, request, with_layers};
use pairgate::stderr_line;

/// An extraction that has not run.
pub struct ExtractionSetup {
    pub config: RunConfig,
    pub prepared: Prepared,
    /// The layers of the task, increasing.
    pub layers: Vec<usize>,
    pub model: Arc<dyn ActivationModel>,
    rules: Rules,
}

impl ExtractionSetup {
    /// Reads data and model. Warnings and the choice of a device go to standard error.
    ///
    /// # Errors
    /// Bad settings or input, or no memory for the model.
    pub fn load(settings: &SettingsArgs, task: Task, method: Method) -> Result<Self> {
        let config = settings.config(vec![task], vec![method], Some(1), 0);
        config.check()?;
        let prepared = prepare(request(&config, false))?;
        for warning in &prepared.warnings {
            stderr_line!("warning: {warning}");
        }
        let config = with_layers(&config, &prepared);
        if let Some(note) = device::choose(&config, &prepared)?.note {
            stderr_line!("note: {note}");
        }
        let layers = layers_of(&config, task);
        let observer: Arc<dyn CaseObserver> = Arc::new(NoopObserver);
        let model = load_model(&prepared, &config, deepest(&config, task), &observer)?;
        let rules = Rules::all_but(&config.no_opt)?;
        Ok(ExtractionSetup { config, prepared, layers, model, rules })
    }

    /// The options of the extraction. Features stay in memory.
    pub fn options(&self) -> Extraction<'static> {
        Extraction {
            batch_size: self.config.batch_size,
            pool: self.config.pool,
            rules: self.rules,
            cache_directory: None,
        }
    }
}
