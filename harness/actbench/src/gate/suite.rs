//! A suite: the cases of a gate, from a TOML file.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::case::{Method, Task};
use crate::error::{Error, Result};

/// What is gated where no file is named: the four cases of the main job on the embedded model, a fraction of a second each.
const BUILT_IN: &str = include_str!("suites/short.toml");

/// Flags of `actbench run` that the gate sets itself.
const RESERVED: [&str; 12] = [
    "--tasks",
    "--methods",
    "--repetitions",
    "--budget",
    "--warmup",
    "--output",
    "--json",
    "--quiet",
    "-q",
    "--ablate",
    "--timeout",
    "--cache-dir",
];

/// A suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Flags of `actbench run` for all cases.
    #[serde(default)]
    pub args: Vec<String>,
    /// The cases.
    #[serde(rename = "case", default)]
    pub cases: Vec<SuiteCase>,
}

/// A case of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteCase {
    /// Its name, unique in the suite.
    pub name: String,
    /// The task.
    pub task: Task,
    /// The method.
    pub method: Method,
    /// More flags of `actbench run`.
    #[serde(default)]
    pub args: Vec<String>,
}

impl Suite {
    /// The built-in suite.
    ///
    /// # Errors
    /// Never: a test reads it.
    pub fn built_in() -> Result<Self> {
        Self::parse(BUILT_IN, Path::new("the built-in suite"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is no suite, or has no case.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path).map_err(Error::io("read", path))?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let suite: Suite =
            toml::from_str(text).map_err(|error| Error::file(path, error.to_string().trim().to_owned()))?;
        if suite.cases.is_empty() {
            return Err(Error::file(path, "no [[case]]: a suite that measures nothing cannot pass"));
        }
        let mut names = BTreeSet::new();
        for case in &suite.cases {
            if case.name.trim().is_empty() || !names.insert(&case.name) {
                return Err(Error::file(path, format!("case '{}': every case needs a name of its own", case.name)));
            }
        }
        let all_flags = suite.args.iter().chain(suite.cases.iter().flat_map(|case| &case.args));
        for flag in all_flags {
            let name = flag.split('=').next().unwrap_or_default();
            if RESERVED.contains(&name) {
                return Err(Error::file(path, format!("args: {name} is set by the gate; leave it out")));
            }
        }
        Ok(suite)
    }

    /// The case of that name.
    pub fn case(&self, name: &str) -> Option<&SuiteCase> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// The arguments with which a program runs `case` once.
    pub fn arguments(&self, case: &SuiteCase) -> Vec<String> {
        let name = |value: &dyn std::fmt::Display| value.to_string();
        let fixed = ["run", "--quiet", "--json", "--warmup", "0", "--repetitions", "1", "--tasks"];
        let mut arguments: Vec<String> = fixed.iter().map(|&word| word.to_owned()).collect();
        arguments.extend([name(&case.task), "--methods".to_owned(), name(&case.method)]);
        arguments.extend(self.args.iter().chain(&case.args).cloned());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Suite> {
        Suite::parse(text, Path::new("suite.toml"))
    }

    #[test]
    fn the_built_in_suite_has_both_tasks_and_methods() {
        let suite = Suite::built_in().unwrap();
        let cases: BTreeSet<(Task, Method)> = suite.cases.iter().map(|case| (case.task, case.method)).collect();
        assert_eq!(cases.len(), 4);
        let arguments = suite.arguments(&suite.cases[0]);
        assert_eq!(arguments[0], "run");
        assert!(arguments.windows(2).any(|pair| pair == ["--repetitions", "1"]));
    }

    #[test]
    fn refusals_name_the_file_and_the_fault() {
        let case = "[[case]]\nname = \"a\"\ntask = \"train\"\nmethod = \"lazy\"\n";
        assert_eq!(parse(case).unwrap().cases.len(), 1);
        for (text, part) in [
            (String::new(), "measures nothing"),
            (format!("{case}{case}"), "a name of its own"),
            (format!("{case}speed = 1\n"), "unknown field"),
            (format!("args = [\"--repetitions=3\"]\n{case}"), "--repetitions is set by the gate"),
            (case.replace("lazy", "slow"), "slow"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("suite.toml"), "{error}");
        }
    }
}
