//! Cases that failed: how often, how, and why.

use super::tables::{Table, text, whole};
use crate::crossover::Setting;
use crate::results::NamedResults;
use crate::results::{Row, Status};

/// One line per run, task, mode and reason.
pub fn failures_table(files: &[NamedResults]) -> Table {
    let mut table = Table::new(
        "Repetitions with the same failure share a line.",
        &["run", "task", "mode", "model", "#samples", "layers", "status", "#times", "reason"],
    );
    for file in files {
        let mut counted: Vec<(&Row, usize)> = Vec::new();
        for row in file.results.rows.iter().filter(|row| row.status != Status::Ok) {
            let key =
                |row: &Row| (row.task, row.method, row.status, row.reason.clone(), row.ablated().map(str::to_owned));
            match counted.iter_mut().find(|(seen, _)| key(seen) == key(row)) {
                Some((_, times)) => *times += 1,
                None => counted.push((row, 1)),
            }
        }
        for (row, times) in counted {
            let setting = Setting::of(&file.results, row.task);
            let without = row.ablated().map_or_else(String::new, |rule| format!(" without {rule}"));
            table.push(vec![
                text(&file.name),
                text(row.task),
                text(format!("{}{without}", row.method)),
                text(&setting.shown_model),
                whole(file.results.config.samples),
                text(setting.depth()),
                text(row.status),
                whole(times),
                text(row.reason.as_deref().unwrap_or("no reason recorded")),
            ]);
        }
    }
    table
}
