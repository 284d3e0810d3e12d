//! Durations in the units that people use for their magnitude.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// From here on hours are hard to imagine.
const MAX_HOURS: u64 = 100;
/// In place of a value that was not measured.
const MISSING: &str = "-";

/// Seconds with three significant digits, at most three decimals.
pub fn seconds(value: Option<f64>) -> String {
    value.map_or_else(
        || MISSING.to_owned(),
        |value| match value {
            value if value >= 100.0 => format!("{value:.0}"),
            value if value >= 10.0 => format!("{value:.1}"),
            value if value >= 1.0 => format!("{value:.2}"),
            value => format!("{value:.3}"),
        },
    )
}

/// The same for an estimate: whole seconds below a minute.
pub fn rounded_duration(value: Duration) -> String {
    let seconds = value.as_secs_f64().round();
    if seconds < MINUTE as f64 { format!("{:.0} s", seconds.max(1.0)) } else { duration(seconds) }
}

/// `8.35 s`, `12 min 5 s`, `36 h 32 min`, `6 d 2 h`.
pub fn duration(value: f64) -> String {
    if value < 59.95 {
        return format!("{} s", seconds(Some(value)));
    }
    // Each magnitude is rounded to its smaller unit, so that none prints as `1 h 60 min`.
    let rounded = |unit: u64| (value / unit as f64).round() as u64 * unit;
    let (s, min, h) = (rounded(1), rounded(MINUTE), rounded(HOUR));
    if s < HOUR {
        format!("{} min {} s", s / MINUTE, s % MINUTE)
    } else if min < MAX_HOURS * HOUR {
        format!("{} h {} min", min / HOUR, min % HOUR / MINUTE)
    } else {
        format!("{} d {} h", h / DAY, h % DAY / HOUR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_of_their_magnitude() {
        let texts =
            [0.0, 0.0124, 8.349, 59.94, 59.96, 61.4, 725.2, 3599.6, 131_496.0, 356_399.0, 525_600.0].map(duration);
        assert_eq!(
            texts,
            [
                "0.000 s",
                "0.012 s",
                "8.35 s",
                "59.9 s",
                "1 min 0 s",
                "1 min 1 s",
                "12 min 5 s",
                "1 h 0 min",
                "36 h 32 min",
                "99 h 0 min",
                "6 d 2 h"
            ]
        );
        // The largest prediction of a command line does not wrap around.
        assert!(duration(1e15).ends_with(" h"), "{}", duration(1e15));
    }

    #[test]
    fn estimates_are_whole_seconds() {
        let texts = [0.2, 12.34, 59.4, 59.7, 725.2].map(|seconds| rounded_duration(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["1 s", "12 s", "59 s", "1 min 0 s", "12 min 5 s"]);
    }
}
