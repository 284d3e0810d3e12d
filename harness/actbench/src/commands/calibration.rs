//! Rates for predictions on the command line: where they come from, and what is printed while they are measured.

use std::path::{Path, PathBuf};

use clap::Args;

use super::result_files;
use crate::error::{Error, Result};
use crate::measure::conditions::{conditions, short_line, warnings};
use crate::planner::calibration_source::CalibrationSource;
use crate::planner::calibration_steps::CalibrationStep;
use crate::planner::published_gpu;
use crate::progress::ProgressDisplay;
use crate::runner::interrupt;
use pairgate::stderr_line;

/// The source of rates for predicted times.
#[derive(Args, Clone, Debug)]
pub struct CalibrationArgs {
    /// Use the rates of these result files or directories, for equal model and type; repeatable. `h100` stands for the
    /// published rates of a GPU of this type, which need not be in this machine
    #[arg(long, value_name = "RESULTS|GPU")]
    pub calibrate: Vec<PathBuf>,
}

impl CalibrationArgs {
    /// The source for calibrations of jobs whose cache files are in `directory`.
    ///
    /// # Errors
    /// A result file that cannot be read, or a GPU beside other sources.
    pub fn source(&self, directory: &Path) -> Result<CalibrationSource> {
        let gpu = self.calibrate.iter().find_map(|name| published_gpu::find(name.to_str()?));
        if let Some(gpu) = gpu
            && self.calibrate.len() > 1
        {
            let name = gpu.name;
            return Err(Error::usage(format!(
                "--calibrate {name} is the only source of rates; for a file of that name, pass ./{name}"
            )));
        }
        let from_files = gpu.is_none() && !self.calibrate.is_empty();
        Ok(CalibrationSource {
            results: if from_files { Some(result_files::read(&self.calibrate)?) } else { None },
            gpu,
            directory: directory.to_path_buf(),
        })
    }
}

/// Warns on standard error about conditions that disturb measurements, as `run` does. Called before the measurement, which is a
/// load itself.
pub fn warn_about_conditions() {
    if let Some(line) = short_line(&warnings(&conditions())) {
        stderr_line!("warning: {line}; predicted times are based on rates measured now");
    }
}

/// The progress of a calibration on standard error: one line that is replaced on a terminal, a line per step when piped, nothing
/// when quiet.
pub struct CalibrationProgress {
    display: ProgressDisplay,
}

impl CalibrationProgress {
    /// Progress of one calibration or several.
    pub fn new(quiet: bool) -> Self {
        CalibrationProgress { display: ProgressDisplay::new("{msg} {elapsed}", None, quiet) }
    }

    /// A step begins.
    ///
    /// # Errors
    /// An interrupt.
    pub fn begin(&self, step: CalibrationStep) -> Result<()> {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let line = step_line(step);
        match self.display.bar() {
            Some(bar) => bar.set_message(line),
            None => self.display.line(|| line),
        }
        Ok(())
    }
}

fn step_line(step: CalibrationStep) -> String {
    format!("measuring the rates of this machine: {} of {}, {}", step.position, step.total, step.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_its_position() {
        let step = CalibrationStep { position: 2, total: 7, name: "padded batches" };
        assert_eq!(step_line(step), "measuring the rates of this machine: 2 of 7, padded batches");
    }
}
