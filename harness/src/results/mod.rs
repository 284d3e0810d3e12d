//! The result file: what was run, where, every observation, and what they come to.

use std::fmt;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::measure::environment::Environment;
use crate::measure::memory::Peaks;
use crate::runner::child::Ending;
use crate::runner::schedule::Slot;
use crate::workload::case::{Method, RunConfig, Task};

pub mod summary;

use summary::TaskSummary;

/// The schema's name and version; raised when a name changes its meaning.
pub const SCHEMA: &str = "actbench/1";

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It came through.
    Ok,
    /// It wanted more memory than there is.
    Oom,
    /// It took longer than it may.
    Timeout,
    /// A signal ended it.
    Killed,
    /// Anything else.
    Error,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Oom => "oom",
            Status::Timeout => "timeout",
            Status::Killed => "killed",
            Status::Error => "error",
        })
    }
}

/// One observation: one case, once. Memory is in MB of 2^20 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub task: Task,
    /// How.
    pub method: Method,
    /// The block it belongs to, from 0 on.
    pub repetition: Option<usize>,
    /// How it ended.
    pub status: Status,
    /// Why it did not come through.
    pub reason: Option<String>,
    /// Seconds of everything after loading.
    pub elapsed_s: Option<f64>,
    /// Seconds until the features were there.
    pub extract_s: Option<f64>,
    /// Seconds of training and scoring.
    pub train_eval_s: Option<f64>,
    /// The kernel's high-water mark of the resident size.
    pub cpu_peak_rss_mb: Option<f64>,
    /// The allocator's high-water mark.
    pub cpu_peak_heap_mb: Option<f64>,
    /// The GPU memory pool's high-water mark of memory used.
    pub gpu_peak_alloc_mb: Option<f64>,
    /// The GPU memory pool's high-water mark of memory reserved.
    pub gpu_peak_reserved_mb: Option<f64>,
    /// `auroc` or `mean_auroc`.
    pub metric_name: String,
    /// Its value.
    pub metric_value: Option<f64>,
    /// Everything else.
    pub extra: Map<String, Value>,
}

impl Row {
    /// The row of a case that ended in `ending`.
    pub fn new(slot: Slot, ending: Ending) -> Self {
        let metric_name = match slot.task {
            Task::Train => "auroc",
            Task::Sweep => "mean_auroc",
        };
        let mut row = Row {
            task: slot.task,
            method: slot.method,
            repetition: slot.block,
            status: Status::Error,
            reason: None,
            elapsed_s: None,
            extract_s: None,
            train_eval_s: None,
            cpu_peak_rss_mb: None,
            cpu_peak_heap_mb: None,
            gpu_peak_alloc_mb: None,
            gpu_peak_reserved_mb: None,
            metric_name: metric_name.to_owned(),
            metric_value: None,
            extra: Map::new(),
        };
        match ending {
            Ending::Done(outcome, peaks) => {
                row.status = Status::Ok;
                row.elapsed_s = finite(outcome.elapsed_s);
                row.extract_s = finite(outcome.extract_s);
                row.train_eval_s = finite(outcome.train_eval_s);
                row.metric_name = outcome.metric_name;
                row.metric_value = finite(outcome.metric_value);
                row.extra = outcome.extra;
                row.add_peaks(peaks);
            }
            Ending::Failed(failure) => {
                row.status = if failure.out_of_memory_bytes.is_some() { Status::Oom } else { Status::Error };
                if let Some(bytes) = failure.out_of_memory_bytes {
                    row.extra.insert("oom_bytes".to_owned(), json!(bytes));
                }
                row.reason = Some(failure.message);
            }
            Ending::TimedOut(limit) => {
                row.status = Status::Timeout;
                row.reason = Some(format!("took longer than {} s (--timeout)", limit.as_secs_f64()));
            }
            Ending::Killed(signal) => {
                row.status = Status::Killed;
                let hint = match signal {
                    libc::SIGKILL => ", as the kernel does when memory runs out",
                    _ => "",
                };
                row.reason = Some(format!("ended by signal {signal}{hint}"));
            }
            Ending::Silent(code, stderr) => {
                let code = code.map_or_else(|| "no exit status".to_owned(), |code| format!("exit status {code}"));
                let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing on stderr");
                row.reason = Some(format!("ended without a result, {code}: {last}"));
            }
            Ending::Garbled(line) => {
                let start: String = line.chars().take(80).collect();
                row.reason = Some(format!("said something that is no message: {start}"));
            }
        }
        row
    }

    fn add_peaks(&mut self, peaks: Peaks) {
        self.cpu_peak_rss_mb = peaks.rss_mb.and_then(finite);
        self.cpu_peak_heap_mb = finite(peaks.heap_mb);
        for (name, value) in [
            ("rss_anonymous_mb", json!(peaks.rss_anonymous_mb)),
            ("rss_file_mb", json!(peaks.rss_file_mb)),
            ("load_peak_rss_mb", json!(peaks.load_rss_mb)),
            ("peak_includes_loading", json!(peaks.includes_loading)),
        ] {
            self.extra.insert(name.to_owned(), value);
        }
    }

    /// The digest of the features its probes were trained on.
    pub fn feature_digest(&self) -> Option<&str> {
        self.extra.get("feature_digest").and_then(Value::as_str)
    }
}

/// JSON has no NaN; what is not finite is null in the file.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was run.
    pub config: RunConfig,
    /// Where.
    pub environment: Environment,
    /// Every counted observation, in the order in which they were made.
    pub rows: Vec<Row>,
    /// What they come to, by task.
    pub summary: Map<String, Value>,
}

impl ResultFile {
    /// No observations yet.
    pub fn new(config: RunConfig, environment: Environment) -> Self {
        ResultFile { schema: SCHEMA.to_owned(), config, environment, rows: Vec::new(), summary: Map::new() }
    }

    /// Adds an observation and sums up anew.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
        self.summary = self
            .config
            .tasks
            .iter()
            .filter_map(|task| Some((task.to_string(), serde_json::to_value(TaskSummary::of(*task, &self.rows)).ok()?)))
            .collect();
    }

    /// What the observations of `task` come to.
    pub fn task_summary(&self, task: Task) -> TaskSummary {
        TaskSummary::of(task, &self.rows)
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::file(path, error.to_string()))?;
        text.push(b'\n');
        write_whole(path, &text)
    }
}

/// Writes a file under a temporary name in its folder, and gives it its name once it is on the disk.
///
/// # Errors
/// The folder cannot be written to; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".actbench-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        // Readable by all, as other results are; temporary files are made for their owner alone.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(Error::io("write", path))
}
