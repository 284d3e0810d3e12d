//! The command line: parse, dispatch to the subcommands of [`crate::commands`], exit status.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use actbench_activations::panics;
use clap::FromArgMatches;

use self::args::{Cli, Command};
use crate::commands;
use crate::commands::one_line;
use crate::error::{Result, from_pairgate};

mod args;
mod groups;
mod log;
mod suggest;

pub use self::args::visible_command;
use pairgate::process::threads;
use pairgate::{console, stderr_line};

/// Runs actbench on the arguments of this process.
pub fn main() -> ExitCode {
    panics::install();
    log::start();
    let parsed = args::parser().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return with_output_checked(one_line::print(&error, suggest::tip(&error).as_deref()), FAILED),
    };
    let failed = status_of_failure(&cli.command);
    // The panic hook has printed its message by the time the panic arrives here; only the exit status is missing.
    let code = match catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            stderr_line!("error: {error}");
            ExitCode::from(match error.exit_code() {
                FAILED => failed,
                code => code,
            })
        }
        Err(_) => ExitCode::from(failed),
    };
    with_output_checked(code, failed)
}

/// The exit status of most commands that fail although their input is valid, as on a full disk.
const FAILED: u8 = 1;

/// The exit status if an output cannot be written. Where 1 is a verdict, which a script would act on, it is 2.
fn status_of_failure(command: &Command) -> u8 {
    match command {
        Command::Gate(_) | Command::Selftest(_) | Command::Compare(_) | Command::History(_) | Command::Check(_) => 2,
        _ => FAILED,
    }
}

/// `code`, or `unwritten` instead of success if standard output or standard error could not be written.
fn with_output_checked(code: ExitCode, unwritten: u8) -> ExitCode {
    match console::check() {
        Err(error) if code == ExitCode::SUCCESS => {
            stderr_line!("error: {error}");
            ExitCode::from(unwritten)
        }
        _ => code,
    }
}

/// Starts the threads of commands that compute, so that a limit on threads is one error instead of a panic of a library.
///
/// # Errors
/// The system permits too few threads.
fn start_threads(command: &Command) -> Result<()> {
    let only_reads = matches!(
        command,
        Command::Env(_) | Command::Models(_) | Command::Datasets(_) | Command::Completions(_) | Command::Merge(_)
    );
    if only_reads {
        return Ok(());
    }
    let refused = |error| from_pairgate(threads::refused(&std::io::Error::other(error)));
    rayon::ThreadPoolBuilder::new().build_global().map_err(refused)
}

fn dispatch(command: Command) -> Result<ExitCode> {
    start_threads(&command)?;
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Plan(args) => commands::plan::plan(&args).map(|()| ExitCode::SUCCESS),
        Command::Matrix(args) => commands::matrix::matrix(&args),
        Command::Merge(args) => commands::merge::merge(&args).map(|()| ExitCode::SUCCESS),
        Command::Report(args) => commands::report::report(&args).map(|()| ExitCode::SUCCESS),
        Command::Recommend(args) => commands::recommend::recommend(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => commands::compare::compare(&args),
        Command::History(args) => commands::history::history(&args),
        Command::Gate(args) => commands::gate::gate(&args),
        Command::Selftest(args) => commands::selftest::selftest(&args),
        Command::Explain(args) => commands::explain::explain(&args).map(|()| ExitCode::SUCCESS),
        Command::Profile(args) => commands::profile::profile(&args),
        Command::Import(args) => commands::import::import(&args).map(|()| ExitCode::SUCCESS),
        Command::Features(args) => commands::features::features(&args).map(|()| ExitCode::SUCCESS),
        Command::Cache(args) => commands::cache::cache(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => commands::check::check(&args),
        Command::Env(args) => commands::env::env(&args).map(|()| ExitCode::SUCCESS),
        Command::Models(args) => commands::models::models(&args).map(|()| ExitCode::SUCCESS),
        Command::Datasets(args) => commands::datasets::datasets(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => {
            commands::completions::completions(&args, visible_command()).map(|()| ExitCode::SUCCESS)
        }
        Command::Worker => Ok(commands::worker::worker()),
    }
}
