//! `--export FORM=PATH`: the report of a gate in the formats of other tools.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::stdout;
use crate::atomic_file::write_whole;
use crate::error::{Error, Result, from_pairgate};
use crate::gate_adapter::GATE_NAME;
use crate::own_output::OutputFormat;
use pairgate::GateReport;
use pairgate::export::{ExportFormat, export, markdown};

/// The variable that names the summary file of a GitHub job, which is shown on the page of the job.
pub const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// A format and its file; `-` is standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The form.
    pub form: ExportFormat,
    /// The file.
    pub path: PathBuf,
}

impl Export {
    /// The files that the export may replace.
    pub fn output_format(&self) -> &'static OutputFormat {
        match self.form {
            ExportFormat::Json => &OutputFormat::GATE,
            ExportFormat::Markdown => &OutputFormat::EXPORT_MARKDOWN,
            ExportFormat::Github => &OutputFormat::EXPORT_ANNOTATIONS,
            ExportFormat::Junit => &OutputFormat::EXPORT_JUNIT,
            ExportFormat::Bencher => &OutputFormat::EXPORT_BENCHER,
            ExportFormat::BenchmarkAction => &OutputFormat::EXPORT_ACTION,
        }
    }
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let forms: Vec<String> = ExportFormat::ALL.iter().map(ExportFormat::to_string).collect();
        let (form, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or_else(|| format!("write FORM=PATH, as in junit=gate.xml; forms are {}", forms.join(", ")))?;
        let form: ExportFormat =
            form.parse().map_err(|_| format!("no form '{form}'; there are {}", forms.join(", ")))?;
        Ok(Export { form, path: path.into() })
    }
}

/// Writes `report` in each format, and appends it as Markdown to the file `summary`.
///
/// # Errors
/// A file that cannot be written; earlier files are already written.
pub fn write_exports(report: &GateReport, exports: &[Export], summary: Option<&Path>) -> Result<()> {
    for Export { form, path } in exports {
        let text = export(*form, report, GATE_NAME).map_err(from_pairgate)?;
        if path == Path::new("-") {
            stdout::text(text);
        } else {
            write_whole(path, text.as_bytes())?;
        }
    }
    if let Some(summary) = summary {
        // Appended, because other steps of the job write to this file too.
        let mut file =
            OpenOptions::new().append(true).create(true).open(summary).map_err(Error::io("open", summary))?;
        file.write_all(format!("{}\n", markdown(report, GATE_NAME)).as_bytes()).map_err(Error::io("write", summary))?;
    }
    Ok(())
}

/// The summary file of the GitHub job, if this process runs in one.
pub fn step_summary() -> Option<PathBuf> {
    std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::gate_adapter::tests::gate_report as report;
    use crate::own_output::check_own_output;

    #[test]
    fn every_form_is_written_and_the_summary_is_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let exports: Vec<Export> = ExportFormat::ALL
            .iter()
            .map(|form| format!("{form}={}", directory.path().join(form.to_string()).display()).parse().unwrap())
            .collect();
        let summary = directory.path().join("summary.md");
        fs::write(&summary, "earlier\n").unwrap();
        write_exports(&report(), &exports, Some(&summary)).unwrap();
        write_exports(&report(), &[], Some(&summary)).unwrap();
        for export in &exports {
            assert!(fs::metadata(&export.path).unwrap().len() > 100, "{}", export.form);
            check_own_output(&export.path, "--export", export.output_format()).unwrap();
        }
        let text = fs::read_to_string(&summary).unwrap();
        assert!(text.starts_with("earlier\n"), "{text}");
        assert_eq!(text.matches("## actbench gate").count(), 2);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), exports.len() + 1);
        let nowhere = ["json=/proc/none/gate.json".parse().unwrap()];
        assert!(write_exports(&report(), &nowhere, None).unwrap_err().to_string().contains("/proc/none"));
    }

    #[test]
    fn invalid_export_lists_the_forms() {
        for bad in ["junit", "junit=", "xml=a", ""] {
            let error = bad.parse::<Export>().unwrap_err();
            assert!(error.contains("benchmark-action"), "{bad}: {error}");
        }
        let export: Export = "markdown=a=b.md".parse().unwrap();
        assert_eq!((export.form, export.path.to_str()), (ExportFormat::Markdown, Some("a=b.md")));
    }
}
