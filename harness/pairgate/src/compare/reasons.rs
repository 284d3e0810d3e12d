//! Why a comparison is not judged, or not by the whole history.

use super::{FigureComparison, MIN_RUNS};
use crate::export::format::counted;
use crate::history::{CaseName, RunRecord, SeriesKey};

/// The facts in which base and head differ: their ratios reflect these differences as well.
pub fn differences<C>(base: &RunRecord<C>, head: &RunRecord<C>) -> Vec<String> {
    // A digest that one of the runs did not record says nothing: names among the settings identify its inputs.
    let known = |base: &[(String, String)], head: &[(String, String)]| {
        if base.is_empty() || head.is_empty() { Vec::new() } else { differing_facts(base, head) }
    };
    [
        ("other data", known(&base.facts.data, &head.facts.data)),
        ("other weights", known(&base.facts.weights, &head.facts.weights)),
        ("other probe settings", differing_facts(&base.facts.probe, &head.facts.probe)),
        ("the settings differ", differing_facts(&base.facts.work, &head.facts.work)),
        ("the machines differ", differing_facts(&base.facts.machine, &head.facts.machine)),
        ("the builds differ", differing_facts(&base.facts.build, &head.facts.build)),
    ]
    .into_iter()
    .filter(|(_, facts)| !facts.is_empty())
    .map(|(difference, facts)| format!("{difference}: {}", facts.join("; ")))
    .collect()
}

/// `name A against B` for each fact that differs.
fn differing_facts(base: &[(String, String)], head: &[(String, String)]) -> Vec<String> {
    let names = base.iter().chain(head.iter().filter(|(name, _)| !base.iter().any(|(other, _)| other == name)));
    let value = |facts: &[(String, String)], name: &str| {
        let found = facts.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty()).unwrap_or("-").to_owned()
    };
    names
        .map(|(name, _)| (name, value(base, name), value(head, name)))
        .filter(|(_, base, head)| base != head)
        .map(|(name, base, head)| format!("{name} {base} against {head}"))
        .collect()
}

/// Why the history cannot judge head.
pub fn history<C: CaseName>(
    all: &[RunRecord<C>],
    past: &[RunRecord<C>],
    compared: &[FigureComparison<C>],
    head: &RunRecord<C>,
) -> Vec<String> {
    if all.is_empty() {
        return vec!["there is no history to judge by (--history DIR)".to_owned()];
    }
    if past.is_empty() {
        let count =
            |fact: fn(&SeriesKey) -> &String| all.iter().filter(|run| fact(&run.key) == fact(&head.key)).count();
        return vec![format!(
            "none of the {} of the history was made before head with its settings, machine and build ({} have its \
             settings, {} its machine, {} its build)",
            counted(all.len(), "run"),
            count(|key| &key.work),
            count(|key| &key.machine),
            count(|key| &key.build)
        )];
    }
    if past.len() < MIN_RUNS {
        return vec![format!("the history has {} to judge by; {MIN_RUNS} are needed", counted(past.len(), "run"))];
    }
    let figures = || compared.iter().filter(|figure| figure.metric.rule().is_judged_at_looks());
    let short = figures().filter(|figure| !figure.judged).count();
    if short == 0 {
        return Vec::new();
    }
    vec![format!(
        "{short} of {} have fewer than {MIN_RUNS} runs since they were first measured or last changed",
        counted(figures().count(), "figure")
    )]
}
