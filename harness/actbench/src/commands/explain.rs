//! `actbench explain`: the lazy plans of a run before and after optimization, and their predicted cost.

use std::sync::Arc;

use clap::Args;

use super::defaults;
use super::run::distinct;
use super::settings::{SampleArgs, TaskLayerArgs};
use super::stdout;
use crate::case::{RunConfig, Task};
use crate::error::{Error, Result};
use crate::report::rule_costs;
use crate::workload::extract::{Extraction, plan};
use crate::workload::prepare::{SampledInputs, prepare_sampled};
use crate::workload::{layers_of, request, with_layers};
use actbench_activations::model::ActivationModel;
use actbench_activations::model::config_only::ConfigOnlyModel;
use actbench_activations::plan::Rules;
use pairgate::stderr_line;

/// Show the lazy plans of a run and their predicted cost, without running them.
///
/// Reads no weights. Prints for each task the plan of the lazy methods, its normal form, its optimized form, and for each rule
/// the cost of the plan without it. Takes those flags of `run` on which a plan depends.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench explain\n  \
    actbench explain --tasks train --no-opt prefix\n  \
    actbench explain --model ./smollm2 --dataset repe --data-dir ./data",
    after_help = "Exit status: 0 success, 2 bad usage or input."
)]
pub struct ExplainArgs {
    /// Tasks whose plans are shown
    #[arg(long, alias = "task", value_delimiter = ',', default_value = defaults::TASKS.as_str(), value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// The samples, the model and the plan.
    #[command(flatten)]
    pub samples: SampleArgs,
    /// The layers.
    #[command(flatten)]
    pub layers: TaskLayerArgs,
    /// Threads whose batches are counted: several threads in host memory compute a batch each [default: 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

impl ExplainArgs {
    fn config(&self) -> RunConfig {
        RunConfig {
            tasks: distinct(&self.tasks),
            layer: self.layers.layer,
            sweep_layers: self.layers.sweep_layers,
            threads: self.threads,
            ..self.samples.config()
        }
    }
}

/// Prints the plans.
///
/// # Errors
/// Bad settings or input.
pub fn explain(args: &ExplainArgs) -> Result<()> {
    let config = args.config();
    config.check()?;
    let sample = prepare_sampled(request(&config, args.quiet))?;
    for warning in &sample.inputs.warnings {
        stderr_line!("warning: {warning}");
    }
    let config = with_layers(&config, &sample.inputs);
    let mut texts = config.tasks.iter().map(|task| task_text(*task, &config, &sample)).collect::<Result<Vec<_>>>()?;
    texts.extend(sample.note().map(|note| format!("note: {note}")));
    stdout::line(texts.join("\n\n"));
    Ok(())
}

fn task_text(task: Task, config: &RunConfig, sample: &SampledInputs) -> Result<String> {
    let prepared = &sample.inputs;
    crate::workload::check_depth(config, task, prepared.model.spec.n_layers)?;
    let model = ConfigOnlyModel::new(prepared.model.spec.clone(), config.dtype);
    // Not the cores of this machine, so that the text is the same on all of them.
    let model: Arc<dyn ActivationModel> = Arc::new(model.with_threads(config.threads.unwrap_or(1)));
    let layers = layers_of(config, task);
    let extraction = Extraction {
        batch_size: config.batch_size,
        fill_batches: !config.batch_size_is_limit,
        pool: config.pool,
        rules: Rules::all_but(&config.no_opt)?,
        cache_directory: None,
    };
    let plan = plan(&model, prepared.all_tokens(), &layers, extraction)?;
    let costs = plan.rule_costs()?.ok_or_else(|| Error::internal("the plan of a run does not run the model"))?;
    let costs = costs.scaled(sample.scale());
    let counted = if sample.counted < sample.rows { " of the counted samples" } else { "" };
    let costs = rule_costs::render(&costs, stdout::terminal_width());
    Ok(format!("{task}\n\nboth sides in one pass{counted}, {}\n\n{costs}", plan.explain_forms()?))
}
