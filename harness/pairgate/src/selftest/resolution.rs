//! The smallest slowdown that a self-test caught reliably on a machine.

use serde::{Deserialize, Serialize};

use crate::export::format::counted;

/// The result of a self-test of a machine, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Digest of the machine's facts.
    pub machine: String,
    /// When the self-test was run, RFC 3339 in UTC.
    pub date: String,
    /// The smallest slowdown tried that was caught in at least 90 % of its gates, as were all larger ones, as a fraction
    /// (0.05 is 5 %). None if there was none.
    pub smallest_effect: Option<f64>,
    /// Gates without any difference.
    pub trials_without_difference: usize,
    /// False alarms among them.
    pub false_alarms: usize,
}

impl Resolution {
    /// `this machine resolves slowdowns of 5 % or more (0 false alarms in 40 gates, self-test of 2026-11-27)`.
    pub fn sentence(&self) -> String {
        let gates = format!(
            "{} in {}, self-test of {}",
            counted(self.false_alarms, "false alarm"),
            counted(self.trials_without_difference, "gate"),
            self.day()
        );
        match self.smallest_effect {
            Some(effect) => format!("this machine resolves slowdowns of {:.0} % or more ({gates})", 100.0 * effect),
            None => format!("this machine resolves none of the slowdowns that were tried ({gates})"),
        }
    }

    /// The day of the self-test: `2026-11-27`.
    pub fn day(&self) -> &str {
        self.date.split('T').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_has_slowdown_and_false_alarms() {
        let resolution = Resolution {
            machine: "0".repeat(16),
            date: "2026-11-27T01:02:03Z".to_owned(),
            smallest_effect: Some(0.05),
            trials_without_difference: 40,
            false_alarms: 0,
        };
        let expected =
            "this machine resolves slowdowns of 5 % or more (0 false alarms in 40 gates, self-test of 2026-11-27)";
        assert_eq!(resolution.sentence(), expected);
        let none = Resolution { smallest_effect: None, ..resolution };
        assert!(none.sentence().starts_with("this machine resolves none of the slowdowns"), "{}", none.sentence());
    }
}
