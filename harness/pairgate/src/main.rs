//! Gates two commands: is head slower than base?

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use pairgate::atomic_file::{lock_output, write_atomically};
use pairgate::command_line::{parse_duration, print_error};
use pairgate::design::GateDesign;
use pairgate::engine::{self, NoopGateObserver};
use pairgate::export::{ExportFormat, export, render};
use pairgate::own_output::{OutputFormat, Signs, check_own_output};
use pairgate::process::interrupt;
use pairgate::report::ProgramIdentity;
use pairgate::source::{CommandCase, CommandOptions, CommandSource};
use pairgate::{Error, GateReport, Result, Verdict, console, stderr_line};

/// The name of the gate in titles of reports.
const GATE_NAME: &str = "pairgate";

/// Name and version of the reports; raised when a name changes its meaning.
const SCHEMA: &str = "pairgate/1";

/// The exit status of a gate that gave no verdict.
const BROKEN: u8 = 2;

/// Gate two commands: run both in pairs, in random order, and compare wall time and CPU time.
#[derive(Debug, Parser)]
#[command(
    version,
    before_help = "Examples:\n  \
    pairgate --base 'old/tool input' --head 'new/tool input'\n  \
    pairgate --base 'sort data' --head 'sort --parallel=2 data' --same-output --output gate.json",
    after_help = "Exit status: 0 pass, 1 regressed, 2 broken (a run failed, a file cannot be written, or bad usage), 3 inconclusive, 130 interrupted."
)]
struct PairgateArgs {
    /// The command before the change, run by /bin/sh
    #[arg(long, value_name = "COMMAND")]
    base: String,
    /// The command to judge
    #[arg(long, value_name = "COMMAND")]
    head: String,
    /// The name of the case in reports
    #[arg(long, default_value = "command", value_name = "NAME")]
    name: String,
    /// A slowdown of at most this fraction is not a regression (0.01 is 1 %)
    #[arg(long, default_value_t = 0.01, value_name = "FRACTION")]
    delta: f64,
    /// A slowdown of this fraction must not pass
    #[arg(long, default_value_t = 0.05, value_name = "FRACTION")]
    effect: f64,
    /// Both commands must print the same bytes to standard output
    #[arg(long)]
    same_output: bool,
    /// Also judge the peak RSS. It includes the mapped pages of program files, which depend on the page cache: a program and a
    /// fresh copy of it may differ by some percent
    #[arg(long)]
    peak_rss: bool,
    /// Time limit of a run: seconds, or with a unit as in 90s, 10m, 2h [default: no limit]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Seed of the order of runs
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Also write the report to this file. It replaces a report of the same format, and no other file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The format of that file
    #[arg(long, default_value = "json", requires = "output", value_name = "FORMAT")]
    format: ExportFormat,
}

fn main() -> ExitCode {
    let code = match PairgateArgs::try_parse() {
        Ok(args) => gate(&args).map_or_else(|error| failed(&error), |verdict| verdict.exit_code()),
        Err(error) => print_error(&error, None),
    };
    match console::check() {
        // A verdict that could not be read is not a pass, and 1 would mean a regression.
        Err(error) if code == 0 => {
            stderr_line!("error: {error}");
            ExitCode::from(BROKEN)
        }
        _ => ExitCode::from(code),
    }
}

fn failed(error: &Error) -> u8 {
    stderr_line!("error: {error}");
    error.exit_code()
}

fn gate(args: &PairgateArgs) -> Result<Verdict> {
    let looks = GateDesign::looks(args.seed);
    let design = GateDesign { delta: args.delta, look_delta: args.delta, effect: args.effect, ..looks };
    let case = CommandCase::new(&args.name, &args.base, &args.head);
    let options =
        CommandOptions { timeout: args.timeout, compare_output: args.same_output, judge_peak_rss: args.peak_rss };
    if let Some(path) = &args.output {
        check_own_output(path, "--output", &output_format(args.format))?;
    }
    let mut source = CommandSource::new(vec![case], options)?;
    interrupt::install()?;
    let _lock = args.output.as_deref().map(|path| lock_output(path, "gate")).transpose()?;
    let cases = engine::run(&mut source, &design, &mut NoopGateObserver)?;
    let environment = environment();
    let report = GateReport {
        schema: SCHEMA.to_owned(),
        outcome: Verdict::of_cases(&cases),
        design,
        base: identity(&args.base),
        head: identity(&args.head),
        machine: short_digest(environment.to_string().as_bytes()),
        environment,
        resolution: None,
        warnings: Vec::new(),
        cases,
    };
    console::output(render(&report));
    if let Some(path) = &args.output {
        write_atomically(path, export(args.format, &report, GATE_NAME)?.as_bytes())?;
    }
    Ok(report.outcome)
}

/// The files that a report may replace.
const fn output_format(format: ExportFormat) -> OutputFormat {
    let (description, signs) = match format {
        ExportFormat::Json => ("a JSON report", Signs::Schema(&["pairgate/"])),
        ExportFormat::Markdown => ("a Markdown report", Signs::Text("## pairgate", "")),
        ExportFormat::Github => ("a report as annotations", Signs::Text("::", " title=")),
        ExportFormat::Junit => ("a JUnit report", Signs::Text("<?xml", "<testsuites name=\"pairgate")),
        ExportFormat::Bencher => ("a report for Bencher", Signs::Text("{", "\"value\":")),
        ExportFormat::BenchmarkAction => ("a report for github-action-benchmark", Signs::Text("[", "\"extra\":")),
    };
    OutputFormat::new(GATE_NAME, description, signs)
}

/// A command is identified by its text: the programs in it are not known.
fn identity(command: &str) -> ProgramIdentity {
    let build = short_digest(command.as_bytes());
    ProgramIdentity { path: PathBuf::from(command), revision: None, build, description: None }
}

fn short_digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().chars().take(16).collect()
}

/// Facts about the machine that affect timings.
fn environment() -> serde_json::Value {
    let line = |path: &str| std::fs::read_to_string(Path::new(path)).ok().map(|text| text.trim().to_owned());
    let cpu = line("/proc/cpuinfo").and_then(|text| {
        let model = text.lines().find(|line| line.starts_with("model name"))?;
        Some(model.split_once(':')?.1.trim().to_owned())
    });
    serde_json::json!({
        "cpu_model": cpu,
        "cores_logical": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": line("/proc/sys/kernel/osrelease"),
    })
}
