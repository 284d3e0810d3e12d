//! Why a comparison is not judged, or not against what the user named.

use super::FEWEST_RUNS;
use crate::history::{Entry, Series, SeriesKey, work_of};
use crate::measure::fingerprint::{build_facts, machine_facts};
use crate::results::ResultFile;

/// What base and head do not have in common: their ratios are then of these differences as well.
pub fn differences(base: &ResultFile, head: &ResultFile) -> Vec<String> {
    let work = |results: &ResultFile| work_of(results);
    let (machine, build) = (machine_facts, build_facts);
    let named = |facts: Vec<(&'static str, String)>| -> Vec<(String, String)> {
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    [
        ("the settings differ", differing(&work(base), &work(head))),
        ("the machines differ", differing(&named(machine(&base.environment)), &named(machine(&head.environment)))),
        ("the builds differ", differing(&named(build(&base.environment)), &named(build(&head.environment)))),
    ]
    .into_iter()
    .filter(|(_, facts)| !facts.is_empty())
    .map(|(what, facts)| format!("{what}: {}", facts.join("; ")))
    .collect()
}

/// `name A against B` for each fact that differs.
fn differing(base: &[(String, String)], head: &[(String, String)]) -> Vec<String> {
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

/// Why the history does not judge head.
pub fn history(all: &[Entry], past: &[Entry], series: &[Series], head: &ResultFile) -> Vec<String> {
    let advice = "`actbench history add` keeps runs; `actbench gate` judges two commits without any";
    if past.is_empty() {
        let key = SeriesKey::of(head);
        let of = |other: fn(&SeriesKey) -> &String| {
            all.iter().filter(|entry| other(&SeriesKey::of(&entry.results)) == other(&key)).count()
        };
        return vec![match all.len() {
            0 => format!("there is no history to judge by (--history DIR); {advice}"),
            n => format!(
                "of the {n} runs of the history none was made before head with its settings, machine and build ({} share its \
                 settings, {} its machine, {} its build); {advice}",
                of(|key| &key.work),
                of(|key| &key.machine),
                of(|key| &key.build)
            ),
        }];
    }
    if past.len() < FEWEST_RUNS {
        return vec![format!("the history has {} runs to judge by, {FEWEST_RUNS} are needed; {advice}", past.len())];
    }
    let short = |it: &&Series| it.current().len() < FEWEST_RUNS;
    let begun_anew: Vec<&Series> = series.iter().filter(short).collect();
    match begun_anew.len() {
        0 => Vec::new(),
        n => vec![format!(
            "{n} of {} figures have fewer than {FEWEST_RUNS} runs since they last changed, and are not judged until there are",
            series.len()
        )],
    }
}
