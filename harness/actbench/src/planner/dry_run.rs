//! Predicts all cells of a matrix, and the time that they need together.

use serde::Serialize;

use super::calibration::Calibration;
use super::calibration_source::CalibrationSource;
use super::calibration_steps::StepObserver;
use super::choice::{AvailableSpace, MethodChoice, choices};
use super::describe::{DescribedJob, describe};
use super::job::Job;
use super::prediction::{CasePrediction, predict};
use crate::case::RunConfig;
use crate::error::Result;
use crate::results::adaptive::StoppingRule;
use actbench_activations::model::config_only::find_model_spec;
use actbench_kernels::DType;

/// A cell whose predictions are wanted.
#[derive(Clone, Debug)]
pub struct CellSettings {
    /// The name of the cell.
    pub name: String,
    /// Its flags, for the list.
    pub command: Vec<String>,
    /// Its settings.
    pub config: RunConfig,
}

/// A cell with its predictions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellPlan {
    /// The name of the cell.
    #[serde(rename = "cell")]
    pub name: String,
    /// Its flags.
    pub command: Vec<String>,
    /// Available memory and disk space.
    #[serde(rename = "room")]
    pub space: AvailableSpace,
    /// Its cases.
    pub predictions: Vec<CasePrediction>,
    /// The method to use, for each task.
    pub choices: Vec<MethodChoice>,
}

/// The predictions of all cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DryRun {
    /// The cells, in the given order.
    pub cells: Vec<CellPlan>,
    /// Seconds that all repetitions and warm-ups need together.
    pub total_s: f64,
    /// Assumptions that the user should know.
    pub notes: Vec<String>,
}

impl DryRun {
    /// Number of cases that do not fit.
    pub fn cases_that_do_not_fit(&self) -> usize {
        let shortages = |cell: &CellPlan| {
            cell.predictions.iter().filter(|prediction| cell.space.shortage(prediction).is_some()).count()
        };
        self.cells.iter().map(shortages).sum()
    }
}

/// Calibrations of a dry run: rates are measured once for each model, type, batch size and class of sequence lengths.
struct Calibrations<'a> {
    source: &'a CalibrationSource,
    known: Vec<(CalibrationKey, Calibration)>,
}

#[derive(PartialEq)]
struct CalibrationKey {
    model: Option<String>,
    dtype: DType,
    batch_size: usize,
    /// The longest sequence, rounded up to a power of two: rates vary little within such a class.
    length_class: usize,
}

impl Calibrations<'_> {
    fn get(&mut self, config: &RunConfig, job: &Job, observer: &mut StepObserver<'_>) -> Result<Calibration> {
        let longest = job.longest().into_iter().max().unwrap_or(0) as usize;
        let key = CalibrationKey {
            model: config.model.clone(),
            dtype: config.dtype,
            batch_size: config.batch_size,
            length_class: longest.next_power_of_two(),
        };
        if let Some((_, calibration)) = self.known.iter().find(|(known, _)| *known == key) {
            return Ok(calibration.clone());
        }
        let calibration = self.source.calibrate(job, observer)?;
        self.known.push((key, calibration.clone()));
        Ok(calibration)
    }
}

/// Predicts `cells`. `next` is called with the index of each cell before it is planned, and `observer` before each step of a
/// calibration; their errors stop the dry run.
///
/// # Errors
/// Settings or data of a cell that are invalid, or a calibration that fails.
pub fn dry_run(
    cells: &[CellSettings],
    source: &CalibrationSource,
    quiet: bool,
    next: &mut dyn FnMut(usize) -> Result<()>,
    observer: &mut StepObserver<'_>,
) -> Result<DryRun> {
    let mut calibrations = Calibrations { source, known: Vec::new() };
    let mut plan = DryRun::default();
    for (index, cell) in cells.iter().enumerate() {
        next(index)?;
        let config = &cell.config;
        let spec = find_model_spec(config.model.as_deref(), quiet)?;
        let DescribedJob { job, notes } = describe(config, &spec, None, quiet)?;
        for note in notes {
            if !plan.notes.contains(&note) {
                plan.notes.push(note);
            }
        }
        let predictions = predict(&job, &calibrations.get(config, &job, observer)?)?;
        let space = AvailableSpace::for_case(&job.config, &source.directory).on(source.gpu);
        plan.total_s += predictions.iter().map(|prediction| seconds(prediction, config, space)).sum::<f64>();
        plan.cells.push(CellPlan {
            name: cell.name.clone(),
            command: cell.command.clone(),
            space,
            choices: choices(&predictions, space),
            predictions,
        });
    }
    Ok(plan)
}

/// Seconds of all observations of a case.
fn seconds(prediction: &CasePrediction, config: &RunConfig, space: AvailableSpace) -> f64 {
    if space.shortage(prediction).is_some() {
        // A case that does not fit is started once: its process loads the weights and then reports the shortage.
        return prediction.load_s;
    }
    // A run without a number of repetitions takes at least the minimum of the stopping rule.
    let repetitions = config.repetitions.unwrap_or(StoppingRule::default().min_blocks);
    (repetitions + config.warmup) as f64 * (prediction.load_s + prediction.elapsed_s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Method, Task};
    use crate::test_support::small_config;

    fn prediction(rss_bytes: u64) -> CasePrediction {
        CasePrediction {
            task: Task::Train,
            method: Method::Lazy,
            rss_bytes,
            heap_bytes: 0,
            gpu_bytes: 0,
            disk_bytes: 0,
            flops: 0,
            rows: 0,
            load_s: 2.0,
            extract_s: 3.0,
            train_eval_s: 4.0,
            elapsed_s: 7.0,
        }
    }

    #[test]
    fn case_that_does_not_fit_counts_loading_once() {
        let space = AvailableSpace { memory: Some(100), disk: None, gpu: None };
        let config = RunConfig { repetitions: Some(5), warmup: 1, ..small_config() };
        assert_eq!(seconds(&prediction(100), &config, space), 6.0 * 9.0);
        assert_eq!(seconds(&prediction(101), &config, space), 2.0);
        let adaptive = RunConfig { repetitions: None, warmup: 0, ..config };
        assert_eq!(seconds(&prediction(1), &adaptive, space), StoppingRule::default().min_blocks as f64 * 9.0);
    }
}
