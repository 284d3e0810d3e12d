//! The origin of the figures: machines and builds, command lines, result files.

use serde::Serialize;
use serde_json::Value;

use super::tables::{Table, text, whole};
use crate::case::LAYER_NUMBERING;
use crate::measure::conditions::{Kind, Level, short_line};
use crate::results::NamedResults;
use crate::results::Status;

/// A machine and build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnvironmentPart {
    /// The runs on it.
    pub runs: Vec<String>,
    /// Names and values, in the order of the result file; unknown values are left out.
    pub facts: Vec<(String, String)>,
}

/// The command line of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandPart {
    /// The result file.
    pub run: String,
    /// The command line, quoted for a shell.
    pub command: String,
}

/// The runs with the same kind of warning.
struct WarnedRuns<'a> {
    kind: String,
    /// Names, and the warnings with their figures.
    runs: Vec<(&'a str, String)>,
}

/// What disturbed the measurements, and what the runs said of their data: a line for all runs with the same kinds of warnings,
/// with the figures of the first of them, so that a matrix of many cells does not begin with a page of warnings. A single file is
/// not named.
pub(super) fn warnings_of(files: &[NamedResults]) -> Vec<String> {
    let disturbances = files.iter().filter_map(|file| {
        let warnings = &file.results.environment.warnings;
        let kinds: Vec<Kind> = warnings.iter().filter(|it| it.level == Level::Warning).map(|it| it.kind).collect();
        Some((file, format!("{kinds:?}"), short_line(warnings)?))
    });
    let of_inputs = files.iter().flat_map(|file| {
        let kind = |line: &str| line.replace(|c: char| c.is_ascii_digit() || c == ',', "");
        file.results.input_warnings.iter().map(move |line| (file, kind(line), line.clone()))
    });
    let mut found: Vec<WarnedRuns<'_>> = Vec::new();
    for (file, kind, line) in disturbances.chain(of_inputs) {
        match found.iter_mut().find(|it| it.kind == kind) {
            Some(it) => it.runs.push((&file.name, line)),
            None => found.push(WarnedRuns { kind, runs: vec![(&file.name, line)] }),
        }
    }
    let line = |WarnedRuns { runs, .. }: &WarnedRuns<'_>| {
        let names: Vec<&str> = runs.iter().map(|(name, _)| *name).collect();
        let (first, line) = runs.first()?;
        Some(match (files.len(), runs.iter().all(|(_, other)| other == line)) {
            (1, _) => format!("warning: {line}"),
            (_, true) => format!("warning: {}: {line}", names.join(", ")),
            (_, false) => {
                format!("warning: {}: {line}; the numbers in this line are those of {first}", names.join(", "))
            }
        })
    };
    found.iter().filter_map(line).collect()
}

/// Each environment once. Date and command line belong to the run and are left out.
pub(super) fn environments(files: &[NamedResults]) -> Vec<EnvironmentPart> {
    let mut parts: Vec<EnvironmentPart> = Vec::new();
    for file in files {
        let facts = match serde_json::to_value(&file.results.environment) {
            Ok(Value::Object(mut facts)) => {
                if let Some(resolution) = &file.results.environment.resolution {
                    facts.insert("resolution".to_owned(), Value::String(resolution.sentence()));
                }
                facts
            }
            _ => Default::default(),
        };
        let facts: Vec<(String, String)> = facts
            .iter()
            .filter(|(name, _)| !["date", "command_line", "warnings"].contains(&name.as_str()))
            .filter_map(|(name, value)| Some((fact_name(name), fact(value)?)))
            .collect();
        match parts.iter_mut().find(|part| part.facts == facts) {
            Some(part) => part.runs.push(file.name.clone()),
            None => parts.push(EnvironmentPart { runs: vec![file.name.clone()], facts }),
        }
    }
    parts
}

/// The name of a fact: a key of the result file in words. `_mb` values are MiB there.
fn fact_name(key: &str) -> String {
    key.strip_suffix("_mb").map_or_else(|| key.to_owned(), |name| format!("{name}_MiB")).replace('_', " ")
}

/// A value as text; none for null and for empty values.
fn fact(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(value) => Some(if *value { "yes" } else { "no" }.to_owned()),
        Value::Number(number) if number.is_f64() => number.as_f64().map(|number| format!("{number:.0}")),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Array(values) => {
            let facts: Vec<String> = values.iter().filter_map(fact).collect();
            (!facts.is_empty()).then(|| facts.join(", "))
        }
        Value::Object(values) => {
            let facts = values.iter().filter_map(|(name, value)| Some(format!("{} {}", fact_name(name), fact(value)?)));
            let facts: Vec<String> = facts.collect();
            (!facts.is_empty()).then(|| facts.join(", "))
        }
    }
}

/// The command line of each file.
pub(super) fn commands(files: &[NamedResults]) -> Vec<CommandPart> {
    let command = |file: &NamedResults| {
        let arguments = file.results.environment.command_line.iter();
        arguments.map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
    };
    files.iter().map(|file| CommandPart { run: file.name.clone(), command: command(file) }).collect()
}

/// A character within the quotes `$'...'`.
fn dollar_quoted(character: char) -> String {
    match character {
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        '\r' => "\\r".to_owned(),
        '\'' | '\\' => format!("\\{character}"),
        _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
            character.to_string().bytes().map(|byte| format!("\\{byte:03o}")).collect()
        }
        _ => character.to_string(),
    }
}

/// `argument` as a POSIX shell reads it back.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else if argument.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        // A command is one line: a second one could end the block that it stands in (POSIX 2024, 2.2.4).
        format!("$'{}'", argument.chars().map(dollar_quoted).collect::<String>())
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// One line per file: when its run started, observations, failures.
pub(super) fn result_files(files: &[NamedResults]) -> Table {
    let mut table =
        Table::new(format!("Layer numbers: {LAYER_NUMBERING}."), &["file", "started", "#observations", "#failed"]);
    for file in files {
        let rows = &file.results.rows;
        table.push(vec![
            text(&file.path),
            text(&file.results.environment.date),
            whole(rows.len()),
            whole(rows.iter().filter(|row| row.status != Status::Ok).count()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_survive_a_shell() {
        assert_eq!(quoted("--sweep-cs=0.1,1"), "--sweep-cs=0.1,1");
        assert_eq!(quoted("my model"), "'my model'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\n```\n<b>'\\\u{1b}"), r"$'a\n```\n<b>\'\\\033'");
        assert_eq!(quoted("a\u{2028}b"), r"$'a\342\200\250b'");
    }

    #[test]
    fn unknown_facts_are_left_out() {
        assert_eq!(fact(&json!(["a", null, 2])).as_deref(), Some("a, 2"));
        assert_eq!(fact(&json!([])), None);
        assert_eq!(fact(&json!({"a": true, "b": null})).as_deref(), Some("a yes"));
        assert_eq!(fact(&json!(23982.5)).as_deref(), Some("23982"));
    }
}
