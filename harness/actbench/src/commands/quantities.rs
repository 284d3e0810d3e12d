//! Durations in the units that people use for their magnitude.

use crate::report::format::seconds;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// From here on hours are hard to imagine.
const MAX_HOURS: u64 = 100;

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
}
