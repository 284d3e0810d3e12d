//! The statistics compared with scipy and numpy (`scripts/make_stats_goldens.py`), to nine digits.

use serde_json::Value;

use super::summary::quantile;
use super::{RatioEstimate, SignedRankDistribution, SignedRankTest, Summary, Trend, WalshAverages, holm};

fn goldens(key: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/stats/stats.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = all[key].as_array().unwrap().clone();
    assert!(cases.len() >= 3, "{key} has {} cases", cases.len());
    cases
}

fn series(case: &Value, key: &str) -> Vec<f64> {
    case[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(actual: f64, case: &Value, key: &str) {
    let expected = case[key].as_f64().unwrap();
    let difference = (actual - expected).abs();
    assert!(difference <= 1e-9 * (1.0 + expected.abs()), "{}: {key} {actual} instead of {expected}", case["name"]);
}

#[test]
fn signed_rank_test_matches_scipy() {
    for case in goldens("signed_rank") {
        let test = SignedRankTest::of(&series(&case, "differences"), case["center"].as_f64().unwrap()).unwrap();
        assert_close(test.statistic, &case, "statistic");
        assert_close(test.p_greater, &case, "p_greater");
        assert_close(test.p_less, &case, "p_less");
        assert_close(test.p_two_sided, &case, "p_two_sided");
    }
}

#[test]
fn small_tails_have_full_relative_accuracy() {
    for case in goldens("tails") {
        let n = case["n"].as_u64().unwrap() as usize;
        let (actual, expected) =
            (SignedRankDistribution::new(n).at_most(case["sum"].as_f64().unwrap()), case["at_most"].as_f64().unwrap());
        assert!((actual / expected - 1.0).abs() <= 1e-9, "n {n}: {actual:e} instead of {expected:e}");
    }
}

#[test]
fn estimates_and_intervals_match_brute_force() {
    for case in goldens("hodges_lehmann") {
        let averages = WalshAverages::of(&series(&case, "observations")).unwrap();
        assert_close(averages.estimate(), &case, "estimate");
        let interval = averages.interval(case["nominal"].as_f64().unwrap()).unwrap().unwrap();
        assert_close(interval.low, &case, "low");
        assert_close(interval.high, &case, "high");
        assert_close(interval.confidence, &case, "confidence");
        assert_eq!(interval.nominal_reached, case["nominal_reached"].as_bool().unwrap());
    }
}

#[test]
fn ratios_match_exponentials_of_log_estimates() {
    for case in goldens("ratio") {
        let ratio =
            RatioEstimate::of_pairs(&series(&case, "numerators"), &series(&case, "denominators"), 0.95).unwrap();
        assert_close(ratio.estimate, &case, "estimate");
        assert_close(ratio.low.unwrap(), &case, "low");
        assert_close(ratio.high.unwrap(), &case, "high");
    }
}

#[test]
fn summaries_match_numpy() {
    for case in goldens("summary") {
        let values = series(&case, "values");
        let summary = Summary::of(&values).unwrap();
        assert_close(summary.median, &case, "median");
        assert_close(summary.lower_quartile, &case, "lower_quartile");
        assert_close(summary.upper_quartile, &case, "upper_quartile");
        assert_close(summary.median_absolute_deviation, &case, "median_absolute_deviation");
        assert_close(quantile(&values, 0.9).unwrap(), &case, "q90");
    }
}

#[test]
fn holm_matches_closed_bonferroni_test() {
    for case in goldens("holm") {
        let adjusted = holm(&series(&case, "p_values")).unwrap();
        for (found, wanted) in adjusted.iter().zip(series(&case, "adjusted")) {
            assert!((found - wanted).abs() <= 1e-9, "{}: {found} instead of {wanted}", case["name"]);
        }
    }
}

#[test]
fn trends_match_scipy_kendall_test() {
    for case in goldens("trend") {
        let trend = Trend::of(&series(&case, "values")).unwrap().unwrap();
        assert_close(trend.tau, &case, "tau");
        assert_close(trend.p, &case, "p");
        assert_close(trend.last_over_first, &case, "last_over_first");
    }
}

#[test]
fn intervals_cover_zero_where_scipy_does_not_reject() {
    for case in goldens("coverage") {
        let nominal = case["nominal"].as_f64().unwrap();
        let all = case["series"].as_array().unwrap();
        let covers_zero = |series: &&Value| {
            let values: Vec<f64> = series.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            let interval = WalshAverages::of(&values).unwrap().interval(nominal).unwrap().unwrap();
            interval.low <= 0.0 && 0.0 <= interval.high
        };
        assert_eq!(
            all.iter().filter(covers_zero).count() as u64,
            case["covered"].as_u64().unwrap(),
            "{}",
            case["name"]
        );
    }
}
