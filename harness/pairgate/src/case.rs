//! One case while it is gated: its pairs, and the decision on each of its metrics so far.

use std::collections::{BTreeMap, BTreeSet};

use crate::design::GateDesign;
use crate::error::{Error, Result};
use crate::judge::{self, LookDecision, PairedValues};
use crate::metric::{Metric, MetricRule};
use crate::pair::{GatePair, GateStage};
use crate::report::{CaseReport, MetricReport, Verdict};
use crate::source::{Observation, ObservationResult, Side};

/// A case while it is gated.
pub struct GatedCase {
    /// Its name.
    pub name: String,
    required: Vec<Metric>,
    /// Observations of the screening, pair by pair: base, head.
    screen: Vec<(Observation, Observation)>,
    /// Observations of the confirmation, pair by pair.
    confirm: Vec<(Observation, Observation)>,
    decisions: BTreeMap<Metric, LookDecision>,
    /// Why the case cannot be judged, once it cannot.
    broken: Option<String>,
}

impl GatedCase {
    /// A case without pairs; every pair must have all of the `required` metrics.
    pub fn new(name: String, required: Vec<Metric>) -> Self {
        GatedCase { name, required, screen: Vec::new(), confirm: Vec::new(), decisions: BTreeMap::new(), broken: None }
    }

    /// Adds a pair. A pair that failed, that lacks a metric or that has an impossible value breaks the case.
    pub fn add(&mut self, pair: GatePair) {
        let mut measured = |result: ObservationResult, side: Side| match result {
            ObservationResult::Measured(observation) => Some(observation),
            ObservationResult::Failed(reason) => {
                self.broken.get_or_insert(format!("{side} failed: {reason}"));
                None
            }
        };
        let (Some(base), Some(head)) = (measured(pair.base, Side::Base), measured(pair.head, Side::Head)) else {
            return;
        };
        let before = self.metrics();
        let found = Metric::ALL.into_iter().filter(|metric| base.has(*metric) || head.has(*metric));
        let known: BTreeSet<Metric> = before.iter().copied().chain(found).collect();
        let has_pairs = !(self.screen.is_empty() && self.confirm.is_empty());
        if let Some(metric) = known.iter().find(|metric| has_pairs && !before.contains(metric)) {
            self.broken.get_or_insert(format!("{metric} was not measured in the pairs before"));
        }
        for (observation, side) in [(&base, Side::Base), (&head, Side::Head)] {
            if let Some(metric) = known.iter().find(|metric| !observation.has(**metric)) {
                self.broken.get_or_insert(format!("{side} did not measure {metric}"));
            }
        }
        for (observation, side) in [(&base, Side::Base), (&head, Side::Head)] {
            if let Some((metric, value)) =
                observation.values.iter().find(|(metric, value)| !metric.is_possible(**value))
            {
                let unit = metric.unit();
                self.broken.get_or_insert(format!("{side} measured {metric} of {value} {unit}, which is impossible"));
            }
        }
        match pair.stage {
            GateStage::Screen => self.screen.push((base, head)),
            GateStage::Confirm => self.confirm.push((base, head)),
        }
    }

    /// Whether the case cannot be judged any more.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Judges every metric that is still open by the pairs of the screening.
    pub fn judge_at_look(&mut self, design: &GateDesign) {
        for metric in self.numeric_metrics() {
            if self.decisions.get(&metric).is_some_and(|decision| *decision != LookDecision::Open) {
                continue;
            }
            match judge::judge_at_look(metric, &self.values(GateStage::Screen, metric), design) {
                Ok(decision) => {
                    self.decisions.insert(metric, decision);
                }
                Err(error) => {
                    self.broken.get_or_insert(format!("{metric}: {error}"));
                }
            }
        }
    }

    /// Whether further screening pairs can change the verdict: a metric is open and none is flagged or regressed.
    pub fn is_open(&self) -> bool {
        let is_bad = |decision: &LookDecision| matches!(decision, LookDecision::Flag(_) | LookDecision::Regressed);
        self.broken.is_none()
            && !self.decisions.values().any(is_bad)
            && self.decisions.values().any(|decision| *decision == LookDecision::Open)
    }

    /// The metrics that fresh pairs must decide: flagged, or open when the screening ended.
    pub fn unconfirmed_metrics(&self) -> Vec<Metric> {
        if self.broken.is_some() {
            return Vec::new();
        }
        let is_unconfirmed = |decision: &LookDecision| matches!(decision, LookDecision::Open | LookDecision::Flag(_));
        self.decisions.iter().filter(|(_, decision)| is_unconfirmed(decision)).map(|(metric, _)| *metric).collect()
    }

    /// The p-value of the fresh pairs of `metric`: see [`judge::p_value`].
    ///
    /// # Errors
    /// An impossible value, such as a time of zero.
    pub fn p_value(&self, metric: Metric, design: &GateDesign) -> Result<f64> {
        judge::p_value(metric, &self.values(GateStage::Confirm, metric), design)
    }

    /// Records that the case cannot be judged.
    pub fn break_with(&mut self, error: &Error) {
        self.broken.get_or_insert(error.to_string());
    }

    /// The report; `confirmed` has the adjusted p-values of the metrics that fresh pairs decided.
    pub fn report(&self, design: &GateDesign, confirmed: &BTreeMap<Metric, f64>) -> CaseReport {
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
        // An improved case needs all metrics to pass and one to be improved.
        let verdict = match worst {
            _ if reason.is_some() => Verdict::Broken,
            Verdict::Pass if metrics.iter().any(|metric| metric.verdict == Verdict::Improved) => Verdict::Improved,
            worst => worst,
        };
        CaseReport { name: self.name.clone(), verdict, reason, pairs, metrics }
    }

    fn metric_report(&self, metric: Metric, design: &GateDesign, confirmed: Option<f64>) -> Result<MetricReport> {
        let all: Vec<&(Observation, Observation)> = self.screen.iter().chain(&self.confirm).collect();
        match metric.rule() {
            MetricRule::Identity => {
                let base: Vec<&str> = all.iter().filter_map(|(base, _)| base.digest.as_deref()).collect();
                let head: Vec<&str> = all.iter().filter_map(|(_, head)| head.digest.as_deref()).collect();
                Ok(judge::identity(&base, &head, design))
            }
            MetricRule::Quality => {
                let mut values = self.values(GateStage::Screen, metric);
                let fresh = self.values(GateStage::Confirm, metric);
                values.base.extend(fresh.base);
                values.head.extend(fresh.head);
                judge::quality(&values, auroc_step(&all), design)
            }
            _ => self.number_report(metric, design, confirmed),
        }
    }

    fn number_report(&self, metric: Metric, design: &GateDesign, confirmed: Option<f64>) -> Result<MetricReport> {
        // A confirmed metric is reported by its fresh pairs alone: the pairs of the screening were selected for being
        // extreme and overstate the effect.
        let stage = if confirmed.is_some() { GateStage::Confirm } else { GateStage::Screen };
        let values = self.values(stage, metric);
        let (verdict, p) = match (self.decisions.get(&metric), confirmed) {
            (_, Some(p)) if p <= design.alpha => (Verdict::Regressed, Some(p)),
            (_, Some(p)) if judge::excludes_effect(metric, &values, design)? => (Verdict::Pass, Some(p)),
            (_, Some(p)) => (Verdict::Inconclusive, Some(p)),
            (Some(LookDecision::Regressed), None) => (Verdict::Regressed, None),
            (Some(LookDecision::Flag(p)), None) => (Verdict::Regressed, Some(*p)),
            (Some(LookDecision::Pass), None) => (Verdict::Pass, None),
            (Some(LookDecision::Open) | None, None) => (Verdict::Inconclusive, None),
        };
        let mut report = judge::metric_report(metric, &values, verdict, p)?;
        if verdict == Verdict::Pass && judge::is_improved(&report, &values, design) {
            report.verdict = Verdict::Improved;
        }
        Ok(report)
    }

    /// The metrics that are required or that any pair has.
    fn metrics(&self) -> Vec<Metric> {
        let is_used = |metric: &Metric| {
            self.required.contains(metric)
                || self.screen.iter().chain(&self.confirm).any(|(base, head)| base.has(*metric) || head.has(*metric))
        };
        Metric::ALL.into_iter().filter(is_used).collect()
    }

    fn numeric_metrics(&self) -> Vec<Metric> {
        self.metrics().into_iter().filter(|metric| metric.rule().is_judged_at_looks()).collect()
    }

    fn values(&self, stage: GateStage, metric: Metric) -> PairedValues {
        let pairs = match stage {
            GateStage::Screen => &self.screen,
            GateStage::Confirm => &self.confirm,
        };
        let value = |observation: &Observation| observation.values.get(&metric).copied();
        let (base, head) = pairs.iter().filter_map(|(base, head)| value(base).zip(value(head))).unzip();
        PairedValues { base, head }
    }
}

/// The change of AUROC by one swapped pair of test rows, if all observations have the same.
fn auroc_step(pairs: &[&(Observation, Observation)]) -> Option<f64> {
    let mut steps = pairs.iter().flat_map(|(base, head)| [base.auroc_step, head.auroc_step]);
    let first = steps.next().flatten()?;
    steps.all(|step| step == Some(first)).then_some(first)
}
