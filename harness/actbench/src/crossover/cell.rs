//! One task of one result file, summed up: what each method took, and what they come to against each other.

use serde::Serialize;

use super::setting::Setting;
use crate::case::{Method, Task};
use crate::results::ablation::AblationResult;
use crate::results::summary::{CONFIDENCE, Comparison, TaskSummary};
use crate::results::{ResultFile, Row, Status};
use pairgate::stats::WalshAverages;
use pairgate::stats::summary::median;

/// A result file with the name it is told by.
#[derive(Clone, Debug)]
pub struct NamedResults {
    /// What tells it from the other files: its path without the folders that all of them share.
    pub name: String,
    /// Its path as the user gave it.
    pub path: String,
    /// What is in it.
    pub results: ResultFile,
}

/// A median with the interval of the centre; no interval from a single observation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The median of the observations.
    pub median: f64,
    /// Ends of the interval, never on the wrong side of the median.
    pub interval: Option<(f64, f64)>,
}

impl Figure {
    /// Of observations that are positive, with the interval of [`WalshAverages`] on their logarithms: times and memory
    /// vary by factors. None for no observation or one that is not positive and finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.iter().any(|value| !(value.is_finite() && *value > 0.0)) {
            return None;
        }
        let median = median(values).ok()?;
        let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        let interval = WalshAverages::of(&logarithms).ok().and_then(|averages| averages.interval(CONFIDENCE).ok()?);
        let interval = interval.map(|ends| (ends.low.exp().min(median), ends.high.exp().max(median)));
        Some(Figure { median, interval })
    }
}

/// What a method took in one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodFigures {
    /// The method; lazy with the disk cache is `lazy-disk` however it was asked for.
    pub method: Method,
    /// Counted observations that came through.
    pub n_ok: usize,
    /// Counted observations.
    pub n: usize,
    /// How the first failure ended and why.
    pub failure: Option<(Status, String)>,
    /// Seconds of everything after loading.
    pub elapsed_s: Option<Figure>,
    /// Seconds until the features were there.
    pub extract_s: Option<Figure>,
    /// Seconds of training and scoring.
    pub train_eval_s: Option<Figure>,
    /// In MB of 2^20 bytes.
    pub cpu_peak_rss_mb: Option<Figure>,
    /// In MB of 2^20 bytes.
    pub cpu_peak_heap_mb: Option<Figure>,
    /// In MB of 2^20 bytes.
    pub gpu_peak_alloc_mb: Option<Figure>,
    /// In MB of 2^20 bytes.
    pub gpu_peak_reserved_mb: Option<Figure>,
    /// Median of the metric.
    pub metric: Option<f64>,
}

impl MethodFigures {
    fn of(method: Method, rows: &[&Row]) -> Self {
        let ok: Vec<&Row> = rows.iter().copied().filter(|row| row.status == Status::Ok).collect();
        let values = |value: fn(&Row) -> Option<f64>| ok.iter().filter_map(|row| value(row)).collect::<Vec<f64>>();
        let figure = |value| Figure::of(&values(value));
        let failed = rows.iter().find(|row| row.status != Status::Ok);
        MethodFigures {
            method,
            n_ok: ok.len(),
            n: rows.len(),
            failure: failed.map(|row| (row.status, row.reason.clone().unwrap_or_else(|| "no reason given".to_owned()))),
            elapsed_s: figure(|row| row.elapsed_s),
            extract_s: figure(|row| row.extract_s),
            train_eval_s: figure(|row| row.train_eval_s),
            cpu_peak_rss_mb: figure(|row| row.cpu_peak_rss_mb),
            cpu_peak_heap_mb: figure(|row| row.cpu_peak_heap_mb),
            gpu_peak_alloc_mb: figure(|row| row.gpu_peak_alloc_mb),
            gpu_peak_reserved_mb: figure(|row| row.gpu_peak_reserved_mb),
            metric: median(&values(|row| row.metric_value)).ok(),
        }
    }

    /// Whether it was tried and never came through.
    pub fn never_came_through(&self) -> bool {
        self.n > 0 && self.n_ok == 0
    }
}

/// AUROC by layer and C.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AurocGrid {
    /// Values of C.
    pub cs: Vec<f64>,
    /// One list a layer from 0 on, one value a C.
    pub aurocs: Vec<Vec<f64>>,
}

/// One task of one result file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Name of the result file.
    pub run: String,
    /// When the run began.
    pub date: String,
    /// What is held fixed on a curve.
    pub setting: Setting,
    /// Samples of both sides together.
    pub samples: usize,
    /// The methods, in the order of the settings.
    pub methods: Vec<MethodFigures>,
    /// Eager against each lazy method; empty where one side was not run.
    pub comparisons: Vec<(Method, Comparison)>,
    /// Whether all methods trained their probes on the same bits.
    pub digests_agree: Option<bool>,
    /// What each optimiser rule is worth, where that was measured.
    pub ablation: Vec<AblationResult>,
    /// AUROC of each probe of a sweep, where the file has it.
    pub aurocs: Option<AurocGrid>,
}

impl Cell {
    /// Of `task` in `file`.
    pub fn of(file: &NamedResults, task: Task) -> Self {
        let config = &file.results.config;
        let rows: Vec<&Row> =
            file.results.rows.iter().filter(|row| row.task == task && row.ablated().is_none()).collect();
        let summary: TaskSummary = file.results.task_summary(task);
        let named = |method: Method| match config.caches_on_disk(method) {
            true => Method::LazyDisk,
            false => method,
        };
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

    /// Eager against `method`, if both were run.
    pub fn comparison(&self, method: Method) -> Option<&Comparison> {
        self.comparisons.iter().find(|(of, _)| *of == method).map(|(_, comparison)| comparison)
    }
}

/// The cells of all files, ordered by setting, then by samples, then by name.
pub fn cells_of(files: &[NamedResults]) -> Vec<Cell> {
    let of_file = |file| NamedResults::tasks(file).into_iter().map(move |task| Cell::of(file, task));
    let mut cells: Vec<Cell> = files.iter().flat_map(of_file).collect();
    cells.sort_by(|a, b| (&a.setting, a.samples, &a.run).cmp(&(&b.setting, b.samples, &b.run)));
    cells
}

impl NamedResults {
    fn tasks(&self) -> Vec<Task> {
        self.results.config.tasks.clone()
    }
}

fn auroc_grid(row: &Row) -> Option<AurocGrid> {
    let cs = row.metrics.cs.clone()?;
    let aurocs: Vec<Vec<f64>> =
        row.metrics.aurocs.as_ref()?.iter().map(|layer| layer.iter().copied().collect()).collect::<Option<_>>()?;
    let whole = !cs.is_empty() && !aurocs.is_empty() && aurocs.iter().all(|of_layer| of_layer.len() == cs.len());
    whole.then_some(AurocGrid { cs, aurocs })
}
