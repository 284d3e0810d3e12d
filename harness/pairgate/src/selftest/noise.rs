//! Recorded noise: measurements of one program, run again and again, and pairs drawn from them.

use std::collections::BTreeMap;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::metric::{Metric, MetricRule};
use crate::source::{Observation, ObservationResult, Side, Source};

/// Pairs that are taken consecutively before another position in the record is drawn: long enough to keep the correlation
/// of neighbors, short enough that resamples differ.
const BLOCK_PAIRS: usize = 5;

/// The smallest number of runs in a record: with fewer, resamples are nearly equal.
const MIN_RUNS: usize = 100;

/// A record of runs in the order in which they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseRecord {
    /// The metrics that were measured, in the order of [`Metric::ALL`].
    pub metrics: Vec<Metric>,
    /// Runs, each with a value for each of `metrics`.
    pub runs: Vec<Vec<f64>>,
}

impl NoiseRecord {
    /// Reads a file of one JSON object a line, from a metric's name to its value: `{"wall":0.53,"cpu":0.52}`.
    ///
    /// # Errors
    /// The file cannot be read, or has another format.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut runs: Vec<BTreeMap<Metric, f64>> = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let run: BTreeMap<Metric, f64> = serde_json::from_str(line).map_err(|error| {
                let format = r#"each line is an object such as {"wall":0.53,"cpu":0.52,"peak-rss":30.5}"#;
                Error::file(path, format!("line {}: {error}; {format}", index + 1))
            })?;
            let positive = |value: &f64| value.is_finite() && *value > 0.0;
            if run.is_empty() || !run.values().all(positive) {
                return Err(Error::file(path, format!("line {}: values must be positive numbers", index + 1)));
            }
            if run.keys().any(|metric| !matches!(metric.rule(), MetricRule::Time | MetricRule::Memory)) {
                return Err(Error::file(path, format!("line {}: only times and memory can be replayed", index + 1)));
            }
            runs.push(run);
        }
        if runs.len() < MIN_RUNS {
            return Err(Error::file(path, format!("{} runs; a record needs at least {MIN_RUNS}", runs.len())));
        }
        let metrics: Vec<Metric> = runs[0].keys().copied().collect();
        if let Some(index) = runs.iter().position(|run| !run.keys().eq(metrics.iter())) {
            return Err(Error::file(path, format!("run {} has other metrics than the first run", index + 1)));
        }
        Ok(NoiseRecord { metrics, runs: runs.into_iter().map(|run| run.into_values().collect()).collect() })
    }
}

/// An artificial difference of the head of every pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NoiseInjection {
    /// The fraction by which times grow.
    pub time: f64,
    /// The fraction by which memory grows.
    pub memory_fraction: f64,
    /// The MiB by which memory grows in addition.
    pub memory_mib: f64,
}

/// Cases whose observations are drawn from a record.
pub struct NoiseSource<'a> {
    noise: &'a NoiseRecord,
    injections: Vec<NoiseInjection>,
    names: Vec<String>,
    cursors: Vec<RecordCursor>,
    rng: ChaCha8Rng,
}

/// The position of a case in the record.
#[derive(Clone, Copy, Default)]
struct RecordCursor {
    /// The next run.
    next: usize,
    /// Runs that remain in the current block.
    left: usize,
}

impl<'a> NoiseSource<'a> {
    /// A case for each of `injections`; the draw follows from `seed`.
    pub fn new(noise: &'a NoiseRecord, injections: Vec<NoiseInjection>, seed: u64) -> Self {
        let names: Vec<String> = (0..injections.len()).map(|index| index.to_string()).collect();
        let cursors = vec![RecordCursor::default(); injections.len()];
        NoiseSource { noise, injections, names, cursors, rng: ChaCha8Rng::seed_from_u64(seed) }
    }
}

impl Source for NoiseSource<'_> {
    fn cases(&self) -> Vec<String> {
        self.names.clone()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        self.noise.metrics.clone()
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<ObservationResult> {
        let index: usize = case.parse().map_err(|_| Error::internal(format!("no case {case} in the replay")))?;
        let cursor = &mut self.cursors[index];
        if cursor.left == 0 {
            let block = 2 * BLOCK_PAIRS;
            *cursor = RecordCursor { next: self.rng.random_range(0..=self.noise.runs.len() - block), left: block };
        }
        let run = &self.noise.runs[cursor.next];
        cursor.next += 1;
        cursor.left -= 1;
        let injection = match side {
            Side::Base => NoiseInjection::default(),
            Side::Head => self.injections[index],
        };
        let values = self.noise.metrics.iter().zip(run).map(|(metric, value)| {
            let value = match metric.rule() {
                MetricRule::Time => value * (1.0 + injection.time),
                _ => value * (1.0 + injection.memory_fraction) + injection.memory_mib,
            };
            (*metric, value)
        });
        Ok(ObservationResult::Measured(Observation { values: values.collect(), ..Observation::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_records_are_refused_with_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("noise.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            NoiseRecord::read(&path)
        };
        let good = "{\"wall\":1.5,\"cpu\":1.25}\n".repeat(100);
        let noise = read(&good).unwrap();
        assert_eq!(noise.metrics, [Metric::Wall, Metric::Cpu]);
        assert_eq!((noise.runs.len(), noise.runs[99].as_slice()), (100, [1.5, 1.25].as_slice()));
        for (text, part) in [
            ("{\"wall\":1.5}\n".to_owned(), "1 runs"),
            (format!("{good}nonsense\n"), "line 101"),
            (format!("{good}{{\"wall\":0,\"cpu\":1}}\n"), "line 101"),
            (format!("{good}{{\"wall\":1}}\n"), "run 101"),
            (format!("{good}{{\"seconds\":1}}\n"), "line 101"),
            (format!("{good}{{\"auroc\":1}}\n"), "only times and memory"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("noise.jsonl"), "{error}");
        }
    }

    #[test]
    fn draws_keep_neighbors_and_depend_on_the_seed() {
        let runs = (0..200).map(|i| vec![1.0 + f64::from(i)]).collect();
        let noise = NoiseRecord { metrics: vec![Metric::Wall], runs };
        let draw = |seed: u64| -> Vec<f64> {
            let mut source = NoiseSource::new(&noise, vec![NoiseInjection::default()], seed);
            (0..40)
                .map(|_| match source.observe("0", Side::Base).unwrap() {
                    ObservationResult::Measured(observation) => observation.values[&Metric::Wall],
                    ObservationResult::Failed(reason) => panic!("{reason}"),
                })
                .collect()
        };
        let values = draw(1);
        assert_eq!(values, draw(1));
        assert_ne!(values, draw(2));
        for block in values.chunks(2 * BLOCK_PAIRS) {
            assert!(block.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "{block:?}");
        }
    }
}
