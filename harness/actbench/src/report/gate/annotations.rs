//! GitHub's annotations: lines that its runner reads off a job's output. See "Workflow commands for GitHub Actions".

use super::words::{headline, reason, resolution};
use crate::gate::{GateReport, Outcome, Verdict};

/// A line for each case that did not pass, and one for the whole.
pub fn annotations(report: &GateReport) -> String {
    let mut text = String::new();
    for case in &report.cases {
        let level = match case.verdict {
            Verdict::Regressed | Verdict::Broken => "error",
            Verdict::Inconclusive => "warning",
            Verdict::Pass | Verdict::Improved => continue,
        };
        let message = reason(case).unwrap_or_default();
        text.push_str(&line(level, &format!("{}: {}", case.name, case.verdict), &message));
    }
    for warning in &report.warnings {
        text.push_str(&line("notice", "The machine", warning));
    }
    let level = match report.outcome {
        Outcome::Pass => "notice",
        Outcome::Inconclusive => "warning",
        Outcome::Regressed | Outcome::Broken => "error",
    };
    text.push_str(&line(level, "actbench gate", &format!("{}. {}", headline(report), resolution(report))));
    text
}

fn line(level: &str, title: &str, message: &str) -> String {
    format!("::{level} title={}::{}\n", property(title), data(message))
}

/// As the runner's own library escapes a message: a line feed would end the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property also ends at a colon and at a comma.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
