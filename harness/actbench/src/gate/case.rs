//! One case while it is gated: its pairs, and what each of its metrics has come to.

use std::collections::{BTreeMap, BTreeSet};

use super::design::Design;
use super::engine::{Pair, Stage};
use super::judge::{self, Call, Series};
use super::metric::{Metric, Rule};
use super::report::{CaseReport, MetricReport, Verdict};
use super::source::{Observation, Observed, Side};
use crate::error::{Error, Result};

/// A case while it is gated.
pub struct Case {
    /// Its name.
    pub name: String,
    required: Vec<Metric>,
    /// Observations of the screening, pair by pair: base, head.
    screen: Vec<(Observation, Observation)>,
    /// Those of the confirmation.
    confirm: Vec<(Observation, Observation)>,
    calls: BTreeMap<Metric, Call>,
    broken: Option<String>,
}

impl Case {
    /// With no pairs yet.
    pub fn new(name: String, required: Vec<Metric>) -> Self {
        let (screen, confirm) = (Vec::new(), Vec::new());
        Case { name, required, screen, confirm, calls: BTreeMap::new(), broken: None }
    }

    /// Takes a pair in; one that failed, or that lacks a metric, breaks the case.
    pub fn take(&mut self, pair: Pair) {
        let mut whole = |observed: Observed, side: Side| match observed {
            Observed::Measured(observation) => Some(observation),
            Observed::Failed(reason) => {
                self.broken.get_or_insert(format!("{side} failed: {reason}"));
                None
            }
        };
        let (Some(base), Some(head)) = (whole(pair.base, Side::Base), whole(pair.head, Side::Head)) else { return };
        let before = self.metrics();
        let found = Metric::ALL.into_iter().filter(|metric| base.has(*metric) || head.has(*metric));
        let known: BTreeSet<Metric> = before.iter().copied().chain(found).collect();
        let begun = !(self.screen.is_empty() && self.confirm.is_empty());
        if let Some(metric) = known.iter().find(|metric| begun && !before.contains(metric)) {
            self.broken.get_or_insert(format!("{metric} was not measured in the pairs before"));
        }
        for (observation, side) in [(&base, Side::Base), (&head, Side::Head)] {
            if let Some(metric) = known.iter().find(|metric| !observation.has(**metric)) {
                self.broken.get_or_insert(format!("{side} did not measure {metric}"));
            }
        }
        match pair.stage {
            Stage::Screen => self.screen.push((base, head)),
            Stage::Confirm => self.confirm.push((base, head)),
        }
    }

    /// Whether nothing more can be learnt of it.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Judges every metric that is still open by the pairs of the screening.
    pub fn look(&mut self, design: &Design) {
        for metric in self.judged_at_looks() {
            if self.calls.get(&metric).is_some_and(|call| *call != Call::Open) {
                continue;
            }
            match judge::look(metric, &self.series(Stage::Screen, metric), design) {
                Ok(call) => {
                    self.calls.insert(metric, call);
                }
                Err(error) => {
                    self.broken.get_or_insert(format!("{metric}: {error}"));
                }
            }
        }
    }

    /// Whether the screening can still learn something: a metric is open and none is decided against the case.
    pub fn is_open(&self) -> bool {
        let against = |call: &Call| matches!(call, Call::Flag(_) | Call::Regressed);
        self.broken.is_none()
            && !self.calls.values().any(against)
            && self.calls.values().any(|call| *call == Call::Open)
    }

    /// The metrics that fresh pairs must decide: flagged, or open when the screening ended.
    pub fn doubtful(&self) -> Vec<Metric> {
        if self.broken.is_some() {
            return Vec::new();
        }
        let doubtful = |call: &Call| matches!(call, Call::Open | Call::Flag(_));
        self.calls.iter().filter(|(_, call)| doubtful(call)).map(|(metric, _)| *metric).collect()
    }

    /// The chance of the fresh pairs of `metric` were it no worse.
    ///
    /// # Errors
    /// A value that cannot be.
    pub fn chance(&self, metric: Metric, design: &Design) -> Result<f64> {
        judge::chance_of_no_regression(metric, &self.series(Stage::Confirm, metric), design)
    }

    /// Notes that the case cannot be judged.
    pub fn break_with(&mut self, error: &Error) {
        self.broken.get_or_insert(error.to_string());
    }

    /// The report; `confirmed` holds the adjusted chances of the metrics that fresh pairs decided.
    pub fn report(&self, design: &Design, confirmed: &BTreeMap<Metric, f64>) -> CaseReport {
        let pairs = self.screen.len() + self.confirm.len();
        let mut metrics = Vec::new();
        let mut reason = self.broken.clone();
        if reason.is_none() && self.screen.is_empty() {
            reason = Some("nothing was measured".to_owned());
        }
        for metric in self.metrics() {
            match self.metric_report(metric, design, confirmed.get(&metric).copied()) {
                Ok(report) => metrics.push(report),
                Err(error) => {
                    reason.get_or_insert(format!("{metric}: {error}"));
                }
            }
        }
        if let Some(reason) = &reason {
            for metric in &mut metrics {
                metric.verdict = Verdict::Broken;
                metric.note = Some(reason.clone());
            }
        }
        let worst = metrics.iter().map(|metric| metric.verdict).max().unwrap_or(Verdict::Broken);
        // One metric that got better does not make the case better, when another is as it was.
        let verdict = match worst {
            _ if reason.is_some() => Verdict::Broken,
            Verdict::Pass if metrics.iter().any(|metric| metric.verdict == Verdict::Improved) => Verdict::Improved,
            worst => worst,
        };
        CaseReport { name: self.name.clone(), verdict, reason, pairs, metrics }
    }

    fn metric_report(&self, metric: Metric, design: &Design, confirmed: Option<f64>) -> Result<MetricReport> {
        let all: Vec<&(Observation, Observation)> = self.screen.iter().chain(&self.confirm).collect();
        match metric.rule() {
            Rule::Identity => {
                let digests = |of: fn(&(Observation, Observation)) -> &Observation| -> Vec<&str> {
                    all.iter().filter_map(|pair| of(pair).digest.as_deref()).collect()
                };
                Ok(judge::identity(&digests(|pair| &pair.0), &digests(|pair| &pair.1), design))
            }
            Rule::Quality => {
                let mut series = self.series(Stage::Screen, metric);
                let fresh = self.series(Stage::Confirm, metric);
                series.base.extend(fresh.base);
                series.head.extend(fresh.head);
                judge::quality(&series, design)
            }
            _ => self.number_report(metric, design, confirmed),
        }
    }

    fn number_report(&self, metric: Metric, design: &Design, confirmed: Option<f64>) -> Result<MetricReport> {
        // What fresh pairs decided is shown by them alone: the pairs of the screening were chosen for being extreme.
        let stage = if confirmed.is_some() { Stage::Confirm } else { Stage::Screen };
        let series = self.series(stage, metric);
        let (verdict, p) = match (self.calls.get(&metric), confirmed) {
            (_, Some(p)) if p <= design.alpha => (Verdict::Regressed, Some(p)),
            (_, Some(p)) if judge::no_worse(metric, &series, design)? => (Verdict::Pass, Some(p)),
            (_, Some(p)) => (Verdict::Inconclusive, Some(p)),
            (Some(Call::Regressed), None) => (Verdict::Regressed, None),
            (Some(Call::Flag(p)), None) => (Verdict::Regressed, Some(*p)),
            (Some(Call::Pass), None) => (Verdict::Pass, None),
            (Some(Call::Open) | None, None) => (Verdict::Inconclusive, None),
        };
        let mut report = judge::figures(metric, &series, verdict, p)?;
        if verdict == Verdict::Pass && judge::is_improved(&report, &series, design) {
            report.verdict = Verdict::Improved;
        }
        Ok(report)
    }

    /// The metrics that were seen, or should have been.
    fn metrics(&self) -> Vec<Metric> {
        let seen = |metric: &Metric| {
            self.required.contains(metric)
                || self.screen.iter().chain(&self.confirm).any(|(base, head)| base.has(*metric) || head.has(*metric))
        };
        Metric::ALL.into_iter().filter(seen).collect()
    }

    fn judged_at_looks(&self) -> Vec<Metric> {
        let numbers = |metric: &Metric| matches!(metric.rule(), Rule::Time | Rule::Memory | Rule::Count);
        self.metrics().into_iter().filter(numbers).collect()
    }

    fn series(&self, stage: Stage, metric: Metric) -> Series {
        let pairs = match stage {
            Stage::Screen => &self.screen,
            Stage::Confirm => &self.confirm,
        };
        let of = |observation: &Observation| observation.values.get(&metric).copied();
        let (base, head) = pairs.iter().filter_map(|(base, head)| of(base).zip(of(head))).unzip();
        Series { base, head }
    }
}
