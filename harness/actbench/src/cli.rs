//! The command line: one subcommand a file of [`crate::commands`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::commands::cache::CacheArgs;
use crate::commands::check::CheckArgs;
use crate::commands::compare::CompareArgs;
use crate::commands::completions::CompletionsArgs;
use crate::commands::datasets::DatasetsArgs;
use crate::commands::env::EnvArgs;
use crate::commands::explain::ExplainArgs;
use crate::commands::features::FeaturesArgs;
use crate::commands::gate::GateArgs;
use crate::commands::history::HistoryArgs;
use crate::commands::import::ImportArgs;
use crate::commands::matrix::MatrixArgs;
use crate::commands::merge::MergeArgs;
use crate::commands::models::ModelsArgs;
use crate::commands::plan::PlanArgs;
use crate::commands::profile::ProfileArgs;
use crate::commands::recommend::RecommendArgs;
use crate::commands::report::ReportArgs;
use crate::commands::run::RunArgs;
use crate::commands::selftest::SelftestArgs;
use crate::error::Result;
use actbench_activations::panics;

mod log;

/// What most people want to type, before anything else.
const EXAMPLES: &str = "Examples:
  actbench run                                measure lazy against eager with what is built in
  actbench run --model ./smollm2 --dataset data.jsonl --samples 2000
  actbench plan --model Llama-3.1-8B-Instruct --samples 10000 --layers 24 --seq-len 256
                                              what that will take, by each method, and which to use
  actbench matrix --preset small --out small  many runs, saved one by one; --resume after a stop
  actbench report results.json --out report   a page, charts and CSV of what was measured
  actbench recommend results.json             which mode to take for which size of run
  actbench gate --base-rev main --head-rev HEAD
                                              is a change slower, hungrier or different?
  actbench explain                            what the lazy plans are and what they will cost
  actbench profile                            where the time goes
  actbench run --help                         every setting";

const AFTER_HELP: &str = "Exit status: 0 done, 1 a case failed, 2 bad usage or input, 130 interrupted.
`actbench --help` says more; `actbench COMMAND --help` has each command's examples.";

const AFTER_LONG_HELP: &str = "Output:
  Standard output carries what was asked for and can be piped; progress, warnings and errors go to standard error.
  --json, where a command has it, prints the same for programs.

Variables:
  NO_COLOR=1            no colours
  ACTBENCH_LOG=debug    what happens inside, on standard error
  ACTBENCH_CPU_ISA      instructions of the CPU: amx, avx512bf16, avx512, avx2 or portable
  ACTBENCH_CUDA         GPUs to see: none; split:K for K logical ones on GPU 0; emulator:K or emulator:K:SIZE for K
                        emulated ones (of SIZE of memory), in builds with the feature emulator; unset, the driver's
  HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE
                        where models of the Hugging Face hub are kept and asked for

Exit status:
  0    done
  1    a case failed
  2    bad usage or input
  130  interrupted";

/// Lazy or eager activation extraction for probes: measures both, end to end.
///
/// A probe reads one vector a sample off a model's activations. `run` gets these vectors eagerly (full tensors in host
/// memory) and lazily (an optimised, streamed plan, with an optional disk cache), each case in a process of its own and
/// repeated in random order, trains the same probes on both, and says which is faster and which needs less memory.
#[derive(Debug, Parser)]
#[command(
    name = "actbench",
    version,
    before_help = EXAMPLES,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the two workloads, lazy against eager, and write a result file.
    Run(Box<RunArgs>),
    /// Say what a run will take by each method, which methods fit, and which to take.
    Plan(Box<PlanArgs>),
    /// Run every cell of a matrix of models, samples, layers and other settings.
    Matrix(Box<MatrixArgs>),
    /// Join the folders of a matrix that was run in shards.
    Merge(MergeArgs),
    /// Make a report of result files: REPORT.md, report.html, CSV and charts.
    Report(ReportArgs),
    /// Say which mode to take for small, medium and large runs, from result files.
    Recommend(RecommendArgs),
    /// Compare two result files; judges them where a history of runs lets it.
    Compare(CompareArgs),
    /// Keep results over commits: add to a folder, list, plot, find where figures changed.
    History(HistoryArgs),
    /// Gate a change: pairs of two programs on this machine, and an exit status that says whether head is worse.
    Gate(Box<GateArgs>),
    /// Try the regression gate on known slowdowns: false alarms, power, the smallest slowdown it resolves.
    Selftest(SelftestArgs),
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
    /// Check that a device gives reference values, and the same bits every way.
    Check(CheckArgs),
    /// Show this machine and this build, and what about them disturbs measurements.
    Env(EnvArgs),
    /// List the models that are built in and the forms in which others are named.
    Models(ModelsArgs),
    /// List the data sets that are built in and the forms in which others are named.
    Datasets(DatasetsArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Run one case; started by `run`.
    #[command(hide = true)]
    Worker,
}

/// The command line as people see it, for what describes it: without the commands that are not for them.
pub fn command() -> clap::Command {
    let whole = Cli::command();
    let shown: Vec<clap::Command> = whole.get_subcommands().filter(|it| !it.is_hide_set()).cloned().collect();
    clap::Command::new("actbench").version(env!("CARGO_PKG_VERSION")).subcommand_required(true).subcommands(shown)
}

/// Runs the program on its own arguments.
pub fn main() -> ExitCode {
    panics::install();
    log::start();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return commands::one_line::print(&error),
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
        Command::Completions(args) => commands::completions::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Worker => Ok(commands::worker::worker()),
    }
}
