//! Parses the TOML file of a matrix into cells. Every error names the file, the line and a correction.
//!
//! ```toml
//! seed = 0                      # shuffles the cells
//!
//! [settings]                    # for every cell: flags of `actbench run` without their dashes
//! dataset = "embedded:mixed"
//! repetitions = 5
//!
//! [[grid]]                      # every combination of its lists is a cell; there may be several grids
//! models = ["synthetic:smollm2-135m"]
//! samples = [200, 800]
//! layers = [8, "all"]           # --sweep-layers, and the deepest layer as --layer
//! tasks = ["sweep"]             # a flag for this grid alone
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// How errors call the top level of the file.
const TOP_LEVEL: &str = "at the top level";

/// The lists of a grid, outermost first: key, the flag that its values are passed to, and an example for errors.
const AXES: [(&str, &str, &str); 6] = [
    ("models", "model", "models = [\"synthetic:llama-3.2-1b\", \"./smollm2\"]"),
    ("samples", "samples", "samples = [200, 2000]"),
    ("layers", "sweep-layers", "layers = [8, 16, \"all\"]"),
    ("pools", "pool", "pools = [\"mean\", \"last\"]"),
    ("dtypes", "dtype", "dtypes = [\"bf16\", \"fp32\"]"),
    ("batch-sizes", "batch-size", "batch-sizes = [8, 32]"),
];

/// Limit on the number of cells: more are a mistake, such as a zero too many in several lists.
const MAX_CELLS: usize = 100_000;

/// The parser of the flags of a run. The trait keeps this module independent of the command line.
pub trait RunFlagParser {
    /// Names, without dashes, of the flags that a file may set.
    fn names(&self) -> Vec<String>;
    /// Whether the flag `name` takes no value.
    fn is_switch(&self, name: &str) -> bool;
    /// Checks flags and their values.
    ///
    /// # Errors
    /// The reason why `run` would refuse the flags, on one line.
    fn check(&self, flags: &[String]) -> Result<(), String>;
    /// Number of layers of a model.
    ///
    /// # Errors
    /// The model does not exist.
    fn n_layers(&self, model: Option<&str>) -> Result<usize>;
    /// The location of the model that a file calls `name`.
    fn model_location(&self, name: &str) -> String;
}

/// The cells of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMatrix {
    /// Seed of the order in which cells run.
    pub seed: u64,
    /// The cells, in the order of the file.
    pub cells: Vec<CellFlags>,
}

/// A cell, as flags of `actbench run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellFlags {
    /// A unique name, used for files.
    pub name: String,
    /// Flags with dashes, and their values.
    pub flags: Vec<String>,
}

/// The value of a key.
#[derive(Clone, Debug)]
struct SettingValue<'a> {
    /// Line of the key, for errors.
    line: usize,
    values: Vec<String>,
    /// Whether a flag without a value is set.
    switch: Option<bool>,
    is_list: bool,
    key: &'a str,
}

impl CellFlags {
    /// The flags on one line.
    pub fn text(&self) -> String {
        self.flags.join(" ")
    }
}

impl RunMatrix {
    /// Parses the text of a file; `origin` names it in errors.
    ///
    /// # Errors
    /// Invalid TOML, an unknown key, a value that its flag does not accept, no grid, or too many cells.
    pub fn parse(text: &str, origin: &str, flags: &dyn RunFlagParser) -> Result<Self> {
        MatrixReader { text, origin, flags, names: flags.names() }.matrix()
    }
}

struct MatrixReader<'a> {
    text: &'a str,
    origin: &'a str,
    flags: &'a dyn RunFlagParser,
    names: Vec<String>,
}

/// Values by name; a later value replaces an earlier one.
type Settings<'a> = BTreeMap<&'a str, SettingValue<'a>>;

impl<'a> MatrixReader<'a> {
    fn refuse(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::input(format!("{}:{line}", self.origin), what.to_string())
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
    }

    fn matrix(&self) -> Result<RunMatrix> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line(&span));
            self.refuse(line, format!("is not TOML: {}", error.message().replace('\n', ", ")))
        })?;
        let (mut seed, mut settings, mut grids) = (0, Settings::new(), None);
        let entries = document.get_ref().iter().collect::<Vec<_>>();
        for (key, value) in &entries {
            let line = self.line(&key.span());
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("seed", DeValue::Integer(number)) => {
                    seed = number.as_str().parse().map_err(|_| self.refuse(line, "seed: write seed = 0"))?;
                }
                ("seed", _) => return Err(self.refuse(line, "seed must be a whole number: write seed = 0")),
                ("settings", DeValue::Table(table)) => settings = self.settings(table, false)?,
                ("settings", _) => return Err(self.refuse(line, "settings must be a table: write [settings]")),
                ("grid", DeValue::Array(array)) => grids = Some(array),
                ("grid", _) => return Err(self.refuse(line, "grid must be a list: write [[grid]], with two brackets")),
                (other, _) => return Err(self.unknown(line, other, &["seed", "settings", "grid"], TOP_LEVEL)),
            }
        }
        let example = format!("write [[grid]], followed by its lists, such as {}", AXES[1].2);
        let grids = grids.ok_or_else(|| self.refuse(1, format!("no grid: {example}")))?;
        let mut cells = Vec::new();
        for grid in grids.iter() {
            let line = self.line(&grid.span());
            let DeValue::Table(table) = grid.get_ref() else {
                return Err(self.refuse(line, format!("a grid must be a table: {example}")));
            };
            self.expand(line, &settings, self.settings(table, true)?, &mut cells)?;
        }
        Ok(RunMatrix { seed, cells })
    }

    /// The values of a table: flags, and in a grid also lists.
    fn settings<'t>(&self, table: &'t DeTable<'_>, grid: bool) -> Result<Settings<'t>> {
        let mut settings = Settings::new();
        for (key, value) in table.iter() {
            let (line, name) = (self.line(&key.span()), key.get_ref().as_ref());
            let axis = AXES.iter().find(|(axis, ..)| grid && *axis == name);
            let known = self.names.iter().any(|known| known == name);
            if let Some((_, _, example)) = axis.filter(|_| !known || matches!(value.get_ref(), DeValue::Array(_))) {
                settings.insert(name, self.axis(line, name, value, example)?);
            } else if known {
                let value = self.flag(line, name, value)?;
                self.check(&value, name)?;
                settings.insert(name, value);
            } else {
                let axes = AXES.iter().map(|(axis, ..)| *axis).filter(|_| grid);
                let names: Vec<&str> = axes.chain(self.names.iter().map(String::as_str)).collect();
                let table = if grid { "in a grid" } else { "in [settings]" };
                return Err(self.unknown(line, name, &names, table));
            }
        }
        Ok(settings)
    }

    fn unknown(&self, line: usize, name: &str, known: &[&str], table: &str) -> Error {
        let nearest = known.iter().min_by_key(|known| strsim::levenshtein(known, name)).copied().unwrap_or_default();
        let hint = match strsim::levenshtein(nearest, name) {
            distance if distance <= 3 => format!("write {nearest}"),
            _ if table == TOP_LEVEL => format!("use {}", known.join(", ")),
            _ => "use a flag of `actbench run` without its dashes".to_owned(),
        };
        self.refuse(line, format!("unknown key '{name}' {table}: {hint}"))
    }

    fn axis<'t>(
        &self,
        line: usize,
        key: &'t str,
        value: &Spanned<DeValue<'_>>,
        example: &str,
    ) -> Result<SettingValue<'t>> {
        let refuse = |line: usize, what: &str| self.refuse(line, format!("{key} {what}: write {example}"));
        let DeValue::Array(array) = value.get_ref() else { return Err(refuse(line, "must be a list")) };
        let mut values = Vec::new();
        for value in array.iter() {
            let line = self.line(&value.span());
            let text = scalar(value.get_ref()).ok_or_else(|| refuse(line, "must be a list of strings or numbers"))?;
            let text = if key == "models" { self.flags.model_location(&text) } else { text };
            if key == "layers" && text != "all" && !text.parse::<usize>().is_ok_and(|layers| layers > 0) {
                return Err(refuse(line, &format!("has '{text}', which is not a number of layers from 1 on")));
            }
            let one = SettingValue { line, values: vec![text.clone()], switch: None, is_list: false, key };
            if text != "all" {
                self.check(&one, flag_of(key))?;
            }
            if values.contains(&text) {
                return Err(refuse(line, &format!("has '{text}' twice")));
            }
            values.push(text);
        }
        if values.is_empty() {
            return Err(refuse(line, "is empty"));
        }
        Ok(SettingValue { line, values, switch: None, is_list: true, key })
    }

    fn flag<'t>(&self, line: usize, key: &'t str, value: &Spanned<DeValue<'_>>) -> Result<SettingValue<'t>> {
        let refuse = || self.refuse(line, format!("{key} must be a string, number, true, false or a list of these"));
        let mut found = SettingValue { line, values: Vec::new(), switch: None, is_list: false, key };
        if self.flags.is_switch(key) && !matches!(value.get_ref(), DeValue::Boolean(_)) {
            return Err(self.refuse(line, format!("{key} must be true or false: write {key} = true")));
        }
        match value.get_ref() {
            DeValue::Boolean(on) => found.switch = Some(*on),
            DeValue::Array(array) => {
                let values = array.iter().map(|value| scalar(value.get_ref()).ok_or_else(refuse));
                found.values = values.collect::<Result<_>>()?;
            }
            value => {
                let text = scalar(value).ok_or_else(refuse)?;
                found.values.push(if key == "model" { self.flags.model_location(&text) } else { text });
            }
        }
        Ok(found)
    }

    /// Checks a single value, so that an error has its line.
    fn check(&self, value: &SettingValue<'_>, flag: &str) -> Result<()> {
        let mut flags = Vec::new();
        push(&mut flags, flag, value);
        self.flags.check(&flags).map_err(|what| self.refuse(value.line, what))
    }

    /// Adds the cells of one grid.
    fn expand(&self, line: usize, shared: &Settings<'_>, own: Settings<'_>, cells: &mut Vec<CellFlags>) -> Result<()> {
        let mut fixed: Settings<'_> = shared.clone();
        fixed.extend(own.iter().filter(|(_, value)| !value.is_list).map(|(key, value)| (*key, value.clone())));
        let axes: Vec<&SettingValue<'_>> =
            AXES.iter().filter_map(|(axis, ..)| own.get(axis)).filter(|value| value.is_list).collect();
        let added = axes.iter().fold(1usize, |product, axis| product.saturating_mul(axis.values.len()));
        if cells.len().saturating_add(added) > MAX_CELLS {
            return Err(self.refuse(line, format!("makes more than {MAX_CELLS} cells: write shorter lists")));
        }
        for axis in &axes {
            fixed.remove(flag_of(axis.key));
        }
        for combination in 0..added {
            // The last list varies fastest.
            let mut rest = combination;
            let mut chosen: Vec<(&str, &str)> = Vec::with_capacity(axes.len());
            for axis in axes.iter().rev() {
                chosen.push((axis.key, &axis.values[rest % axis.values.len()]));
                rest /= axis.values.len();
            }
            chosen.reverse();
            cells.push(self.cell(cells.len(), line, &fixed, &chosen)?);
        }
        Ok(())
    }

    fn cell(&self, index: usize, line: usize, fixed: &Settings<'_>, chosen: &[(&str, &str)]) -> Result<CellFlags> {
        let mut flags = Vec::new();
        for (flag, value) in fixed {
            push(&mut flags, flag, value);
        }
        let value_of = |key: &str| chosen.iter().find(|(axis, _)| *axis == key).map(|(_, value)| *value);
        let model =
            value_of("models").or_else(|| fixed.get("model").and_then(|value| Some(value.values.first()?.as_str())));
        let mut name = format!("{:03}", index + 1);
        for (key, value) in chosen {
            let resolved = match (*key, *value) {
                ("layers", "all") => self.flags.n_layers(model).map_err(|error| self.refuse(line, error))?.to_string(),
                (_, value) => value.to_owned(),
            };
            name.push_str(&name_part(key, &resolved));
            if *key == "layers" && !fixed.contains_key("layer") {
                let deepest = resolved.parse::<usize>().unwrap_or(1).saturating_sub(1);
                flags.extend(["--layer".to_owned(), deepest.to_string()]);
            }
            flags.extend([format!("--{}", flag_of(key)), resolved]);
        }
        self.flags.check(&flags).map_err(|what| self.refuse(line, what))?;
        Ok(CellFlags { name, flags })
    }
}

/// The flag that values of the list `key` are passed to.
fn flag_of(key: &str) -> &str {
    AXES.iter().find(|(axis, ..)| *axis == key).map_or(key, |(_, flag, _)| *flag)
}

/// Adds the flag with each of its values.
fn push(flags: &mut Vec<String>, flag: &str, value: &SettingValue<'_>) {
    match value.switch {
        Some(true) => flags.push(format!("--{flag}")),
        Some(false) => {}
        // With `=`, a value that begins with a dash is not taken for a flag.
        None => flags.extend(value.values.iter().map(|value| format!("--{flag}={value}"))),
    }
}

/// A string or number in the form of the command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// The part of a cell's name for one value: letters, digits, dots and dashes.
fn name_part(key: &str, value: &str) -> String {
    let last = value.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or(value);
    let plain: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '-' }).take(40).collect();
    match key {
        "samples" => format!("-n{plain}"),
        "layers" => format!("-l{plain}"),
        "batch-sizes" => format!("-b{plain}"),
        _ => format!("-{plain}"),
    }
}
