//! Where plans become activations: in memory, batch by batch, layer by layer, or in a file.

use std::collections::HashMap;
use std::path::Path;

use super::axes::Axis;
use super::cache_file::{CacheFile, CacheWriter};
use super::execute::{Assembler, Execution, Places};
use super::lazy_plan::Acts;
use super::sources::Source;
use super::tensor::ActTensor;
use crate::error::{Error, Result};

impl Acts {
    /// Computes the whole result. The model runs once a sample, whatever the plan.
    ///
    /// # Errors
    /// A failure of the model or of the file, or memory that is not there.
    pub fn realize(&self) -> Result<ActTensor> {
        let execution = self.execution()?;
        let samples = execution.plan.samples.clone();
        execution.tensor_of(&samples)
    }

    /// Computes the result `n` samples at a time, in order; the last piece may be smaller. The model runs once a
    /// sample even if an index was repeated; prefixes are shared within the samples that are computed together.
    ///
    /// # Errors
    /// `n` of 0. The iterator ends with the first error.
    pub fn iter_batches(&self, n: usize) -> Result<BatchIter> {
        if n == 0 {
            return Err(Error::usage("iter_batches(0): use at least 1 sample"));
        }
        let execution = self.execution()?;
        // Batches smaller than the model's are cut from one run of the model, not the model run on less.
        let window = match &self.source() {
            // With the rule `batch` off every sample is run for each window, so there is to be one.
            Source::Model(_) if execution.plan.all_samples => usize::MAX,
            Source::Model(source) => source.batch_size().div_ceil(n).saturating_mul(n),
            _ => n,
        };
        let mut last_use = HashMap::new();
        if matches!(self.source(), Source::Model(_)) {
            last_use.extend(execution.plan.samples.iter().enumerate().map(|(place, sample)| (*sample, place)));
        }
        Ok(BatchIter { execution, n, window, next: 0, buffer: None, last_use, held: HashMap::new() })
    }

    /// Computes the result one layer at a time: its number, and the result without axis `l`. From a file or from
    /// memory each layer is read on its own; a model runs once, so there all layers are computed with the first.
    ///
    /// # Errors
    /// No axis `l`; from a model, what [`Acts::realize`] can fail with.
    pub fn iter_layers(&self) -> Result<LayerIter> {
        if !self.axes().has(Axis::Layer) {
            return Err(Error::usage(format!("iter_layers: there is no axis l in {}", self.axes())));
        }
        let plan = match self.source() {
            Source::Model(_) => Acts::from_tensor(self.realize()?),
            _ => self.clone(),
        };
        Ok(LayerIter { ids: plan.layer_ids().to_vec().into_iter(), plan })
    }

    /// Computes the result into a cache file, batch by batch. A file that is there is replaced once the new one is
    /// whole. What a killed process left of this very plan is checked and gone on with: the model runs on the rest.
    ///
    /// # Errors
    /// A failure of the model or of the disk, or another process writing the same file. Nothing is left behind then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let execution = self.execution()?;
        let (path, signature, fingerprint) = (path.as_ref(), self.signature().clone(), self.fingerprint()?);
        let mut writer = match self.source() {
            Source::Model(_) => CacheWriter::resume(path, signature, fingerprint)?,
            // Copying again is cheaper than a journal.
            Source::Tensor(_) | Source::CacheFile(_) => CacheWriter::create(path, signature, fingerprint)?,
        };
        let places = Places::of(&execution.plan.samples);
        let is_missing = |sample: &usize| !places.of_sample(*sample).all(|place| writer.has(place));
        let missing: Vec<usize> = places.distinct.iter().copied().filter(is_missing).collect();
        if !missing.is_empty() {
            execution.visit(&missing, &mut |numbers, tensor| {
                let wanted = numbers.iter().enumerate();
                let pairs: Vec<(usize, usize)> = wanted
                    .flat_map(|(index, number)| places.of_sample(*number).map(move |place| (place, index)))
                    .collect();
                writer.put(&pairs, &tensor)
            })?;
        }
        writer.finish()
    }

    /// Computes the result once and gives a plan that starts from it: in memory, or in a file at `path`.
    ///
    /// A file that is there is used if this very plan wrote it.
    ///
    /// # Errors
    /// A file that is there and holds something else, and whatever [`Acts::realize`] or [`Acts::save`] fail with.
    pub fn cache(&self, path: Option<&Path>) -> Result<Acts> {
        let Some(path) = path else {
            return Ok(Acts::from_tensor(self.realize()?));
        };
        let exists = path.try_exists().map_err(Error::io("find", path))?;
        if exists {
            check_same_plan(&CacheFile::open(path)?, self)?;
        } else {
            self.save(path)?;
        }
        Acts::load(path)
    }
}

/// Refuses a file that another plan wrote, naming what differs.
fn check_same_plan(file: &CacheFile, plan: &Acts) -> Result<()> {
    let wanted = plan.fingerprint()?;
    let differences = file.fingerprint().differences(&wanted);
    if differences.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> =
        differences.iter().map(|(part, there, here)| format!("{part} (file: {there}, plan: {here})")).collect();
    Err(Error::file(
        file.path(),
        format!(
            "holds other activations than this plan's, they differ in {}; delete it or use another path",
            listed.join(", ")
        ),
    ))
}

/// Pieces of a result in order; see [`Acts::iter_batches`].
#[derive(Debug)]
pub struct BatchIter {
    execution: Execution,
    n: usize,
    /// Samples that are computed together, a multiple of `n`.
    window: usize,
    /// First sample of the next piece.
    next: usize,
    /// What was computed together last, and its first sample.
    buffer: Option<(usize, ActTensor)>,
    /// For a model: where each sample of the source stands last in the result.
    last_use: HashMap<usize, usize>,
    /// Results of samples that stand in a later window once more.
    held: HashMap<usize, ActTensor>,
}

impl BatchIter {
    fn next_piece(&mut self) -> Result<ActTensor> {
        let end = (self.next + self.n).min(self.execution.plan.samples.len());
        let (first, tensor) = match self.buffer.take() {
            Some(buffer) => buffer,
            None => (self.next, self.compute_window()?),
        };
        let last = first + tensor.signature().n_samples;
        let piece = tensor.slice_batch((self.next - first) as i64..(end - first) as i64)?;
        // Windows are multiples of pieces, so a window ends where a piece does.
        self.buffer = (end < last).then_some((first, tensor));
        self.next = end;
        Ok(piece)
    }

    fn compute_window(&mut self) -> Result<ActTensor> {
        let all = &self.execution.plan.samples;
        let end = self.next.saturating_add(self.window).min(all.len());
        let samples = &all[self.next..end];
        if self.last_use.is_empty() {
            return self.execution.tensor_of(samples);
        }
        let places = Places::of(samples);
        let mut assembler = Assembler::new(self.execution.result.with_samples(samples.len()))?;
        let (held, new): (Vec<usize>, Vec<usize>) =
            places.distinct.iter().partition(|sample| self.held.contains_key(sample));
        for sample in held {
            if let Some(tensor) = self.held.get(&sample) {
                places.of_sample(sample).try_for_each(|place| assembler.put(place, tensor, 0))?;
            }
        }
        let stands_later = |sample: &usize| self.last_use.get(sample).is_some_and(|last| *last >= end);
        self.held.retain(|sample, _| stands_later(sample));
        let computed = self.execution.tensor_of(&new)?;
        for (index, sample) in new.iter().enumerate() {
            places.of_sample(*sample).try_for_each(|place| assembler.put(place, &computed, index))?;
            if stands_later(sample) {
                self.held.insert(*sample, computed.slice_batch(vec![index as i64])?.detached());
            }
        }
        assembler.finish()
    }
}

impl Iterator for BatchIter {
    type Item = Result<ActTensor>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.execution.plan.samples.len() {
            return None;
        }
        let piece = self.next_piece();
        if piece.is_err() {
            self.next = self.execution.plan.samples.len();
        }
        Some(piece)
    }
}

/// Layers of a result in order; see [`Acts::iter_layers`].
#[derive(Debug)]
pub struct LayerIter {
    plan: Acts,
    ids: std::vec::IntoIter<usize>,
}

impl Iterator for LayerIter {
    type Item = Result<(usize, ActTensor)>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.ids.next()?;
        Some(self.plan.select_layer(id).and_then(|layer| layer.realize()).map(|tensor| (id, tensor)))
    }
}
