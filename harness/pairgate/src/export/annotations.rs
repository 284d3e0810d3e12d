//! GitHub's annotations: lines that its runner finds in the output of a job. See "Workflow commands for GitHub Actions".

use super::phrases::{case_reason, headline, resolution_sentence};
use crate::report::{GateReport, Verdict};

/// A line for each case that did not pass, and one for the gate.
pub fn annotations(report: &GateReport, gate_name: &str) -> String {
    let mut text = String::new();
    for case in &report.cases {
        let Some(message) = case_reason(case) else { continue };
        text.push_str(&line(level(case.verdict), &format!("{}: {}", case.name, case.verdict), &message));
    }
    for warning in &report.warnings {
        text.push_str(&line("notice", "The machine", warning));
    }
    let message = format!("{}. {}", headline(report), resolution_sentence(report));
    text.push_str(&line(level(report.outcome), gate_name, &message));
    text
}

fn level(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass | Verdict::Improved => "notice",
        Verdict::Inconclusive => "warning",
        Verdict::Regressed | Verdict::Broken => "error",
    }
}

fn line(level: &str, title: &str, message: &str) -> String {
    format!("::{level} title={}::{}\n", escape_property(title), escape_message(message))
}

/// Escapes as the runner's own library does: a line feed would end the command.
fn escape_message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property also ends at a colon and at a comma.
fn escape_property(text: &str) -> String {
    escape_message(text).replace(':', "%3A").replace(',', "%2C")
}
