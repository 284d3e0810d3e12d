//! A suite: the cases of a gate, from a TOML file.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::case::{Method, Task};
use crate::error::{Error, Result};

/// The default suite: the four cases of the main job on the embedded model, a fraction of a second each.
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

/// Added to the parser's message that a key is missing.
const CASE_KEYS: &str = "; every [[case]] has a name, a task (train or sweep) and a method (eager, lazy or lazy-disk), \
                         and may have args, a list of flags of `actbench run`";

/// The cases of a gate.
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
    /// The file cannot be read, is not a suite, or has no case.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path).map_err(Error::io("read", path))?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let suite: Suite = toml::from_str(text).map_err(|error| {
            let keys = if error.message().starts_with("missing field") { CASE_KEYS } else { "" };
            Error::file(path, format!("{}{keys}", error.to_string().trim()))
        })?;
        if suite.cases.is_empty() {
            return Err(Error::file(path, "no [[case]]: a suite that measures nothing cannot pass"));
        }
        let mut names = BTreeSet::new();
        for case in &suite.cases {
            if case.name.trim().is_empty() || !names.insert(&case.name) {
                return Err(Error::file(path, format!("case '{}': every case needs a unique name", case.name)));
            }
        }
        let all_flags = suite.args.iter().chain(suite.cases.iter().flat_map(|case| &case.args));
        for flag in all_flags {
            let name = flag.split('=').next().unwrap_or_default();
            if RESERVED.contains(&name) {
                return Err(Error::file(path, format!("args: {name} is set by the gate; remove it")));
            }
        }
        Ok(suite)
    }

    /// The case with that name.
    pub fn case(&self, name: &str) -> Option<&SuiteCase> {
        self.cases.iter().find(|case| case.name == name)
    }

    /// The arguments for one run of `case`.
    pub fn arguments(&self, case: &SuiteCase) -> Vec<String> {
        let fixed = ["run", "--quiet", "--json", "--warmup", "0", "--repetitions", "1", "--tasks"];
        let mut arguments: Vec<String> = fixed.iter().map(|&word| word.to_owned()).collect();
        arguments.extend([case.task.to_string(), "--methods".to_owned(), case.method.to_string()]);
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
    fn built_in_suite_has_both_tasks_and_methods() {
        let suite = Suite::built_in().unwrap();
        let cases: BTreeSet<(Task, Method)> = suite.cases.iter().map(|case| (case.task, case.method)).collect();
        assert_eq!(cases.len(), 4);
        let arguments = suite.arguments(&suite.cases[0]);
        assert_eq!(arguments[0], "run");
        assert!(arguments.windows(2).any(|pair| pair == ["--repetitions", "1"]));
    }

    #[test]
    fn invalid_suites_are_refused_by_name() {
        let case = "[[case]]\nname = \"a\"\ntask = \"train\"\nmethod = \"lazy\"\n";
        assert_eq!(parse(case).unwrap().cases.len(), 1);
        for (text, part) in [
            (String::new(), "measures nothing"),
            (format!("{case}{case}"), "a unique name"),
            (format!("{case}speed = 1\n"), "unknown field"),
            (format!("args = [\"--repetitions=3\"]\n{case}"), "--repetitions is set by the gate"),
            (case.replace("lazy", "slow"), "slow"),
            (
                case.replace("task = \"train\"\n", ""),
                "missing field `task`; every [[case]] has a name, a task (train or",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("suite.toml"), "{error}");
        }
    }
}
