//! The file of a matrix as an argument: found, read, and its cells checked by the parser of `actbench run`.

use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use super::one_line::one_line;
use super::run::RunArgs;
use crate::error::{Error, Result};
use crate::matrix::{Matrix, PRESETS, RunFlags};
use actbench_activations::model::outline::config_of;

/// Which matrix.
#[derive(Args, Clone, Debug)]
pub struct MatrixFileArgs {
    /// File of the matrix (TOML)
    #[arg(value_name = "FILE.toml", required_unless_present = "preset", conflicts_with = "preset")]
    pub file: Option<PathBuf>,
    /// A matrix that is built in: small (minutes on two cores) or paper (three models, up to 25,000 samples, all layers)
    #[arg(long, value_name = "NAME", value_parser = ["small", "paper"])]
    pub preset: Option<String>,
    /// Take the model that the file calls NAME from PLACE: a folder, a .gguf file or another name; repeatable
    #[arg(long, value_name = "NAME=PLACE", value_parser = parse_place)]
    pub model_at: Vec<(String, String)>,
}

impl MatrixFileArgs {
    /// The text of the file, and what is in it.
    ///
    /// # Errors
    /// A file that cannot be read or is wrong, with its line.
    pub fn read(&self) -> Result<(String, Matrix)> {
        let (origin, text) = match (&self.file, &self.preset) {
            (Some(path), _) => (path.display().to_string(), read_text(path)?),
            (None, preset) => {
                let name = preset.as_deref().unwrap_or_default();
                let known = PRESETS.iter().find(|(known, _)| *known == name);
                let (_, text) = known.ok_or_else(|| Error::usage(format!("no matrix is called '{name}'")))?;
                (format!("preset {name}"), (*text).to_owned())
            }
        };
        let matrix = Matrix::parse(&text, &origin, &CellParser { places: &self.model_at })?;
        Ok((text, matrix))
    }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8; write it as plain text"))
}

/// Flags that say where results go and how they are shown: the matrix's own.
const NOT_OF_A_CELL: [&str; 6] = ["output", "json", "quiet", "inject-fault", "cache-dir", "help"];

/// `actbench run`'s own parser.
struct CellParser<'a> {
    places: &'a [(String, String)],
}

fn parser() -> Command {
    RunArgs::augment_args(Command::new("cell").no_binary_name(true).disable_help_flag(true))
}

/// The arguments of `actbench run` with these flags.
///
/// # Errors
/// What the parser says of them, in one line.
pub fn run_args(flags: &[String]) -> Result<RunArgs, String> {
    // Names of flags in a file have no dashes, and neither have they in complaints about it.
    let plain = |error: clap::Error| one_line(&error.render().to_string()).trim_start_matches("error: ").to_owned();
    let matches = parser().try_get_matches_from(flags).map_err(plain)?;
    RunArgs::from_arg_matches(&matches).map_err(plain)
}

impl RunFlags for CellParser<'_> {
    fn names(&self) -> Vec<String> {
        let flags = parser();
        let names = flags.get_arguments().filter_map(|argument| argument.get_long());
        names.filter(|name| !NOT_OF_A_CELL.contains(name)).map(str::to_owned).collect()
    }

    fn is_switch(&self, name: &str) -> bool {
        let is_flag = |argument: &clap::Arg| matches!(argument.get_action(), clap::ArgAction::SetTrue);
        parser().get_arguments().any(|argument| argument.get_long() == Some(name) && is_flag(argument))
    }

    fn check(&self, flags: &[String]) -> Result<(), String> {
        run_args(flags)?.config().check().map_err(|error| error.to_string())
    }

    fn n_layers(&self, model: Option<&str>) -> Result<usize> {
        Ok(config_of(model, true)?.config.n_layers)
    }

    fn model_place(&self, name: &str) -> String {
        self.places.iter().find(|(known, _)| known == name).map_or_else(|| name.to_owned(), |(_, place)| place.clone())
    }
}

fn parse_place(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() => Ok((name.to_owned(), place.to_owned())),
        _ => Err("write NAME=PLACE, as in synthetic:smollm2-135m=./smollm2".to_owned()),
    }
}
