//! The command line: parse, dispatch to the subcommands of [`crate::commands`], exit status.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use actbench_activations::panics;
use clap::FromArgMatches;

use self::args::{Cli, Command};
use crate::commands;
use crate::error::{Result, from_pairgate};

mod args;
mod groups;
mod log;
mod suggest;

pub use self::args::visible_command;
use pairgate::process::threads;
use pairgate::{command_line, console, stderr_line};

/// Runs actbench on the arguments of this process.
pub fn main() -> ExitCode {
    panics::install();
    log::start();
    let parsed = args::parser().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let status = command_line::print_error(&error, suggest::tip(&error).as_deref());
            return with_output_checked(ExitCode::from(status), FAILED);
        }
    };
    let failed = status_of_failure(&cli.command);
    let code = exit_code(catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))), failed);
    with_output_checked(code, failed)
}

/// The exit status of a command, and `failed` in place of [`FAILED`].
fn exit_code(outcome: std::thread::Result<Result<ExitCode>>, failed: u8) -> ExitCode {
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            stderr_line!("error: {error}");
            ExitCode::from(match error.exit_code() {
                FAILED => failed,
                code => code,
            })
        }
        // The panic hook has printed its message by now.
        Err(_) => ExitCode::from(INTERNAL_ERROR),
    }
}

/// The exit status of most commands that fail although their input is valid, as on a full disk.
const FAILED: u8 = 1;

/// The exit status of a fault of actbench.
const INTERNAL_ERROR: u8 = 70;

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
        Command::Cache(args) => commands::cache::cache(&args),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_names_the_kind_of_failure() {
        let of = |outcome, failed| format!("{:?}", exit_code(outcome, failed));
        let status = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(of(Ok(Ok(ExitCode::from(3))), 2), status(3));
        assert_eq!(of(Ok(Err(crate::error::Error::usage("a"))), 1), status(2));
        // For the gate, 1 is a verdict.
        let full = || crate::error::Error::io("write", std::path::Path::new("a"))(std::io::Error::other("full"));
        assert_eq!([of(Ok(Err(full())), 1), of(Ok(Err(full())), 2)], [status(1), status(2)]);
        assert_eq!(of(Err(Box::new("a panic")), 2), status(70));
    }
}
