//! Summary of one task of one result file: the figures of each method, and the comparisons of eager with each lazy method.

use serde::Serialize;

use super::setting::{Setting, prepare_labels};
use crate::case::{CasePhases, Method, NamedPhase, Task};
use crate::results::ablation::AblationResult;
use crate::results::choice::RepetitionCounts;
use crate::results::summary::{CONFIDENCE, Comparison, Interval, TaskSummary, lazy_time_ratio};
use crate::results::{NamedResults, Row, Status};
use pairgate::stats::WalshAverages;
use pairgate::stats::summary::median;

/// A median with the confidence interval of the center; no interval from a single observation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MedianInterval {
    /// The median of the observations.
    pub median: f64,
    /// The interval, widened to contain the median if it lies outside.
    pub interval: Option<Interval>,
}

impl MedianInterval {
    /// The median and interval of positive observations. The interval is that of [`WalshAverages`] on their logarithms,
    /// because times and memory vary by factors. None without observations, or if one is not positive and finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !(value.is_finite() && *value > 0.0)) {
            return None;
        }
        let median = median(values).ok()?;
        let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        let interval = WalshAverages::of(&logarithms).ok().and_then(|averages| averages.interval(CONFIDENCE).ok()?);
        let interval = interval.map(|ends| Interval {
            low: ends.low.exp().min(median),
            high: ends.high.exp().max(median),
            confidence: ends.confidence,
            n: values.len(),
        });
        Some(MedianInterval { median, interval })
    }
}

/// The figures of a method in one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodFigures {
    /// The method; lazy with the disk cache is `lazy-disk` whichever flag asked for it.
    pub method: Method,
    /// Counted observations that succeeded.
    pub n_ok: usize,
    /// Counted observations.
    pub n: usize,
    /// Counted observations that ran out of memory.
    #[serde(skip)]
    pub n_oom: usize,
    /// Status and reason of the first failure.
    pub failure: Option<(Status, String)>,
    /// Seconds from the end of loading to the end of the case.
    pub elapsed_s: Option<MedianInterval>,
    /// Seconds of feature extraction.
    pub extract_s: Option<MedianInterval>,
    /// Seconds of training and scoring the probes.
    pub train_eval_s: Option<MedianInterval>,
    /// Peak resident size, in MiB.
    pub cpu_peak_rss_mb: Option<MedianInterval>,
    /// Peak heap size, in MiB.
    pub cpu_peak_heap_mb: Option<MedianInterval>,
    /// Peak GPU memory in use, in MiB.
    pub gpu_peak_alloc_mb: Option<MedianInterval>,
    /// Peak GPU memory reserved by the pool, in MiB.
    pub gpu_peak_reserved_mb: Option<MedianInterval>,
    /// Median of the metric.
    pub metric: Option<f64>,
    /// [`phase_medians`].
    #[serde(skip)]
    pub phases: Vec<Option<f64>>,
}

/// The median seconds of each of [`CasePhases::ALL`] over the rows that succeeded; none where no row has the phase.
pub fn phase_medians(rows: &[&Row]) -> Vec<Option<f64>> {
    let phases: Vec<&CasePhases> =
        rows.iter().filter(|row| row.status == Status::Ok).filter_map(|row| row.metrics.phases.as_ref()).collect();
    let of_phase =
        |(_, value): NamedPhase| median(&phases.iter().filter_map(|phases| value(phases)).collect::<Vec<f64>>()).ok();
    CasePhases::ALL.into_iter().map(of_phase).collect()
}

impl MethodFigures {
    fn of(method: Method, rows: &[&Row]) -> Self {
        let ok: Vec<&Row> = rows.iter().copied().filter(|row| row.status == Status::Ok).collect();
        let values = |value: fn(&Row) -> Option<f64>| ok.iter().filter_map(|row| value(row)).collect::<Vec<f64>>();
        let figure = |value| MedianInterval::of(&values(value));
        let failed = rows.iter().find(|row| row.status != Status::Ok);
        MethodFigures {
            method,
            n_ok: ok.len(),
            n: rows.len(),
            n_oom: rows.iter().filter(|row| row.status == Status::Oom).count(),
            failure: failed.map(|row| (row.status, row.reason.clone().unwrap_or_else(|| "no reason given".to_owned()))),
            elapsed_s: figure(Row::time_s),
            extract_s: figure(|row| row.extract_s),
            train_eval_s: figure(|row| row.train_eval_s),
            cpu_peak_rss_mb: figure(|row| row.cpu_peak_rss_mb),
            cpu_peak_heap_mb: figure(|row| row.cpu_peak_heap_mb),
            gpu_peak_alloc_mb: figure(|row| row.gpu_peak_alloc_mb),
            gpu_peak_reserved_mb: figure(|row| row.gpu_peak_reserved_mb),
            metric: median(&values(|row| row.metric_value)).ok(),
            phases: phase_medians(rows),
        }
    }

    /// How its observations ended.
    pub fn counts(&self) -> RepetitionCounts {
        RepetitionCounts { n: self.n, n_ok: self.n_ok, n_oom: self.n_oom }
    }

    /// Whether the method succeeded, but no observation has a time.
    pub fn is_untimed(&self) -> bool {
        self.n_ok > 0 && self.elapsed_s.is_none()
    }

    /// Whether the method was run and never succeeded.
    pub fn never_succeeded(&self) -> bool {
        self.n > 0 && self.n_ok == 0
    }
}

/// AUROC by layer and C.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AurocGrid {
    /// Values of C.
    pub cs: Vec<f64>,
    /// One list for each layer, from 0 on, with one value for each C.
    pub aurocs: Vec<Vec<f64>>,
}

/// One task of one result file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Name of the result file.
    pub run: String,
    /// When the run began.
    pub date: String,
    /// The settings that are fixed along a curve.
    pub setting: Setting,
    /// Samples of training and test set together.
    pub samples: usize,
    /// The methods, in the order of the settings.
    pub methods: Vec<MethodFigures>,
    /// Eager compared with each lazy method; empty if one of them was not run.
    pub comparisons: Vec<(Method, Comparison)>,
    /// The lazy methods over the blocks that all of them completed, for a comparison without eager.
    #[serde(skip)]
    pub shared_lazy: Vec<MethodFigures>,
    /// Time of `lazy` divided by that of `lazy-disk` within blocks, and its interval.
    #[serde(skip)]
    pub lazy_time: Option<(f64, Option<Interval>)>,
    /// Whether all methods trained their probes on the same bits.
    pub digests_agree: Option<bool>,
    /// The effect of each optimizer rule, if it was measured.
    pub ablation: Vec<AblationResult>,
    /// AUROC of each probe of a sweep, if the file has it.
    pub aurocs: Option<AurocGrid>,
}

impl Cell {
    /// Summarizes `task` in `file`.
    pub fn of(file: &NamedResults, task: Task) -> Self {
        let config = &file.results.config;
        let rows: Vec<&Row> =
            file.results.rows.iter().filter(|row| row.task == task && row.ablated().is_none()).collect();
        let summary: TaskSummary = file.results.task_summary(task);
        let named = |method: Method| if config.caches_on_disk(method) { Method::LazyDisk } else { method };
        let methods = config.methods.iter().map(|method| {
            let own: Vec<&Row> = rows.iter().copied().filter(|row| row.method == *method).collect();
            MethodFigures::of(named(*method), &own)
        });
        let has = |method: Method| config.methods.contains(&method);
        let compared = summary.by_method().filter(|(method, _)| has(Method::Eager) && has(*method));
        let n_train = rows.iter().find_map(|row| row.metrics.n_train);
        let n_test = rows.iter().find_map(|row| row.metrics.n_test);
        let taken = n_train.zip(n_test).and_then(|(train, test)| usize::try_from(train + test).ok());
        Cell {
            run: file.name.clone(),
            date: file.results.environment.date.clone(),
            setting: Setting::of(&file.results, task),
            samples: taken.unwrap_or(config.samples),
            methods: methods.collect(),
            shared_lazy: shared_lazy(&rows, &config.methods, named),
            lazy_time: lazy_time_ratio(&rows),
            comparisons: compared.map(|(method, comparison)| (named(method), comparison.clone())).collect(),
            digests_agree: summary.digests_agree,
            ablation: summary.ablation,
            aurocs: rows.iter().find_map(|row| auroc_grid(row)),
        }
    }

    /// The figures of `method`, if it was run.
    pub fn method(&self, method: Method) -> Option<&MethodFigures> {
        self.methods.iter().find(|figures| figures.method == method)
    }

    /// Eager compared with `method`, if both were run.
    pub fn comparison(&self, method: Method) -> Option<&Comparison> {
        self.comparisons.iter().find(|(compared, _)| *compared == method).map(|(_, comparison)| comparison)
    }
}

/// The figures of the lazy methods that ever completed, over the blocks in which all of them did; over all their blocks if they
/// share none.
fn shared_lazy(rows: &[&Row], methods: &[Method], named: impl Fn(Method) -> Method) -> Vec<MethodFigures> {
    let ok = |method: Method| rows.iter().copied().filter(move |row| row.method == method && row.status == Status::Ok);
    let lazy: Vec<Method> =
        methods.iter().copied().filter(|it| *it != Method::Eager && ok(*it).next().is_some()).collect();
    let is_shared = |row: &Row| lazy.iter().all(|method| ok(*method).any(|other| other.repetition == row.repetition));
    let figures = |method: Method| {
        let shared: Vec<&Row> = ok(method).filter(|row| is_shared(row)).collect();
        MethodFigures::of(named(method), &if shared.is_empty() { ok(method).collect() } else { shared })
    };
    lazy.iter().map(|method| figures(*method)).collect()
}

/// The cells of all files, ordered by setting, then by samples, then by name.
pub fn cells_of(files: &[NamedResults]) -> Vec<Cell> {
    let cells_of_file =
        |file: &NamedResults| file.results.config.tasks.iter().map(|task| Cell::of(file, *task)).collect::<Vec<_>>();
    let mut cells: Vec<Cell> = files.iter().flat_map(cells_of_file).collect();
    prepare_labels(&mut cells.iter_mut().map(|cell| &mut cell.setting).collect::<Vec<_>>());
    cells.sort_by(|a, b| (&a.setting, a.samples, &a.run).cmp(&(&b.setting, b.samples, &b.run)));
    cells
}

fn auroc_grid(row: &Row) -> Option<AurocGrid> {
    let cs = row.metrics.cs.clone()?;
    let aurocs: Vec<Vec<f64>> =
        row.metrics.aurocs.as_ref()?.iter().map(|layer| layer.iter().copied().collect()).collect::<Option<_>>()?;
    let whole = !cs.is_empty() && !aurocs.is_empty() && aurocs.iter().all(|of_layer| of_layer.len() == cs.len());
    whole.then_some(AurocGrid { cs, aurocs })
}
