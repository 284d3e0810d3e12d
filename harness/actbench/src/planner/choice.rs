//! Which methods fit into memory and disk, and which of them to use.

use std::path::Path;

use actbench_activations::units::Bytes;
use indicatif::HumanCount;
use serde::Serialize;

use super::prediction::CasePrediction;
use super::published_gpu::PublishedGpu;
use crate::case::{Method, RunConfig, Task};
use crate::measure::{MIB, limit};
use crate::results::choice::{MethodNeeds, UndecidedTimes, choose, not_tried};

/// The available memory and disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AvailableSpace {
    /// Memory limit of a case in bytes; none is no limit.
    pub memory: Option<u64>,
    /// Free bytes of the file system for cache files; none if unknown.
    pub disk: Option<u64>,
    /// Memory of the GPU that runs the model; none if the model runs on the CPU.
    pub gpu: Option<u64>,
}

/// What a case does not fit into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortage {
    /// Memory.
    Memory,
    /// Disk space for its cache files.
    Disk,
    /// Memory of the GPU.
    Gpu,
}

impl AvailableSpace {
    /// The memory limit of a case with settings `config`, and the free space of the file system of `directory`.
    pub fn for_case(config: &RunConfig, directory: &Path) -> Self {
        AvailableSpace {
            memory: config.memory_limit.bytes(limit::available()),
            disk: fs4::available_space(directory).ok(),
            gpu: None,
        }
    }

    /// The same with the model on `gpu`.
    pub fn on(self, gpu: Option<&PublishedGpu>) -> Self {
        AvailableSpace { gpu: gpu.map(|gpu| gpu.memory_bytes), ..self }
    }

    /// What the case of `prediction` does not fit into; none if it fits.
    pub fn shortage(&self, prediction: &CasePrediction) -> Option<Shortage> {
        let over = |bytes: u64, limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
        let shortages = [
            (Shortage::Memory, over(prediction.rss_bytes, self.memory)),
            (Shortage::Gpu, over(prediction.gpu_bytes, self.gpu)),
            (Shortage::Disk, over(prediction.disk_bytes, self.disk)),
        ];
        shortages.into_iter().find(|(_, short)| *short).map(|(shortage, _)| shortage)
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

/// Chooses, for each task of `predictions`, among the methods that fit, by the rule of [`choose`], as recommendations from
/// results do.
pub fn choices(predictions: &[CasePrediction], space: AvailableSpace) -> Vec<MethodChoice> {
    let mut tasks: Vec<Task> = predictions.iter().map(|prediction| prediction.task).collect();
    tasks.dedup();
    tasks.into_iter().map(|task| choice(task, predictions, space)).collect()
}

fn choice(task: Task, predictions: &[CasePrediction], space: AvailableSpace) -> MethodChoice {
    let same_task: Vec<&CasePrediction> = predictions.iter().filter(|prediction| prediction.task == task).collect();
    let (fitting, too_large): (Vec<&CasePrediction>, Vec<&CasePrediction>) =
        same_task.iter().copied().partition(|prediction| space.shortage(prediction).is_none());
    let needs: Vec<MethodNeeds> = fitting.iter().copied().map(needs_of).collect();
    // Predictions have no intervals.
    let decided = UndecidedTimes::default();
    let Some(chosen) = choose(&needs, &decided) else {
        let least = |bytes: fn(&CasePrediction) -> u64| Bytes(same_task.iter().map(|it| bytes(it)).min().unwrap_or(0));
        let why = if same_task.iter().any(|prediction| space.shortage(prediction) == Some(Shortage::Gpu)) {
            let least = least(|prediction| prediction.gpu_bytes);
            format!("no method fits: the smallest needs {least} of GPU memory; use a smaller batch or fewer layers")
        } else {
            let least = least(|prediction| prediction.rss_bytes);
            format!("no method fits: the smallest needs {least}; use fewer samples or layers")
        };
        return MethodChoice { task, method: None, why };
    };
    let mut reasons: Vec<String> = too_large.iter().map(|prediction| does_not_fit(prediction, space)).collect();
    let others = needs.iter().filter(|it| it.method != chosen.method);
    reasons.extend(others.map(|other| other.against(&chosen, &decided)));
    reasons.extend(not_tried(|method| same_task.iter().any(|prediction| prediction.method == method)));
    let why = if reasons.is_empty() { "it fits".to_owned() } else { reasons.join("; ") };
    MethodChoice { task, method: Some(chosen.method), why }
}

fn needs_of(prediction: &CasePrediction) -> MethodNeeds {
    MethodNeeds {
        method: prediction.method,
        seconds: prediction.elapsed_s,
        memory_mib: Some(prediction.rss_bytes as f64 / MIB),
    }
}

/// Why the case of `prediction` does not fit: `eager needs 9.00 GiB; the limit is 8.00 GiB`.
fn does_not_fit(prediction: &CasePrediction, space: AvailableSpace) -> String {
    let method = prediction.method;
    match space.shortage(prediction) {
        Some(Shortage::Disk) => {
            let (needed, free) = distinct_sizes(prediction.disk_bytes, space.disk.unwrap_or(0));
            format!("{method} needs {needed} of disk space; {free} are free")
        }
        Some(Shortage::Gpu) => {
            let (needed, memory) = distinct_sizes(prediction.gpu_bytes, space.gpu.unwrap_or(0));
            format!("{method} needs {needed} of GPU memory; the GPU has {memory}")
        }
        Some(Shortage::Memory) | None => {
            let (needed, limit) = distinct_sizes(prediction.rss_bytes, space.memory.unwrap_or(0));
            format!("{method} needs {needed}; the limit is {limit}")
        }
    }
}

/// Two sizes as text, in single bytes if they would otherwise print alike.
fn distinct_sizes(a: u64, b: u64) -> (String, String) {
    let (short_a, short_b) = (Bytes(a).to_string(), Bytes(b).to_string());
    let exact = |bytes: u64| format!("{} bytes", HumanCount(bytes));
    if short_a == short_b && a != b { (exact(a), exact(b)) } else { (short_a, short_b) }
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
    fn methods_that_fit_are_chosen_by_the_shared_rule() {
        let predictions = [
            prediction(Method::Eager, 9000, 0, 1.0),
            prediction(Method::Lazy, 500, 0, 2.0),
            prediction(Method::LazyDisk, 300, 700, 2.2),
        ];
        let choose = |memory, disk| choices(&predictions, AvailableSpace { memory, disk, gpu: None }).remove(0);
        assert_eq!(choose(None, None).method, Some(Method::Eager));
        let choice = choose(Some(9000), None);
        assert_eq!(choice.method, Some(Method::Eager), "a case of exactly the limit fits");
        let choice = choose(Some(8999), None);
        assert_eq!(choice.method, Some(Method::Lazy));
        assert!(
            choice.why
                == "eager needs 9,000 bytes; the limit is 8,999 bytes; lazy-disk needs 1.10x the time and 0.60x the memory",
            "{}",
            choice.why
        );
        let choice = choose(Some(8999), Some(699));
        assert_eq!(choice.method, Some(Method::Lazy));
        assert!(choice.why.contains("lazy-disk needs 700 B of disk space; 699 B are free"), "{}", choice.why);
        let on_gpu = AvailableSpace { memory: Some(8999), disk: None, gpu: Some(15) };
        let with_gpu_bytes = predictions.clone().map(|it| CasePrediction { gpu_bytes: it.elapsed_s as u64 + 14, ..it });
        let choice_on_gpu = choices(&with_gpu_bytes, on_gpu).remove(0);
        assert_eq!(choice_on_gpu.method, None);
        assert!(
            choice_on_gpu.why.starts_with("no method fits: the smallest needs 15 B of GPU memory"),
            "{}",
            choice_on_gpu.why
        );
        assert_eq!(
            with_gpu_bytes.map(|it| on_gpu.shortage(&it)),
            [Some(Shortage::Memory), Some(Shortage::Gpu), Some(Shortage::Gpu)]
        );
        let choice = choose(Some(100), None);
        assert_eq!((choice.method, choice.why.starts_with("no method fits: the smallest needs 300 B")), (None, true));
    }

    #[test]
    fn small_memory_advantage_does_not_choose_disk_cache() {
        let mib = |mib: u64| mib << 20;
        let of = |disk: u64| {
            let predictions =
                [prediction(Method::Lazy, mib(196), 0, 2.0), prediction(Method::LazyDisk, disk, 700, 2.0)];
            choices(&predictions, AvailableSpace { memory: None, disk: None, gpu: None }).remove(0)
        };
        let choice = of(mib(195));
        assert_eq!(choice.method, Some(Method::Lazy));
        assert_eq!(choice.why, "lazy-disk needs the same time and the same memory; eager was not tried");
        assert_eq!(of(mib(100)).method, Some(Method::LazyDisk));
    }
}
