//! `actbench plan`: what a run will take by each method, which methods fit, and which to take.

use std::path::{Path, PathBuf};

use actbench_kernels::DType;
use clap::Args;
use serde_json::{Value, json};

use super::matrix_file::run_args;
use super::result_files;
use super::settings::SettingsArgs;
use super::stdout;
use crate::error::{Error, Result};
use crate::matrix::CellFlags;
use crate::measure::memory::heap;
use crate::measure::{MEGABYTE, limit};
use crate::planner::calibration::Calibration;
use crate::planner::choice::{Room, choices};
use crate::planner::job::{Job, MadeUpTokens};
use crate::planner::{Prediction, memory, predict};
use crate::report::document::{Table, number_cell, text_cell, text_table, whole_cell};
use crate::report::format::{mebibytes, seconds};
use crate::results::adaptive::Stopping;
use crate::runner::ending::Ending;
use crate::runner::{child, interrupt};
use crate::workload::calibrate::measure;
use crate::workload::case::{CaseSpec, Method, RunConfig, Task};
use crate::workload::injection::Injection;
use crate::workload::prepare::{Prepared, prepare};
use crate::workload::{check_depth, request, with_layers, with_layers_of};
use actbench_activations::model::outline::{Sketch, config_of};

/// Say what a run will take by each method, which methods fit, and which to take, before anything runs.
///
/// From the model's configuration and the lengths of the data; weights are not needed. Published names such as
/// Llama-3.1-8B-Instruct are known without a download. Times rest on a few seconds of measuring this machine at the model's
/// shapes, or on the results that --calibrate names. Without --seq-len the data set is read, and its own lengths and shared
/// prefixes count.
#[derive(Args, Clone, Debug)]
#[command(
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench plan --model Llama-3.1-8B-Instruct --samples 10000 --layers 24 --seq-len 256\n  \
    actbench plan --model synthetic:llama-3.2-1b --samples 2000 --dataset embedded:mixed\n  \
    actbench plan --model ./smollm2 --samples 600 --layers 16 --calibrate results.json --json",
    after_help = "Exit status: 0 done, 2 bad usage or input."
)]
pub struct PlanArgs {
    /// Tasks
    #[arg(long, value_delimiter = ',', default_value = "train,sweep", value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// Methods
    #[arg(long, value_delimiter = ',', default_value = "eager,lazy,lazy-disk", value_name = "METHOD,...")]
    pub methods: Vec<Method>,
    /// Layers, from 0 on: all of them of the task sweep, the deepest of the task train; a number, or all
    #[arg(long, value_name = "N", value_parser = parse_layers, conflicts_with_all = ["layer", "sweep_layers"])]
    pub layers: Option<Layers>,
    /// Tokens of each sequence; the data set is not read then
    #[arg(long, value_name = "S")]
    pub seq_len: Option<usize>,
    /// Tokens at the head that all sequences share, such as a system prompt
    #[arg(long, value_name = "N", requires = "seq_len", default_value_t = 0)]
    pub shared_tokens: usize,
    /// Tokens at the end that are pooled [default: half of the sequence]
    #[arg(long, value_name = "N", requires = "seq_len")]
    pub pooled_tokens: Option<usize>,
    /// The rest of the settings, as of `run`.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// What predictions rest on.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Folder that cache files would be in [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What predictions of time rest on.
#[derive(Args, Clone, Debug)]
pub struct CalibrationArgs {
    /// Take rates from these result files, or folders of them, where they have the model and type; repeatable
    #[arg(long, value_name = "RESULTS")]
    pub calibrate: Vec<PathBuf>,
}

/// Layers as a user counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// As many as the model has.
    All,
    /// So many.
    First(usize),
}

fn parse_layers(text: &str) -> Result<Layers, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Layers::All),
        (_, Ok(n)) if n > 0 => Ok(Layers::First(n)),
        _ => Err("write a number of layers from 1 on, or all".to_owned()),
    }
}

/// What a job is planned with.
struct Planned {
    job: Job,
    calibration: Calibration,
    notes: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or no room to measure.
pub fn plan(args: &PlanArgs) -> Result<()> {
    interrupt::install()?;
    let config = args.settings.config(args.tasks.clone(), args.methods.clone(), Some(1), 0);
    let sketch = config_of(config.model.as_deref(), false)?;
    let config = match args.layers {
        None => config,
        Some(layers) => {
            let n = if let Layers::First(n) = layers { n } else { sketch.config.n_layers };
            RunConfig { layer: Some(n - 1), sweep_layers: Some(n), ..config }
        }
    };
    config.check()?;
    let made_up = args.seq_len.map(|length| MadeUpTokens {
        length,
        shared: args.shared_tokens,
        pooled: args.pooled_tokens.unwrap_or(length.div_ceil(2)),
    });
    let folder = args.cache_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (job, mut notes) = job(&config, &sketch, made_up, false)?;
    let calibration = calibrated(&job, &args.calibration, &folder)?;
    if made_up.is_some() && args.shared_tokens == 0 {
        notes.push(
            "no tokens are taken to be shared; a system prompt that all have is named by --shared-tokens".to_owned(),
        );
    }
    let planned = Planned { job, calibration, notes };
    let predictions = predict(&planned.job, &planned.calibration)?;
    let room = room(&planned.job.config, &folder);
    let text = match args.json {
        true => pretty(&plan_json(&planned, &predictions, room))?,
        false => plan_text(&planned, &predictions, room),
    };
    stdout::text(text);
    Ok(())
}

/// The job of `config`, with what the reader should know of it.
fn job(config: &RunConfig, sketch: &Sketch, made_up: Option<MadeUpTokens>, quiet: bool) -> Result<(Job, Vec<String>)> {
    let mut notes = Vec::new();
    let job = match (made_up, sketch.stand_in) {
        (Some(tokens), _) => {
            let embedded = config.model.as_deref().is_none_or(|name| name == "embedded");
            let config = with_layers_of(config, sketch.config.n_layers, embedded);
            check_layers(&config, sketch.config.n_layers)?;
            Job::made_up(&config, sketch.config.clone(), sketch.made_up, tokens)?
        }
        (None, Some(preset)) => {
            let stand_in = RunConfig {
                model: Some(format!("synthetic:{}", preset.name)),
                ..with_layers_of(config, sketch.config.n_layers, false)
            };
            check_layers(&stand_in, sketch.config.n_layers)?;
            let (data, bytes) = prepared(&stand_in, quiet)?;
            notes.push(
                "tokens are those of the bundled tokenizer, of which there are more than of the model's own".to_owned(),
            );
            let named = RunConfig { model: config.model.clone(), ..stand_in };
            // The model's own tokenizer takes more than the bundled one, which knows few tokens.
            let bytes = bytes + sketch.config.vocab_size as u64 * memory::TOKENIZER_BYTES;
            Job::of(&named, &data).with_mapped_weights().with_data_bytes(bytes)
        }
        (None, None) => {
            let (data, bytes) = prepared(config, quiet)?;
            let config = with_layers(config, &data);
            check_layers(&config, data.model.config.n_layers)?;
            notes.extend(data.warnings.iter().cloned());
            Job::of(&config, &data).with_data_bytes(bytes)
        }
    };
    Ok((job, notes))
}

/// What a case reads before it loads weights, and the bytes that it then has on the heap.
fn prepared(config: &RunConfig, quiet: bool) -> Result<(Prepared, u64)> {
    let before = heap();
    let data = prepare(request(config, quiet))?;
    Ok((data, heap().saturating_sub(before)))
}

fn check_layers(config: &RunConfig, n_layers: usize) -> Result<()> {
    config.tasks.iter().try_for_each(|task| check_depth(config, *task, n_layers))
}

/// Measures this machine for `job`, and takes from result files what they have.
fn calibrated(job: &Job, args: &CalibrationArgs, folder: &Path) -> Result<Calibration> {
    let measured = with_base(measure(job, folder)?)?;
    match args.calibrate.is_empty() {
        true => Ok(measured),
        false => measured.with_results(job, &result_files::read(&args.calibrate)?),
    }
}

/// Adds what a process takes before it has a model: that of the smallest case there is, less what the case is predicted to
/// take. It runs in a child, as cases do.
fn with_base(calibration: Calibration) -> Result<Calibration> {
    let flags = ["--tasks=train", "--methods=lazy", "--samples=20", "--memory-limit=none"].map(str::to_owned);
    let config = run_args(&flags).map_err(Error::usage)?.config();
    let (data, bytes) = prepared(&config, true)?;
    let config = with_layers(&config, &data);
    let job = Job::of(&config, &data).with_data_bytes(bytes);
    let folder = tempfile::Builder::new().prefix("actbench-plan-").tempdir();
    let folder = folder.map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let spec = CaseSpec {
        task: Task::Train,
        method: Method::Lazy,
        config: RunConfig { model: Some("synthetic:tiny".to_owned()), ..config },
        cache_folder: folder.path().to_path_buf(),
        fault: None,
        injection: Injection::default(),
    };
    let program = std::env::current_exe().map_err(Error::io("find", "this program"))?;
    let start = std::time::Instant::now();
    let ended = child::run(&program, &spec, None, &mut |_| ())?;
    let seconds = start.elapsed().as_secs_f64();
    let Ending::Done(outcome, peaks) = &ended.ending else {
        return Err(Error::Numeric(format!("the smallest case there is did not come through: {}", ended.reason())));
    };
    let count = job.count(Task::Train, Method::Lazy)?;
    let tiny = Calibration { base_rss: 0, base_heap: 0, weight_element: 2, ..calibration.clone() };
    let own = memory::of_case(&job, Task::Train, Method::Lazy, &count, &tiny);
    let bytes = |mebibytes: f64| (mebibytes * MEGABYTE) as u64;
    Ok(Calibration {
        base_rss: peaks.rss_mb.map_or(0, |mebibytes| bytes(mebibytes).saturating_sub(own.rss)),
        base_heap: bytes(peaks.heap_mb).saturating_sub(own.heap),
        start_s: (seconds - outcome.elapsed_s).max(0.0),
        ..calibration
    })
}

/// What there is of memory and disk.
fn room(config: &RunConfig, folder: &Path) -> Room {
    Room { memory: config.memory_limit.bytes(limit::available()), disk: fs4::available_space(folder).ok() }
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).map_err(|error| Error::usage(error.to_string()))? + "\n")
}

fn plan_json(planned: &Planned, predictions: &[Prediction], room: Room) -> Value {
    let lacks: Vec<Value> = predictions.iter().map(|prediction| json!(room.lacks(prediction))).collect();
    let mut listed = json!(predictions);
    if let Some(listed) = listed.as_array_mut() {
        for (prediction, lacks) in listed.iter_mut().zip(lacks) {
            prediction["lacks"] = lacks;
        }
    }
    json!({
        "model": planned.job.config.model.as_deref().unwrap_or("embedded"),
        "samples": planned.job.samples().iter().sum::<u64>(),
        "tokens": planned.job.tokens().0,
        "room": room,
        "predictions": listed,
        "choices": choices(predictions, room),
        "calibration": planned.calibration,
        "notes": planned.notes,
    })
}

fn plan_text(planned: &Planned, predictions: &[Prediction], room: Room) -> String {
    let job = &planned.job;
    let model = job.config.model.as_deref().unwrap_or("embedded");
    let (samples, (tokens, pooled)) = (job.samples().iter().sum::<u64>(), job.tokens());
    let heading = format!(
        "{model} in {}, {} samples of {} tokens, {:.0}% of them pooled; batch {}\n",
        DType::name(job.config.dtype),
        indicatif::HumanCount(samples),
        tokens / samples.max(1),
        100.0 * pooled as f64 / tokens.max(1) as f64,
        job.config.batch_size
    );
    let mut table = prediction_table(&["task", "method"]);
    for prediction in predictions {
        table.push([vec![text_cell(prediction.task), text_cell(prediction.method)], cells(prediction, room)].concat());
    }
    let mut text = heading + &text_table(&table);
    for choice in choices(predictions, room) {
        let method = choice.method.map_or_else(|| "none".to_owned(), |method| method.to_string());
        text += &format!("{}: take {method}: {}.\n", choice.task, choice.why);
    }
    let limit = room.memory.map_or_else(|| "no limit".to_owned(), |bytes| indicatif::BinaryBytes(bytes).to_string());
    let disk = room.disk.map_or_else(|| "unknown".to_owned(), |bytes| indicatif::BinaryBytes(bytes).to_string());
    text += &format!("memory that a case may use: {limit}; free for cache files: {disk}\n");
    for note in &planned.notes {
        text += &format!("note: {note}\n");
    }
    text + "note: GPU memory is computed from sizes; times are of this machine's CPU\n"
}

/// The columns of a prediction after `first`.
fn prediction_table(first: &[&str]) -> Table {
    let heads =
        ["#time s", "#extract s", "#peak RSS MB", "#peak heap MB", "#GPU MB", "#disk MB", "#rows", "#TFLOP", "fits"];
    Table::new("", &[first, &heads].concat())
}

fn cells(prediction: &Prediction, room: Room) -> Vec<crate::report::document::TableCell> {
    let bytes = |bytes: u64| number_cell(Some(bytes as f64 / MEGABYTE), mebibytes);
    vec![
        number_cell(Some(prediction.elapsed_s), seconds),
        number_cell(Some(prediction.extract_s), seconds),
        bytes(prediction.rss_bytes),
        bytes(prediction.heap_bytes),
        bytes(prediction.gpu_bytes),
        bytes(prediction.disk_bytes),
        whole_cell(prediction.rows as usize),
        number_cell(Some(prediction.flops as f64 / 1e12), seconds),
        text_cell(match room.lacks(prediction) {
            None => "yes",
            Some(crate::planner::choice::Lacks::Memory) => "no: memory",
            Some(crate::planner::choice::Lacks::Disk) => "no: disk",
        }),
    ]
}

/// Lists cells with what each case of them is predicted to take.
///
/// # Errors
/// A cell whose settings or input are wrong, or no room to measure.
pub fn dry_run(cells_to_list: &[&CellFlags], args: &CalibrationArgs, json: bool, quiet: bool) -> Result<()> {
    interrupt::install()?;
    let folder = std::env::temp_dir();
    let mut table = prediction_table(&["cell", "task", "method"]);
    let (mut listed, mut total, mut known) =
        (Vec::new(), 0.0, Vec::<(Option<String>, DType, usize, usize, Calibration)>::new());
    let (mut notes, mut oom) = (Vec::<String>::new(), 0);
    for (number, cell) in cells_to_list.iter().enumerate() {
        if !quiet {
            eprintln!("planning cell {} of {}: {}", number + 1, cells_to_list.len(), cell.name);
        }
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let run = run_args(&cell.flags).map_err(Error::usage)?;
        let config = run.config();
        let sketch = config_of(config.model.as_deref(), quiet)?;
        let (job, of_job) = job(&config, &sketch, None, quiet)?;
        notes.extend(of_job.into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>());
        let longest = job.longest().into_iter().max().unwrap_or(0) as usize;
        let key = (config.model.clone(), config.dtype, config.batch_size, longest.next_power_of_two());
        let found = known.iter().find(|it| (&it.0, it.1, it.2, it.3) == (&key.0, key.1, key.2, key.3));
        let calibration = match found {
            Some(it) => it.4.clone(),
            None => {
                let calibration = calibrated(&job, args, &folder)?;
                known.push((key.0, key.1, key.2, key.3, calibration.clone()));
                calibration
            }
        };
        let predictions = predict(&job, &calibration)?;
        let room = room(&job.config, &folder);
        for prediction in &predictions {
            let first = vec![text_cell(&cell.name), text_cell(prediction.task), text_cell(prediction.method)];
            table.push([first, cells(prediction, room)].concat());
            let lacks = room.lacks(prediction);
            // One that does not fit is loaded once, to hear that.
            // Without a number, the fewest blocks that a run takes.
            let repetitions = config.repetitions.unwrap_or(Stopping::default().fewest_blocks);
            let runs = (repetitions + config.warmup) as f64;
            total += match lacks {
                None => runs * (prediction.load_s + prediction.elapsed_s),
                Some(_) => prediction.load_s,
            };
            oom += usize::from(lacks.is_some());
        }
        listed.push(json!({
            "cell": cell.name,
            "command": cell.flags,
            "room": room,
            "predictions": predictions,
            "choices": choices(&predictions, room),
        }));
    }
    let text = match json {
        true => pretty(&json!({ "cells": listed, "total_s": total, "notes": notes }))?,
        false => {
            let left = std::time::Duration::try_from_secs_f64(total).unwrap_or_default();
            let mut text = text_table(&table);
            text += &format!(
                "{} cells, about {} in all; {oom} cases will not fit\n",
                cells_to_list.len(),
                indicatif::HumanDuration(left)
            );
            notes.iter().for_each(|note| text += &format!("note: {note}\n"));
            text
        }
    };
    stdout::text(text);
    Ok(())
}
