//! The phases of cases: a table below that of a run, and a line of a profile.

use comfy_table::{CellAlignment, Table};

use super::fit::fitted;
use super::format::seconds;
use crate::case::{CasePhases, Method, Task, start_up_share};
use crate::crossover::phase_medians;
use crate::results::{ResultFile, Row};
use pairgate::export::table_style;

/// The explanation below the table.
const LEGEND: &str = "Phases of a case's process, medians in s. On the CPU, time includes release.\n";

/// The median of every phase for each task and method; empty if no row has phases, as in files of earlier versions.
pub fn render(results: &ResultFile, width: Option<u16>) -> String {
    let lines: Vec<(Task, Method, Vec<Option<f64>>)> = results
        .config
        .tasks
        .iter()
        .flat_map(|task| results.config.methods.iter().map(move |method| (*task, *method)))
        .map(|(task, method)| {
            let is_own = |row: &&Row| (row.task, row.method) == (task, method) && row.ablated().is_none();
            let rows: Vec<&Row> = results.rows.iter().filter(is_own).collect();
            (task, method, phase_medians(&rows))
        })
        .collect();
    let columns: Vec<usize> = (0..CasePhases::ALL.len())
        .filter(|phase| lines.iter().any(|(.., medians)| medians[*phase].is_some()))
        .collect();
    if columns.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    let names = columns.iter().map(|phase| CasePhases::ALL[*phase].0);
    table.load_style(table_style()).set_header(["task", "method"].into_iter().chain(names));
    for (task, method, medians) in &lines {
        let figures = columns.iter().map(|phase| seconds(medians[*phase]));
        table.add_row([task.to_string(), method.to_string()].into_iter().chain(figures));
    }
    for column in table.column_iter_mut() {
        column.set_padding((1, 0));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("\n{}{LEGEND}", fitted(table, width))
}

/// `weights 0.244 s, extract 0.032 s`: the phases that `phases` has.
pub fn line(phases: &CasePhases) -> String {
    let present: Vec<String> = phases.present().map(|(name, time)| format!("{name} {time:.3} s")).collect();
    present.join(", ")
}

/// `start-up: 31% of a process that runs this case`, for the phases of a process and of its case; nothing where either is
/// unknown.
pub fn start_up_line(process: &CasePhases, case: &CasePhases) -> Option<String> {
    let both: Vec<Option<f64>> =
        process.seconds().into_iter().zip(case.seconds()).map(|(process, case)| case.or(process)).collect();
    Some(format!("start-up: {:.0}% of a process that runs this case", 100.0 * start_up_share(&both)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::RunConfig;
    use crate::test_support::{file_of, ok_row, small_config};

    fn with_phases(method: Method, block: usize, phases: CasePhases) -> Row {
        let mut row = ok_row(Task::Train, method, block, 1.0, 50.0);
        row.metrics.phases = Some(phases);
        row
    }

    #[test]
    fn medians_of_present_phases_are_listed() {
        let phases = |weights: f64, release: f64| CasePhases {
            start_s: Some(0.0),
            weights_s: Some(weights),
            release_s: Some(release),
            ..CasePhases::default()
        };
        let methods = vec![Method::Eager, Method::Lazy];
        let config = RunConfig { tasks: vec![Task::Train], methods, ..small_config() };
        let rows = [
            with_phases(Method::Eager, 0, phases(2.0, 0.085)),
            with_phases(Method::Eager, 1, phases(4.0, 0.095)),
            with_phases(Method::Eager, 2, phases(3.0, 0.075)),
            ok_row(Task::Train, Method::Lazy, 0, 1.0, 50.0),
        ];
        let text = render(&file_of(config.clone(), rows), None);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        for line in [
            vec!["task", "method", "start", "weights", "release"],
            vec!["train", "eager", "0.000", "3.00", "0.085"],
            vec!["train", "lazy", "-", "-", "-"],
        ] {
            assert!(lines.contains(&line), "{line:?} in {text}");
        }
        assert!(text.ends_with(LEGEND) && LEGEND.chars().count() <= 80, "{text}");
        let without = [ok_row(Task::Train, Method::Lazy, 0, 1.0, 50.0)];
        assert_eq!(render(&file_of(config, without), None), "");
    }

    #[test]
    fn start_up_is_of_process_and_case() {
        let process = CasePhases { start_s: Some(0.1), prepare_s: Some(0.2), ..CasePhases::default() };
        let case =
            CasePhases { weights_s: Some(0.1), extract_s: Some(0.5), probes_s: Some(0.1), ..CasePhases::default() };
        assert_eq!(start_up_line(&process, &case).unwrap(), "start-up: 40% of a process that runs this case");
        assert_eq!(start_up_line(&process, &CasePhases::default()), None);
    }

    #[test]
    fn line_names_present_phases_in_order() {
        let phases = CasePhases { release_s: Some(0.0851), weights_s: Some(0.244), ..CasePhases::default() };
        assert_eq!(line(&phases), "weights 0.244 s, release 0.085 s");
        assert_eq!(line(&CasePhases::default()), "");
    }
}
