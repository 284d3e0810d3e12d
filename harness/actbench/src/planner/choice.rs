//! Which methods fit into memory and disk, and which of them to use.

use std::path::Path;

use indicatif::BinaryBytes;
use serde::Serialize;

use super::prediction::CasePrediction;
use crate::case::{Method, RunConfig, Task};
use crate::measure::limit;
use crate::results::summary::EQUAL_TIME_FRACTION;

/// The available memory and disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AvailableSpace {
    /// Memory limit of a case in bytes; none is no limit.
    pub memory: Option<u64>,
    /// Free bytes of the file system for cache files; none if unknown.
    pub disk: Option<u64>,
}

/// What a case does not fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Memory.
    Memory,
    /// Disk space for its cache files.
    Disk,
}

impl AvailableSpace {
    /// The memory limit of a case with settings `config`, and the free space of the file system of `directory`.
    pub fn for_case(config: &RunConfig, directory: &Path) -> Self {
        AvailableSpace {
            memory: config.memory_limit.bytes(limit::available()),
            disk: fs4::available_space(directory).ok(),
        }
    }

    /// What the case of `prediction` does not fit into; none if it fits.
    pub fn shortage(&self, prediction: &CasePrediction) -> Option<Shortage> {
        let over = |bytes: u64, limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
        match (over(prediction.rss_bytes, self.memory), over(prediction.disk_bytes, self.disk)) {
            (true, _) => Some(Shortage::Memory),
            (false, true) => Some(Shortage::Disk),
            (false, false) => None,
        }
    }
}

/// The method to use for one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodChoice {
    /// The task.
    pub task: Task,
    /// The method; none if no method fits.
    pub method: Option<Method>,
    /// The reason.
    pub why: String,
}

/// Chooses, for each task of `predictions`, the method that needs the least memory among the fastest that fit. Methods within
/// [`EQUAL_TIME_FRACTION`] of the fastest count as equally fast, as in recommendations from results.
pub fn choices(predictions: &[CasePrediction], space: AvailableSpace) -> Vec<MethodChoice> {
    let mut tasks: Vec<Task> = predictions.iter().map(|prediction| prediction.task).collect();
    tasks.dedup();
    tasks.into_iter().map(|task| choice(task, predictions, space)).collect()
}

fn choice(task: Task, predictions: &[CasePrediction], space: AvailableSpace) -> MethodChoice {
    let same_task: Vec<&CasePrediction> = predictions.iter().filter(|prediction| prediction.task == task).collect();
    let (fitting, too_large): (Vec<&CasePrediction>, Vec<&CasePrediction>) =
        same_task.iter().copied().partition(|prediction| space.shortage(prediction).is_none());
    let fastest = fitting.iter().map(|prediction| prediction.elapsed_s).fold(f64::INFINITY, f64::min);
    let fast = fitting.iter().filter(|prediction| prediction.elapsed_s <= fastest * (1.0 + EQUAL_TIME_FRACTION));
    let chosen = fast.min_by_key(|prediction| prediction.rss_bytes).copied();
    let Some(chosen) = chosen else {
        let least = same_task.iter().map(|prediction| prediction.rss_bytes).min().unwrap_or(0);
        let why = format!("no method fits: the smallest needs {}; use fewer samples or layers", BinaryBytes(least));
        return MethodChoice { task, method: None, why };
    };
    let mut reasons: Vec<String> = too_large.iter().map(|prediction| does_not_fit(prediction, space)).collect();
    let others = fitting.iter().filter(|prediction| prediction.method != chosen.method);
    reasons.extend(others.map(|other| {
        format!(
            "{} needs {:.2}x the time and {:.2}x the memory",
            other.method,
            other.elapsed_s / chosen.elapsed_s,
            other.rss_bytes as f64 / chosen.rss_bytes as f64
        )
    }));
    let why = if reasons.is_empty() { "it fits".to_owned() } else { reasons.join("; ") };
    MethodChoice { task, method: Some(chosen.method), why }
}

/// Why the case of `prediction` does not fit: `eager needs 9.00 GiB; the limit is 8.00 GiB`.
fn does_not_fit(prediction: &CasePrediction, space: AvailableSpace) -> String {
    let method = prediction.method;
    if space.shortage(prediction) == Some(Shortage::Disk) {
        let (needed, free) = distinct_sizes(prediction.disk_bytes, space.disk.unwrap_or(0));
        return format!("{method} needs {needed} of disk space; {free} are free");
    }
    let (needed, limit) = distinct_sizes(prediction.rss_bytes, space.memory.unwrap_or(0));
    format!("{method} needs {needed}; the limit is {limit}")
}

/// Two sizes as text, in bytes if they would otherwise print alike.
fn distinct_sizes(a: u64, b: u64) -> (String, String) {
    let (short_a, short_b) = (BinaryBytes(a).to_string(), BinaryBytes(b).to_string());
    if short_a == short_b && a != b { (format!("{a} bytes"), format!("{b} bytes")) } else { (short_a, short_b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(method: Method, rss_bytes: u64, disk_bytes: u64, elapsed_s: f64) -> CasePrediction {
        CasePrediction {
            task: Task::Sweep,
            method,
            rss_bytes,
            heap_bytes: rss_bytes,
            gpu_bytes: 0,
            disk_bytes,
            flops: 0,
            rows: 0,
            load_s: 0.0,
            extract_s: elapsed_s,
            train_eval_s: 0.0,
            elapsed_s,
        }
    }

    #[test]
    fn smallest_of_fastest_fitting_methods_is_chosen() {
        let predictions = [
            prediction(Method::Eager, 9000, 0, 1.0),
            prediction(Method::Lazy, 500, 0, 2.0),
            prediction(Method::LazyDisk, 300, 700, 2.05),
        ];
        let choose = |memory, disk| choices(&predictions, AvailableSpace { memory, disk }).remove(0);
        assert_eq!(choose(None, None).method, Some(Method::Eager));
        let choice = choose(Some(9000), None);
        assert_eq!(choice.method, Some(Method::Eager), "a case of exactly the limit fits");
        let choice = choose(Some(8999), None);
        assert_eq!(choice.method, Some(Method::LazyDisk));
        assert!(
            choice.why.starts_with("eager needs 9000 bytes; the limit is 8999 bytes; lazy needs 0.98x"),
            "{}",
            choice.why
        );
        let choice = choose(Some(8999), Some(699));
        assert_eq!(choice.method, Some(Method::Lazy));
        assert!(choice.why.contains("lazy-disk needs 700 B of disk space; 699 B are free"), "{}", choice.why);
        let choice = choose(Some(100), None);
        assert_eq!((choice.method, choice.why.starts_with("no method fits: the smallest needs 300 B")), (None, true));
    }
}
