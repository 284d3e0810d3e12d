//! Synthetic runs for the tests of histories and comparisons.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::history::{RunFacts, RunFigure, RunRecord, SeriesKey};
use crate::metric::Metric;

/// The case whose time varies.
pub(crate) const FAST: &str = "fast";

/// The case whose time is always about 4 s.
pub(crate) const STEADY: &str = "steady";

/// A run in hour `hour` of a month with two cases; [`FAST`] takes about `seconds`.
pub(crate) fn run(hour: usize, seconds: f64) -> RunRecord<&'static str> {
    let figures = [(STEADY, 4.0, 1000.0), (FAST, seconds, 800.0)].into_iter().flat_map(|(case, seconds, rss)| {
        let times = (0..5).map(|block| seconds * (1.0 + 0.001 * f64::from(block)));
        let figure = |metric: Metric, values: Vec<f64>, digests: Vec<String>| RunFigure {
            case,
            metric,
            values,
            digests,
            failed: 0,
        };
        [
            figure(Metric::Wall, times.collect(), Vec::new()),
            figure(Metric::PeakRss, vec![rss; 5], Vec::new()),
            figure(Metric::Auroc, vec![0.975; 5], Vec::new()),
            figure(Metric::ResultDigest, Vec::new(), vec!["d1".to_owned()]),
        ]
    });
    let facts = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    RunRecord {
        name: format!("{hour:03}.json"),
        label: format!("{hour:07x}"),
        date: format!("2024-05-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24),
        key: SeriesKey { work: "w".to_owned(), machine: "m".to_owned(), build: "b".to_owned() },
        facts: RunFacts {
            work: facts("samples", "10"),
            machine: facts("kernel", "Linux 6.1"),
            build: facts("profile", "release"),
            ..RunFacts::default()
        },
        figures: figures.collect(),
    }
}

/// Runs whose times scatter by about 1 percent around each of `levels`.
pub(crate) fn runs(levels: &[(usize, f64)]) -> Vec<RunRecord<&'static str>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let times: Vec<f64> = levels.iter().flat_map(|(n, level)| vec![*level; *n]).collect();
    let times = times.into_iter().map(|level| level * (1.0 + random.random_range(-0.017..0.017)));
    times.enumerate().map(|(hour, seconds)| run(hour, seconds)).collect()
}

/// The values of a figure, to change them.
pub(crate) fn figure<'a>(
    run: &'a mut RunRecord<&'static str>,
    case: &str,
    metric: Metric,
) -> &'a mut RunFigure<&'static str> {
    run.figures.iter_mut().find(|figure| figure.case == case && figure.metric == metric).unwrap()
}
