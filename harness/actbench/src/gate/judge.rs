//! What the pairs of one metric say, by its rule. Pure functions.

use super::design::Design;
use super::metric::{Metric, Rule};
use super::report::{MetricReport, Verdict};
use crate::error::{Error, Result};
use crate::stats::ratio::log_ratios;
use crate::stats::summary::median;
use crate::stats::{RatioEstimate, SignedRankTest};

/// Confidence of the intervals that are shown.
const CONFIDENCE: f64 = 0.95;

/// The values of one metric, pair by pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Of base.
    pub base: Vec<f64>,
    /// Of head.
    pub head: Vec<f64>,
}

/// What a metric's pairs say at a look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// Neither yet.
    Open,
    /// Shown to be no worse than what must not pass.
    Pass,
    /// Worse at the level of a look, with the chance of that.
    Flag(f64),
    /// Worse beyond any doubt that a test could express.
    Regressed,
}

/// Judges `series` of a metric with the rule [`Rule::Time`], [`Rule::Memory`] or [`Rule::Count`] at a look.
///
/// # Errors
/// A value that cannot be, such as a time of zero; a metric whose rule looks at no numbers.
pub fn look(metric: Metric, series: &Series, design: &Design) -> Result<Call> {
    match metric.rule() {
        Rule::Time => {
            let (worse, no_worse) = (time_worse(series, design.look_delta)?, time_no_worse(series, design.effect)?);
            Ok(call(worse, no_worse, design))
        }
        Rule::Memory if separated(&series.base, &series.head, design) => Ok(Call::Regressed),
        Rule::Memory => {
            let margin = memory_margin(&series.base, design);
            let growth: Vec<f64> = series.head.iter().zip(&series.base).map(|(head, base)| head - base).collect();
            let test = SignedRankTest::of(&growth, margin)?;
            Ok(call(test.p_greater, test.p_less, design))
        }
        Rule::Count => {
            let grown = median(&series.head)? > median(&series.base)? * (1.0 + design.count_margin);
            Ok(if grown { Call::Regressed } else { Call::Pass })
        }
        Rule::Quality | Rule::Identity => Err(Error::usage(format!("{metric} is not judged at looks"))),
    }
}

/// The chance of such pairs were head no worse than what is called no regression; for the confirmation.
///
/// # Errors
/// As [`look`].
pub fn chance_of_no_regression(metric: Metric, series: &Series, design: &Design) -> Result<f64> {
    match metric.rule() {
        Rule::Time => time_worse(series, design.delta),
        _ => {
            let margin = memory_margin(&series.base, design);
            let growth: Vec<f64> = series.head.iter().zip(&series.base).map(|(head, base)| head - base).collect();
            Ok(SignedRankTest::of(&growth, margin)?.p_greater)
        }
    }
}

/// Whether the pairs rule out what must not pass.
///
/// # Errors
/// As [`look`].
pub fn no_worse(metric: Metric, series: &Series, design: &Design) -> Result<bool> {
    let chance = match metric.rule() {
        Rule::Time => time_no_worse(series, design.effect)?,
        _ => {
            let margin = memory_margin(&series.base, design);
            let growth: Vec<f64> = series.head.iter().zip(&series.base).map(|(head, base)| head - base).collect();
            SignedRankTest::of(&growth, margin)?.p_less
        }
    };
    Ok(chance <= design.pass_level)
}

fn call(worse: f64, no_worse: f64, design: &Design) -> Call {
    if worse <= design.look_level {
        Call::Flag(worse)
    } else if no_worse <= design.pass_level {
        Call::Pass
    } else {
        Call::Open
    }
}

/// One-sided: small when head is more than `delta` slower than base.
fn time_worse(series: &Series, delta: f64) -> Result<f64> {
    Ok(SignedRankTest::of(&log_ratios(&series.head, &series.base)?, delta.ln_1p())?.p_greater)
}

/// One-sided: small when head is less than `effect` slower.
fn time_no_worse(series: &Series, effect: f64) -> Result<f64> {
    Ok(SignedRankTest::of(&log_ratios(&series.head, &series.base)?, effect.ln_1p())?.p_less)
}

/// Growth of memory, in MB, that is none.
fn memory_margin(from: &[f64], design: &Design) -> f64 {
    let largest = from.iter().copied().fold(0.0, f64::max);
    design.memory_margin_mb.max(design.memory_margin_share * largest)
}

/// Whether all of `more` lies above all of `less` by more than the margin. Were both alike, ten pairs would do that
/// once in `20! / (10! 10!) = 184,756`.
fn separated(less: &[f64], more: &[f64], design: &Design) -> bool {
    let largest = less.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = more.iter().copied().fold(f64::INFINITY, f64::min);
    smallest > largest + memory_margin(less, design)
}

/// The AUROCs of both sides: any difference beyond the tolerance is a regression, for the work is not the same then.
///
/// # Errors
/// No value.
pub fn quality(series: &Series, design: &Design) -> Result<MetricReport> {
    let mut report = figures(Metric::Auroc, series, Verdict::Pass, None)?;
    let drift = median(&series.head)? - median(&series.base)?;
    if drift.abs() > design.auroc_tolerance {
        report.verdict = Verdict::Regressed;
        report.note = Some(format!("AUROC moved by {drift:+.6}, more than {}", design.auroc_tolerance));
    }
    Ok(report)
}

/// The digests of both sides, which must be one.
///
/// A side that disagrees with itself is broken: its other figures are of different work from run to run.
pub fn identity(base: &[&str], head: &[&str], design: &Design) -> MetricReport {
    let agree = |digests: &[&str]| digests.windows(2).all(|pair| pair[0] == pair[1]);
    let short = |digests: &[&str]| digests.first().map_or(String::new(), |digest| digest.chars().take(12).collect());
    let same = base.first() == head.first();
    let (verdict, note) = match (agree(base), agree(head)) {
        (true, true) if same => (Verdict::Pass, None),
        (true, true) if design.allow_other_features => {
            (Verdict::Pass, Some("the features differ, which was allowed".to_owned()))
        }
        (true, true) => {
            let note = format!("the features differ: {} before, {} now", short(base), short(head));
            (Verdict::Regressed, Some(note))
        }
        (false, _) => (Verdict::Broken, Some("base gives other features from run to run".to_owned())),
        (_, false) => (Verdict::Broken, Some("head gives other features from run to run".to_owned())),
    };
    MetricReport { verdict, note, n_pairs: base.len(), ..empty(Metric::FeatureDigest) }
}

/// A metric's figures with a verdict; a metric that shows itself better is called so.
///
/// # Errors
/// No value.
pub fn figures(metric: Metric, series: &Series, verdict: Verdict, p: Option<f64>) -> Result<MetricReport> {
    let ratio = RatioEstimate::of_pairs(&series.head, &series.base, CONFIDENCE).ok();
    Ok(MetricReport {
        verdict,
        estimate: ratio.map(|ratio| ratio.estimate),
        low: ratio.and_then(|ratio| ratio.low),
        high: ratio.and_then(|ratio| ratio.high),
        confidence: ratio.and_then(|ratio| ratio.confidence),
        n_pairs: series.base.len(),
        p,
        base_median: Some(median(&series.base)?),
        head_median: Some(median(&series.head)?),
        ..empty(metric)
    })
}

/// Whether head is shown to take less: its whole interval lies beyond what counts as none.
pub fn is_improved(report: &MetricReport, series: &Series, design: &Design) -> bool {
    match report.metric.rule() {
        Rule::Time => report.high.is_some_and(|high| high < 1.0 / (1.0 + design.delta)),
        Rule::Memory => separated(&series.head, &series.base, design),
        Rule::Count => report.estimate.is_some_and(|ratio| ratio < 1.0 / (1.0 + design.count_margin)),
        Rule::Quality | Rule::Identity => false,
    }
}

/// A metric of which nothing is known.
pub fn empty(metric: Metric) -> MetricReport {
    MetricReport {
        metric,
        unit: metric.unit().to_owned(),
        verdict: Verdict::Broken,
        estimate: None,
        low: None,
        high: None,
        confidence: None,
        n_pairs: 0,
        p: None,
        base_median: None,
        head_median: None,
        note: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(base: &[f64], head: &[f64]) -> Series {
        Series { base: base.to_vec(), head: head.to_vec() }
    }

    /// Ten pairs around `centre` with noise of 0.1 %.
    fn around(centre: f64) -> Vec<f64> {
        (0..10).map(|i| centre * (1.0 + 2e-4 * (f64::from(i) - 4.5))).collect()
    }

    #[test]
    fn times_pass_are_flagged_or_stay_open() {
        let design = Design::looks(0);
        let of = |factor: f64| look(Metric::Wall, &series(&around(1.0), &around(factor)), &design).unwrap();
        assert_eq!(of(1.0), Call::Pass);
        assert_eq!(of(1.009), Call::Pass);
        assert!(matches!(of(1.02), Call::Flag(p) if p <= design.look_level));
        assert!(matches!(of(1.2), Call::Flag(_)));
        let wild: Vec<f64> = (0..10).map(|i| if i % 2 == 0 { 0.7 } else { 1.4 }).collect();
        assert_eq!(look(Metric::Wall, &series(&around(1.0), &wild), &design).unwrap(), Call::Open);
        assert!(look(Metric::Wall, &series(&[0.0; 10], &[1.0; 10]), &design).is_err());
    }

    #[test]
    fn memory_regresses_by_a_mebibyte_or_two_percent_and_not_by_less_than_its_margin() {
        let design = Design::looks(0);
        let of = |base: f64, head: f64| look(Metric::PeakRss, &series(&around(base), &around(head)), &design).unwrap();
        assert_eq!(of(30.0, 31.0), Call::Regressed);
        assert_eq!(of(1000.0, 1020.0), Call::Regressed);
        assert_eq!(of(30.0, 30.2), Call::Pass);
        assert_eq!(of(1000.0, 1001.5), Call::Pass);
        assert_eq!(of(0.0, 0.0), Call::Pass);
        // One reading of base as large as those of head hides the gap between the ranges, not the growth.
        let mut base = around(30.0);
        base[3] = 31.2;
        assert!(matches!(look(Metric::PeakRss, &series(&base, &around(31.0)), &design).unwrap(), Call::Flag(_)));
    }

    #[test]
    fn counts_have_a_fixed_margin() {
        let design = Design::looks(0);
        let of = |head: f64| look(Metric::Instructions, &series(&[1e6; 3], &[head; 3]), &design).unwrap();
        assert_eq!(of(1.000_9e6), Call::Pass);
        assert_eq!(of(1.001_1e6), Call::Regressed);
    }

    #[test]
    fn features_must_be_the_same_and_a_side_must_agree_with_itself() {
        let design = Design::looks(0);
        let verdict = |base: &[&str], head: &[&str]| identity(base, head, &design).verdict;
        assert_eq!(verdict(&["a", "a"], &["a", "a"]), Verdict::Pass);
        assert_eq!(verdict(&["a", "a"], &["b", "b"]), Verdict::Regressed);
        assert_eq!(verdict(&["a", "c"], &["a", "a"]), Verdict::Broken);
        assert_eq!(verdict(&["a", "a"], &["a", "b"]), Verdict::Broken);
        let allowed = Design { allow_other_features: true, ..design };
        assert_eq!(identity(&["a"], &["b"], &allowed).verdict, Verdict::Pass);
    }

    #[test]
    fn any_move_of_the_auroc_is_told() {
        let design = Design::looks(0);
        let verdict = |head: f64| quality(&series(&[0.9; 3], &[head; 3]), &design).unwrap().verdict;
        assert_eq!(verdict(0.9), Verdict::Pass);
        assert_eq!(verdict(0.91), Verdict::Regressed);
        assert_eq!(verdict(0.89), Verdict::Regressed);
    }
}
