//! The steps of a calibration, announced before each of them.

use crate::error::Result;

/// A step that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalibrationStep {
    /// Its position, from 1 on.
    pub position: usize,
    /// Number of steps.
    pub total: usize,
    /// What is measured.
    pub name: &'static str,
}

/// Receives each step of a calibration before it begins; its error stops the calibration.
pub type StepObserver<'a> = dyn FnMut(CalibrationStep) -> Result<()> + 'a;

/// Counts the steps of a calibration.
pub struct CalibrationSteps<'a> {
    begun: usize,
    total: usize,
    observer: &'a mut StepObserver<'a>,
}

impl<'a> CalibrationSteps<'a> {
    /// `total` steps, none of them begun.
    pub fn new(total: usize, observer: &'a mut StepObserver<'a>) -> Self {
        CalibrationSteps { begun: 0, total, observer }
    }

    /// The next step begins; `name` is what it measures.
    ///
    /// # Errors
    /// That of the observer.
    pub fn begin(&mut self, name: &'static str) -> Result<()> {
        self.begun += 1;
        (self.observer)(CalibrationStep { position: self.begun, total: self.total, name })
    }
}
