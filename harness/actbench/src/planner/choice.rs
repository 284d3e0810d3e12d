//! Which methods fit, and which to take.

use serde::Serialize;

use super::Prediction;
use crate::case::{Method, Task};
use crate::crossover::recommend::SAME_TIME;

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Bytes that a case may use; none is no limit.
    pub memory: Option<u64>,
    /// Bytes that are free where cache files go; none where that is not known.
    pub disk: Option<u64>,
}

/// What a case lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lacks {
    /// Memory.
    Memory,
    /// Room for its cache file.
    Disk,
}

impl Room {
    /// What `prediction` lacks; none where it fits.
    pub fn lacks(&self, prediction: &Prediction) -> Option<Lacks> {
        let over = |bytes: u64, limit: Option<u64>| limit.is_some_and(|limit| bytes > limit);
        match (over(prediction.rss_bytes, self.memory), over(prediction.disk_bytes, self.disk)) {
            (true, _) => Some(Lacks::Memory),
            (false, true) => Some(Lacks::Disk),
            (false, false) => None,
        }
    }
}

/// The method to take for one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The task.
    pub task: Task,
    /// The method; none where none fits.
    pub method: Option<Method>,
    /// Why.
    pub why: String,
}

/// For each task among `predictions`: of the methods that fit the fastest, and of those about as fast the one that takes the
/// least memory, as [`crate::crossover::recommend`] chooses by results.
pub fn choices(predictions: &[Prediction], room: Room) -> Vec<Choice> {
    let mut tasks: Vec<Task> = predictions.iter().map(|prediction| prediction.task).collect();
    tasks.dedup();
    tasks.into_iter().map(|task| choice(task, predictions, room)).collect()
}

fn choice(task: Task, predictions: &[Prediction], room: Room) -> Choice {
    let of_task: Vec<&Prediction> = predictions.iter().filter(|prediction| prediction.task == task).collect();
    let (fit, not): (Vec<&Prediction>, Vec<&Prediction>) =
        of_task.iter().copied().partition(|prediction| room.lacks(prediction).is_none());
    let fastest = fit.iter().map(|prediction| prediction.elapsed_s).fold(f64::INFINITY, f64::min);
    let fast = fit.iter().filter(|prediction| prediction.elapsed_s <= fastest * (1.0 + SAME_TIME));
    let chosen = fast.min_by_key(|prediction| prediction.rss_bytes).copied();
    let Some(chosen) = chosen else {
        let least = of_task.iter().map(|prediction| prediction.rss_bytes).min().unwrap_or(0);
        let what = format!("no method fits: the smallest wants {}; take fewer samples or layers", gigabytes(least));
        return Choice { task, method: None, why: what };
    };
    let mut reasons: Vec<String> = not
        .iter()
        .map(|prediction| match room.lacks(prediction) {
            Some(Lacks::Disk) => format!(
                "{} wants {} of disk where {} are free",
                prediction.method,
                gigabytes(prediction.disk_bytes),
                gigabytes(room.disk.unwrap_or(0))
            ),
            _ => format!(
                "{} wants {} where it may use {}",
                prediction.method,
                gigabytes(prediction.rss_bytes),
                gigabytes(room.memory.unwrap_or(0))
            ),
        })
        .collect();
    let others = fit.iter().filter(|prediction| prediction.method != chosen.method);
    reasons.extend(others.map(|other| {
        format!(
            "{} takes {:.2}x the time and {:.2}x the memory",
            other.method,
            other.elapsed_s / chosen.elapsed_s,
            other.rss_bytes as f64 / chosen.rss_bytes as f64
        )
    }));
    let why = if reasons.is_empty() { "it fits".to_owned() } else { reasons.join("; ") };
    Choice { task, method: Some(chosen.method), why }
}

/// `1.9 GiB`.
fn gigabytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(method: Method, rss_bytes: u64, disk_bytes: u64, elapsed_s: f64) -> Prediction {
        Prediction {
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
    fn the_fastest_that_fits_is_taken_and_of_equals_the_smallest() {
        let predictions = [
            prediction(Method::Eager, 9000, 0, 1.0),
            prediction(Method::Lazy, 500, 0, 2.0),
            prediction(Method::LazyDisk, 300, 700, 2.05),
        ];
        let taken = |memory, disk| choices(&predictions, Room { memory, disk }).remove(0);
        assert_eq!(taken(None, None).method, Some(Method::Eager));
        let choice = taken(Some(9000), None);
        assert_eq!(choice.method, Some(Method::Eager), "the limit itself fits");
        let choice = taken(Some(8999), None);
        assert_eq!(choice.method, Some(Method::LazyDisk));
        assert!(
            choice.why.starts_with("eager wants 8.79 KiB where it may use 8.79 KiB; lazy takes 0.98x"),
            "{}",
            choice.why
        );
        let choice = taken(Some(8999), Some(699));
        assert_eq!(choice.method, Some(Method::Lazy));
        assert!(choice.why.contains("lazy-disk wants 700 B of disk where 699 B are free"), "{}", choice.why);
        let choice = taken(Some(100), None);
        assert_eq!((choice.method, choice.why.starts_with("no method fits: the smallest wants 300 B")), (None, true));
    }
}
