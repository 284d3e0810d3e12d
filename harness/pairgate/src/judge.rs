//! The statistics of one metric's pairs, by its rule. Pure functions.

use crate::design::GateDesign;
use crate::error::{Error, Result};
use crate::metric::{Metric, MetricRule};
use crate::report::{MetricReport, Verdict};
use crate::stats::ratio::log_ratios;
use crate::stats::summary::median;
use crate::stats::{RatioEstimate, SignedRankTest};

/// Confidence of the intervals that are shown.
const CONFIDENCE: f64 = 0.95;

/// Characters of a digest that a note quotes.
const QUOTED_DIGEST: usize = 12;

/// The values of one metric, pair by pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairedValues {
    /// Values of base.
    pub base: Vec<f64>,
    /// Values of head.
    pub head: Vec<f64>,
}

/// The decision on a metric at a look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LookDecision {
    /// Neither shown to be worse nor to be no worse.
    Open,
    /// Shown to be less worse than the effect that must not pass.
    Pass,
    /// Worse at the significance level of a look, with the p-value.
    Flag(f64),
    /// Worse with certainty: ranges that do not overlap, or a count above its margin.
    Regressed,
}

/// Judges the values of a metric at a look.
///
/// # Errors
/// An impossible value, such as a time of zero; a metric that is not judged at looks.
pub fn judge_at_look(metric: Metric, values: &PairedValues, design: &GateDesign) -> Result<LookDecision> {
    match metric.rule() {
        MetricRule::Memory if ranges_are_separated(&values.base, &values.head, design) => Ok(LookDecision::Regressed),
        MetricRule::Time | MetricRule::Memory => {
            let p_worse = OneSidedTails::of(metric, values, design.look_delta, design)?.p_worse;
            let p_no_worse = OneSidedTails::of(metric, values, design.effect, design)?.p_no_worse;
            Ok(if p_worse <= design.look_level {
                LookDecision::Flag(p_worse)
            } else if p_no_worse <= design.pass_level {
                LookDecision::Pass
            } else {
                LookDecision::Open
            })
        }
        MetricRule::Count => {
            let has_grown = median(&values.head)? > median(&values.base)? * (1.0 + design.count_margin);
            Ok(if has_grown { LookDecision::Regressed } else { LookDecision::Pass })
        }
        MetricRule::Quality | MetricRule::Identity => Err(Error::internal(format!("{metric} is not judged at looks"))),
    }
}

/// The one-sided p-value of the pairs: the probability of values at least as extreme if head were at most as much worse
/// as the design allows (`delta`, or the memory margin). For the confirmation.
///
/// # Errors
/// As [`judge_at_look`].
pub fn p_value(metric: Metric, values: &PairedValues, design: &GateDesign) -> Result<f64> {
    Ok(OneSidedTails::of(metric, values, design.delta, design)?.p_worse)
}

/// Whether the pairs rule out the effect that must not pass.
///
/// # Errors
/// As [`judge_at_look`].
pub fn excludes_effect(metric: Metric, values: &PairedValues, design: &GateDesign) -> Result<bool> {
    Ok(OneSidedTails::of(metric, values, design.effect, design)?.p_no_worse <= design.pass_level)
}

/// Both one-sided p-values of the signed-rank test against a margin.
struct OneSidedTails {
    /// Small where head is worse by more than the margin.
    p_worse: f64,
    /// Small where head is worse by less than the margin.
    p_no_worse: f64,
}

impl OneSidedTails {
    /// Tests the log-ratios of times against `slowdown`, or the growth of memory against the margin of `design`.
    fn of(metric: Metric, values: &PairedValues, slowdown: f64, design: &GateDesign) -> Result<Self> {
        let test = if metric.rule() == MetricRule::Time {
            SignedRankTest::of(&log_ratios(&values.head, &values.base)?, slowdown.ln_1p())?
        } else {
            let growth: Vec<f64> = values.head.iter().zip(&values.base).map(|(head, base)| head - base).collect();
            SignedRankTest::of(&growth, memory_margin(&values.base, design))?
        };
        Ok(OneSidedTails { p_worse: test.p_greater, p_no_worse: test.p_less })
    }
}

/// The growth of memory, in MiB, that is not a regression.
fn memory_margin(base: &[f64], design: &GateDesign) -> f64 {
    let largest = base.iter().copied().fold(0.0, f64::max);
    design.memory_margin_mb.max(design.memory_margin_fraction * largest)
}

/// Whether the smallest of `more` exceeds the largest of `less` by more than the margin. Ten pairs of one distribution do
/// that once in `20! / (10! 10!) = 184,756`.
fn ranges_are_separated(less: &[f64], more: &[f64], design: &GateDesign) -> bool {
    let largest = less.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = more.iter().copied().fold(f64::INFINITY, f64::min);
    smallest > largest + memory_margin(less, design)
}

/// Compares the AUROCs of both sides. Any difference beyond the tolerance is a regression, a larger AUROC too: the same
/// work has the same result. Where other features are allowed, the order of a few pairs of test rows may change as well;
/// `step` is the change of AUROC by one such pair, where it is known.
///
/// # Errors
/// No value.
pub fn quality(values: &PairedValues, step: Option<f64>, design: &GateDesign) -> Result<MetricReport> {
    let mut report = metric_report(Metric::Auroc, values, Verdict::Pass, None)?;
    let drift = median(&values.head)? - median(&values.base)?;
    let allowed = design.auroc_tolerance;
    if drift.abs() <= allowed {
        return Ok(report);
    }
    if !design.allow_other_features {
        report.verdict = Verdict::Regressed;
        report.note = Some(format!("AUROC changed by {drift:+.6}, more than {allowed}"));
        return Ok(report);
    }
    let Some(step) = step else {
        report.verdict = Verdict::Regressed;
        report.note = Some(format!(
            "AUROC changed by {drift:+.6}, more than {allowed}; a tolerance in swapped pairs needs the same numbers of \
             positive and negative test rows from both sides (n_test and n_test_positive)"
        ));
        return Ok(report);
    };
    let swapped = drift.abs() / step;
    let limit = design.auroc_swapped_pairs;
    // The slack is for the rounding of a quotient of differences, far below one pair.
    let is_within = swapped <= f64::from(limit) + 1e-6;
    report.verdict = if is_within { Verdict::Pass } else { Verdict::Regressed };
    let only = if is_within { "" } else { "only " };
    report.note = Some(format!(
        "AUROC changed by {drift:+.6}, {swapped:.1} swapped pairs of test rows; {only}{limit} are allowed"
    ));
    Ok(report)
}

/// Compares the digests of both sides, which must all be equal.
///
/// A side whose own digests differ is broken: its times and memory belong to different work from run to run.
pub fn identity(base: &[&str], head: &[&str], design: &GateDesign) -> MetricReport {
    let are_equal = |digests: &[&str]| digests.windows(2).all(|pair| pair[0] == pair[1]);
    let quoted = |digests: &[&str]| -> String {
        digests.first().map_or_else(String::new, |digest| digest.chars().take(QUOTED_DIGEST).collect())
    };
    let (verdict, note) = if !are_equal(base) {
        (Verdict::Broken, Some("the digests of base differ from run to run".to_owned()))
    } else if !are_equal(head) {
        (Verdict::Broken, Some("the digests of head differ from run to run".to_owned()))
    } else if base.first() == head.first() {
        (Verdict::Pass, None)
    } else if design.allow_other_features {
        (Verdict::Pass, Some("the digests differ, which was allowed".to_owned()))
    } else {
        (Verdict::Regressed, Some(format!("the digests differ: base {}, head {}", quoted(base), quoted(head))))
    };
    MetricReport { verdict, note, n_pairs: base.len(), ..MetricReport::unmeasured(Metric::ResultDigest) }
}

/// The medians, the ratio and its interval of a metric, with `verdict`.
///
/// # Errors
/// No value.
pub fn metric_report(metric: Metric, values: &PairedValues, verdict: Verdict, p: Option<f64>) -> Result<MetricReport> {
    let ratio = RatioEstimate::of_pairs(&values.head, &values.base, CONFIDENCE).ok();
    Ok(MetricReport {
        verdict,
        estimate: ratio.map(|ratio| ratio.estimate),
        low: ratio.and_then(|ratio| ratio.low),
        high: ratio.and_then(|ratio| ratio.high),
        confidence: ratio.and_then(|ratio| ratio.confidence),
        n_pairs: values.base.len(),
        p,
        base_median: Some(median(&values.base)?),
        head_median: Some(median(&values.head)?),
        ..MetricReport::unmeasured(metric)
    })
}

/// Whether head is shown to be better by more than the margin.
pub fn is_improved(report: &MetricReport, values: &PairedValues, design: &GateDesign) -> bool {
    match report.metric.rule() {
        MetricRule::Time => report.high.is_some_and(|high| high < 1.0 / (1.0 + design.delta)),
        MetricRule::Memory => ranges_are_separated(&values.head, &values.base, design),
        MetricRule::Count => report.estimate.is_some_and(|ratio| ratio < 1.0 / (1.0 + design.count_margin)),
        MetricRule::Quality | MetricRule::Identity => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(base: &[f64], head: &[f64]) -> PairedValues {
        PairedValues { base: base.to_vec(), head: head.to_vec() }
    }

    /// Ten pairs around `center` with noise of 0.1 %.
    fn around(center: f64) -> Vec<f64> {
        (0..10).map(|i| center * (1.0 + 2e-4 * (f64::from(i) - 4.5))).collect()
    }

    #[test]
    fn times_pass_are_flagged_or_stay_open() {
        let design = GateDesign::looks(0);
        let decide =
            |factor: f64| judge_at_look(Metric::Wall, &values(&around(1.0), &around(factor)), &design).unwrap();
        assert_eq!(decide(1.0), LookDecision::Pass);
        assert_eq!(decide(1.009), LookDecision::Pass);
        assert!(matches!(decide(1.02), LookDecision::Flag(p) if p <= design.look_level));
        assert!(matches!(decide(1.2), LookDecision::Flag(_)));
        let wild: Vec<f64> = (0..10).map(|i| if i % 2 == 0 { 0.7 } else { 1.4 }).collect();
        assert_eq!(judge_at_look(Metric::Wall, &values(&around(1.0), &wild), &design).unwrap(), LookDecision::Open);
        assert!(judge_at_look(Metric::Wall, &values(&[0.0; 10], &[1.0; 10]), &design).is_err());
    }

    #[test]
    fn memory_growth_regresses_only_above_its_margin() {
        let design = GateDesign::looks(0);
        let decide = |base: f64, head: f64| {
            judge_at_look(Metric::PeakRss, &values(&around(base), &around(head)), &design).unwrap()
        };
        assert_eq!(decide(30.0, 31.0), LookDecision::Regressed);
        assert_eq!(decide(1000.0, 1020.0), LookDecision::Regressed);
        assert_eq!(decide(30.0, 30.2), LookDecision::Pass);
        assert_eq!(decide(1000.0, 1001.5), LookDecision::Pass);
        assert_eq!(decide(0.0, 0.0), LookDecision::Pass);
        // One large reading of base closes the gap between the ranges; the signed-rank test still sees the growth.
        let mut base = around(30.0);
        base[3] = 31.2;
        assert!(matches!(
            judge_at_look(Metric::PeakRss, &values(&base, &around(31.0)), &design).unwrap(),
            LookDecision::Flag(_)
        ));
    }

    #[test]
    fn counts_have_a_fixed_margin() {
        let design = GateDesign::looks(0);
        let decide = |head: f64| judge_at_look(Metric::Instructions, &values(&[1e6; 3], &[head; 3]), &design).unwrap();
        assert_eq!(decide(1.000_9e6), LookDecision::Pass);
        assert_eq!(decide(1.001_1e6), LookDecision::Regressed);
    }

    #[test]
    fn digests_must_agree_within_and_between_sides() {
        let design = GateDesign::looks(0);
        let verdict = |base: &[&str], head: &[&str]| identity(base, head, &design).verdict;
        assert_eq!(verdict(&["a", "a"], &["a", "a"]), Verdict::Pass);
        assert_eq!(verdict(&["a", "a"], &["b", "b"]), Verdict::Regressed);
        assert_eq!(verdict(&["a", "c"], &["a", "a"]), Verdict::Broken);
        assert_eq!(verdict(&["a", "a"], &["a", "b"]), Verdict::Broken);
        let allowed = GateDesign { allow_other_features: true, ..design };
        assert_eq!(identity(&["a"], &["b"], &allowed).verdict, Verdict::Pass);
    }

    #[test]
    fn any_change_of_auroc_is_a_regression() {
        let design = GateDesign::looks(0);
        // The number of test rows allows nothing: the features are the same.
        let verdict = |head: f64| quality(&values(&[0.9; 3], &[head; 3]), Some(0.01), &design).unwrap().verdict;
        assert_eq!(verdict(0.9), Verdict::Pass);
        assert_eq!(verdict(0.91), Verdict::Regressed);
        assert_eq!(verdict(0.89), Verdict::Regressed);
    }

    #[test]
    fn other_features_may_swap_a_few_pairs() {
        let design = GateDesign { allow_other_features: true, ..GateDesign::looks(0) };
        // 20 test rows, ten of each label: one pair is 0.01.
        let judge = |head: f64, step: Option<f64>| quality(&values(&[0.8; 3], &[head; 3]), step, &design).unwrap();
        let one = judge(0.79, Some(0.01));
        assert_eq!(one.verdict, Verdict::Pass);
        assert!(one.note.as_deref().unwrap().contains("1.0 swapped pairs"), "{one:?}");
        for (head, verdict) in [(0.74, Verdict::Pass), (0.86, Verdict::Pass), (0.73, Verdict::Regressed)] {
            assert_eq!(judge(head, Some(0.01)).verdict, verdict, "{head}");
        }
        // More test rows: the same difference is many pairs.
        assert_eq!(judge(0.79, Some(1.0 / 3600.0)).verdict, Verdict::Regressed);
        let unknown = judge(0.79, None);
        assert_eq!(unknown.verdict, Verdict::Regressed);
        assert!(unknown.note.as_deref().unwrap().contains("n_test_positive"), "{unknown:?}");
        let wide = GateDesign { auroc_tolerance: 0.1, ..design };
        assert_eq!(quality(&values(&[0.8; 3], &[0.79; 3]), None, &wide).unwrap().verdict, Verdict::Pass);
        assert_eq!(quality(&values(&[0.8; 3], &[f64::NAN; 3]), Some(0.01), &wide).map(|it| it.verdict).ok(), None);
    }
}
