//! The parts that gates of runs and gates of benchmarks share.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pairgate::design::GateDesign;
use pairgate::engine;
use pairgate::export::format::counted;
use pairgate::journal::{GateJournal, JournalHeader};
use pairgate::report::ProgramIdentity;
use pairgate::source::revisions::{BuildOptions, BuiltExecutable, find_commit};
use pairgate::source::{Side, Source};
use pairgate::{CaseReport, GateReport, Verdict};
use serde_json::Value;

use super::GateArgs;
use super::progress::GateProgress;
use crate::atomic_file::{is_stream, lock_output, temporary_directory, write_whole};
use crate::commands::exports::{step_summary, write_exports};
use crate::commands::stdout;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::{GATE_SCHEMA, JOURNAL_SCHEMA};
use crate::measure::conditions::{Level, Warning};
use crate::measure::fingerprint;
use crate::measure::machine_record::MachineRecord;
use crate::measure::resolution::cache_directory;
use crate::report::gate;
use pairgate::stderr_line;
use pairgate::temporary::TemporaryDirectory;

/// A side whose executables are there.
pub struct GateSide {
    pub identity: ProgramIdentity,
    /// The executable to measure.
    pub executable: PathBuf,
    /// The executable that counts instructions.
    pub instructions: Option<PathBuf>,
    /// Keeps executables that were built from a commit until the gate has ended.
    pub built: Vec<BuiltExecutable>,
}

impl GateSide {
    /// A side with an executable that the user named.
    pub fn of_file(file: &Path) -> Result<Self> {
        let build = fingerprint::executable(file)?;
        let identity = ProgramIdentity { path: file.to_path_buf(), revision: None, build, description: None };
        Ok(GateSide { identity, executable: file.to_path_buf(), instructions: None, built: Vec::new() })
    }

    /// A side with an executable that was built from `revision`.
    pub fn of_revision(revision: &str, built: BuiltExecutable) -> Result<Self> {
        let identity = ProgramIdentity {
            path: PathBuf::from(revision),
            revision: Some(built.commit.clone()),
            build: fingerprint::executable(&built.path)?,
            description: None,
        };
        Ok(GateSide { identity, executable: built.path.clone(), instructions: None, built: vec![built] })
    }
}

/// The executable or the revision that the user named for a side.
pub enum SideArgument<'a> {
    File(&'a Path),
    Revision(&'a str),
}

/// What the command line has for `side`.
pub fn side_argument(args: &GateArgs, side: Side) -> Result<SideArgument<'_>> {
    let (file, revision) = match side {
        Side::Base => (&args.base_bin, &args.base_rev),
        Side::Head => (&args.head_bin, &args.head_rev),
    };
    match (file, revision) {
        (Some(file), _) => Ok(SideArgument::File(file)),
        (None, Some(revision)) => Ok(SideArgument::Revision(revision)),
        (None, None) => Err(Error::usage(format!("name {side} with --{side}-bin or --{side}-rev"))),
    }
}

/// Looks up the executable or the commit of both sides, so that a wrong name is refused before anything is built.
pub fn check_sides(args: &GateArgs) -> Result<()> {
    for side in [Side::Base, Side::Head] {
        match side_argument(args, side)? {
            SideArgument::File(file) => fingerprint::executable(file).map(drop)?,
            SideArgument::Revision(revision) => {
                find_commit(Path::new("."), revision, side).map(drop).map_err(from_pairgate)?;
            }
        }
    }
    Ok(())
}

/// Calls `build` with the options for building revisions of the repository in the working directory.
pub fn build_revision(
    args: &GateArgs,
    build: impl FnOnce(&BuildOptions<'_>) -> pairgate::Result<BuiltExecutable>,
) -> Result<BuiltExecutable> {
    let cache = cache_directory();
    let options = BuildOptions { repository: Path::new("."), cache: cache.as_deref(), quiet: args.quiet };
    build(&options).map_err(from_pairgate)
}

/// The design for a gate of `n_cases` cases.
pub fn design(args: &GateArgs, n_cases: usize) -> Result<GateDesign> {
    let design = if n_cases == 1 {
        GateDesign { look_delta: args.delta, ..GateDesign::looks(args.seed) }
    } else {
        GateDesign::screen_confirm(args.seed)
    };
    let design = GateDesign {
        delta: args.delta,
        effect: args.effect,
        auroc_tolerance: args.auroc_tolerance,
        allow_other_features: args.allow_other_features,
        ..design
    };
    design.check().map_err(from_pairgate)?;
    Ok(design)
}

/// A gate that is ready to run.
pub struct PreparedGate {
    pub design: GateDesign,
    pub base: ProgramIdentity,
    pub head: ProgramIdentity,
    pub environment: MachineRecord,
    /// Settings that distinguish the cases from others of the same name, for the journal.
    pub cases: Value,
    /// Warnings in addition to those of the environment.
    pub notes: Vec<String>,
}

impl PreparedGate {
    /// Takes the pairs, judges them, lets `annotate` add notes and cases that could not be measured, and writes and prints the report. Returns the exit status.
    pub fn run(
        self,
        args: &GateArgs,
        source: &mut dyn Source,
        annotate: impl FnOnce(&mut Vec<CaseReport>),
    ) -> Result<ExitCode> {
        let journal_file = JournalFile::new(args)?;
        // The journal as well: gates into `gate.json` and `gate.xml` share it.
        let _locks = (lock_output(&args.output, "gate")?, lock_output(&journal_file.path, "gate")?);
        let machine = fingerprint::machine(&self.environment);
        let sides = (&self.base, &self.head);
        let header = JournalHeader::new(JOURNAL_SCHEMA, &self.design, sides, &machine, self.cases);
        let mut progress = GateProgress::new(journal(args, &journal_file.path, &header)?, args.quiet);
        let cases = engine::run(source, &self.design, &mut progress).map_err(from_pairgate);
        progress.finish();
        let mut cases = cases.inspect_err(|error| journal_file.print_resume_hint(error))?;
        annotate(&mut cases);
        let environment = serde_json::to_value(&self.environment)
            .map_err(|error| Error::internal(format!("the environment as JSON: {error}")))?;
        let report = GateReport {
            schema: GATE_SCHEMA.to_owned(),
            outcome: Verdict::of_cases(&cases),
            design: self.design,
            base: self.base,
            head: self.head,
            environment,
            machine,
            resolution: self.environment.resolution.clone(),
            warnings: [sentences(&self.environment.warnings), self.notes].concat(),
            cases,
        };
        finish(args, &report)
    }
}

/// Writes and prints the report, and returns its exit status.
fn finish(args: &GateArgs, report: &GateReport) -> Result<ExitCode> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| Error::internal(format!("the report as JSON: {error}")))?;
    write_whole(&args.output, format!("{text}\n").as_bytes())?;
    stdout::text(gate::render(report, stdout::terminal_width()));
    write_exports(report, &args.export, step_summary().as_deref())?;
    Ok(ExitCode::from(report.outcome.exit_code()))
}

/// The disturbances of the machine, a sentence each.
fn sentences(warnings: &[Warning]) -> Vec<String> {
    let matters = warnings.iter().filter(|warning| warning.level == Level::Warning);
    matters.map(|warning| format!("{}; {}", warning.what, warning.advice)).collect()
}

fn journal(args: &GateArgs, path: &Path, header: &JournalHeader) -> Result<GateJournal> {
    if !args.resume {
        return GateJournal::begin(path, header).map_err(from_pairgate);
    }
    let journal = GateJournal::resume(path, header).map_err(from_pairgate)?;
    if !args.quiet {
        stderr_line!("resuming with {} of {}", counted(journal.n_recorded(), "pair"), path.display());
    }
    Ok(journal)
}

/// The journal of a gate whose report is `output`: `gate.json` has it in `gate.journal.jsonl`.
pub(super) fn journal_path(output: &Path) -> PathBuf {
    output.with_extension("journal.jsonl")
}

/// Where the pairs of a gate are recorded.
struct JournalFile {
    path: PathBuf,
    /// Has the journal where the report goes to a device or a pipe, next to which no file belongs.
    temporary: Option<TemporaryDirectory>,
}

impl JournalFile {
    /// The journal of a gate with these arguments.
    fn new(args: &GateArgs) -> Result<Self> {
        if !is_stream(&args.output) {
            return Ok(JournalFile { path: journal_path(&args.output), temporary: None });
        }
        if args.resume {
            return Err(Error::file(
                &args.output,
                "is a device or a pipe, next to which no journal is kept; omit --resume",
            ));
        }
        let temporary = temporary_directory("actbench-gate-", None)?;
        Ok(JournalFile { path: temporary.path().join("journal.jsonl"), temporary: Some(temporary) })
    }

    fn print_resume_hint(&self, error: &Error) {
        if matches!(error, Error::Interrupted) && self.temporary.is_none() {
            stderr_line!("the pairs so far are in {}; resume with --resume", self.path.display());
        }
    }
}
