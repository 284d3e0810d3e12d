//! `actbench plan`: predicts what a run needs by each method, which methods fit, and which to use.

use std::path::PathBuf;

use actbench_kernels::DType;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::calibration::{CalibrationArgs, CalibrationProgress, warn_about_conditions};
use super::matrix_file::{cell_error, run_args};
use super::run::check_cache_directory;
use super::settings::SettingsArgs;
use super::stdout;
use crate::case::{Method, RunConfig, Task};
use crate::error::{Error, Result};
use crate::matrix::CellFlags;
use crate::planner::calibration::Calibration;
use crate::planner::choice::{AvailableSpace, Shortage, choices};
use crate::planner::describe::{DescribedJob, describe};
use crate::planner::dry_run::{CellSettings, DryRun, dry_run};
use crate::planner::job::SyntheticTokens;
use crate::planner::published_gpu::PublishedGpu;
use crate::planner::{CasePrediction, predict};
use crate::quantities::duration;
use crate::report::document::{Table, TableCell, number_cell, text_cell, text_table, whole_cell};
use crate::report::format::seconds;
use crate::runner::interrupt;
use actbench_activations::model::config_only::find_model_spec;
use actbench_activations::units::Bytes;
use pairgate::stderr_line;

/// Predict what a run needs by each method, which methods fit, and which to use.
///
/// Predictions use the model's configuration and the lengths of the data; weights are not needed. Published names such as
/// Llama-3.1-8B-Instruct need no download. Times are based on a few seconds of measurement on this machine, on two blocks
/// of the model's shape or a narrower one, or on the results named by --calibrate. Without --seq-len, lengths and shared prefixes are those of the data set: of all
/// samples up to 2,048, beyond that of at most 8,192 of them, whose counts are scaled up.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench plan --model Llama-3.1-8B-Instruct --samples 10000 --layers 24 --seq-len 256\n  \
    actbench plan --model synthetic:llama-3.2-1b --samples 2000 --dataset embedded:mixed\n  \
    actbench plan --model ./smollm2 --samples 600 --layers 16 --calibrate results.json --json",
    after_help = "Exit status: 0 success, 2 bad usage or input."
)]
pub struct PlanArgs {
    /// Tasks
    #[arg(long, alias = "task", value_delimiter = ',', default_value = "train,sweep", value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// Methods
    #[arg(long, value_delimiter = ',', default_value = "eager,lazy,lazy-disk", value_name = "METHOD,...")]
    pub methods: Vec<Method>,
    /// Number N of layers, or all: `sweep` takes layers 0 to N - 1, `train` layer N - 1
    #[arg(long, value_name = "N", value_parser = parse_layers, conflicts_with_all = ["layer", "sweep_layers"])]
    pub layers: Option<LayerCount>,
    /// Tokens per sequence; the data set is then not read
    #[arg(long, value_name = "S")]
    pub seq_len: Option<usize>,
    /// Leading tokens that all sequences share, such as a system prompt
    #[arg(long, value_name = "N", requires = "seq_len", default_value_t = 0)]
    pub shared_tokens: usize,
    /// Trailing tokens that are pooled [default: half of the sequence]
    #[arg(long, value_name = "N", requires = "seq_len")]
    pub pooled_tokens: Option<usize>,
    /// The other settings, as for `run`.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The source of rates.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Directory for cache files [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// The value of `--layers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerCount {
    /// All layers of the model.
    All,
    /// This number of layers.
    First(usize),
}

fn parse_layers(text: &str) -> Result<LayerCount, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(LayerCount::All),
        (_, Ok(n)) if n > 0 => Ok(LayerCount::First(n)),
        _ => Err("use a number of layers from 1 on, or all".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Invalid settings or input, or no memory or disk space for the calibration.
pub fn plan(args: &PlanArgs) -> Result<()> {
    interrupt::install()?;
    let config = args.settings.config(args.tasks.clone(), args.methods.clone(), Some(1), 0);
    check_cache_directory(args.cache_dir.as_deref())?;
    let directory = args.cache_dir.clone().unwrap_or_else(std::env::temp_dir);
    // First, so that a wrong file is reported before a model or data are read.
    let source = args.calibration.source(&directory)?;
    source.check(&config)?;
    let spec = find_model_spec(config.model.as_deref(), args.quiet)?;
    let config = match args.layers {
        None => config,
        Some(layers) => {
            let n = if let LayerCount::First(n) = layers { n } else { spec.spec.n_layers };
            RunConfig { layer: Some(n - 1), sweep_layers: Some(n), ..config }
        }
    };
    config.check()?;
    let synthetic = args.seq_len.map(|length| SyntheticTokens {
        length,
        shared: args.shared_tokens,
        pooled: args.pooled_tokens.unwrap_or(length.div_ceil(2)),
    });
    let DescribedJob { job, mut notes } = describe(&config, &spec, synthetic, args.quiet)?;
    if !args.quiet {
        warn_about_conditions();
    }
    let progress = CalibrationProgress::new(args.quiet || args.json);
    let calibration = source.calibrate(&job, &mut |step| progress.begin(step))?;
    drop(progress);
    if synthetic.is_some() && args.shared_tokens == 0 {
        notes.push("no shared prefix is assumed; pass --shared-tokens for a common system prompt".to_owned());
    }
    let predictions = predict(&job, &calibration)?;
    let space = AvailableSpace::for_case(&job.config, &directory).on(source.gpu);
    let (tokens, pooled_tokens) = job.tokens();
    let summary = PlanSummary {
        config: &job.config,
        samples: job.samples().iter().sum(),
        tokens,
        pooled_tokens,
        calibration: &calibration,
        notes: &notes,
        gpu: source.gpu,
    };
    let text = if args.json { pretty(&summary.json(&predictions, space))? } else { summary.text(&predictions, space) };
    stdout::text(text);
    Ok(())
}

/// What is printed besides the predictions.
struct PlanSummary<'a> {
    config: &'a RunConfig,
    samples: u64,
    tokens: u64,
    pooled_tokens: u64,
    calibration: &'a Calibration,
    notes: &'a [String],
    gpu: Option<&'static PublishedGpu>,
}

impl PlanSummary<'_> {
    fn model(&self) -> String {
        self.config.model_name()
    }

    fn json(&self, predictions: &[CasePrediction], space: AvailableSpace) -> Value {
        let mut listed = json!(predictions);
        if let Some(listed) = listed.as_array_mut() {
            for (listed, prediction) in listed.iter_mut().zip(predictions) {
                listed["lacks"] = json!(space.shortage(prediction));
            }
        }
        json!({
            "model": self.model(),
            "samples": self.samples,
            "tokens": self.tokens,
            "room": space,
            "predictions": listed,
            "choices": choices(predictions, space),
            "calibration": self.calibration,
            "notes": self.notes,
        })
    }

    fn text(&self, predictions: &[CasePrediction], space: AvailableSpace) -> String {
        let mut text = format!(
            "{} in {}, {} samples of {} tokens, {:.0}% of them pooled; batch {}\n",
            self.model(),
            DType::name(self.config.dtype),
            indicatif::HumanCount(self.samples),
            self.tokens / self.samples.max(1),
            100.0 * self.pooled_tokens as f64 / self.tokens.max(1) as f64,
            self.config.batch_size
        );
        let mut table = prediction_table(&["task", "method"]);
        for prediction in predictions {
            let case = vec![text_cell(prediction.task), text_cell(prediction.method)];
            table.push([case, prediction_cells(prediction, space)].concat());
        }
        text += &text_table(&table, stdout::terminal_width());
        for choice in choices(predictions, space) {
            let method = choice.method.map_or_else(|| "none".to_owned(), |method| method.to_string());
            text += &format!("{}: use {method}: {}.\n", choice.task, choice.why);
        }
        let or = |bytes: Option<u64>, unknown: &str| {
            bytes.map_or_else(|| unknown.to_owned(), |bytes| Bytes(bytes).to_string())
        };
        let (limit, free) = (or(space.memory, "none"), or(space.disk, "unknown"));
        text += &format!("memory limit of a case: {limit}; free disk space for cache files: {free}\n");
        for note in self.notes {
            text += &format!("note: {note}\n");
        }
        text + &match source_of_times(self.gpu) {
            Some(note) => format!("note: {note}\n"),
            None => "note: GPU memory is computed from sizes; times are for this machine's CPU\n".to_owned(),
        }
    }
}

/// What predictions for a GPU are based on.
fn source_of_times(gpu: Option<&PublishedGpu>) -> Option<String> {
    let gpu = gpu?;
    Some(format!(
        "the model's times are those of an {} with short dialogues ({}); probes, host memory and files are this machine's",
        gpu.device, gpu.source
    ))
}

fn pretty(value: &impl Serialize) -> Result<String> {
    // Plain numbers, strings and lists always serialize.
    Ok(serde_json::to_string_pretty(value)
        .map_err(|error| Error::internal(format!("a prediction cannot be written as JSON: {error}")))?
        + "\n")
}

/// An empty table: the columns `first`, then those of a prediction.
fn prediction_table(first: &[&str]) -> Table {
    let heads = ["#time", "#extract", "#peak RSS", "#peak heap", "#GPU memory", "#disk", "#rows", "#TFLOP", "fits"];
    Table::new("", &[first, &heads].concat())
}

fn prediction_cells(prediction: &CasePrediction, space: AvailableSpace) -> Vec<TableCell> {
    let time = |seconds: f64| TableCell { text: duration(seconds), number: Some(seconds), ends: None };
    let bytes = |bytes: u64| TableCell { text: Bytes(bytes).to_string(), number: Some(bytes as f64), ends: None };
    vec![
        time(prediction.elapsed_s),
        time(prediction.extract_s),
        bytes(prediction.rss_bytes),
        bytes(prediction.heap_bytes),
        bytes(prediction.gpu_bytes),
        bytes(prediction.disk_bytes),
        whole_cell(prediction.rows as usize),
        number_cell(Some(prediction.flops as f64 / 1e12), seconds),
        text_cell(match space.shortage(prediction) {
            None => "yes",
            Some(Shortage::Memory) => "no: memory",
            Some(Shortage::Disk) => "no: disk",
            Some(Shortage::Gpu) => "no: GPU memory",
        }),
    ]
}

/// Lists the cells of the matrix that errors call `origin`, with the predictions of their cases.
///
/// # Errors
/// A cell with invalid settings or input, or no memory or disk space for the calibration.
pub fn list_cells(cells: &[&CellFlags], origin: &str, args: &CalibrationArgs, json: bool, quiet: bool) -> Result<()> {
    interrupt::install()?;
    let settings = cells.iter().map(|cell| {
        let config = run_args(&cell.flags).map_err(Error::usage)?.config();
        Ok(CellSettings { name: cell.name.clone(), command: cell.flags.clone(), config })
    });
    let settings: Vec<CellSettings> = settings.collect::<Result<_>>()?;
    let mut current = 0;
    let mut next = |index: usize| {
        current = index;
        if !quiet {
            stderr_line!("planning cell {} of {}: {}", index + 1, cells.len(), settings[index].name);
        }
        if interrupt::requested() { Err(Error::Interrupted) } else { Ok(()) }
    };
    let source = args.source(&std::env::temp_dir())?;
    settings.iter().try_for_each(|cell| source.check(&cell.config))?;
    if !quiet {
        warn_about_conditions();
    }
    let progress = CalibrationProgress::new(quiet || json);
    let plan = dry_run(&settings, &source, quiet, &mut next, &mut |step| progress.begin(step))
        .map_err(|error| cell_error(origin, cells[current], error))?;
    drop(progress);
    stdout::text(if json { pretty(&plan)? } else { dry_run_text(&plan) });
    Ok(())
}

fn dry_run_text(plan: &DryRun) -> String {
    let mut table = prediction_table(&["cell", "task", "method"]);
    for cell in &plan.cells {
        for prediction in &cell.predictions {
            let case = vec![text_cell(&cell.name), text_cell(prediction.task), text_cell(prediction.method)];
            table.push([case, prediction_cells(prediction, cell.space)].concat());
        }
    }
    let mut text = text_table(&table, stdout::terminal_width());
    text += &format!(
        "{} cells, about {} in all; {} cases will not fit\n",
        plan.cells.len(),
        duration(plan.total_s),
        plan.cases_that_do_not_fit()
    );
    for note in &plan.notes {
        text += &format!("note: {note}\n");
    }
    text
}
