//! The arguments that name a matrix, and the parser of `actbench run` that checks its cells.

use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use super::run::RunArgs;
use crate::error::{Error, Result};
use crate::matrix::{CellFlags, PRESETS, RunFlagParser, RunMatrix};
use crate::workload::layer_count;
use actbench_activations::model::config_only::find_model_spec;
use pairgate::command_line::one_line;

/// The matrix.
#[derive(Args, Clone, Debug)]
pub struct MatrixFileArgs {
    /// TOML file of the matrix
    #[arg(value_name = "FILE.toml", conflicts_with = "preset")]
    pub file: Option<PathBuf>,
    /// Built-in matrix: small (minutes on two cores) or paper (three models, up to 25,000 samples, all layers)
    #[arg(long, value_name = "NAME", value_parser = ["small", "paper"])]
    pub preset: Option<String>,
    /// Use the model at LOCATION for the name NAME of the file: a directory, a .gguf file or another name; repeatable
    #[arg(long, value_name = "NAME=LOCATION", value_parser = parse_model_location)]
    pub model_at: Vec<(String, String)>,
}

impl MatrixFileArgs {
    /// Reads the file; returns its text and its cells.
    ///
    /// # Errors
    /// A file that cannot be read, or is invalid, with the line.
    pub fn read(&self) -> Result<(String, RunMatrix)> {
        let text = match (&self.file, &self.preset) {
            (Some(path), _) => read_text(path)?,
            (None, None) => {
                return Err(Error::usage("name a matrix: a file FILE.toml, --preset small or --preset paper"));
            }
            (None, Some(name)) => {
                let known = PRESETS.iter().find(|(known, _)| *known == name.as_str());
                let (_, text) = known.ok_or_else(|| Error::usage(format!("unknown preset '{name}'")))?;
                (*text).to_owned()
            }
        };
        let matrix = RunMatrix::parse(&text, &self.origin(), &CellParser { locations: &self.model_at })?;
        Ok((text, matrix))
    }

    /// The name of the matrix in errors.
    pub fn origin(&self) -> String {
        match &self.file {
            Some(path) => path.display().to_string(),
            None => format!("preset {}", self.preset.as_deref().unwrap_or_default()),
        }
    }
}

/// Parses a matrix file whose models are where their names say; `origin` names it in errors.
///
/// # Errors
/// As [`RunMatrix::parse`].
pub fn parse(text: &str, origin: &str) -> Result<RunMatrix> {
    RunMatrix::parse(text, origin, &CellParser { locations: &[] })
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8; save it as plain text"))
}

/// Flags of `run` for output and display, which `matrix` sets itself.
const EXCLUDED_FLAGS: [&str; 6] = ["output", "json", "quiet", "inject-fault", "cache-dir", "help"];

/// The parser of `actbench run`.
struct CellParser<'a> {
    /// Names of models, with the locations to use for them.
    locations: &'a [(String, String)],
}

fn parser() -> Command {
    RunArgs::augment_args(Command::new("cell").no_binary_name(true).disable_help_flag(true))
}

/// Parses the flags of `actbench run`.
///
/// # Errors
/// The message of the parser, on one line.
pub fn run_args(flags: &[String]) -> Result<RunArgs, String> {
    let message = |error: clap::Error| one_line(&error.render().to_string()).trim_start_matches("error: ").to_owned();
    let matches = parser().try_get_matches_from(flags).map_err(message)?;
    RunArgs::from_arg_matches(&matches).map_err(message)
}

/// The error of the settings of a cell, with the file and the cell in front; every other error unchanged.
pub fn cell_error(origin: &str, cell: &CellFlags, error: Error) -> Error {
    match error {
        Error::Usage(what) => Error::input(format!("{origin}: cell {}", cell.name), too_deep(cell).unwrap_or(what)),
        other => other,
    }
}

/// The error of a cell whose entry of `layers` exceeds the depth of its model. The flags that stand for the entry are not in
/// the file.
fn too_deep(cell: &CellFlags) -> Option<String> {
    // Flags of the file itself have the form `--sweep-layers=8`.
    let entry = cell.flags.windows(2).find(|pair| pair[0] == "--sweep-layers")?;
    let layers: usize = entry[1].parse().ok()?;
    let model = run_args(&cell.flags).ok()?.config().model;
    let n_layers = find_model_spec(model.as_deref(), true).ok()?.spec.n_layers;
    (layers > n_layers).then(|| {
        let has = layer_count(n_layers);
        format!("layers = [{layers}] is too deep: the model has {has}; write {n_layers} or fewer, or \"all\"")
    })
}

impl RunFlagParser for CellParser<'_> {
    fn names(&self) -> Vec<String> {
        let flags = parser();
        let names = flags.get_arguments().filter_map(|argument| argument.get_long());
        names.filter(|name| !EXCLUDED_FLAGS.contains(name)).map(str::to_owned).collect()
    }

    fn is_switch(&self, name: &str) -> bool {
        let is_flag = |argument: &clap::Arg| matches!(argument.get_action(), clap::ArgAction::SetTrue);
        parser().get_arguments().any(|argument| argument.get_long() == Some(name) && is_flag(argument))
    }

    fn check(&self, flags: &[String]) -> Result<(), String> {
        run_args(flags)?.config().check().map_err(|error| error.to_string())
    }

    fn n_layers(&self, model: Option<&str>) -> Result<usize> {
        Ok(find_model_spec(model, true)?.spec.n_layers)
    }

    fn model_location(&self, name: &str) -> String {
        let location = self.locations.iter().find(|(known, _)| known == name).map(|(_, location)| location.clone());
        location.unwrap_or_else(|| name.to_owned())
    }
}

fn parse_model_location(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, location)) if !name.is_empty() && !location.is_empty() => {
            Ok((name.to_owned(), location.to_owned()))
        }
        _ => Err("use NAME=LOCATION, such as synthetic:smollm2-135m=./smollm2".to_owned()),
    }
}
