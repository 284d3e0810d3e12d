//! `actbench env`: shows this machine and build, and what disturbs measurements.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::stdout;
use crate::error::{Error, Result};
use crate::measure::conditions::{Level, SystemCounters, Warning, during};
use crate::measure::fingerprint::{Fingerprint, build_facts, machine_facts};
use crate::measure::machine_record::MachineRecord;
use crate::measure::page_cache;

/// How long counters such as stolen CPU time are observed.
const OBSERVATION: Duration = Duration::from_millis(250);

/// Show this machine and build, and what disturbs measurements.
///
/// Each warning has a remedy. A result file has the same record under `environment`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench env\n  \
    actbench env --files ./smollm2\n  \
    actbench env --json",
    after_help = "Exit status: 0 success, with or without warnings; 2 bad usage."
)]
pub struct EnvArgs {
    /// Files, or directories of them, to look up in the page cache, such as a model or data set
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Print the environment record as JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A path that does not exist.
pub fn env(args: &EnvArgs) -> Result<()> {
    if let Some(absent) = args.files.iter().find(|path| !path.exists()) {
        return Err(Error::file(
            absent,
            "does not exist; --files names files or directories to look up in the page cache",
        ));
    }
    let before = SystemCounters::read(Path::new("/"));
    std::thread::sleep(OBSERVATION);
    let mut record = MachineRecord::read();
    for warning in during(&SystemCounters::read(Path::new("/")).since(&before)) {
        let what = warning.what.replace("during the run", "in the last 0.25 s");
        record.warnings.push(Warning { what, ..warning });
    }
    record.warnings.extend(args.files.iter().filter_map(|path| page_cache::warning(path, 0)));
    let text = if args.json {
        // A record has only string keys and finite numbers, which always serialize.
        serde_json::to_string_pretty(&record)
            .map_err(|error| Error::internal(format!("the environment record cannot be written as JSON: {error}")))?
            + "\n"
    } else {
        as_text(&record)
    };
    stdout::text(text);
    Ok(())
}

fn as_text(record: &MachineRecord) -> String {
    let mut text = String::new();
    let fingerprint = Fingerprint::of(record);
    let mut build = vec![("version", record.version.clone())];
    if let Some(commit) = &record.commit {
        let dirty = if record.dirty == Some(true) { ", with changes" } else { "" };
        build.push(("commit", format!("{commit}{dirty}")));
    }
    build.extend(build_facts(record));
    for (heading, digest, facts) in
        [("Machine", fingerprint.machine, machine_facts(record)), ("Build", fingerprint.build, build)]
    {
        let _ = writeln!(text, "{heading} {digest}");
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty() && value != "-") {
            let _ = writeln!(text, "  {name:<16} {value}");
        }
    }
    let _ = writeln!(text, "Warnings");
    if record.warnings.is_empty() {
        let _ = writeln!(text, "  none: nothing was found that disturbs measurements");
    }
    for warning in &record.warnings {
        let level = match warning.level {
            Level::Warning => "warning",
            Level::Note => "note",
        };
        let _ = writeln!(text, "  {level}: {}\n    {}", warning.what, warning.advice);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::conditions::Kind;
    use crate::test_support::environment;

    #[test]
    fn text_has_machine_build_and_remedies() {
        let mut here = environment();
        here.warnings.push(Warning::new(Kind::Swap, "5 MiB are in swap space", "free memory"));
        here.warnings.push(Warning::note(Kind::Virtual, "a virtual machine", "trust ratios"));
        insta::assert_snapshot!(as_text(&here), @r"
        Machine 9d0a4f3455d1ade4
          processor        A processor
          threads          2
          cores            2
          memory           1 GiB
          kernel           Linux 6.1
        Build a94cf2a2f4750904
          version          0.1.0
          profile          release
        Warnings
          warning: 5 MiB are in swap space
            free memory
          note: a virtual machine
            trust ratios
        ");
        here.warnings.clear();
        assert!(as_text(&here).ends_with("Warnings\n  none: nothing was found that disturbs measurements\n"));
    }
}
