//! Output files that may be replaced: those that the same program wrote before. A file of other content is never overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::atomic_file;
use crate::error::{Error, Result};

/// Bytes of a text in which its signs are.
const TEXT_HEAD: u64 = 4096;

/// A kind of output file, and how a file of that kind is recognized.
#[derive(Clone, Copy, Debug)]
pub struct OutputFormat {
    program: &'static str,
    description: &'static str,
    signs: Signs,
}

/// The signs of an own file.
#[derive(Clone, Copy, Debug)]
pub enum Signs {
    /// A JSON object whose `schema` begins with one of these.
    Schema(&'static [&'static str]),
    /// A JSON object with these keys.
    Keys(&'static [&'static str]),
    /// A text that begins with the first, and has the second in its first bytes.
    Text(&'static str, &'static str),
    /// A file of which this is true.
    File(fn(File) -> io::Result<bool>),
}

impl OutputFormat {
    /// The format of a file of `program`, with a description for errors such as "a result file".
    pub const fn new(program: &'static str, description: &'static str, signs: Signs) -> Self {
        OutputFormat { program, description, signs }
    }

    /// The description for errors.
    pub const fn description(&self) -> &'static str {
        self.description
    }
}

/// Checks that `path`, which `flag` names, can be written, and that no file of other content would be replaced: before hours are
/// spent on its content. An empty file may be replaced, and devices and pipes are written into.
///
/// # Errors
/// The path is a directory, its directory does not exist or cannot be written to, or it is a file of another format.
pub fn check_own_output(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    refuse_dash(path, flag)?;
    check_writable(path, flag, format.description)?;
    check_replaceable(path, flag, format)
}

/// Refuses the path `-`, by which many programs mean standard output: a file of that name is rarely meant, and hard to remove.
///
/// # Errors
/// The path is `-`.
pub fn refuse_dash(path: &Path, flag: &str) -> Result<()> {
    if path != Path::new("-") {
        return Ok(());
    }
    Err(Error::usage(format!("{flag} -: write /dev/stdout for standard output, or ./- for the name -")))
}

/// The second part of [`check_own_output`], for a file in a directory that `flag` names.
///
/// # Errors
/// An existing file of another format, or one that cannot be read.
pub fn check_replaceable(path: &Path, flag: &str, format: &OutputFormat) -> Result<()> {
    // A file that cannot be found is new, or its name is refused when it is written.
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(());
    }
    let recognized =
        File::open(path).and_then(|file| recognizes(format.signs, file)).map_err(Error::io("read", path))?;
    if recognized {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!(
            "exists and is not {} of {}, so it is not replaced ({flag}); use another path, or remove the file first",
            format.description, format.program
        ),
    ))
}

/// Checks that the file `description`, which `flag` names, can be written to `path`.
fn check_writable(path: &Path, flag: &str, description: &str) -> Result<()> {
    if path.is_dir() {
        return Err(Error::file(path, format!("is a directory; {flag} needs a file name for {description}")));
    }
    match atomic_file::check_writable(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Err(Error::file(
            path,
            format!(
                "cannot be written ({flag}): the directory {} does not exist; create it or use another path",
                directory_of(path).display()
            ),
        )),
        // The message of the error names the temporary file, which the user has never seen; the kind is enough.
        Err(Error::Io { source, .. }) => {
            Err(Error::file(path, format!("cannot be written ({flag}): {}; use another path", source.kind())))
        }
        checked => checked,
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    }
}

fn recognizes(signs: Signs, file: File) -> io::Result<bool> {
    match signs {
        Signs::Schema(prefixes) => {
            let head: Option<SchemaOnly> = json(file)?;
            let schema = head.and_then(|head| Some(head.schema?.as_str()?.to_owned())).unwrap_or_default();
            Ok(prefixes.iter().any(|prefix| schema.starts_with(prefix)))
        }
        Signs::Keys(keys) => {
            let object: Option<BTreeMap<String, IgnoredAny>> = json(file)?;
            Ok(object.is_some_and(|object| keys.iter().all(|key| object.contains_key(*key))))
        }
        Signs::File(is_own) => is_own(file),
        Signs::Text(start, part) => {
            let mut head = Vec::new();
            file.take(TEXT_HEAD).read_to_end(&mut head)?;
            let head = String::from_utf8_lossy(&head);
            // An export of nothing has no sign, and nothing to lose.
            let is_empty = matches!(head.trim(), "" | "{}" | "[]");
            Ok(is_empty || head.trim_start().starts_with(start) && head.contains(part))
        }
    }
}

/// The one key that is read of a file with a schema.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: Option<Value>,
}

/// The JSON document `file`; none if it is another one.
fn json<T: DeserializeOwned>(file: File) -> io::Result<Option<T>> {
    match serde_json::from_reader(BufReader::new(file)) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_io() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: OutputFormat = OutputFormat::new("a-program", "a report", Signs::Schema(&["a-program/"]));

    #[test]
    fn file_of_another_program_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        for (bytes, is_own) in [
            ("{\"schema\": \"a-program/1\"}", true),
            ("{\"schema\": \"another/1\"}", false),
            ("{\"schema\": 1}", false),
            ("notes\n", false),
            ("", true),
        ] {
            fs::write(&path, bytes).unwrap();
            let checked = check_own_output(&path, "--output", &REPORT).map_err(|error| error.to_string());
            assert_eq!(checked.is_ok(), is_own, "{bytes}: {checked:?}");
            if let Err(message) = checked {
                let end = "report.json: exists and is not a report of a-program, so it is not replaced (--output); use \
                           another path, or remove the file first";
                assert!(message.ends_with(end), "{message}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), bytes, "the check changes nothing");
        }
    }

    #[test]
    fn new_files_and_devices_are_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        check_own_output(&missing, "--output", &REPORT).unwrap();
        assert!(!missing.exists());
        check_own_output(Path::new("/dev/null"), "--output", &REPORT).unwrap();
    }

    #[test]
    fn dash_is_refused_with_the_name_of_standard_output() {
        let refused = check_own_output(Path::new("-"), "--output", &REPORT).unwrap_err();
        assert!(refused.to_string().starts_with("--output -: write /dev/stdout for standard output"), "{refused}");
        assert_eq!(refused.exit_code(), 2);
        refuse_dash(Path::new("./-"), "--output").unwrap();
    }

    #[test]
    fn directory_and_missing_directory_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| check_own_output(path, "--output", &REPORT).unwrap_err().to_string();
        assert!(refused(directory.path()).ends_with("is a directory; --output needs a file name for a report"));
        let absent = refused(&directory.path().join("absent/report.json"));
        assert!(
            absent.contains("cannot be written (--output): the directory") && absent.contains("absent"),
            "{absent}"
        );
    }
}
