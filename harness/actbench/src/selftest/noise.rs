//! Recorded noise: one process run after another of one and the same program, and pairs drawn from it.

use std::collections::BTreeMap;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::gate::source::{Observation, Observed, Side, Source};
use crate::gate::{Metric, Rule};

/// Pairs that are taken as they followed each other before another place in the record is drawn: long enough to keep
/// what ties neighbours together, short enough that a resample is no mere copy.
const BLOCK_PAIRS: usize = 5;

/// The fewest runs that a record must have: with fewer, resamples are copies of one another.
const FEWEST_RUNS: usize = 100;

/// A record of runs in the order in which they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// What was measured, in the order of [`Metric::ALL`].
    pub metrics: Vec<Metric>,
    /// Runs; each has a value for each of `metrics`.
    pub runs: Vec<Vec<f64>>,
}

impl Noise {
    /// Reads a file of one JSON object a line, from a metric's name to its value: `{"wall":0.53,"cpu":0.52}`.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut runs: Vec<BTreeMap<Metric, f64>> = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let run: BTreeMap<Metric, f64> = serde_json::from_str(line).map_err(|error| {
                let wanted = r#"each line is an object such as {"wall":0.53,"cpu":0.52,"peak-rss":30.5}"#;
                Error::file(path, format!("line {}: {error}; {wanted}", index + 1))
            })?;
            let positive = |value: &f64| value.is_finite() && *value > 0.0;
            if run.is_empty() || !run.values().all(positive) {
                return Err(Error::file(path, format!("line {}: values must be positive numbers", index + 1)));
            }
            if run.keys().any(|metric| !matches!(metric.rule(), Rule::Time | Rule::Memory)) {
                return Err(Error::file(path, format!("line {}: only times and memory have noise", index + 1)));
            }
            runs.push(run);
        }
        if runs.len() < FEWEST_RUNS {
            return Err(Error::file(path, format!("{} runs; a record needs at least {FEWEST_RUNS}", runs.len())));
        }
        let metrics: Vec<Metric> = runs[0].keys().copied().collect();
        if let Some(index) = runs.iter().position(|run| !run.keys().eq(metrics.iter())) {
            return Err(Error::file(path, format!("run {} has other metrics than the first", index + 1)));
        }
        Ok(Noise { metrics, runs: runs.into_iter().map(|run| run.into_values().collect()).collect() })
    }
}

/// What is done to the head of every pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Injection {
    /// Times are longer by this share.
    pub time: f64,
    /// Memory is larger by this share...
    pub memory_share: f64,
    /// ...and by so many MB.
    pub memory_mb: f64,
}

/// Cases whose processes are drawn from a record.
pub struct NoiseSource<'a> {
    noise: &'a Noise,
    injections: Vec<Injection>,
    names: Vec<String>,
    cursors: Vec<Cursor>,
    rng: ChaCha8Rng,
    /// Processes drawn.
    pub drawn: usize,
}

#[derive(Clone, Copy, Default)]
struct Cursor {
    next: usize,
    left: usize,
}

impl<'a> NoiseSource<'a> {
    /// A case for each of `injections`; the draw follows from `seed`.
    pub fn new(noise: &'a Noise, injections: Vec<Injection>, seed: u64) -> Self {
        let names: Vec<String> = (0..injections.len()).map(|index| index.to_string()).collect();
        let cursors = vec![Cursor::default(); injections.len()];
        NoiseSource { noise, injections, names, cursors, rng: ChaCha8Rng::seed_from_u64(seed), drawn: 0 }
    }
}

impl Source for NoiseSource<'_> {
    fn cases(&self) -> Vec<String> {
        self.names.clone()
    }

    fn metrics(&self, _case: &str) -> Vec<Metric> {
        self.noise.metrics.clone()
    }

    fn observe(&mut self, case: &str, side: Side) -> Result<Observed> {
        let index: usize = case.parse().map_err(|_| Error::usage(format!("no case {case}")))?;
        let cursor = &mut self.cursors[index];
        if cursor.left == 0 {
            let block = 2 * BLOCK_PAIRS;
            *cursor = Cursor { next: self.rng.random_range(0..=self.noise.runs.len() - block), left: block };
        }
        let run = &self.noise.runs[cursor.next];
        cursor.next += 1;
        cursor.left -= 1;
        self.drawn += 1;
        let injection = match side {
            Side::Base => Injection::default(),
            Side::Head => self.injections[index],
        };
        let values = self.noise.metrics.iter().zip(run).map(|(metric, value)| {
            let value = match metric.rule() {
                Rule::Time => value * (1.0 + injection.time),
                _ => value * (1.0 + injection.memory_share) + injection.memory_mb,
            };
            (*metric, value)
        });
        Ok(Observed::Measured(Observation { values: values.collect(), digest: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_bad_ones_refused_with_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Noise::read(&path)
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
    fn neighbours_stay_neighbours_and_the_draw_follows_the_seed() {
        let runs = (0..200).map(|i| vec![1.0 + f64::from(i)]).collect();
        let noise = Noise { metrics: vec![Metric::Wall], runs };
        let draw = |seed: u64| -> Vec<f64> {
            let mut source = NoiseSource::new(&noise, vec![Injection::default()], seed);
            (0..40)
                .map(|_| match source.observe("0", Side::Base).unwrap() {
                    Observed::Measured(observation) => observation.values[&Metric::Wall],
                    Observed::Failed(reason) => panic!("{reason}"),
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
