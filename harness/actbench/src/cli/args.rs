//! The arguments of `actbench` itself: its subcommands and the text around them.

use clap::{CommandFactory, Parser, Subcommand};

use super::groups;
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

const EXAMPLES: &str = "Examples:
  actbench run                                compare lazy with eager on the built-in model and data
  actbench run --model ./smollm2 --dataset data.jsonl --samples 2000
  actbench plan --model Llama-3.1-8B-Instruct --samples 10000 --layers 24 --seq-len 256
                                              predict the time and memory of each method
  actbench matrix --preset small --out small  run many settings; --resume continues after a stop
  actbench report results.json --out report   write tables, charts and CSV of the results
  actbench recommend results.json             choose a method for each size of run
  actbench gate --base-rev main --head-rev HEAD
                                              is a change slower, or does it use more memory?
  actbench explain                            show the lazy plans and their predicted cost
  actbench profile                            show which operations take the time
  actbench run --help                         list every setting";

const AFTER_HELP: &str = "Exit status: 0 success, 1 a case failed, 2 bad usage or input, 3 inconclusive,
70 internal error, 130 interrupted.
`actbench --help` has more; `actbench COMMAND --help` has the examples of each command.";

const AFTER_LONG_HELP: &str = "Output:
  Results go to standard output and can be piped; the rest goes to standard error.
  Commands with --json print the same results as JSON.

Environment variables:
  NO_COLOR=1            disable colors
  ACTBENCH_LOG=debug    log internals to standard error
  ACTBENCH_CPU_ISA      CPU instruction set: amx, avx512bf16, avx512, avx2 or portable
  ACTBENCH_CUDA         visible GPUs; if unset, all that the driver reports:
                        none; split:K for K logical GPUs on GPU 0; emulator:K or emulator:K:SIZE
                        for K emulated GPUs (of SIZE memory each), with the feature emulator
  HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE
                        cache, token, address and offline mode of the Hugging Face hub
  All variables are in docs/commands.md.

Exit status:
  0    success
  1    a case failed; of gate, compare and history check: regressed
  2    bad usage or input; of gate and compare: also broken
  3    inconclusive: of gate and compare; with --strict also a figure without enough past runs
  70   internal error, a fault of actbench
  130  interrupted";

/// Lazy or eager activation extraction for probes: measures both, end to end.
///
/// A probe reads one vector per sample from a model's activations. `run` extracts these vectors eagerly (full tensors in
/// host memory) and lazily (an optimized, streamed plan, with an optional disk cache). Each case runs in a process of its
/// own and is repeated in random order. The same probes are trained on both, and the result shows which method is faster
/// and which uses less memory.
#[derive(Debug, Parser)]
#[command(
    name = "actbench",
    version,
    before_help = EXAMPLES,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, each with its line in the list of commands and in `-h`. A doc comment here would also replace the
/// paragraphs for `--help`, which stand at the arguments of each command.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(about = "Run the two workloads, lazy and eager, and write a result file")]
    Run(Box<RunArgs>),
    #[command(about = "Predict time and memory of each method, and recommend one, before running")]
    Plan(Box<PlanArgs>),
    #[command(about = "Run every cell of a matrix of models, samples, layers and other settings")]
    Matrix(Box<MatrixArgs>),
    #[command(about = "Merge the directories of a matrix that ran in shards")]
    Merge(MergeArgs),
    #[command(about = "Write a report of result files: REPORT.md, report.html, CSV and charts")]
    Report(ReportArgs),
    #[command(about = "Recommend a method for small, medium and large runs, from result files")]
    Recommend(RecommendArgs),
    #[command(about = "Compare two result files, with a verdict if a history of runs allows one")]
    Compare(CompareArgs),
    #[command(about = "Keep results over commits: add, list, plot, and find where figures changed")]
    History(HistoryArgs),
    #[command(about = "Test in paired runs whether a change makes runs slower, use more memory or differ")]
    Gate(Box<GateArgs>),
    #[command(about = "Try the gate on known slowdowns: false alarms, power, smallest detectable slowdown")]
    Selftest(SelftestArgs),
    #[command(about = "Show the lazy plans of a run and their predicted cost, without running them")]
    Explain(Box<ExplainArgs>),
    #[command(about = "Measure the time of each operation of a run")]
    Profile(Box<ProfileArgs>),
    #[command(about = "Convert a GGUF file to a model directory")]
    Import(ImportArgs),
    #[command(about = "Write the tokens and pooled features of a run to a file, to compare with other tools")]
    Features(Box<FeaturesArgs>),
    #[command(about = "Write the pooled features of a run to a cache file, or verify an existing one")]
    Cache(Box<CacheArgs>),
    #[command(about = "Check that a device gives reference values and bit-identical features")]
    Check(CheckArgs),
    #[command(about = "Show this machine and build, and what disturbs measurements on it")]
    Env(EnvArgs),
    #[command(about = "List the built-in models, and how to name others")]
    Models(ModelsArgs),
    #[command(about = "List the built-in data sets, and how to name others")]
    Datasets(DatasetsArgs),
    #[command(about = "Print shell completions")]
    Completions(CompletionsArgs),
    /// Run one case; started by `run`.
    #[command(hide = true)]
    Worker,
}

/// The parser of the command line, whose help lists the subcommands by group.
pub fn parser() -> clap::Command {
    let command = Cli::command();
    let template = groups::help_template(&command);
    command.help_template(template)
}

/// The command line without its hidden subcommands, for completions.
pub fn visible_command() -> clap::Command {
    let parser = Cli::command();
    let visible: Vec<clap::Command> = parser.get_subcommands().filter(|it| !it.is_hide_set()).cloned().collect();
    clap::Command::new("actbench").version(env!("CARGO_PKG_VERSION")).subcommand_required(true).subcommands(visible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_help_are_not_wrapped() {
        for line in [EXAMPLES, AFTER_HELP, AFTER_LONG_HELP].into_iter().flat_map(str::lines) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
