//! A matrix as a TOML file, read into cells. Every complaint names the file, the line and what to write.
//!
//! ```toml
//! seed = 0                      # order of the cells
//!
//! [settings]                    # of every cell: flags of `actbench run` without their dashes
//! dataset = "embedded:mixed"
//! repetitions = 5
//!
//! [[grid]]                      # every combination of the lists of a grid is a cell; several grids stand one after another
//! models = ["synthetic:smollm2-135m"]
//! samples = [200, 800]
//! layers = [8, "all"]           # --sweep-layers, and the deepest of them as --layer
//! tasks = ["sweep"]             # a flag again, of this grid alone
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// The lists of a grid, outermost first, with the flag that each of their values becomes and an example to write.
const AXES: [(&str, &str, &str); 6] = [
    ("models", "model", "models = [\"synthetic:llama-3.2-1b\", \"./smollm2\"]"),
    ("samples", "samples", "samples = [200, 2000]"),
    ("layers", "sweep-layers", "layers = [8, 16, \"all\"]"),
    ("pools", "pool", "pools = [\"mean\", \"last\"]"),
    ("dtypes", "dtype", "dtypes = [\"bf16\", \"fp32\"]"),
    ("batch-sizes", "batch-size", "batch-sizes = [8, 32]"),
];

/// More cells than this are a slip: a zero too many in several lists.
const MOST_CELLS: usize = 100_000;

/// What the flags of a run are, told by who parses them.
pub trait RunFlags {
    /// Names of the flags that a file may set, without dashes.
    fn names(&self) -> Vec<String>;
    /// Whether the flag `name` takes no value.
    fn is_switch(&self, name: &str) -> bool;
    /// Whether `run` takes these flags.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    fn check(&self, flags: &[String]) -> Result<(), String>;
    /// Blocks of the model of that name.
    ///
    /// # Errors
    /// There is no such model.
    fn n_layers(&self, model: Option<&str>) -> Result<usize>;
    /// Where the model is that a file calls `name`.
    fn model_place(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// A matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Seed of the order of its cells.
    pub seed: u64,
    /// Its cells in the order of the file.
    pub cells: Vec<CellFlags>,
}

/// A cell: the command line of `actbench run` that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellFlags {
    /// A name for files, different from that of any other cell.
    pub name: String,
    /// Flags and values, dashes included.
    pub flags: Vec<String>,
}

/// A value with the line it stands in.
#[derive(Clone, Debug)]
struct Value<'a> {
    line: usize,
    values: Vec<String>,
    /// A flag without a value that is switched on or off.
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

impl Matrix {
    /// Reads the text of a file; `origin` names it in errors.
    ///
    /// # Errors
    /// Not TOML, a key that there is not, a value that its flag does not take, no cells or far too many.
    pub fn parse(text: &str, origin: &str, flags: &dyn RunFlags) -> Result<Self> {
        Reader { text, origin, flags, names: flags.names() }.matrix()
    }
}

struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
    flags: &'a dyn RunFlags,
    names: Vec<String>,
}

/// Flags by name, the later of equals counting.
type Settings<'a> = BTreeMap<&'a str, Value<'a>>;

impl<'a> Reader<'a> {
    fn refuse(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::input(format!("{}:{line}", self.origin), what.to_string())
    }

    fn line(&self, span: &Range<usize>) -> usize {
        1 + self.text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
    }

    fn matrix(&self) -> Result<Matrix> {
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
                ("seed", _) => return Err(self.refuse(line, "seed is a whole number: write seed = 0")),
                ("settings", DeValue::Table(table)) => settings = self.settings(table, false)?,
                ("settings", _) => return Err(self.refuse(line, "settings is a table: write [settings]")),
                ("grid", DeValue::Array(array)) => grids = Some(array),
                ("grid", _) => return Err(self.refuse(line, "grids are a list: write [[grid]], with two brackets")),
                (other, _) => return Err(self.unknown(line, other, &["seed", "settings", "grid"], "at the top")),
            }
        }
        let example = format!("write [[grid]] and below it its lists, as {}", AXES[1].2);
        let grids = grids.ok_or_else(|| self.refuse(1, format!("there is no grid: {example}")))?;
        let mut cells = Vec::new();
        for grid in grids.iter() {
            let line = self.line(&grid.span());
            let DeValue::Table(table) = grid.get_ref() else {
                return Err(self.refuse(line, format!("a grid is a table: {example}")));
            };
            self.expand(line, &settings, self.settings(table, true)?, &mut cells)?;
        }
        Ok(Matrix { seed, cells })
    }

    /// The flags in a table, and in a grid its axes.
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
                let place = if grid { "in a grid" } else { "in [settings]" };
                return Err(self.unknown(line, name, &names, place));
            }
        }
        Ok(settings)
    }

    fn unknown(&self, line: usize, name: &str, known: &[&str], place: &str) -> Error {
        let nearest = known.iter().min_by_key(|known| strsim::levenshtein(known, name)).copied().unwrap_or_default();
        let hint = match strsim::levenshtein(nearest, name) {
            distance if distance <= 3 => format!("write {nearest}"),
            _ if place == "at the top" => format!("there are {}", known.join(", ")),
            _ => "take a flag of `actbench run` without its dashes".to_owned(),
        };
        self.refuse(line, format!("'{name}' is not known {place}: {hint}"))
    }

    fn axis<'t>(&self, line: usize, key: &'t str, value: &Spanned<DeValue<'_>>, example: &str) -> Result<Value<'t>> {
        let refuse = |line: usize, what: &str| self.refuse(line, format!("{key} {what}: write {example}"));
        let DeValue::Array(array) = value.get_ref() else { return Err(refuse(line, "is a list")) };
        let mut values = Vec::new();
        for value in array.iter() {
            let line = self.line(&value.span());
            let text = scalar(value.get_ref()).ok_or_else(|| refuse(line, "holds what is no text and no number"))?;
            let text = if key == "models" { self.flags.model_place(&text) } else { text };
            if key == "layers" && text != "all" && !text.parse::<usize>().is_ok_and(|layers| layers > 0) {
                return Err(refuse(line, &format!("holds '{text}', which is no number of layers from 1 on")));
            }
            let one = Value { line, values: vec![text.clone()], switch: None, is_list: false, key };
            if text != "all" {
                self.check(&one, flag_of(key))?;
            }
            match values.contains(&text) {
                true => return Err(refuse(line, &format!("holds '{text}' twice"))),
                false => values.push(text),
            }
        }
        match values.is_empty() {
            true => Err(refuse(line, "is empty")),
            false => Ok(Value { line, values, switch: None, is_list: true, key }),
        }
    }

    fn flag<'t>(&self, line: usize, key: &'t str, value: &Spanned<DeValue<'_>>) -> Result<Value<'t>> {
        let refuse = || self.refuse(line, format!("{key} holds what is no text, number, true, false or list of these"));
        let mut found = Value { line, values: Vec::new(), switch: None, is_list: false, key };
        if self.flags.is_switch(key) && !matches!(value.get_ref(), DeValue::Boolean(_)) {
            return Err(self.refuse(line, format!("{key} is on or off: write {key} = true")));
        }
        match value.get_ref() {
            DeValue::Boolean(on) => found.switch = Some(*on),
            DeValue::Array(array) => {
                let values = array.iter().map(|value| scalar(value.get_ref()).ok_or_else(refuse));
                found.values = values.collect::<Result<_>>()?;
            }
            value => {
                let text = scalar(value).ok_or_else(refuse)?;
                found.values.push(if key == "model" { self.flags.model_place(&text) } else { text });
            }
        }
        Ok(found)
    }

    /// Whether `run` takes this one, so that the complaint has its line.
    fn check(&self, value: &Value<'_>, flag: &str) -> Result<()> {
        let mut flags = Vec::new();
        push(&mut flags, flag, value);
        self.flags.check(&flags).map_err(|what| self.refuse(value.line, what))
    }

    /// The cells of one grid.
    fn expand(&self, line: usize, shared: &Settings<'_>, own: Settings<'_>, cells: &mut Vec<CellFlags>) -> Result<()> {
        let mut fixed: Settings<'_> = shared.clone();
        fixed.extend(own.iter().filter(|(_, value)| !value.is_list).map(|(key, value)| (*key, value.clone())));
        let axes: Vec<&Value<'_>> =
            AXES.iter().filter_map(|(axis, ..)| own.get(axis)).filter(|value| value.is_list).collect();
        let more = axes.iter().fold(1usize, |product, axis| product.saturating_mul(axis.values.len()));
        if cells.len().saturating_add(more) > MOST_CELLS {
            return Err(self.refuse(line, format!("makes more than {MOST_CELLS} cells: write shorter lists")));
        }
        for axis in &axes {
            fixed.remove(flag_of(axis.key));
        }
        for combination in 0..more {
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
        let of = |key: &str| chosen.iter().find(|(axis, _)| *axis == key).map(|(_, value)| *value);
        let model = of("models").or_else(|| fixed.get("model").and_then(|value| Some(value.values.first()?.as_str())));
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

/// The flag that a value of the axis `key` becomes.
fn flag_of(key: &str) -> &str {
    AXES.iter().find(|(axis, ..)| *axis == key).map_or(key, |(_, flag, _)| *flag)
}

/// Adds the flag with each of its values.
fn push(flags: &mut Vec<String>, flag: &str, value: &Value<'_>) {
    match value.switch {
        Some(true) => flags.push(format!("--{flag}")),
        Some(false) => {}
        // With `=`, a value that begins with a dash is a value all the same.
        None => flags.extend(value.values.iter().map(|value| format!("--{flag}={value}"))),
    }
}

/// A text or a number as it is written on a command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// What a value adds to a cell's name: letters, digits, dots and dashes alone.
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
