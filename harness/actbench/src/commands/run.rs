//! `actbench run`: both workloads, lazy against eager, repeated; a result file and a table.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::halved;
use super::settings::SettingsArgs;
use super::stdout;
use crate::error::{Error, Result};
use crate::measure::mounts::is_in_memory;
use crate::report::table;
use crate::results::{ResultFile, Row, Status, check_output};
use crate::runner::{RunOptions, interrupt, run as run_cases};
use crate::workload::case::{Fault, Method, RunConfig, Task};
use crate::workload::injection::Injection;
use crate::workload::preflight;

/// Run the two workloads, lazy against eager, each case in a process of its own, repeated in random order.
///
/// The table goes to standard output, progress and warnings to standard error, every observation to the result file.
#[derive(Args, Clone, Debug)]
#[command(
    // `-5` is then a value that is refused with the name of its flag, not an unknown flag.
    allow_negative_numbers = true,
    before_help = "Examples:\n  \
    actbench run\n  \
    actbench run --model ./smollm2 --dataset repe --data-dir ./data --lazy-cache-disk\n  \
    actbench run --tasks sweep --methods eager,lazy,lazy-disk --samples 2000 --budget 1h\n  \
    actbench run --tasks sweep --methods lazy --ablate\n  \
    actbench run --no-opt prefix --timeout 10m --output without-prefix.json",
    after_help = "Exit status: 0 done, 1 a case failed, 2 bad usage or input, 130 interrupted."
)]
pub struct RunArgs {
    /// Tasks
    #[arg(long, value_delimiter = ',', default_value = "train,sweep", value_name = "TASK,...")]
    pub tasks: Vec<Task>,
    /// Methods; lazy-disk is lazy with the disk cache, beside lazy
    #[arg(long, value_delimiter = ',', default_value = "eager,lazy", value_name = "METHOD,...")]
    pub methods: Vec<Method>,
    /// What is run.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Also run the lazy plans without each optimiser rule, and without all, to show what each is worth
    #[arg(long)]
    pub ablate: bool,
    /// Blocks of all cases that are counted [default: 6 to 50, until every ratio of times is known to 1.5 %]
    #[arg(long, value_name = "N")]
    pub repetitions: Option<usize>,
    /// The longest a run without --repetitions may take in all; one block is always run
    #[arg(long, default_value = "10m", value_parser = parse_duration, conflicts_with = "repetitions", value_name = "TIME")]
    pub budget: Duration,
    /// Blocks before them that are not
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub warmup: usize,
    /// The longest a case may take: seconds, or with a unit as in 90s, 10m, 2h [default: no limit]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// Folder for cache files while the run lasts [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Result file
    #[arg(long, default_value = "results.json", value_name = "FILE")]
    pub output: PathBuf,
    /// Print the result file instead of the table
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Let a case act out a failure: TASK/METHOD=FAULT; for tests of the runner
    #[arg(long, hide = true, value_parser = parse_fault)]
    pub inject_fault: Vec<(Task, Method, Fault)>,
    /// Do so many units of work beside the case; for trying the regression gate
    #[arg(long, hide = true, default_value_t = 0, value_name = "UNITS")]
    pub inject_work: u64,
    /// Hold so many bytes beside the case; for trying the regression gate
    #[arg(long, hide = true, default_value_t = 0, value_name = "BYTES")]
    pub inject_memory: u64,
}

impl RunArgs {
    /// The settings; a task or method that was named twice stands once.
    pub fn config(&self) -> RunConfig {
        let (tasks, methods) = (distinct(&self.tasks), distinct(&self.methods));
        RunConfig {
            ablate: self.ablate,
            budget_s: self.repetitions.is_none().then_some(self.budget.as_secs_f64()),
            ..self.settings.config(tasks, methods, self.repetitions, self.warmup)
        }
    }

    /// How the run is carried out; the model was found at `located_model`.
    ///
    /// # Errors
    /// This program cannot be found.
    pub fn options(&self, located_model: String) -> Result<RunOptions> {
        Ok(RunOptions {
            program: std::env::current_exe().map_err(Error::io("find", "this program"))?,
            output: self.output.clone(),
            cache_folder: self.cache_dir.clone(),
            timeout: self.timeout,
            quiet: self.quiet,
            title: None,
            located_model,
            faults: self.inject_fault.clone(),
            injection: Injection { work_units: self.inject_work, memory_bytes: self.inject_memory },
        })
    }
}

/// Runs the command.
///
/// # Errors
/// Bad settings or input, or a result file that cannot be written.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    check_output(&args.output)?;
    let config = args.config();
    let preflight = preflight(&config, args.quiet)?;
    for warning in &preflight.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(note) = preflight.device_note.as_ref().filter(|_| !args.quiet) {
        eprintln!("note: {note}");
    }
    warn_of_cache_in_memory(&preflight.config, args.cache_dir.as_deref());
    interrupt::install()?;
    let options = args.options(preflight.located_model)?;
    let report = run_cases(preflight.config, &options)?;
    if !report.results.rows.is_empty() {
        print(args.json, &report.results)?;
    }
    match report.stopped {
        Some(Error::Interrupted) => {
            let kept = match report.results.rows.len() {
                0 => "no case was finished".to_owned(),
                rows => format!("{rows} finished cases are in {}", args.output.display()),
            };
            eprintln!("error: interrupted; {kept}");
            Ok(ExitCode::from(Error::Interrupted.exit_code()))
        }
        Some(error) => Err(error),
        None if verdict(&report.results) => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::FAILURE),
    }
}

/// A cache file in memory counts as memory: the figures would be right, and the name of the method wrong.
pub(super) fn warn_of_cache_in_memory(config: &RunConfig, cache_folder: Option<&Path>) {
    let folder = cache_folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
    if config.methods.iter().any(|method| config.caches_on_disk(*method)) && is_in_memory(&folder) {
        eprintln!(
            "warning: {} keeps its files in memory, so the disk cache saves none; name a folder on a disk with --cache-dir",
            folder.display()
        );
    }
}

fn print(json: bool, results: &ResultFile) -> Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(results).map_err(|error| Error::usage(error.to_string()))? + "\n",
        false => table::render(results),
    };
    stdout::text(text);
    Ok(())
}

/// Whether all cases came through and agree; says on standard error what did not.
pub(super) fn verdict(results: &ResultFile) -> bool {
    let mut well = true;
    for task in &results.config.tasks {
        for method in &results.config.methods {
            let rows = results.rows.iter().filter(|row| (row.task, row.method) == (*task, *method));
            let (ok, failed): (Vec<&Row>, Vec<&Row>) = rows.partition(|row| row.status == Status::Ok);
            if let Some(first) = failed.first() {
                well = false;
                let reason = first.reason.as_deref().unwrap_or("no reason given");
                let total = ok.len() + failed.len();
                eprintln!("error: {task} {method}: {} of {total} failed, {}: {reason}", failed.len(), first.status);
            }
        }
        let of_task = results.rows.iter().filter(|row| row.task == *task);
        let halvings = of_task.filter_map(|row| row.extra.get("batches_halved")?.as_u64()).max();
        halved::tell(&task.to_string(), halvings.unwrap_or(0));
        if results.task_summary(*task).digests_agree == Some(false) {
            well = false;
            eprintln!("error: {task}: the methods trained their probes on different features; their digests are");
            for row in results.rows.iter().filter(|row| row.task == *task && row.status == Status::Ok) {
                let repetition = row.repetition.map_or(0, |repetition| repetition + 1);
                let digest = row.feature_digest().unwrap_or("none");
                eprintln!("error:   {}, repetition {repetition}: {digest}", row.method);
            }
        }
    }
    well
}

/// The values in order, each once.
fn distinct<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(value) {
            distinct.push(*value);
        }
    }
    distinct
}

/// Seconds, or a number with a unit as in 90s, 10m, 2h.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit '{unit}': use s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "must be above 0 and not astronomical".to_owned())
}

pub(super) fn parse_fault(text: &str) -> Result<(Task, Method, Fault), String> {
    let parts = text.split_once('=').and_then(|(case, fault)| Some((case.split_once('/')?, fault)));
    let ((task, method), fault) = parts.ok_or("write TASK/METHOD=FAULT")?;
    Ok((Task::from_str(task, false)?, Method::from_str(method, false)?, Fault::from_str(fault, false)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        for bad in ["", "0", "-1", "3 days", "1e400", "nan"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
