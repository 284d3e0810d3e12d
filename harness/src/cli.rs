//! The command line: one subcommand a file of [`crate::commands`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::commands::cache::CacheArgs;
use crate::commands::env::EnvArgs;
use crate::commands::explain::ExplainArgs;
use crate::commands::features::FeaturesArgs;
use crate::commands::import::ImportArgs;
use crate::commands::profile::ProfileArgs;
use crate::commands::recommend::RecommendArgs;
use crate::commands::report::ReportArgs;
use crate::commands::run::RunArgs;
use crate::error::Result;
use crate::panics;

mod log;
mod one_line;

/// Lazy or eager activation extraction for probes: measures both, end to end.
#[derive(Debug, Parser)]
#[command(
    name = "actbench",
    version,
    before_help = "Examples:\n  \
                   actbench run                 measure lazy against eager with what is built in\n  \
                   actbench run --help          every setting\n  \
                   actbench explain             what the lazy plans are and what they will cost\n  \
                   actbench profile             where the time goes\n  \
                   actbench import model.gguf --out model\n  \
                   actbench env                 what a result file says of this machine",
    after_help = "Exit status: 0 done, 1 a case failed, 2 bad usage or input, 130 interrupted.\n\
                  ACTBENCH_LOG=debug shows what happens inside."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the two workloads, lazy against eager, and write a result file.
    Run(Box<RunArgs>),
    /// Make a report of result files: REPORT.md, report.html, CSV and charts.
    Report(ReportArgs),
    /// Say which mode to take for small, medium and large runs, from result files.
    Recommend(RecommendArgs),
    /// Show what the lazy plans of a run are and what they will cost, without running them.
    Explain(Box<ExplainArgs>),
    /// Show where the time of a run goes, operation by operation.
    Profile(Box<ProfileArgs>),
    /// Turn a GGUF file into a model folder.
    Import(ImportArgs),
    /// Write the tokens and pooled features of a run to a file, for comparison with other programs.
    Features(Box<FeaturesArgs>),
    /// Write the pooled features of a run to a cache file, or check the one that is there.
    Cache(Box<CacheArgs>),
    /// Show what a result file would say of this machine and this build.
    Env(EnvArgs),
    /// Run one case; started by `run`.
    #[command(hide = true)]
    Worker,
}

/// Runs the program on its own arguments.
pub fn main() -> ExitCode {
    panics::install();
    log::start();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return one_line::tell(&error),
    };
    // The hook has told of a panic by the time that it arrives here; what is left is its exit status.
    match catch_unwind(AssertUnwindSafe(|| dispatch(cli.command))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => commands::run::run(&args),
        Command::Report(args) => commands::report::report(&args).map(|()| ExitCode::SUCCESS),
        Command::Recommend(args) => commands::recommend::recommend(&args).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => commands::explain::explain(&args).map(|()| ExitCode::SUCCESS),
        Command::Profile(args) => commands::profile::profile(&args),
        Command::Import(args) => commands::import::import(&args).map(|()| ExitCode::SUCCESS),
        Command::Features(args) => commands::features::features(&args).map(|()| ExitCode::SUCCESS),
        Command::Cache(args) => commands::cache::cache(&args).map(|()| ExitCode::SUCCESS),
        Command::Env(args) => commands::env::env(&args).map(|()| ExitCode::SUCCESS),
        Command::Worker => Ok(commands::worker::worker()),
    }
}
