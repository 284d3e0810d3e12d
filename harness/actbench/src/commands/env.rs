//! `actbench env`: this machine and this build, and what about them disturbs measurements.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::stdout;
use crate::error::{Error, Result};
use crate::measure::conditions::{Counters, Level, Warning, during};
use crate::measure::environment::Environment;
use crate::measure::fingerprint::{Fingerprint, build_facts, machine_facts};
use crate::measure::page_cache;

/// How long the processors are watched for stolen time and the like.
const WATCHED: Duration = Duration::from_millis(250);

/// Show this machine and this build, and what about them disturbs measurements.
///
/// Each finding says what to do about it. A result file holds the same under `environment`.
#[derive(Args, Clone, Debug)]
#[command(
    before_help = "Examples:\n  \
    actbench env\n  \
    actbench env --files ./smollm2\n  \
    actbench env --json",
    after_help = "Exit status: 0 done, whatever was found; 2 bad usage."
)]
pub struct EnvArgs {
    /// Files, or folders of them, to look for in the page cache: a model's, a data set's
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Print what a result file would hold
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
            "does not exist; --files names files or folders to look for in the page cache",
        ));
    }
    let before = Counters::read(Path::new("/"));
    std::thread::sleep(WATCHED);
    let mut environment = Environment::read();
    for warning in during(&Counters::read(Path::new("/")).since(&before)) {
        let what = warning.what.replace("during the run", "in the last moment");
        environment.warnings.push(Warning { what, ..warning });
    }
    environment.warnings.extend(args.files.iter().filter_map(|path| page_cache::warning(path, 0)));
    let text = match args.json {
        true => serde_json::to_string_pretty(&environment).map_err(|error| Error::usage(error.to_string()))? + "\n",
        false => for_people(&environment),
    };
    stdout::text(text);
    Ok(())
}

fn for_people(environment: &Environment) -> String {
    let mut text = String::new();
    let fingerprint = Fingerprint::of(environment);
    let mut build = vec![("version", environment.version.clone())];
    if let Some(commit) = &environment.commit {
        let dirty = if environment.dirty == Some(true) { ", with changes" } else { "" };
        build.push(("commit", format!("{commit}{dirty}")));
    }
    build.extend(build_facts(environment));
    for (heading, digest, facts) in
        [("Machine", fingerprint.machine, machine_facts(environment)), ("Build", fingerprint.build, build)]
    {
        let _ = writeln!(text, "{heading} {digest}");
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty() && value != "-") {
            let _ = writeln!(text, "  {name:<16} {value}");
        }
    }
    let _ = writeln!(text, "Findings");
    if environment.warnings.is_empty() {
        let _ = writeln!(text, "  nothing that disturbs measurements was found");
    }
    for warning in &environment.warnings {
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
    fn people_see_the_machine_the_build_and_what_to_do() {
        let mut here = environment();
        here.warnings.push(Warning::new(Kind::Swap, "5 MB are in swap space", "free memory"));
        here.warnings.push(Warning::note(Kind::Virtual, "a virtual machine", "trust ratios"));
        insta::assert_snapshot!(for_people(&here), @r"
        Machine 9d0a4f3455d1ade4
          processor        A processor
          threads          2
          cores            2
          memory           1 GiB
          kernel           Linux 6.1
        Build a94cf2a2f4750904
          version          0.1.0
          profile          release
        Findings
          warning: 5 MB are in swap space
            free memory
          note: a virtual machine
            trust ratios
        ");
        here.warnings.clear();
        assert!(for_people(&here).ends_with("Findings\n  nothing that disturbs measurements was found\n"));
    }
}
