//! Numbers as text.

pub use pairgate::export::format::mebibytes;

pub use crate::quantities::seconds;
use crate::results::interval::is_same;
use crate::results::summary::Interval;

/// A metric with four decimals.
pub fn metric(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.4}"))
}

/// `3.12x (2.90 to 3.30)`.
pub fn ratio(value: Option<f64>, interval: Option<Interval>) -> String {
    match (value, interval) {
        (Some(value), Some(interval)) => format!("{value:.2}x ({:.2} to {:.2})", interval.low, interval.high),
        (Some(value), None) => format!("{value:.2}x"),
        (None, _) => dash(),
    }
}

/// Like [`ratio`], but `1.01x (1.00 to 1.01, the same)` within 2 % of 1, and `1.05x (0.98 to 1.13, no difference shown)` if the
/// interval contains 1.
pub fn ratio_or_no_difference(value: Option<f64>, interval: Option<Interval>) -> String {
    let (Some(value), Some(interval)) = (value, interval) else { return ratio(value, interval) };
    let remark = match interval {
        interval if interval.shows_the_same() => ", the same",
        interval if interval.contains_one() => ", no difference shown",
        _ if is_same(value) => ", the same",
        _ => "",
    };
    format!("{value:.2}x ({:.2} to {:.2}{remark})", interval.low, interval.high)
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(seconds(Some(123.4)), "123");
        assert_eq!(seconds(Some(12.34)), "12.3");
        assert_eq!(seconds(Some(0.012_34)), "0.012");
        assert_eq!(mebibytes(Some(12.34)), "12.3");
        assert_eq!(seconds(None), "-");
        let interval = Interval { low: 2.9, high: 3.3, confidence: 0.95, n: 6 };
        assert_eq!(ratio(Some(3.1), Some(interval)), "3.10x (2.90 to 3.30)");
        assert_eq!(ratio(Some(3.1), None), "3.10x");
        let around_one = Interval { low: 0.98, high: 1.03, ..interval };
        assert_eq!(ratio_or_no_difference(Some(1.01), Some(around_one)), "1.01x (0.98 to 1.03, no difference shown)");
        let narrow = Interval { low: 1.0, high: 1.01, ..interval };
        assert_eq!(ratio_or_no_difference(Some(1.0), Some(narrow)), "1.00x (1.00 to 1.01, the same)");
    }
}
