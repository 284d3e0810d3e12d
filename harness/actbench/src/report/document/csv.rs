//! The report as CSV: every observation, and the summary.

use csv::Writer;
use serde_json::Value;

use super::Table;
use super::tables::NONE;
use crate::crossover::Setting;
use crate::error::{Error, Result};
use crate::results::NamedResults;
use crate::results::Row;

/// The columns of the settings, which precede those of the observation.
const SETTINGS: [&str; 9] = ["run", "date", "model", "dataset", "samples", "layers", "dtype", "batch_size", "device"];

/// `observations.csv`: one line per observation with the settings, the columns of the result file under their own names,
/// and the plain values of `extra`. The method is `lazy-disk` also where `--lazy-cache-disk` asked for it as `lazy`. Lists and maps of `extra` are in the result files only.
///
/// # Errors
/// A fault of actbench: writing to memory does not fail.
pub fn rows_csv(files: &[NamedResults]) -> Result<Vec<u8>> {
    let shown_methods =
        |file: &NamedResults| NamedResults { results: file.results.with_shown_methods(), ..file.clone() };
    let files: &[NamedResults] = &files.iter().map(shown_methods).collect::<Vec<_>>();
    let rows: Vec<(&NamedResults, Value)> = files
        .iter()
        .flat_map(|file| file.results.rows.iter().map(move |row| (file, row)))
        .filter_map(|(file, row)| Some((file, serde_json::to_value(row).ok()?)))
        .collect();
    let (mut columns, mut extras) = (Vec::<String>::new(), Vec::<String>::new());
    let note = |names: &mut Vec<String>, name: &String| {
        if !names.contains(name) {
            names.push(name.clone());
        }
    };
    for (_, row) in &rows {
        for (name, value) in row.as_object().into_iter().flatten() {
            match value {
                Value::Object(extra) => {
                    let plain = extra.iter().filter(|(_, value)| !value.is_array() && !value.is_object());
                    plain.for_each(|(name, _)| note(&mut extras, name));
                }
                _ => note(&mut columns, name),
            }
        }
    }
    extras.retain(|name| !SETTINGS.contains(&name.as_str()) && !columns.contains(name));
    let mut writer = Writer::from_writer(Vec::new());
    let heads = SETTINGS.iter().copied().chain(columns.iter().chain(&extras).map(String::as_str));
    writer.write_record(heads).map_err(failed)?;
    for ((file, value), row) in rows.iter().zip(files.iter().flat_map(|file| &file.results.rows)) {
        let own = columns.iter().map(|name| plain(value.get(name)));
        let extra = extras.iter().map(|name| plain(value.get("extra").and_then(|extra| extra.get(name))));
        writer.write_record(settings(file, row).into_iter().chain(own).chain(extra)).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn settings(file: &NamedResults, row: &Row) -> [String; 9] {
    let setting = Setting::of(&file.results, row.task);
    [
        file.name.clone(),
        file.results.environment.date.clone(),
        setting.model,
        setting.dataset,
        file.results.config.samples.to_string(),
        setting.layers.to_string(),
        setting.dtype,
        setting.batch_size.to_string(),
        setting.device.to_string(),
    ]
}

/// A value without quotes; empty for null.
fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// `summary.csv` or any other table: numeric columns in full precision, with the ends of their intervals if the column has
/// any. The text of a cell, such as `eager: oom`, replaces a missing number.
///
/// # Errors
/// A fault of actbench: writing to memory does not fail.
pub fn summary_csv(table: &Table) -> Result<Vec<u8>> {
    let has_ends = |column: usize| table.rows.iter().any(|row| row[column].ends.is_some());
    let with_ends: Vec<bool> = (0..table.columns.len()).map(has_ends).collect();
    let mut writer = Writer::from_writer(Vec::new());
    let heads = table.columns.iter().zip(&with_ends).flat_map(|(name, ends)| {
        let mut names = vec![name.clone()];
        if *ends {
            names.extend([format!("{name} low"), format!("{name} high")]);
        }
        names
    });
    writer.write_record(heads).map_err(failed)?;
    for row in &table.rows {
        let cells = row.iter().zip(&table.numeric).zip(&with_ends).flat_map(|((cell, numeric), ends)| {
            let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
            let own = match (numeric, cell.number) {
                (true, Some(value)) => value.to_string(),
                (true, None) if cell.text == NONE => String::new(),
                _ => cell.text.clone(),
            };
            let mut cells = vec![own];
            if *ends {
                cells.extend([number(cell.ends.map(|(low, _)| low)), number(cell.ends.map(|(_, high)| high))]);
            }
            cells
        });
        writer.write_record(cells).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("the CSV of the report could not be written to memory: {error}"))
}
